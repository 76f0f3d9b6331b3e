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


# ---------------------------------------------------------------- enough managers


def of_host(number: int, role: str, state: str = "ready", **spec: str) -> dict[str, Any]:
    """The member that the host of that number is, made in the order of these."""
    fields = {
        "Description": {"Hostname": f"host{number}"},
        "Spec": {"Role": role, "Availability": "active", "Labels": {"rack": "a"}, **spec},
    }
    return member("_abcd"[number] * 25, state, number, role, **fields)


def promotions(script: Script) -> list[str]:
    """The members that were made managers."""
    return [
        call.split("/")[1][0]
        for call, body in zip(script.calls, script.bodies, strict=True)
        if call.endswith("/update") and body["Role"] == "manager"
    ]


async def test_a_swarm_of_two_that_has_grown_gets_the_managers_that_survive_a_loss(
    script: Script, docker: DockerEngine
) -> None:
    stage(script, of_host(1, "manager"), of_host(3, "manager"), of_host(2, "worker"))
    script.on(f"POST nodes/{'b' * 25}/update", says(200))

    await docker.swarm_canary(ours=True)

    wanted = {"Role": "manager", "Availability": "active", "Labels": {"rack": "a"}}
    assert (["b"], wanted) == (promotions(script), script.bodies[-1])


@pytest.mark.parametrize(
    "members",
    [
        [of_host(1, "manager"), of_host(2, "worker")],
        [of_host(1, "manager"), of_host(2, "worker"), of_host(3, "worker", "down")],
        [of_host(1, "manager"), of_host(2, "manager"), of_host(3, "manager"), of_host(4, "worker")],
        [
            of_host(1, "manager"), of_host(2, "manager"), of_host(3, "manager", "down"),
            of_host(4, "worker"),
        ],
        [of_host(1, "manager"), of_host(2, "manager"), of_host(3, "worker", Availability="drain")],
    ],
    ids=["two hosts", "the third is down", "three", "one may come back", "a drained one"],
)  # fmt: skip
async def test_no_more_managers_are_made_than_help(
    script: Script, docker: DockerEngine, members: list[dict[str, Any]]
) -> None:
    stage(script, *members)

    await docker.swarm_canary(ours=True)

    assert [] == promotions(script)


async def test_nobody_elses_swarm_gets_managers(script: Script, docker: DockerEngine) -> None:
    stage(script, of_host(1, "manager"), of_host(3, "manager"), of_host(2, "worker"))

    await docker.swarm_canary(ours=False)

    assert [] == promotions(script)
