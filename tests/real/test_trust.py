"""A container's own processes can neither speak for its runner nor change what it works with."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from phalanx_lab.lab import Host
from tests.real.ground import PROGRAMS, Ground
from tests.real.test_secrets import needles

pytestmark = pytest.mark.real

UPLOAD = ("--upload", str(PROGRAMS))
GREW_AT_MOST_KB = 16 << 10


def where(ground: Ground, session: str, container: str = "main1") -> tuple[Host, str]:
    """The host of a session's container, and its name there."""
    host = ground.host(ground.containers(session)[container])
    label = f"label=io.phalanx.session={ground.show(session)['id']}"
    names = ground.docker(host, "ps", "--format", "{{.Names}}", "--filter", label).ok().split()
    return host, next(name for name in names if name.endswith(container))


def resident_kb(pid: int) -> int:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS"))


def test_whoever_is_not_the_runner_is_not_heard_and_takes_nothing_of_the_agent(
    clean: Ground,
) -> None:
    with clean.created("-c", "1", *UPLOAD) as name:
        host, _ = where(clean, name)
        agent = clean.lab.pid(f"agent-{host.index}")
        before = resident_kb(agent)
        told = clean.inside(f"{name}/main1", "python3", "forge.py", "speak", "1000", timeout=110)
        grew = resident_kb(agent) - before
        view = clean.show(name)

    assert {"open": 0} == json.loads(told.ok())
    assert agent == clean.lab.pid(f"agent-{host.index}")
    assert grew < GREW_AT_MOST_KB
    assert ("running", [None]) == (view["state"], [k["exit_code"] for k in view["kernels"]])


@pytest.mark.parametrize("user", ["0", "1000"])
def test_what_the_runner_works_with_cannot_be_changed_from_inside(clean: Ground, user: str) -> None:
    with clean.created("-u", user, *UPLOAD) as name:
        told = clean.inside(f"{name}/main1", "python3", "forge.py", "deface")

        assert "" == told.ok()
        assert 0 == clean.inside(f"{name}/main1", "ssh", "main1", "true").code


def test_keys_are_not_in_an_image_made_of_a_container_and_go_though_the_agent_was_killed(
    clean: Ground, tmp_path: Path
) -> None:
    with clean.created() as name:
        host, container = where(clean, name)
        agent = clean.lab.pid(f"agent-{host.index}")
        memory = Path(clean.lab.plan.agent_memory(host.index))
        files = [path for path in memory.rglob("*") if path.name in ("id_ed25519", "host_key")]
        secrets = {needle for path in files for needle in needles(path.read_bytes())}
        clean.inside(f"{name}/main1", "sh", "-c", "echo what was written >/tmp/here").ok()
        clean.docker(host, "commit", container, "taken:latest").ok()
        try:
            clean.docker(host, "save", "-o", f"{tmp_path}/taken.tar", "taken:latest").ok()
        finally:
            clean.docker(host, "rmi", "taken:latest").ok()
        clean.lab.fault("kill", f"agent-{host.index}")
    after = [path for path in memory.rglob("*") if path.name in ("id_ed25519", "host_key")]

    assert 2 == len(files)
    assert agent != clean.lab.pid(f"agent-{host.index}")
    assert [] == after
    taken = (tmp_path / "taken.tar").read_bytes()
    assert b"what was written" in taken
    assert not any(secret in taken for secret in secrets)
