"""A manager's process on a file: what it has answered is there after a kill, and in a backup."""

from __future__ import annotations

import asyncio
import itertools
import shutil
import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp

from phalanx_manager.store.database import draft_of
from tests.support.ports import free_port
from tests.support.two_managers import PATIENCE_S, Daemon

SIDES = ("north", "east", "south", "west")
SIZE = 2
SOME = 50


@dataclass
class Asking:
    """Who submits sessions to a manager.

    Attributes:
        answered: the names of those that were accepted, in order.
        told: is called after each of them.
    """

    manager: Daemon
    http: aiohttp.ClientSession
    answered: list[str] = field(default_factory=list)
    told: Callable[[], None] = lambda: None

    async def submit(self, first: str) -> None:
        """Submit one session after the other until the manager, or who waits for this, is gone."""
        for number in itertools.count():
            name = f"{first}-{number}"
            spec = {"name": name, "image": "i", "size": SIZE, "command": ["true"]}
            async with self.http.post(f"{self.manager.url}/v1/sessions", json=spec) as response:
                assert 201 == response.status, await response.text()
            self.answered.append(name)
            self.told()

    async def kernels(self) -> dict[str, int]:
        """How many containers each session that is there has, by name."""
        url = f"{self.manager.url}/v1/sessions?all=1&limit=10000"
        async with self.http.get(url) as response:
            sessions: list[dict[str, Any]] = (await response.json())["sessions"]
        return {session["name"]: len(session["kernels"]) for session in sessions}


@asynccontextmanager
async def managing(folder: Path) -> AsyncIterator[Asking]:
    """Run a manager with a file in a folder."""
    manager = Daemon(folder, free_port(), free_port())
    await manager.start("sqlite", [manager.rpc])
    async with asyncio.timeout(2 * PATIENCE_S), asyncio.TaskGroup() as tasks:
        try:
            tasks.create_task(manager.read())
            await manager.says("manager.ready")
            headers = {"Authorization": f"Bearer {manager.token}"}
            async with aiohttp.ClientSession(headers=headers) as http:
                yield Asking(manager, http)
        finally:
            await manager.end()


async def command(*arguments: str) -> None:
    """Run one command of the manager's program to its good end."""
    program = [sys.executable, "-m", "phalanx_manager", *arguments]
    process = await asyncio.create_subprocess_exec(*program, stdout=asyncio.subprocess.DEVNULL)
    async with asyncio.timeout(PATIENCE_S):
        assert 0 == await process.wait()


async def test_what_was_answered_before_a_kill_is_there_after_it_and_nothing_is_half_there(
    tmp_path: Path,
) -> None:
    async with managing(tmp_path) as here:

        def told() -> None:
            if len(here.answered) == SOME:
                here.manager.signal(signal.SIGKILL)

        here.told = told
        ends = await asyncio.gather(*map(here.submit, SIDES), return_exceptions=True)
        assert all(isinstance(end, aiohttp.ClientError) for end in ends), ends
    async with managing(tmp_path) as again:
        found = await again.kernels()

    assert len(here.answered) >= SOME
    assert set() == set(here.answered) - set(found)
    assert {SIZE} == set(found.values())


async def test_a_backup_amid_submissions_has_all_that_was_answered_before_it_began(
    tmp_path: Path,
) -> None:
    live, other, copy = tmp_path / "live", tmp_path / "other", tmp_path / "copy.db"
    for folder in (live, other):
        folder.mkdir(mode=0o700)
    before: set[str] = set()
    some = asyncio.Event()
    async with managing(live) as here, asyncio.TaskGroup() as sides:

        def told() -> None:
            some.set()
            if not draft_of(copy).exists() and not copy.exists():
                before.add(here.answered[-1])

        here.told = told
        submitting = [sides.create_task(here.submit(side)) for side in SIDES]
        await some.wait()
        await command("backup", str(copy), "--config", str(live / "manager.toml"))
        for task in submitting:
            task.cancel()

    (other / "manager.toml").write_text(f'data_dir = "{other}"\n')
    await command("restore", str(copy), "--config", str(other / "manager.toml"))
    for name in ("manager.key", "admin.token"):
        shutil.copy(live / name, other / name)
    async with managing(other) as restored:
        found = await restored.kernels()

    assert before
    assert before < set(here.answered)
    assert set() == before - set(found)
    assert {SIZE} == set(found.values())
