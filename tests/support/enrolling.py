"""Join as an agent and leave it at that: `python -m tests.support.enrolling FOLDER NAME TOKEN`."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from phalanx_agent.rpc.manager import enrol
from phalanx_wire import join
from phalanx_wire.ids import AgentId

if __name__ == "__main__":
    state_dir, name, token = sys.argv[1:]
    asyncio.run(enrol(Path(state_dir), AgentId(name), join.parse(token)))
