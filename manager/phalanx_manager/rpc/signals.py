"""Sends a signal to the command of a kernel, through its agent."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final, Protocol

from phalanx_manager.core.model import Kernel
from phalanx_manager.rpc.failure import Unavailable
from phalanx_wire.ids import AgentId
from phalanx_wire.mux import Stream
from phalanx_wire.stream import Call, Closed, Recipients, SignalCall

PATIENCE_S: Final = 20.0
AT_ONCE: Final = 64


class Link(Protocol):
    """The way to the agents; `rpc.agents.Agents` is one."""

    async def open(self, agent: AgentId, call: Call) -> Stream:
        """Open a stream, or raise `Unavailable`."""


async def send(link: Link, kernel: Kernel, number: int, to: Recipients = "command") -> Closed:
    """Send a signal; how its stream ended, with a code where it was not (surely) taken.

    Raises:
        Unavailable: the agent is not there: it was surely not taken.
    """
    if kernel.agent is None:
        return Closed(0, code="not_running", why=f"{kernel.host_name} has no agent")
    try:
        async with asyncio.timeout(PATIENCE_S):
            stream = await link.open(kernel.agent, SignalCall(kernel.id, number, to))
            async with stream:
                async for _item in stream:
                    pass
                return stream.closed or Closed(0)
    except TimeoutError:
        why = f"agent {kernel.agent} did not answer within {PATIENCE_S:g} s"
        return Closed(0, code="unavailable", why=why)


async def send_all(
    link: Link, addressed: Sequence[tuple[Kernel, Recipients]], number: int
) -> list[Closed]:
    """Send it to several, some at a time; how it ended with those that did not (surely) take it."""
    gate = asyncio.Semaphore(AT_ONCE)
    failed: list[Closed] = []

    async def one(kernel: Kernel, to: Recipients) -> None:
        async with gate:
            try:
                closed = await send(link, kernel, number, to)
            except Unavailable as error:
                closed = Closed(0, code="unavailable", why=str(error))
            if closed.code:
                failed.append(closed)

    async with asyncio.TaskGroup() as tasks:
        for kernel, to in addressed:
            tasks.create_task(one(kernel, to))
    return failed
