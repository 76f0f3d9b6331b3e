"""Docker behind the port: one class that hands each verb to the module that knows it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final, Self

import structlog

from phalanx_agent.core.recipe import ContainerRecipe, Image
from phalanx_agent.docker import (
    clearing,
    execs,
    members,
    networks,
    possessions,
    swarm,
    userfiles,
)
from phalanx_agent.docker.call import Line, checked_id, speaking, understanding
from phalanx_agent.docker.containers import Containers, Ulimits
from phalanx_agent.docker.images import Images
from phalanx_agent.docker.moments import unix_seconds
from phalanx_agent.docker.output import Output
from phalanx_agent.docker.port import (
    Broke,
    ContainerFacts,
    EngineEvent,
    EngineFacts,
    ExecSession,
    Folders,
    Inventory,
    Possessions,
    Reopened,
    Unavailable,
)
from phalanx_agent.docker.turns import Turns
from phalanx_wire import engine_modes, names
from phalanx_wire.api import LogLine
from phalanx_wire.control import Network, SwarmReport
from phalanx_wire.ids import KernelId, SessionId

_LOG = structlog.get_logger()
_REOPEN_S: Final = (0.2, 5.0)
_OVERLAYS: Final = "overlay2"
_ACTIONS: Final = ("create", "start", "kill", "die", "oom", "destroy")


class DockerEngine:
    """See `port.Docker`. Made by `async with DockerEngine.open(...)`.

    Attributes:
        cluster: whose label is put on what is made; nothing else is seen. Known once the manager
            has welcomed the agent.
    """

    def __init__(self, line: Line, cluster: str, ulimits: Ulimits) -> None:
        self.cluster = cluster
        self._line = line
        self._images = Images(line)
        self._setting_up = Turns()
        self._containers = Containers(line, ulimits, self._setting_up)
        self._output = Output(line)
        self.root = ""
        self._layers_in = ""
        self._cleared = False
        self._egress: tuple[str, str] | None = None  # subnet and id, while it is known to be there

    @classmethod
    @asynccontextmanager
    async def open(
        cls, socket: str, cluster: str = "", ulimits: Ulimits | None = None
    ) -> AsyncIterator[Self]:
        """Connect to the engine at a socket's path; it need not be there yet."""
        line = Line(socket)
        await line.open()
        try:
            yield cls(line, cluster, ulimits or Ulimits())
        finally:
            await line.close()

    async def info(self) -> EngineFacts:
        """Ask what it is, and agree on the version to speak."""
        version = await self._line.agree()
        said = await self._line.ask("GET", "info", doing="asking for its state")
        started_at = await self._started_at()
        with understanding("engine", "asking for its state"):
            self._containers.cpu_count = int(said["NCPU"])
            self.root = str(said.get("DockerRootDir") or "")
            self._layers_in = _layers_in(said)
            return EngineFacts(
                version=version["Version"],
                api=version["ApiVersion"],
                started_at=started_at,
                cpu_count=self._containers.cpu_count,
                mem_bytes=int(said["MemTotal"]),
                problem=_problem(said.get("SecurityOptions") or ()),
            )

    async def _started_at(self) -> float:
        """When the engine came up: it makes its default bridge anew at every start. 0 where it is
        told to have none.
        """
        try:
            seen = await self._line.ask("GET", "networks/bridge", doing="asking since when it runs")
        except Unavailable as error:
            if error.kind != "answered":
                raise
            return 0.0
        with understanding("engine", "asking since when it runs"):
            return unix_seconds(seen["Created"])

    async def inventory(self) -> Inventory:
        """List what is ours. Before the first list nobody asks for anything to be made."""
        if not self._cleared:
            await userfiles.clear(self._line, self.cluster)
            self._cleared = True
        containers, private = await asyncio.gather(
            self._containers.listing(self.cluster), networks.listing(self._line, self.cluster)
        )
        for network in private:
            if network.driver == "bridge":
                self._containers.knows_network(network.id)
        return Inventory(containers, private)

    async def image(self, ref: str) -> Image | None:
        """Look an image up on this host."""
        return await self._images.find(ref)

    async def pull(self, ref: str, progress: Callable[[str], None]) -> Image:
        """Get an image from its registry."""
        return await self._images.pull(ref, progress)

    async def user_files(self, image_id: str) -> tuple[str, str]:
        """Read an image's passwd and group files; empty where it has none."""
        return await userfiles.read(self._line, self.cluster, image_id)

    async def create_network(self, session: SessionId, attempt: int, network: Network) -> str:
        """Make a private network, or find it made; its id.

        A bridge is set up on the host at once, an overlay at its first attach: one at a time. For
        each the engine takes its firewall rule for users' chains away and sets it again, and two
        that do so at once leave it there twice.
        """
        if network.driver != "bridge":
            return await networks.create(self._line, self.cluster, session, attempt, network)
        async with self._setting_up.of(network.name):
            made = await networks.create(self._line, self.cluster, session, attempt, network)
        self._containers.knows_network(made)
        return made

    async def remove_network(self, network_id: str) -> None:
        """Remove a network; gone already is fine."""
        await networks.remove(self._line, network_id)
        self._containers.forgets_network(network_id)

    async def ensure_egress(self, subnet: str) -> str:
        """Make the host's way out of containers, or find it made; its id."""
        if self._egress is None or self._egress[0] != subnet:
            async with self._setting_up.of(networks.EGRESS):
                made = await networks.ensure_egress(self._line, self.cluster, subnet)
            self._egress = (subnet, made)
        return self._egress[1]

    async def create_container(self, recipe: ContainerRecipe) -> str:
        """Make a container, or find the same one made; its id."""
        return await self._containers.create(self.cluster, recipe)

    async def start(self, container_id: str) -> None:
        """Start it on its private network; running already is fine."""
        await self._containers.start(container_id)

    async def connect(self, container_id: str) -> None:
        """Attach the host's way out to a running one, if it is to have it; done already is fine."""
        try:
            await self._containers.connect(container_id)
        except Unavailable:
            self._egress = None
            raise

    async def inspect(self, container_id: str) -> ContainerFacts | None:
        """Look at one; None when it is gone."""
        return await self._containers.inspect(container_id)

    async def kill(self, container_id: str, signal: str) -> None:
        """Signal its first process; ended already is fine."""
        await self._containers.kill(container_id, signal)

    async def remove(self, container_id: str) -> None:
        """Kill and remove it; gone already is fine."""
        await self._containers.remove(container_id)

    async def events(self) -> AsyncIterator[EngineEvent | Broke | Reopened]:
        """Follow what happens, for ever: the engine repeats nothing, so every (re)opening is told
        and the caller lists then.
        """
        wait = _REOPEN_S[0]
        while True:
            try:
                async with self._event_stream() as answer:
                    wait = _REOPEN_S[0]
                    self._egress = None  # it may have gone with the engine
                    yield Reopened()
                    with speaking("engine", "following its events"):
                        while line := await answer.content.readline():
                            if (event := _event(json.loads(line))) is not None:
                                yield event
            except Unavailable as error:
                _LOG.warning("engine.events-broke", why=str(error), again_in_s=wait)
            yield Broke()
            await asyncio.sleep(wait)
            wait = min(wait * 2, _REOPEN_S[1])

    def _event_stream(self) -> Any:
        filters = {
            "type": ["container"],
            "event": list(_ACTIONS),
            "label": [f"{names.LABEL_CLUSTER}={self.cluster}"],
        }
        return self._line.stream(
            "events", doing="following its events", params={"filters": filters}
        )

    def logs(
        self,
        container_id: str,
        *,
        session: str = "",
        since_ns: int = 0,
        tail: int = -1,
        follow: bool = False,
    ) -> AsyncIterator[Iterator[LogLine]]:
        """Read its output."""
        return self._output.lines(
            container_id, session=session, since_ns=since_ns, tail=tail, follow=follow
        )

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
        """Run a command in it."""
        return await execs.run(
            self._line, container_id, command, tty=tty, stdin=stdin, env=env, begins=begins
        )

    async def end_exec(self, exec_id: str) -> None:
        """End a command with all that it has started."""
        await execs.end(self._line, exec_id, f"command {exec_id[:12]}")

    async def read_archive(self, container_id: str, path: str) -> AsyncIterator[bytes]:
        """Read a path of it as a tar archive."""
        what = f"path {path} of container {container_id[:12]}"
        async with self._line.stream(
            f"containers/{checked_id(container_id)}/archive",
            what=what,
            doing="reading it",
            params={"path": path},
        ) as answer:
            with speaking(what, "reading it"):
                async for chunk in answer.content.iter_chunked(64 << 10):
                    yield chunk

    async def write_archive(
        self, container_id: str, path: str, chunks: AsyncIterator[bytes]
    ) -> None:
        """Unpack a tar archive into an existing folder of it."""
        what = f"path {path} of container {container_id[:12]}"
        async with self._line.stream(
            f"containers/{checked_id(container_id)}/archive",
            method="PUT",
            what=what,
            doing="writing it",
            params={"path": path, "noOverwriteDirNonDir": "1"},
            data=chunks,
        ) as answer:
            await answer.read()

    async def swarm(self) -> SwarmReport:
        """Ask for its part in a swarm."""
        return await swarm.report(self._line)

    async def swarm_init(self, address: str) -> None:
        """Begin a swarm."""
        await swarm.init(self._line, address)

    async def swarm_join(self, address: str, remotes: tuple[str, ...], token: str) -> None:
        """Join a swarm."""
        await swarm.join(self._line, address, remotes, token)

    async def swarm_leave(self, entered_at: float) -> None:
        """Take it out of its swarm, and away the bridge it has made itself for that."""
        await clearing.leave_swarm(self._line, entered_at)

    async def clear(self) -> None:
        """Remove all that is ours and local: containers, networks, the way out."""
        self._egress = None
        await clearing.clear(self._line, self.cluster)

    def folders(self) -> Folders:
        """Tell where it has what: layers once it was asked what it is, the rest once a container
        was looked at that has run.
        """
        return Folders(self._containers.run_folder, self._layers_in)

    async def possessions(self, *, sandboxes: bool) -> Possessions:
        """List all that it has, anybody's; sandboxes take a look at each container."""
        return await possessions.all_of(self._line, sandboxes=sandboxes)

    async def swarm_canary(self, *, ours: bool) -> None:
        """Make and remove a network, which proves that the swarm can; see `members.tend`."""
        await swarm.canary(self._line, self.cluster)
        if ours:  # else its other members are somebody's
            await members.tend(self._line)


def _problem(security_options: Iterable[str]) -> str:
    found = engine_modes.unsupported(security_options)
    return f"{found.text} {found.hint}" if found else ""


def _layers_in(said: Mapping[str, Any]) -> str:
    """Tell an engine's folder of layers; empty where it does not mount them as overlays itself."""
    root = said.get("DockerRootDir")
    return f"{root}/{_OVERLAYS}" if root and said.get("Driver") == _OVERLAYS else ""


def _event(message: dict[str, Any]) -> EngineEvent | None:
    actor = message.get("Actor") or {}
    kernel = (actor.get("Attributes") or {}).get(names.LABEL_KERNEL)
    if kernel is None or message.get("Action") not in _ACTIONS:
        return None
    return EngineEvent(str(actor["ID"]), KernelId(kernel), str(message["Action"]))
