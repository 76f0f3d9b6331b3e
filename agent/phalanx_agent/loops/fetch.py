"""Gets archives from the manager."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable

from phalanx_agent.core.refused import Refused
from phalanx_agent.docker.port import Unavailable
from phalanx_wire.mux import Stream, StreamClosed
from phalanx_wire.stream import Call, Data, UploadCall

_UNKNOWN = "upload_unknown"


async def upload(
    open_stream: Callable[[Call], Awaitable[Stream]], digest: str
) -> AsyncIterator[bytes]:
    """Read an archive of the manager's by its digest.

    Raises:
        Unavailable: the manager is away.
        Refused: it has no such archive.
    """
    what, doing = f"upload {digest[:19]}", "fetching it"
    try:
        stream = await open_stream(UploadCall(digest))
    except StreamClosed as error:
        raise Unavailable(what, doing, f"{error}.", kind="not_sent") from error
    async with stream:
        async for item in stream:
            if isinstance(item, Data):
                yield item.data
        closed = stream.closed
    if closed is not None and closed.code == _UNKNOWN:
        raise Refused(f"The manager has no upload {digest[:19]} any more.")
    if closed is None or closed.code:
        raise Unavailable(what, doing, closed.why if closed else "It broke off.", kind="unknown")
