"""Signals that a command hears once, by a model in which agents die and connections break."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from hypothesis import given
from hypothesis import strategies as st

from phalanx_agent.core.notices import due
from phalanx_agent.core.seen import Noted, Runner, Running, Seen, hear
from phalanx_agent.core.step import Needs, Op, next_op
from phalanx_runner.messages import Event, Hello, Pong, Signalled, Stamp, Started
from phalanx_wire.ids import KernelId
from phalanx_wire.lifecycle import KernelState as S
from phalanx_wire.notice import Notice

LIMIT, DRAIN, TASKS = Notice("limit", 10), Notice("drain", 12), Notice("limit", 10, tasks=True)
KERNEL = KernelId("aaaaaaaaaaaa-1-0")
RELEASED = Seen(container=Running("c"), connected=True, runner=Runner(released=True))
NEEDS = Needs(notices=(LIMIT, DRAIN))


@dataclass
class World:
    """A runner, the connection to it, an agent, and what that has noted. Every step of the agent
    may be its last, and what is on its way may be lost.
    """

    seen: Seen = RELEASED
    noted: Noted = field(default_factory=Noted)
    heard: list[int] = field(default_factory=list)
    kept: list[tuple[int, int]] = field(default_factory=list)
    seq: int = 1
    down: list[int | None] = field(default_factory=list)
    up: list[Event] = field(default_factory=list)

    def connect(self) -> None:
        """A new connection: the runner tells again what it keeps."""
        self.down.clear()
        again = [Signalled(Stamp(seq, 0), number, 1) for seq, number in self.kept]
        self.up = [Hello(1, KERNEL, self.seq), Started(Stamp(1, 0), 7), *again]
        asked = replace(self.seen.asked, ping=False)
        self.seen = replace(self.seen, connected=True, asked=asked, notified=frozenset())

    def restart(self) -> None:
        """The agent dies, and the next one begins with what was noted."""
        self.seen = Seen(container=RELEASED.container, noted=self.noted)
        self.connect()

    def runner_reads(self) -> None:
        if not self.down:
            return
        number = self.down.pop(0)
        self.seq += 1
        if number is None:
            self.up.append(Pong(Stamp(self.seq, 0)))
            return
        self.heard.append(number)
        self.kept.append((self.seq, number))
        self.up.append(Signalled(Stamp(self.seq, 0), number, 1))

    def agent_reads(self) -> None:
        if self.up:
            self.seen = replace(self.seen, runner=hear(self.seen.runner, self.up.pop(0)))

    def agent_acts(self, *, dies: bool) -> None:
        """Do what is due, or die between the note and the sending."""
        op = next_op(S.RUNNING, self.seen, NEEDS)
        if op is Op.PING:
            self.down.append(None)
            self.seen = replace(self.seen, asked=replace(self.seen.asked, ping=True))
        if op is not Op.NOTIFY:
            return
        notice = due(NEEDS.notices, self.seen)
        assert notice is not None
        told = {**self.seen.noted.notices, notice.id: self.seen.runner.seq}
        self.noted = replace(self.noted, notices=told)
        if dies:
            self.restart()
            return
        self.down.append(notice.signal)
        notified = self.seen.notified | {notice.id}
        self.seen = replace(self.seen, noted=self.noted, notified=notified)


@given(st.lists(st.sampled_from(["runner", "agent", "act", "act", "die", "restart", "connect"])))
def test_whatever_dies_each_is_heard_once(steps: list[str]) -> None:
    world = World()
    world.connect()
    for step in [*steps, *["agent", "act", "runner"] * 30]:
        match step:
            case "runner":
                world.runner_reads()
            case "agent":
                world.agent_reads()
            case "act":
                world.agent_acts(dies=False)
            case "die":
                world.agent_acts(dies=True)
            case "restart":
                world.restart()
            case _:
                world.connect()
        assert len(world.heard) == len(set(world.heard))

    assert [10, 12] == sorted(world.heard)


def test_nothing_is_sent_while_it_is_not_known_whether_it_was() -> None:
    noted = replace(RELEASED, noted=Noted(notices={"limit": 4}))
    needs = Needs(notices=(LIMIT,))
    heard = replace(noted, runner=hear(noted.runner, Signalled(Stamp(5, 0), 10, 1)))
    lost = replace(noted, runner=hear(noted.runner, Pong(Stamp(5, 0))))

    assert Op.PING is next_op(S.RUNNING, noted, needs)
    assert next_op(S.RUNNING, heard, needs) is None
    assert Op.NOTIFY is next_op(S.RUNNING, lost, needs)


def test_an_earlier_signal_of_the_users_is_not_taken_for_it() -> None:
    noted = replace(RELEASED, noted=Noted(notices={"limit": 4}))
    by_user = replace(noted, runner=hear(noted.runner, Signalled(Stamp(3, 0), 10, 1)))

    assert Op.PING is next_op(S.RUNNING, by_user, Needs(notices=(LIMIT,)))


def test_tasks_are_not_told_again_because_they_die_with_their_agent() -> None:
    noted = replace(RELEASED, noted=Noted(notices={"limit": 4}))

    assert next_op(S.RUNNING, noted, Needs(notices=(TASKS,))) is None
    assert Op.NOTIFY is next_op(S.RUNNING, RELEASED, Needs(notices=(TASKS,)))


def test_who_has_ended_or_is_not_connected_is_told_nothing() -> None:
    away = replace(RELEASED, connected=False)
    ended = replace(RELEASED, runner=replace(RELEASED.runner, exited=0))

    assert next_op(S.RUNNING, away, NEEDS) is None
    assert Op.DISMISS is next_op(S.RUNNING, ended, NEEDS)
