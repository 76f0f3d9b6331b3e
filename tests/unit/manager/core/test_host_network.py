"""Sessions on their hosts' own networks: admission, places, ports, orders, environment."""

from __future__ import annotations

import json
from dataclasses import replace

from phalanx_manager.core import address, goals
from phalanx_manager.core.admit import Admitted, admit
from phalanx_manager.core.cluster_env import rank_env
from phalanx_manager.core.model import Limits, Refusal, SessionRow
from phalanx_manager.core.seat import Placement, Wait
from phalanx_manager.core.session import is_gone
from phalanx_wire.control import Goals, HostNetwork
from phalanx_wire.ids import AgentId, SessionId
from phalanx_wire.lifecycle import KernelState
from phalanx_wire.spec import Resources
from tests.support.house import agent, agents, observed, refused, spec
from tests.support.on_hosts import OFFER, host, planned, seated, waiting

TWO = SessionId("bbbbbbbbbbbb")
FOUR_CORES = Resources(cpu=4)


def env(one: SessionRow, rank: int) -> dict[str, str]:
    return {var.name: var.value for var in rank_env(one.session, one.kernels, rank)}


def two_and_two() -> SessionRow:
    return seated(waiting(4, resources=FOUR_CORES), [host("a"), host("b")])


def told(one: SessionRow, name: str) -> Goals:
    return goals.for_agent([one], AgentId(name), None, goals.Reached())


def test_where_no_agent_offers_it_a_session_is_refused() -> None:
    outcome = admit(spec(network="host"), Limits(), agents(agent("a")), "calm-otter-aa")

    assert isinstance(outcome, Refusal)
    assert ("host_network_unsupported", 422, "network") == (
        outcome.code,
        outcome.status,
        outcome.field,
    )
    assert "host_network = true" in outcome.hint


def test_what_only_an_agent_without_it_could_hold_is_refused_with_the_numbers() -> None:
    known = agents(agent("a"), host("b", cpu=1))
    wanted = spec(network="host", resources=Resources(cpu=4))

    outcome = admit(wanted, Limits(), known, "calm-otter-aa")

    assert isinstance(outcome, Refusal)
    assert "never_satisfiable" == outcome.code
    assert "a has" not in outcome.title


def test_its_master_port_is_left_to_the_agents_and_a_private_ones_is_filled_in() -> None:
    known = agents(host("a"))
    outcome = [admit(spec(network=n), Limits(), known, "x") for n in ("host", "private")]

    assert [None, 12345] == [o.spec.master_port for o in outcome if isinstance(o, Admitted)]


def test_without_a_way_out_it_makes_no_sense() -> None:
    assert ("egress", "egress") == (
        (mistake := refused(network="host", egress=False)).code,
        mistake.field,
    )


def test_its_network_is_the_hosts_own_with_nothing_to_make_or_remove() -> None:
    network = two_and_two().session.network

    assert network is not None
    assert ("host", "host", True, "192.0.2.0/24") == (
        network.driver,
        network.engine_id,
        network.released,
        network.subnet,
    )


def test_every_rank_has_its_hosts_address_and_two_ports_of_its_own() -> None:
    kernels = two_and_two().kernels
    held = [(k.agent, port) for k in kernels for port in (k.ssh_port, k.service_port)]

    assert ["192.0.2.1", "192.0.2.1", "192.0.2.2", "192.0.2.2"] == [k.address for k in kernels]
    assert {"eth0"} == {k.interface for k in kernels}
    assert 8 == len(set(held))
    assert all(61000 <= port <= 61999 for _, port in held)


def test_no_swarm_is_needed_to_span_several_hosts() -> None:
    found = planned(waiting(2, mode="multi-node"), [host("a"), host("b")])

    assert isinstance(found, Placement)
    assert ["a", "b"] == [seat.agent for seat in found.seats]


def test_only_agents_that_offer_it_are_used() -> None:
    found = planned(waiting(2), [agent("a"), host("b")])

    assert isinstance(found, Placement)
    assert ["b", "b"] == [seat.agent for seat in found.seats]


def test_while_none_that_offers_it_is_ready_a_session_waits_and_blocks_nobody() -> None:
    found = planned(waiting(1), [agent("a")])

    assert Wait("no agent that is ready lets containers onto its host's network", False) == found


def test_two_sessions_on_one_agent_have_no_port_in_common() -> None:
    small = [host("a", HostNetwork("eth0", 61000, 61007))]
    one = seated(waiting(2), small)
    other = seated(waiting(2, TWO), small, [one])

    ports = {p for row in (one, other) for k in row.kernels for p in (k.ssh_port, k.service_port)}
    assert set(range(61000, 61008)) == ports


