"""What is left of a container below its engine, when that died as it started or ended it: the shim,
processes, cgroups. No engine looks for these again, and a shim that goes takes with it what the
engine's own helpers know of: mounts and interfaces.

All this is found by the container's id, 64 random hexadecimal digits that the engine gave to a
container with our labels: what carries it is that container's, and nobody else's. A pair of
interfaces, or the end of an overlay network's tunnel, that the engine had not handed over yet
carries nothing. It is known by its state: an engine's name, never up, on no bridge. A living engine
leaves none like that for longer than an instant, so what stays so is a dead one's.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import structlog

from phalanx_agent.host.tools import ToolFailed, run, succeeds

_LOG = structlog.get_logger()

PROC: Final = Path("/proc")
CGROUPS: Final = Path("/sys/fs/cgroup")
WITHIN_S: Final = 10.0
"""Who is killed ends within this time, but for one that waits for a disk that does not answer."""

IP: Final = ("ip",)
HANDED_OVER_WITHIN_S: Final = 5.0
"""A living engine puts an interface where it belongs within milliseconds of making it."""

_HALF_MADE: Final = re.compile("veth[0-9a-f]{7}|vx-[0-9a-f]{6}-[0-9a-z]{5}")
_NEVER_UP: Final = "noop"

_LOOK_EVERY_S: Final = 0.02
_QUIET_LOOKS: Final = 3
"""A helper that was killed may have begun a process in its last moment."""

_OVER: Final = ("Z", "X")
"""States of a process that has ended, as Linux spells them."""

_HELPER: Final = re.compile(r"containerd-shim.*|runc|crun")
ID: Final = re.compile("(?<![0-9a-f])[0-9a-f]{64}(?![0-9a-f])")
"""A container's."""

_DEEPEST: Final = 6
"""A container's cgroup lies no deeper: hierarchy, slices of a unit or a user, the container."""


@dataclass(frozen=True, slots=True)
class Link:
    """An interface: its name, and the number by which the kernel tells it from one made anew."""

    name: str
    number: int


class RemainsStay(Exception):  # noqa: N818 - a state of the machine
    """Something of a container does not end; the text says what."""


async def end(container_id: str) -> None:
    """End what is left of a container that does not run by its engine's word; nothing left is fine.

    Args:
        container_id: the engine's, of a container with our labels, or that it does not have.

    Raises:
        RemainsStay: a process did not end in time, or an interface cannot be removed.
    """
    loop = asyncio.get_running_loop()
    deadline, quiet, ended = loop.time() + WITHIN_S, 0, 0
    while quiet < _QUIET_LOOKS:
        found = await asyncio.to_thread(_kill, container_id)
        quiet, ended = (0, ended + len(found)) if found else (quiet + 1, ended)
        if found and loop.time() > deadline:
            raise RemainsStay(
                f"Process {found[0]} of it does not end although it was killed; look at it with "
                f"`ps -o pid,stat,wchan,args -p {found[0]}`."
            )
        await asyncio.sleep(_LOOK_EVERY_S)
    left = await asyncio.to_thread(_clear_cgroups, container_id)
    try:
        links = await _remove_half_made()
    except ToolFailed as error:
        raise RemainsStay(f"Its interfaces cannot be looked after: {error}.") from error
    if ended or left or links:
        _LOG.warning(
            "container.remains",
            container=container_id[:12],
            killed=ended,
            cgroups=left,
            interfaces=sorted(links),
        )


async def _remove_half_made() -> frozenset[str]:
    """Remove interfaces that no engine works at any more; their names.

    Raises:
        ToolFailed: they cannot be listed, or not be removed.
    """
    found = await half_made()
    if not found:
        return frozenset()
    await asyncio.sleep(HANDED_OVER_WITHIN_S)
    left = found & await half_made()
    for link in left:
        await succeeds(*IP, "link", "delete", "dev", link.name)  # it may have gone with its peer
    for link in left & await half_made():
        raise ToolFailed(f"{link.name} does not go; try `ip link delete {link.name}`")
    return frozenset(link.name for link in left)


async def half_made() -> frozenset[Link]:
    """Find the ends of pairs and tunnels that were made for a container or its network, and not
    handed over.

    Raises:
        ToolFailed: interfaces cannot be listed.
    """
    return not_handed_over(await run(*IP, "-json", "-details", "link", "show"))


async def remove_link(link: Link) -> None:
    """Remove one.

    Raises:
        ToolFailed: it does not go, or is gone.
    """
    await run(*IP, "link", "delete", "dev", link.name)


def not_handed_over(listing: str) -> frozenset[Link]:
    """Read them off a listing by `ip -json`."""
    return frozenset(
        Link(link["ifname"], link["ifindex"])
        for link in json.loads(listing or "[]")
        if _HALF_MADE.fullmatch(link["ifname"])
        and link.get("qdisc") == _NEVER_UP
        and "UP" not in link["flags"]
        and "master" not in link
    )


def borne() -> frozenset[str]:
    """Find the ids of containers that processes bear: their own, and engines' helpers for them."""
    found: set[str] = set()
    for entry in os.listdir(PROC):
        if entry.isdigit():
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                words = (PROC / entry / "cmdline").read_bytes().decode(errors="replace")
                found.update(ID.findall(words))
                found.update(ID.findall((PROC / entry / "cgroup").read_text()))
    return frozenset(found)


def _kill(container_id: str) -> list[int]:
    """Kill a container's processes and its engine's helpers for it; their numbers."""
    found = []
    for entry in os.listdir(PROC):
        if entry.isdigit() and _is_of(PROC / entry, container_id):
            with contextlib.suppress(ProcessLookupError):
                process = os.pidfd_open(int(entry))
                try:
                    if _is_of(PROC / entry, container_id):  # the number is still the same one's
                        signal.pidfd_send_signal(process, signal.SIGKILL)
                        found.append(int(entry))
                finally:
                    os.close(process)
    return found


def _is_of(process: Path, container_id: str) -> bool:
    """Tell whether a process is a container's, or a helper for it, and has not ended."""
    try:
        if (process / "stat").read_text().rpartition(")")[2].split()[0] in _OVER:
            return False
        words = (process / "cmdline").read_bytes().split(b"\0")
        name = os.path.basename(os.fsdecode(words[0]))
        if _HELPER.fullmatch(name) and container_id.encode() in words:
            return True
        return container_id in (process / "cgroup").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False


def _clear_cgroups(container_id: str) -> int:
    """Remove a container's cgroups, in every hierarchy; how many were there."""
    cleared = 0
    for folder in _cgroups_of(container_id):
        for place, _folders, _files in os.walk(folder, topdown=False):
            with contextlib.suppress(OSError):  # a unit's own manager was faster, or will be
                os.rmdir(place)
                cleared += 1
    return cleared


def _cgroups_of(container_id: str) -> Iterator[str]:
    """Find the cgroups that engines name after a container."""
    names = {container_id, f"docker-{container_id}.scope"}
    top = len(CGROUPS.parts)
    for place, folders, _files in os.walk(CGROUPS):
        yield from (f"{place}/{name}" for name in names.intersection(folders))
        deep = len(Path(place).parts) - top
        folders[:] = [] if deep >= _DEEPEST else [one for one in folders if one not in names]
