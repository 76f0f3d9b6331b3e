"""Finds sessions in the database: by id, name or prefix, or all that are asked for."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from phalanx_manager.core.model import Caller, Kernel, NetworkRow, Refusal, SessionRow
from phalanx_manager.store import rows
from phalanx_manager.store.port import SessionFilter
from phalanx_manager.store.tables import Row, Tables
from phalanx_wire.api import ENDED_STATES
from phalanx_wire.ids import SessionId

_REF: Final = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")
_MINE: Final = '("user" = :user OR :user IS NULL)'


class Lookup:
    """Reads sessions; those that live are taken from the values at hand."""

    def __init__(self, tables: Tables, live: Mapping[SessionId, SessionRow]) -> None:
        self._tables = tables
        self._live = live

    async def alive(self) -> dict[SessionId, SessionRow]:
        """Read all of which something may be left on a host, in order of arrival."""
        tail = "WHERE done = 0 ORDER BY created_at, id"
        found = [await self._read(row) for row in await self._rows({}, tail)]
        return {row.session.id: row for row in found}

    async def by_ref(self, ref: str, caller: Caller) -> SessionRow | Refusal | None:
        """See `port.Store.session`."""
        if not _REF.fullmatch(ref):
            return None
        who = {"ref": ref, "user": None if caller.scope == "admin" else caller.user}
        for test in ("id = :ref", "name = :ref"):
            tail = f"WHERE {test} AND {_MINE} ORDER BY created_at DESC, id DESC LIMIT 1"
            found = await self._rows(who, tail)
            if found:
                return await self._full(found[0])
        return await self._by_prefix(who)

    async def _by_prefix(self, who: dict[str, str | None]) -> SessionRow | Refusal | None:
        # A reference has neither % nor _, so it can stand in a pattern as it is.
        tail = f"WHERE (id LIKE :ref || '%' OR name LIKE :ref || '%') AND {_MINE}"
        found = await self._rows(who, f"{tail} ORDER BY created_at DESC, id DESC LIMIT 50")
        alive = [row for row in found if row[5] not in ENDED_STATES]
        candidates = alive or found
        names = dict.fromkeys(str(row[1]) for row in candidates)
        if not candidates:
            return None
        if len(names) > 1:
            return Refusal(
                "ambiguous",
                409,
                f"{who['ref']} fits several sessions: {', '.join(list(names)[:8])}",
                hint="write more of the name or the id",
            )
        return await self._full(candidates[0])

    async def listing(self, wanted: SessionFilter) -> tuple[SessionRow, ...]:
        """See `port.Store.sessions`."""
        states = wanted.states or ()
        values: dict[str, object] = {"user": wanted.user, "limit": wanted.limit}
        values |= {f"state{number}": state for number, state in enumerate(states)}
        test = ""
        if states:
            test = f"AND state IN ({', '.join(f':state{number}' for number in range(len(states)))})"
        elif not wanted.ended_too:
            test = "AND state NOT IN ('succeeded', 'failed', 'cancelled', 'timeout')"
        tail = f"WHERE {_MINE} {test} ORDER BY created_at DESC, id DESC LIMIT :limit"
        return tuple([await self._full(row) for row in await self._rows(values, tail)])

    async def attempt(self, session: SessionId, attempt: int) -> SessionRow | None:
        """See `port.Store.attempt`."""
        found = await self._rows({"id": session}, "WHERE id = :id")
        row = await self._full(found[0]) if found else None
        if row is None or row.of(attempt) is not None:
            return None if row is None else row.of(attempt)
        for ended in await self._tables.read("attempts_of", {"session": session}):
            if ended[0] == attempt:
                network, kernels = await self._attempt(session, attempt)
                return SessionRow(rows.attempt(row.session, ended, network), kernels)
        return None

    # -- inside

    async def _rows(self, values: Mapping[str, object], tail: str) -> list[Row]:
        return await self._tables.read("session_columns", values, tail)

    async def _full(self, row: Row) -> SessionRow:
        return self._live.get(row[0]) or await self._read(row)

    async def _read(self, row: Row) -> SessionRow:
        """Read a session with its network, its kernels, and what is left of earlier attempts."""
        network, kernels = await self._attempt(row[0], row[6])
        session = rows.session(row, network)
        past: list[SessionRow] = []
        for ended in await self._tables.read("attempts_of", {"session": session.id}):
            if not ended[7]:
                network, left = await self._attempt(session.id, ended[0])
                past.append(SessionRow(rows.attempt(session, ended, network), left))
        return SessionRow(session, kernels, tuple(past))

    async def _attempt(
        self, session: SessionId, attempt: int
    ) -> tuple[NetworkRow | None, tuple[Kernel, ...]]:
        key = {"session": session, "attempt": attempt}
        networks = await self._tables.read("network_of", key)
        kernels = await self._tables.read("kernels_of", key)
        network = rows.network(networks[0]) if networks else None
        return network, tuple(rows.kernel(found) for found in kernels)
