"""The agent's end of the link and the manager's, as they are, with each other."""
# ruff: noqa: ARG002 - a double takes what its seam takes

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from phalanx_agent.rpc.identity import own_keys
from phalanx_agent.rpc.manager import JoinRefused, Link, enrol
from phalanx_manager.core.model import Refusal
from phalanx_manager.rpc.agents import Agents
from phalanx_manager.rpc.keys import ServerKeys, make_pair
from phalanx_manager.rpc.port import House
from phalanx_wire.control import Beat, Engine, Goals, Heard, Observed, Welcome
from phalanx_wire.ids import AgentId, KernelId
from phalanx_wire.join import JoinToken
from phalanx_wire.mux import Stream
from phalanx_wire.slots import Slots
from phalanx_wire.stream import STDIN, STDOUT, Data, Eof, ExecCall, Open, UploadCall
from tests.support.link import LOCAL, Directory, Handler, refuse_streams

PATIENCE_S = 15.0
HOST1 = AgentId("host1")
NEWS = Observed("boot", 1, Slots(), "10.0.0.1", Engine())
MANY = Goals(7, guarded=tuple(f"10.{n % 250}.{n // 250}.1" for n in range(50_000)))


class Told:
    """Notes what the agent is told, and echoes streams."""

    def __init__(self) -> None:
        self.told: asyncio.Queue[object] = asyncio.Queue()
        self.serving: list[asyncio.Future[None]] = []

    def welcomed(self, welcome: Welcome) -> None:
        self.told.put_nowait(welcome)

    def heard(self, number: int) -> None:
        self.told.put_nowait(Heard(number))

    def goals(self, goals: Goals) -> None:
        self.told.put_nowait(goals)

    def opened(self, message: Open, stream: Stream) -> None:
        self.serving.append(asyncio.ensure_future(self._echo(stream)))

    def unknown(self, why: str, *, told: bool) -> None:
        """Not looked at here."""

    def disconnected(self) -> None:
        self.told.put_nowait("disconnected")

    async def next(self) -> object:
        async with asyncio.timeout(PATIENCE_S):
            return await self.told.get()

    async def _echo(self, stream: Stream) -> None:
        async with stream:
            async for item in stream:
                if isinstance(item, Data):
                    await stream.write(STDOUT, item.data)
                if isinstance(item, Eof):
                    await stream.close(exit_code=0)


@asynccontextmanager
async def manager(
    bind: str, keys: ServerKeys, directory: Directory
) -> AsyncIterator[tuple[Agents, Handler]]:
    handler = Handler()
    house = House("cluster-1", 5.0, "10.212.0.0/20", refuse_streams)
    async with Agents.listen(bind, keys, handler, directory, house) as agents:
        yield agents, handler


async def joined(folder: Path, agents: Agents, keys: ServerKeys, directory: Directory) -> Link:
    """Join with a token."""
    one_time = make_pair()
    directory.tokens[one_time.public] = None
    token = JoinToken((agents.address,), keys.public, one_time.secret)
    known = await enrol(folder, HOST1, token)
    return Link(HOST1, known, own_keys(folder), Told())


def told_by(link: Link) -> Told:
    assert isinstance(link._handler, Told)
    return link._handler


async def test_an_agent_joins_and_goals_and_reports_pass(tmp_path: Path) -> None:
    keys, directory = make_pair(), Directory()
    async with manager(LOCAL, keys, directory) as (agents, handler):
        link = await joined(tmp_path, agents, keys, directory)
        running = asyncio.ensure_future(link.run())
        assert isinstance(await told_by(link).next(), Welcome)
        assert ("connected", HOST1) == await handler.next()
        assert await agents.send(HOST1, MANY)
        assert MANY == await told_by(link).next()
        assert link.say(NEWS)
        async with asyncio.timeout(PATIENCE_S):
            assert (HOST1, NEWS) == await handler.reports.get()
        running.cancel()
        assert ("disconnected", HOST1) == await handler.next()


