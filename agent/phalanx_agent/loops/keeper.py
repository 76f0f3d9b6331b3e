"""One kernel's keeper: compares what shall be with what is, does one thing, and looks again."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import replace
from typing import Final

import structlog

from phalanx_agent.core.fence import ENGINE_KILL_S, fence, fence_of
from phalanx_agent.core.refused import Refused
from phalanx_agent.core.seen import Absent, Created, Running, Seen
from phalanx_agent.core.step import Op, next_op
from phalanx_agent.docker.port import ContainerFacts, Unavailable
from phalanx_agent.loops.case import Aim, Case
from phalanx_agent.loops.deeds import RUNNER_GRACE_S, Deeds
from phalanx_agent.loops.found import container_of, is_final
from phalanx_agent.loops.workshop import Workshop
from phalanx_runner import messages
from phalanx_wire.control import KernelReport
from phalanx_wire.lifecycle import KernelState

_LOG = structlog.get_logger()

BACKOFF_S: Final = (0.2, 15.0)
CANCELLABLE: Final = frozenset({Op.GET_IMAGE, Op.MAKE_MATERIAL, Op.FILL, Op.TRUST, Op.START})
"""Operations that take long and may be broken off: what they leave is found and removed."""


class Keeper:
    """Keeps one kernel. `run` is its task; everything else is a quick call from outside."""

    def __init__(
        self,
        aim: Aim,
        workshop: Workshop,
        tell: Callable[[KernelReport], None],
        facts: ContainerFacts | None,
    ) -> None:
        """Args: facts: what the engine was seen to have of it."""
        self.case = Case(aim, tell)
        self._workshop = workshop
        self._first_facts = facts
        self._deeds = Deeds(self.case, workshop, self._heard)
        self._bell = asyncio.Event()
        self._loaded = False
        self._breakable: asyncio.Timeout | None = None
        self._tries = 0
        self._refusals = 0
        self._retry_at = 0.0

    # ---------------------------------------------------------------- from outside

    def aim_at(self, aim: Aim) -> None:
        """Take a new order; the old one's long work is broken off when it is in vain."""
        case = self.case
        before, case.aim = case.aim, aim
        if aim == before:
            return
        if aim.gang.members != before.gang.members:
            case.seen = replace(case.seen, trusted=False)
        self._retry_at = 0.0
        if aim.goal >= KernelState.STOPPING > before.goal and self._breakable is not None:
            self._breakable.reschedule(asyncio.get_running_loop().time())
        if case.overdue_at is not None:  # a shorter grace counts at once
            latest = self._workshop.clock() + aim.assignment.grace_s + RUNNER_GRACE_S
            case.overdue_at = min(case.overdue_at, latest)
        self._bell.set()

    def look_again(self) -> None:
        """Something may have happened to the container."""
        self.case.stale = True
        self._bell.set()

    def killed(self) -> None:
        """The engine has signalled the container; whoever asked for it, it may end by it."""
        if not self.case.seen.asked.stop:
            self.case.seen = replace(self.case.seen, killed=True)

    def compare(self, facts: ContainerFacts | None) -> None:
        """Look again if a listing of the engine differs from what is known."""
        known = self.case.seen.container
        if container_of(facts) != known:
            self.case.unsure = isinstance(known, Absent)
            self.look_again()
        elif isinstance(known, Running) and not self._lives():
            _LOG.warning("kernel.vanished", kernel=self.case.kernel, pid=self.case.pid)
            self.case.seen = replace(self.case.seen, vanished=True)
            self.look_again()

    def _lives(self) -> bool:
        """Whether the container's first process is there, as far as is known."""
        pid = self.case.pid
        return pid is None or self._workshop.lives(pid)

    def signal(self, number: int) -> bool:
        """Send the command a signal by its runner; False when that is not there."""
        return self._deeds.signal(number)

    def authorize(self, key: str) -> None:
        """Let a key from outside into its ssh server; see `Deeds.authorize`."""
        self._deeds.authorize(key)

    def renewed(self) -> None:
        """The manager has answered: it may go on for longer, or begin."""
        seen, ends = self.case.seen, self.case.fence
        over = ends is not None and self._workshop.clock() >= ends.kill_at
        begun = seen.material and seen.marked and isinstance(seen.container, Created | Running)
        try:
            if begun and not over:
                self._deeds.renew()
        except OSError as error:
            _LOG.error("lease.not-written", kernel=self.case.kernel, why=str(error))
        if over or not seen.leased:
            self._bell.set()

    def _heard(self, event: messages.Event) -> None:
        self.case.heard(event)
        self.case.publish()
        self._bell.set()

    # ---------------------------------------------------------------- its task

    async def run(self) -> None:
        """Keep the kernel, until cancelled."""
        self._loaded, self.case.stale = False, True
        self._deeds = Deeds(self.case, self._workshop, self._heard)
        async with self._deeds:
            while True:
                try:
                    await self._turn()
                except Unavailable as error:
                    self._failed(error, final=self._in_vain(error))
                except Refused as error:
                    self._refuse(str(error), error.cause)
                except OSError as error:
                    self._failed(_of_the_host(error, self.case.kernel), final=False)
                await self._wait()

    async def _load(self) -> None:
        """Find again what an earlier process has left."""
        case, scratch = self.case, self._workshop.scratch
        keys = scratch.public_keys(case.kernel)
        known = case.seen.container
        begun = scratch.begun(case.kernel)
        case.seen = Seen(
            container=known,
            marked=begun is not None or case.aim.assignment.begun,
            material=keys is not None,
            kept=self._workshop.logs.has(case.kernel),
            noted=scratch.noted(case.kernel),
        )
        until_s = scratch.lease(case.kernel)
        if until_s is not None:
            assignment = case.aim.assignment
            case.fence = fence_of(until_s, assignment.lost_after_s, assignment.grace_s)
        if isinstance(known, Absent):
            case.found(self._first_facts)
            if begun and self._first_facts is None:
                case.now(Created(begun))  # what its engine has lost since may run all the same
        if keys is not None:
            case.keys = keys
            await self._deeds.listen()
        self._loaded = True

    async def _turn(self) -> None:
        """Do what is to be done, one thing after the other, until there is only waiting."""
        if not self._loaded:
            await self._load()
        while True:
            self._bell.clear()
            if self.case.stale and not await self._look():
                return
            self._refresh()
            self.case.publish()
            if self._workshop.clock() < self._retry_at:
                return
            op = next_op(self.case.aim.goal, self.case.seen, self.case.needs)
            if op is None:
                return
            await self._do(op)
            self._tries = self._refusals = 0
            self.case.detail = ""

    async def _look(self) -> bool:
        """Ask the engine for the container; False when it does not answer, which says nothing of
        the container.
        """
        case = self.case
        if case.container_id or case.unsure:
            try:
                await self._workshop.know_engine()  # an end is judged by who noted it
                self._note_engine()
                await self._deeds.look()
            except Unavailable as error:
                self._failed(error, final=False)
                return False
        case.stale = case.unsure = False
        return True

    def _note_engine(self) -> None:
        self.case.engine_started_at = self._workshop.engine_started_at
        self.case.engine_gone_at = self._workshop.engine_gone_at

    async def _do(self, op: Op) -> None:
        began = self._workshop.clock()
        scope = asyncio.timeout(None)
        try:
            async with scope:
                self._breakable = scope if op in CANCELLABLE else None
                await self._deeds.do(op)
        except TimeoutError:
            if not scope.expired():
                raise
            self.case.stale = True
        except Unavailable:
            self.case.stale = True
            raise
        finally:
            self._breakable = None
            took_ms = round((self._workshop.clock() - began) * 1000, 1)
            _LOG.debug("kernel.op", kernel=self.case.kernel, op=op.value, ms=took_ms)

    def _refresh(self) -> None:
        """Note what is not told by anybody: who is connected, and how late it is."""
        case, now = self.case, self._workshop.clock()
        lapsed = case.fence is not None and now >= case.fence.stop_at
        if lapsed and not case.seen.lapsed:
            self._lapses()
        vanished = case.seen.vanished
        if vanished and isinstance(case.seen.container, Running):
            vanished = not self._lives()
            case.overdue_at = (case.overdue_at or now) if vanished else None
        overdue = case.overdue_at is not None and now >= case.overdue_at
        case.seen = replace(
            case.seen,
            leased=self._leased(now),
            lapsed=lapsed,
            vanished=vanished,
            connected=self._deeds.connected,
            network=case.aim.network_id != "",
            image=case.image is not None,
            asked=replace(case.seen.asked, overdue=overdue),
        )

    def _leased(self, now: float) -> bool:
        """Tell whether it may be started: the manager cannot have given it up."""
        lease, assignment = self._workshop.lease, self.case.aim.assignment
        if lease.answered_s is None or not lease.goals_current:
            return False
        return now < fence(lease.answered_s, assignment.lost_after_s, assignment.grace_s).stop_at

    def _lapses(self) -> None:
        """The manager has not answered for so long that it has to end, in time."""
        case = self.case
        if case.fence is None or not isinstance(case.seen.container, Running):
            return
        _LOG.warning("kernel.fenced", kernel=case.kernel)
        self._retry_at = 0.0
        if case.overdue_at is not None:
            case.overdue_at = min(case.overdue_at, case.fence.kill_at + ENGINE_KILL_S)

    async def _wait(self) -> None:
        """Until the bell rings, or a try, a grace or the end of the lease is due."""
        now = self._workshop.clock()
        ends = self.case.fence.stop_at if self.case.fence is not None else 0.0
        due = (self._retry_at, self.case.overdue_at or 0.0, ends)
        later = [at - now for at in due if at > now]
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(min(later) if later else None):
                await self._bell.wait()

    # ---------------------------------------------------------------- failures

    def _in_vain(self, error: Unavailable) -> bool:
        """Count the engine's refusals of what was asked of it on the way up."""
        self._refusals += error.kind == "answered"
        going_up = self.case.aim.goal < KernelState.STOPPING
        return going_up and is_final(error, self._refusals)

    def _failed(self, error: Unavailable, *, final: bool) -> None:
        """Try again later, or give up."""
        self._tries += 1
        shortest, longest = BACKOFF_S
        wait_s = min(shortest * 2 ** min(self._tries - 1, 16), longest)
        self._retry_at = self._workshop.clock() + wait_s
        _LOG.warning("kernel.unavailable", kernel=self.case.kernel, why=str(error), final=final)
        container = self.case.seen.container
        if not final or isinstance(container, Running):
            self.case.say(f"{str(error).rstrip('.')}; it is tried again.")
        elif isinstance(container, Created) and self.case.seen.marked:
            self.case.now(replace(container, failure=error.hint))
            self.case.publish()
        else:
            self._refuse(str(error))

    def _refuse(self, why: str, cause: str = "refused") -> None:
        self.case.seen = replace(self.case.seen, refused=why, refused_as=cause)
        self.case.publish()


def _of_the_host(error: OSError, kernel: str) -> Unavailable:
    where = f" ({error.filename})" if error.filename else ""
    hint = f"{error.strerror or error}{where}."
    return Unavailable(f"kernel {kernel}", "using its host's files", hint, kind="not_sent")
