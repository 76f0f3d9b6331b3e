"""How containers begin and end under the runner, on a real engine, with nobody else involved."""

from __future__ import annotations

import asyncio
import json
import shutil
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from phalanx_lab import hostile
from phalanx_runner import bundle, messages
from phalanx_runner.messages import Exited, MeshFailed, MeshOk, Started
from tests.real.crew import PATIENCE_S, Kernel, Wish, ask_all, crew, docker

pytestmark = pytest.mark.real

LOOP = "echo ready; while :; do sleep 0.05; done"
ORPHANS = """
i=0; while [ $i -lt 200 ]; do (true &); i=$((i+1)); done
while grep -qs "^State:.Z" /proc/[0-9]*/status; do sleep 0.02; done
exit 6
"""


@dataclass(frozen=True)
class End:
    """A container that ends by itself, or is stopped by the engine, and how.

    `by_engine`: `docker stop` is what ends it; its command says something first.
    """

    command: Sequence[str]
    code: int
    signal: int = 0
    options: Sequence[str] = ()
    image: str = "busybox"
    by_engine: bool = False
    out_of_memory: bool = False


ENDS = {
    "with its own code": End(("sh", "-c", "exit 3"), 3),
    "at once": End(("true",), 0),
    "with the largest code": End(("sh", "-c", "exit 255"), 255),
    "with its output closed": End(("sh", "-c", "exec >&- 2>&- <&-; exit 7"), 7),
    "by a signal": End(("sh", "-c", "kill -9 $$"), 137, 9),
    "without its program": End(("/no/such/program",), 127),
    "at what is no program": End(("/etc",), 126),
    "out of memory": End(
        ("tail", "/dev/zero"), 137, 9, options=("--memory", "16m"), out_of_memory=True
    ),
    "though it killed all": End(("sh", "-c", "sleep 1000 & kill -9 -1; exit 4"), 4),
    "with orphans and no zombie": End(("sh", "-c", ORPHANS), 6),
    "though a daemon stays": End(("sh", "-c", "setsid sleep 1000 & exit 5"), 5),
    "stopped, by its trap": End(("sh", "-c", f"trap 'exit 42' TERM; {LOOP}"), 42, by_engine=True),
    "stopped oddly": End(
        (*hostile.ENTRYPOINT, *hostile.COMMAND), 42, image="hostile", by_engine=True
    ),
}


@dataclass(frozen=True)
class Found:
    """What came of a container: as it was told, and as the engine has it."""

    told: Exited
    engine_code: int
    took_s: float


@pytest.fixture(scope="module")
def found(
    runner_engine: str, tmp_path_factory: pytest.TempPathFactory
) -> Mapping[str, Found | BaseException]:
    """All of them at once."""
    return asyncio.run(_all_ends(runner_engine, tmp_path_factory.mktemp("ends")))


@pytest.mark.parametrize("how", ENDS)
def test_a_container_ends_as_its_command_did(
    found: Mapping[str, Found | BaseException], how: str
) -> None:
    outcome = found[how]

    if isinstance(outcome, BaseException):
        raise outcome
    told, end = outcome.told, ENDS[how]
    # The engine's own word for it is not asked: it misses two or three of a hundred.
    assert (end.code, end.signal, end.out_of_memory) == (told.code, told.signal, told.oom_kills > 0)
    assert end.code == outcome.engine_code
    assert outcome.took_s < 3


async def _all_ends(socket: str, folder: Path) -> dict[str, Found | BaseException]:
    names = {how: f"end{number}" for number, how in enumerate(ENDS)}
    wishes = [
        Wish(
            names[how],
            f"phalanx/{end.image}",
            end.command,
            options=end.options,
            linger_s=0,
            peers=[names[how]],
        )
        for how, end in ENDS.items()
    ]
    async with crew(socket, folder, wishes) as kernels:
        told = await asyncio.gather(
            *(_end(kernels[names[how]], end) for how, end in ENDS.items()), return_exceptions=True
        )
    return dict(zip(ENDS, told, strict=True))


async def _end(kernel: Kernel, end: End) -> Found:
    if end.by_engine:
        await _has_said_something(kernel)
        began = time.monotonic()
        await docker(kernel.engine, "stop", "-t", "20", kernel.container)
    else:
        await kernel.wait(Exited)
        began = time.monotonic()
        await docker(kernel.engine, "wait", kernel.container)
    took_s = time.monotonic() - began
    exited = await kernel.wait(Exited)
    state = await docker(kernel.engine, "inspect", "-f", "{{.State.ExitCode}}", kernel.container)
    return Found(exited, int(state.stdout), took_s)


