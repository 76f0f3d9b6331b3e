"""An engine's long answer that is read no further than somebody wants to have it.

The library reads ahead, of each answer up to half a megabyte and whatever its socket holds; of
output there may be thousands of answers of which nobody takes anything.
"""

from __future__ import annotations

import asyncio
import json
import socket
from typing import Final

from aiodocker.exceptions import DockerError

PIECE_BYTES: Final = 16 << 10
_HEAD_BYTES: Final = 32 << 10
_ERROR_BYTES: Final = 64 << 10
_SIZE_BYTES: Final = 64
"""A line with the size of a chunk is shorter."""

_REFUSED: Final = 400
"""From this status on."""

_END_OF_HEAD: Final = b"\r\n\r\n"
_NEWLINE: Final = b"\r\n"


class Answer:
    """The body of an answer to a GET; made by `get`."""

    def __init__(self, connection: socket.socket, head: bytes, begun: bytes) -> None:
        """Args: begun: what has come of the body. Raises `ValueError`: that is no HTTP."""
        first, *fields = head.lower().split(_NEWLINE)
        headers = dict(field.replace(b" ", b"").split(b":", 1) for field in fields)
        self.status = int(first.partition(b" ")[2][:3])
        length = headers.get(b"content-length")
        self._connection = connection
        self._begun = begun
        self._chunks = _Chunks() if headers.get(b"transfer-encoding") == b"chunked" else None
        self._left = None if length is None else int(length)

    async def read(self) -> bytes:
        """Read the next piece of the body, of up to `PIECE_BYTES`; empty at its end.

        Raises:
            OSError: the connection has ended before.
            ValueError: that is no HTTP.
        """
        while not self._over():
            raw, self._begun = self._begun, b""
            raw = raw or await _receive(self._connection)
            if not raw:
                if self._left is None and self._chunks is None:
                    return b""  # such a body ends with its connection
                raise ConnectionResetError("it ended in the middle")
            if self._chunks is not None:
                raw = self._chunks.take(raw)
            elif self._left is not None:
                self._left -= len(raw)
            if raw:
                return raw
        return b""

    async def begins(self) -> None:
        """Wait until there is something to be read, or the end; it can be broken off."""
        if self._begun or self._over():
            return
        readable = asyncio.Event()
        loop = asyncio.get_running_loop()
        loop.add_reader(self._connection, readable.set)
        try:
            await readable.wait()
        finally:
            loop.remove_reader(self._connection)

    def close(self) -> None:
        """Let the engine know that no more of it is wanted."""
        self._connection.close()

    def _over(self) -> bool:
        return self._left == 0 if self._chunks is None else self._chunks.over

    async def check(self) -> None:
        """Go on only if it is no refusal.

        Raises:
            DockerError: it is one.
            OSError: the connection has ended before.
        """
        if self.status < _REFUSED:
            return
        body = b""
        while len(body) < _ERROR_BYTES and (piece := await self.read()):
            body += piece
        try:
            message = str(json.loads(body)["message"])
        except (ValueError, LookupError, TypeError):
            message = body.decode(errors="replace")
        raise DockerError(self.status, message)


async def get(connection: socket.socket, target: str) -> Answer:
    """Ask, on a connection of its own that has been made.

    Raises:
        DockerError: an answer that says no.
        OSError: the connection has ended before.
        ValueError: that is no HTTP.
    """
    question = f"GET {target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    await asyncio.get_running_loop().sock_sendall(connection, question.encode())
    got = b""
    while _END_OF_HEAD not in got:
        raw = await _receive(connection)
        if not raw:
            raise ConnectionResetError("it ended before an answer")
        got += raw
        if len(got) > _HEAD_BYTES:
            raise ValueError("a head without end")
    head, _, begun = got.partition(_END_OF_HEAD)
    answer = Answer(connection, head, begun)
    await answer.check()
    return answer


async def _receive(connection: socket.socket) -> bytes:
    await asyncio.sleep(0)  # there may always be something: others are to come in between
    return await asyncio.get_running_loop().sock_recv(connection, PIECE_BYTES)


class _Chunks:
    """Takes a body in HTTP's chunks out of them."""

    def __init__(self) -> None:
        self.over = False
        self._rest = b""
        self._left = 0  # of the chunk that has begun

    def take(self, raw: bytes) -> bytes:
        """Take what was read; what it has of the body.

        Raises:
            ValueError: these are no chunks.
        """
        data, at = self._rest + raw, 0
        parts = []
        while not self.over:
            if self._left:
                part = data[at : at + self._left]
                parts.append(part)
                at += len(part)
                self._left -= len(part)
            # A chunk ends with a newline, which stands before the size of the next.
            begin = at + 2 if data.startswith(_NEWLINE, at) else at
            end = data.find(_NEWLINE, begin)
            if self._left or end < 0:
                break
            self._left = int(data[begin:end].partition(b";")[0], 16)
            if self._left < 0:
                raise ValueError("a chunk of less than nothing")
            self.over = self._left == 0
            at = end + 2
        self._rest = b"" if self.over else data[at:]
        if len(self._rest) > _SIZE_BYTES:
            raise ValueError("a chunk without a size")
        return b"".join(parts)
