"""One question of a container, and its answer."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from phalanx_manager.clock import Clock
from phalanx_manager.core.model import Kernel, SessionRow
from phalanx_manager.http import views
from phalanx_manager.store.port import Store
from phalanx_slurm import jobs
from phalanx_wire.ids import AgentId
from phalanx_wire.mux import Stream
from phalanx_wire.stream import AskCall, Call


class Link(Protocol):
    """The way to the agents; `rpc.agents.Agents` is one."""

    async def open(self, agent: AgentId, call: Call) -> Stream:
        """Open a stream, or raise the link's `Unavailable`."""


class WrongQuestion(Exception):  # noqa: N818 - an answer, not an accident
    """It is refused; the text is a sentence, `code` the exit code."""

    def __init__(self, code: int, why: str) -> None:
        super().__init__(why)
        self.code = code


@dataclass(frozen=True, slots=True)
class Answer:
    """What is written to standard output, and the exit code."""

    out: str = ""
    code: int = 0


@dataclass(frozen=True, slots=True)
class Question:
    """A process in a kernel's container has asked.

    Attributes:
        row, kernel: as they are now; the kernel lives.
    """

    call: AskCall
    row: SessionRow
    kernel: Kernel
    store: Store
    clock: Clock
    link: Link

    @property
    def words(self) -> tuple[str, ...]:
        """The arguments."""
        return self.call.argv[1:]

    @property
    def job(self) -> jobs.Job:
        """The session in SLURM's words."""
        return jobs.job(views.session(self.row))

    def check_own(self, names: Sequence[str]) -> None:
        """See that nothing is named but the asker's own session, by whichever of its names.

        Raises:
            WrongQuestion: something else is.
        """
        session = self.row.session
        own = {session.id, session.name, str(session.number), self.job.id}
        for name in names:
            if name not in own:
                why = f"only the own session can be asked about in a container: {session.name}"
                raise WrongQuestion(NOT_PERMITTED, f"{name[:80]}: {why}")


USAGE, NOT_PERMITTED = 64, 77

Handler = Callable[[Question], Awaitable[Answer]]
