from __future__ import annotations

import ipaddress

import msgspec
import pytest

from phalanx_lab import plan as plans
from phalanx_lab.plan import Plan
from phalanx_lab.unavailable import Unavailable


def plan(**changes: object) -> Plan:
    wanted = Plan(
        name="t", nodes=2, cpu=4, mem=2**30, subnet=3, state_root="/var/labs", run_root="/run/labs"
    )
    return msgspec.structs.replace(wanted, **changes)


@pytest.mark.parametrize("name", ["", "A", "1a", "a-b", "a" * 13, "../x", "ä"])
def test_a_lab_name_that_does_not_fit_into_an_interface_name_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="1 to 12 of a-z"):
        plans.check_name(name)


@pytest.mark.parametrize("nodes", [0, -1, 65])
def test_a_lab_has_at_least_one_host_and_no_more_than_it_has_addresses(nodes: int) -> None:
    with pytest.raises(ValueError, match="1 to 64"):
        plans.check_nodes(nodes)


def test_the_subnet_is_the_lowest_that_neither_a_lab_nor_the_machine_uses() -> None:
    routes = [ipaddress.IPv4Network("10.99.1.0/24"), ipaddress.IPv4Network("192.168.0.0/16")]

    assert plans.choose_subnet({0, 3}, routes) == 2


def test_a_machine_that_uses_the_whole_range_is_told_so() -> None:
    with pytest.raises(Unavailable, match="no free /24"):
        plans.choose_subnet((), [ipaddress.IPv4Network("10.0.0.0/8")])


def test_addresses_of_hosts_manager_and_switch_never_meet() -> None:
    full = plan(nodes=plans.MAX_NODES)
    addresses = [full.address(host) for host in full.hosts]

    assert len({*addresses, full.gateway, full.manager_address}) == plans.MAX_NODES + 2
    assert all(ipaddress.ip_address(one) in full.network for one in addresses)


def test_a_wish_is_the_same_whatever_addresses_it_was_given() -> None:
    assert plan().same_wish(plan(subnet=9, http_port=1234))
    assert not plan().same_wish(plan(nodes=3))


def test_sockets_fit_into_the_107_bytes_of_a_unix_address() -> None:
    long = plan(name="a" * 12, run_root="/run/phalanx-lab")

    assert len(f"{long.host_run(64)}/exec/containerd/containerd.sock.ttrpc") < 107


def test_a_saved_plan_is_found_again(tmp_path: object) -> None:
    wanted = plan(state_root=f"{tmp_path}/state", run_root=f"{tmp_path}/run")

    plans.save(wanted)

    assert plans.load(f"{wanted.run}/plan.json") == wanted
    assert plans.load(f"{wanted.state}/plan.json") == wanted


def test_no_plan_is_none_and_a_broken_one_says_which_file() -> None:
    assert plans.load("/nonexistent/plan.json") is None
    with pytest.raises(Unavailable, match="/dev/null"):
        plans.load("/dev/null")
