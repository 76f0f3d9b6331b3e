"""A container engine in memory: the double at the seam of `docker.port`.

It does what it is asked at once. A test can make calls fail (`failures`), hold them back (`held`),
and end or break containers behind the agent's back.
"""

# ruff: noqa: ARG002 - a double takes what its port takes
from __future__ import annotations

import asyncio
from collections import defaultdict, deque
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace

from phalanx_agent.core.recipe import ContainerRecipe, Image
from phalanx_agent.docker.passing import passes
from phalanx_agent.docker.port import (
    Broke,
    Conflict,
    ContainerFacts,
    EngineEvent,
    EngineFacts,
    Folders,
    Inventory,
    NetworkFacts,
    Possessions,
    Reopened,
    Unavailable,
)
from phalanx_wire import names
from phalanx_wire.api import LogLine
from phalanx_wire.control import Network, SwarmReport
from phalanx_wire.ids import KernelId, SessionId

ALPINE = Image("sha256:" + "a" * 64, env=("PATH=/usr/bin:/bin",), command=("sh",))


def refusal(status: int, hint: str = "no") -> Unavailable:
    """An engine's answer that is no success."""
    how = passes(hint)
    return Unavailable("container x", "doing it", hint, kind="answered", status=status, passing=how)


@dataclass
class FakeExec:
    """A command that ends with `code` after it has said `output`; `cat` with its input."""

    output: deque[tuple[int, bytes]]
    code: int = 0
    written: bytearray = field(default_factory=bytearray)
    sizes: list[tuple[int, int]] = field(default_factory=list)
    killed: bool = False
    endless: bool = False
    number: int = 0
    failing: list[Unavailable] = field(default_factory=list)
    _eof: asyncio.Event = field(default_factory=asyncio.Event)

    async def read(self) -> tuple[int, bytes] | None:
        if self.output:
            return self.output.popleft()
        if self.endless:
            await self._eof.wait()
            self.endless = False
            return (1, bytes(self.written))
        return None

    async def write(self, data: bytes) -> None:
        self.written += data

    async def eof(self) -> None:
        self._eof.set()

    async def resize(self, rows: int, columns: int) -> None:
        self.sizes.append((rows, columns))

    async def pid(self) -> int:
        return self.number

    async def exit_code(self) -> int:
        return self.code

    async def kill(self) -> None:
        if self.failing:
            raise self.failing.pop()
        self.killed = True
        self._eof.set()


