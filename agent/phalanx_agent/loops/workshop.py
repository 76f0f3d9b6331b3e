"""What keepers share: the engine, the host's rooms, and what is fetched once for many kernels."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterator, Mapping
from contextlib import (
    AbstractAsyncContextManager,
    AbstractContextManager,
    asynccontextmanager,
    contextmanager,
)
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Protocol

import structlog

from phalanx_agent.core.recipe import Account, Bind, Image
from phalanx_agent.core.seen import Noted
from phalanx_agent.docker.port import ContainerFacts, Docker, EngineFacts
from phalanx_agent.host.scratch import PublicKeys
from phalanx_agent.loops.lease import Lease
from phalanx_runner.messages import Event
from phalanx_wire.ids import KernelId
from phalanx_wire.spec import Mount

_LOG = structlog.get_logger()


class Scratch(Protocol):
    """A kernel's files on its host: material in memory, the marker on disk.

    All methods raise `OSError` where the host fails.
    """

    def folder(self, kernel: KernelId) -> Path:
        """Say where the material is, or will be."""

    def public_keys(self, kernel: KernelId) -> PublicKeys | None:
        """Read the keys of whole material; None when there is none."""

    def make(self, kernel: KernelId, texts: Mapping[str, str], account: Account) -> PublicKeys:
        """Make keys, and write them with the texts by their relative names; whole or not at all."""

    def put(self, kernel: KernelId, texts: Mapping[str, str]) -> None:
        """Write texts into material that is there, each of them whole or not at all."""

    def text(self, kernel: KernelId, name: str) -> str:
        """Read a text of material that is there."""

    def write_lease(self, kernel: KernelId, until_s: float) -> None:
        """Tell the runner when all has to be over, CLOCK_BOOTTIME."""

    def lease(self, kernel: KernelId) -> float | None:
        """Read what the runner was told; None when it was told nothing."""

    def note(self, kernel: KernelId, noted: Noted) -> None:
        """Keep what the next process must know."""

    def noted(self, kernel: KernelId) -> Noted:
        """Read what was noted."""

    def begun(self, kernel: KernelId) -> str | None:
        """Tell the id of the container whose start was once begun, '' if it is not known; None when
        no start was.
        """

    def mark(self, kernel: KernelId, container_id: str) -> None:
        """Note on the disk that a container's start begins; it is there when this returns."""

    def clear(self, kernel: KernelId) -> None:
        """Remove material and marker; gone already is fine."""

    def kernels(self) -> frozenset[KernelId]:
        """List whose material or marker is there."""


class LogStore(Protocol):
    """The output of containers that are gone."""

    async def keep(self, kernel: KernelId, container_id: str) -> None:
        """Copy a container's whole output; had already is fine. Raises `Unavailable`."""

    def has(self, kernel: KernelId) -> bool:
        """Tell whether a whole copy is there."""


class Uploads(Protocol):
    """Archives that users have sent, fetched once per host."""

    async def fetch(self, digest: str) -> None:
        """Have it on this host.

        Raises:
            Unavailable: not now.
            Refused: the manager has no such archive.
        """

    def chunks(self, digest: str, account: Account) -> AsyncIterator[bytes]:
        """Read it as a tar archive to unpack at `/`, owned by the account."""


class RunnerLine(Protocol):
    """The line to one runner, as `RunnerChannel` is."""

    @property
    def connected(self) -> bool:
        """Tell whether the runner is there."""

    def send(self, command: bytes) -> bool:
        """Tell it something; False when nobody is there."""

    def recheck(self) -> None:
        """Look again at who waits, now that the container's pid is known."""


Listen = Callable[
    [Path, Callable[[], int | None], Callable[[Event], None]],
    AbstractAsyncContextManager[RunnerLine],
]

AskDoor = Callable[[KernelId, Path], AbstractContextManager[None]]
"""Listens to what the container with this folder asks. Raises `OSError`."""


IMAGE_KNOWN_S: Final = 1.0
"""A tag may be moved at any time; a gang that asks within a second may still get one answer."""


class Once:
    """Lets one of many do a thing that serves all of them, such as pulling an image."""

    def __init__(self) -> None:
        self._locks: dict[str, tuple[asyncio.Lock, int]] = {}

    @asynccontextmanager
    async def alone(self, key: str) -> AsyncIterator[None]:
        """Wait until nobody else is inside with this key."""
        lock, users = self._locks.get(key, (asyncio.Lock(), 0))
        self._locks[key] = (lock, users + 1)
        try:
            async with lock:
                yield
        finally:
            lock, users = self._locks[key]
            if users == 1:
                del self._locks[key]
            else:
                self._locks[key] = (lock, users - 1)


class Waiting:
    """Those who wait for the same thing, and what was last said of it."""

    def __init__(self) -> None:
        self._said = ""
        self._told: list[Callable[[str], None]] = []

    @contextmanager
    def told(self, progress: Callable[[str], None]) -> Iterator[None]:
        """Tell somebody how far it is, as long as the block lasts."""
        if self._said:
            progress(self._said)
        self._told.append(progress)
        try:
            yield
        finally:
            self._told.remove(progress)

    def __bool__(self) -> bool:
        """Tell whether anybody waits."""
        return bool(self._told)

    def say(self, detail: str) -> None:
        """Tell everybody."""
        self._said = detail
        for progress in self._told:
            progress(detail)


