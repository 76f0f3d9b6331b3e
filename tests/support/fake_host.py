"""What keepers work with beside the engine, in memory: files, logs, uploads and runners."""

# ruff: noqa: ARG002 - a double takes what its port takes
from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Collection, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

from phalanx_agent.core.recipe import Account, Bind, Image
from phalanx_agent.core.refused import Refused
from phalanx_agent.core.seen import Noted
from phalanx_agent.docker.port import ContainerFacts
from phalanx_agent.host.remains import RemainsStay
from phalanx_agent.host.scratch import PublicKeys
from phalanx_agent.loops.lease import Lease
from phalanx_agent.loops.workshop import Workshop
from phalanx_runner import messages
from phalanx_runner.messages import Event, Stamp
from phalanx_wire.ids import KernelId
from phalanx_wire.spec import Mount
from tests.support.fake_engine import FakeEngine

FOR_EVER_S = 1e9


class FakeScratch:
    """Material and markers; both outlive an agent."""

    def __init__(self) -> None:
        self.texts: dict[KernelId, dict[str, str]] = {}
        self.leases: dict[KernelId, float] = {}
        self.marked: dict[KernelId, str] = {}
        self.notes: dict[KernelId, Noted] = {}
        self.failing: list[OSError] = []

    def folder(self, kernel: KernelId) -> Path:
        return Path("/material") / kernel

    def public_keys(self, kernel: KernelId) -> PublicKeys | None:
        return PublicKeys(f"host {kernel}", f"user {kernel}") if kernel in self.texts else None

    def make(self, kernel: KernelId, texts: Mapping[str, str], account: Account) -> PublicKeys:
        if self.failing:
            raise self.failing.pop()
        self.texts[kernel] = dict(texts)
        return PublicKeys(f"host {kernel}", f"user {kernel}")

    def text(self, kernel: KernelId, name: str) -> str:
        return self.texts[kernel][name]

    def put(self, kernel: KernelId, texts: Mapping[str, str]) -> None:
        self.texts[kernel].update(texts)

    def write_lease(self, kernel: KernelId, until_s: float) -> None:
        if self.failing:
            raise self.failing.pop()
        self.leases[kernel] = until_s

    def lease(self, kernel: KernelId) -> float | None:
        return self.leases.get(kernel)

    def note(self, kernel: KernelId, noted: Noted) -> None:
        if self.failing:
            raise self.failing.pop()
        self.notes[kernel] = noted

    def noted(self, kernel: KernelId) -> Noted:
        return self.notes.get(kernel, Noted())

    def begun(self, kernel: KernelId) -> str | None:
        return self.marked.get(kernel)

    def mark(self, kernel: KernelId, container_id: str) -> None:
        self.marked[kernel] = container_id

    def clear(self, kernel: KernelId) -> None:
        self.texts.pop(kernel, None)
        self.leases.pop(kernel, None)
        self.notes.pop(kernel, None)
        self.marked.pop(kernel, None)

    def kernels(self) -> frozenset[KernelId]:
        return frozenset(self.texts) | self.marked.keys()


class FakeLogs:
    """Kept output."""

    def __init__(self) -> None:
        self.kept: set[KernelId] = set()

    async def keep(self, kernel: KernelId, container_id: str) -> None:
        self.kept.add(kernel)

    def has(self, kernel: KernelId) -> bool:
        return kernel in self.kept


class FakeUploads:
    """One archive that the manager has."""

    def __init__(self) -> None:
        self.known = {"sha256:" + "1" * 64}
        self.fetched: list[str] = []

    async def fetch(self, digest: str) -> None:
        if digest not in self.known:
            raise Refused(f"The manager has no upload {digest}.")
        self.fetched.append(digest)

    async def chunks(self, digest: str, account: Account) -> AsyncIterator[bytes]:
        yield digest.encode()


class FakeRunner:
    """A runner that does as it is told at once, unless it is `stubborn` or sent to `fail`."""

    def __init__(self, engine: FakeEngine, kernel: KernelId) -> None:
        self.connected = False
        self.stubborn: set[str] = set()
        self.mesh_fails = False
        self.code = 0
        self.commands: list[bytes] = []
        self.signals: list[int] = []
        self.ring: list[Callable[[Stamp], Event] | None] = []
        self._engine = engine
        self._kernel = kernel
        self._hear: Callable[[Event], None] = lambda _event: None

    def attach(self, hear: Callable[[Event], None]) -> None:
        """An agent listens: everything is told (again)."""
        self._hear = hear
        if any(
            facts.kernel == self._kernel and facts.status == "running"
            for facts in self._engine.containers.values()
        ):
            self.connect()

    def detach(self) -> None:
        self.connected = False
        self._hear = lambda _event: None

    def connect(self) -> None:
        self.connected = True
        self._hear(messages.Hello(1, self._kernel, len(self.ring)))
        for number, make in enumerate(self.ring, 1):
            if make is not None:
                self._hear(make(Stamp(number, 0)))

    def booted(self) -> None:
        """The container runs."""
        self.connect()
        if "boot" not in self.stubborn:
            self.tell(lambda at: messages.Ready(at, 2200))

    def tell(self, make: Callable[[Stamp], Event]) -> None:
        self.ring.append(make)
        if self.connected:
            self._hear(make(Stamp(len(self.ring), 0)))

    def command_ends(self, code: int) -> None:
        """The user's command ends; the container lingers."""
        self.code = code
        self.tell(lambda at: messages.Exited(at, code, 0))

    def recheck(self) -> None:
        return

    def send(self, command: bytes) -> bool:
        if not self.connected:
            return False
        self.commands.append(command)
        op = command.split(b'"')[3].decode()
        if op in self.stubborn:
            return True
        match op:
            case "mesh" if self.mesh_fails:
                self.tell(lambda at: messages.MeshFailed(at, ("sub1",), 60_000))
            case "mesh":
                self.tell(lambda at: messages.MeshOk(at, 1))
            case "start":
                self.tell(lambda at: messages.Started(at, 7))
            case "stop":
                self.ended(143)
            case "exit":
                self.ended(self.code)
            case "signal":
                number = int(json.loads(command)["signal"])
                self.signals.append(number)
                self.tell(lambda at: messages.Signalled(at, number, 1))
            case "ping":
                self.ring.append(None)  # its answer is not told again
                self._hear(messages.Pong(Stamp(len(self.ring), 0)))
            case _:
                pass
        return True

    def ended(self, code: int) -> None:
        self.connected = False
        self._engine.end(self._engine.of(self._kernel).id, code)


