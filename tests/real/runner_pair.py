"""Two containers with the runner alone: no manager and no agent, only an engine."""

from __future__ import annotations

import asyncio
import os
import subprocess
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from struct import pack
from typing import TypeVar

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from phalanx_runner import messages
from phalanx_runner.channel import RunnerChannel
from phalanx_runner.conf import RunnerConf
from phalanx_runner.messages import Event, MeshOk, Ready, Started

E = TypeVar("E", bound=Event)
ADDRESSES = {"main1": "172.31.7.2", "sub1": "172.31.7.3"}
SUBNET = "172.31.7.0/24"
NETWORK = "runner-pair"
IMAGE_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
PATH = f"/opt/phalanx/first:{IMAGE_PATH}:/opt/phalanx/last"
ODD = "a b\"c'd$x\nl2=\\n"
PATIENCE_S = 30.0


@dataclass(frozen=True)
class Key:
    """An Ed25519 key as OpenSSH's file, OpenSSH's line and the server's format."""

    pem: bytes
    line: str
    server: bytes


def new_key() -> Key:
    key = Ed25519PrivateKey.generate()
    public = key.public_key()
    blob = key.private_bytes_raw() + public.public_bytes_raw()
    return Key(
        key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()),
        public.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode(),
        b"".join(pack(">I", len(part)) + part for part in (b"ssh-ed25519", blob)),
    )


SSH_CONFIG = """Host main1 sub1
  Port 2200
  User work
  IdentityFile /run/phalanx/ssh/id_ed25519
  IdentitiesOnly yes
  UserKnownHostsFile /run/phalanx/ssh/known_hosts
  GlobalKnownHostsFile /dev/null
  StrictHostKeyChecking yes
  UpdateHostKeys no
  LogLevel ERROR
"""


def write_material(parent: Path, owner: tuple[int, int]) -> None:
    """The /run/phalanx of both containers."""
    hosts = {name: new_key() for name in ADDRESSES}
    users = {name: new_key() for name in ADDRESSES}
    known = "".join(f"{name},[{name}]:2200 {key.line}\n" for name, key in hosts.items())
    for name, address in ADDRESSES.items():
        others = [f"{ADDRESSES[other]} {other}\n" for other in ADDRESSES if other != name]
        conf = RunnerConf(
            f"kernel-{name}",
            address=address,
            interface="eth0",
            peers=tuple(ADDRESSES),
            linger_s=2,
            grace_s=2,
        )
        public = {
            "runner.conf": conf.render(),
            "hosts": f"{address} {name}\n" + "".join(others) + "::ffff:127.0.0.1 localhost\n",
            "ssh/known_hosts": known,
            "ssh/ssh_config": SSH_CONFIG,
            "ssh/.ssh/authorized_keys": "".join(f"{key.line}\n" for key in users.values()),
        }
        secret = {"ssh/host_key": hosts[name].server, "ssh/id_ed25519": users[name].pem}
        (parent / name / "ssh" / ".ssh").mkdir(parents=True)
        for path, text in public.items():
            (parent / name / path).write_text(text)
        for path, data in secret.items():
            (parent / name / path).write_bytes(data)
            os.chmod(parent / name / path, 0o400)
            os.chown(parent / name / path, *owner)


@dataclass
class Kernel:
    """One of the two: its agent's end, and what it has told."""

    name: str
    pid: int | None = None
    told: list[Event] = field(default_factory=list)
    channel: RunnerChannel | None = None
    _news: asyncio.Event = field(default_factory=asyncio.Event)

    def note(self, event: Event) -> None:
        self.told.append(event)
        self._news.set()

    def send(self, command: bytes) -> None:
        assert self.channel is not None
        assert self.channel.send(command)

    async def wait(self, kind: type[E]) -> E:
        """The first event of a kind, also one that has been told already."""
        async with asyncio.timeout(PATIENCE_S):
            while True:
                for event in self.told:
                    if isinstance(event, kind):
                        return event
                self._news.clear()
                await self._news.wait()


@dataclass(frozen=True)
class Pair:
    """Both containers, running."""

    engine: str
    main: Kernel
    sub: Kernel

    async def docker(self, *words: str, given: str = "") -> subprocess.CompletedProcess[str]:
        return await docker(self.engine, *words, given=given)

    async def main_runs(self, *words: str, given: str = "") -> subprocess.CompletedProcess[str]:
        """A command in main1, by the engine's exec."""
        return await self.docker("exec", "-i", f"{NETWORK}-main1", *words, given=given)


async def docker(engine: str, *words: str, given: str = "") -> subprocess.CompletedProcess[str]:
    command = ["docker", "-H", f"unix://{engine}", *words]
    return await asyncio.to_thread(
        subprocess.run,
        command,
        input=given,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )


@asynccontextmanager
async def pair(
    engine: str, bundle: Path, material: Path, options: Sequence[str], command: Sequence[str]
) -> AsyncIterator[Pair]:
    """Both containers after the mesh check, with the command started in each."""
    kernels = [Kernel(name) for name in ADDRESSES]
    names = [f"{NETWORK}-{name}" for name in ADDRESSES]
    async with AsyncExitStack() as stack:
        stack.push_async_callback(docker, engine, "rm", "-f", *names)
        for kernel in kernels:
            kernel.channel = await stack.enter_async_context(_listen(kernel, material))
            folder = material / kernel.name
            settings = (
                *("--name", f"{NETWORK}-{kernel.name}", "--hostname", kernel.name),
                *("--network", NETWORK, "--ip", ADDRESSES[kernel.name]),
                *("--entrypoint", "/opt/phalanx/bin/phalanx-init"),
                *("-v", f"{bundle}:/opt/phalanx:ro", "-v", f"{folder}:/run/phalanx:ro"),
                *("-v", f"{folder}/hosts:/etc/hosts:ro", "-e", f"PATH={PATH}"),
                *("-e", "WORLD_SIZE=2", "-e", f"BACKENDAI_CLUSTER_HOST={kernel.name}"),
                *("-e", f"ODD={ODD}"),
            )
            made = await docker(engine, "run", "-d", *settings, *options, *command)
            assert (0, "") == (made.returncode, made.stderr)
            shown = await docker(
                engine, "inspect", "-f", "{{.State.Pid}}", f"{NETWORK}-{kernel.name}"
            )
            kernel.pid = int(shown.stdout)
            kernel.channel.recheck()
        for kernel in kernels:
            await kernel.wait(Ready)
        for step, proof in ((messages.mesh(), MeshOk), (messages.start(), Started)):
            for kernel in kernels:
                kernel.send(step)
            for kernel in kernels:
                await kernel.wait(proof)
        yield Pair(engine, *kernels)


def _listen(kernel: Kernel, material: Path) -> AbstractAsyncContextManager[RunnerChannel]:
    return RunnerChannel.listen(material / kernel.name, lambda: kernel.pid, kernel.note)
