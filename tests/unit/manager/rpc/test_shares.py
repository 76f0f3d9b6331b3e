"""Streams of many users to the same agents."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from dataclasses import dataclass, field

import pytest

from phalanx_manager.rpc import shares
from phalanx_manager.rpc.failure import Unavailable
from phalanx_manager.rpc.shares import Crowded, Shares
from phalanx_wire.control import Message
from phalanx_wire.ids import AgentId, KernelId
from phalanx_wire.mux import MIN_WINDOW_BYTES, Mux, Stream
from phalanx_wire.stream import WINDOW_BYTES, Call, Closed, ExecCall, Open

CALL = ExecCall(KernelId("aaaaaaaaaaaa-1-0"), ("true",))
A, B = AgentId("a"), AgentId("b")


@dataclass
class Link:
    """Agents that answer nothing; those in `away` are not there."""

    away: set[AgentId] = field(default_factory=set)
    windows: list[int] = field(default_factory=list)

    async def open(self, agent: AgentId, call: Call, window: int = WINDOW_BYTES) -> Stream:
        if agent in self.away:
            raise Unavailable(f"agent {agent}", "it is not connected")
        self.windows.append(window)

        async def sent(message: Message) -> None:
            if isinstance(message, Open):
                self.windows[-1:] = [message.window]

        return await Mux(sent, 0, lambda _open, _stream: None).open(call, window)


async def take(all_of_them: Shares, stack: AsyncExitStack, user: str, *agents: AgentId) -> int:
    """Open streams for a user, in turn to these agents, until one is refused; how many."""
    count = 0
    while True:
        try:
            await stack.enter_async_context(
                all_of_them.open(user, agents[count % len(agents)], CALL)
            )
        except Crowded:
            return count
        count += 1


async def test_a_user_who_takes_all_that_may_be_leaves_others_as_much_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(shares, "MAX_STREAMS", 64)
    streams = Shares(Link())
    async with AsyncExitStack() as stack:
        taken = [await take(streams, stack, user, A) for user in ("ada", "bob", "eve")]
        beside = await take(streams, stack, "ada", B)

        assert ([32, 16, 8], 32) == (taken, beside)
        with pytest.raises(Crowded, match="ada: has 32 streams to agent a, as many as may be"):
            async with streams.open("ada", A, CALL):
                pass
    async with AsyncExitStack() as stack:
        assert 32 == await take(streams, stack, "eve", A)


async def test_a_user_may_not_have_all_streams_to_many_agents(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(shares, "MOST", 20)
    streams = Shares(Link())
    async with AsyncExitStack() as stack:
        assert [10, 5] == [await take(streams, stack, user, A, B) for user in ("ada", "bob")]


async def test_what_waits_unread_of_a_user_is_bounded_whatever_is_opened() -> None:
    link = Link()
    async with AsyncExitStack() as stack:
        count = await take(Shares(link), stack, "ada", A)
        least = link.windows.count(MIN_WINDOW_BYTES)

        assert (2048, [WINDOW_BYTES] * 48) == (count, link.windows[:48])
        assert sorted(link.windows, reverse=True) == link.windows
        assert sum(link.windows) <= (64 << 20) + least * MIN_WINDOW_BYTES


async def test_a_stream_that_its_agent_has_ended_counts_for_as_long_as_it_can_be_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(shares, "MAX_STREAMS", 2)
    streams = Shares(Link())
    async with streams.open("ada", A, CALL) as stream:
        stream._deliver(Closed(stream.number))
        with pytest.raises(Crowded):
            async with streams.open("ada", A, CALL):
                pass
    async with streams.open("ada", A, CALL) as stream:
        assert stream.closed is None


async def test_what_cannot_be_opened_or_is_cancelled_takes_no_place(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(shares, "MAX_STREAMS", 2)
    link = Link({A})
    streams = Shares(link)
    for _time in range(3):
        with pytest.raises(Unavailable, match="it is not connected"):
            async with streams.open("ada", A, CALL):
                pass
    link.away.clear()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0), streams.open("ada", A, CALL):
            await asyncio.Event().wait()
    async with streams.open("ada", A, CALL) as stream:
        assert stream.closed is None
