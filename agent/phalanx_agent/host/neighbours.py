"""Whether other hosts answer at the port by which the engines of a swarm gossip."""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import Collection
from typing import Final

GOSSIP_PORT: Final = 7946
_TRIES_S: Final = (1.0, 2.0, 3.0)
"""Linux sends a lost first packet again after one second."""

_NO_WAY: Final = frozenset({errno.EHOSTUNREACH, errno.ENETUNREACH, errno.EHOSTDOWN})


async def silent(addresses: Collection[str], port: int = GOSSIP_PORT) -> frozenset[str]:
    """Try all at once; a port that is closed is an answer, too: the host is reached, and its engine
    may be just starting.
    """
    async with asyncio.TaskGroup() as tasks:
        tried = {address: tasks.create_task(_answers(address, port)) for address in addresses}
    return frozenset(address for address, task in tried.items() if not task.result())


async def _answers(address: str, port: int) -> bool:
    for patience_s in _TRIES_S:
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as made:
            made.setblocking(False)
            try:
                async with asyncio.timeout(patience_s):
                    await _connected(made, (address, port))
            except TimeoutError:
                continue
        return True
    return False


async def _connected(made: socket.socket, target: tuple[str, int]) -> None:
    """Return at any answer; wait where a router says that there is no way, which may pass."""
    try:
        await asyncio.get_running_loop().sock_connect(made, target)
    except OSError as error:
        if error.errno in _NO_WAY:
            await asyncio.Event().wait()
