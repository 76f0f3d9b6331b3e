"""The agent, with points of failure around all that it does: `python -m` in place of its own."""

from __future__ import annotations

import sys
from pathlib import Path

from phalanx_agent import __main__ as daemon
from phalanx_agent import config
from phalanx_agent.docker.engine import DockerEngine
from phalanx_agent.docker.port import Docker
from phalanx_agent.host import guard, logstore, scratch, uploads
from phalanx_agent.loops import sweep, workshop
from phalanx_runner.channel import RunnerChannel
from tests.support import clocks
from tests.support.failpoints import Port

PORTS = (
    Port(
        "docker",
        Docker,
        DockerEngine,
        frozenset(
            (
                *("info", "inventory", "image", "inspect", "events", "logs", "read_archive"),
                *("swarm", "folders", "possessions"),
            )
        ),
    ),
    Port(
        "scratch",
        workshop.Scratch,
        scratch.Scratch,
        frozenset(("folder", "public_keys", "text", "lease", "begun", "noted", "kernels")),
    ),
    Port("logs", workshop.LogStore, logstore.LogStore, frozenset(("has",))),
    Port("uploads", workshop.Uploads, uploads.Uploads, frozenset(("chunks",))),
    Port("runner", workshop.RunnerLine, RunnerChannel, frozenset(("recheck",))),
    Port("guard", sweep.Rules, guard.Guard, frozenset()),
)
CALLS = tuple(call for port in PORTS for call in port.calls)


def folder(config_file: Path) -> Path:
    """Where the points of the agent with this configuration are armed."""
    return config.load(config_file).runtime_dir


def main() -> int:
    """Be the agent."""
    own = folder(Path(sys.argv[sys.argv.index("--config") + 1]))
    clocks.obey(own)
    for port in PORTS:
        port.wrap(own)
    return daemon.main()


if __name__ == "__main__":
    sys.exit(main())
