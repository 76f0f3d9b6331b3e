"""Which network namespaces an engine knows, and where it mounts them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from phalanx_agent.docker.engine import DockerEngine
from phalanx_agent.docker.port import Unavailable
from phalanx_wire import names
from tests.support.scripted_engine import Script, says, scripted

ONE, TWO = "1" * 64, "2" * 64
SANDBOX = "d64896bd5b31"
OVERLAY = "i04h6xtbqr7qcjr8q6b58asnq"
KNOWN = frozenset((SANDBOX, f"1-{OVERLAY[:10]}", f"lb_{OVERLAY[:9]}"))
FIRST = {"Id": "f" * 64, "Options": {"com.docker.network.bridge.name": "phxabcdefgh1"}}
NOBODYS = frozenset(("205ae87ae83e", "1-7qcjr8q6b5", "2-7qcjr8q6b5", "lb_7qcjr8q6b"))


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
    key = folder and folder + SANDBOX
    return {
        "Id": ONE,
        "Name": "/one",
        "State": {**state, **times},
        "Config": {"Labels": {names.LABEL_KERNEL: "k"}},
        "NetworkSettings": {"SandboxID": SANDBOX.ljust(64, "0"), "SandboxKey": key},
    }


async def test_those_of_containers_and_networks_are_known(
    engine: tuple[Script, DockerEngine],
) -> None:
    _, docker = engine

    assert NOBODYS == await docker.unknown_namespaces(KNOWN | NOBODYS)


async def test_containers_are_looked_at_only_where_a_name_may_be_ones(
    engine: tuple[Script, DockerEngine],
) -> None:
    script, docker = engine
    networks = frozenset(name for name in NOBODYS if "_" in name or "-" in name)

    assert networks == await docker.unknown_namespaces(networks)
    assert frozenset() == await docker.unknown_namespaces(frozenset())
    assert (1, 0) == (script.count("GET networks"), script.count("GET containers/json"))


async def test_an_engine_that_does_not_answer_knows_more_than_it_says(
    engine: tuple[Script, DockerEngine],
) -> None:
    script, docker = engine
    script.on(f"GET containers/{ONE}/json", says(500, "no"))
    await docker.unknown_namespaces(KNOWN)
    with pytest.raises(Unavailable):
        await docker.unknown_namespaces(KNOWN)


async def test_a_container_tells_where_they_are_mounted(
    engine: tuple[Script, DockerEngine],
) -> None:
    script, docker = engine
    before = docker.namespaces_in()
    await docker.inspect(ONE)
    script.on(f"GET containers/{ONE}/json", says(200, container(folder="")))
    await docker.inspect(ONE)

    assert ("", "/run/docker/netns") == (before, docker.namespaces_in())


async def test_bridges_of_networks_are_known(engine: tuple[Script, DockerEngine]) -> None:
    _, docker = engine

    assert frozenset({"phxqr27nxe31"}) == await docker.unknown_bridges(
        frozenset({"phxqr27nxe31", "phxabcdefgh1"})
    )
