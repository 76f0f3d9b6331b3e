"""Sealed uploads: their sessions go to hosts that can open them, and say so when there is none."""

from __future__ import annotations

from ipaddress import IPv4Network

import pytest

from phalanx_manager.core import sealing
from phalanx_manager.core.model import AgentRecord, Refusal, SessionRow
from phalanx_manager.core.seat import Placement, Wait, plan
from phalanx_wire.control import HostNetwork
from phalanx_wire.lifecycle import KernelState
from phalanx_wire.spec import Resources
from tests.support.house import NOW, agent, agents, in_swarm, observed, row, snapshot

POOL = IPv4Network("10.213.0.0/16")
BOTH = {"a": "key-a", "b": "key-b"}


def waiting(size: int = 1, **fields: object) -> SessionRow:
    return row([None] * size, KernelState.PENDING, **fields)  # type: ignore[arg-type]


def planned(one: SessionRow, *records: AgentRecord) -> Placement | Wait:
    return plan(snapshot([one], records), one, POOL, NOW)


def hosts_of(found: Placement | Wait) -> set[str]:
    assert isinstance(found, Placement), found
    return {seat.agent for seat in found.seats}


def reason_of(found: Placement | Wait) -> str:
    assert isinstance(found, Wait), found
    return found.reason


@pytest.mark.parametrize("network", ["private", "host"])
def test_it_goes_only_to_a_host_that_had_joined(network: str) -> None:
    offer = HostNetwork("eth0", 61000, 61999)
    small, large = (observed(n, cpu=c, host_network=offer) for n, c in (("a", 8), ("c", 2)))
    records = (agent("a", small), agent("c", large))

    assert {"c"} == hosts_of(planned(waiting(network=network), *records))
    only_a = waiting(network=network, sealed_for={"a": "key-a"})
    assert {"a"} == hosts_of(planned(only_a, *records))


def test_over_several_hosts_all_of_them_had_joined() -> None:
    records = (
        agent("a", in_swarm("a", control=True, cpu=4)),
        agent("b", in_swarm("b", cpu=4)),
        agent("c", in_swarm("c", cpu=8)),
    )

    assert {"a", "b"} == hosts_of(planned(waiting(6, sealed_for=BOTH), *records))


def test_a_host_that_joined_anew_with_another_key_is_another_host() -> None:
    found = planned(waiting(sealed_for={"a": "key-a"}), agent("a", public_key="key-new"))

    assert reason_of(found) == (
        "no agent that its upload is sealed for is ready: a has joined anew with another key; "
        "a joined after it was submitted and cannot open its upload; "
        "submit it again to seal it for the hosts that are there then"
    )


def test_while_its_hosts_are_away_it_waits_for_them_and_holds_up_nobody() -> None:
    records = (agent("a", connected=False, lost=True), agent("b", connected=False, seen_at=None))
    found = planned(waiting(sealed_for=BOTH), *records)

    assert isinstance(found, Wait)
    assert not found.blocks
    assert found.reason == (
        "no agent that its upload is sealed for is ready: a is lost, b is unreachable"
    )


def test_when_its_hosts_have_gone_it_says_what_to_do() -> None:
    found = planned(waiting(sealed_for=BOTH), agent("b", cluster="lab"), agent("c"))

    assert reason_of(found) == (
        "no agent that its upload is sealed for is ready: a has left, b has left; "
        "c joined after it was submitted and cannot open its upload; "
        "submit it again to seal it for the hosts that are there then"
    )


def test_many_hosts_are_not_all_named() -> None:
    found = planned(waiting(sealed_for={f"n{at}": "k" for at in range(9)}), agent("c"))

    assert "n5 has left and 3 more; c joined" in reason_of(found)


def test_a_lack_of_room_says_who_has_room_and_cannot_open_it() -> None:
    wanted = Resources(cpu=6)
    records = (agent("a", observed("a", cpu=4)), agent("c", observed("c", cpu=8)))
    found = planned(waiting(sealed_for={"a": "key-a"}, resources=wanted), *records)

    assert isinstance(found, Wait)
    assert not found.blocks  # it could not run there either if nothing else ran
    assert "a has cpu 4" in found.reason
    assert found.reason.endswith("; c joined after it was submitted and cannot open its upload")


def test_it_does_not_wait_for_a_host_that_is_joining_the_swarm_and_cannot_open_it() -> None:
    records = (
        agent("a", in_swarm("a", control=True, cpu=4)),
        agent("b", in_swarm("b", cpu=4)),
        agent("c"),
    )
    wanted = {"mode": "multi-node", "sealed_for": BOTH}

    assert {"a", "b"} == hosts_of(planned(waiting(2, **wanted), *records))
    plain = planned(waiting(2, mode="multi-node"), *records)
    assert "agents c are joining the swarm" in reason_of(plain)


def test_recipients_are_all_of_the_cluster() -> None:
    records = agents(agent("a"), agent("b"), agent("x", cluster="lab"))

    assert BOTH == sealing.recipients(records, "default", {"key-a", "key-b", "key-x"})


@pytest.mark.parametrize(
    ("records", "keys", "title"),
    [
        ((agent("a"), agent("b")), {"key-a"}, "the upload is not sealed for b of cluster default"),
        ((), {"key-a"}, "the upload is not sealed for anybody in cluster default"),
        ((agent("x", cluster="lab"),), {"key-x"}, "not sealed for anybody in cluster default"),
    ],
)
def test_what_some_host_cannot_open_is_refused(
    records: tuple[AgentRecord, ...], keys: set[str], title: str
) -> None:
    found = sealing.recipients(agents(*records), "default", keys)

    assert isinstance(found, Refusal)
    assert ("upload_not_sealed_for_all", 409, "upload") == (found.code, found.status, found.field)
    assert title in found.title
