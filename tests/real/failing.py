"""A lab whose daemons die and freeze where they are told to, and users who are patient."""

from __future__ import annotations

import contextlib
import http.client
import itertools
import json
import os
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from phalanx_lab.lab import Lab
from phalanx_lab.unavailable import Unavailable
from phalanx_lab.wish import Options
from tests.real.ground import ACROSS, ROOT, Answer, Ground, await_true, call
from tests.support.failpoints import MODES, MOMENTS, Point

Armed = Mapping[str, Sequence[Point]]
"""Points by the daemon's component: `agent-1`, `manager`."""

PATIENCE_S = 200.0
"""Engines that were killed or cut off may need minutes until they know each other again."""
FROZEN_S = 0.4
"""How long a process that froze stays so."""

BASE = "phalanx/base"
ENDED = ("succeeded", "failed", "cancelled", "timeout")
ON_BOTH = {"size": 2, "mode": "multi-node", "spread": "one-per-node"}
WITNESS = 'echo "$PHALANX_SESSION_ID $PHALANX_ATTEMPT $RANK" >> /share/witness; '
"""What a command that is counted begins with."""

WHOEVER = frozenset(("docker.swarm_init", "docker.swarm_join"))
"""Calls that one agent makes for all: which one is the manager's choice."""

_keys = itertools.count(1)


class Site:
    """A lab whose daemons have points of failure, and its users, who are patient."""

    def __init__(self, ground: Ground) -> None:
        self.ground = ground
        self.share = Path(ground.lab.plan.state) / "share"
        witness = self.share / "witness"
        witness.touch()
        witness.chmod(0o666)  # some commands run as nobody in particular

    def folder(self, component: str) -> Path:
        """Where a daemon's points are armed."""
        plan = self.ground.lab.plan
        if component == "manager":
            return Path(plan.state) / "manager"
        return Path(plan.agent_memory(int(component.removeprefix("agent-"))))

    def folders(self, component: str, point: Point) -> list[Path]:
        """Where a point is armed that a daemon, or whoever makes the call, comes past."""
        if point.call not in WHOEVER:
            return [self.folder(component)]
        return [self.folder(f"agent-{host.index}") for host in self.ground.lab.hosts]

    def left(self, armed: Armed) -> list[str]:
        """Points that nobody has come past."""
        return [
            f"{component}: {point.call}, {point.when}, {point.mode}"
            for component, points in armed.items()
            for point in points
            if all(point.is_armed(folder) for folder in self.folders(component, point))
        ]

    def restart(self, component: str) -> None:
        """Let a daemon begin anew."""
        with contextlib.suppress(Unavailable, ProcessLookupError):  # it is on its way already
            self.ground.lab.fault("kill", component)

    def begin_anew(self, component: str) -> None:
        """Kill a daemon, and wait for the next one."""
        lab = self.ground.lab
        await_true(f"there is a {component}", lambda: lab.pid(component) != 0)
        first = lab.pid(component)
        lab.fault("kill", component)
        await_true(f"there is a new {component}", lambda: lab.pid(component) not in (0, first))

    def works(self, host: int) -> bool:
        """Whether a host takes work, on the session network too."""
        for node in self.ask("GET", "/v1/nodes").ok()["nodes"]:
            if node["name"] == f"host{host}":
                return node["state"] == "ready" and "active" in node["swarm"]
        return False

    # ------------------------------------------------------------ as a user

    def ask(self, method: str, path: str, body: Any = None, **headers: str) -> Answer:
        """Ask the manager again and again, until it answers: it may die or freeze at any time."""
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        deadline = time.monotonic() + PATIENCE_S
        while True:
            try:
                answer = self.ground.http(method, path, body, headers=sent)
                if answer.status < 500:
                    return answer
                trouble = f"{answer.status}: {answer.body[:300]!r}"
            except (OSError, http.client.HTTPException) as error:
                trouble = repr(error)
            assert time.monotonic() < deadline, f"{method} {path}: {trouble}"
            time.sleep(0.05)

    def submit(self, **spec: Any) -> str:
        """Ask for a session, once, however often it has to be said; its id."""
        key = f"walk-{os.getpid()}-{next(_keys)}"
        whole = {"image": BASE, "kind": "batch", "egress": False, **spec}
        view = self.ask("POST", "/v1/sessions", whole, Idempotency_Key=key).ok()
        return str(view["id"])

    def view(self, session: str) -> dict[str, Any]:
        """What a session looks like."""
        seen: dict[str, Any] = self.ask("GET", f"/v1/sessions/{session}").ok()
        return seen

    def await_state(self, session: str, *states: str, within: float = PATIENCE_S) -> dict[str, Any]:
        """Wait until a session is so; what it looks like then."""
        seen: dict[str, Any] = {}

        def there() -> bool:
            seen.update(self.view(session))
            return seen["state"] in states

        try:
            await_true(f"{session} is {' or '.join(states)}", there, within)
        except AssertionError as late:
            late.add_note(json.dumps(seen, indent=2))
            late.add_note(json.dumps(self.ask("GET", "/v1/nodes").ok(), indent=2))
            raise
        return seen

    def do(self, session: str, verb: str, body: Any = None) -> None:
        """Ask something of a session; that it was done already is fine."""
        self.ask("POST", f"/v1/sessions/{session}/{verb}", body)

    def stop(self, session: str, grace_s: float = 0.0) -> None:
        """Stop a session."""
        self.do(session, "stop", {"grace_s": grace_s})

    def nodes(self) -> dict[str, str]:
        """The states of all agents by their names."""
        return {node["name"]: node["state"] for node in self.ask("GET", "/v1/nodes").ok()["nodes"]}

    def take_in(self, name: str, cluster: str = "guests") -> str:
        """Let an agent join that is never heard of again, in a pool of its own; its token's id."""
        self.ask("POST", "/v1/clusters", {"name": cluster})
        wish = {"name": name, "cluster": cluster}
        token = self.ask("POST", "/v1/agent-tokens", wish).ok()
        folder = self.share.parent / name
        folder.mkdir(exist_ok=True)
        program = ("-m", "tests.support.enrolling", str(folder), name, token["token"])
        netns = ("ip", "netns", "exec", self.ground.lab.hosts[0].netns)
        call(*netns, sys.executable, *program).ok()
        return str(token["id"])

    def clear(self) -> None:
        """Stop what a failed test has left."""
        for session in self.ask("GET", "/v1/sessions").ok()["sessions"]:
            self.stop(session["id"])

    def witnesses(self) -> Counter[str]:
        """How often the command of each `SESSION ATTEMPT RANK` has run."""
        return Counter((self.share / "witness").read_text().splitlines())

    def times_run(self, session: str) -> int:
        """How often a session's command has begun."""
        return sum(n for line, n in self.witnesses().items() if line.startswith(session))