class FakeEngine:
    """One host's engine. `calls` has the names of all calls that got through."""

    def __init__(self) -> None:
        self.images: dict[str, Image] = {"alpine": ALPINE}
        self.registry: dict[str, Image] = {}
        self.containers: dict[str, ContainerFacts] = {}
        self.recipes: dict[str, ContainerRecipe] = {}
        self.networks: dict[str, NetworkFacts] = {}
        self.output: dict[str, list[LogLine]] = defaultdict(list)
        self.files: dict[str, bytes] = {}
        self.given: list[str] = []
        self.calls: list[str] = []
        self.failures: dict[str, deque[Unavailable]] = defaultdict(deque)
        self.held: dict[str, asyncio.Event] = {}
        self.signals: list[tuple[str, str]] = []
        self.execs: deque[FakeExec] = deque()
        self.known_execs: dict[str, FakeExec] = {}
        self.executed: list[tuple[str, ...]] = []
        self.exec_envs: list[dict[str, str]] = []
        self.started: Callable[[ContainerFacts], None] = lambda _facts: None
        self.start_error = ""
        self.survives_term = True
        self.booted_at = 1.0
        self.swarm_report = SwarmReport()
        self.passwd = ""
        self.egress = ""
        self.connected: set[str] = set()
        self.places = Folders()
        self.root = ""
        self.has = Possessions()
        self._clock = 100.0
        self._networks_made = 0
        self._events: asyncio.Queue[EngineEvent | Broke | Reopened] = asyncio.Queue()

    # ---------------------------------------------------------------- behind the agent's back

    def end(self, container_id: str, code: int = 0, *, oom: bool = False) -> None:
        """The container ends."""
        facts = self.containers[container_id]
        if facts.status != "running":
            return
        self.containers[container_id] = replace(
            facts,
            status="exited",
            exit_code=code,
            oom_killed=oom,
            pid=0,
            finished_at=self._now(),
        )
        self._ring(facts, "die")

    def kill_by_hand(self, container_id: str) -> None:
        """Somebody stops the container through the engine, or the engine itself is stopped."""
        self._ring(self.containers[container_id], "kill")
        self.end(container_id, 143)

    def restart(self, container_id: str) -> None:
        """Somebody ends the container and starts it again by hand."""
        facts = self.containers[container_id]
        self.containers[container_id] = replace(facts, pid=facts.pid + 1, started_at=self._now())
        self._ring(facts, "die")
        self._ring(facts, "start")

    def vanish(self, container_id: str) -> None:
        """Somebody removes the container by hand."""
        self._ring(self.containers.pop(container_id), "destroy")

    def reopen(self) -> None:
        """The stream of events breaks and begins again."""
        self._events.put_nowait(Broke())
        self._events.put_nowait(Reopened())

    def of(self, kernel: KernelId) -> ContainerFacts:
        """The container of a kernel."""
        return next(facts for facts in self.containers.values() if facts.kernel == kernel)

    def _now(self) -> float:
        """Unix seconds by the engine's clock; here each look is a second later."""
        self._clock += 1
        return self._clock

    def _reaches(self, network_id: str) -> bool:
        """Whether containers here can be attached to a network."""
        return network_id in self.networks

    def _ring(self, facts: ContainerFacts, action: str) -> None:
        self._events.put_nowait(EngineEvent(facts.id, facts.kernel, action))

    async def _call(self, name: str) -> None:
        if name in self.held:
            await self.held[name].wait()
        if self.failures[name]:
            raise self.failures[name].popleft()
        self.calls.append(name)

    # ---------------------------------------------------------------- the port

    async def info(self) -> EngineFacts:
        await self._call("info")
        return EngineFacts("20.10", "1.41", self.booted_at, 8, 8 << 30)

    async def inventory(self) -> Inventory:
        await self._call("inventory")
        return Inventory(tuple(self.containers.values()), tuple(self.networks.values()))

    async def image(self, ref: str) -> Image | None:
        await self._call("image")
        return self.images.get(ref)

    async def pull(self, ref: str, progress: Callable[[str], None]) -> Image:
        progress(f"It pulls the image {ref}: 1 of 2 MiB.")
        await self._call("pull")
        if ref not in self.registry:
            raise Unavailable(
                f"image {ref}", "pulling it", "Not there.", kind="answered", status=404
            )
        self.images[ref] = self.registry[ref]
        return self.images[ref]

    async def user_files(self, image_id: str) -> tuple[str, str]:
        await self._call("user_files")
        return self.passwd, ""

    async def create_network(self, session: SessionId, attempt: int, network: Network) -> str:
        await self._call("create_network")
        for facts in self.networks.values():
            if facts.name == network.name:
                return facts.id
        self._networks_made += 1
        made = f"{self._networks_made:064x}"
        self.networks[made] = NetworkFacts(
            made, network.name, session, attempt, network.driver, network.subnet
        )
        return made

    async def remove_network(self, network_id: str) -> None:
        await self._call("remove_network")
        if not network_id:
            raise Unavailable("object ''", "naming it", "It is no id.", kind="not_sent")
        self.networks.pop(network_id, None)

    async def ensure_egress(self, subnet: str) -> str:
        await self._call("ensure_egress")
        self.egress = subnet
        return "e" * 64

    async def create_container(self, recipe: ContainerRecipe) -> str:
        await self._call("create_container")
        for facts in self.containers.values():
            if facts.name == recipe.name:
                if facts.spec_hash != recipe.labels[names.LABEL_SPEC_HASH]:
                    raise Conflict(f"A container {recipe.name} exists and is another one.")
                return facts.id
        made = f"{0xC0 + len(self.recipes):064x}"
        labels = recipe.labels
        self.recipes[made] = recipe
        self.containers[made] = ContainerFacts(
            made,
            recipe.name,
            KernelId(labels[names.LABEL_KERNEL]),
            SessionId(labels[names.LABEL_SESSION]),
            int(labels[names.LABEL_ATTEMPT]),
            labels[names.LABEL_SPEC_HASH],
            "created",
        )
        return made

    async def start(self, container_id: str) -> None:
        await self._call("start")
        facts = self.containers[container_id]
        if facts.status != "created":
            return
        if not self._reaches(self.recipes[container_id].network_id):
            raise refusal(404, "network not found")
        if self.start_error:
            self.containers[container_id] = replace(facts, error=self.start_error)
            raise Unavailable(
                "container", "starting it", self.start_error, kind="answered", status=500
            )
        running = replace(facts, status="running", pid=4711, started_at=self._now())
        self.containers[container_id] = running
        self._ring(running, "start")
        self.started(running)

    async def connect(self, container_id: str) -> None:
        await self._call("connect")
        if self.recipes[container_id].egress:
            self.connected.add(container_id)

    async def inspect(self, container_id: str) -> ContainerFacts | None:
        await self._call("inspect")
        return self.containers.get(container_id)

    async def kill(self, container_id: str, signal: str) -> None:
        await self._call("kill")
        if container_id not in self.containers:
            return
        self.signals.append((container_id, signal))
        if signal == "SIGKILL" or (signal == "SIGTERM" and not self.survives_term):
            self.end(container_id, 137 if signal == "SIGKILL" else 143)

    async def remove(self, container_id: str) -> None:
        await self._call("remove")
        facts = self.containers.pop(container_id, None)
        if facts is not None:
            self._ring(facts, "destroy")

    async def events(self) -> AsyncIterator[EngineEvent | Broke | Reopened]:
        yield Reopened()
        while True:
            yield await self._events.get()

    async def logs(
        self,
        container_id: str,
        *,
        session: str = "",
        since_ns: int = 0,
        tail: int = -1,
        follow: bool = False,
    ) -> AsyncIterator[Iterator[LogLine]]:
        await self._call("logs")
        lines = [line for line in self.output[container_id] if line.at_ns > since_ns]
        yield iter(lines if tail < 0 else lines[len(lines) - min(tail, len(lines)) :])
        if follow:
            await asyncio.Event().wait()

    async def exec(
        self,
        container_id: str,
        command: tuple[str, ...],
        *,
        tty: bool,
        stdin: bool,
        env: Mapping[str, str] | None = None,
        begins: Callable[[str], None] | None = None,
    ) -> FakeExec:
        await self._call("exec")
        made = f"{0xE0 + len(self.known_execs):064x}"
        if begins is not None:
            begins(made)
        await self._call("exec_start")
        self.executed.append(command)
        self.exec_envs.append(dict(env or {}))
        self.known_execs[made] = self.execs.popleft()
        return self.known_execs[made]

    async def end_exec(self, exec_id: str) -> None:
        await self._call("end_exec")
        if exec_id in self.known_execs:
            await self.known_execs[exec_id].kill()

    async def read_archive(self, container_id: str, path: str) -> AsyncIterator[bytes]:
        await self._call("read_archive")
        if path not in self.files:
            raise refusal(404, f"{path} is not in the container.")
        yield self.files[path]
        self.given.append(path)

    async def write_archive(
        self, container_id: str, path: str, chunks: AsyncIterator[bytes]
    ) -> None:
        await self._call("write_archive")
        self.files[path] = b"".join([chunk async for chunk in chunks])

    async def swarm(self) -> SwarmReport:
        await self._call("swarm")
        return self.swarm_report

    def folders(self) -> Folders:
        return self.places

    async def possessions(self, *, sandboxes: bool) -> Possessions:
        await self._call("possessions")
        return self.has if sandboxes else replace(self.has, sandboxes=frozenset())

    async def swarm_init(self, address: str) -> None:
        await self._call("swarm_init")
        self.swarm_report = SwarmReport(
            "active", "s", "n", control=True, address=address, worker_token="W", manager_token="M"
        )

    async def swarm_join(self, address: str, remotes: tuple[str, ...], token: str) -> None:
        await self._call("swarm_join")
        self.swarm_report = SwarmReport("active", "s", "n2", control=token == "M", address=address)

    async def swarm_leave(self, entered_at: float) -> None:
        await self._call("swarm_leave")
        self.swarm_report = SwarmReport()

    async def clear(self) -> None:
        await self._call("clear")
        self.containers.clear()
        self.networks.clear()

    async def swarm_canary(self, *, ours: bool) -> None:
        await self._call("swarm_canary")
