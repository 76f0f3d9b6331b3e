"""What the loops ask of a container engine; `engine` answers by Docker, a fake in the tests."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final, Literal, Protocol

from phalanx_agent.core.recipe import ContainerRecipe, Image
from phalanx_wire.api import LogLine
from phalanx_wire.control import Network, SwarmReport
from phalanx_wire.ids import KernelId, SessionId

UnavailableKind = Literal["not_sent", "unknown", "answered"]

REMOVED: Final = (404, 409)
"""Statuses of an answer about the output of a container that is gone, or on its way."""


class Unavailable(Exception):  # noqa: N818 - a state of the world
    """The engine did not do what it was asked.

    Attributes:
        what: the thing concerned, e.g. `image alpine:3.19`.
        doing: what was tried, e.g. `pulling it`.
        hint: the engine's words, or what to look at, as a sentence.
        kind: whether the engine never got the call, may have done it, or has answered no.
        status: of its answer; 0 without one.
        passing: it may be otherwise a little later, whatever the status says.
    """

    def __init__(
        self,
        what: str,
        doing: str,
        hint: str,
        *,
        kind: UnavailableKind = "unknown",
        status: int = 0,
        passing: bool = False,
    ) -> None:
        super().__init__(f"{what}: {doing} failed: {hint}")
        self.what = what
        self.doing = doing
        self.hint = hint
        self.kind = kind
        self.status = status
        self.passing = passing


@dataclass(frozen=True, slots=True)
class EngineFacts:
    """An engine. `started_at` is in Unix seconds; `problem` as in `control.Engine`."""

    version: str
    api: str
    started_at: float
    cpu_count: int
    mem_bytes: int
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Folders:
    """Where an engine has what it keeps while it runs, and where it mounts containers' layers.
    Empty while it has not told, or where it does otherwise.
    """

    run: str = ""
    layers: str = ""


@dataclass(frozen=True, slots=True)
class Possessions:
    """All that an engine has, whoever had it made.

    Attributes:
        networks, bridges: ids of networks, and names of the bridges that some are told to have.
        containers, sandboxes: ids of containers, and of the network namespaces of those that have
            been looked at.
    """

    networks: frozenset[str] = frozenset()
    bridges: frozenset[str] = frozenset()
    containers: frozenset[str] = frozenset()
    sandboxes: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class ContainerFacts:
    """One container with our cluster's label.

    Attributes:
        status: Docker's: created, running, paused, restarting, removing, exited or dead.
        error: Docker's words on a start that failed; empty otherwise.
        pid: of its first process on the host; 0 while it does not run.
        started_at, finished_at: Unix seconds; 0 before.
    """

    id: str
    name: str
    kernel: KernelId
    session: SessionId
    attempt: int
    spec_hash: str
    status: str
    exit_code: int = 0
    oom_killed: bool = False
    error: str = ""
    pid: int = 0
    started_at: float = 0.0
    finished_at: float = 0.0


@dataclass(frozen=True, slots=True)
class NetworkFacts:
    """One network with our cluster's label."""

    id: str
    name: str
    session: SessionId
    attempt: int
    driver: str
    subnet: str


@dataclass(frozen=True, slots=True)
class Inventory:
    """All containers and networks with our cluster's label."""

    containers: tuple[ContainerFacts, ...]
    networks: tuple[NetworkFacts, ...]


@dataclass(frozen=True, slots=True)
class EngineEvent:
    """Something happened to a container of ours: look at it."""

    container_id: str
    kernel: KernelId
    action: str


@dataclass(frozen=True, slots=True)
class Broke:
    """The stream of events has broken: the engine may have gone away."""


@dataclass(frozen=True, slots=True)
class Reopened:
    """The stream of events begins (again): what happened before has to be listed."""


class Conflict(Exception):  # noqa: N818 - a state of the world
    """A container of the wanted name exists and is another one; the text is a sentence."""


class ExecSession(Protocol):
    """A command that runs in a container."""

    async def read(self) -> tuple[int, bytes] | None:
        """Give the next chunk as (channel, data); None at the end."""

    async def write(self, data: bytes) -> None:
        """Send standard input."""

    async def eof(self) -> None:
        """End standard input."""

    async def resize(self, rows: int, columns: int) -> None:
        """Tell the size of the terminal."""

    async def pid(self) -> int:
        """Give its first process, once there is one; 0 when it has ended."""

    async def exit_code(self) -> int:
        """Give the code once `read` has ended."""

    async def kill(self) -> None:
        """End the command and close the connection; `Unavailable` where it may run on."""


