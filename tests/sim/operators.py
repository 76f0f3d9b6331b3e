"""Operators: they take hosts out of service, with a deadline or a signal, and put them back; and
they remove a cluster.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Final, TypeVar

from phalanx_manager.core.model import Drain, Removal
from phalanx_manager.store.port import Unavailable
from phalanx_wire.ids import AgentId
from tests.sim.auditor import DRAIN_SIGNAL, Auditor
from tests.sim.climate import LEAVING, SIDE, Climate
from tests.sim.daemons import AgentLife, ManagerLife
from tests.sim.dice import Dice
from tests.sim.process import Crash

_T = TypeVar("_T")

HEARD_S: Final = 5.0
GONE_S: Final = 30.0
"""After the deadline of a drain: the longest grace, and what engines take."""

_ASK_AGAIN_S: Final = 0.5
_PATIENCE_S: Final = 10.0
_PATIENCE_TIMES: Final = 60
_LOOK_EVERY_S: Final = 0.01


async def insist(
    manager: Callable[[], ManagerLife | None], ask: Callable[[ManagerLife], Awaitable[_T]]
) -> _T:
    """Ask whichever manager there is until one has answered; its answer."""
    while True:
        living = manager()
        if living is not None:
            try:
                async with asyncio.timeout(_PATIENCE_S):
                    return await ask(living)
            except (Crash, Unavailable, TimeoutError):
                pass
        await asyncio.sleep(_ASK_AGAIN_S)


@dataclass
class Operators:
    """All operators of one seed."""

    climate: Climate
    seed: int
    dice: Dice
    hosts: tuple[AgentId, ...]
    manager: Callable[[], ManagerLife | None]
    agent: Callable[[AgentId], AgentLife | None]
    doomed: Callable[[AgentId], set[str]]
    auditor: Auditor
    note: Callable[[str, str], None]

    async def live(self) -> None:
        """Drain a few times, each for a while."""
        async with asyncio.TaskGroup() as tasks:
            for host in self.dice.some(self.hosts, self.climate.drains):
                tasks.create_task(self._drain(host))
            if self.climate.retires:
                tasks.create_task(self._retire(Dice(self.seed, "retiring")))

    async def _retire(self, dice: Dice) -> None:
        """Remove the last hosts' cluster, if possible while something runs there."""
        hosts = set(self.climate.retired)
        await asyncio.sleep(dice.between(0, self.climate.storm_s * 0.6))
        for _ in range(_PATIENCE_TIMES):
            if hosts & set(self.auditor.seen.running.values()):
                break
            await asyncio.sleep(1.0)

        async def remove(manager: ManagerLife) -> bool:
            order = Removal(manager.clock.now(), "ada")
            return await manager.store.remove_cluster(SIDE, order, f"{SIDE} is removed by ada")

        await insist(self.manager, remove)
        self.note("operator", f"cluster {SIDE} is removed")
        if not self.climate.calm:
            await asyncio.gather(*(self._kill_the_leaving(host, dice) for host in sorted(hosts)))

    async def _kill_the_leaving(self, host: AgentId, dice: Dice) -> None:
        """Kill an agent at some points at which it takes all away, and now and then when it has,
        before it can hear that it is forgotten.
        """
        self.doomed(host).update(dice.some(LEAVING, dice.whole(0, len(LEAVING))))
        if dice.chance(0.3):
            return
        for _ in range(round(self.climate.storm_s / _LOOK_EVERY_S)):
            agent = self.agent(host)
            if agent is not None and agent.host.files.left:
                agent.kill()
                return
            await asyncio.sleep(_LOOK_EVERY_S)

    async def _all_hear(self, host: AgentId) -> None:
        """Where nothing goes wrong, all commands on a host hear the signal, unless they end."""
        hearers = self.auditor.hearers(host)
        await asyncio.sleep(HEARD_S)
        for kernel in hearers & self.auditor.hearers(host):
            heard = self.auditor.promised.heard[kernel, DRAIN_SIGNAL]
            self.auditor.demand(heard > 0, f"{kernel} was not told that {host} is drained")

    async def _drain(self, host: AgentId) -> None:
        dice, promised = self.dice, self.auditor.promised
        await asyncio.sleep(dice.between(0, self.climate.storm_s * 0.6))
        deadline_s = dice.pick((None, 0.0, dice.between(1, 20)))
        number = dice.pick((0, DRAIN_SIGNAL))

        async def drain(manager: ManagerLife) -> bool:
            now = manager.clock.now()
            deadline = None if deadline_s is None else now + timedelta(seconds=deadline_s)
            promised.signals += bool(number)
            order = Drain("ada", now, deadline, number)
            return await manager.store.drain(host, order, f"{host} is drained", now)

        await insist(self.manager, drain)
        self.note("operator", f"{host} is drained within {deadline_s} s with signal {number}")
        promised.drains(host)
        if self.climate.calm and number:
            await self._all_hear(host)
        if self.climate.calm and deadline_s is not None:
            await asyncio.sleep(deadline_s + GONE_S)
            left = [kernel for kernel, on in self.auditor.seen.running.items() if on == host]
            self.auditor.demand(not left, f"{host} is drained, and still runs {left}")
        await asyncio.sleep(dice.skewed(1, self.climate.storm_s))
        promised.drained.pop(host, None)

        async def undrain(manager: ManagerLife) -> bool:
            return await manager.store.drain(host, None, "back", manager.clock.now())

        await insist(self.manager, undrain)
        self.note("operator", f"{host} is back in service")
