"""The manager, with points of failure around all that it does: `python -m` in place of its own."""

from __future__ import annotations

import sys
from pathlib import Path

from phalanx_manager import __main__ as daemon
from phalanx_manager import config
from phalanx_manager.http import doors
from phalanx_manager.loops import converge
from phalanx_manager.rpc.agents import Agents
from phalanx_manager.store.port import Store
from phalanx_manager.store.sqlite import SqliteStore
from tests.support import clocks
from tests.support.failpoints import Port

PORTS = (
    Port(
        "store",
        Store,
        SqliteStore,
        frozenset(
            (
                "load",
                "session",
                "sessions",
                "attempt",
                "agents",
                "agent_by_key",
                "token_by_hash",
                "tokens",
                "agent_token",
                "events",
                "last_event",
                "cluster",
                "clusters",
                "events_of_cluster",
            )
        ),
    ),
    Port("link", converge.Link, Agents, frozenset()),
    Port("door", doors.Link, Agents, frozenset(("connected",))),
)
CALLS = tuple(call for port in PORTS for call in port.calls)


def folder(config_file: Path) -> Path:
    """Where the points of the manager with this configuration are armed."""
    return config.load(config_file).data_dir


def main() -> int:
    """Be the manager."""
    own = folder(Path(sys.argv[sys.argv.index("--config") + 1]))
    clocks.obey(own)
    for port in PORTS:
        port.wrap(own)
    return daemon.main()


if __name__ == "__main__":
    sys.exit(main())
