"""What a keeper can do for its kernel: the operations of `core.step`, each safe to do twice."""

from __future__ import annotations

import signal
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import replace
from types import TracebackType
from typing import Final, Self, assert_never

import structlog

from phalanx_agent.core import recipe, ssh_files
from phalanx_agent.core.fence import ENGINE_KILL_S, fence
from phalanx_agent.core.recipe import Account, Image, Place
from phalanx_agent.core.refused import Refused
from phalanx_agent.core.seen import Absent, Created, Failure
from phalanx_agent.core.step import Op
from phalanx_agent.docker.port import Conflict, ContainerFacts, Unavailable
from phalanx_agent.host.remains import RemainsStay
from phalanx_agent.loops import neighbours, noting
from phalanx_agent.loops.case import Case
from phalanx_agent.loops.workshop import RunnerLine, Workshop
from phalanx_runner import messages
from phalanx_wire.lifecycle import KernelState

_LOG = structlog.get_logger()

RUNNER_GRACE_S: Final = 2.0
"""The runner kills at the end of the grace; the agent does a little later, should it not."""

FAILED_GRACE_S: Final = 2.0
"""For a runner whose start has failed: nothing of the user's runs yet."""

KILL_AGAIN_S: Final = 5.0

RENEWALS: Final = 100
"""The runner is told of a longer lease when it has grown by this part of the whole."""


