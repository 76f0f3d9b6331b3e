"""Output that many follow is read once; each is told all of it, at its own pace."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from functools import partial

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from phalanx_manager.http import logs_live, logs_pieces
from phalanx_manager.http.cursor import Position
from phalanx_manager.http.logs_live import Outputs
from phalanx_manager.http.logs_pieces import Piece
from phalanx_manager.http.logs_read import Source, Wanted
from phalanx_manager.rpc.shares import Shares
from phalanx_wire import loglines
from phalanx_wire.api import LogEvent, LogLine
from phalanx_wire.ids import AgentId
from phalanx_wire.lifecycle import KernelState
from phalanx_wire.mux import Stream, StreamClosed
from phalanx_wire.stream import STDOUT, LogsCall
from tests.support.house import row
from tests.support.manager_api import LocalLink, turns

KERNEL = replace(row(["a"]).kernels[0], agent=AgentId("a"), state=KernelState.RUNNING)


@dataclass
class Talker:
    """A container that says what it is told to, and an agent that serves it.

    Attributes:
        followers: streams that follow it now.
        most: of them at once, ever.
    """

    lines: list[LogLine] = field(default_factory=list)
    ended: bool = False
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    followers: int = 0
    most: int = 0

    def say(self, at_ns: int) -> None:
        self.lines.append(LogLine(at_ns, False, f"line {len(self.lines)}"))
        self._change()

    def end(self) -> None:
        self.ended = True
        self._change()

    def _change(self) -> None:
        changed, self.changed = self.changed, asyncio.Event()
        changed.set()

    async def answer(self, stream: Stream) -> None:
        async with asyncio.TaskGroup() as tasks:
            leaving = tasks.create_task(self._noticing(stream))
            with contextlib.suppress(StreamClosed):
                await self._tell(stream)
            leaving.cancel()

    async def _noticing(self, stream: Stream) -> None:
        await stream.ended()
        self._change()

    async def _tell(self, stream: Stream) -> None:
        call = stream.call
        assert isinstance(call, LogsCall)
        self.followers += call.follow
        self.most = max(self.most, self.followers)
        try:
            told = len(self.lines)
            found = [line for line in self.lines if line.at_ns > call.since_ns]
            first = 0 if call.tail < 0 else max(len(found) - call.tail, 0)
            await _write(stream, found[first:])
            while call.follow and not (self.ended and told == len(self.lines)):
                if stream.closed is not None:
                    return
                changed = self.changed
                more = [line for line in self.lines[told:] if line.at_ns > call.since_ns]
                told = len(self.lines)
                await _write(stream, more)
                if not more:
                    await changed.wait()
        finally:
            self.followers -= call.follow
        await stream.close()


async def _write(stream: Stream, lines: list[LogLine]) -> None:
    for chunk in loglines.pack(lines):
        await stream.write(STDOUT, chunk)


@dataclass
class House:
    """A talker, and what follows it.

    Attributes:
        told: lines, to all who follow.
    """

    talker: Talker
    link: LocalLink
    shares: Shares
    outputs: Outputs
    tasks: asyncio.TaskGroup
    told: int = 0

    async def follow(
        self,
        wanted: Wanted,
        *,
        position: Position | None = None,
        pause: int = 0,
        gate: asyncio.Event | None = None,
    ) -> list[str]:
        """Follow it to its end, as a request does.

        Args:
            pause: turns of the loop that each piece takes.
            gate: nothing is taken after the first piece until it opens.
        """
        source = Source(KERNEL, wanted, position)
        told: list[str] = []

        async def put(piece: Piece) -> None:
            told.extend(texts(piece))
            self.told += len(texts(piece))
            for _turn in range(pause):
                await asyncio.sleep(0)
            if gate is not None:
                await gate.wait()

        while True:
            state = KernelState.EXITED if self.talker.ended else KernelState.RUNNING
            async with self.outputs.reader(source, "ada") as reader:
                await reader.run(partial(self.shares.open, "ada"), state, put)
            assert source.closed is not None
            if not source.closed.code:
                return told


@asynccontextmanager
async def house() -> AsyncIterator[House]:
    talker = Talker()
    async with asyncio.timeout(30), asyncio.TaskGroup() as tasks:
        link = LocalLink(tasks, talker.answer)
        shares = Shares(link)
        yield House(talker, link, shares, Outputs(shares, tasks), tasks)
        assert 0 == talker.followers


def texts(piece: Piece) -> list[str]:
    data = (piece.events + piece.last).decode()
    return [
        msgspec.json.decode(event.partition("data: ")[2], type=LogEvent).text
        for event in data.split("\n\n")[:-1]
    ]


ALL = Wanted(0, -1, {})


async def test_however_many_follow_the_agent_is_read_once() -> None:
    async with house() as scene:
        scene.talker.say(1)
        following = [scene.tasks.create_task(scene.follow(ALL)) for _one in range(50)]
        await scene.link.until(lambda: scene.talker.followers > 0)
        for number in range(2, 200):
            scene.talker.say(number)
            await asyncio.sleep(0)
        scene.talker.end()
        told = [await one for one in following]
        assert [[line.text for line in scene.talker.lines]] * 50 == told
        assert 1 == scene.talker.most


async def test_a_stream_of_those_who_follow_ends_with_the_last_of_them() -> None:
    async with house() as scene:
        following = [scene.tasks.create_task(scene.follow(ALL)) for _one in range(2)]
        await scene.link.until(lambda: scene.talker.followers > 0)
        following[0].cancel()
        scene.talker.say(1)
        await asyncio.sleep(0)
        assert 1 == scene.talker.followers
        following[1].cancel()
        await scene.link.until(lambda: not scene.talker.followers)


async def test_one_that_takes_nothing_holds_nobody_and_is_told_all_in_the_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(logs_live, "_HELD_BYTES", 10_000)
    gate = asyncio.Event()
    async with house() as scene:
        quick = scene.tasks.create_task(scene.follow(ALL))
        await scene.link.until(lambda: scene.talker.followers > 0)
        stuck = scene.tasks.create_task(scene.follow(ALL, gate=gate))
        await scene.link.until(lambda: len(scene.link.calls) == 2)
        for _time in range(100):
            for _line in range(50):
                scene.talker.say(len(scene.talker.lines) + 1)
            await scene.link.until(lambda: scene.told >= len(scene.talker.lines))
        scene.talker.end()
        said = [line.text for line in scene.talker.lines]
        assert said == await quick
        assert not stuck.done()
        gate.set()
        assert said == await stuck
        assert len(scene.link.calls) == 3  # the stuck one has asked twice for what is kept


async def test_whoever_comes_after_a_clock_was_set_back_is_told_what_comes() -> None:
    async with house() as scene:
        scene.talker.say(1_000)
        first = scene.tasks.create_task(scene.follow(ALL))
        await scene.link.until(lambda: scene.told == 1)
        second = scene.tasks.create_task(scene.follow(ALL))
        await scene.link.until(lambda: scene.told == 2)
        await turns()
        for at_ns in (500, 600, 700):
            scene.talker.say(at_ns)
        await scene.link.until(lambda: scene.told == 8)
        scene.talker.end()
        said = [line.text for line in scene.talker.lines]
        assert [said, said] == [await first, await second]


async def test_a_line_that_is_told_to_be_older_than_the_last_is_not_lost() -> None:
    async with house() as scene:
        following = [scene.tasks.create_task(scene.follow(ALL)) for _one in range(2)]
        for at_ns in (1_000_000, 1_000_900, 1_000_500, 1_001_000, 1_000_950, 1_002_000):
            await turns()
            scene.talker.say(at_ns)
            scene.link.lose()
        await turns()
        scene.talker.end()
        said = [line.text for line in scene.talker.lines]
        assert [said, said] == [await one for one in following]


async def test_whoever_comes_while_lines_of_two_channels_do_is_told_them_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(logs_pieces, "MOST_LINES", 1)
    async with house() as scene:
        following = [scene.tasks.create_task(scene.follow(ALL))]
        await turns()
        for at_ns in (1_000_000, 2_000_000, 3_000_000):
            following.append(scene.tasks.create_task(scene.follow(ALL)))
            for later_ns in (0, 900, 500):
                scene.talker.say(at_ns + later_ns)
            await turns()
        scene.talker.end()
        said = [line.text for line in scene.talker.lines]
        for one in following:
            assert said == await one


async def test_whoever_waits_for_a_time_to_come_keeps_nothing_from_others() -> None:
    async with house() as scene:
        scene.talker.say(1)
        early = scene.tasks.create_task(scene.follow(Wanted(0, 0, {})))
        await turns()
        early.cancel()
        later = scene.tasks.create_task(scene.follow(Wanted(10, -1, {})))
        await turns()
        following = scene.tasks.create_task(scene.follow(ALL))
        await turns()
        for at_ns in (2, 9, 11, 12):
            scene.talker.say(at_ns)
        await turns()
        scene.talker.end()
        assert ["line 3", "line 4"] == await later
        assert [f"line {number}" for number in range(5)] == await following


async def test_whoever_wants_no_old_lines_gets_none_while_others_still_read_them() -> None:
    async with house() as scene:
        for at_ns in range(1, 1_000):
            scene.talker.say(at_ns)
        first = scene.tasks.create_task(scene.follow(ALL))
        late = scene.tasks.create_task(scene.follow(Wanted(0, 0, {})))
        await scene.link.until(lambda: scene.told >= 999)
        await turns()
        scene.talker.say(1_000)
        await turns()
        scene.talker.end()
        said = [line.text for line in scene.talker.lines]
        assert [said, said[-1:]] == [await first, await late]


async def test_the_last_line_is_told_to_whoever_comes_before_it_though_it_is_older() -> None:
    async with house() as scene:
        scene.talker.say(1_000)
        following = [
            scene.tasks.create_task(scene.follow(wanted)) for wanted in (Wanted(0, 0, {}), ALL)
        ]
        await scene.link.until(lambda: scene.told == 1)
        await turns()
        scene.talker.say(900)
        await turns()
        scene.talker.end()
        assert [["line 1"], ["line 0", "line 1"]] == [await one for one in following]


@pytest.mark.parametrize("after", range(12))
async def test_all_that_a_silent_container_says_at_once_is_told_to_whoever_waits_for_it(
    after: int,
) -> None:
    async with house() as scene:
        one = scene.tasks.create_task(scene.follow(Wanted(100, -1, {})))
        await scene.link.until(lambda: bool(scene.link.calls))
        for _turn in range(after):
            await asyncio.sleep(0)
        for at_ns in range(101, 601):
            scene.talker.say(at_ns)
        scene.talker.end()
        assert [line.text for line in scene.talker.lines] == await one


async def test_all_that_is_later_than_a_time_is_told_however_much_it_is() -> None:
    async with house() as scene:
        for at_ns in range(1, 1_000):
            scene.talker.say(at_ns)
        one = scene.tasks.create_task(scene.follow(Wanted(100, -1, {})))
        await turns()
        scene.talker.end()
        assert [f"line {number}" for number in range(100, 999)] == await one


Steps = list[tuple[str, int, int]]
"""Say something so much later; begin to follow at such a pace, all or what is later than now; lose
all links. The third is how many turns of the loop there are after it.
"""


def _steps() -> st.SearchStrategy[Steps]:
    say = st.tuples(st.just("say"), st.integers(0, 1), st.integers(0, 12))
    follow = st.tuples(st.just("follow"), st.integers(0, 40), st.integers(0, 12))
    lose = st.tuples(st.just("lose"), st.just(0), st.integers(0, 12))
    later = st.tuples(st.just("later"), st.integers(0, 40), st.integers(0, 12))
    anything = st.one_of(say, say, say, follow, follow, later, lose)
    return st.lists(anything, min_size=3, max_size=40)


@settings(max_examples=400, deadline=None)
@given(steps=_steps(), held=st.sampled_from([1, 600, 1_000_000]))
async def test_nothing_is_lost_or_told_twice_whenever_one_comes(steps: Steps, held: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(logs_live, "_HELD_BYTES", held)
        patch.setattr(logs_pieces, "MOST_LINES", 2)
        async with house() as scene:
            at_ns = 1
            following = []
            for what, number, pause in steps:
                match what:
                    case "say":
                        at_ns += number
                        scene.talker.say(at_ns)
                    case "follow" | "later":
                        since_ns = at_ns if what == "later" else 0
                        telling = scene.follow(Wanted(since_ns, -1, {}), pause=number)
                        following.append((since_ns, scene.tasks.create_task(telling)))
                    case _:
                        scene.link.lose()
                await turns(pause)
            scene.talker.end()
            for since_ns, one in following:
                wanted = [line.text for line in scene.talker.lines if line.at_ns > since_ns]
                assert wanted == await one


@settings(max_examples=200, deadline=None)
@given(
    steps=_steps(),
    tail=st.integers(-1, 4),
    since=st.integers(0, 12),
    others=st.lists(st.integers(0, 20), max_size=2),
)
async def test_only_what_is_wanted_is_told(
    steps: Steps, tail: int, since: int, others: list[int]
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(logs_pieces, "MOST_LINES", 2)
        async with house() as scene:

            async def play(part: Steps) -> None:
                for what, _number, pause in part:
                    if what == "say":
                        scene.talker.say(len(scene.talker.lines) + 1)
                    await turns(pause)

            beside = [scene.tasks.create_task(scene.follow(ALL, pause=pause)) for pause in others]
            await play(steps[: len(steps) // 2])
            await turns()
            before = len(scene.talker.lines)
            one = scene.tasks.create_task(scene.follow(Wanted(since, tail, {})))
            await play(steps[len(steps) // 2 :])
            scene.talker.end()
            wanted = [line.text for line in scene.talker.lines if line.at_ns > since]
            told = await one
            for each in beside:
                await each
        if tail < 0:
            assert wanted == told
        else:
            after = max(len(scene.talker.lines) - max(before, since), 0)
            assert wanted[len(wanted) - len(told) :] == told
            assert len(told) <= min(len(wanted), after + tail)
