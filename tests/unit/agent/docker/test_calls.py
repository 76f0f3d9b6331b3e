"""What is done when an engine refuses, breaks off, or does not know what it has done."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from phalanx_agent.core.recipe import Image
from phalanx_agent.docker import call
from phalanx_agent.docker.engine import DockerEngine
from phalanx_agent.docker.port import REMOVED, Conflict, Unavailable
from phalanx_wire import names
from phalanx_wire.ids import KernelId
from tests.support.engine_stage import SESSION, Wanted, each, listening
from tests.support.hunger import no_more_files
from tests.support.scripted_engine import VERSION, Answer, Script, breaks, says, waits

IMAGE = Image("sha256:" + "a" * 64)
NETWORK = "b" * 64
OVERLAY = "o" * 25
ONE, TWO = "1" * 64, "2" * 64
NAME = names.container_name(SESSION, 1, "main1")


def container(container_id: str, spec_hash: str = "hash") -> dict[str, Any]:
    return {"Id": container_id, "Config": {"Labels": {names.LABEL_SPEC_HASH: spec_hash}}}


# -------------------------------------------------------------------- kinds of failure


async def test_an_engine_that_is_not_there_never_got_the_call(tmp_path: Path) -> None:
    async with DockerEngine.open(str(tmp_path / "none.sock")) as docker:
        with pytest.raises(Unavailable) as failure:
            await docker.info()

    assert ("not_sent", 0) == (failure.value.kind, failure.value.status)


def _nothing(_place: Path) -> None:
    """Nothing is there."""


def _nobody(place: Path) -> None:
    """A socket that a dead engine has left."""
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(place))


PLACES: dict[str, Callable[[Path], object]] = {
    "missing": _nothing,
    "a file": Path.touch,
    "a folder": Path.mkdir,
    "left by a dead engine": _nobody,
}


@pytest.mark.parametrize("what", PLACES)
async def test_what_is_no_engines_socket_is_said(tmp_path: Path, what: str) -> None:
    place = tmp_path / "docker.sock"
    PLACES[what](place)

    async with DockerEngine.open(str(place)) as docker:
        with pytest.raises(Unavailable, match="does not answer on its socket; is it running") as no:
            await docker.info()

    assert "not_sent" == no.value.kind


async def test_a_socket_that_we_may_not_use_is_said(script: Script, docker: DockerEngine) -> None:
    place = Path(docker._line.socket)
    place.chmod(0)
    root = os.geteuid() == 0
    if root:
        os.seteuid(65534)
    try:
        with pytest.raises(Unavailable, match="may not use the engine's socket") as failure:
            await docker.info()
    finally:
        if root:
            os.seteuid(0)

    assert "not_sent" == failure.value.kind


async def test_an_agent_without_descriptors_does_not_hold_it_against_its_engine(
    script: Script, docker: DockerEngine
) -> None:
    with no_more_files(), pytest.raises(Unavailable, match="Too many open files") as failure:
        await docker.info()

    assert "not_sent" == failure.value.kind
    assert "is it running" not in str(failure.value)


async def test_a_broken_connection_leaves_open_what_was_done(
    script: Script, docker: DockerEngine
) -> None:
    script.on(f"POST containers/{ONE}/kill", breaks())

    with pytest.raises(Unavailable) as failure:
        await docker.kill(ONE, "SIGKILL")

    assert "unknown" == failure.value.kind


async def test_a_silent_engine_is_not_waited_for_for_ever(
    script: Script, docker: DockerEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    script.on(f"GET containers/{ONE}/json", waits(asyncio.Event(), says(200)))

    with pytest.raises(Unavailable) as failure:
        async with asyncio.timeout(10):
            await docker._line.ask(
                "GET", f"containers/{ONE}/json", doing="looking at it", within_s=0.05
            )

    assert "unknown" == failure.value.kind
    assert "did not answer in time" in failure.value.hint


async def test_an_engine_that_is_too_old_is_named(script: Script, docker: DockerEngine) -> None:
    script._answers["GET version"].clear()
    script.on("GET version", says(200, {"Version": "19.03", "ApiVersion": "1.40"}))

    with pytest.raises(Unavailable) as failure:
        await docker.info()

    assert "1.41" in failure.value.hint


async def test_an_engine_that_is_too_new_is_named(script: Script, docker: DockerEngine) -> None:
    oldest = f"1.{call.NEWEST_API[1] + 1}"
    script._answers["GET version"].clear()
    said = {"Version": "99.0", "ApiVersion": "1.99", "MinAPIVersion": oldest}
    script.on("GET version", says(200, said))

    with pytest.raises(Unavailable, match=r"engine 99\.0") as failure:
        await docker.info()

    ours = f"1.{call.OLDEST_API[1]} to 1.{call.NEWEST_API[1]}"
    assert (
        f"It speaks {oldest} to 1.99, this agent {ours}; use another version of one of them."
        == (failure.value.hint)
    )


async def test_an_answer_that_is_no_json_is_a_fault_of_the_engine(
    script: Script, docker: DockerEngine
) -> None:
    script.on("GET networks", says(200, {"not": "a list"}))
    script.on("GET containers/json", says(200, []))

    with pytest.raises(Unavailable):
        await docker._line.ask("GET", "../../info?", doing="asking for something else")


INFO = {"NCPU": 4, "MemTotal": 1 << 30}


@pytest.mark.parametrize(
    ("version", "info"),
    [
        ({}, INFO),
        ([], INFO),
        ({"Version": "27.0", "ApiVersion": None}, INFO),
        (VERSION, {}),
        (VERSION, {"NCPU": "four", "MemTotal": 1}),
        (VERSION, []),
    ],
)
async def test_an_engine_that_leaves_out_what_it_is_makes_no_sense(
    script: Script, docker: DockerEngine, version: Any, info: Any
) -> None:
    script._answers["GET version"].clear()
    script.on("GET version", says(200, version))
    script.on("GET info", says(200, info))
    script.on("GET networks/bridge", says(404, "no such network"))

    with pytest.raises(Unavailable, match="makes no sense"):
        await docker.info()


@pytest.mark.parametrize(
    "seen", [{}, [], {"Id": ONE, "State": "running"}, {"Id": ONE, "State": {"Status": "exited"}}]
)
async def test_a_container_that_is_told_in_part_makes_no_sense(
    script: Script, docker: DockerEngine, seen: Any
) -> None:
    script.on(f"GET containers/{ONE}/json", says(200, seen))

    with pytest.raises(Unavailable, match="makes no sense"):
        await docker.inspect(ONE)


# -------------------------------------------------------------------- containers


async def test_a_container_whose_creation_was_not_answered_is_found_again(
    script: Script, docker: DockerEngine
) -> None:
    script.on("POST containers/create", breaks())
    script.on(f"GET containers/{NAME}/json", says(200, container(TWO)))

    assert TWO == await docker.create_container(Wanted(IMAGE, NETWORK).recipe())


async def test_a_creation_that_did_not_happen_is_not_invented(
    script: Script, docker: DockerEngine
) -> None:
    script.on("POST containers/create", breaks())
    script.on(f"GET containers/{NAME}/json", says(404, "no such container"))

    with pytest.raises(Unavailable) as failure:
        await docker.create_container(Wanted(IMAGE, NETWORK).recipe())

    assert "unknown" == failure.value.kind


async def test_a_name_that_somebody_else_holds_is_a_conflict(
    script: Script, docker: DockerEngine
) -> None:
    script.on("POST containers/create", says(409, "the name is in use"))
    script.on(f"GET containers/{NAME}/json", says(200, container(TWO, "another")))

    with pytest.raises(Conflict, match=NAME):
        await docker.create_container(Wanted(IMAGE, NETWORK).recipe())


async def test_a_container_gets_no_more_than_its_recipe(
    script: Script, docker: DockerEngine
) -> None:
    script.on("POST containers/create", says(201, {"Id": ONE}))
    await docker.create_container(Wanted(IMAGE, OVERLAY).recipe())
    host = script.bodies[-1]["HostConfig"]

    assert (["ALL"], ["no-new-privileges"], False, False) == (
        host["CapDrop"],
        host["SecurityOpt"],
        host["Init"],
        host["AutoRemove"],
    )
    assert not {"NET_RAW", "NET_ADMIN", "SYS_ADMIN", "MKNOD", "SETFCAP"} & set(host["CapAdd"])
    assert (128 << 20, 128 << 20, 64) == (host["Memory"], host["MemorySwap"], host["PidsLimit"])


async def test_on_the_hosts_network_it_has_no_address_and_no_port_of_the_hosts_services(
    script: Script, docker: DockerEngine
) -> None:
    script.on("POST containers/create", says(201, {"Id": ONE}))
    recipe = replace(Wanted(IMAGE, "host").recipe(), address="", egress=False)

    await docker.create_container(recipe)
    body = script.bodies[-1]

    assert ("host", "private") == (body["HostConfig"]["NetworkMode"], body["HostConfig"]["IpcMode"])
    assert {} == body["NetworkingConfig"]["EndpointsConfig"]
    assert "NET_BIND_SERVICE" not in body["HostConfig"]["CapAdd"]
    assert recipe.host_name == body["Hostname"]


async def test_a_removal_that_is_in_progress_is_waited_for(
    script: Script, docker: DockerEngine
) -> None:
    in_progress = says(409, "removal of container is already in progress")
    script.on(f"DELETE containers/{ONE}", in_progress, in_progress, says(404, "gone"))

    await docker.remove(ONE)

    assert 3 == script.count(f"DELETE containers/{ONE}")


async def test_what_a_killed_agent_left_when_it_read_an_image_is_removed_once(
    script: Script, docker: DockerEngine
) -> None:
    left = {"Id": ONE, "Labels": {"io.phalanx.looks-at": IMAGE.id}}
    script.on("GET containers/json", says(200, [left]), says(200, []), says(200, []))
    script.on("GET networks", says(200, []))
    script.on(f"DELETE containers/{ONE}", says(204))

    await docker.inventory()
    await docker.inventory()

    assert 1 == script.count(f"DELETE containers/{ONE}")
    assert 3 == script.count("GET containers/json")


# -------------------------------------------------------------------- events


async def test_events_begin_again_when_their_stream_has_ended(
    script: Script, docker: DockerEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("phalanx_agent.docker.engine._REOPEN_S", (0.0, 0.0))
    kernel = KernelId(f"{SESSION}-1-0")
    message = {
        "Action": "die",
        "Actor": {"ID": ONE, "Attributes": {names.LABEL_KERNEL: kernel}},
    }
    script.on("GET events", says(200, message), breaks(), says(200, message))

    async with listening(docker) as ears:
        await ears.action(ONE, "die", kernel)
        await ears.reopened()
        await ears.action(ONE, "die", kernel)


async def test_what_is_no_event_of_ours_does_not_end_the_stream_for_good(
    script: Script, docker: DockerEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("phalanx_agent.docker.engine._REOPEN_S", (0.0, 0.0))
    script.on("GET events", says(200, {"Action": "die"}), says(200, {}))

    async with listening(docker) as ears:
        for _ in range(3):
            await ears.reopened()


def test_calls_are_bounded_below_the_patience_of_a_barrier() -> None:
    assert call.CALL_S <= 60.0


# -------------------------------------------------------------------- output


def prints(*texts: bytes, second: int = 5) -> Answer:
    """Entries of a container's log, framed as engines do."""

    async def answer(_request: web.Request) -> web.StreamResponse:
        entries = [b"2026-01-02T03:04:%02d.000000006Z " % second + text for text in texts]
        framed = (b"\x01\0\0\0" + len(entry).to_bytes(4, "big") + entry for entry in entries)
        return web.Response(body=b"".join(framed))

    return answer


