"""Plain commands: none outlives the agent that runs it."""

from __future__ import annotations

import asyncio
import errno
from collections import deque
from dataclasses import dataclass, field

import pytest

from phalanx_agent.docker.port import Unavailable
from phalanx_agent.loops import commands as module
from phalanx_agent.loops.commands import Command, Commands
from phalanx_agent.loops.refusal import Refusal
from tests.support.execs import FakeNotes
from tests.support.fake_engine import FakeEngine, FakeExec, refusal

CAT = Command(("cat",), stdin=True)


@dataclass
class SlowExec(FakeExec):
    """A command that an engine begins when it is let to."""

    told: asyncio.Semaphore = field(kw_only=True)
    let: asyncio.Event = field(kw_only=True)

    async def pid(self) -> int:
        self.told.release()
        await self.let.wait()
        return await super().pid()


class NeverBegins(FakeExec):
    """A command that an engine has taken and does not begin."""

    async def pid(self) -> int:
        raise Unavailable("c", "running a command", "It does not begin.")


class Stage:
    """A host whose engine runs one endless command when it is asked for one."""

    def __init__(self) -> None:
        self.engine = FakeEngine()
        self.notes = FakeNotes()
        self.first = FakeExec(deque(), endless=True)
        self.engine.execs.append(self.first)
        self.commands = Commands(self.engine, self.notes)

    async def dies_in_a_command(self) -> None:
        """An agent is killed: nothing that it would have done at the end is done."""
        await self.engine.exec("c", CAT.words, tty=False, stdin=True, begins=self.notes.note)
        self.commands = Commands(self.engine, self.notes)

    async def clears(self) -> None:
        """The agent looks for what is left, until nothing is noted."""
        async with asyncio.timeout(5), asyncio.TaskGroup() as group:
            clearing = group.create_task(self.commands.clear())
            await self.notes.fewer.wait()
            clearing.cancel()


async def test_a_command_is_noted_while_it_runs() -> None:
    stage = Stage()

    async with stage.commands.run("c", CAT):
        meanwhile = set(stage.notes.ids)

    assert set(stage.engine.known_execs) == meanwhile
    assert set() == stage.notes.ids
    assert not stage.first.killed


async def test_a_command_that_cannot_be_noted_is_refused_and_not_started() -> None:
    stage = Stage()
    stage.notes.failing.append(OSError(errno.ENOSPC, "No space left on device"))

    with pytest.raises(Refusal, match="No space left on device") as refused:
        async with stage.commands.run("c", CAT):
            pytest.fail("it runs")

    assert "not_noted" == refused.value.code
    assert [] == stage.engine.executed


async def test_a_command_whose_asker_has_gone_is_ended_and_forgotten() -> None:
    stage = Stage()

    with pytest.raises(ConnectionError):
        async with stage.commands.run("c", CAT):
            raise ConnectionError

    assert stage.first.killed
    assert set() == stage.notes.ids


async def test_what_a_dead_agent_has_left_running_is_ended_by_the_next() -> None:
    stage = Stage()
    await stage.dies_in_a_command()

    await stage.clears()

    assert stage.first.killed


async def test_a_command_of_this_agents_is_none_that_was_left() -> None:
    stage = Stage()

    async with asyncio.timeout(5), stage.commands.run("c", CAT), asyncio.TaskGroup() as group:
        stage.notes.ids.add("left")
        clearing = group.create_task(stage.commands.clear())
        await stage.notes.fewer.wait()
        clearing.cancel()

    assert ["end_exec"] == [call for call in stage.engine.calls if call == "end_exec"]
    assert not stage.first.killed


async def test_an_engine_that_is_away_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "AGAIN_S", 0.0)
    stage = Stage()
    await stage.dies_in_a_command()
    away = Unavailable("engine", "looking at a command", "It is away.", kind="not_sent")
    stage.engine.failures["end_exec"].extend([away, refusal(500)])

    await stage.clears()

    assert stage.first.killed


async def test_a_command_that_the_engine_does_not_know_is_done() -> None:
    stage = Stage()
    stage.notes.ids.add("before the engine's restart")

    await stage.clears()

    assert not stage.first.killed


async def test_a_command_whose_start_was_not_answered_is_ended() -> None:
    stage = Stage()
    stage.engine.failures["exec_start"].append(Unavailable("c", "running a command", "Broken."))

    with pytest.raises(Unavailable):
        async with stage.commands.run("c", CAT):
            pytest.fail("it runs")
    noted = set(stage.notes.ids)
    await stage.clears()

    assert 1 == len(noted)


async def test_a_command_that_the_engine_did_not_end_when_told_is_ended_later() -> None:
    stage = Stage()
    away = Unavailable("engine", "looking at a command", "It is away.", kind="not_sent")
    stage.first.failing.append(away)
    async with asyncio.timeout(5), asyncio.TaskGroup() as group:
        clearing = group.create_task(stage.commands.clear())
        await asyncio.sleep(0)
        with pytest.raises(Unavailable):
            async with stage.commands.run("c", CAT):
                raise ConnectionError
        assert not stage.first.killed
        await stage.notes.fewer.wait()
        clearing.cancel()

    assert stage.first.killed


async def test_commands_of_a_container_begin_two_at_once_and_keep_no_other_container_waiting() -> (
    None
):
    stage = Stage()
    told, let = asyncio.Semaphore(0), asyncio.Event()
    stage.engine.execs = deque(SlowExec(deque(), told=told, let=let) for _ in range(4))
    words = [("first",), ("second",), ("third",), ("other",)]
    executed = stage.engine.executed

    async with asyncio.timeout(5), asyncio.TaskGroup() as group:
        for word, container in zip(words, "cccd", strict=True):
            group.create_task(stage.commands.begin(container, Command(word)))
        for _ in range(3):
            await told.acquire()
        before = list(executed)
        let.set()

    assert [("first",), ("second",), ("other",)] == before
    assert ("third",) == executed[-1]


async def test_a_command_whose_asker_has_gone_before_its_turn_is_not_started() -> None:
    stage = Stage()

    def gone() -> None:
        raise ConnectionError

    with pytest.raises(ConnectionError):
        async with stage.commands.run("c", CAT, gone):
            pytest.fail("it runs")

    assert [] == stage.engine.executed


async def test_a_command_that_does_not_begin_is_ended() -> None:
    stage = Stage()
    stage.engine.execs = deque([NeverBegins(deque())])

    with pytest.raises(Unavailable, match="does not begin"):
        async with stage.commands.run("c", CAT):
            pytest.fail("it runs")

    assert all(one.killed for one in stage.engine.known_execs.values())
