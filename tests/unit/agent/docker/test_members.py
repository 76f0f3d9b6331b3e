"""Members of a swarm that are gone for good, and in whose place others are."""

from __future__ import annotations

from typing import Any

import pytest

from phalanx_agent.docker.engine import DockerEngine
from phalanx_agent.docker.port import Unavailable
from tests.support.scripted_engine import Script, breaks, says

CANARY = "a" * 25
OLD, NEW = "o" * 25, "n" * 25
DEMOTE, REMOVE = f"POST nodes/{OLD}/update", f"DELETE nodes/{OLD}"


def member(
    name: str, state: str, second: int, role: str = "manager", **fields: Any
) -> dict[str, Any]:
    """A member as engines list it, of host1 at its address."""
    known: dict[str, Any] = {
        "ID": name,
        "Version": {"Index": 7},
        "CreatedAt": f"2026-01-01T00:00:{second:02}.123456789Z",
        "Spec": {"Role": role, "Availability": "active"},
        "Description": {"Hostname": "host1"},
        "Status": {"State": state, "Addr": "10.0.0.1"},
    }
    if role == "manager":
        known["ManagerStatus"] = {"Addr": "10.0.0.1:2377"}
        known["Status"]["Addr"] = "0.0.0.0"  # so a leader says of itself
    return known | fields


def stage(script: Script, *members: dict[str, Any]) -> None:
    """A swarm of these members, which can make networks."""
    script.on("POST networks/create", says(201, {"Id": CANARY}))
    script.on(f"DELETE networks/{CANARY}", says(204))
    script.on("GET nodes", says(200, list(members)))
    script.on(DEMOTE, says(200))
    script.on(REMOVE, says(200))


@pytest.mark.parametrize("role", ["manager", "worker"])
async def test_a_manager_that_was_replaced_does_not_count_in_its_swarm_any_more(
    script: Script, docker: DockerEngine, role: str
) -> None:
    stage(script, member(OLD, "down", 1), member(NEW, "ready", 2, role))

    await docker.swarm_canary(ours=True)

    assert [DEMOTE, REMOVE] == script.calls[-2:]
    assert {"Role": "worker", "Availability": "active"} == script.bodies[-2]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (member(OLD, "ready", 1), member(NEW, "ready", 2)),
        (member(OLD, "down", 1), member(NEW, "down", 2)),
        (member(OLD, "down", 2), member(NEW, "ready", 1)),
        (member(OLD, "down", 1), member(NEW, "ready", 2, Description={"Hostname": "host2"})),
        (
            member(OLD, "down", 1),
            member(NEW, "ready", 2, ManagerStatus={"Addr": "10.0.0.2:2377"}),
        ),
    ],
    ids=["both live", "nobody lives", "the younger is down", "another host", "another address"],
)
async def test_whoever_may_come_back_stays_a_member(
    script: Script, docker: DockerEngine, old: dict[str, Any], new: dict[str, Any]
) -> None:
    stage(script, old, new)

    await docker.swarm_canary(ours=True)

    assert [0, 0] == [script.count(DEMOTE), script.count(REMOVE)]


async def test_a_member_that_cannot_be_removed_now_is_no_fault_of_the_swarm(
    script: Script, docker: DockerEngine
) -> None:
    script.on(REMOVE, says(500, "It must be demoted to worker before removal."))
    stage(script, member(OLD, "down", 1, "worker"), member(NEW, "ready", 2))

    await docker.swarm_canary(ours=True)
    await docker.swarm_canary(ours=True)

    assert [0, 2] == [script.count(DEMOTE), script.count(REMOVE)]


async def test_an_engine_that_goes_away_as_it_removes_a_member_is_told_of(
    script: Script, docker: DockerEngine
) -> None:
    script.on(DEMOTE, breaks())
    stage(script, member(OLD, "down", 1), member(NEW, "ready", 2))

    with pytest.raises(Unavailable, match="down and was replaced"):
        await docker.swarm_canary(ours=True)


async def test_members_of_a_swarm_that_is_not_ours_are_not_ours_to_remove(
    script: Script, docker: DockerEngine
) -> None:
    stage(script, member(OLD, "down", 1), member(NEW, "ready", 2))

    await docker.swarm_canary(ours=False)

    assert [0, 0] == [script.count(DEMOTE), script.count(REMOVE)]