class Docker(Protocol):
    """The engine of one host. Every call is bounded in time and raises `Unavailable`.

    The engine knows the cluster whose label it puts on what it makes, and sees nothing else.
    """

    async def info(self) -> EngineFacts:
        """Ask what it is."""

    async def inventory(self) -> Inventory:
        """List what is ours."""

    async def image(self, ref: str) -> Image | None:
        """Look an image up on this host."""

    async def pull(self, ref: str, progress: Callable[[str], None]) -> Image:
        """Get an image from its registry; `progress` is told sentences."""

    async def user_files(self, image_id: str) -> tuple[str, str]:
        """Read an image's passwd and group files; empty where it has none."""

    async def create_network(self, session: SessionId, attempt: int, network: Network) -> str:
        """Make a private network, or find it made; its id. It has its subnet then."""

    async def remove_network(self, network_id: str) -> None:
        """Remove a network; gone already is fine."""

    async def ensure_egress(self, subnet: str) -> str:
        """Make the host's way out of containers, or find it made; its id."""

    async def create_container(self, recipe: ContainerRecipe) -> str:
        """Make a container, or find the same one made; its id.

        Raises:
            Conflict: another one has its name.
        """

    async def start(self, container_id: str) -> None:
        """Start it on its private network; running already is fine."""

    async def connect(self, container_id: str) -> None:
        """Attach the host's way out to a running one, if it is to have it; done already is fine."""

    async def inspect(self, container_id: str) -> ContainerFacts | None:
        """Look at one; None when it is gone."""

    async def kill(self, container_id: str, signal: str) -> None:
        """Signal its first process; ended already is fine."""

    async def remove(self, container_id: str) -> None:
        """Kill and remove it; gone already is fine."""

    def events(self) -> AsyncIterator[EngineEvent | Broke | Reopened]:
        """Follow what happens, for ever: it opens again by itself."""

    def logs(
        self,
        container_id: str,
        *,
        session: str = "",
        since_ns: int = 0,
        tail: int = -1,
        follow: bool = False,
    ) -> AsyncIterator[Iterator[LogLine]]:
        """Read its output, a small piece at a time. A piece is taken apart as it is iterated:
        wholly, before the next is asked for. Readers are let in going round by session.
        """

    async def exec(
        self,
        container_id: str,
        command: tuple[str, ...],
        *,
        tty: bool,
        stdin: bool,
        env: Mapping[str, str] | None = None,
        begins: Callable[[str], None] | None = None,
    ) -> ExecSession:
        """Run a command in it.

        Args:
            env: is laid over the container's own.
            begins: told the command's id before it starts; what it raises keeps it from that.
        """

    async def end_exec(self, exec_id: str) -> None:
        """End a command with all that it has started; one that has ended, or that is not known
        any more, is fine.
        """

    def read_archive(self, container_id: str, path: str) -> AsyncIterator[bytes]:
        """Read a path of it as a tar archive."""

    async def write_archive(
        self, container_id: str, path: str, chunks: AsyncIterator[bytes]
    ) -> None:
        """Unpack a tar archive into an existing folder of it."""

    async def swarm(self) -> SwarmReport:
        """Ask for its part in a swarm."""

    async def swarm_init(self, address: str) -> None:
        """Begin a swarm."""

    async def swarm_join(self, address: str, remotes: tuple[str, ...], token: str) -> None:
        """Join a swarm."""

    async def swarm_leave(self, entered_at: float) -> None:
        """Take it out of its swarm, which it has entered at that time (Unix seconds) at the
        earliest, and away the bridge it has made itself for that; in none already is fine.
        """

    async def clear(self) -> None:
        """Remove all that is ours and local: containers, networks, the way out."""

    @property
    def root(self) -> str:
        """Where it has all that outlives it; empty until it was asked what it is."""

    def folders(self) -> Folders:
        """Tell where it has what, as far as its own words have told."""

    async def possessions(self, *, sandboxes: bool) -> Possessions:
        """List all that it has, anybody's; sandboxes take a look at each container."""

    async def swarm_canary(self, *, ours: bool) -> None:
        """Make and remove a network, which proves that the swarm can; where it is ours, forget
        members that were replaced, and see that enough of them are managers.
        """
