from __future__ import annotations

import asyncio
from asyncio import Task
from collections import deque
from collections.abc import Coroutine
from typing import Any

import msgspec
import pytest

from phalanx_wire.control import Goals, Message
from phalanx_wire.ids import KernelId
from phalanx_wire.mux import MIN_COST, MIN_WINDOW_BYTES, Mux, Stream, StreamClosed
from phalanx_wire.stream import (
    CHUNK_BYTES,
    STDIN,
    STDOUT,
    WINDOW_BYTES,
    Closed,
    Credit,
    Data,
    Eof,
    ExecCall,
    Open,
    Resize,
    UploadCall,
)

CALL = ExecCall(KernelId("k"), ("true",))


class Pair:
    """A manager's and an agent's mux whose messages pass at once, or wait while `hold` is set.

    Attributes:
        line: held, the manager's link is full: who sends there stands in line.
    """

    def __init__(self) -> None:
        self.hold = False
        self.line = asyncio.Lock()
        self.waiting: deque[tuple[Mux, Message]] = deque()
        self.sent: list[Message] = []
        self.opened: list[Stream] = []
        self.manager = Mux(self._to_agent, 0, lambda _open, stream: self.opened.append(stream))
        self.agent = Mux(self._to_manager, 1, lambda _open, stream: self.opened.append(stream))

    async def _to_agent(self, message: Message) -> None:
        async with self.line:
            self._pass(self.agent, message)

    async def _to_manager(self, message: Message) -> None:
        self._pass(self.manager, message)

    def _pass(self, to: Mux, message: Message) -> None:
        self.sent.append(message)
        if self.hold:
            self.waiting.append((to, message))
        else:
            to.receive(message)

    async def open(self, window: int = WINDOW_BYTES) -> tuple[Stream, Stream]:
        ours = await self.manager.open(CALL, window)
        return ours, self.opened[-1]


async def _read_all(stream: Stream) -> bytes:
    return b"".join([item.data async for item in stream if isinstance(item, Data)])


async def test_data_arrives_in_order_on_its_channel_and_the_end_carries_the_exit_code() -> None:
    manager, agent = await Pair().open()
    await manager.write(STDIN, b"in")
    await manager.eof()
    await agent.write(STDOUT, b"out")
    await agent.close(exit_code=3)
    assert [Data(0, STDOUT, b"out")] == [item async for item in manager]
    assert Closed(0, 3) == manager.closed


async def test_the_callee_reads_data_then_the_end_of_data() -> None:
    manager, agent = await Pair().open()
    await manager.write(STDIN, b"in")
    await manager.eof()
    assert Data(0, STDIN, b"in") == await anext(agent)
    assert Eof(0) == await anext(agent)


async def test_long_data_is_cut_into_chunks() -> None:
    pair = Pair()
    manager, _agent = await pair.open()
    await manager.write(STDIN, bytes(CHUNK_BYTES * 2 + 1))
    assert [CHUNK_BYTES, CHUNK_BYTES, 1] == [
        len(message.data) for message in pair.sent if isinstance(message, Data)
    ]


async def test_a_slow_reader_stops_its_writer_at_the_window() -> None:
    pair = Pair()
    manager, agent = await pair.open()
    writer = asyncio.ensure_future(agent.write(STDOUT, bytes(3 * WINDOW_BYTES)))
    for _turn in range(100):
        await asyncio.sleep(0)
    sent = sum(len(message.data) for message in pair.sent if isinstance(message, Data))
    assert (WINDOW_BYTES, False) == (sent, writer.done())
    reader = asyncio.ensure_future(_read_all(manager))
    async with asyncio.timeout(5):
        await writer
        await agent.close()
        assert 3 * WINDOW_BYTES == len(await reader)


