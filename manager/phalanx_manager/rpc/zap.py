"""The door of the agents' port: who may finish the CURVE handshake (ZeroMQ RFC 27)."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from typing import Final

import structlog
import zmq
import zmq.asyncio
from zmq.utils import z85

from phalanx_manager.rpc.failure import Unavailable
from phalanx_manager.rpc.port import JoinKey, KeyDirectory, KnownAgent

DOMAIN: Final = b"phalanx-agents"
_ENDPOINT: Final = "inproc://zeromq.zap.01"
_VERSION: Final = b"1.0"
_LOOK_UP_S: Final = 5.0
_STRANGERS_KEPT: Final = 4096

log = structlog.get_logger(__name__)


class Door:
    """Answers libzmq's questions about keys. It must never die: its supervisor sees to that.

    Attributes:
        refused: how many handshakes were refused so far.
        self_test_key: a key that is nobody's, refused without a line in the log.
    """

    def __init__(self, context: zmq.asyncio.Context, directory: KeyDirectory) -> None:
        self.refused = 0
        self.self_test_key = ""
        self._directory = directory
        self._strangers: OrderedDict[str, None] = OrderedDict()
        self._socket = context.socket(zmq.ROUTER)
        self._socket.linger = 0
        self._socket.bind(_ENDPOINT)

    def close(self) -> None:
        """Close the door for good: from now on nobody gets in."""
        self._socket.close(linger=0)

    async def run(self) -> None:
        """Answer for ever."""
        while True:
            question = await self._socket.recv_multipart()
            try:
                user, status = await self._judge(question)
            except Exception:  # the one supervisor of this loop: a dead door lets nobody in
                log.exception("rpc.door.failed")
                user, status = b"", b"500"
            await self._answer(question, user, status)

    async def _answer(self, question: list[bytes], user: bytes, status: bytes) -> None:
        if b"" not in question:
            return
        split = question.index(b"") + 1
        request = question[split + 1 : split + 2] or [b""]
        reply = [_VERSION, request[0], status, b"", user, b""]
        try:
            async with asyncio.timeout(_LOOK_UP_S):
                await self._socket.send_multipart(question[:split] + reply)
        except (TimeoutError, zmq.ZMQError) as error:
            log.warning("rpc.door.unanswered", error=str(error))

    async def _judge(self, question: list[bytes]) -> tuple[bytes, bytes]:
        """Returns: user id (the key, Z85) and the status of RFC 27."""
        split = question.index(b"") + 1
        version, _request, domain, address, _identity, mechanism, *credentials = question[split:]
        if version != _VERSION or domain != DOMAIN or mechanism != b"CURVE":
            return b"", b"400"
        key = z85.encode(credentials[0]).decode()
        try:
            async with asyncio.timeout(_LOOK_UP_S):
                owner = await self._directory.who(key)
        except TimeoutError:
            log.warning("rpc.door.slow", waited_s=_LOOK_UP_S)
            return b"", b"300"  # the peer tries again
        except Unavailable as error:
            log.warning("rpc.door.unsure", why=str(error))
            return b"", b"500"
        if isinstance(owner, KnownAgent | JoinKey):
            return key.encode(), b"200"
        self._refuse(key, address.decode("ascii", "replace"))
        return b"", b"400"

    def _refuse(self, key: str, address: str) -> None:
        self.refused += 1
        if key == self.self_test_key:
            return
        if key not in self._strangers:
            log.warning("rpc.stranger.refused", key=key, address=address)
        self._strangers[key] = None
        self._strangers.move_to_end(key)
        if len(self._strangers) > _STRANGERS_KEPT:
            self._strangers.popitem(last=False)
