"""Where the parts of an embedded installation live, and the configurations that follow from it."""

from __future__ import annotations

import socket
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from phalanx_agent import config as agent_config
from phalanx_agent.config import AgentConfig
from phalanx_agent.rpc.identity import load_manager
from phalanx_manager import config as manager_config
from phalanx_manager.config import ManagerConfig

ROOT_DATA = Path("/var/lib/phalanx")
RUNTIME_FOLDERS = ("/run", "/dev/shm")  # noqa: S108 - the usual tmpfs; our part is for us alone


@dataclass(frozen=True, slots=True)
class Wish:
    """What the command line asks for.

    Attributes:
        listen: where the API listens: `host:port` or `unix:///path`.
        agents: where agents connect, also those of other hosts: `tcp://host:port`.
        engine: `unix:///path`.
        runtime: for key material; must be on a tmpfs.
    """

    data: Path
    listen: str
    agents: str
    name: str
    engine: str
    runtime: Path


def manager(wish: Wish) -> ManagerConfig:
    """The manager's configuration.

    Raises:
        manager_config.ConfigError: with a sentence for each mistake.
    """
    return manager_config.parse(
        {"data_dir": str(wish.data / "manager"), "http": wish.listen, "rpc": wish.agents}
    )


def agent(wish: Wish, join: str) -> AgentConfig:
    """The agent's configuration.

    Raises:
        agent_config.ConfigError: with a sentence for each mistake.
    """
    return agent_config.parse(
        {
            "name": wish.name,
            "state_dir": str(wish.data / "agent"),
            "runtime_dir": str(wish.runtime),
            "engine": wish.engine,
            "join": join,
        }
    )


def default_data(*, root: bool, home: str) -> Path:
    """Where state is kept: the system's place for root, else the user's."""
    return ROOT_DATA if root else Path(home) / ".local" / "share" / "phalanx"


def default_runtime(data: Path, is_tmpfs: Callable[[str], bool]) -> Path:
    """A folder in memory that belongs to this data folder only: two installations, two folders."""
    name = (
        "phalanx-up"
        if data == ROOT_DATA
        else "phalanx-up-" + data.as_posix().strip("/").replace("/", "-")
    )
    for folder in RUNTIME_FOLDERS:
        if is_tmpfs(folder):
            return Path(folder) / name
    return Path(RUNTIME_FOLDERS[0]) / name


def is_tmpfs(folder: str) -> bool:
    """Tell whether a folder is in memory."""
    with open("/proc/self/mounts", encoding="utf-8", errors="replace") as mounts:
        found = [line.split(" ")[1:3] for line in mounts]
    points = [(point, kind) for point, kind in found if point == folder]
    return bool(points) and points[-1][1] == "tmpfs"


def host_name() -> str:
    """The machine's own name in the grammar of agents' names."""
    short = socket.gethostname().partition(".")[0].lower()
    kept = "".join(char if char.isalnum() and char.isascii() else "-" for char in short)
    return kept.strip("-")[:63] or "host1"


def must_join(wish: Wish, addresses: tuple[str, ...]) -> bool:
    """Whether the agent does not know its manager yet, or not where it is now."""
    known = load_manager(wish.data / "agent")
    return known is None or known.addresses != addresses
