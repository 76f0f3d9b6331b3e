"""The agent's end of what a container asks: src/ask/ask.c is the other one, and has the grammar.

Any process of the container may ask, and as often as it likes: who knocks too often waits at the
door, and whatever is held for it here is bounded. Which container asks is known by the folder.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from phalanx_runner.door import bind

SOCKET = "ask.sock"
QUESTION_LIMIT = 512 * 1024  # bytes of a command line and its environment
QUESTIONS_AT_ONCE = 4  # that are being read, of one container
QUESTION_S = 10.0  # for all of one to come
LAST_WORD_S = 5.0  # for it to read the end of the answer
INPUT_LIMIT = 64 * 1024  # bytes of one frame after the question
BURST = 32  # questions at once
RATE = 8.0  # questions a second in the long run
_HEADER = struct.Struct("!cI")
_READ_SIZE = 32 * 1024


class Malformed(Exception):  # noqa: N818 - what a container says is no error of ours
    """It says what makes no sense; the text is a sentence for whoever asked."""


@dataclass(frozen=True)
class Question:
    """What a process asks. What of its environment is no text is left out.

    argv: begins with the bare name of the program.
    tty: its input and output are a terminal of rows x columns.
    """

    argv: tuple[str, ...]
    cwd: str = ""
    environ: dict[str, str] = field(default_factory=dict)
    tty: bool = False
    rows: int = 24
    columns: int = 80


@dataclass(frozen=True)
class Input:
    """What it writes; nothing at its end."""

    data: bytes


@dataclass(frozen=True)
class Signalled:
    """It was sent a signal, and passes it on."""

    number: int


@dataclass(frozen=True)
class Resized:
    """Its terminal has a new size."""

    rows: int
    columns: int


def parse(content: bytes) -> Question:
    """Raises Malformed."""
    head, *rest = content.removesuffix(b"\0").split(b"\0")
    try:
        version, *numbers = (int(word) for word in head.split())
        count, tty, rows, columns = numbers
    except ValueError:
        raise Malformed("The question makes no sense.") from None
    if version != 1 or not 0 < count < len(rest):
        raise Malformed("The question is of another version.")
    cwd, words, variables = rest[0], rest[1 : count + 1], rest[count + 1 :]
    try:
        argv = tuple(word.decode() for word in words)
    except UnicodeDecodeError:
        raise Malformed("Arguments have to be UTF-8.") from None
    pairs = (_text(one).partition("=") for one in variables)
    return Question(
        argv,
        _text(cwd),
        {name: value for name, equals, value in pairs if name and equals},
        tty == 1,
        min(max(rows, 1), 0xFFFF),
        min(max(columns, 1), 0xFFFF),
    )


def _text(raw: bytes) -> str:
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return ""


class Asker:
    """One process that asks. Made by `async with Asker.on(...)`.

    heard: it has been told something, and may not be asked for again.
    begun: what it asked for has begun; its input comes.
    """

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self.heard = False
        self.begun = False

    @classmethod
    @asynccontextmanager
    async def on(cls, peer: socket.socket) -> AsyncIterator[Asker]:
        """Closes the connection at the end. Whoever has gone reads as one who says nothing."""
        try:
            reader, writer = await asyncio.open_unix_connection(sock=peer, limit=_READ_SIZE)
        except BaseException:
            peer.close()
            raise
        writer.transport.set_write_buffer_limits(high=INPUT_LIMIT)
        try:
            yield cls(reader, writer)
            writer.close()
            with contextlib.suppress(OSError, TimeoutError):
                async with asyncio.timeout(LAST_WORD_S):
                    await writer.wait_closed()
        finally:
            writer.transport.abort()

    async def question(self) -> Question:
        """Raises Malformed, and EOFError or OSError where it has gone."""
        kind, size = _HEADER.unpack(await self._reader.readexactly(_HEADER.size))
        if kind != b"a":
            raise Malformed("The question makes no sense.")
        if size > QUESTION_LIMIT:
            raise Malformed(
                f"The arguments and the environment have {size} bytes; {QUESTION_LIMIT} are the "
                f"most that can be asked with. Unset what is large: env -u NAME ..."
            )
        return parse(await self._reader.readexactly(size))

    async def frames(self) -> AsyncIterator[Input | Signalled | Resized]:
        """What comes after the question, until it has gone. Raises Malformed, OSError."""
        with contextlib.suppress(asyncio.IncompleteReadError):
            while True:
                kind, size = _HEADER.unpack(await self._reader.readexactly(_HEADER.size))
                if size > INPUT_LIMIT or not self.begun:
                    raise Malformed("It says what nobody has asked for.")
                content = await self._reader.readexactly(size)
                match kind, size:
                    case b"i", _:
                        yield Input(content)
                    case b"s", 1:
                        yield Signalled(content[0])
                    case b"w", 4:
                        yield Resized(*struct.unpack("!HH", content))
                    case _:
                        raise Malformed("It says what makes no sense.")

    async def begin(self, how: int) -> None:
        """What was asked for runs, and takes input. Raises OSError where it has gone."""
        self.begun = True
        await self._say(b"b", bytes([how & 0xFF]))

    async def more(self) -> None:
        """The input that came has been taken. Raises OSError where it has gone."""
        await self._say(b"m", b"")

    async def output(self, data: bytes, *, error: bool = False) -> None:
        """Raises OSError where it has gone."""
        await self._say(b"e" if error else b"o", data)

    async def end(self, code: int, why: str = "") -> None:
        """The last word. Raises OSError where it has gone."""
        if why:
            await self.output(f"{why}\n".encode(), error=True)
        await self._say(b"x", bytes([code & 0xFF]))

    async def _say(self, kind: bytes, content: bytes) -> None:
        self.heard = True
        self._writer.write(_HEADER.pack(kind, len(content)) + content)
        await self._writer.drain()


class Door:
    """Where one container asks. Made by `with Door.open(...)`."""

    def __init__(self, listener: socket.socket, come: Callable[[socket.socket], None]) -> None:
        self._listener = listener
        self._come = come
        self._loop = asyncio.get_running_loop()
        self._reading = 0
        self._tokens = float(BURST)
        self._filled_at = self._loop.time()
        self._pause: asyncio.TimerHandle | None = None
        self._closed = False

    @classmethod
    @contextmanager
    def open(cls, directory: Path, come: Callable[[Door, socket.socket], None]) -> Iterator[Door]:
        """Listens at directory/ask.sock, in place of a dead agent's socket, if there is one.

        come: gets each connection that is let in, and says `read()` once for it; must not block.

        Raises OSError when the directory can't be used.
        """
        door = cls(bind(directory, SOCKET), lambda peer: come(door, peer))
        door._listen()
        try:
            yield door
        finally:
            door._close()

    def read(self) -> None:
        """One question has been read, or will not be: there is room for another."""
        self._reading -= 1
        self._listen()

    def _accept(self) -> None:
        now = self._loop.time()
        self._tokens = min(BURST, self._tokens + (now - self._filled_at) * RATE)
        self._filled_at = now
        if self._tokens < 1:
            self._wait((1 - self._tokens) / RATE)
            return
        try:
            peer, _ = self._listener.accept()
        except (BlockingIOError, ConnectionAbortedError):
            return
        except OSError:  # no descriptor is free: whoever waits goes on waiting
            self._wait(1.0)
            return
        self._tokens -= 1
        self._reading += 1
        if self._reading >= QUESTIONS_AT_ONCE:
            self._loop.remove_reader(self._listener)
        peer.setblocking(False)
        self._come(peer)

    def _wait(self, seconds: float) -> None:
        self._loop.remove_reader(self._listener)
        self._pause = self._loop.call_later(seconds, self._resume)

    def _resume(self) -> None:
        self._pause = None
        self._listen()

    def _listen(self) -> None:
        if not self._closed and self._pause is None and self._reading < QUESTIONS_AT_ONCE:
            self._loop.add_reader(self._listener, self._accept)

    def _close(self) -> None:
        self._closed = True
        if self._pause is not None:
            self._pause.cancel()
        self._loop.remove_reader(self._listener)
        self._listener.close()
