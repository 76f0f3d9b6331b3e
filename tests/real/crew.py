"""Containers with the runner alone: no manager and no agent, only an engine."""

from __future__ import annotations

import asyncio
import ipaddress
import itertools
import os
import subprocess
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from phalanx_agent.host import keys
from phalanx_runner import bundle, messages
from phalanx_runner.channel import RunnerChannel
from phalanx_runner.conf import RunnerConf
from phalanx_runner.messages import Event, MeshOk, Ready, Started

E = TypeVar("E", bound=Event)
SUBNET = "172.31.7.0/24"
NETWORK = "runner-crew"
IMAGE_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
PATH = f"/opt/phalanx/first:{IMAGE_PATH}:/opt/phalanx/last"
ODD = "a b\"c'd$x\nl2=\\n"
PATIENCE_S = 45.0
_crews = itertools.count(1)


@dataclass(frozen=True)
class Wish:
    """One container: `options` are those of `docker run`; no `peers` are all of its crew."""

    name: str
    image: str
    command: Sequence[str]
    owner: tuple[int, int] = (0, 0)
    options: Sequence[str] = ()
    bundle: Path = field(default_factory=bundle.locate)
    linger_s: int = 2
    mesh_timeout_s: int = 60
    peers: Sequence[str] = ()


@dataclass
class Kernel:
    """A running container: its agent's end, and what it has told."""

    wish: Wish
    engine: str
    container: str
    folder: Path
    pid: int | None = None
    told: list[Event] = field(default_factory=list)
    channel: RunnerChannel | None = None
    _news: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def name(self) -> str:
        return self.wish.name

    def note(self, event: Event) -> None:
        self.told.append(event)
        self._news.set()

    def send(self, command: bytes) -> None:
        assert self.channel is not None
        assert self.channel.send(command), f"{self.name} is not connected"

    async def wait(self, kind: type[E]) -> E:
        """The first event of a kind, also one that has been told already."""
        try:
            async with asyncio.timeout(PATIENCE_S):
                while True:
                    for event in self.told:
                        if isinstance(event, kind):
                            return event
                    self._news.clear()
                    await self._news.wait()
        except TimeoutError:
            logs = await docker(self.engine, "logs", self.container)
            said = f"{self.name} never said {kind.__name__}, but {self.told}"
            raise AssertionError(f"{said}; its log: {logs.stdout}{logs.stderr}") from None

    async def runs(self, *words: str, given: str = "") -> subprocess.CompletedProcess[str]:
        """A command in it, by the engine's exec: no agent is asked."""
        return await docker(self.engine, "exec", "-i", self.container, *words, given=given)

    async def sh(self, script: str) -> str:
        """What a script prints, which must succeed and complain of nothing."""
        done = await self.runs("sh", "-c", script)
        assert (0, "") == (done.returncode, done.stderr), f"{self.name}: {done}"
        return done.stdout


async def docker(engine: str, *words: str, given: str = "") -> subprocess.CompletedProcess[str]:
    command = ["docker", "-H", f"unix://{engine}", *words]
    return await asyncio.to_thread(
        subprocess.run,
        command,
        input=given,
        capture_output=True,
        text=True,
        errors="replace",
        timeout=PATIENCE_S,
        check=False,
    )


SSH_CONFIG = """  Port 2200
  User work
  IdentityFile /run/phalanx/ssh/id_ed25519
  IdentitiesOnly yes
  UserKnownHostsFile /run/phalanx/ssh/known_hosts
  GlobalKnownHostsFile /dev/null
  StrictHostKeyChecking yes
  UpdateHostKeys no
  LogLevel ERROR
"""


def addresses(wishes: Iterable[Wish]) -> dict[str, str]:
    """Each container's address, by its name."""
    free = ipaddress.ip_network(SUBNET).hosts()
    next(free)  # the bridge's
    return {wish.name: str(next(free)) for wish in wishes}