async def _has_said_something(kernel: Kernel) -> None:
    """A command that has printed has its trap in place."""
    process = await asyncio.create_subprocess_exec(
        "docker", "-H", f"unix://{kernel.engine}", "logs", "-f", kernel.container,
        stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert process.stdout is not None
    async with asyncio.timeout(PATIENCE_S):
        await process.stdout.readline()
    process.kill()
    await process.communicate()


# ---------------------------------------------------------------- the barrier


async def test_sixteen_commands_start_together_and_their_runners_cost_nothing(
    runner_engine: str, tmp_path: Path
) -> None:
    wishes = [Wish(f"rank{rank}", "phalanx/busybox", ("sleep", "1000")) for rank in range(16)]

    async with crew(runner_engine, tmp_path, wishes, mesh=False) as kernels:
        before = [cpu_ns(kernel) for kernel in kernels.values()]
        await ask_all(kernels.values(), messages.mesh(), MeshOk)
        began = time.time()
        await ask_all(kernels.values(), messages.start(), Started)
        spent = [cpu_ns(k) - b for k, b in zip(kernels.values(), before, strict=True)]
        started = [(await kernel.wait(Started)).stamp.t / 1e6 for kernel in kernels.values()]
        mesh = [(await kernel.wait(MeshOk)).ms for kernel in kernels.values()]
        resident = [resident_kb(kernel) for kernel in kernels.values()]
        visits = await kernels["rank0"].sh(
            "for i in $(seq 20); do a=$(cut -d' ' -f1 /proc/uptime); ssh rank1 true; "
            "echo $a $(cut -d' ' -f1 /proc/uptime); done"
        )

    assert max(started) - began < 0.3
    assert statistics.median(spent) < 10e6
    assert max(resident) < 1024
    assert max(mesh) < 2000
    times = [float(end) - float(begin) for begin, end in map(str.split, visits.splitlines())]
    assert min(times) < 0.06


async def test_a_peer_that_never_listens_is_named_and_no_command_runs(
    runner_engine: str, tmp_path: Path
) -> None:
    wishes = [
        Wish(name, "phalanx/busybox", ("echo", "ran"), mesh_timeout_s=1) for name in ("one", "two")
    ]
    async with crew(runner_engine, tmp_path, wishes, mesh=False) as kernels:
        await docker(runner_engine, "rm", "-f", kernels["two"].container)
        kernels["one"].send(messages.mesh())
        failed = await kernels["one"].wait(MeshFailed)
        said = await docker(runner_engine, "logs", kernels["one"].container)

    assert ("two",) == failed.peers
    assert "" == said.stdout


def cpu_ns(kernel: Kernel) -> int:
    """Nanoseconds of CPU that a container has used, by its control group of either version."""
    for line in Path(f"/proc/{kernel.pid}/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        if "cpuacct" in controllers.split(","):
            return int(Path(f"/sys/fs/cgroup/cpuacct{path}/cpuacct.usage").read_text())
        if not controllers and Path(f"/sys/fs/cgroup{path}/cpu.stat").exists():
            used = Path(f"/sys/fs/cgroup{path}/cpu.stat").read_text().split()
            return int(used[used.index("usage_usec") + 1]) * 1000
    raise AssertionError(f"{kernel.name} has no control group that counts")


def resident_kb(kernel: Kernel) -> int:
    lines = Path(f"/proc/{kernel.pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS"))


# ---------------------------------------------------------------- the bundle


async def test_containers_of_an_old_and_a_new_bundle_are_one_session(
    runner_engine: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state, newer = tmp_path / "state", tmp_path / "newer"
    old = bundle.install(state)
    shutil.copytree(bundle.locate(), newer, symlinks=True)
    (newer / "licences" / "one-more").write_text("Another version has other files.\n")
    manifest = json.loads((newer / bundle.MANIFEST).read_bytes())
    manifest["digest"] = bundle.digest_of(newer)
    (newer / bundle.MANIFEST).write_text(json.dumps(manifest))
    wait = ("sleep", "1000")
    runs = Wish("old", "phalanx/busybox", wait, bundle=old, peers=("old",))

    async with crew(runner_engine, tmp_path / "m1", [runs]) as early:
        monkeypatch.setenv("PHALANX_BUNDLE", str(newer))
        new = bundle.install(state)
        still = await early["old"].sh("ssh old echo still here")
    both = [
        Wish(name, "phalanx/busybox", wait, bundle=path)
        for name, path in (("before", old), ("after", new))
    ]
    async with crew(runner_engine, tmp_path / "m2", both) as kernels:
        visits = [
            await kernels["before"].sh("ssh after hostname"),
            await kernels["after"].sh("ssh before hostname"),
        ]

    assert "still here\n" == still
    assert old != new
    assert ["after\n", "before\n"] == visits
