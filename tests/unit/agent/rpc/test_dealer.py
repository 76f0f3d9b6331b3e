"""What an agent sends while its connection is full."""

from __future__ import annotations

import asyncio
from typing import Any

from phalanx_agent.rpc.dealer import Dealer
from phalanx_wire.codec import AnyMessage, decode
from phalanx_wire.ids import KernelId
from phalanx_wire.mux import Mux
from phalanx_wire.stream import STDOUT, Closed, Data, Open, ReadCall
from tests.sim import virtual_loop


class SlowSocket:
    """Has room for a message every five minutes."""

    def __init__(self) -> None:
        self.sent: list[AnyMessage] = []
        self._line = asyncio.Lock()

    async def send(self, data: bytes) -> None:
        async with self._line:
            await asyncio.sleep(300)
            self.sent.append(decode(data))

    def as_any(self) -> Any:
        return self


def test_no_piece_of_a_stream_is_left_out_however_long_there_is_no_room() -> None:
    async def pieces() -> list[AnyMessage]:
        socket = SlowSocket()
        mux = Mux(Dealer(socket.as_any(), socket.as_any()).send, 1, lambda _open, _stream: None)
        mux.receive(Open(0, ReadCall(KernelId("k"), "/data")))
        stream = mux._streams[0]
        for piece in (b"a", b"b"):
            await stream.write(STDOUT, piece)
        await stream.close()
        return socket.sent

    assert [Data(0, STDOUT, b"a"), Data(0, STDOUT, b"b"), Closed(0)] == virtual_loop.run(pieces())
