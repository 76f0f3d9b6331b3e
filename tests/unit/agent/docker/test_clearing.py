"""An engine that leaves its swarm: what goes with it, and what stays."""

from __future__ import annotations

import pytest

from phalanx_agent.docker.engine import DockerEngine
from phalanx_agent.docker.port import Unavailable
from tests.support.scripted_engine import Script, says

LEAVE, NETWORKS = "POST swarm/leave", "GET networks"
BRIDGE = "b" * 64
REMOVE = f"DELETE networks/{BRIDGE}"
MADE_AT = 1_700_000_000.5
MADE = {"Name": "docker_gwbridge", "Id": BRIDGE, "Created": "2023-11-14T23:13:20.5+01:00"}


@pytest.mark.parametrize(
    ("bridge", "entered_at", "removed"),
    [
        (MADE, MADE_AT - 1, 1),
        (MADE, MADE_AT + 1, 0),
        ({**MADE, "Name": "docker_gwbridge2"}, MADE_AT - 1, 0),
    ],
    ids=["made for it", "older", "another's"],
)
async def test_the_bridge_that_an_engine_has_made_for_its_swarm_goes_with_it(
    script: Script, docker: DockerEngine, bridge: dict[str, str], entered_at: float, removed: int
) -> None:
    script.on(LEAVE, says(200))
    script.on(NETWORKS, says(200, [bridge]))
    script.on(REMOVE, says(204))

    await docker.swarm_leave(entered_at)

    assert [1, removed] == [script.count(LEAVE), script.count(REMOVE)]


@pytest.mark.parametrize("status", [403, 404])
async def test_a_bridge_that_is_used_or_gone_keeps_nobody_from_leaving(
    script: Script, docker: DockerEngine, status: int
) -> None:
    script.on(LEAVE, says(503, "This node is not part of a swarm"))
    script.on(NETWORKS, says(200, [MADE]))
    script.on(REMOVE, says(status, "so it is"))

    await docker.swarm_leave(0.0)

    assert 1 == script.count(REMOVE)


async def test_an_engine_that_cannot_leave_says_why(script: Script, docker: DockerEngine) -> None:
    script.on(LEAVE, says(500, "it is busy"))

    with pytest.raises(Unavailable, match="it is busy"):
        await docker.swarm_leave(0.0)
