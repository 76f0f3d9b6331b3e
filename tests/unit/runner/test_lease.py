"""A runner whose agent does not renew its lease ends, and everything in the container with it."""

from __future__ import annotations

from pathlib import Path

import pytest

from phalanx_runner import lease, messages
from phalanx_runner.conf import RunnerConf
from phalanx_runner.messages import FENCED_CODE, Exited, Ready, RunnerError, Started
from tests.unit.runner.box import Box, Boxes

CONF = RunnerConf("k1", grace_s=5)
# Deaf to TERM, with a child that is, too.
DEAF = "trap '' TERM; sh -c 'trap \"\" TERM; while :; do sleep 1; done' & while :; do sleep 1; done"


def put(material: Path, from_now_s: float) -> float:
    """Write a lease as an agent does; when it ends."""
    material.mkdir(exist_ok=True)
    until_s = lease.now_s() + from_now_s
    fresh = material / "lease.new"
    fresh.write_text(lease.spell(until_s))
    fresh.rename(material / lease.FILE)
    return until_s


async def start(box: Box) -> None:
    await box.wait(Ready)
    box.send(messages.start())
    await box.wait(Started)


async def test_a_lease_that_is_not_renewed_ends_everything_at_its_end(boxes: Boxes) -> None:
    until_s = put(boxes.material, 1.0)
    async with boxes.open(CONF, "sh", "-c", DEAF) as box:
        await start(box)
        error = await box.wait(RunnerError)

        assert FENCED_CODE == await box.code()
        assert "lease" == error.what
        assert 0 <= lease.now_s() - until_s < 5


async def test_a_lease_that_is_renewed_in_time_ends_later(boxes: Boxes) -> None:
    put(boxes.material, 1.0)
    async with boxes.open(CONF, "sh", "-c", DEAF) as box:
        await start(box)
        until_s = put(boxes.material, 2.0)

        assert FENCED_CODE == await box.code()
        assert lease.now_s() >= until_s


@pytest.mark.parametrize("command", [("true",), ()], ids=["run", "idle"])
async def test_a_container_whose_lease_is_over_starts_nothing(
    boxes: Boxes, command: tuple[str, ...]
) -> None:
    put(boxes.material, -10.0)
    async with boxes.open(CONF, *command) as box:
        assert FENCED_CODE == await box.code()
        assert [] == [event for event in box.seen if isinstance(event, Started)]


async def test_a_command_that_has_ended_keeps_its_code_when_the_lease_ends(boxes: Boxes) -> None:
    put(boxes.material, 1.0)
    async with boxes.open(CONF, "sh", "-c", "exit 7") as box:
        await start(box)
        await box.wait(Exited)
        await box.wait(RunnerError)

        assert 7 == await box.code()


async def test_a_lease_that_was_there_and_is_gone_ends_all_the_same(boxes: Boxes) -> None:
    put(boxes.material, 1.0)
    async with boxes.open(CONF, "sh", "-c", DEAF) as box:
        await start(box)
        (boxes.material / lease.FILE).unlink()

        assert FENCED_CODE == await box.code()


def test_a_lease_is_spelt_in_milliseconds_and_read_back() -> None:
    assert "12345678\n" == lease.spell(12345.6789)
    assert 12345.678 == lease.parse("12345678\n")
