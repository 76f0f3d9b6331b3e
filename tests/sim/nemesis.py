"""The big misfortunes of a seed: processes killed, hosts restarted, ways cut, clocks set."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from tests.sim.climate import Climate
from tests.sim.daemons import AgentLife, ManagerLife
from tests.sim.dice import Dice
from tests.sim.host import SimHost
from tests.sim.leads import Lead
from tests.sim.link import Air

_PATIENCE_S: Final = 20
_ALONE_S: Final = 3.0


@dataclass
class Nemesis:
    """Strikes a few times during the storm; each strike heals by itself after a while.

    Attributes:
        kill: ends a process.
        reboot: restarts a whole host; its process comes back with it.
    """

    climate: Climate
    dice: Dice
    air: Air
    hosts: list[SimHost]
    manager: Callable[[], ManagerLife | None]
    agent: Callable[[SimHost], AgentLife | None]
    lead: Lead
    note: Callable[[str, str], None]

    async def live(self) -> None:
        """Strike, until the storm is over."""
        async with asyncio.TaskGroup() as tasks:
            for _ in range(self.climate.strikes):
                at = self.dice.between(0, self.climate.storm_s)
                tasks.create_task(self._strike(at, self.dice.pick(self.hosts)))
            if self.climate.managers > 1 and not self.climate.calm:
                tasks.create_task(self._cut_leader())

    async def _strike(self, at: float, host: SimHost) -> None:
        await asyncio.sleep(at)
        kinds = {
            "kill the manager": self._kill_manager,
            "kill the agent": self._kill_agent,
            "restart the host": self._reboot,
            "stop the engine": self._stop_engine,
            "kill the engine": self._kill_engine,
            "cut shortly": self._cut_shortly,
            "cut for long": self._cut_for_long,
            "cut for very long": self._cut_for_long,
            "fail starts": self._poison,
            "set the clock": self._set_clock,
            "remove a container": self._remove_by_hand,
            "remove a container unheard": self._remove_unheard,
        }
        kind = self.dice.pick(sorted(kinds))
        self.note("nemesis", f"{kind} of {host.name}")
        await kinds[kind](host)
        self.note("nemesis", f"{kind} of {host.name} is over")

    async def _kill_manager(self, _host: SimHost) -> None:
        manager = self.manager()
        if manager is not None:
            manager.kill()

    async def _kill_agent(self, host: SimHost) -> None:
        agent = self.agent(host)
        if agent is not None:
            agent.kill()

    async def _cut_leader(self) -> None:
        """Have the database not answer its leader for a while; agents and users reach it."""
        await asyncio.sleep(self.dice.between(0, self.climate.storm_s * 0.6))
        manager = self.manager()
        if manager is None:
            return
        cut = self.dice.pick((self.lead.cut, self.lead.late))
        self.note("nemesis", f"cut {manager.name} off its database")
        cut.add(manager.name)
        long_s = 12.0 + self.climate.lost_after_s * self.dice.between(1.0, 1.5)
        await asyncio.sleep(self.dice.pick((self.dice.between(1, 20), long_s, long_s)))
        cut.discard(manager.name)
        self.note("nemesis", f"{manager.name} reaches its database")

    async def _reboot(self, host: SimHost) -> None:
        self.air.agent_died(host.name, silently=True)
        host.engine.power_off()
        host.forget_memory()
        await self._kill_agent(host)
        await asyncio.sleep(self.dice.between(5, 40))
        host.engine.boot()

    async def _stop_engine(self, host: SimHost) -> None:
        host.engine.stop(politely=True)
        await asyncio.sleep(self.dice.skewed(0.5, 20))
        host.engine.boot()

    async def _kill_engine(self, host: SimHost) -> None:
        host.engine.stop(politely=False)
        await asyncio.sleep(self.dice.skewed(0.5, 20))
        host.engine.boot()

    async def _cut_shortly(self, host: SimHost) -> None:
        await self._cut(host, self.dice.between(0.5, 14))

    async def _cut_for_long(self, host: SimHost) -> None:
        await self._cut(host, self.climate.lost_after_s * self.dice.between(0.7, 2.0))

    async def _cut(self, host: SimHost, for_s: float) -> None:
        up, down = self.dice.pick(((True, True), (True, False), (False, True)))
        self.air.cut(host.name, up=up, down=down)
        await asyncio.sleep(for_s)
        self.air.cut(host.name, up=False, down=False)

    async def _poison(self, host: SimHost) -> None:
        host.engine.poisoned = True
        await asyncio.sleep(self.dice.between(1, 10))
        host.engine.poisoned = False

    async def _remove_by_hand(self, host: SimHost) -> None:
        for _ in range(_PATIENCE_S):  # until there is something to remove
            running = [f for f in host.engine.containers.values() if f.status == "running"]
            if running:
                host.engine.remove_by_hand(self.dice.pick(running).id)
                return
            await asyncio.sleep(1.0)

    async def _remove_unheard(self, host: SimHost) -> None:
        """Let the manager learn of it only when its agent has had time to do something wrong."""
        self.air.cut(host.name, up=True, down=True)
        await self._remove_by_hand(host)
        await asyncio.sleep(_ALONE_S)
        self.air.cut(host.name, up=False, down=False)

    async def _set_clock(self, host: SimHost) -> None:
        """A host's, and now and then that of the manager's host."""
        most_s = self.climate.skew_s
        host.skew_s += self.dice.between(-most_s, most_s)
        manager = self.manager()
        if manager is not None and self.dice.chance(0.5):
            manager.clock.skew_s += self.dice.between(-most_s, most_s)
            self.note("nemesis", f"{manager.name} has its clock set")
