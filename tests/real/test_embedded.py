"""One process on one machine is enough, and it may come and go while sessions run."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from phalanx_lab.lab import Host, Lab
from tests.real.ground import BASE, SMALL, Done, await_true, call, ranks

pytestmark = pytest.mark.real

LAB = f"real{os.getpid()}e"
READY_WITHIN = 30.0
COUNT = "i=0; until [ -e /tmp/enough ]; do i=$((i+1)); echo $i; sleep 0.1; done; exit 7"


@dataclass(frozen=True)
class Machine:
    """A host with an engine and nothing else of ours, and a folder for `phalanx up`."""

    lab: Lab
    folder: Path

    @property
    def host(self) -> Host:
        return self.lab.hosts[0]

    @property
    def inside(self) -> list[str]:
        """What brings a command into the host's own view of files and networks."""
        return ["nsenter", f"--target={self.lab.pid('engine-1')}", "--mount", "--net"]

    @property
    def env(self) -> dict[str, str]:
        return {"PHALANX_CONFIG": str(self.folder / "config.toml")}

    def phalanx(self, *arguments: str) -> Done:
        """The command line, which finds its manager by the file that `up` wrote."""
        program = (sys.executable, "-m", "phalanx_client")
        return call(*self.inside, *program, *arguments, env=self.env)

    @contextlib.contextmanager
    def up(self) -> Iterator[subprocess.Popen[str]]:
        """`phalanx up`, from when it says so until it has ended by SIGTERM."""
        arguments = ["up", "--data", str(self.folder / "data"), "--listen", "127.0.0.1:7999"]
        arguments += ["--engine", f"unix://{self.host.engine_socket}", "--name", "here"]
        program = [*self.inside, sys.executable, "-m", "phalanx_client", *arguments]
        log = self.folder / "up.log"
        with (
            log.open("a") as sink,
            subprocess.Popen(
                program,
                stdout=subprocess.PIPE,
                stderr=sink,
                text=True,
                env={**os.environ, **self.env},
            ) as running,
        ):
            assert running.stdout is not None
            first = running.stdout.readline()
            assert first.startswith("phalanx is up"), first + log.read_text()[-3000:]
            yield running
            running.terminate()
            running.stdout.read()
            assert 0 == running.wait(timeout=20), log.read_text()[-3000:]

    def left(self) -> tuple[str, ...]:
        """Names of all containers and networks of the engine."""
        ask = ("docker", "-H", f"unix://{self.host.engine_socket}")
        names = call(*ask, "ps", "-a", "--format", "{{.Names}}").ok()
        return (*names.split(), *call(*ask, "network", "ls", "--format", "{{.Name}}").ok().split())


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    with Lab.up(LAB, 1, engines_only=True) as lab:
        lab.load("base")
        folder = tmp_path_factory.mktemp("embedded")
        yield Machine(lab, folder)
    name = f"phalanx-up-{str(folder).strip('/').replace('/', '-')}-data"
    for memory in (Path("/run") / name, Path("/dev/shm") / name):
        if memory.exists():
            for part in ("k", "x"):
                (memory / part).rmdir()  # which fails when a key or a note was left behind
            memory.rmdir()


def test_a_session_runs_on_this_machine_alone_and_leaves_nothing(machine: Machine) -> None:
    with machine.up():
        submit = ("run", *SMALL, "-i", BASE)
        first = machine.phalanx(
            *submit, "-N", "2", "--run-on", "main", "--", "ssh", "sub1", "printenv", "RANK"
        )
        nodes = machine.phalanx("nodes", "-o", "name").ok()
        left = machine.left()

    assert {0: ["1"]} == ranks(first.ok())
    assert "here\n" == nodes
    assert [] == [name for name in left if name.startswith("phx-") and name != "phx-egress"]


def test_a_running_session_goes_on_while_phalanx_is_stopped_and_started(machine: Machine) -> None:
    submit = ("run", *SMALL, "-i", BASE, "-N", "2", "-J", "goes-on", "--detach")
    with machine.up():
        machine.phalanx(*submit, "--on-failure", "continue", "--", "sh", "-c", COUNT).ok()
        machine.phalanx("wait", "goes-on", "--until", "running").ok()
    between = machine.left()
    with machine.up():
        seen = ranks(machine.phalanx("logs", "goes-on").ok())
        await_true("it is seen again", lambda: "running" in machine.phalanx("ps").ok())
        await_true(
            "it is reached again",
            lambda: machine.phalanx("exec", "goes-on", "--all", "--", "true").code == 0,
            READY_WITHIN,
        )
        machine.phalanx("exec", "goes-on", "--all", "--", "touch", "/tmp/enough").ok()
        waited = machine.phalanx("wait", "goes-on")
        told = ranks(machine.phalanx("logs", "goes-on").ok())
        await_true("it is gone", lambda: not [n for n in machine.left() if "main1" in n])

    assert 2 == len([name for name in between if name.endswith(("main1", "sub1"))])
    assert 7 == waited.code
    for rank, said in told.items():
        assert [str(number) for number in range(1, len(said) + 1)] == said
        assert len(said) > len(seen.get(rank, []))


def test_what_ended_while_phalanx_was_away_is_known_afterwards(machine: Machine) -> None:
    submit = ("run", *SMALL, "-i", BASE, "-J", "ends-alone", "--detach")
    with machine.up():
        machine.phalanx(*submit, "--", "sh", "-c", COUNT).ok()
        machine.phalanx("wait", "ends-alone", "--until", "running").ok()
    name = next(name for name in machine.left() if name.endswith("main1"))
    ask = ("docker", "-H", f"unix://{machine.host.engine_socket}")
    call(*ask, "exec", name, "touch", "/tmp/enough").ok()
    with machine.up():
        waited = machine.phalanx("wait", "ends-alone")
        told = machine.phalanx("logs", "ends-alone", "--no-prefix").ok()

    assert 7 == waited.code
    assert "1\n2\n" == told[:4]
