"""What an engine has, anybody's, and where."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from phalanx_agent.docker.engine import DockerEngine
from phalanx_agent.docker.port import Folders, Possessions, Unavailable
from phalanx_wire import names
from tests.support.scripted_engine import Script, says, scripted

ONE, TWO = "1" * 64, "2" * 64
SANDBOX = "d64896bd5b31".ljust(64, "0")
OVERLAY, PRIVATE = "i04h6xtbqr7qcjr8q6b58asnq", "f" * 64
FIRST = {"Id": PRIVATE, "Options": {"com.docker.network.bridge.name": "phxabcdefgh1"}}
HAS = Possessions(
    networks=frozenset((PRIVATE, OVERLAY)),
    bridges=frozenset(("phxabcdefgh1",)),
    containers=frozenset((ONE, TWO)),
)


@pytest.fixture
async def engine(tmp_path: Path) -> AsyncIterator[tuple[Script, DockerEngine]]:
    async with scripted(tmp_path) as (script, docker):
        script.on("GET networks", says(200, [FIRST, {"Id": OVERLAY, "Options": None}]))
        script.on("GET containers/json", says(200, [{"Id": TWO}, {"Id": ONE}]))
        script.on(f"GET containers/{ONE}/json", says(200, container()))
        script.on(f"GET containers/{TWO}/json", says(404, "gone meanwhile"))
        yield script, docker


def container(folder: str = "/run/docker/netns/") -> dict[str, Any]:
    state = dict.fromkeys(("ExitCode", "Pid"), 0) | {"Status": "created", "OOMKilled": False}
    times = {"StartedAt": "", "FinishedAt": "", "Error": ""}
    key = folder and folder + SANDBOX[:12]
    return {
        "Id": ONE,
        "Name": "/one",
        "State": {**state, **times},
        "Config": {"Labels": {names.LABEL_KERNEL: "k"}},
        "NetworkSettings": {"SandboxID": SANDBOX, "SandboxKey": key},
    }


async def test_all_that_it_has_is_listed(engine: tuple[Script, DockerEngine]) -> None:
    script, docker = engine

    assert HAS == await docker.possessions(sandboxes=False)
    assert 0 == script.count(f"GET containers/{ONE}/json")


async def test_sandboxes_are_those_of_containers_that_are_still_there(
    engine: tuple[Script, DockerEngine],
) -> None:
    _, docker = engine

    assert {SANDBOX, ""} == (await docker.possessions(sandboxes=True)).sandboxes


async def test_an_engine_that_does_not_answer_has_more_than_it_says(
    engine: tuple[Script, DockerEngine],
) -> None:
    script, docker = engine
    script._answers[f"GET containers/{ONE}/json"].clear()
    script.on(f"GET containers/{ONE}/json", says(500, "no"))
    with pytest.raises(Unavailable):
        await docker.possessions(sandboxes=True)


@pytest.mark.parametrize("answer", [[{}], [{"Id": ONE, "Options": 7}], {"Id": ONE}])
async def test_an_engine_that_tells_its_networks_in_part_makes_no_sense(
    engine: tuple[Script, DockerEngine], answer: Any
) -> None:
    script, docker = engine
    script._answers["GET networks"].clear()
    script.on("GET networks", says(200, answer))
    with pytest.raises(Unavailable, match="makes no sense"):
        await docker.possessions(sandboxes=False)


async def test_a_container_tells_where_the_engine_keeps_what(
    engine: tuple[Script, DockerEngine],
) -> None:
    script, docker = engine
    before = docker.folders()
    await docker.inspect(ONE)
    script.on(f"GET containers/{ONE}/json", says(200, container(folder="")))
    await docker.inspect(ONE)

    assert (Folders(), Folders(run="/run/docker")) == (before, docker.folders())


COMMITTED: dict[str, Any] = {
    "Id": TWO,
    "State": "created",
    "Mounts": [],
    "Labels": {names.LABEL_KERNEL: "k"},
    "NetworkSettings": {"Networks": {}},
}
OURS = {**COMMITTED, "Id": ONE, "Mounts": [{"Destination": names.BUNDLE_MOUNT}]}


async def test_what_somebody_runs_by_hand_from_a_committed_container_is_not_ours(
    tmp_path: Path,
) -> None:
    async with scripted(tmp_path) as (script, docker):
        script.on("GET containers/json", says(200, []), says(200, [COMMITTED, OURS]))
        script.on("GET networks", says(200, []))
        script.on(f"GET containers/{ONE}/json", says(200, container()))
        inventory = await docker.inventory()

        assert [ONE] == [facts.id for facts in inventory.containers]


async def test_what_somebody_runs_by_hand_stays_when_the_agent_leaves(tmp_path: Path) -> None:
    async with scripted(tmp_path) as (script, docker):
        script.on("GET containers/json", says(200, [COMMITTED, OURS]))
        script.on("GET networks", says(200, []))
        script.on(f"DELETE containers/{ONE}", says(204))
        await docker.clear()

        assert 1 == script.count(f"DELETE containers/{ONE}")
        assert 0 == script.count(f"DELETE containers/{TWO}")
