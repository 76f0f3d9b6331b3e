"""Secrets are in their place and nowhere else: no log, database, answer, image or dump."""

from __future__ import annotations

import json
import secrets as tokens
import time
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_ssh_private_key,
)

from phalanx_lab import engine
from tests.real.failing import BASE, ENDED, ON_BOTH, Site
from tests.real.ground import (
    ACROSS,
    Ground,
    assert_same_traces,
    await_true,
    call,
    settled_traces,
)
from tests.real.test_survival import containers_of
from tests.support.failpoints import Point

pytestmark = pytest.mark.real

HOMES = ("manager.key", "admin.token", "agent.key", "client-config.json")
"""The files that hold a secret because they are its place."""


def test_private_keys_are_in_host_memory_and_nowhere_else(clean: Ground) -> None:
    began = time.time()
    planted = Path(clean.lab.state_dir, "share", "planted")
    with clean.created("-N", "3", *ACROSS) as name:
        places = clean.containers(name)
        keys = [
            path.read_bytes()
            for host in clean.lab.hosts
            for path in Path(clean.lab.plan.agent_memory(host.index)).rglob("*")
            if path.name in ("id_ed25519", "host_key") and path.is_file()
        ]
        secrets = {needle for key in keys for needle in needles(key)}
        planted.write_bytes(keys[0])  # what is searched for can be found
        told = [clean.phalanx("show", name, "-o", "json").out, clean.phalanx("env", name).out]
        for container, agent in places.items():
            host = clean.host(agent)
            one = clean.docker(host, "ps", "-q", "--filter", f"name=-{container}$").ok().split()
            found = [clean.docker(host, "inspect", each).ok() for each in one]
            assert 1 == sum(f'"{container}"' in text for text in found)
            told += found
            told.append(clean.docker(host, "logs", one[0]).out)
            told.append(clean.docker(host, "diff", one[0]).ok())
    clean.await_state(name, "cancelled")

    assert 6 == len(keys)
    hits = [
        str(path)
        for path in changed_since(Path(clean.lab.state_dir), began)
        if any(secret in path.read_bytes() for secret in secrets)
    ]
    planted.unlink()
    assert [str(planted)] == hits
    assert [] == [
        text for text in told if any(secret.decode("latin-1") in text for secret in secrets)
    ]


def needles(key: bytes) -> set[bytes]:
    """Spellings of a private key's secret: raw, in hex, and as it stands in its file."""
    if key.startswith(b"-----BEGIN"):
        seed = load_ssh_private_key(key, None).private_bytes(
            Encoding.Raw, PrivateFormat.Raw, NoEncryption()
        )
        lines = key.splitlines()[3:-1]  # the public half comes first
        return {seed, seed.hex().encode(), *(line for line in lines if len(line) > 20)}
    seed = key[-64:-32]  # Dropbear's form ends in the seed and the public half
    return {seed, seed.hex().encode()}


def changed_since(root: Path, began: float) -> list[Path]:
    """All files below a folder that were written after a moment."""
    newer = ("-newermt", f"@{began - 1:.3f}")
    done = call("find", str(root), "-type", "f", *newer, "-print0")
    return [Path(name) for name in done.out.split("\0") if name and Path(name).is_file()]


def test_tokens_and_daemons_keys_are_in_their_own_files_alone(
    clean: Ground, tmp_path: Path
) -> None:
    state = Path(clean.lab.state_dir)
    bearer = clean.http("POST", "/v1/tokens", {"name": "ann", "scope": "user"}).ok()
    joining = clean.http("POST", "/v1/agent-tokens", {"name": "nobody"}).ok()
    secrets = {
        **of_daemons(clean),
        "a user's token": bearer["token"],
        "a join token": joining["token"],
    }
    assert {"the swarm's token, Worker", "the swarm's token, Manager"} < secrets.keys()

    clean.http("GET", "/v1/sessions", token=bearer["token"]).ok()
    planted = tokens.token_hex(16)  # what is searched for can be found
    with clean.created("-N", "3", *ACROSS, "-e", f"PLANTED={planted}") as name:
        shown, taken = inspected_and_committed(clean, name, tmp_path)
    told = [
        clean.http("GET", path).body.decode()
        for path in ("/v1/nodes", "/v1/tokens", "/v1/sessions?all=1", "/v1/events", "/metrics")
    ]
    for made in (bearer, joining):
        clean.http("DELETE", f"/v1/tokens/{made['id']}")

    files = [path for path in files_of(state) if path.name not in HOMES]
    assert state / "manager" / "phalanx.db" in files
    assert state / "logs" / "manager.log" in files
    assert clean.lab.admin_token.encode() in read(state / "manager" / "admin.token")
    assert [True] * 3 == [planted in text for text in shown]
    assert [True] * 3 == [planted.encode() in image for image in taken]
    assert [True] * 3 == [b"what was written" in image for image in taken]
    for what, secret in secrets.items():
        assert [] == [str(path) for path in files if secret.encode() in read(path)], what
        assert not any(secret in text for text in told + shown), what
        assert not any(secret.encode() in image for image in taken), what