class Deeds:
    """The hands of one keeper, and its line to the runner."""

    def __init__(
        self, case: Case, workshop: Workshop, heard: Callable[[messages.Event], None]
    ) -> None:
        self._case = case
        self._workshop = workshop
        self._heard = heard
        self._open = AsyncExitStack()
        self._line: RunnerLine | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._open.aclose()

    @property
    def connected(self) -> bool:
        """Whether the runner is there."""
        return self._line is not None and self._line.connected

    async def look(self) -> None:
        """Ask the engine for the container; its pid lets the runner in that waits at the door. An
        engine that has lost its folder has no container, and that may run all the same: it has
        ended when this returns.

        Raises:
            Unavailable: it was not answered, or what is lost does not end; the case stays stale.
        """
        case = self._case
        case.stale = False  # what happens from now on rings again
        try:
            facts = await self._facts()
            if facts is None and case.container_id:
                await self._end_remains()
            case.found(facts)
        except BaseException:
            case.stale = True
            raise
        if self._line is not None:
            self._line.recheck()

    async def _facts(self) -> ContainerFacts | None:
        """Find the container by its id, or by its kernel where the id was never told."""
        case = self._case
        if case.container_id:
            return await self._workshop.inspect(case.container_id)
        found = (await self._workshop.docker.inventory()).containers
        return next((facts for facts in found if facts.kernel == case.kernel), None)

    async def listen(self) -> None:
        """Open the doors for the runner and for questions; its material is there."""
        if self._line is None:
            kernel = self._case.kernel
            folder = self._workshop.scratch.folder(kernel)
            self._open.enter_context(self._workshop.ask_door(kernel, folder))
            self._line = await self._open.enter_async_context(
                self._workshop.listen(folder, lambda: self._case.pid, self._heard)
            )

    async def do(self, op: Op) -> None:
        """Do it, and note in the case what came of it.

        Raises:
            Unavailable: the engine or the manager could not; try again.
            Refused: it can never be done.
            OSError: the host failed.
        """
        case = self._case
        match op:
            case Op.GET_IMAGE:
                await self._know_image()
            case Op.MAKE_MATERIAL:
                await self._make_material()
            case Op.CREATE:
                await self._create()
            case Op.FILL:
                await self._fill()
            case Op.TRUST:
                await neighbours.reach(case, self._workshop)
                await self._trust()
            case Op.MARK:
                self._workshop.scratch.mark(case.kernel, case.container_id)
                case.seen = replace(case.seen, marked=True)
            case Op.START:
                await self._start()
            case Op.CONNECT:
                await self._connect()
            case Op.MESH if not await self._mounts_hold():
                await self._workshop.docker.kill(case.container_id, "SIGKILL")
                await self.look()
            case Op.MESH:
                await self._mesh()
            case Op.RELEASE:
                await self._have_way_out()
                self._ask(release=self._send(messages.start()))
            case Op.NOTIFY:
                noting.notify(case, self._workshop, self._send)
            case Op.PING:
                self._send(messages.ping())  # a connection that is lost begins with all again
                self._ask(ping=True)
            case Op.DISMISS:
                self._ask(dismiss=self._send(messages.exit()))
            case Op.STOP:
                await self._stop()
            case Op.KILL:
                await self._kill()
            case Op.KEEP_LOGS:
                await self._workshop.logs.keep(case.kernel, case.container_id)
                case.seen = replace(case.seen, kept=True)
            case Op.REMOVE_CONTAINER:
                await self._remove()
            case Op.CLEAR:
                await self._clear()
            case _:
                assert_never(op)

    # ---------------------------------------------------------------- making

    async def _know_image(self) -> tuple[Image, Account]:
        """Have the image on this host, and know who its user is."""
        case = self._case
        if case.image is not None and case.account is not None:
            return case.image, case.account
        ref = case.aim.assignment.image
        image = await self._workshop.image(ref, case.say)
        account = await self._workshop.account(
            image, recipe.effective_user(case.aim.assignment, image)
        )
        case.image, case.account = image, account
        return image, account

    async def _make_material(self) -> None:
        case = self._case
        _, account = await self._know_image()
        assignment, gang = case.aim.assignment, case.aim.gang
        try:
            conf = recipe.runner_conf(assignment, gang).render()
            own = recipe.own_member(assignment, gang)
        except ValueError as error:
            raise Refused(f"{error}.") from error
        login = recipe.login(account)
        texts = {
            "runner.conf": conf,
            "hosts": ssh_files.hosts(gang.members, own.rank),
            "hostfile": ssh_files.hostfile(gang.members),
            recipe.BASH_ENV_FILE: recipe.BASH_ENV,
            "ssh/ssh_config": ssh_files.ssh_config(gang.members, login),
            "ssh/dropin.conf": ssh_files.ssh_dropin(gang.members, login),
            "ssh/known_hosts": "",
            ssh_files.AUTHORIZED_KEYS: "",
        }
        passwd = recipe.passwd(assignment, account)
        if passwd is not None:
            texts["passwd"] = passwd
        case.keys = self._workshop.scratch.make(case.kernel, texts, account)
        case.seen = replace(case.seen, material=True)
        case.fence = None
        await self.listen()

    async def _create(self) -> None:
        case, workshop = self._case, self._workshop
        image, account = await self._know_image()
        assignment, gang = case.aim.assignment, case.aim.gang
        place = Place(
            network_id=case.aim.network_id,
            bundle=workshop.bundle,
            material=str(workshop.scratch.folder(case.kernel)),
            mounts=workshop.judge_mounts(assignment.mounts),
        )
        workshop.check_ports(assignment.ports)
        made = recipe.container(assignment, gang, image, account, place)
        if gang.egress:
            await workshop.have_egress()
        try:
            container_id = await workshop.docker.create_container(made)
        except Conflict as error:
            raise Refused(str(error)) from error
        except Unavailable as error:
            case.unsure = error.kind == "unknown"
            raise
        case.warnings = workshop.shortfalls
        case.now(Created(container_id))

    async def _fill(self) -> None:
        case, workshop = self._case, self._workshop
        digest = case.aim.assignment.upload
        _, account = await self._know_image()
        async with workshop.once.alone(f"upload {digest}"):
            case.say("It fetches the uploaded files.")
            await workshop.uploads.fetch(digest)
        chunks = workshop.uploads.chunks(digest, account)
        await workshop.docker.write_archive(case.container_id, "/", chunks)
        case.seen = replace(case.seen, filled=True)

    # ---------------------------------------------------------------- starting

    async def _trust(self) -> None:
        case = self._case
        members, scratch = case.members, self._workshop.scratch
        before = scratch.text(case.kernel, ssh_files.AUTHORIZED_KEYS)
        texts = {
            "ssh/known_hosts": ssh_files.known_hosts(members),
            ssh_files.AUTHORIZED_KEYS: ssh_files.authorized_keys(members, before),
        }
        scratch.put(case.kernel, texts)
        case.seen = replace(case.seen, trusted=True)

    def authorize(self, key: str) -> None:
        """Let a key from outside the session into the container's ssh server.

        Raises:
            OSError: the host failed.
        """
        kernel, scratch = self._case.kernel, self._workshop.scratch
        before = scratch.text(kernel, ssh_files.AUTHORIZED_KEYS)
        after = ssh_files.with_guest(before, key)
        if after != before:
            scratch.put(kernel, {ssh_files.AUTHORIZED_KEYS: after})

    def renew(self) -> None:
        """Let the container go on for as long as the manager's newest answer allows."""
        case, answered_s = self._case, self._workshop.lease.answered_s
        assignment = case.aim.assignment
        if answered_s is None:
            return
        wanted = fence(answered_s, assignment.lost_after_s, assignment.grace_s)
        least_s = assignment.lost_after_s / RENEWALS
        if case.fence is None or wanted.kill_at - case.fence.kill_at >= least_s:
            self._workshop.scratch.write_lease(case.kernel, wanted.kill_at)
            case.fence = wanted

    async def _start(self) -> None:
        """Start it; the look that follows tells its pid, by which its runner is known."""
        self.renew()  # before: a start that the engine delays may find its lease over
        try:
            await self._workshop.docker.start(self._case.container_id)
        except Unavailable as error:
            if error.kind != "answered" or not await self._tells_why():
                raise
        self._case.stale = True

    async def _tells_why(self) -> bool:
        """Look whether the container itself keeps why it did not start, or has started after all;
        an engine that does not answer now says neither.
        """
        try:
            await self.look()
        except Unavailable:
            return False
        container = self._case.seen.container
        return not isinstance(container, Created) or container.failure != ""

    async def _mounts_hold(self) -> bool:
        """Look at the user's mounts after they were made and before anything of the user's runs."""
        case, workshop = self._case, self._workshop
        mounts = case.aim.assignment.mounts
        if not mounts or case.pid is None:
            return True
        try:
            binds = workshop.judge_mounts(mounts)
            holds = workshop.mounts_hold(case.pid, binds)
            case.folders = {bind.target: bind.place for bind in binds if bind.place}
        except Refused as error:
            _LOG.error("mount.refused-late", kernel=case.kernel, why=str(error))
            holds = False
        if not holds:
            _LOG.error("mount.changed", kernel=case.kernel, container=case.container_id[:12])
            end = Failure("start-failed", "A folder to mount was exchanged; nothing was run.")
            case.seen = replace(case.seen, runner=replace(case.seen.runner, failure=end))
        return holds

    async def _mesh(self) -> None:
        noting.lives(self._case, self._workshop)
        await self._have_way_out()
        self._ask(mesh=self._send(messages.mesh()))

    async def _connect(self) -> None:
        case = self._case
        await self._have_way_out()
        case.seen = replace(case.seen, outside=True)

    async def _have_way_out(self) -> None:
        """Attach the way out; it is made again where somebody has removed it while it was unused,
        as `docker system prune` does.
        """
        if self._case.aim.gang.egress:
            await self._workshop.have_egress()
        await self._workshop.connect(self._case.container_id, self._case.pid)

    def signal(self, number: int) -> bool:
        """Send the command a signal; False when the runner is not there."""
        return self._send(messages.signal(number))

    def _send(self, command: bytes) -> bool:
        return self._line is not None and self._line.send(command)

    def _ask(self, **asked: bool) -> None:
        self._case.seen = replace(self._case.seen, asked=replace(self._case.seen.asked, **asked))

    # ---------------------------------------------------------------- ending

    async def _stop(self) -> None:
        case = self._case
        cancelled = case.aim.goal >= KernelState.STOPPING
        fenced = case.seen.noted.fenced or (case.seen.lapsed and not cancelled)
        grace_s = case.aim.assignment.grace_s if cancelled or fenced else FAILED_GRACE_S
        now, later_s = self._workshop.clock(), RUNNER_GRACE_S
        if case.seen.lapsed and case.fence is not None:
            grace_s, later_s = max(0.0, min(grace_s, case.fence.kill_at - now)), ENGINE_KILL_S
        if fenced and not case.seen.noted.fenced:
            noting.fenced(case, self._workshop)
        self._ask(stop=True, cancelled=cancelled)
        case.overdue_at = now + grace_s
        case.publish()
        if self._send(messages.stop(signal.SIGTERM, int(grace_s * 1000))):
            case.overdue_at += later_s
        else:
            await self._workshop.docker.kill(case.container_id, "SIGTERM")

    async def _kill(self) -> None:
        case = self._case
        case.overdue_at = self._workshop.clock() + KILL_AGAIN_S
        await self._workshop.docker.kill(case.container_id, "SIGKILL")
        await self.look()

    async def _remove(self) -> None:
        """Remove the container; before that what its engine does not know of, which nobody could
        tell from somebody else's afterwards.
        """
        case = self._case
        if case.is_torn:
            await self._end_remains()
        await self._workshop.docker.remove(case.container_id)
        if isinstance(case.seen.container, Created):
            self._ask(cancelled=True)  # it was begun, and was not to run any more
        case.found(None)

    async def _end_remains(self) -> None:
        container_id = self._case.container_id
        try:
            await self._workshop.end_remains(container_id)
        except RemainsStay as error:
            what, doing = f"container {container_id[:12]}", "ending what is left of it"
            raise Unavailable(what, doing, str(error), kind="not_sent") from error

    async def _clear(self) -> None:
        case = self._case
        self._line = None
        await self._open.aclose()
        self._workshop.scratch.clear(case.kernel)
        case.seen = replace(case.seen, material=False, marked=False, container=Absent())