class FakeHost:
    """A host whose engine, files and runners outlive its agents."""

    def __init__(self) -> None:
        self.engine = FakeEngine()
        self.scratch = FakeScratch()
        self.engine_folder = ""
        self.logs = FakeLogs()
        self.uploads = FakeUploads()
        self.runners: dict[KernelId, FakeRunner] = {}
        self.skipped = 0.0
        self.mounts_hold = True
        self.confine_fails = False
        self.confined: list[tuple[str, str]] = []
        self.remains_ended: list[str] = []
        self.hidden: frozenset[str] = frozenset()
        self.tried: tuple[str, ...] = ()
        self.answers = asyncio.Event()
        self.answers.set()
        self.remains_stay: RemainsStay | None = None
        self.lives = True
        self.taken: set[int] = set()
        self.asking: set[KernelId] = set()
        self.tasks_heard: list[tuple[KernelId, int]] = []
        self.engine.started = self._started

    def runner(self, kernel: KernelId) -> FakeRunner:
        """The runner of a kernel; it can be prepared before its container exists."""
        return self.runners.setdefault(kernel, FakeRunner(self.engine, kernel))

    def _started(self, facts: ContainerFacts) -> None:
        self.runner(facts.kernel).booted()

    @asynccontextmanager
    async def listen(
        self, folder: Path, pid: Callable[[], int | None], hear: Callable[[Event], None]
    ) -> AsyncIterator[FakeRunner]:
        runner = self.runner(KernelId(folder.name))
        runner.attach(hear)
        try:
            yield runner
        finally:
            runner.detach()

    @contextmanager
    def ask_door(self, kernel: KernelId, folder: Path) -> Iterator[None]:
        self.asking.add(kernel)
        try:
            yield
        finally:
            self.asking.discard(kernel)

    def judge(self, mounts: tuple[Mount, ...]) -> tuple[Bind, ...]:
        for mount in mounts:
            if not mount.source.startswith("/share"):
                raise Refused(f"{mount.source} may not be mounted on this host.")
        return tuple(Bind(mount.source, mount.target, mount.read_only) for mount in mounts)

    def check_ports(self, ports: tuple[int, ...]) -> None:
        for port in ports:
            if port in self.taken:
                raise Refused(f"Port {port} of the host is taken by nc (pid 7).")

    async def end_remains(self, container_id: str) -> None:
        if self.remains_stay is not None:
            raise self.remains_stay
        self.remains_ended.append(container_id)

    async def silent(self, addresses: Collection[str]) -> frozenset[str]:
        self.tried += tuple(addresses)
        await self.answers.wait()
        return self.hidden & frozenset(addresses)

    async def account(self, image: Image, user: str) -> Account:
        if user == "nobody-knows":
            raise Refused(f"The image has no user {user}.")
        return Account(int(user or 0), 0, "" if user else "root", "" if user else "/root")

    def signal_tasks(self, kernel: KernelId, number: int) -> int:
        self.tasks_heard.append((kernel, number))
        return 1

    def now(self) -> float:
        """Time goes on with the loop's, and when a test skips some."""
        return asyncio.get_running_loop().time() + self.skipped

    def workshop(self) -> Workshop:
        """What a new agent's keepers work with; its manager answers until a test says otherwise."""
        lease = Lease(self.now)
        lease.answered_s, lease.goals_current = self.now() + FOR_EVER_S, True
        return Workshop(
            docker=self.engine,
            scratch=self.scratch,
            logs=self.logs,
            uploads=self.uploads,
            listen=self.listen,
            ask_door=self.ask_door,
            bundle="/bundle",
            judge_mounts=self.judge,
            check_ports=self.check_ports,
            lives=lambda _pid: self.lives,
            mounts_hold=lambda _pid, _binds: self.mounts_hold,
            confine=self.confine,
            end_remains=self.end_remains,
            silent=self.silent,
            account=self.account,
            signal_tasks=self.signal_tasks,
            clock=self.now,
            lease=lease,
            egress_subnet="10.212.0.0/20",
            run_folder=self.run_folder,
        )

    def confine(self, container_id: str, pid: int, subnet: str) -> None:
        if self.confine_fails:
            raise OSError(1, "Operation not permitted")
        self.confined.append((container_id, subnet))

    def run_folder(self, _layers: str, told: str) -> str:
        """Note where the engine keeps what it has while it runs."""
        self.engine_folder = told or self.engine_folder
        return self.engine_folder
