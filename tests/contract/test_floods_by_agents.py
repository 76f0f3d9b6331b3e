"""An agent that has joined and says too much: the manager stays up, and answers others."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import chain, count, repeat
from pathlib import Path
from typing import Any, Final

import aiohttp
import msgspec
import pytest
import zmq
import zmq.asyncio

from phalanx_agent.rpc.identity import own_keys
from phalanx_agent.rpc.manager import enrol
from phalanx_wire import join
from phalanx_wire.api import TokenCreated
from phalanx_wire.codec import decode, encode
from phalanx_wire.control import (
    PROTOCOL,
    Beat,
    Engine,
    Heard,
    Hello,
    KernelReport,
    Observed,
    Welcome,
)
from phalanx_wire.ids import AgentId, KernelId
from phalanx_wire.lifecycle import KernelState
from phalanx_wire.slots import Slots
from phalanx_wire.stream import STDIN, AskCall, Data, Open
from tests.support.flooded import ANSWER_S, LONGEST_S, Manager, running

GROWTH_BYTES: Final = 128 << 20
SAID_BYTES: Final = 3 * GROWTH_BYTES
"""More than may be kept of it."""

SENTENCE: Final = "x" * 16_000


def report(**more: Any) -> bytes:
    host = Slots(8_000, 1 << 34, 0, 10_000)
    engine = Engine("27.0", "1.47")
    return msgspec.msgpack.encode(Observed("boot", -1, host, "192.0.2.9", engine, **more))


def long_reports() -> Iterator[bytes]:
    return repeat(report(warnings=(SENTENCE,) * 250))


def reports_of_many() -> Iterator[bytes]:
    kernels = tuple(
        KernelReport(KernelId(f"{number:012}-1-0"), KernelState.RUNNING) for number in range(10_000)
    )
    return repeat(report(kernels=kernels))


def question(number: int) -> bytes:
    call = AskCall(KernelId("aaaaaaaaaaaa-1-0"), ("phalanx", *(SENTENCE,) * 32))
    return msgspec.msgpack.encode(Open(number, call, 1 << 16))


def questions() -> Iterator[bytes]:
    return (question(number) for number in count(1, 2))


def data_of_a_stream() -> Iterator[bytes]:
    said = msgspec.msgpack.encode(Data(1, STDIN, b"x" * (2 << 20)))
    return chain([question(1)], repeat(said))


FLOODS: Final[dict[str, Callable[[], Iterator[bytes]]]] = {
    "long reports": long_reports,
    "reports of many kernels": reports_of_many,
    "questions": questions,
    "data of a stream": data_of_a_stream,
}


@dataclass
class Joined:
    """An agent's own line to the manager."""

    socket: zmq.asyncio.Socket
    beats: int = 0

    async def say(self, said: bytes) -> None:
        """Say it as soon as there is room."""
        async with asyncio.timeout(LONGEST_S):
            await self.socket.send(said)

    async def answered_s(self) -> float:
        """How long the manager takes to answer a beat."""
        self.beats += 1
        begun = time.monotonic()
        async with asyncio.timeout(LONGEST_S):
            await self.socket.send(encode(Beat(self.beats)))
            while decode(await self.socket.recv()) != Heard(self.beats):
                pass
        return time.monotonic() - begun


@asynccontextmanager
async def joined(manager: Manager, name: str, folder: Path) -> AsyncIterator[Joined]:
    """Join with a token, and say hello."""
    headers = {"Authorization": f"Bearer {manager.token}"}
    async with (
        aiohttp.ClientSession(manager.url, headers=headers) as http,
        http.post("/v1/agent-tokens", json={"name": name}) as response,
    ):
        made = msgspec.json.decode(await response.read(), type=TokenCreated)
    folder.mkdir(exist_ok=True)
    token = join.parse(made.token)
    await enrol(folder, AgentId(name), token)
    own = own_keys(folder)
    with zmq.asyncio.Context() as context, context.socket(zmq.DEALER) as socket:
        socket.linger, socket.sndhwm = 0, 8
        socket.curve_serverkey = token.server_key.encode()
        socket.curve_publickey, socket.curve_secretkey = own.public.encode(), own.secret.encode()
        socket.connect(token.addresses[0])
        line = Joined(socket)
        await line.say(encode(Hello(PROTOCOL, "test", AgentId(name), "one")))
        async with asyncio.timeout(LONGEST_S):
            assert isinstance(decode(await socket.recv()), Welcome)
        yield line


@dataclass
class Seen:
    """What others have had of the manager while it was flooded."""

    peak_bytes: int = 0
    answers_s: list[float] = field(default_factory=list)
    healthy: list[bool] = field(default_factory=list)


async def flood(loud: Joined, what: str) -> None:
    """Say it again and again, as fast as it is taken."""
    said = 0
    for message in FLOODS[what]():
        await loud.say(message)
        said += len(message)
        if said >= SAID_BYTES:
            return


@pytest.mark.parametrize("what", FLOODS)
async def test_an_agent_that_floods_the_manager_does_no_harm(tmp_path: Path, what: str) -> None:
    with running(tmp_path, "4096:4096") as manager:
        async with (
            joined(manager, "other", tmp_path / "other") as other,
            joined(manager, "loud", tmp_path / "loud") as loud,
            asyncio.TaskGroup() as tasks,
        ):
            before, seen = manager.resident_bytes(), Seen()
            flooding = tasks.create_task(flood(loud, what))
            while not flooding.done():
                seen.peak_bytes = max(seen.peak_bytes, manager.resident_bytes())
                seen.answers_s.append(await other.answered_s())
                seen.healthy.append(await asyncio.to_thread(manager.healthy))
            afterwards_s = await other.answered_s()

    assert all(seen.healthy)
    assert max(*seen.answers_s, afterwards_s) < ANSWER_S
    assert seen.peak_bytes < before + GROWTH_BYTES