@dataclass(slots=True)
class Workshop:
    """Everything that a keeper works with.

    Attributes:
        bundle: the runner's folder on this host.
        judge_mounts: says what of the user's mounts is bound. Raises `Refused` and `OSError`.
        check_ports: tries whether a container can have ports of the host. Raises `Refused`.
        lives: tells whether a process of this host is there.
        mounts_hold: tells whether the container of a process has them from where they were judged.
        end_remains: ends what a container that does not run has left below its engine, by its id.
            Raises `RemainsStay`.
        silent: tells which of some hosts do not answer, by their addresses.
        account: finds out who a container's user is. Raises `Unavailable` and `Refused`.
        signal_tasks: sends the tasks of a kernel's steps a signal; how many there are.
        clock: seconds of CLOCK_BOOTTIME: never set, and going on while the host is suspended.
        lease: by the same clock.
        egress_subnet: where containers' way out is numbered; empty until the manager is known.
        shortfalls: what containers get less of here than they should, as sentences.
        wall: Unix seconds.
        run_folder: given where the engine has its layers, and what it has told of where it keeps
            what it has while it runs, finds the latter again if it has told nothing yet.
        confine: keeps a container, by its id, its first process and the way out's subnet, from what
            all containers of the host have in common. Raises `OSError`.
        engine_gone_at: when the engine last stopped to answer, Unix seconds; 0 for never.
    """

    docker: Docker
    scratch: Scratch
    logs: LogStore
    uploads: Uploads
    listen: Listen
    ask_door: AskDoor
    bundle: str
    judge_mounts: Callable[[tuple[Mount, ...]], tuple[Bind, ...]]
    check_ports: Callable[[tuple[int, ...]], None]
    lives: Callable[[int], bool]
    mounts_hold: Callable[[int, tuple[Bind, ...]], bool]
    end_remains: Callable[[str], Awaitable[None]]
    silent: Callable[[Collection[str]], Awaitable[frozenset[str]]]
    account: Callable[[Image, str], Awaitable[Account]]
    signal_tasks: Callable[[KernelId, int], int]
    clock: Callable[[], float]
    lease: Lease
    egress_subnet: str = ""
    shortfalls: tuple[str, ...] = ()
    wall: Callable[[], float] = time.time
    run_folder: Callable[[str, str], str] = lambda _layers, told: told
    confine: Callable[[str, int, str], None] = lambda _id, _pid, _subnet: None
    engine_gone_at: float = 0.0
    once: Once = field(default_factory=Once)
    _images: dict[str, tuple[Image, float]] = field(default_factory=dict)
    _waiting: dict[str, Waiting] = field(default_factory=dict)
    _engine: EngineFacts | None = None

    @property
    def engine_started_at(self) -> float:
        """Unix seconds; 0 before the engine was asked."""
        return self._engine.started_at if self._engine else 0.0

    def engine_went(self) -> None:
        """The engine does not answer any more; when it does it may be another process."""
        if self._engine is not None:
            self.engine_gone_at = self.wall()
        self._engine = None

    async def know_engine(self, *, anew: bool = False) -> EngineFacts:
        """Know which engine answers; `anew` asks even if it is known.

        Raises:
            Unavailable: none does.
        """
        if self._engine is None or anew:
            self._engine = await self.docker.info()
        return self._engine

    async def inspect(self, container_id: str) -> ContainerFacts | None:
        """Look at a container; None when it is gone. Where the engine keeps what it has while it
        runs is told by that alone, and is noted at once: the next agent may find an engine that
        has lost its containers, with all that they have left.

        Raises:
            Unavailable: the engine did not say.
        """
        facts = await self.docker.inspect(container_id)
        folders = self.docker.folders()
        self.run_folder(folders.layers, folders.run)
        return facts

    async def image(self, ref: str, progress: Callable[[str], None]) -> Image:
        """Have an image on this host. Kernels that ask at the same time share one answer, and all
        of them are told how far it is.

        Raises:
            Unavailable: it is not here and cannot be had.
        """
        waiting = self._waiting.setdefault(ref, Waiting())
        try:
            with waiting.told(progress):
                return await self._image(ref, waiting.say)
        finally:
            if not waiting:
                del self._waiting[ref]

    async def _image(self, ref: str, say: Callable[[str], None]) -> Image:
        async with self.once.alone(f"image {ref}"):
            found, at = self._images.get(ref, (None, 0.0))
            if found is not None and self.clock() - at < IMAGE_KNOWN_S:
                return found
            image = await self.docker.image(ref)
            if image is None:
                say(f"It pulls the image {ref}.")
                image = await self.docker.pull(ref, say)
            now = self.clock()
            fresh = {r: kept for r, kept in self._images.items() if now - kept[1] < IMAGE_KNOWN_S}
            self._images = {**fresh, ref: (image, now)}
            return image

    async def have_egress(self) -> None:
        """Have the host's way out of containers.

        Raises:
            Unavailable: it could not be made.
        """
        async with self.once.alone("egress"):
            if self.egress_subnet:
                await self.docker.ensure_egress(self.egress_subnet)

    async def connect(self, container_id: str, pid: int | None) -> None:
        """Attach the way out to a container that runs, if it is to have one, and confine it; done
        already is fine.

        Raises:
            Unavailable: the engine could not.
        """
        await self.docker.connect(container_id)
        if pid is None:
            return
        try:
            self.confine(container_id, pid, self.egress_subnet)
        except OSError as error:  # an older kernel: it runs all the same
            _LOG.warning("container.wide", container=container_id[:12], why=str(error))