def of_daemons(ground: Ground) -> dict[str, str]:
    """The administrator's token, the daemons' keys and the swarm's tokens, by what they are."""
    state = Path(ground.lab.state_dir)
    found = {
        "the administrator's token": ground.lab.admin_token,
        "the manager's key": (state / "manager" / "manager.key").read_text().strip(),
    }
    for host in ground.lab.hosts:
        own = state / f"h{host.index}" / "agent" / "agent.key"
        found[f"the key of agent {host.name}"] = own.read_text().strip()
        code, swarm = engine.ask(host.engine_socket, "GET", "/swarm")
        if code == 200:
            found |= {f"the swarm's token, {kind}": it for kind, it in swarm["JoinTokens"].items()}
    return found


def inspected_and_committed(
    ground: Ground, session: str, folder: Path
) -> tuple[list[str], list[bytes]]:
    """What the engines show of a session's containers, and the images that are made of them."""
    shown, taken = [], []
    ground.phalanx(
        "exec", session, "--all", "--", "sh", "-c", "echo what was written >/tmp/here"
    ).ok()
    for host, container in containers_of(ground, session):
        shown.append(ground.docker(host, "inspect", container).ok())
        ground.docker(host, "commit", container, "taken:latest").ok()
        try:
            ground.docker(host, "save", "-o", f"{folder}/taken.tar", "taken:latest").ok()
        finally:
            ground.docker(host, "rmi", "taken:latest").ok()
        taken.append((folder / "taken.tar").read_bytes())
    return shown, taken


@pytest.mark.parametrize("component", ["manager", "agent-1"])
def test_a_daemon_that_crashes_leaves_no_memory_on_the_disk(clean: Ground, component: str) -> None:
    pid, state = clean.lab.pid(component), Path(clean.lab.state_dir)
    folder, planted = Path(f"/proc/{pid}/cwd").resolve(), state / "share" / "planted"
    before = {path.name for path in folder.iterdir()}
    limits = Path(f"/proc/{pid}/limits").read_text().splitlines()
    assert ["0", "0"] == next(line.split()[4:6] for line in limits if "core file" in line)

    with clean.created("-N", "3", *ACROSS):
        began = time.time()
        known, keys = of_daemons(clean).items(), of_containers(clean)
        # The swarm's tokens are the engines', who write them to their own folders.
        secrets = keys | {what: it.encode() for what, it in known if "swarm" not in what}
        planted.write_bytes(b"\n".join(secrets.values()))  # what is searched for can be found
        clean.http("GET", "/v1/sessions").ok()
        call("kill", "-ABRT", str(pid)).ok()
        await_true("it is there again", lambda: clean.lab.pid(component) not in (0, pid))
        await_true("it works again", lambda: clean.run("--", "true").code == 0)

    changed = {path: read(path) for path in changed_since(state, began) if path.name not in HOMES}
    planted.unlink()
    assert before == {path.name for path in folder.iterdir()}
    assert len(keys) >= 6
    assert state / "logs" / f"{component}.log" in changed
    for what, secret in secrets.items():
        assert [planted] == [path for path, text in changed.items() if secret in text], what


def of_containers(ground: Ground) -> dict[str, bytes]:
    """Spellings of the private keys of all containers, by the files that they are of."""
    return {
        f"{path}, {number}": needle
        for host in ground.lab.hosts
        for path in Path(ground.lab.plan.agent_memory(host.index)).rglob("*")
        if path.name in ("id_ed25519", "host_key")
        for number, needle in enumerate(needles(path.read_bytes()))
    }


def test_an_exception_that_nobody_expected_writes_down_nothing_of_what_was_in_hand(
    failing: Site,
) -> None:
    before, planted = settled_traces(failing.ground), tokens.token_hex(16)
    logs = [Path(path) for path in failing.ground.lab.logs()]
    known = {path: path.stat().st_size for path in logs}
    bugs = {
        "manager": Point("store.submit", "before", "raise"),
        "agent-1": Point("docker.create_container", "before", "raise"),
        "agent-2": Point("docker.start", "after", "raise"),
    }
    for component, point in bugs.items():
        point.arm(failing.folder(component))
    wish = {**ON_BOTH, "command": ["true"], "env": {"PLANTED": planted}}
    whole = {"image": BASE, "kind": "batch", "egress": False, **wish}

    failed = failing.ground.http("POST", "/v1/sessions", whole)
    session = failing.submit(**wish)
    ended = failing.await_state(session, *ENDED)

    said = {path.stem: path.read_bytes()[known[path] :].decode() for path in logs}
    for component, point in bugs.items():
        assert "Traceback" in said[component]
        assert f"RuntimeError: a bug at {point.call}" in said[component]
    assert (500, "succeeded") == (failed.status, ended["state"])
    assert planted in json.dumps(failing.view(session))  # its user may see it
    for secret in (planted, failing.ground.lab.admin_token):
        assert secret not in failed.body.decode()
        assert [] == [component for component, text in said.items() if secret in text]
    assert_same_traces(before, failing.ground)


def files_of(state: Path) -> list[Path]:
    """All of a lab's files but the engines' own."""
    return [
        path
        for path in state.rglob("*")
        if path.is_file() and "engine" not in path.relative_to(state).parts
    ]


def read(path: Path) -> bytes:
    """A file's content; nothing when it has gone meanwhile."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return b""
