"""A host as the agent's hands have it: its engine, and what its containers see."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from phalanx_agent.core.recipe import ContainerRecipe, Image
from phalanx_agent.docker.engine import DockerEngine
from phalanx_lab.lab import Host
from tests.support.engine_stage import Wanted

DOOR = 8099
IDLE = ("httpd", "-f", "-p", str(DOOR), "-h", "/bin")
"""A container that does nothing but listen."""

GUARD = """
import asyncio, sys
from phalanx_agent.host.guard import Guard
guard = Guard()
asyncio.run(guard.remove() if sys.argv[1] == "remove" else guard.keep(sys.argv[2:]))
"""


@dataclass(frozen=True)
class Site:
    """One host: its engine, and the image's facts."""

    host: Host
    docker: DockerEngine
    image: Image

    async def runs(self, recipe: ContainerRecipe) -> str:
        made = await self.docker.create_container(recipe)
        await self.docker.start(made)
        await self.docker.connect(made)
        return made

    async def says(self, container_id: str, *command: str) -> tuple[int, str]:
        """Run a command in a container: its code and output."""
        run = await self.docker.exec(container_id, command, tty=False, stdin=False)
        try:
            said = b""
            while (chunk := await run.read()) is not None:
                said += chunk[1]
            return await run.exit_code(), said.decode()
        finally:
            await run.kill()

    async def reaches(self, container_id: str, address: str, port: int) -> bool:
        code, _ = await self.says(container_id, "timeout", "2", "nc", "-w", "1", address, str(port))
        return code == 0

    def guard(self, *words: str) -> None:
        """Set or remove the guard's rules on the host."""
        subprocess.run(
            ["ip", "netns", "exec", self.host.netns, sys.executable, "-c", GUARD, *words],
            check=True,
            timeout=60,
        )


@contextmanager
def listener(site: Site) -> Iterator[None]:
    """A careless service of a host, open to everybody; it comes up in a moment."""
    command = ["ip", "netns", "exec", site.host.netns, sys.executable, "-m", "http.server"]
    with subprocess.Popen(
        [*command, str(DOOR)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as door:
        try:
            yield
        finally:
            door.kill()


@contextmanager
def unguarded_after(site: Site) -> Iterator[None]:
    """A host whose guard is removed after the block."""
    try:
        yield
    finally:
        site.guard("remove")


def members(wanted: Wanted, count: int) -> list[ContainerRecipe]:
    """Recipes with the addresses that a manager gives: from the upper end downwards."""
    return [
        wanted.recipe(f"sub{rank + 1}", rank, f"10.213.77.{62 - rank}", command=IDLE)
        for rank in range(count)
    ]


async def interfaces(site: Site, container_id: str) -> dict[str, str]:
    _, said = await site.says(container_id, "ip", "-o", "-4", "addr")
    rows = [line.split() for line in said.splitlines()]
    return {row[1]: row[3] for row in rows if row[1] != "lo"}


async def default_route(site: Site, container_id: str) -> list[str]:
    _, said = await site.says(container_id, "ip", "route", "show", "default")
    return said.split()[3:5]
