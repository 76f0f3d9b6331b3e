"""Finds sessions in the database: by id, name or prefix, or all that are asked for."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from phalanx_manager.core.model import Caller, Kernel, NetworkRow, Refusal, SessionRow
from phalanx_manager.store import rows
from phalanx_manager.store.port import SessionFilter
from phalanx_manager.store.tables import Row, Tables
from phalanx_wire.api import ENDED_STATES
from phalanx_wire.ids import SessionId, split_kernel_id

_REF: Final = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")
_NUMBER: Final = re.compile(r"[1-9][0-9]{0,15}")
_LEFT: Final = """
SELECT id, attempt FROM session WHERE done = 0
UNION ALL SELECT session, attempt FROM attempt WHERE done = 0
"""
_MINE: Final = '("user" = :user OR :user IS NULL)'
_OWN_FIRST: Final = 'CASE WHEN "user" = :own THEN 0 ELSE 1 END, created_at DESC, id DESC'
"""Who sees everybody's sessions means their own by a name: others may give theirs the same."""


class Lookup:
    """Reads sessions; those that live are taken from the values at hand."""

    def __init__(self, tables: Tables, live: Mapping[SessionId, SessionRow]) -> None:
        self._tables = tables
        self._live = live

    async def alive(self) -> dict[SessionId, SessionRow]:
        """Read all of which something may be left on a host, in order of arrival."""
        left = await self._parts(f"WHERE (session, attempt) IN ({_LEFT})", {})
        ended: dict[SessionId, list[Row]] = {}
        for one in await self._tables.read(
            "attempt_columns", {}, "WHERE done = 0 ORDER BY attempt"
        ):
            ended.setdefault(one[9], []).append(one)
        sessions = await self._rows({}, "WHERE done = 0 ORDER BY created_at, id")
        return {row[0]: _whole(row, ended.get(row[0], ()), left) for row in sessions}

    async def by_ref(self, ref: str, caller: Caller) -> SessionRow | Refusal | None:
        """See `port.Store.session`."""
        if not _REF.fullmatch(ref):
            return None
        whose = None if caller.scope == "admin" else caller.user
        who = {"ref": ref, "user": whose, "own": caller.user}
        for test in ("id = :ref", "name = :ref"):
            tail = f"WHERE {test} AND {_MINE} ORDER BY {_OWN_FIRST} LIMIT 1"
            found = await self._rows(who, tail)
            if found:
                return await self._full(found[0])
        if _NUMBER.fullmatch(ref):
            numbered = {"number": int(ref), "user": who["user"]}
            if found := await self._rows(numbered, f"WHERE number = :number AND {_MINE}"):
                return await self._full(found[0])
        return await self._by_prefix(who)

    async def _by_prefix(self, who: dict[str, str | None]) -> SessionRow | Refusal | None:
        # A reference has neither % nor _, so it can stand in a pattern as it is.
        tail = f"WHERE (id LIKE :ref || '%' OR name LIKE :ref || '%') AND {_MINE}"
        found = await self._rows(who, f"{tail} ORDER BY {_OWN_FIRST} LIMIT 50")
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
        key = {"session": session, "attempt": attempt}
        of_it = "WHERE session = :session AND attempt = :attempt"
        for ended in await self._tables.read("attempt_columns", key, of_it):
            network, kernels = (await self._parts(of_it, key)).of(session, attempt)
            return SessionRow(rows.attempt(row.session, ended, network), kernels)
        return None

    # -- inside

    async def _rows(self, values: Mapping[str, object], tail: str) -> list[Row]:
        return await self._tables.read("session_columns", values, tail)

    async def _full(self, row: Row) -> SessionRow:
        return self._live.get(row[0]) or await self._read(row)

    async def _read(self, row: Row) -> SessionRow:
        key = {"session": row[0]}
        tail = "WHERE session = :session AND done = 0 ORDER BY attempt"
        ended = await self._tables.read("attempt_columns", key, tail)
        wanted = {f"attempt{number}": one[0] for number, one in enumerate((*ended, (row[6],)))}
        names = ", ".join(f":{name}" for name in wanted)
        test = f"WHERE session = :session AND attempt IN ({names})"
        return _whole(row, ended, await self._parts(test, {**key, **wanted}))

    async def _parts(self, test: str, values: Mapping[str, object]) -> _Parts:
        """Read the networks and kernels of some attempts."""
        parts = _Parts({}, {})
        for row in await self._tables.read("network_columns", values, test):
            parts.networks[row[8], row[9]] = rows.network(row)
        for row in await self._tables.read("kernel_columns", values, f"{test} ORDER BY rank"):
            session, attempt, _ = split_kernel_id(row[0])
            parts.kernels.setdefault((session, attempt), []).append(rows.kernel(row))
        return parts


@dataclass(frozen=True, slots=True)
class _Parts:
    """Networks and kernels by session and attempt."""

    networks: dict[tuple[SessionId, int], NetworkRow]
    kernels: dict[tuple[SessionId, int], list[Kernel]]

    def of(self, session: SessionId, attempt: int) -> tuple[NetworkRow | None, tuple[Kernel, ...]]:
        key = session, attempt
        return self.networks.get(key), tuple(self.kernels.get(key, ()))


def _whole(row: Row, ended: Iterable[Row], parts: _Parts) -> SessionRow:
    """Put a session together: its network, its kernels, and what is left of earlier attempts."""
    network, kernels = parts.of(row[0], row[6])
    session = rows.session(row, network)
    past: list[SessionRow] = []
    for one in ended:
        network, left = parts.of(session.id, one[0])
        past.append(SessionRow(rows.attempt(session, one, network), left))
    return SessionRow(session, kernels, tuple(past))
