"""Whatever has joined and left: a sealed upload is never given to who cannot open it."""

from __future__ import annotations

from ipaddress import IPv4Network

from hypothesis import given
from hypothesis import strategies as st

from phalanx_manager.core.seat import Placement, plan
from phalanx_wire.lifecycle import KernelState
from tests.support.house import NOW, agent, in_swarm, row, snapshot

POOL = IPv4Network("10.213.0.0/16")
NAMES = "abcde"

keys = st.sampled_from(["one", "two"])
hosts = st.dictionaries(st.sampled_from(NAMES), st.tuples(keys, st.integers(1, 6)), max_size=5)
sealed = st.none() | st.dictionaries(st.sampled_from(NAMES), keys, max_size=5)


@given(hosts, sealed, st.integers(1, 8), st.sampled_from(["auto", "single-node", "multi-node"]))
def test_a_placement_has_only_hosts_that_can_open_it_and_all_of_them_count(
    found: dict[str, tuple[str, int]], sealed_for: dict[str, str] | None, size: int, mode: str
) -> None:
    records = [
        agent(name, in_swarm(name, control=at == 0, cpu=cpu), public_key=key)
        for at, (name, (key, cpu)) in enumerate(sorted(found.items()))
    ]
    able = [
        record
        for record in records
        if sealed_for is None or sealed_for.get(record.name) == record.public_key
    ]
    waiting = row([None] * size, KernelState.PENDING, mode=mode, sealed_for=sealed_for)
    plain = row([None] * size, KernelState.PENDING, mode=mode)

    given_all = plan(snapshot([waiting], records), waiting, POOL, NOW)
    among_able = plan(snapshot([plain], able), plain, POOL, NOW)

    if isinstance(given_all, Placement):
        assert {seat.agent for seat in given_all.seats} <= {record.name for record in able}
    if isinstance(among_able, Placement):
        assert isinstance(given_all, Placement)
        assert [seat.agent for seat in among_able.seats] == [seat.agent for seat in given_all.seats]