async def test_a_slow_reader_of_one_stream_does_not_slow_another() -> None:
    pair = Pair()
    await pair.open()
    slow = pair.opened[-1]
    blocked = asyncio.ensure_future(slow.write(STDOUT, bytes(2 * WINDOW_BYTES)))
    quick, callee = await pair.open()
    reader = asyncio.ensure_future(_read_all(quick))
    async with asyncio.timeout(5):
        await callee.write(STDOUT, bytes(5 * WINDOW_BYTES))
        await callee.close()
        assert 5 * WINDOW_BYTES == len(await reader)
    assert not blocked.done()
    pair.manager.abort("end of test")
    pair.agent.abort("end of test")
    with pytest.raises(StreamClosed):
        await blocked


@pytest.mark.parametrize("window", [0, MIN_WINDOW_BYTES, 3 * CHUNK_BYTES, 10**12])
@pytest.mark.parametrize("piece", [1, 255, 257, CHUNK_BYTES - 1, CHUNK_BYTES, CHUNK_BYTES + 1])
async def test_any_window_and_any_size_of_data_makes_progress(window: int, piece: int) -> None:
    manager, agent = await Pair().open(window)
    reader = asyncio.ensure_future(_read_all(manager))
    async with asyncio.timeout(10):
        for _time in range(300):
            await agent.write(STDOUT, bytes(piece))
        await agent.close()
        assert 300 * piece == len(await reader)


async def test_a_smaller_window_is_kept_by_the_callee() -> None:
    pair = Pair()
    _manager, agent = await pair.open(MIN_WINDOW_BYTES)
    writer = asyncio.ensure_future(agent.write(STDOUT, bytes(WINDOW_BYTES)))
    for _turn in range(100):
        await asyncio.sleep(0)
    sent = sum(len(message.data) for message in pair.sent if isinstance(message, Data))
    assert MIN_WINDOW_BYTES == sent
    pair.agent.abort("end of test")
    with pytest.raises(StreamClosed):
        await writer


