"""Has the containers of a session looked at by their agents, all at once and in a bounded time."""

from __future__ import annotations

import asyncio
from typing import Final, Protocol

import msgspec

from phalanx_manager.core import why
from phalanx_manager.core.model import Kernel, SessionRow
from phalanx_manager.core.sight import Scene
from phalanx_manager.rpc.failure import Unavailable
from phalanx_wire.ids import AgentId
from phalanx_wire.lifecycle import KernelState
from phalanx_wire.look import MAX_BYTES, Look
from phalanx_wire.mux import Stream
from phalanx_wire.stream import Call, Data, LookCall

PATIENCE_S: Final = 0.8
"""Who asks why has an answer within a second, whoever is cut off."""

FIRST_S: Final = 0.4
"""Of that, for rank 0 of a session so large that it has to say at whom else to look."""

_DECODER: Final = msgspec.msgpack.Decoder(Look)


class Link(Protocol):
    """The way to the agents; `rpc.agents.Agents` is one."""

    async def open(self, agent: AgentId, call: Call) -> Stream:
        """Open a stream, or raise `Unavailable`."""


class NoLook(Exception):  # noqa: N818 - a state of the world
    """A container could not be looked at; the text is a sentence's end."""


async def see(link: Link, row: SessionRow) -> Scene:
    """Look at what runs of a session; who does not answer in time is missing."""
    looks: dict[int, Look] = {}
    missing: dict[int, str] = {}

    async def one(kernel: Kernel, reach: tuple[int, ...], patience_s: float) -> None:
        try:
            async with asyncio.timeout_at(began_s + patience_s):
                looks[kernel.rank] = await _look(link, kernel, reach)
        except TimeoutError:
            missing[kernel.rank] = f"agent {kernel.agent} did not answer within {patience_s:g} s"
        except (NoLook, Unavailable) as error:
            missing[kernel.rank] = str(error)

    began_s = asyncio.get_running_loop().time()
    met: frozenset[int] = frozenset()
    if why.is_large(row) and row.kernels[0].state is KernelState.RUNNING:
        await one(row.kernels[0], (), FIRST_S)
        missing.clear()
        met = why.scene(row, looks, missing).joined
    async with asyncio.TaskGroup() as tasks:
        for rank, reach in why.plan(row, met).items():
            if rank not in looks:
                tasks.create_task(one(row.kernels[rank], reach, PATIENCE_S))
    return why.scene(row, looks, missing)


async def _look(link: Link, kernel: Kernel, reach: tuple[int, ...]) -> Look:
    if kernel.agent is None:
        raise NoLook("it has no agent")
    stream = await link.open(kernel.agent, LookCall(kernel.id, reach))
    data = bytearray()
    async with stream:
        async for item in stream:
            if isinstance(item, Data):
                data += item.data
            if len(data) > MAX_BYTES:
                raise NoLook(f"agent {kernel.agent} told more than {MAX_BYTES} bytes")
        closed = stream.closed
    if closed is not None and closed.code:
        raise NoLook(closed.why or closed.code)
    try:
        return _DECODER.decode(data)
    except (msgspec.MsgspecError, RecursionError) as error:
        raise NoLook(f"what agent {kernel.agent} told makes no sense") from error
