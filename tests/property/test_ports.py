"""Ports of hosts: whatever is held, no two kernels that live on one agent share one."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from phalanx_manager.core import ports
from phalanx_manager.core.model import SessionRow
from phalanx_manager.core.seat import Placement
from phalanx_wire.control import HostNetwork
from phalanx_wire.ids import SessionId
from tests.support.on_hosts import host, planned, seated, waiting

sessions = st.text("abcdefghijkl", min_size=12, max_size=12).map(SessionId)


@given(sessions, st.integers(1, 40), st.sets(st.integers(61000, 61019)), st.integers(0, 12))
def test_a_choice_is_free_whole_and_of_different_ports(
    session: SessionId, size: int, taken: set[int], count: int
) -> None:
    offer = HostNetwork("eth0", 61000, 61000 + size - 1)
    chosen = ports.choose(offer, taken, count, session)

    free = set(range(61000, 61000 + size)) - taken
    if chosen is None:
        assert len(free) < count
    else:
        assert count == len(set(chosen)) == len(chosen)
        assert set(chosen) <= free


gangs = st.tuples(st.integers(1, 5), st.sampled_from((None, 61001, 29500)))


@settings(max_examples=60, deadline=None)
@given(st.lists(gangs, min_size=1, max_size=6))
def test_what_lives_at_the_same_time_on_an_agent_shares_no_port(
    asked: list[tuple[int, int | None]],
) -> None:
    hosts = [host(name, HostNetwork("eth0", 61000, 61015)) for name in "ab"]
    placed: list[SessionRow] = []
    for number, (size, master_port) in enumerate(asked):
        one = waiting(size, SessionId(f"{'abcdefghij'[number]}" * 12), master_port=master_port)
        if isinstance(planned(one, hosts, placed), Placement):
            placed.append(seated(one, hosts, placed))

    held = [
        (kernel.agent, port)
        for row in placed
        for kernel in row.kernels
        for port in (kernel.ssh_port, kernel.service_port)
    ]
    assert placed
    assert len(set(held)) == len(held)