async def test_a_peer_that_exceeds_its_window_loses_the_stream_and_is_told() -> None:
    pair = Pair()
    manager, agent = await pair.open()
    for _chunk in range(WINDOW_BYTES // CHUNK_BYTES + 1):
        pair.manager.receive(Data(0, STDOUT, bytes(CHUNK_BYTES)))
    assert [] == [item async for item in manager]
    async with manager:
        pass
    assert manager.closed is not None
    assert "protocol_error" == manager.closed.code
    assert manager.closed == agent.closed


async def test_many_tiny_pieces_count_more_than_their_bytes() -> None:
    pair = Pair()
    manager, _agent = await pair.open()
    for _piece in range(WINDOW_BYTES // MIN_COST + 1):
        pair.manager.receive(Data(0, STDOUT, b""))
    assert manager.closed is not None
    assert "protocol_error" == manager.closed.code


async def test_data_after_the_end_of_data_loses_the_stream() -> None:
    pair = Pair()
    manager, _agent = await pair.open()
    pair.manager.receive(Eof(0))
    pair.manager.receive(Data(0, STDOUT, b"more"))
    assert manager.closed is not None
    assert "protocol_error" == manager.closed.code


async def test_what_came_before_the_end_can_still_be_read() -> None:
    manager, agent = await Pair().open()
    await agent.write(STDOUT, b"last words")
    await agent.close(code="gone", why="it is gone")
    assert Closed(0, code="gone", why="it is gone") == manager.closed
    assert b"last words" == await _read_all(manager)


async def test_a_lost_link_ends_all_streams_their_readers_and_their_writers() -> None:
    pair = Pair()
    manager, _agent = await pair.open()
    reader = asyncio.ensure_future(_read_all(manager))
    writer = asyncio.ensure_future(manager.write(STDIN, bytes(2 * WINDOW_BYTES)))
    await asyncio.sleep(0)
    pair.manager.abort("the agent is gone")
    async with asyncio.timeout(5):
        assert b"" == await reader
        with pytest.raises(StreamClosed, match="the agent is gone"):
            await writer
    sent = len(pair.sent)
    await manager.close()
    assert (Closed(0, code="link_lost", why="the agent is gone"), sent, 0) == (
        manager.closed,
        len(pair.sent),
        len(pair.manager),
    )
    with pytest.raises(StreamClosed):
        await pair.manager.open(CALL)


async def test_leaving_the_context_tells_the_peer_that_nobody_listens() -> None:
    manager, agent = await Pair().open()
    async with manager:
        pass
    assert Closed(0, code="cancelled") == agent.closed
    with pytest.raises(StreamClosed):
        await agent.write(STDOUT, b"x")


async def test_an_end_from_both_sides_at_once_leaves_nothing_behind() -> None:
    pair = Pair()
    manager, agent = await pair.open()
    pair.hold = True
    await manager.close(code="a")
    await agent.close(code="b")
    for to, message in pair.waiting:
        to.receive(message)
    assert ("a", "b", 0, 0) == (
        manager.closed and manager.closed.code,
        agent.closed and agent.closed.code,
        len(pair.manager),
        len(pair.agent),
    )


async def waits_for_room(pair: Pair, sending: Coroutine[Any, Any, object]) -> Task[object]:
    """Let a task stand in the line of the manager's full link."""
    if not pair.line.locked():
        await pair.line.acquire()
    task = asyncio.ensure_future(sending)
    for _turn in range(3):
        await asyncio.sleep(0)
    assert not task.done()
    return task


async def leaves(task: Task[object]) -> None:
    """Cancel a task that waits for room; it does not go on to wait."""
    task.cancel()
    async with asyncio.timeout(5):
        await asyncio.wait({task})
    assert task.cancelled()


async def room_again(pair: Pair) -> None:
    pair.line.release()
    for _turn in range(20):
        await asyncio.sleep(0)


async def test_an_opening_that_is_called_off_before_there_is_room_leaves_nothing_behind(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("phalanx_wire.mux.MAX_STREAMS", 3)
    pair = Pair()
    for _stream in range(3):
        await leaves(await waits_for_room(pair, pair.manager.open(CALL)))
    await room_again(pair)
    assert (0, []) == (len(pair.manager), pair.opened)
    for _stream in range(3):
        await pair.manager.open(CALL)
    assert 3 == len(pair.opened)


async def test_an_opening_that_is_called_off_when_it_was_just_sent_ends_at_the_peer_too() -> None:
    pair = Pair()

    async def opened() -> None:
        pair.manager._send = slow  # the link takes the message, and its sender hears of it late
        await pair.manager.open(CALL)

    async def slow(message: Message) -> None:
        pair._pass(pair.agent, message)
        if isinstance(message, Open):
            await asyncio.Event().wait()

    opening = asyncio.ensure_future(opened())
    await asyncio.sleep(0)
    (callee,) = pair.opened
    await leaves(opening)
    async with asyncio.timeout(5):
        assert Closed(0, code="cancelled") == await callee.ended()
    assert (0, 0) == (len(pair.manager), len(pair.agent))


async def test_an_end_reaches_the_peer_although_who_ends_it_is_cancelled_while_it_waits() -> None:
    pair = Pair()
    manager, agent = await pair.open()

    async def used() -> None:
        async with manager:
            await manager.close(code="cancelled", why="the client has gone")

    await leaves(await waits_for_room(pair, used()))
    assert agent.closed is None
    await room_again(pair)
    assert Closed(0, code="cancelled", why="the client has gone") == agent.closed
    assert (0, 0) == (len(pair.manager), len(pair.agent))


async def test_an_end_stands_behind_the_data_that_was_written_before_it() -> None:
    pair = Pair()
    manager, agent = await pair.open()
    writing = await waits_for_room(pair, manager.write(STDIN, b"last words"))
    await leaves(await waits_for_room(pair, manager.close(exit_code=0)))
    await room_again(pair)
    assert writing.done()
    assert b"last words" == await _read_all(agent)
    assert Closed(0, 0) == agent.closed


async def test_a_stream_counts_until_the_peer_can_know_of_its_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("phalanx_wire.mux.MAX_STREAMS", 1)
    pair = Pair()
    manager, _agent = await pair.open()
    await leaves(await waits_for_room(pair, manager.close()))
    pair.manager.receive(Data(0, STDOUT, b"late"))
    async with asyncio.timeout(5):
        with pytest.raises(StreamClosed, match="1 streams are open"):
            await pair.manager.open(CALL)
    await room_again(pair)
    again, _callee = await pair.open()
    assert (1, []) == (len(pair.manager), list(manager._inbox))
    assert again.closed is None


async def test_a_lost_link_lets_nobody_wait_to_tell_an_end() -> None:
    pair = Pair()
    manager, _agent = await pair.open()
    closing = await waits_for_room(pair, manager.close())
    pair.manager.abort("the agent is gone")
    async with asyncio.timeout(5):
        await closing
    sent = len(pair.sent)
    await room_again(pair)
    assert (sent, {}) == (len(pair.sent), pair.manager._telling)


async def test_only_the_newest_terminal_size_is_delivered() -> None:
    manager, agent = await Pair().open()
    await manager.resize(10, 20)
    await manager.resize(30, 40)
    assert Resize(0, 30, 40) == await anext(agent)
    await manager.close()
    assert [] == [item async for item in agent]


@pytest.mark.parametrize(
    "nonsense",
    [
        Goals(revision=1),
        Data(99, STDOUT, b"of no stream"),
        Credit(0, -5),
        Credit(0, 1 << 62),
        Closed(-1),
        Open(2, CALL),
        Open(-7, CALL),
        Eof(12),
    ],
    ids=repr,
)
async def test_nonsense_of_a_peer_is_ignored(nonsense: Message) -> None:
    pair = Pair()
    manager, agent = await pair.open()
    pair.manager.receive(nonsense)
    assert (1, [agent]) == (len(pair.manager), pair.opened)
    await agent.write(STDOUT, b"still well")
    await agent.close()
    assert b"still well" == await _read_all(manager)


async def test_false_credit_does_not_widen_the_window() -> None:
    pair = Pair()
    manager, _agent = await pair.open()
    pair.manager.receive(Credit(0, 1 << 62))
    writer = asyncio.ensure_future(manager.write(STDIN, bytes(3 * WINDOW_BYTES)))
    for _turn in range(100):
        await asyncio.sleep(0)
    sent = sum(len(message.data) for message in pair.sent if isinstance(message, Data))
    assert WINDOW_BYTES == sent
    pair.manager.abort("end of test")
    with pytest.raises(StreamClosed):
        await writer


async def test_a_number_is_never_used_twice() -> None:
    pair = Pair()
    pair.manager.receive(Open(5, UploadCall("sha256:00")))
    pair.manager.receive(Open(5, UploadCall("sha256:00")))
    pair.manager.receive(Open(3, UploadCall("sha256:00")))
    assert [5] == [stream.number for stream in pair.opened]


async def test_a_peer_cannot_open_streams_without_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("phalanx_wire.mux.MAX_STREAMS", 3)
    pair = Pair()
    for number in range(1, 21, 2):
        pair.manager.receive(Open(number, UploadCall("sha256:00")))
    assert 3 == len(pair.opened)
    for _stream in range(3):
        await pair.manager.open(CALL)
    with pytest.raises(StreamClosed, match="3 streams are open"):
        await pair.manager.open(CALL)
    await pair.opened[-1].close()
    await pair.opened[0].close()
    await pair.manager.open(CALL)
    pair.manager.receive(Open(99, UploadCall("sha256:00")))
    assert 99 == pair.opened[-1].number


async def test_messages_survive_the_codec() -> None:
    message = Open(4, CALL, MIN_WINDOW_BYTES)
    assert message == msgspec.msgpack.decode(msgspec.msgpack.encode(message), type=Open)
