"""Managers that take turns: the lead's row, the fence around each commit, and lives that lead."""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import Callable, Iterator, Mapping
from sqlite3 import Connection as SqliteConnection
from sqlite3 import IntegrityError
from typing import Final

from phalanx_manager.loops.lead import Hold, keep, win
from phalanx_manager.serve import Loops
from phalanx_manager.store.leading import Deposed, Led
from phalanx_manager.store.port import Unavailable
from phalanx_manager.store.sqlite import SqliteStore
from phalanx_manager.store.tables import Refused, Row
from phalanx_wire.ids import SessionId
from tests.sim.climate import Climate
from tests.sim.daemons import CLUSTER_ID, Disk, LifeDatabase, ManagerLife, welcome
from tests.sim.link import Air, Office
from tests.sim.process import Fate, Process

LASTS_S: Final = 6.0
_ANSWER_S: Final = 0.002


class Lead:
    """Who leads, as the database has it; it outlives all managers.

    Attributes:
        cut: managers that the database does not answer now.
        late: managers whose renewals do not arrive, while what they write does.
    """

    def __init__(self, demand: Callable[[bool, str], None]) -> None:
        self.epoch = 0
        self.holder = ""
        self.renewed_at = -math.inf
        self.cut: set[str] = set()
        self.late: set[str] = set()
        self._demand = demand
        self._newest = 0

    def reach(self, name: str) -> None:
        """Raise `Unavailable` for who is cut off."""
        if name in self.cut:
            raise Unavailable("the database", "the connection was cut", "it is dialled again")

    def counts(self, epoch: int) -> None:
        """A commit of this lead is about to count."""
        older = epoch < self._newest
        self._newest = max(self._newest, epoch)
        self._demand(not older, f"a commit of lead {epoch} counts after one of {self._newest}")


class SimLease:
    """The `Lease` of one manager's process."""

    def __init__(self, process: Process, lead: Lead) -> None:
        self._process = process
        self._lead = lead

    async def take(self) -> int | Led:
        lead = self._lead
        now = await self._asked()
        if now - lead.renewed_at <= LASTS_S:
            return Led(lead.holder, "")
        lead.epoch += 1
        lead.holder, lead.renewed_at = self._process.name, now
        return lead.epoch

    async def renew(self, epoch: int) -> bool:
        now = await self._asked()
        if self._process.name in self._lead.late:
            raise Unavailable("the database", "it does not answer", "it is asked again")
        mine = self._lead.epoch == epoch
        if mine:
            self._lead.renewed_at = now
        return mine

    async def give_back(self, epoch: int) -> None:
        await self._asked()
        if self._lead.epoch == epoch:
            self._lead.renewed_at = -math.inf

    async def _asked(self) -> float:
        await asyncio.sleep(_ANSWER_S)
        self._process.point("lease")
        self._lead.reach(self._process.name)
        return asyncio.get_running_loop().time()


class FencedDatabase(LifeDatabase):
    """One lead's use of the durable database: what it says counts only while it leads.

    Attributes:
        deposed: it has been seen that another leads.
    """

    def __init__(
        self, durable: tuple[SqliteConnection, Disk], process: Process, lead: Lead, epoch: int
    ) -> None:
        super().__init__(durable[0], process, durable[1])
        self.deposed = asyncio.Event()
        self._name = process.name
        self._lead = lead
        self._epoch = epoch

    @contextlib.contextmanager
    def transaction(self) -> Iterator[None]:
        self._lead.reach(self._name)
        try:
            with super().transaction():
                yield
                self.fence()
                self._lead.counts(self._epoch)
        except (Refused, IntegrityError):
            self.fence()  # its rows are not as it knows them because another leads
            raise

    def fence(self) -> None:
        """Turn away who does not lead any more, as the database's own function does."""
        if self._lead.epoch != self._epoch:
            self.deposed.set()
            raise Deposed("the database", "another manager leads", "ask that one")

    def rows(self, name: str, values: Mapping[str, object], tail: str = "") -> list[Row]:
        self._lead.reach(self._name)
        return super().rows(name, values, tail)


class CandidateLife(ManagerLife):
    """One process of a manager that leads whenever no other does."""

    def __init__(
        self,
        number: int,
        fate: Fate,
        climate: Climate,
        durable: tuple[SqliteConnection, Disk],
        changed: Callable[[SessionId], None],
        shared: tuple[Lead, Air],
    ) -> None:
        super().__init__(number, fate, climate, durable, changed)
        self._durable = durable
        self._lead, self._air = shared

    def open(self) -> Office | None:
        """Nothing opens before it leads."""
        return None

    async def run(self) -> None:
        lease = SimLease(self, self._lead)
        while self.alive:
            epoch = await win(lease, lambda _: None, asyncio.sleep)
            try:
                await self._lead_for(lease, epoch)
            except* Deposed:
                self._closes()
            except* Unavailable:
                self.kill()  # its supervisor starts it again
            with contextlib.suppress(Unavailable):
                await lease.give_back(epoch)

    def _closes(self) -> None:
        office, self.office = self.office, None
        if office is not None:
            self._air.manager_died(office)

    async def _lead_for(self, lease: SimLease, epoch: int) -> None:
        hold = Hold(self.clock, LASTS_S, self.clock.monotonic_s())
        database = FencedDatabase(self._durable, self, self._lead, epoch)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(keep(lease, epoch, hold))
            self.store = SqliteStore(database, CLUSTER_ID, epoch, self._touched)
            await self.store.fill()
            self._loops = loops = Loops(self.store, self.clock, self._config, ())
            greeting = welcome(CLUSTER_ID, epoch)
            office = Office(self, loops.converge, greeting, hold.sure, self._knows)
            self._attach(office)
            self._air.offices.append(office)
            loops.start(tasks)
            await database.deposed.wait()
            raise Deposed("the lead", "another manager has taken it")
