"""The agent's end of the connection to one container's runner.

The agent listens in a directory that the container has mounted read-only; the runner connects,
again and again. Any process of the container can connect too, so only PID 1's connection counts:
its pid, as this kernel sees it, is the one that the engine tells. What it says is still bounded.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from phalanx_runner.door import bind
from phalanx_runner.messages import LINE_LIMIT, Event, Hello, Malformed, parse

SOCKET = "agent.sock"
_UNPROVEN_LIMIT = 8  # connections held while the container's pid is not yet known
_BURST = 2048  # messages at once: a whole replay, and then some
_RATE = 200.0  # messages a second in the long run
_SEND_LIMIT = 64 * 1024  # bytes waiting for a runner that does not read
_READ_SIZE = 16 * 1024


@dataclass
class Tally:
    """What was turned away, for metrics and for wonder."""

    strangers: int = 0
    malformed: int = 0
    oversized: int = 0
    throttled: int = 0
    repeated: int = 0


class RunnerChannel:
    """Made by `async with RunnerChannel.listen(...)`."""

    def __init__(
        self,
        pid_of_container: Callable[[], int | None],
        on_event: Callable[[Event], None],
    ) -> None:
        self._pid_of_container = pid_of_container
        self._on_event = on_event
        self._unproven: dict[_Connection, int] = {}
        self._current: _Connection | None = None
        self._last_seq = 0
        self.tally = Tally()

    @classmethod
    @asynccontextmanager
    async def listen(
        cls,
        directory: Path,
        pid_of_container: Callable[[], int | None],
        on_event: Callable[[Event], None],
    ) -> AsyncIterator[RunnerChannel]:
        """Listens at directory/agent.sock, in place of a dead agent's socket, if there is one.

        pid_of_container: the container's State.Pid, or None while it is not known; then the
            connection waits for recheck().
        on_event: called in order, once for each event; must not block.

        Raises OSError when the directory can't be used.
        """
        channel = cls(pid_of_container, on_event)
        listener = bind(directory, SOCKET)
        loop = asyncio.get_running_loop()
        loop.add_reader(listener, channel._accept, listener)
        try:
            yield channel
        finally:
            loop.remove_reader(listener)
            listener.close()
            for connection in [*channel._unproven, channel._current]:
                if connection:
                    connection.close()

    @property
    def connected(self) -> bool:
        """Whether the runner is there and has been told apart from strangers."""
        return self._current is not None

    def send(self, command: bytes) -> bool:
        """False when no runner is connected, or it does not read."""
        return self._current is not None and self._current.send(command)

    def recheck(self) -> None:
        """Looks at the waiting connections again; call it once the container's pid is known."""
        wanted = self._pid_of_container()
        if wanted is None:
            return
        for connection, pid in list(self._unproven.items()):
            del self._unproven[connection]
            self._admit(connection, proven=pid == wanted)

    def _accept(self, listener: socket.socket) -> None:
        try:
            peer, _ = listener.accept()
        except (BlockingIOError, ConnectionAbortedError):
            return
        peer.setblocking(False)
        credentials = peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
        pid, _, _ = struct.unpack("3i", credentials)
        connection = _Connection(peer, self)
        wanted = self._pid_of_container()
        if wanted is not None:
            self._admit(connection, proven=pid == wanted)
        elif len(self._unproven) < _UNPROVEN_LIMIT:
            self._unproven[connection] = pid
        else:
            self._admit(connection, proven=False)

    def _admit(self, connection: _Connection, *, proven: bool) -> None:
        if not proven:
            self.tally.strangers += 1
            connection.close()
            return
        if self._current is not None:  # the runner has reconnected before we saw the old one end
            self._current.close()
        self._current = connection
        connection.start_reading()

    def lost(self, connection: _Connection) -> None:
        """For the connection to say that it has ended."""
        if self._current is connection:
            self._current = None

    def received(self, line: bytes) -> None:
        """For the connection to pass a line on."""
        event = parse(line)
        if isinstance(event, Malformed):
            self.tally.malformed += 1
            return
        if isinstance(event, Hello):
            if event.last_seq < self._last_seq:  # the container was started anew
                self._last_seq = 0
        elif event.stamp.seq <= self._last_seq:
            self.tally.repeated += 1
            return
        else:
            self._last_seq = event.stamp.seq
        self._on_event(event)


class _Connection:
    """One accepted socket. Nothing is read from it before it has been admitted."""

    def __init__(self, peer: socket.socket, channel: RunnerChannel) -> None:
        self._peer = peer
        self._channel = channel
        self._loop = asyncio.get_running_loop()
        self._input = bytearray()
        self._output = bytearray()
        self._skipping = False
        self._closed = False
        self._tokens = float(_BURST)
        self._filled_at = self._loop.time()
        self._pause: asyncio.TimerHandle | None = None

    def start_reading(self) -> None:
        self._loop.add_reader(self._peer, self._read)

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        if self._pause:
            self._pause.cancel()
        self._loop.remove_reader(self._peer)
        self._loop.remove_writer(self._peer)
        self._peer.close()
        self._channel.lost(self)

    def send(self, command: bytes) -> bool:
        if self._closed or len(self._output) + len(command) > _SEND_LIMIT:
            return False
        self._output += command
        self._write()
        return not self._closed

    def _write(self) -> None:
        try:
            sent = self._peer.send(self._output)
        except BlockingIOError:
            sent = 0
        except OSError:
            self.close()
            return
        del self._output[:sent]
        if self._output:
            self._loop.add_writer(self._peer, self._write)
        else:
            self._loop.remove_writer(self._peer)

    def _read(self) -> None:
        try:
            data = self._peer.recv(_READ_SIZE)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self.close()
            return
        self._input += data
        self._take_lines()

    def _take_lines(self) -> None:
        """Passes whole lines on. A peer that floods is not read for a while: it waits, we don't."""
        now = self._loop.time()
        self._tokens = min(_BURST, self._tokens + (now - self._filled_at) * _RATE)
        self._filled_at = now
        *lines, rest = self._input.split(b"\n")
        self._input = bytearray(rest)
        for line in lines:
            if self._closed:
                return
            self._tokens -= 1
            if self._skipping:
                self._skipping = False
            else:
                self._channel.received(bytes(line))
        if len(rest) > LINE_LIMIT:
            self._channel.tally.oversized += not self._skipping
            self._skipping = True
            self._input.clear()
        if self._tokens < 0 and not self._closed:
            self._channel.tally.throttled += 1
            self._loop.remove_reader(self._peer)
            self._pause = self._loop.call_later(-self._tokens / _RATE, self.start_reading)
