"""Takes what agents report, and tells them what they shall have."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Final, Protocol

import msgspec
import structlog

from phalanx_manager.clock import Clock
from phalanx_manager.core import clusters, goals, notice, observe, swarm
from phalanx_manager.core.model import Snapshot
from phalanx_manager.store.port import Store
from phalanx_manager.wake import Bell
from phalanx_wire.control import Goals, Observed, SwarmGoal
from phalanx_wire.ids import AgentId, ClusterName, SessionId

SAFETY_NET_S: Final = 5.0
_SEND_S: Final = 1.0
"""Nobody hears anything new for so long when one agent has no room."""

UNANSWERED_S: Final = 10.0
"""Two heartbeats: whoever still answers to older goals has not got the newest ones."""

log = structlog.get_logger(__name__)


class Link(Protocol):
    """The way down to the agents; `rpc.agents.Agents` is one."""

    async def send(self, agent: AgentId, goals: Goals) -> bool:
        """Send goals; False when the agent is not there."""


@dataclass(slots=True)
class _Inbox:
    """What came from one agent since the last turn; only the newest report counts."""

    up: bool | None = None
    report: Observed | None = None


@dataclass(frozen=True, slots=True)
class _Sent:
    """What an agent was told last on its present link, and when."""

    goals: Goals
    revision: int
    at_s: float


class Converge:
    """The converging loop, and the `AgentHandler` of the link.

    Attributes:
        bell: rung by the methods below, by no one else.
    """

    def __init__(
        self,
        store: Store,
        clock: Clock,
        room_changed: Bell,
        own_addresses: Collection[str] = (),
        *,
        eager_swarm: bool = False,
    ) -> None:
        self.bell = Bell()
        self._store = store
        self._clock = clock
        self._room_changed = room_changed
        self._own_addresses = frozenset(own_addresses)
        self._eager_swarm = eager_swarm
        self._link: Link | None = None
        self._inbox: dict[AgentId, _Inbox] = {}
        self._touched: set[SessionId] = set()
        self._stale: set[AgentId] = set()
        self._everybody = False
        self._sent: dict[AgentId, _Sent] = {}
        self._removals: dict[str, int] = {}
        self._beginners: set[AgentId] = set()
        self._answered: set[AgentId] = set()
        self._memo = goals.Memo()
        self._started_s = clock.monotonic_s()
        self._heard_s: dict[AgentId, float] = {}
        self._newest: dict[AgentId, int] = {}
        self._wait_s = SAFETY_NET_S
        # Revisions grow over restarts of the manager, whatever an agent remembers.
        self._revision = int(clock.now().timestamp() * 1_000)

    def attach(self, link: Link) -> None:
        """Take the way down; before that nothing is sent."""
        self._link = link

    # -- AgentHandler: these return at once

    def connected(self, agent: AgentId) -> None:
        """The agent has said hello: it needs all its goals."""
        inbox = self._inbox.setdefault(agent, _Inbox())
        inbox.up = True
        self._newest.pop(agent, None)  # another process of the agent may count anew
        self._heard_s[agent] = self._clock.monotonic_s()
        self.bell.ring()

    def disconnected(self, agent: AgentId) -> None:
        """Its link broke; that alone means nothing, silence does."""
        self._inbox.setdefault(agent, _Inbox()).up = False
        self.bell.ring()

    def alive(self, agent: AgentId) -> None:
        """It lives."""
        self._heard_s[agent] = self._clock.monotonic_s()

    def observed(self, agent: AgentId, observed: Observed) -> None:
        """It said what it has; what it has said before that is worth nothing any more."""
        self._heard_s[agent] = self._clock.monotonic_s()
        newest = self._newest.get(agent, 0)
        if observed.number < newest:
            log.info("report.stale", agent=agent, number=observed.number, newest=newest)
            return
        self._newest[agent] = observed.number
        self._inbox.setdefault(agent, _Inbox()).report = observed
        self.bell.ring()

    # -- from the store

    def touch(self, session: SessionId) -> None:
        """A commit has changed a session: some agents' goals may differ now."""
        self._touched.add(session)
        self.bell.ring()

    def silence_s(self, agents: Collection[AgentId]) -> Mapping[AgentId, float]:
        """Tell for how long each agent has said nothing; our own absence does not count."""
        now = self._clock.monotonic_s()
        return {agent: now - self._heard_s.get(agent, self._started_s) for agent in agents}

    # -- the loop

    async def turn(self) -> None:
        """Wait for the bell, take all reports, send what has changed."""
        await self.bell.wait(self._wait_s)
        while self._inbox:
            agent = next(iter(self._inbox))
            await self._take(agent, self._inbox.pop(agent))
        await self._send_all()

    async def _take(self, agent: AgentId, inbox: _Inbox) -> None:
        now = self._clock.now()
        if inbox.up:
            await self._store.link(agent, up=True, at=now)
            self._sent.pop(agent, None)
            self._stale.add(agent)
        if inbox.report is not None:
            await self._report(agent, inbox.report)
        if inbox.up is False:
            await self._store.link(agent, up=False, at=now)
            self._everybody = True  # the swarm's plan counts on those who are there

    async def _report(self, agent: AgentId, report: Observed) -> None:
        self._judge_answer(agent, report)
        now = self._clock.now()
        snapshot = await self._store.load()
        found = observe.changes(snapshot, agent, report, self._removals, now)
        for sentence in found.illegal:
            log.warning("report.illegal", agent=agent, why=sentence)
        if found.kernels or found.networks:
            self._stale.add(agent)
            if not await self._store.record(found.kernels, found.networks, now):
                self._inbox.setdefault(agent, _Inbox(report=report))
                self.bell.ring()
        if await self._store.saw(agent, report, now):
            self._everybody = True
            self._room_changed.ring()

    def _judge_answer(self, agent: AgentId, report: Observed) -> None:
        """Send goals again that are not answered: they were lost on their way."""
        sent = self._sent.get(agent)
        if sent is None:
            return
        if report.revision >= sent.revision:
            if agent not in self._answered:
                self._answered.add(agent)
                self._everybody = True  # who may begin the swarm is known by then
            swarm_goal = sent.goals.swarm
            if agent in self._beginners and (swarm_goal is None or swarm_goal.action != "init"):
                self._beginners.discard(agent)
                self._everybody = True  # another may have waited to begin the swarm
            return
        if self._clock.monotonic_s() - sent.at_s > UNANSWERED_S:
            log.warning("goals.unanswered", agent=agent, revision=sent.revision)
            del self._sent[agent]
            self._stale.add(agent)

    async def _send_all(self) -> None:
        """Send every agent whose goals differ from what it was told."""
        snapshot, waiting = goals.timely(await self._store.load(), self._clock.now())
        self._wait_s = min(waiting.values(), default=SAFETY_NET_S)
        stale, self._stale = self._stale, set()
        touched, self._touched = self._touched, set(waiting)
        everybody, self._everybody = self._everybody, False
        for session in touched:
            row = snapshot.sessions.get(session)
            if row is not None:
                stale |= goals.agents_of(row).union(*map(goals.agents_of, row.past))
                everybody = everybody or bool(row.session.reason)  # it may wait for a swarm
        here = {name for name, record in snapshot.agents.items() if record.connected}
        leaving = clusters.leaving(snapshot)
        stale |= leaving
        if everybody:
            stale = here
        if not stale & here:
            return
        self._forget(snapshot)
        rows = goals.by_agent(snapshot)
        swarms = await self._swarms(snapshot, stale)
        reached = goals.Reached.of(snapshot, self._own_addresses)
        drained = notice.drains(snapshot)
        wants: dict[AgentId, Goals] = {}
        for agent in sorted(stale & here):
            mine = rows.get(agent, ())
            wanted = goals.for_agent(mine, agent, swarms.get(agent), reached, self._memo, drained)
            if agent in leaving and clusters.shall_leave(snapshot, agent):
                wanted = msgspec.structs.replace(wanted, leave=True)
            wants[agent] = wanted
        async with asyncio.TaskGroup() as tasks:
            for agent, wanted in wants.items():
                tasks.create_task(self._send(agent, wanted))

    async def _send(self, agent: AgentId, wanted: Goals) -> None:
        """Send goals if they say something new; what fails is sent when the agent is back."""
        before = self._sent.get(agent)
        if self._link is None or (before is not None and before.goals == wanted):
            return
        self._revision += 1
        for goal in wanted.networks:
            if not goal.present:
                self._removals.setdefault(goal.network.name, self._revision)
        message = msgspec.structs.replace(wanted, revision=self._revision)
        try:
            async with asyncio.timeout(_SEND_S):
                sent = await self._link.send(agent, message)
        except TimeoutError:
            sent = False
            self._stale.add(agent)  # it may be there still, and take them the next time
            self.bell.ring()
        if sent:
            self._sent[agent] = _Sent(wanted, self._revision, self._clock.monotonic_s())
        else:
            self._sent.pop(agent, None)
            log.warning("goals.not_sent", agent=agent, revision=self._revision)

    async def _swarms(
        self, snapshot: Snapshot, agents: Collection[AgentId]
    ) -> dict[AgentId, SwarmGoal]:
        pools = {snapshot.agents[agent].cluster for agent in agents if agent in snapshot.agents}
        found: dict[AgentId, SwarmGoal] = {}
        # Whoever has not answered may still do what an earlier process has told it.
        unanswered = snapshot.agents.keys() - self._answered
        for cluster in pools:
            plan = swarm.goals(snapshot, cluster, eager=self._eager_swarm, unanswered=unanswered)
            begins = next((name for name, goal in plan.items() if goal.action == "init"), None)
            if begins is not None:
                if self._others_may_begin(snapshot, cluster, begins):
                    continue
                await self._store.tell_founder(cluster, begins)
                self._beginners.add(begins)
            found.update(plan)
        return found

    def _others_may_begin(self, snapshot: Snapshot, cluster: ClusterName, founder: AgentId) -> bool:
        """Tell whether one that was told to make the swarm may not know yet that it shall not: an
        agent whose engine refused tries again until it has heard.
        """
        others = (snapshot.agents.get(name) for name in self._beginners - {founder})
        return any(one is not None and one.cluster == cluster and not one.lost for one in others)

    def _forget(self, snapshot: Snapshot) -> None:
        """Drop what was remembered of sessions that are gone."""
        self._memo.forget_all_but(snapshot.rows())
        networks = {
            row.session.network.name for row in snapshot.rows() if row.session.network is not None
        }
        for name in self._removals.keys() - networks:
            del self._removals[name]