@contextlib.contextmanager
def failing_lab(name: str, hosts: int, config: Path) -> Iterator[Site]:
    """A lab whose daemons have points of failure; some agents are known that nobody hears of."""
    patch = pytest.MonkeyPatch()
    patch.setenv("PHALANX_CONFIG", str(config))
    patch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]))
    options = Options(
        manager_module="tests.support.failing_manager",
        agent_module="tests.support.failing_agent",
        # Only agents without sessions are lost so soon: these have a time of their own.
        manager={"lost_after_s": 10.0, "heartbeat_s": 1.0},
    )
    try:
        with Lab.up(name, hosts, **options) as lab:
            site = Site(Ground(lab, config))
            gone = {f"gone{number}" for number in range(len(MODES) * len(MOMENTS))}
            with ThreadPoolExecutor() as pool:
                list(pool.map(site.take_in, gone))
            lab.load("base")
            site.ground.run("-N", str(hosts), *ACROSS, "--", "true", timeout=180).ok()
            await_true("all is lost", lambda: all(site.nodes()[name] == "lost" for name in gone))
            yield site
    finally:
        patch.undo()


def containers(ground: Ground, session: str) -> Iterator[tuple[Any, str]]:
    """Where a session's containers are, and their ids."""
    chosen = ("--filter", f"label=io.phalanx.session={session}")
    for host in ground.lab.hosts:
        for container in ground.docker(host, "ps", "-aq", *chosen).ok().split():
            yield host, container


@contextlib.contextmanager
def thawing(site: Site, armed: Armed) -> Iterator[None]:
    """Meanwhile, let each daemon that froze go on after a while, and kill each second one."""
    over, turn = threading.Event(), itertools.count()
    frozen: dict[int, float] = {}
    # A call that one agent makes for all may freeze one that has no points of its own.
    daemons = armed.keys() | {f"agent-{host.index}" for host in site.ground.lab.hosts}

    def look() -> None:
        for component in daemons:
            pid = site.ground.lab.pid(component)
            if not pid or state_of(pid) != "T":
                frozen.pop(pid, None)
            elif time.monotonic() - frozen.setdefault(pid, time.monotonic()) > FROZEN_S:
                del frozen[pid]
                number = signal.SIGKILL if next(turn) % 2 else signal.SIGCONT
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, number)

    def watch() -> None:
        while not over.wait(0.03):
            look()

    watching = threading.Thread(target=watch)
    watching.start()
    try:
        yield
    finally:
        over.set()
        watching.join()
        for component in daemons:
            pid = site.ground.lab.pid(component)
            if pid and state_of(pid) == "T":
                os.kill(pid, signal.SIGCONT)


def kill_containerd(lab: Lab, host: int) -> None:
    """Kill what a host's engine keeps its containers by, and wait for the engine's next one."""
    file = Path(f"{lab.plan.host_run(host)}/exec/containerd/containerd.pid")
    running: list[int] = []

    def runs_another() -> bool:
        text = file.read_text() if file.exists() else ""
        if text.isdigit() and int(text) not in running and state_of(int(text)) not in ("", "Z"):
            running.append(int(text))
            return True
        return False

    await_true("there is a containerd", runs_another, PATIENCE_S)
    os.kill(running[0], signal.SIGKILL)
    await_true("there is a new containerd", runs_another, PATIENCE_S)


def state_of(pid: int) -> str:
    """A process's state as the kernel spells it; empty when it is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return ""
