"""What the agent's commands stand on, without a host."""

from __future__ import annotations

import asyncio

from phalanx_agent.docker.port import Docker
from phalanx_agent.loops.commands import Commands
from phalanx_agent.loops.execs import Execs
from tests.support.task_processes import tasks_of


class FakeNotes:
    """Ids of commands; they outlive an agent. `failing` has what the next ones fail by; `fewer`
    tells that one was forgotten.
    """

    def __init__(self, *ids: str) -> None:
        self.ids = set(ids)
        self.failing: list[OSError] = []
        self.fewer = asyncio.Event()

    def note(self, exec_id: str) -> None:
        if self.failing:
            raise self.failing.pop()
        self.ids.add(exec_id)

    def forget(self, exec_id: str) -> None:
        self.ids.discard(exec_id)
        self.fewer.set()

    def noted(self) -> frozenset[str]:
        return frozenset(self.ids)


def execs_of(docker: Docker, notes: FakeNotes | None = None) -> Execs:
    """Make the commands and tasks of an agent."""
    return Execs(docker, Commands(docker, notes or FakeNotes()), tasks_of(docker))
