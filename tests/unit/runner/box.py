"""A container without an engine: phalanx-init as PID 1 of its own namespaces on this machine."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from phalanx_runner.channel import RunnerChannel
from phalanx_runner.conf import RunnerConf
from phalanx_runner.messages import Event

E = TypeVar("E", bound=Event)
PATIENCE_S = 20.0

# $1 is the material, $2 the bundle, $3 a shell command that goes before, the rest is the command.
SCRIPT = """
set -e
ip link set lo up
mount -t tmpfs run /run
mkdir /run/phalanx
mount --bind "$1" /run/phalanx
mount -t tmpfs opt /opt
mkdir /opt/phalanx
mount --bind "$2" /opt/phalanx
mount --bind "$1/hosts" /etc/hosts
mount -t proc proc /proc
eval "$3"
shift 3
exec /opt/phalanx/bin/phalanx-init "$@"
"""


@dataclass
class Box:
    """The runner's process and what its agent hears."""

    material: Path
    process: asyncio.subprocess.Process
    channel: RunnerChannel
    events: asyncio.Queue[Event]
    seen: list[Event] = field(default_factory=list)

    @property
    def pid(self) -> int | None:
        """PID 1 of the box, as this machine counts."""
        return only_child(self.process.pid)

    async def wait(self, kind: type[E]) -> E:
        """The next event of a kind; the others go to `seen`."""
        async with asyncio.timeout(PATIENCE_S):
            while True:
                event = await self.events.get()
                self.seen.append(event)
                if isinstance(event, kind):
                    return event

    def send(self, command: bytes) -> None:
        """To the runner, which must be connected."""
        assert self.channel.send(command)

    def kill(self, number: int) -> None:
        """Sends PID 1 a signal from outside, as an engine does."""
        pid = self.pid
        assert pid is not None
        os.kill(pid, number)

    async def code(self) -> int:
        """Waits for the end of the box."""
        async with asyncio.timeout(PATIENCE_S):
            return await self.process.wait()

    async def output(self) -> str:
        """All that the command and the runner have written, once they have ended."""
        assert self.process.stdout is not None
        async with asyncio.timeout(PATIENCE_S):
            return (await self.process.stdout.read()).decode()


def only_child(pid: int) -> int | None:
    """The first child of a process, or None."""
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except FileNotFoundError:
        return None
    return int(children[0]) if children else None


def unshare() -> list[str]:
    """The command that makes namespaces; without root it makes one of users, too."""
    users = [] if os.geteuid() == 0 else ["--map-root-user"]
    return ["unshare", *users, "--pid", "--fork", "--kill-child", "--mount", "--net"]


@dataclass(frozen=True)
class Boxes:
    """Makes boxes with the program that the fixture has compiled."""

    bundle: Path
    material: Path

    @asynccontextmanager
    async def open(
        self,
        conf: RunnerConf | str,
        *command: str,
        before: str = ":",
        env: dict[str, str] | None = None,
    ) -> AsyncIterator[Box]:
        """Runs the box; kills what is left of it in the end."""
        self.material.mkdir(exist_ok=True)
        (self.material / "hosts").write_text("127.0.0.1 localhost main1\n127.0.0.2 sub1\n")
        text = conf if isinstance(conf, str) else conf.render()
        (self.material / "runner.conf").write_text(text)
        script = ["sh", "-c", SCRIPT, "sh", str(self.material), str(self.bundle), before]
        events: asyncio.Queue[Event] = asyncio.Queue()
        process: asyncio.subprocess.Process | None = None

        def pid() -> int | None:
            return only_child(process.pid) if process else None

        async with RunnerChannel.listen(self.material, pid, events.put_nowait) as channel:
            process = await asyncio.create_subprocess_exec(
                *unshare(),
                *script,
                *command,
                env={"PATH": os.environ["PATH"], **(env or {})},
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
            )
            channel.recheck()  # a quick runner was there before its pid was known here
            try:
                yield Box(self.material, process, channel, events)
            finally:
                with contextlib.suppress(ProcessLookupError):
                    process.send_signal(signal.SIGKILL)
                await process.communicate()
