"""A session whose containers ask, over the real store."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from phalanx_manager.core.model import SessionRow
from phalanx_manager.inside.dispatch import Inside
from phalanx_wire.control import Message
from phalanx_wire.ids import AgentId, KernelId
from phalanx_wire.mux import Mux, Stream
from phalanx_wire.stream import STDOUT, AskCall, Data
from tests.support.manager_api import Scene, closed, scene

HOME = AgentId("gpu-1")


@dataclass(frozen=True)
class Said:
    code: int | None
    out: str
    err: str
    problem: str


async def ask(
    api: Scene,
    kernel: str,
    *argv: str,
    agent: AgentId = HOME,
    environ: dict[str, str] | None = None,
) -> Said:
    """Ask as an agent does, and read the whole answer."""
    inside = Inside(api.store, api.clock, api.doors.uploads.serve)
    inside.attach(api.link, api.doors.steps)
    call = AskCall(KernelId(kernel), argv, "/", environ or {})
    stream, theirs = await a_stream(call)
    await inside.serve(agent, theirs)
    items = [item async for item in stream if isinstance(item, Data)]
    out, err = (
        b"".join(item.data for item in items if (item.channel == STDOUT) is first).decode()
        for first in (True, False)
    )
    end = closed(stream)
    return Said(end.exit_code, out, err, end.code)


async def a_stream(call: AskCall) -> tuple[Stream, Stream]:
    """A stream that an agent has opened: its end, and the manager's."""
    served: list[Stream] = []

    async def up(message: Message) -> None:
        there.receive(message)

    async def down(message: Message) -> None:
        here.receive(message)

    here = Mux(up, 1, lambda _open, _stream: None)
    there = Mux(down, 0, lambda _open, stream: served.append(stream))
    stream = await here.open(call)
    return stream, served[0]


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[Scene]:
    async with scene(tmp_path) as made:
        yield made


@pytest.fixture
async def row(api: Scene) -> SessionRow:
    return await api.running()


def of(row: SessionRow, rank: int = 0) -> KernelId:
    return row.kernels[rank].id
