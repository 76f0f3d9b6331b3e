"""An editor's server: says its port, and sends back what it gets over connections that stay."""

from __future__ import annotations

import asyncio


async def attend(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readuntil(b"\r\n\r\n")
    writer.write(b"HTTP/1.1 101 Switching Protocols\r\n\r\n")
    while piece := await reader.read(65536):
        writer.write(piece)
        await writer.drain()
    writer.close()


async def main() -> None:
    server = await asyncio.start_server(attend, "127.0.0.1", 0)
    print(f"listeningOn=={server.sockets[0].getsockname()[1]}==", flush=True)
    await server.serve_forever()


asyncio.run(main())
