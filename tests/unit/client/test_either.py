"""Several managers of which one leads."""

from __future__ import annotations

import io
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import msgspec
import pytest

from phalanx_client.config import Manager, find
from phalanx_client.either import EitherTransport
from phalanx_client.failure import Broken, Failure, Unavailable
from phalanx_client.transport import Reply, Request
from phalanx_wire.api import Problem

AWAY = Unavailable("it", "can't be reached", "")
CUT = Broken("it", "the connection broke", "")


@dataclass
class Said:
    status: int
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)

    async def pieces(self) -> AsyncGenerator[bytes, None]:
        yield self.body


STANDS_BY = Said(503, msgspec.json.encode(Problem("not_leader", "it stands by", 503)))
BUSY = Said(503, msgspec.json.encode(Problem("unavailable", "the disk is full", 503)))


class Scripted:
    """A transport that gives the answers written down, and the last of them for ever."""

    def __init__(self, *answers: Said | Unavailable) -> None:
        self.answers = list(answers)
        self.heard: list[bytes] = []

    @asynccontextmanager
    async def open(self, request: Request) -> AsyncIterator[Reply]:
        body = request.body
        self.heard.append(body.read() if isinstance(body, io.BytesIO) else b"")
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Unavailable):
            raise answer
        yield answer

    async def pause(self, seconds: float) -> None:
        raise AssertionError(seconds)

    async def close(self) -> None:
        """Nothing is open."""


async def ask(either: EitherTransport, body: io.BytesIO | None = None) -> tuple[int, bytes]:
    async with either.open(Request("GET", "/", body=body)) as reply:
        return reply.status, b"".join([piece async for piece in reply.pieces()])


@pytest.mark.parametrize("first", [AWAY, STANDS_BY])
async def test_the_one_that_leads_is_found_and_stayed_with(first: Said | Unavailable) -> None:
    one, two = Scripted(first), Scripted(Said(200, b"here"))
    either = EitherTransport([one, two])

    assert [(200, b"here")] * 2 == [await ask(either), await ask(either)]
    assert (1, 2) == (len(one.heard), len(two.heard))


async def test_a_body_is_sent_whole_to_each() -> None:
    one, two = Scripted(STANDS_BY), Scripted(Said(200))
    await ask(EitherTransport([one, two]), io.BytesIO(b"all of it"))

    assert [b"all of it"] == one.heard == two.heard


async def test_another_trouble_of_the_leader_is_its_answer() -> None:
    two = Scripted(Said(200))

    assert (503, BUSY.body) == await ask(EitherTransport([Scripted(BUSY), two]))
    assert [] == two.heard


async def test_what_may_have_been_heard_is_not_said_to_another() -> None:
    two = Scripted(Said(200, b"here"))
    either = EitherTransport([Scripted(CUT), two])
    with pytest.raises(Broken):
        await ask(either)
    asked_before = len(two.heard)

    assert (0, (200, b"here")) == (asked_before, await ask(either))


async def test_when_none_leads_that_is_said() -> None:
    with pytest.raises(Unavailable, match="it stands by"):
        await ask(EitherTransport([Scripted(STANDS_BY), Scripted(STANDS_BY)]))


async def test_a_trouble_of_who_reads_is_not_the_transports() -> None:
    two = Scripted(Said(200))
    either = EitherTransport([Scripted(Said(200)), two])
    with pytest.raises(Unavailable, match="can't be reached"):
        async with either.open(Request("GET", "/")):
            raise AWAY

    assert [] == two.heard


def test_urls_are_separated_by_commas(tmp_path: object) -> None:
    env = {"PHALANX_URL": "http://a:1/, https://b", "PHALANX_TOKEN": "t", "HOME": str(tmp_path)}

    assert (Manager("http://a:1", "t"), Manager("https://b", "t")) == find(None, None, env).each()


def test_one_wrong_url_of_several_is_named(tmp_path: object) -> None:
    with pytest.raises(Failure, match="'b:2' is no address of a manager"):
        find("http://a:1,b:2", None, {"HOME": str(tmp_path)})
