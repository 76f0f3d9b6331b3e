"""What people were promised about their sessions and hosts, and whether it is kept.

A promise counts from when it was answered until its end is asked for.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from sqlite3 import Connection as SqliteConnection
from typing import Any, Final

from phalanx_manager.core import after
from phalanx_wire.api import ENDED_STATES
from phalanx_wire.ids import AgentId, ClusterName, KernelId, SessionId
from phalanx_wire.lifecycle import KernelState
from tests.sim.climate import SIDE
from tests.sim.host import SimHost

_MICRO: Final = 1e6
_ROUNDED_S: Final = 0.001
_SLOW_S: Final = 900.0
"""An image may take so long, at least."""


@dataclass
class Promised:
    """Sees where sessions get their place, and why they are stopped.

    Attributes:
        drained: agents that get no new work, and the kernels that had their place before.
        held: sessions that stay in the queue.
        added_s: what was added to the time limit of an attempt.
        signals: how many drains with a signal were asked for.
        heard: which signals commands have heard.
        hurried: attempts that were stopped because something took too long.
        counts: how many promises of which kind were given.
    """

    database: SqliteConnection
    demand: Callable[[bool, str], None]
    drained: dict[AgentId, frozenset[KernelId]] = field(default_factory=dict)
    held: set[SessionId] = field(default_factory=set)
    added_s: dict[tuple[SessionId, int], float] = field(default_factory=dict)
    signals: int = 0
    heard: Counter[tuple[KernelId, int]] = field(default_factory=Counter)
    hurried: set[tuple[SessionId, int]] = field(default_factory=set)
    counts: Counter[str] = field(default_factory=Counter)

    def placed(self, kernel: KernelId, session: SessionId, agent: AgentId) -> None:
        """A kernel has got its place."""
        self.counts["kernels on hosts' networks"] += self._on_host(kernel)
        before = kernel in self.drained.get(agent, (kernel,))
        self.demand(before, f"{kernel} gets a place on {agent}, which is drained")
        self.demand(session not in self.held, f"{kernel} gets a place, and is held")
        able = self._spec(session).get("sealed_for")
        self.counts["kernels with sealed uploads placed"] += able is not None
        opens = able is None or agent in able
        self.demand(opens, f"{kernel} gets a place on {agent}, which cannot open its upload")
        for wish, state in self._others(session):
            fits = wish.kind == "afterany" or (state == "succeeded") is (wish.kind == "afterok")
            ok = state in ENDED_STATES and fits
            self.counts["kernels of followers placed"] += 1
            self.demand(ok, f"{kernel} gets a place {wish.kind} {wish.ref}, which is {state}")

    def holds(self, session: SessionId) -> None:
        """A session stays in the queue from now on."""
        self.held.add(session)
        self.counts["holds"] += 1

    def drains(self, agent: AgentId) -> None:
        """An agent gets no new work from now on; what the database knows by now was before."""
        query = "SELECT id FROM kernel WHERE agent = ?"
        known = self.database.execute(query, (agent,)).fetchall()
        self.drained[agent] = frozenset(KernelId(kernel) for (kernel,) in known)
        self.counts["drains"] += 1

    def adds(self, session: SessionId, attempt: int, seconds: float) -> None:
        """An attempt's time limit was extended, if it was still that one's turn."""
        query = "SELECT attempt FROM session WHERE id = ?"
        if self.database.execute(query, (session,)).fetchone() == (attempt,):
            known = self.added_s.get((session, attempt), 0.0)
            self.added_s[session, attempt] = known + seconds
            self.counts["times extended"] += 1

    def stopped(self, session: SessionId) -> None:
        """A session may have been told to stop."""
        query = (
            "SELECT stop_cause, stop_at, started_at, attempt, spec FROM session "
            "WHERE id = ? AND stop_cause IN ('time-limit', 'dependency')"
        )
        for cause, stop_at, started_at, attempt, spec in self.database.execute(query, (session,)):
            if cause == "time-limit":
                added_s = self.added_s.get((session, attempt), 0.0)
                limit_s = json.loads(spec)["time_limit_s"] + added_s
                had_s = (stop_at - started_at) / _MICRO
                early = had_s < limit_s - _ROUNDED_S
                self.demand(not early, f"{session} had {had_s:.3f} s of its {limit_s:.3f} s")
            else:
                wrong = [state for wish, state in self._others(session) if _never(wish, state)]
                self.demand(bool(wrong), f"{session} is cancelled, and could have come after all")

    def patient(self, session: SessionId) -> None:
        """A session may just have been told to stop because something takes too long."""
        query = (
            "SELECT kernel.id, session.attempt, kernel.state, stop_at - state_at FROM session "
            "JOIN kernel ON session = session.id AND kernel.attempt = session.attempt "
            "AND rank = stop_rank WHERE session.id = ? AND stop_cause = 'deadline'"
        )
        for kernel, attempt, state, waited in self.database.execute(query, (session,)):
            if state == KernelState.PREPARING and (session, attempt) not in self.hurried:
                waited_s = waited / _MICRO
                self.demand(waited_s >= _SLOW_S, f"{kernel} had {waited_s:.0f} s to get its image")
            self.hurried.add((session, attempt))

    def signalled(self, kernel: KernelId, number: int, *, by_drain: bool) -> None:
        """A command has heard a signal."""
        self.heard[kernel, number] += 1
        often = self.heard[kernel, number]
        most = self.signals if by_drain else 1
        self.demand(often <= most, f"{kernel} hears signal {number} {often} times")

    def left_swarm(self, host: AgentId, *, heard: bool) -> None:
        """An engine has left its swarm, and has told those that were there; one of them must stay
        for longer, unless an agent was given up.
        """
        query = "SELECT count(*) FROM event WHERE kind = 'agent.lost' AND cluster = ?"
        ((lost,),) = self.database.execute(query, (SIDE,))
        self.demand(heard or lost > 0, f"{host} leaves its swarm, and nobody stays to hear of it")
        self.counts["engines that left their swarm"] += 1

    def retired(self, cluster: ClusterName, hosts: Iterable[SimHost]) -> None:
        """A cluster was removed: nothing of it is left, nor of its agents on their hosts."""
        query = "SELECT removed_at FROM cluster WHERE name = ?"
        ((removed_at,),) = self.database.execute(query, (cluster,))
        self.demand(removed_at is not None, f"cluster {cluster} is still being removed")
        agents = self.database.execute(
            "SELECT name FROM agent WHERE cluster = ? AND NOT forgotten", (cluster,)
        )
        self.demand(not agents.fetchall(), f"cluster {cluster} is removed, and has agents")
        for host in hosts:
            self.demand(host.dismissed, f"{host.name} is retired, and its agent knocks still")
            alone = host.engine.swarm_report.state == "inactive"
            self.demand(alone, f"{host.name} is retired, and its engine is in a swarm")
        self.counts["clusters removed"] += 1

    def waiting(self) -> None:
        """When nothing moves any more: who waits for the end of others has others to wait for."""
        query = (
            "SELECT id FROM session WHERE state = 'pending' AND held = 0 "
            "AND reason LIKE 'waits for the end%'"
        )
        for (session,) in self.database.execute(query).fetchall():
            states = [state for _, state in self._others(SessionId(session))]
            open_ = any(state not in ENDED_STATES for state in states)
            self.demand(open_, f"session {session} waits for the end of others: {states}")

    def _on_host(self, kernel: KernelId) -> bool:
        query = "SELECT ssh_port FROM kernel WHERE id = ?"
        ((port,),) = self.database.execute(query, (kernel,))
        return bool(port)

    def _spec(self, session: SessionId) -> dict[str, Any]:
        ((spec,),) = self.database.execute("SELECT spec FROM session WHERE id = ?", (session,))
        read: dict[str, Any] = json.loads(spec)
        return read

    def _others(self, session: SessionId) -> Iterator[tuple[after.After, str]]:
        """Find for whose end a session waits, and in which state they are."""
        text = self._spec(session).get("after")
        for wish in (after.parse(text) or ()) if text else ():
            query = "SELECT state FROM session WHERE id = ?"
            ((state,),) = self.database.execute(query, (wish.ref,))
            yield wish, state


def _never(wish: after.After, state: str) -> bool:
    if wish.kind == "afterany" or state not in ENDED_STATES:
        return False
    return (state == "succeeded") is not (wish.kind == "afterok")