def write_material(parent: Path, wishes: Sequence[Wish]) -> None:
    """The /run/phalanx of all containers."""
    places = addresses(wishes)
    hosts = {name: keys.fresh() for name in places}
    users = {name: keys.fresh() for name in places}
    known = "".join(f"{name},[{name}]:2200 {key.public}\n" for name, key in hosts.items())
    table = "".join(f"{address} {name}\n" for name, address in places.items())
    for wish in wishes:
        conf = RunnerConf(
            f"kernel-{wish.name}",
            address=places[wish.name],
            interface="eth0",
            peers=tuple(wish.peers or places),
            linger_s=wish.linger_s,
            mesh_timeout_s=wish.mesh_timeout_s,
            grace_s=2,
        )
        folder = parent / wish.name
        public = {
            "runner.conf": conf.render(),
            "hosts": f"{places[wish.name]} {wish.name}\n{table}127.0.0.1 localhost\n",
            "ssh/known_hosts": known,
            "ssh/ssh_config": f"Host {' '.join(places)}\n{SSH_CONFIG}",
            "ssh/.ssh/authorized_keys": "".join(f"{key.public}\n" for key in users.values()),
        }
        secret = {
            "ssh/host_key": hosts[wish.name].dropbear(),
            "ssh/id_ed25519": users[wish.name].openssh(),
        }
        (folder / "ssh" / ".ssh").mkdir(parents=True)
        for path, text in public.items():
            (folder / path).write_text(text)
        for path, data in secret.items():
            (folder / path).write_bytes(data)
            os.chmod(folder / path, 0o400)
            os.chown(folder / path, *wish.owner)


@asynccontextmanager
async def crew(
    engine: str, folder: Path, wishes: Sequence[Wish], *, mesh: bool = True
) -> AsyncIterator[Mapping[str, Kernel]]:
    """All containers by name, with their commands started after the mesh check; `mesh` false leaves
    both to the caller.
    """
    number = next(_crews)
    write_material(folder, wishes)
    kernels = {
        wish.name: Kernel(wish, engine, f"{NETWORK}-{number}-{wish.name}", folder / wish.name)
        for wish in wishes
    }
    containers = [kernel.container for kernel in kernels.values()]
    async with AsyncExitStack() as stack:
        stack.push_async_callback(docker, engine, "rm", "-f", *containers)
        for kernel in kernels.values():
            kernel.channel = await stack.enter_async_context(_listen(kernel))
        async with asyncio.TaskGroup() as group:
            for name, address in addresses(wishes).items():
                group.create_task(_run(kernels[name], address))
        await _learn_pids(engine, list(kernels.values()))
        if mesh:
            await ask_all(kernels.values(), messages.mesh(), MeshOk)
            await ask_all(kernels.values(), messages.start(), Started)
        yield kernels


async def ask_all(kernels: Iterable[Kernel], command: bytes, answer: type[Event]) -> None:
    """Tell everybody the same, and wait for what everybody says then."""
    for kernel in kernels:
        kernel.send(command)
    for kernel in kernels:
        await kernel.wait(answer)


def _listen(kernel: Kernel) -> AbstractAsyncContextManager[RunnerChannel]:
    return RunnerChannel.listen(kernel.folder, lambda: kernel.pid, kernel.note)


async def _run(kernel: Kernel, address: str) -> None:
    wish, folder = kernel.wish, kernel.folder
    settings = (
        *("--name", kernel.container, "--hostname", wish.name),
        *("--network", NETWORK, "--ip", address, "--user", "{}:{}".format(*wish.owner)),
        *("--entrypoint", "/opt/phalanx/bin/phalanx-init"),
        *("-v", f"{wish.bundle}:/opt/phalanx:ro", "-v", f"{folder}:/run/phalanx:ro"),
        *("-v", f"{folder}/hosts:/etc/hosts:ro", "-e", f"PATH={PATH}"),
        *("-e", "WORLD_SIZE=2", "-e", f"BACKENDAI_CLUSTER_HOST={wish.name}", "-e", f"ODD={ODD}"),
        *wish.options,
    )
    made = await docker(kernel.engine, "run", "-d", *settings, wish.image, *wish.command)
    assert (0, "") == (made.returncode, made.stderr), f"{wish.name}: {made.stderr}"


async def _learn_pids(engine: str, kernels: Sequence[Kernel]) -> None:
    names = [kernel.container for kernel in kernels]
    shown = await docker(engine, "inspect", "-f", "{{.State.Pid}}", *names)
    for kernel, pid in zip(kernels, shown.stdout.split(), strict=True):
        kernel.pid = int(pid)
        assert kernel.channel is not None
        kernel.channel.recheck()
    for kernel in kernels:
        await kernel.wait(Ready)
