"""A store in one of its databases, that can be opened again as after a kill."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import replace

from phalanx_manager.core.model import Caller, NetworkRow, SessionRow
from phalanx_manager.core.observe import KernelChange, moved
from phalanx_manager.core.seat import Placement, Seat
from phalanx_manager.store.leading import Candidate
from phalanx_manager.store.lease import PostgresLease
from phalanx_manager.store.ledger import Ledger
from phalanx_manager.store.port import Created, Joined, NewSession, TokenRow
from phalanx_manager.store.postgres import open_postgres
from phalanx_manager.store.sqlite import SqliteStore
from phalanx_wire.ids import AgentId, SessionId
from phalanx_wire.lifecycle import KernelState, Owner
from tests.support.house import CLUSTER, NOW, admitted, later

ADA, BOB, ROOT = Caller("ada", "user"), Caller("bob", "user"), Caller("root", "admin")
ONE, TWO = SessionId("aaaaaaaaaaaa"), SessionId("bbbbbbbbbbbb")
A = AgentId("a")

Open = Callable[[Callable[[SessionId], None]], AbstractAsyncContextManager[Ledger]]


@asynccontextmanager
async def in_sqlite(path: str, changed: Callable[[SessionId], None]) -> AsyncIterator[Ledger]:
    """A store in a file, or in memory."""
    with contextlib.closing(SqliteStore.open(path, NOW, "cid", changed)) as store:
        yield store


@asynccontextmanager
async def in_postgres(url: str, changed: Callable[[SessionId], None]) -> AsyncIterator[Ledger]:
    """A store of the manager that leads on this database; whoever led before gives way."""
    async with PostgresLease.open(url, Candidate("here", "", "key")) as lease:
        epoch = await lease.take()
        assert isinstance(epoch, int)
        async with open_postgres(url, epoch, "cid", changed) as (store, run):
            running = asyncio.ensure_future(run())
            try:
                yield store
            finally:
                running.cancel()
                await asyncio.wait({running})
                await lease.give_back(epoch)


class Case:
    """A store, and what it told about changes."""

    def __init__(self, open_: Open, *, lasting: bool = True) -> None:
        self.changed: list[SessionId] = []
        self.store: Ledger
        self._open = open_
        self._lasting = lasting
        self._opened: AbstractAsyncContextManager[Ledger] | None = None

    async def begin(self) -> None:
        self._opened = self._open(self.changed.append)
        self.store = await self._opened.__aenter__()

    async def end(self) -> None:
        if self._opened is not None:
            await self._opened.__aexit__(None, None, None)

    async def again(self) -> Ledger:
        """Open the database anew, as after a kill; a store in memory stays as it is."""
        if self._lasting:
            await self.end()
            await self.begin()
        return self.store

    async def submit(
        self, session: SessionId = ONE, caller: Caller = ADA, **fields: object
    ) -> None:
        key = fields.pop("key", None)
        request = NewSession(
            session,
            caller,
            admitted(**{"name": f"name-{session[0]}", **fields}),
            NOW,
            str(key) if key else None,
            "digest",
        )
        assert Created(session) == await self.store.submit(request)

    async def join(self, name: str = "a") -> None:
        token = TokenRow(f"t{name}", "agent", "", "user", CLUSTER, NOW, None, public_key=f"k{name}")
        await self.store.add_token(token)
        joined = await self.store.use_agent_token(f"k{name}", AgentId(name), f"own-{name}", NOW)
        assert isinstance(joined, Joined)

    async def row(self, session: SessionId = ONE) -> SessionRow:
        found = await self.store.session(session, ROOT)
        assert isinstance(found, SessionRow)
        return found

    async def place(self, session: SessionId = ONE, subnet: str = "10.213.0.0/26") -> bool:
        row = await self.row(session)
        seats = tuple(
            Seat(kernel.id, A, f"10.213.0.{60 + kernel.rank}", (f"gpu{kernel.rank}",))
            for kernel in row.kernels
        )
        attempt = row.session.attempt
        network = NetworkRow(f"phx-{session}-{attempt}", "bridge", subnet, A)
        return await self.store.place(Placement(session, attempt, seats, network), later(1))

    async def place_on_host(self, session: SessionId = ONE) -> bool:
        (kernel,) = (await self.row(session)).kernels
        seat = Seat(kernel.id, A, "192.0.2.1", (), "eth0", 61000, 61001)
        net = NetworkRow(f"phx-{session}-1", "host", "192.0.2.0/24", A, "host", released=True)
        return await self.store.place(Placement(session, 1, (seat,), net), later(1))

    async def move(
        self, rank: int, *steps: KernelState, seen: KernelState | None = None, **fields: object
    ) -> bool:
        kernel = (await self.row()).kernels[rank]
        after = moved(replace(kernel, **fields), steps, later(2))  # type: ignore[arg-type]
        change = KernelChange(seen or kernel.state, steps, Owner.AGENT, after, ("",) * len(steps))
        return await self.store.record((change,), (), later(2))
