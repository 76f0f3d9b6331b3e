"""A cluster whose manager keeps its database in PostgreSQL."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from phalanx_lab.lab import Lab
from tests.real.ground import BASE, Ground, await_true
from tests.support import postgres

pytestmark = pytest.mark.real


def test_sessions_live_through_a_killed_manager_and_a_crashed_server(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PHALANX_CONFIG", str(tmp_path / "config.toml"))
    with postgres.running() as server:
        url = asyncio.run(server.fresh())
        with Lab.up(f"real{os.getpid()}q", 1, manager={"database": url}) as lab:
            lab.load("base")
            ground = Ground(lab, tmp_path / "config.toml")
            small = ("-N", "2", "-m", "64M", "-i", BASE)
            waits = "until [ -e /tmp/enough ]; do sleep 0.1; done; exit 7"
            name = ground.detached(*small, "--", "sh", "-c", waits)
            ground.await_state(name, "running")

            manager = lab.pid("manager")
            lab.fault("kill", "manager")
            await_true("it is there again", lambda: lab.pid("manager") not in (0, manager))
            server.stop()
            server.start_again()
            enough = ("exec", name, "--all", "--", "touch", "/tmp/enough")
            await_true("they hear of it", lambda: ground.phalanx(*enough).code == 0)
            ended = ground.phalanx("wait", name)
            view = ground.show(name)
            after = ground.run(*small, "--", "hostname")
            gone = ground.phalanx("wait", "--until", "removed", name)

    assert 7 == ended.code
    assert ("failed", [7, 7]) == (view["state"], [k["exit_code"] for k in view["kernels"]])
    assert {"main1", "sub1"} == {line.split()[-1] for line in after.ok().splitlines()}
    assert 7 == gone.code
