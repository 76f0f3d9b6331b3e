"""All that an agent holds of one kernel: the order, what was found, and what was said of it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, replace

import msgspec
import structlog

from phalanx_agent.core.fence import Fence
from phalanx_agent.core.read import Context, report
from phalanx_agent.core.recipe import Account, Image
from phalanx_agent.core.seen import Absent, Asked, Container, Created, Ended, Seen, hear
from phalanx_agent.core.step import Needs
from phalanx_agent.docker.port import ContainerFacts
from phalanx_agent.host.scratch import PublicKeys
from phalanx_agent.loops.found import container_of
from phalanx_runner import messages
from phalanx_wire.control import Assignment, Gang, KernelReport, Member
from phalanx_wire.ids import KernelId
from phalanx_wire.lifecycle import ENDED, KernelState

_LOG = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Aim:
    """What the manager wants of one kernel.

    Attributes:
        network_id: the engine's id of the private network; empty while it is not made.
    """

    assignment: Assignment
    gang: Gang
    network_id: str

    @property
    def goal(self) -> KernelState:
        """The state to bring it to."""
        return self.assignment.goal


class Case:
    """One kernel, as its keeper knows it. Whoever changes it publishes it.

    Attributes:
        detail: what is being done for it now, as a sentence.
        image, account: known once the image has been looked up.
        pid: of the container's first process on this host, while it runs.
        stale: something may have happened to the container since the engine was last asked.
        folders: see `KernelReport`; known from when its mounts were looked at.
        unsure: there may be a container whose making was not answered.
        news: set at the next thing that is told, and then another one stands here.
        overdue_at: by the clock, when a container that was told to stop is killed.
        fence: by the clock, when it has to end, as its runner knows it too; None before its start.
    """

    def __init__(self, aim: Aim, tell: Callable[[KernelReport], None]) -> None:
        self.aim = aim
        self.seen = Seen()
        self.detail = ""
        self.keys = PublicKeys("", "")
        self.image: Image | None = None
        self.account: Account | None = None
        self.pid: int | None = None
        self.warnings: tuple[str, ...] = ()
        self.folders: dict[str, str] = {}
        self.overdue_at: float | None = None
        self.fence: Fence | None = None
        self.stale = True
        self.unsure = False
        self.news = asyncio.Event()
        self.engine_started_at = 0.0
        self.engine_gone_at = 0.0
        self._tell = tell
        self._told: KernelReport | None = None
        self._end: KernelReport | None = None

    @property
    def kernel(self) -> KernelId:
        """Its id."""
        return self.aim.assignment.kernel

    @property
    def members(self) -> tuple[Member, ...]:
        """The gang, with the own keys as this host knows them."""
        own = self.aim.assignment.host_name
        keys = self.keys
        return tuple(
            msgspec.structs.replace(member, host_key=keys.host, user_key=keys.user)
            if member.host_name == own
            else member
            for member in self.aim.gang.members
        )

    @property
    def needs(self) -> Needs:
        """What it waits for."""
        known = all(member.host_key and member.user_key for member in self.members)
        return Needs(
            upload=self.aim.assignment.upload != "",
            peers=known,
            outside=self.aim.gang.egress,
            notices=self.aim.assignment.notices,
        )

    @property
    def state(self) -> KernelState:
        """The state last told."""
        return self._told.state if self._told else KernelState.PREPARING

    @property
    def container_id(self) -> str:
        """The engine's id; empty when there is no container."""
        container = self.seen.container
        return "" if isinstance(container, Absent) else container.container_id

    @property
    def is_torn(self) -> bool:
        """Whether the engine may have died as it started the container, or as it ended it: then it
        does not know all that it has begun.
        """
        match self.seen.container:
            case Created():
                return self.seen.marked
            case Ended(started_at=began_at):
                gone_at = max(self.engine_started_at, self.engine_gone_at)
                return self.seen.vanished or began_at < gone_at
            case _:
                return False

    def found(self, facts: ContainerFacts | None) -> None:
        """Take what the engine says of the container."""
        self.pid = facts.pid or None if facts is not None else None
        self.now(container_of(facts))

    def now(self, container: Container) -> None:
        """Take what an operation has made of the container."""
        self.seen = replace(self.seen, container=container)

    def heard(self, event: messages.Event) -> None:
        """Take what the runner says. On a new connection what is unanswered is asked again."""
        asked, notified = self.seen.asked, self.seen.notified
        if isinstance(event, messages.Hello):
            asked = Asked(stop=asked.stop, cancelled=asked.cancelled, overdue=asked.overdue)
            notified = frozenset()
        runner = hear(self.seen.runner, event)
        self.seen = replace(
            self.seen, runner=runner, asked=asked, notified=notified, connected=True
        )

    def say(self, detail: str) -> None:
        """Tell what is being done for it now."""
        self.detail = detail
        self.publish()

    def publish(self) -> None:
        """Tell what is known, when it is news."""
        told = self._report()
        if told == self._told:
            return
        before, self._told = self._told, told
        news, self.news = self.news, asyncio.Event()
        news.set()
        if before is None or before.state is not told.state:
            _LOG.info(
                "kernel.state",
                kernel=told.kernel,
                before=before.state.name if before else "",
                after=told.state.name,
                cause=told.cause,
                why=told.message,
            )
        self._tell(told)

    def _report(self) -> KernelReport:
        """The end, once told, stays as it was until nothing is left."""
        assignment = self.aim.assignment
        found = report(
            self.seen,
            Context(
                kernel=assignment.kernel,
                goal=assignment.goal,
                mem_bytes=assignment.slots.mem_bytes,
                needs=self.needs,
                engine_started_at=self.engine_started_at,
                engine_gone_at=self.engine_gone_at,
                lost_after_s=assignment.lost_after_s,
                detail=self.detail,
                host_key=self.keys.host,
                user_key=self.keys.user,
                warnings=self.warnings,
                folders=self.folders,
            ),
        )
        if found.state is KernelState.REMOVED:
            return found
        if self._end is None and found.state in ENDED:
            self._end = found
        return self._end or found
