"""What we cost: the runner in a container, the daemons on a host, the command line."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from phalanx_agent.host import keys
from phalanx_lab.lab import Lab
from phalanx_runner import bundle
from phalanx_runner.conf import RunnerConf
from tests.bench import probe, raw
from tests.bench.installation import ROOT
from tests.bench.ours import Manager
from tests.bench.starts import IMAGE, MEM, PIDS, SHM, settings

SESSIONS, RANKS = 5, 10
MANY = SESSIONS * RANKS
GANG = 16
CALLS = 20
IDLE_S = 30.0
PHALANX = str(Path(sys.executable).with_name("phalanx"))
SLEEP = ["sleep", "1000"]
TELL_THE_TIME = ["bash", "-c", "echo $EPOCHREALTIME; exec sleep 1000"]  # no process of its own
SSH_LOOP = f"""
for i in $(seq {CALLS + 1}); do
    a=$(date +%s%N); ssh sub1 true || exit 1; b=$(date +%s%N); echo $((b - a))
done
"""


@dataclass(frozen=True)
class Finding:
    """One figure; the target is the most that it may be, None where there is none.

    load: the machine's load average when it was there.
    """

    what: str
    value: float
    unit: str
    target: float | None = None
    load: float = 0.0

    @property
    def met(self) -> bool | None:
        return None if self.target is None else self.value <= self.target


def say(finding: Finding) -> Finding:
    """Show one when it is there, and note the load."""
    finding = replace(finding, load=round(os.getloadavg()[0], 1))
    print(
        f"  {finding.what}: {finding.value:.3g} {finding.unit}, load {finding.load}",
        flush=True,
    )
    return finding


def spec(size: int, command: list[str], cpu: float) -> dict[str, Any]:
    """A session on one host."""
    resources = {"cpu": cpu, "mem": MEM, "shm": SHM, "pids": PIDS}
    return {
        "mode": "single-node",
        "size": size,
        "image": IMAGE,
        "command": command,
        "resources": resources,
    }


# -------------------------------------------------------------------- the bundle


def of_the_bundle() -> list[Finding]:
    """Its size, and the time to build it from sources that are here."""
    path = bundle.locate()
    size = sum(file.lstat().st_size for file in path.rglob("*"))
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "phalanx_runner.build", "--force", "--out", folder]
        env = {**os.environ, "PYTHONPATH": str(ROOT / "kernel-runner")}  # a wheel has no sources
        began = time.monotonic()
        subprocess.run(command, check=True, capture_output=True, env=env)
        took = time.monotonic() - began
    return [
        say(Finding("the runner's bundle", size / 1e6, "MB", 8)),
        say(Finding("building it, once", took, "s")),
    ]


# ---------------------------------------------------------------- in a container


async def of_containers(lab: Lab, rounds: int) -> list[Finding]:
    """The runner against a plain container, then whole sessions."""
    (host,) = lab.hosts
    async with raw.Engine(host.engine_socket) as engine:
        found = await _of_the_runner(engine, rounds)
    async with Manager(lab.url, lab.admin_token) as manager:
        found.append(await _lateness(manager, host.engine_socket, rounds))
        found.append(await _ssh_to_a_peer(manager, host.engine_socket))
    return found


async def _of_the_runner(engine: raw.Engine, rounds: int) -> list[Finding]:
    """The first round is not counted."""
    over, banners, memory = [], [], []
    with tempfile.TemporaryDirectory() as folder:
        material = _material(Path(folder))
        for _ in range(rounds + 1):
            async with _container(engine, None) as (pid, _began):
                plain = probe.container_cpu_ms(pid)
            async with _container(engine, material) as (pid, _began):
                await asyncio.to_thread(_call, pid, b"PHXPING\n", b"PHXPONG\n")
                over.append(probe.container_cpu_ms(pid) - plain)
                memory.append(probe.rss_mb(pid))
            async with _container(engine, material) as (pid, began):
                await asyncio.to_thread(_call, pid, b"SSH-2.0-bench\r\n", b"SSH-2.0-")
                banners.append(1000 * (time.monotonic() - began))
    return [
        say(Finding("runner: CPU until ready, over a plain one", _median(over[1:]), "ms", 10)),
        say(Finding("runner: memory of PID 1", _median(memory[1:]), "MB", 1)),
        say(Finding("start returned to ssh banner", _median(banners[1:]), "ms", 50)),
    ]


def _call(pid: int, word: bytes, answer: bytes) -> None:
    said = probe.in_network_of(pid, lambda: probe.ask_ssh_port(word))
    if not said.startswith(answer):
        raise RuntimeError(f"the ssh port answered {said!r}")


def _material(folder: Path) -> Path:
    (folder / "ssh").mkdir()
    (folder / "runner.conf").write_text(RunnerConf("bench").render())
    (folder / "ssh" / "host_key").write_bytes(keys.fresh().dropbear())
    folder.chmod(0o755)
    return folder


@asynccontextmanager
async def _container(engine: raw.Engine, material: Path | None) -> AsyncIterator[tuple[int, float]]:
    """A container with the runner, or a plain one: its process, and when its start returned."""
    host: dict[str, Any] = {**settings(), "NanoCpus": 10**9, "NetworkMode": "none"}
    body: dict[str, Any] = {"Image": IMAGE, "Cmd": SLEEP, "HostConfig": host}
    if material:
        body["Entrypoint"] = ["/opt/phalanx/bin/phalanx-init"]
        host["Binds"] = [f"{bundle.locate()}:/opt/phalanx:ro", f"{material}:/run/phalanx:ro"]
    made = await engine.ask("POST", "containers/create", body)
    try:
        await engine.ask("POST", f"containers/{made['Id']}/start")
        began = time.monotonic()
        inspected = await engine.ask("GET", f"containers/{made['Id']}/json")
        yield inspected["State"]["Pid"], began
    finally:
        await engine.ask("DELETE", f"containers/{made['Id']}?force=1&v=1")


async def _lateness(manager: Manager, engine: str, rounds: int) -> Finding:
    late = []
    for _ in range(rounds):
        view, _took = await manager.start(spec(GANG, TELL_THE_TIME, 1.0))
        try:
            names = [_name(view, kernel["host_name"]) for kernel in view["kernels"]]
            told = [_first_word(engine, name) for name in names]
            times = sorted(float(word) * 1e3 for word in told)
            late += [moment - times[0] for moment in times[1:]]
        finally:
            await manager.stop(view["id"])
    p95 = statistics.quantiles(late, n=20)[-1]
    return say(Finding(f"lateness among {GANG} ranks, p95", p95, "ms", 50))


async def _ssh_to_a_peer(manager: Manager, engine: str) -> Finding:
    view, _took = await manager.start(spec(2, SLEEP, 1.0))
    try:
        said = _docker(engine, "exec", _name(view, "main1"), "sh", "-c", SSH_LOOP)
    finally:
        await manager.stop(view["id"])
    took = _median([int(word) / 1e6 for word in said.split()[1:]])
    return say(Finding("ssh to a peer, true, and back", took, "ms", 60))


def _name(view: dict[str, Any], host_name: str) -> str:
    return f"phx-{view['id']}-{view['attempt']}-{host_name}"


def _first_word(engine: str, name: str) -> str:
    """What a container says first; a session runs before all of its output has been read."""
    deadline = time.monotonic() + 10
    while not (said := _docker(engine, "logs", name).split()):
        if time.monotonic() > deadline:
            raise RuntimeError(f"{name} has said nothing")
        time.sleep(0.05)
    return said[0]


def _docker(engine: str, *words: str) -> str:
    command = ["docker", "-H", f"unix://{engine}", *words]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout


# ------------------------------------------------------- daemons and command line


async def of_daemons(lab: Lab) -> list[Finding]:
    """Manager and agent as two processes, with many containers; and the command line."""
    env = {**os.environ, "PHALANX_URL": lab.url, "PHALANX_TOKEN": lab.admin_token}
    async with Manager(lab.url, lab.admin_token) as manager:
        views = [(await manager.start(spec(RANKS, SLEEP, 0.1)))[0] for _ in range(SESSIONS)]
        try:
            found = [
                say(Finding("phalanx --help", _calls([PHALANX, "--help"], env), "ms", 100)),
                say(Finding("phalanx ps", _calls([PHALANX, "ps"], env), "ms", 200)),
            ]
            pids = {name: lab.pid(name) for name in ("agent-1", "manager")}
            busy = {name: probe.cpu_s(pid) for name, pid in pids.items()}
            await asyncio.sleep(IDLE_S)
            for name, pid in pids.items():
                title = f"{name.removesuffix('-1')}, idle with {MANY} containers"
                share = 100 * (probe.cpu_s(pid) - busy[name]) / IDLE_S
                target = 60.0 if name == "agent-1" else None
                found.append(say(Finding(f"{title}: memory", probe.rss_mb(pid), "MB", target)))
                found.append(say(Finding(f"{title}: CPU", share, "% of a core")))
        finally:
            for view in views:
                await manager.stop(view["id"])
    return found


def _calls(command: list[str], env: dict[str, str]) -> float:
    """The median of whole processes, in ms; the first is not counted."""
    took = []
    for _ in range(CALLS + 1):
        began = time.monotonic()
        subprocess.run(command, check=True, capture_output=True, env=env, timeout=30)
        took.append(1000 * (time.monotonic() - began))
    return _median(took[1:])


def of_one_process(lab: Lab) -> list[Finding]:
    """`phalanx up` on one host, idle with many containers."""
    (host,) = lab.hosts
    inside = ["nsenter", f"--target={lab.pid('engine-1')}", "--mount", "--net"]
    resources = ["-c", "0.03", "-m", "64M", "--pids", str(PIDS), "--shm", "32M"]
    submit = ["run", "-N", str(RANKS), "-i", IMAGE, "--detach", *resources, "-J"]
    title = f"both in one process, idle with {MANY} containers"
    names = [f"idle{number}" for number in range(SESSIONS)]
    with tempfile.TemporaryDirectory() as folder:
        program = [*inside, PHALANX]
        env = {**os.environ, "PHALANX_CONFIG": f"{folder}/config.toml"}
        with _up(program, host.engine_socket, folder, env) as pid:
            for name in names:
                subprocess.run([*program, *submit, name, "--", *SLEEP], check=True, env=env)
            for name in names:
                wait = [*program, "wait", name, "--until", "running"]
                subprocess.run(wait, check=True, env=env, timeout=100)
            busy = probe.cpu_s(pid)
            time.sleep(IDLE_S)
            share = 100 * (probe.cpu_s(pid) - busy) / IDLE_S
            found = [
                say(Finding(f"{title}: memory", probe.rss_mb(pid), "MB", 90)),
                say(Finding(f"{title}: CPU", share, "% of a core", 0.5)),
            ]
            for name in names:
                subprocess.run([*program, "stop", "--grace", "0s", name], check=True, env=env)
            for name in names:  # ends with the session's code
                gone = [*program, "wait", name, "--until", "removed"]
                subprocess.run(gone, check=False, env=env, timeout=100)
    return found


@contextlib.contextmanager
def _up(program: list[str], engine: str, folder: str, env: dict[str, str]) -> Iterator[int]:
    """Run `phalanx up`; its process."""
    words = ["up", "--data", f"{folder}/data", "--listen", "127.0.0.1:7999", "--name", "here"]
    command = [*program, *words, "--engine", f"unix://{engine}"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=env) as running:
        try:
            first = running.stdout.readline() if running.stdout else ""
            if not first.startswith("phalanx is up"):
                raise RuntimeError(f"phalanx up said {first!r}")
            yield running.pid
        finally:
            running.terminate()
            running.wait(timeout=30)
            for memory in (Path("/run"), Path("/dev/shm")):  # where `up` keeps keys
                for left in memory.glob(f"phalanx-up-*{Path(folder).name}-data"):
                    shutil.rmtree(left)


def _median(values: list[float]) -> float:
    return statistics.median(values)