def test_an_agent_without_enough_ports_is_passed_by_and_named_when_there_is_no_other() -> None:
    small, large = host("a", HostNetwork("eth0", 61000, 61002), cpu=4), host("b")

    found = planned(waiting(2), [small, large])
    alone = planned(waiting(2), [small])

    assert isinstance(found, Placement)
    assert ["b", "b"] == [seat.agent for seat in found.seats]
    said = "agent a has fewer than 4 ports free (host_ports 61000-61002)"
    assert Wait(said, blocks=False) == alone


def test_a_port_of_the_users_is_main1s_and_may_be_held_once_on_an_agent() -> None:
    one = seated(waiting(2, master_port=29500), [host("a")])
    elsewhere = planned(waiting(2, TWO, master_port=29500), [host("a"), host("b")], [one])
    nowhere = planned(waiting(2, TWO, master_port=29500), [host("a")], [one])

    assert 29500 == one.kernels[0].service_port
    assert isinstance(elsewhere, Placement)
    assert {"b"} == {seat.agent for seat in elsewhere.seats}
    said = "port 29500 (master_port) of agent a is held by another container"
    assert Wait(said, blocks=False) == nowhere


def test_what_is_left_of_an_attempt_before_keeps_its_ports() -> None:
    small = [host("a", HostNetwork("eth0", 61000, 61007))]
    before = seated(waiting(2), small)
    again = replace(waiting(2), past=(before,))

    found = planned(again, small)

    assert isinstance(found, Placement)
    kept = {port for kernel in before.kernels for port in (kernel.ssh_port, kernel.service_port)}
    assert set() == kept & {port for seat in found.seats for port in seat.ports}


def test_a_session_whose_kernels_are_removed_is_gone() -> None:
    one = two_and_two()
    removed = tuple(
        replace(k, state=KernelState.REMOVED, ended_as=KernelState.EXITED) for k in one.kernels
    )
    ended = SessionRow(replace(one.session, state="succeeded"), removed)

    assert is_gone(ended)


def test_agents_are_told_addresses_ports_and_no_network_to_make() -> None:
    one = two_and_two()
    kernel = one.kernels[0]
    goal = told(one, "a")
    (gang,) = goal.gangs

    assert () == goal.networks
    assert not gang.egress
    assert [k.ssh_port for k in one.kernels] == [member.ssh_port for member in gang.members]
    assert [(k.ssh_port, k.service_port) for k in one.kernels[:2]] == [
        order.ports for order in goal.kernels
    ]
    assert [kernel.service_port, 0] == [order.master_port for order in goal.kernels]


def test_the_environment_names_each_ranks_own_port_and_interface() -> None:
    one = two_and_two()
    service = [kernel.service_port for kernel in one.kernels]
    names = ("main1", "sub1", "sub2", "sub3")
    seen = env(one, 2)

    assert one.kernels[2].address == seen["PHALANX_ADDRESS"]
    assert str(service[0]) == seen["MASTER_PORT"]
    workers = json.loads(seen["TF_CONFIG"])["cluster"]["worker"]
    assert [f"{name}:{port}" for name, port in zip(names, service, strict=True)] == workers
    assert ("eth0", "=eth0") == (seen["GLOO_SOCKET_IFNAME"], seen["NCCL_SOCKET_IFNAME"])
    assert ("192.0.2.0/24", "192.0.2.0/24", "1") == (
        seen["PHALANX_SUBNET"],
        seen["OMPI_MCA_btl_tcp_if_include"],
        seen["OMPI_MCA_if_base_do_not_resolve"],
    )


def test_hosts_in_different_networks_are_all_named_to_mpi_and_each_rank_gets_its_own() -> None:
    far = agent(
        "b", observed("b", address="10.9.1.1", subnets=("10.9.0.0/16",), host_network=OFFER)
    )
    one = seated(waiting(2, mode="multi-node"), [host("a"), far])

    assert "192.0.2.0/24,10.9.0.0/16" == env(one, 0)["OMPI_MCA_btl_tcp_if_include"]
    assert ["192.0.2.0/24", "10.9.0.0/16"] == [env(one, rank)["PHALANX_SUBNET"] for rank in (0, 1)]


def test_an_address_that_no_route_covers_is_a_network_of_its_own() -> None:
    assert "10.9.1.1/32" == address.home("10.9.1.1", ("192.0.2.0/24",))


def test_before_its_place_is_known_what_depends_on_it_is_left_out() -> None:
    unknown = {"MASTER_PORT", "TF_CONFIG", "GLOO_SOCKET_IFNAME", "PHALANX_SUBNET"}

    assert unknown.isdisjoint(env(waiting(2), 0))
    assert "29500" == env(waiting(2, master_port=29500), 1)["MASTER_PORT"]