@pytest.mark.parametrize(
    "gone", [says(404, "no such container"), says(409, "dead or marked for removal")]
)
async def test_output_is_not_told_to_be_whole_when_its_container_is_removed_meanwhile(
    script: Script, docker: DockerEngine, gone: Answer
) -> None:
    script.on(f"GET containers/{ONE}/logs", prints(b"not the last\n"), gone)

    lines = each(docker.logs(ONE, follow=True))
    first = await anext(lines)
    with pytest.raises(Unavailable) as raised:
        await anext(lines)

    assert "not the last" == first.text
    assert raised.value.status in REMOVED


async def test_a_container_is_followed_further_when_its_engine_stops_before_its_end(
    script: Script, docker: DockerEngine
) -> None:
    script.on(
        f"GET containers/{ONE}/json",
        says(200, {"State": {"Running": True}}),
        says(200, {"State": {"Running": False}}),
    )
    passes = (prints(b"%d\n" % second, second=second) for second in (1, 2, 3, 4))
    script.on(f"GET containers/{ONE}/logs", *passes)

    told = [line.text async for line in each(docker.logs(ONE, follow=True))]

    assert ["1", "2", "3", "4"] == told


@pytest.mark.parametrize(("runs", "told"), [(True, ["whole"]), (False, ["whole", "half"])])
async def test_what_has_no_newline_is_given_when_it_cannot_get_one_any_more(
    script: Script, docker: DockerEngine, *, runs: bool, told: list[str]
) -> None:
    script.on(f"GET containers/{ONE}/json", says(200, {"State": {"Running": runs}}))
    script.on(f"GET containers/{ONE}/logs", prints(b"whole\n", b"half"))

    assert told == [line.text async for line in each(docker.logs(ONE))]


async def test_a_line_that_an_engine_breaks_off_is_given_whole_when_it_goes_on(
    script: Script, docker: DockerEngine
) -> None:
    script.on(
        f"GET containers/{ONE}/json",
        says(200, {"State": {"Running": True}}),
        says(200, {"State": {"Running": False}}),
    )
    half, whole = (b"first\n", b"half"), (b"first\n", b"half", b" and half\n")
    passes = (prints(*texts) for texts in (half, half, whole, whole))
    script.on(f"GET containers/{ONE}/logs", *passes)

    told = [line.text async for line in each(docker.logs(ONE, follow=True))]

    assert ["first", "half and half"] == told