async def test_a_beat_is_answered_with_its_number_once_it_has_been_noted(tmp_path: Path) -> None:
    keys, directory = make_pair(), Directory()
    async with manager(LOCAL, keys, directory) as (agents, handler):
        link = await joined(tmp_path, agents, keys, directory)
        running = asyncio.ensure_future(link.run())
        assert isinstance(await told_by(link).next(), Welcome)
        assert ("connected", HOST1) == await handler.next()
        for number in (1, 2):
            assert link.say(Beat(number))
            assert Heard(number) == await told_by(link).next()
            assert ("alive", HOST1) == handler.told.get_nowait()
        running.cancel()


async def test_streams_pass_in_both_directions(tmp_path: Path) -> None:
    keys, directory = make_pair(), Directory()
    async with manager(LOCAL, keys, directory) as (agents, handler):
        link = await joined(tmp_path, agents, keys, directory)
        running = asyncio.ensure_future(link.run())
        assert ("connected", HOST1) == await handler.next()
        async with asyncio.timeout(PATIENCE_S):
            stream = await agents.open(HOST1, ExecCall(KernelId("k"), ("cat",)))
            sending = asyncio.ensure_future(_send(stream))
            got = b"".join([item.data async for item in stream if isinstance(item, Data)])
            await sending
            assert (4 << 20, 0) == (len(got), stream.closed and stream.closed.exit_code)
            refused = await link.open(UploadCall("sha256:00"))
            assert [] == [item async for item in refused]
            assert refused.closed is not None
            assert "unknown_call" == refused.closed.code
        running.cancel()


async def _send(stream: Stream) -> None:
    await stream.write(STDIN, bytes(4 << 20))
    await stream.eof()


async def test_an_agent_finds_a_manager_that_was_restarted(tmp_path: Path) -> None:
    keys, directory = make_pair(), Directory()
    async with manager(LOCAL, keys, directory) as (agents, _handler):
        link = await joined(tmp_path, agents, keys, directory)
        address = agents.address
        running = asyncio.ensure_future(link.run())
        assert isinstance(await told_by(link).next(), Welcome)
    assert "disconnected" == await told_by(link).next()
    async with manager(address, keys, directory) as (agents, handler):
        assert isinstance(await told_by(link).next(), Welcome)
        assert ("connected", HOST1) == await handler.next()
        assert await agents.send(HOST1, Goals(1))
        assert Goals(1) == await told_by(link).next()
        running.cancel()


async def test_a_restarted_agent_takes_its_own_place(tmp_path: Path) -> None:
    keys, directory = make_pair(), Directory()
    async with manager(LOCAL, keys, directory) as (agents, handler):
        link = await joined(tmp_path, agents, keys, directory)
        old = asyncio.ensure_future(link.run())
        assert ("connected", HOST1) == await handler.next()
        again = Link(HOST1, link._manager, own_keys(tmp_path), Told())
        new = asyncio.ensure_future(again.run())
        assert isinstance(await told_by(again).next(), Welcome)
        assert ("disconnected", HOST1) == await handler.next()
        assert ("connected", HOST1) == await handler.next()
        assert await agents.send(HOST1, Goals(2))
        assert Goals(2) == await told_by(again).next()
        old.cancel()
        new.cancel()


async def test_a_token_that_is_not_good_any_more_is_refused_with_its_sentence(
    tmp_path: Path,
) -> None:
    keys, directory = make_pair(), Directory()
    one_time = make_pair()
    directory.tokens[one_time.public] = Refusal("token_expired", 410, "this join token expired")
    async with manager(LOCAL, keys, directory) as (agents, _handler):
        token = JoinToken((agents.address,), keys.public, one_time.secret)
        async with asyncio.timeout(PATIENCE_S):
            with pytest.raises(JoinRefused, match="this join token expired"):
                await enrol(tmp_path, HOST1, token)
