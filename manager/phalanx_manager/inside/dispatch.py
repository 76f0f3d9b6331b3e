"""Finds out who asks, and who answers."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from typing import Final

import structlog

from phalanx_manager.clock import Clock
from phalanx_manager.core.fair import may_have_more
from phalanx_manager.core.model import Caller, Kernel, SessionRow
from phalanx_manager.inside import slurm_words, srun, words
from phalanx_manager.inside.question import USAGE, Answer, Handler, Link, Question, WrongQuestion
from phalanx_manager.rpc.steps import Steps
from phalanx_manager.store.port import Store, Unavailable
from phalanx_slurm.wrong import WrongError
from phalanx_wire.ids import AgentId, KernelId, split_kernel_id
from phalanx_wire.mux import Stream
from phalanx_wire.stream import STDERR, STDOUT, AskCall

ANSWER_WITHIN_S: Final = 30.0
AT_ONCE: Final = 1024
"""Of one agent, running steps included: each keeps a command line and an environment. A user may
have half of what others leave of them.
"""

_ANYBODY: Final = Caller("", "admin")

Serve = Callable[[AgentId, Stream], Awaitable[None]]

_PROGRAMS: Final[Mapping[str, Handler]] = {"phalanx": words.phalanx, **slurm_words.PROGRAMS}

log = structlog.get_logger(__name__)


class Inside:
    """Answers agents that pass on what a container asks. The agent vouches for the container, and
    for no other agent's; the container has no other right than that it is there.
    """

    def __init__(self, store: Store, clock: Clock, others: Serve) -> None:
        """Args: others: serves what agents ask for themselves."""
        self._store = store
        self._clock = clock
        self._others = others
        self._ways: tuple[Link, Steps] | None = None
        self._attached = asyncio.Event()
        self._busy: Counter[AgentId] = Counter()
        self._of: Counter[tuple[AgentId, str]] = Counter()

    def attach(self, link: Link, steps: Steps) -> None:
        """Take the ways to the agents."""
        self._ways = link, steps
        self._attached.set()

    async def serve(self, agent: AgentId, stream: Stream) -> None:
        """Serve a stream that an agent has opened, to its end.

        Raises:
            StreamClosed: nobody waits for the answer any more.
        """
        call = stream.call
        if not isinstance(call, AskCall):
            await self._others(agent, stream)
            return
        if self._busy[agent] >= AT_ONCE:
            await _busy(stream, f"{AT_ONCE} questions of", agent)
            return
        self._busy[agent] += 1
        try:
            await self._attached.wait()  # a manager's first agents are there before it is
            await self._asked(agent, call, stream)
        finally:
            self._busy[agent] -= 1

    async def _asked(self, agent: AgentId, call: AskCall, stream: Stream) -> None:
        try:
            found = await self._find(agent, call.kernel)
            if found is None:
                log.warning("ask.stranger", agent=agent, kernel=call.kernel[:80])
                await stream.close(code="not_live", why="This container's session is over.")
                return
            row, kernel = found
            user = row.session.user
            if not may_have_more(self._of[agent, user], self._busy[agent] - 1, AT_ONCE):
                await _busy(stream, f"{self._of[agent, user]} questions of {user}'s", agent)
                return
            self._of[agent, user] += 1
            try:
                await self._answered(call, stream, row, kernel)
            finally:
                self._of[agent, user] -= 1
                self._of += Counter()  # forgets those without any
        except (Unavailable, TimeoutError) as error:
            why = str(error) or f"no answer within {ANSWER_WITHIN_S:g} s"
            await stream.close(code="unavailable", why=f"{why}; try again")

    async def _answered(
        self, call: AskCall, stream: Stream, row: SessionRow, kernel: Kernel
    ) -> None:
        assert self._ways is not None  # noqa: S101 - it is attached
        link, steps = self._ways
        log.info("ask", kernel=kernel.id, argv=[one[:40] for one in call.argv[:3]])
        if call.argv[:1] == ("srun",) and not slurm_words.asks_version(call.argv):
            await srun.serve(call, stream, row, kernel, steps)
            return
        await _answer(Question(call, row, kernel, self._store, self._clock, link), stream)

    async def _find(self, agent: AgentId, name: KernelId) -> tuple[SessionRow, Kernel] | None:
        """Find who asks: a kernel of a live attempt, on that agent."""
        try:
            session, attempt, rank = split_kernel_id(name)
        except ValueError:
            return None
        row = await self._store.session(session, _ANYBODY)
        if not isinstance(row, SessionRow) or row.session.id != session:
            return None
        if row.session.attempt != attempt or rank >= len(row.kernels):
            return None
        kernel = row.kernels[rank]
        return None if kernel.agent != agent or kernel.ended else (row, kernel)


async def _busy(stream: Stream, whose: str, agent: AgentId) -> None:
    why = f"{whose} containers of {agent} are under way; try again"
    await stream.close(code="busy", why=why)


async def _answer(question: Question, stream: Stream) -> None:
    program = question.call.argv[0] if question.call.argv else ""
    handler = _PROGRAMS.get(program, _unknown)
    if slurm_words.asks_version(question.call.argv):
        handler = slurm_words.version
    try:
        async with asyncio.timeout(ANSWER_WITHIN_S):
            answer = await handler(question)
    except WrongQuestion as error:
        await _refuse(stream, f"{program[:80]}: {error}", error.code)
    except WrongError as error:
        await _refuse(stream, f"{program}: error: {error}", 1)
    else:
        await stream.write(STDOUT, answer.out.encode())
        await stream.close(exit_code=answer.code)


async def _unknown(_question: Question) -> Answer:
    raise WrongQuestion(USAGE, "it cannot be asked for in a container")


async def _refuse(stream: Stream, why: str, code: int) -> None:
    await stream.write(STDERR, f"{why}\n".encode())
    await stream.close(exit_code=code)
