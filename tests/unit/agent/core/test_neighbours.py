"""Which hosts a kernel's host tries before its session begins."""

from __future__ import annotations

from phalanx_agent.core import neighbours
from phalanx_wire.control import Gang, Member, Network
from phalanx_wire.ids import AgentId, SessionId


def gang(seats: str, known: str = "") -> Gang:
    """A gang with a member on each of the hosts named; the addresses of some are known."""
    network = Network("phx-aaaaaaaaaaaa-1", "overlay", "10.213.0.0/26", AgentId("a"))
    members = tuple(Member(rank, f"m{rank}", AgentId(seat)) for rank, seat in enumerate(seats))
    hosts = {AgentId(name): f"192.0.2.{ord(name)}" for name in known or seats}
    return Gang(
        SessionId("aaaaaaaaaaaa"), "demo", 1, network, egress=True, members=members, hosts=hosts
    )


def tried(one: Gang, rank: int) -> str:
    return "".join(neighbours.to_try(one, one.members[rank]))


def test_every_host_tries_all_others_and_only_its_first_kernel_does() -> None:
    one = gang("aabc")

    assert ["bc", "", "ca", "ab"] == [tried(one, rank) for rank in range(4)]


def test_a_host_whose_address_is_not_known_is_not_tried() -> None:
    assert "c" == tried(gang("abc", known="ac"), 0)


def test_of_many_hosts_each_tries_those_that_come_next() -> None:
    seats = "".join(chr(ord("a") + at) for at in range(50))
    one = gang(seats)

    assert seats[46:] + seats[: neighbours.MOST - 4] == tried(one, 45)


def test_the_sentence_names_both_hosts_and_says_what_to_do() -> None:
    said = neighbours.apart(AgentId("here"), {AgentId("there"): "10.0.0.2"})

    assert said.startswith("Host here gets no answer of host there at 10.0.0.2")
    assert "--mode single-node" in said
