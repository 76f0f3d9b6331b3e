"""One request on its way through a handler, and the table's rows that lead there."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Any, Final, Literal, TypeVar

import msgspec
from aiohttp import web

from phalanx_manager.core.model import Caller, Kernel, Refusal, Scope, SessionRow
from phalanx_manager.http import bodies
from phalanx_manager.http.auth import Turnstile
from phalanx_manager.http.doors import Doors
from phalanx_manager.http.params import Param
from phalanx_manager.http.problems import not_found, refusal, refused
from phalanx_wire.ids import AgentId
from phalanx_wire.mux import Stream
from phalanx_wire.names import is_session_name
from phalanx_wire.stream import Call

T = TypeVar("T")

NOBODY: Final = Caller("", "read-only")


@dataclass(frozen=True, slots=True)
class Ask:
    """What a handler works with.

    Attributes:
        values: the query, read; what was not given is not in it.
        turnstile: holds streams open within the caller's bounds.
    """

    doors: Doors
    request: web.Request
    caller: Caller
    values: Mapping[str, Any]
    turnstile: Turnstile

    def open(self, agent: AgentId, call: Call) -> AbstractAsyncContextManager[Stream]:
        """Open a stream to an agent within the caller's share; see `Shares.open`."""
        return self.doors.shares.open(self.caller.user, agent, call)

    async def body(self, shape: type[T]) -> T:
        """Read the JSON body."""
        return bodies.parse(await bodies.read_json(self.request), shape)

    async def row(self) -> SessionRow:
        """Find the session that the path names."""
        ref = self.request.match_info["ref"]
        if not is_session_name(ref):
            raise not_found("session", ref)
        found = await self.doors.store.session(ref, self.caller)
        match found:
            case SessionRow():
                return found
            case Refusal():
                raise refusal(found)
            case None:
                raise not_found("session", ref)

    async def again(self, row: SessionRow) -> SessionRow:
        """Read a session that was found before anew."""
        found = await self.doors.store.session(row.session.id, self.caller)
        if not isinstance(found, SessionRow):
            raise not_found("session", row.session.id)
        return found

    def kernels(self, row: SessionRow, name: str = "rank") -> tuple[Kernel, ...]:
        """Pick the kernels that a set of ranks names; all when it was not given."""
        ranges = self.values.get(name)
        if ranges is None:
            return row.kernels
        size = len(row.kernels)
        wanted: set[int] = set()
        for first, last in ranges:
            if last < first or last >= size:
                raise _no_rank(f"{first}-{last}" if first != last else str(first), size, name)
            wanted.update(range(first, last + 1))
        return tuple(kernel for kernel in row.kernels if kernel.rank in wanted)

    def kernel(self, row: SessionRow) -> Kernel:
        """Pick the kernel that `rank` names; 0 when it was not given."""
        rank = int(self.values.get("rank", 0))
        if rank >= len(row.kernels):
            raise _no_rank(str(rank), len(row.kernels), "rank")
        return row.kernels[rank]


def _no_rank(rank: str, size: int, field: str) -> Exception:
    ranks = f"ranks 0 to {size - 1}" if size > 1 else "rank 0 only"
    return refused("no_such_rank", 404, f"there is no rank {rank}; the session has {ranks}", field)


def answer(value: msgspec.Struct, status: int = 200, **headers: str) -> web.Response:
    """Spell a view as the JSON answer."""
    return web.Response(
        body=msgspec.json.encode(value),
        status=status,
        headers={name.replace("_", "-"): text for name, text in headers.items()},
        content_type="application/json",
    )


Handler = Callable[[Ask], Awaitable[web.StreamResponse]]
Body = type[msgspec.Struct] | Literal["tar"] | None
Reply = type[msgspec.Struct] | Literal["tar", "log-stream", "event-stream", "text", "any", "socket"]


@dataclass(frozen=True, slots=True)
class Route:
    """One row of the table that makes both the service and its description.

    Attributes:
        scope: what a token must reach at least; None is without a token.
        optional_body: the body may be left out.
        headers: request headers that mean something, with what they mean.
    """

    method: Literal["GET", "POST", "PUT", "DELETE"]
    path: str
    handler: Handler
    about: str
    reply: Reply | None
    scope: Scope | None = "read-only"
    params: tuple[Param, ...] = ()
    body: Body = None
    optional_body: bool = False
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
