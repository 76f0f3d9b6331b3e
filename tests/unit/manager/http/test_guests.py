from __future__ import annotations

import asyncio
import socket

from aiohttp import web

from phalanx_manager.http.guests import Guests

PATIENCE_S = 20.0


async def test_a_machine_that_takes_nothing_for_too_long_is_gone() -> None:
    gone = asyncio.Event()

    async def tell_for_ever(request: web.BaseRequest) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        try:
            while True:
                await response.write(bytes(1 << 16))
        except ConnectionError:
            gone.set()
        return response

    server = web.Server(tell_for_ever)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        letting_in = asyncio.ensure_future(Guests(1, gone_s=0.5).let_in(listener, server))
        with socket.create_connection(listener.getsockname()) as silent:
            silent.sendall(b"GET / HTTP/1.1\r\nHost: here\r\n\r\n")
            async with asyncio.timeout(PATIENCE_S):
                await gone.wait()
        letting_in.cancel()
    await server.shutdown()
