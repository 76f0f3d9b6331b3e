"""The whole of the manager under any order of good and bad luck: what must hold always, and that
all comes to an end once luck is good again.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from phalanx_manager.core import goals
from phalanx_manager.core.model import Snapshot, Stop, StopCause
from phalanx_wire.api import ENDED_STATES
from phalanx_wire.control import KernelReport
from phalanx_wire.ids import SessionId
from phalanx_wire.lifecycle import BARRIERS, ENDED, KernelState
from phalanx_wire.slots import Slots
from tests.support.house import in_swarm
from tests.unit.manager.loops.conftest import House, Player

S = KernelState
SESSIONS = tuple(SessionId(letter * 12) for letter in "abc")
WISHES: Mapping[str, dict[str, object]] = {
    "a": {"requeue": True},
    "b": {"max_attempts": 3},
    "c": {},
}

acts = st.one_of(
    st.tuples(st.just("obey"), st.integers(0, 1), st.integers(0, 3)),
    st.tuples(st.just("obey"), st.integers(0, 1), st.just(0)),
    st.tuples(st.just("one"), st.integers(0, 1), st.integers(0, 5)),
    st.tuples(st.just("again"), st.integers(0, 1), st.integers(0, 5)),
    st.tuples(st.just("reject"), st.integers(0, 1), st.integers(0, 5)),
    st.tuples(st.just("cut"), st.integers(0, 1), st.just(0)),
    st.tuples(st.just("silence"), st.integers(20, 400), st.just(0)),
    st.tuples(st.just("kill"), st.just(0), st.just(0)),
    st.tuples(st.just("stop"), st.integers(0, 2), st.integers(0, 3)),
    st.tuples(st.just("requeue"), st.integers(0, 2), st.integers(0, 3)),
    st.tuples(st.just("pass"), st.integers(1, 10), st.just(0)),
)


class World:
    """Three sessions on two hosts, and the reports that have ever been said."""

    def __init__(self, path: str) -> None:
        self.house = House(path)
        self.players = (
            Player(self.house, "a", in_swarm("a", control=True, cpu=4)),
            Player(self.house, "b", in_swarm("b", cpu=4)),
        )
        self.said: list[tuple[int, KernelReport]] = []
        self.states: dict[str, KernelState] = {}

    async def begin(self) -> None:
        await self.house.join("a", "b")
        for player in self.players:
            player.connect()
        await self.house.settle()
        for session, size, mode in zip(
            SESSIONS, (3, 1, 5), ("multi-node", "auto", "auto"), strict=True
        ):
            name = f"run-{session[0]}"
            await self.house.submit(session, size=size, mode=mode, name=name, **WISHES[session[0]])
        await self.house.settle()

    async def act(self, kind: str, first: int, second: int) -> None:
        house = self.house
        if kind == "kill":
            house.kill()
            for player in self.players:
                player.connect()
        elif kind == "silence":
            house.clock.passed_s += first
            self.players[0].say()
            await house.converge.turn()
            await house.govern.turn()
        elif kind == "pass":
            house.clock.passed_s += first
        elif kind == "requeue":
            stop = Stop(StopCause.REQUEUE, "again", house.clock.now(), then="again")
            row = await house.row(SESSIONS[first])
            if row.session.state != "pending":
                await house.store.stop(SESSIONS[first], stop)
        elif kind == "stop":
            stop = Stop(StopCause.USER, "enough", house.clock.now(), None, float(second))
            await house.store.stop(SESSIONS[first], stop)
        else:
            self._play(self.players[first], kind, first, second)
        await house.settle()

    def _play(self, player: Player, kind: str, number: int, choice: int) -> None:
        if player.name not in self.house.post.told:
            return
        told = self.house.post.told[player.name].kernels
        if kind == "obey":
            player.obey(code=choice)
        elif kind == "cut":
            self.house.converge.disconnected(player.name)
            player.connect()
        elif kind == "one" and told:
            one = told[choice % len(told)]
            player.states[one.kernel] = player._next(one, choice % 2)
            player.say()
        elif kind == "reject" and told:
            kernel = told[choice % len(told)].kernel
            known = player.states.get(kernel)
            if known is None or known.state <= S.CREATED:
                player.states[kernel] = KernelReport(kernel, S.REJECTED, message="no image")
            player.say()
        elif kind == "again" and self.said:
            old_number, old = self.said[choice % len(self.said)]
            if old_number == number:
                kept = dict(player.states)
                player.states[old.kernel] = old
                player.say()
                player.states = kept
        self.said.extend((number, one) for one in player.states.values())

    async def check(self) -> None:
        """Look at everything that must hold at every moment."""
        snapshot = await self.house.store.load()
        capacity = Slots(4000, 32 << 30, 0, 1_000_000)
        for name in snapshot.agents:
            held = [
                k for row in snapshot.rows() for k in row.kernels if k.agent == name and k.holds
            ]
            assert sum((kernel.slots for kernel in held), Slots()).fits(capacity)
        for row in snapshot.rows():
            placed = {kernel.agent is not None for kernel in row.kernels}
            assert 1 == len(placed)
            reached = goals.barrier(row)
            for kernel in row.kernels:
                assert self.states.get(kernel.id, S.PENDING) <= kernel.state
                self.states[kernel.id] = kernel.state
                if not kernel.ended and len(row.kernels) > 1:
                    assert kernel.state <= max(reached, S.STOPPING)
            alone = [k.state for k in row.kernels if k.state in (*BARRIERS, S.STARTING)]
            if len(row.kernels) > 1 and alone and max(alone) > S.CREATED:
                assert all(k.state >= S.CREATED or k.ended for k in row.kernels)
        for row in snapshot.sessions.values():
            assert all(kernel.ended for past in row.past for kernel in past.kernels)
            assert all(past.session.attempt < row.session.attempt for past in row.past)
        self._subnets(snapshot)

    def _subnets(self, snapshot: Snapshot) -> None:
        live = [
            row.session.network.subnet
            for row in snapshot.rows()
            if row.session.network is not None and not row.session.network.released
        ]
        assert len(live) == len(set(live))

    async def calm(self) -> Sequence[str]:
        """Let everything work; nothing may be left after a while."""
        for session in SESSIONS:
            stop = Stop(StopCause.USER, "over", self.house.clock.now())
            await self.house.store.stop(session, stop)
        for player in self.players:
            player.connect()
        await self.house.settle()
        for _ in range(8):
            for player in self.players:
                player.obey()
            await self.house.settle()
        rows = [await self.house.row(session) for session in SESSIONS]
        assert {} == (await self.house.store.load()).sessions
        assert all(kernel.state in ENDED for row in rows for kernel in row.kernels)
        assert all(row.session.exit_code is not None for row in rows)
        return [row.session.state for row in rows]


async def play(script: Sequence[tuple[str, int, int]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        world = World(str(Path(folder) / "phalanx.db"))
        try:
            await world.begin()
            await world.check()
            for kind, first, second in script:
                await world.act(kind, first, second)
                await world.check()
            assert set(await world.calm()) <= set(ENDED_STATES)
        finally:
            world.house.store.close()


@settings(max_examples=12, deadline=None)
@given(st.lists(acts, max_size=20))
def test_whatever_happens_rules_hold_and_all_ends_once_all_is_well(
    script: list[tuple[str, int, int]],
) -> None:
    asyncio.run(play(script))
