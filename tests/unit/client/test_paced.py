"""A manager that was asked too much."""

from __future__ import annotations

import io
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest

from phalanx_client.paced import PacedTransport
from phalanx_client.transport import Reply, Request
from tests.unit.client.conftest import Cli
from tests.unit.client.fake_manager import FakeManager, problem, session


@dataclass
class Said:
    status: int = 429
    headers: Mapping[str, str] = field(default_factory=lambda: {"retry-after": "1"})

    async def pieces(self) -> AsyncGenerator[bytes, None]:
        yield b"x"


@dataclass
class Busy:
    """A manager that gives these answers, and the last of them for ever."""

    answers: list[Said]
    heard: list[bytes] = field(default_factory=list)
    waited: list[float] = field(default_factory=list)

    @asynccontextmanager
    async def open(self, request: Request) -> AsyncIterator[Reply]:
        self.heard.append(request.body.read() if isinstance(request.body, io.BytesIO) else b"")
        yield self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]

    async def pause(self, seconds: float) -> None:
        self.waited.append(seconds)

    async def close(self) -> None:
        """Nothing is open."""


@pytest.mark.parametrize(
    ("answers", "status", "waited"),
    [
        ([Said(200)], 200, []),
        ([Said(), Said(200)], 200, [1.0]),
        ([Said(), Said(headers={"retry-after": "3600"}), Said(503)], 503, [1.0, 10.0]),
        ([Said()], 429, [1.0, 1.0, 1.0]),
        ([Said(headers={})], 429, []),
        ([Said(headers={"retry-after": "Sat, 01 Jan 2028 00:00:00 GMT"})], 429, []),
    ],
    ids=["at once", "later", "no longer than ten seconds", "never", "not said when", "a date"],
)
async def test_whoever_asks_too_much_waits_as_told_a_few_times(
    answers: list[Said], status: int, waited: list[float]
) -> None:
    manager = Busy(answers)

    async with PacedTransport(manager).open(Request("GET", "/")) as reply:
        assert (status, waited) == (reply.status, manager.waited)


async def test_a_body_is_sent_whole_again() -> None:
    manager = Busy([Said(), Said(200)])

    async with PacedTransport(manager).open(Request("PUT", "/", body=io.BytesIO(b"all"))):
        assert [b"all"] * 2 == manager.heard


def test_the_command_line_waits_and_goes_on(cli: Cli, manager: FakeManager) -> None:
    busy = problem(429, "too_many_requests", "that is too much")
    busy.headers["Retry-After"] = "0"

    async def first(_request: object) -> object:
        return busy

    manager.on("GET", "/v1/sessions/demo", first, session())

    assert (0, 2) == (cli("show", "demo").code, len(manager.heard))
