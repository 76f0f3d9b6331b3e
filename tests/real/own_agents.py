"""Agents that a test runs itself, on hosts of a lab that have none."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from phalanx_lab import daemons, engine
from phalanx_lab.lab import Host, Lab
from tests.real.failing import FROZEN_S, Site, state_of
from tests.real.ground import beside_engine


class Agent:
    """A host's agent: begun again whenever it is killed, and woken whenever it freezes."""

    def __init__(self, lab: Lab, host: Host, *join: str) -> None:
        config = daemons.agent_config(lab.plan, host.index, "")
        program = (sys.executable, "-m", "tests.support.failing_agent", "--config", config)
        self._argv = beside_engine(lab, host, *program)
        self._log = Path(lab.state_dir, "logs", f"leaving-{host.index}.log")
        self._process = self._begun(join)

    def _begun(self, join: Sequence[str] = ()) -> subprocess.Popen[bytes]:
        with self._log.open("ab") as log:
            return subprocess.Popen(
                [*self._argv, *join], stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )

    def look(self) -> int | None:
        """Its code when it has ended by itself."""
        code = self._process.poll()
        if code == -signal.SIGKILL:
            self._process = self._begun()
        elif code is None and state_of(self._process.pid) == "T":
            time.sleep(FROZEN_S)
            self._process.send_signal(signal.SIGCONT)
        return code

    def end(self) -> None:
        """Kill it if it runs."""
        self._process.kill()
        self._process.wait()


def token(site: Site, host: Host, cluster: str) -> str:
    """What lets a host's agent join a cluster."""
    wish = {"name": host.name, "cluster": cluster}
    return str(site.ask("POST", "/v1/agent-tokens", wish).ok()["token"])


def in_swarm(host: Host) -> str:
    """What an engine says of its part in a swarm."""
    return str(engine.ask(host.engine_socket, "GET", "/info")[1]["Swarm"]["LocalNodeState"])
