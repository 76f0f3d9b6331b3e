"""Many streams of bytes over one link, each with its own window; see `stream`.

Nothing here reads or writes a socket: the owner of the link gives a `send` and feeds `receive`.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from types import TracebackType
from typing import Final, Self

from phalanx_wire.control import Message
from phalanx_wire.stream import (
    CHUNK_BYTES,
    SIGNAL,
    STDIN,
    WINDOW_BYTES,
    Call,
    Closed,
    Credit,
    Data,
    Eof,
    Open,
    Resize,
)

MAX_STREAMS: Final = 4096
"""Open at once, of each side; an opener keeps to it, so its peer may ignore what is beyond."""

MIN_WINDOW_BYTES: Final = 2 * CHUNK_BYTES
MIN_COST: Final = 256
"""What the smallest data counts: it bounds the number of pieces that a receiver may hold."""

SendMessage = Callable[[Message], Awaitable[None]]


def cost(data: bytes) -> int:
    """Tell how much of a window a piece of data takes."""
    return max(len(data), MIN_COST)


def _is_signal(message: Data | Eof) -> bool:
    return isinstance(message, Data) and message.channel == SIGNAL


class StreamClosed(Exception):  # noqa: N818 - not always an error
    """A stream has ended while somebody wanted to write to it."""

    def __init__(self, closed: Closed) -> None:
        super().__init__(closed.why or closed.code or "the stream has ended")
        self.closed = closed


class Stream:
    """One end of a stream. One task reads (iterates), any may write.

    Used as a context it is closed with the code `cancelled` at the end unless it has ended before.

    Attributes:
        call: what the stream is for.
        closed: its end, as soon as that is known; data that came before can still be read.
        window: bytes that the peer may have on the way to us.
    """

    def __init__(
        self, number: int, call: Call, send: SendMessage, windows: tuple[int, int]
    ) -> None:
        """Args: windows: bytes we may have on the way to the peer, and it to us."""
        self.number = number
        self.call = call
        self.closed: Closed | None = None
        self._send = send
        self._room = windows[0]
        self.window = windows[1]
        self._held = 0
        self._uncredited = 0
        self._inbox: deque[Data | Eof] = deque()
        self._resize: Resize | None = None
        self._their_eof = False
        self._our_eof = False
        self._told = False  # the peer knows of the end, or is being told
        self._ended = asyncio.Event()
        self._readable = asyncio.Event()
        self._writable = asyncio.Event()
        self._tell: Callable[[Closed], asyncio.Task[None] | None] = lambda _closed: None

    # -------------------------------------------------------------- writing

    async def write(self, channel: int, data: bytes) -> None:
        """Send data, waiting for the peer's room; what fits a chunk arrives as one `Data`.

        Raises:
            StreamClosed: the stream has ended, from either side.
        """
        for start in range(0, len(data), CHUNK_BYTES):
            chunk = data[start : start + CHUNK_BYTES]
            price = cost(chunk)
            while self.closed is None and self._room < price:
                self._writable.clear()
                await self._writable.wait()
            self._check_writable(channel)
            self._room -= price
            await self._send(Data(self.number, channel, chunk))

    async def eof(self) -> None:
        """Say that no more data will come from here; a second time does nothing.

        Raises:
            StreamClosed: the stream has ended.
        """
        if self._our_eof and self.closed is None:
            return
        self._check_writable(STDIN)
        self._our_eof = True
        await self._send(Eof(self.number))

    async def resize(self, rows: int, columns: int) -> None:
        """Tell the size of the terminal.

        Raises:
            StreamClosed: the stream has ended.
        """
        if self.closed is not None:
            raise StreamClosed(self.closed)
        await self._send(Resize(self.number, rows, columns))

    async def close(self, exit_code: int | None = None, code: str = "", why: str = "") -> None:
        """End the stream, both directions; what has come and is not read is dropped. The peer is
        told, although the caller is cancelled before there is room.
        """
        telling = self._leave(Closed(self.number, exit_code, code, why))
        if telling is not None:
            await asyncio.wait({telling})

    async def ended(self) -> Closed:
        """Wait for the end, from either side; what has come may still be there to be read."""
        await self._ended.wait()
        assert self.closed is not None  # noqa: S101 - `_end` has set it
        return self.closed

    def _leave(self, closed: Closed) -> asyncio.Task[None] | None:
        """End the stream; what tells the peer, unless that knows or is being told."""
        self._inbox.clear()
        self._resize = None
        self._end(closed, told=False)
        assert self.closed is not None  # noqa: S101 - `_end` has set it
        if self._told:
            return None
        self._told = True
        return self._tell(self.closed)

    def _check_writable(self, channel: int) -> None:
        if self.closed is not None:
            raise StreamClosed(self.closed)
        if self._our_eof and channel != SIGNAL:
            raise StreamClosed(Closed(self.number, code="eof", why="written after the end of data"))

    # -------------------------------------------------------------- reading

    def __aiter__(self) -> AsyncIterator[Data | Eof | Resize]:
        return self

    async def __anext__(self) -> Data | Eof | Resize:
        while True:
            if self._resize is not None:
                resize, self._resize = self._resize, None
                return resize
            if self._inbox:
                return await self._take(self._inbox.popleft())
            if self.closed is not None:
                raise StopAsyncIteration
            self._readable.clear()
            await self._readable.wait()

    async def _take(self, item: Data | Eof) -> Data | Eof:
        if isinstance(item, Data):
            price = cost(item.data)
            self._held -= price
            self._uncredited += price
            # A quarter of the window at a time: few messages, and always room for a whole chunk.
            if self._uncredited >= self.window // 4 and self.closed is None:
                given, self._uncredited = self._uncredited, 0
                await self._send(Credit(self.number, given))
        return item

    # -------------------------------------------------------------- the mux's side

    def _deliver(self, message: Data | Eof | Resize | Credit | Closed) -> None:
        """Take one message of the peer; it never blocks."""
        match message:
            case Resize():
                self._resize = message  # only the newest size matters
            case Credit():
                self._room = min(self._room + max(message.bytes, 0), WINDOW_BYTES)
                self._writable.set()
            case Closed():
                self._end(message, told=True)
            case Data() | Eof() if self._their_eof and not _is_signal(message):
                self._break("data after the end of data")
            case Data() if self._held + cost(message.data) > self.window:
                self._break("more data than its window")
            case Data():
                self._held += cost(message.data)
                self._inbox.append(message)
            case Eof():
                self._their_eof = True
                self._inbox.append(message)
        self._readable.set()

    def _break(self, what: str) -> None:
        self._inbox.clear()
        self._end(
            Closed(self.number, code="protocol_error", why=f"the peer sent {what}"), told=False
        )

    def _end(self, closed: Closed, *, told: bool) -> None:
        if self.closed is None:
            self.closed = closed
        self._told = self._told or told
        self._ended.set()
        self._readable.set()
        self._writable.set()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close(code="cancelled")


class Mux:
    """All streams of one link.

    Args of the constructor:
        send: puts a message on the link. It may wait, and must not raise when the link is gone:
            the owner of the link calls `abort` then.
        first_number: 0 for the manager, 1 for the agent.
        on_open: called for each stream that the peer opens; it must not block.
    """

    def __init__(
        self, send: SendMessage, first_number: int, on_open: Callable[[Open, Stream], None]
    ) -> None:
        self._send = send
        self._next = first_number
        self._parity = first_number % 2
        self._on_open = on_open
        self._streams: dict[int, Stream] = {}
        self._telling: dict[int, asyncio.Task[None]] = {}
        self._open = [0, 0]  # of the even and the odd numbers
        self._newest_of_peer = -1
        self._lost: str | None = None

    def __len__(self) -> int:
        return len(self._streams)

    async def open(self, call: Call, window: int = WINDOW_BYTES) -> Stream:
        """Open a stream; its end with a code tells when the peer cannot serve it.

        Raises:
            StreamClosed: the link is gone, or too many streams are open.
        """
        number = self._next
        if self._lost is not None:
            raise StreamClosed(Closed(number, code="link_lost", why=self._lost))
        if self._open[self._parity] >= MAX_STREAMS:
            raise StreamClosed(
                Closed(number, code="too_many_streams", why=f"{MAX_STREAMS} streams are open")
            )
        self._next += 2
        window = min(max(window, MIN_WINDOW_BYTES), WINDOW_BYTES)
        stream = self._add(number, call, (WINDOW_BYTES, window))
        try:
            await self._send(Open(number, call, window))
        except asyncio.CancelledError:
            # It may have been sent already; who has not heard of it ignores its end.
            stream._leave(Closed(number, code="cancelled"))  # noqa: SLF001 - the two are one
            raise
        return stream

    def receive(self, message: Message) -> None:
        """Take one message of the peer. It never blocks and never raises; nonsense is ignored."""
        match message:
            case Open():
                self._opened(message)
            case Data() | Eof() | Resize() | Credit() | Closed():
                stream = self._streams.get(message.stream)
                if stream is None or stream.closed is not None:
                    return  # late: the stream has ended here
                stream._deliver(message)  # noqa: SLF001 - see above
                if stream.closed is not None:
                    self._forget(message.stream)
            case _:
                return

    def abort(self, why: str) -> None:
        """End all streams with the code `link_lost`; nothing is sent any more."""
        self._lost = self._lost or why
        for number, stream in self._streams.items():
            stream._end(Closed(number, code="link_lost", why=why), told=True)  # noqa: SLF001 - see above
        self._streams.clear()
        self._open = [0, 0]
        for telling in self._telling.values():
            telling.cancel()

    def _opened(self, message: Open) -> None:
        number = message.stream
        if (
            self._lost is not None
            or number % 2 == self._parity
            or number <= self._newest_of_peer
            or self._open[1 - self._parity] >= MAX_STREAMS
        ):
            return
        self._newest_of_peer = number
        window = min(max(message.window, MIN_WINDOW_BYTES), WINDOW_BYTES)
        self._on_open(message, self._add(number, message.call, (window, WINDOW_BYTES)))

    def _tell(self, closed: Closed) -> asyncio.Task[None]:
        """Tell the peer of an end by a task of our own, which ends with the link: no caller that
        goes takes it along.
        """
        telling = asyncio.ensure_future(self._send_end(closed))
        self._telling[closed.stream] = telling
        telling.add_done_callback(lambda _: self._telling.pop(closed.stream))
        return telling

    async def _send_end(self, closed: Closed) -> None:
        await self._send(closed)
        self._forget(closed.stream)  # until now the peer has counted it, too

    def _forget(self, number: int) -> None:
        if self._streams.pop(number, None) is not None:
            self._open[number % 2] -= 1

    def _add(self, number: int, call: Call, windows: tuple[int, int]) -> Stream:
        stream = Stream(number, call, self._send, windows)
        stream._tell = self._tell  # noqa: SLF001 - see above
        self._streams[number] = stream
        self._open[number % 2] += 1
        return stream
