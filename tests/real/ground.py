"""What tests on real engines stand on: a lab, the command line as a user runs it, and an audit."""

from __future__ import annotations

import contextlib
import http.client
import itertools
import json
import os
import re
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from phalanx_agent.host import probe
from phalanx_lab import engine
from phalanx_lab.lab import Host, Lab
from tests.real import audit

ROOT = Path(__file__).parents[2]
PROGRAMS = Path(__file__).parent / "programs"
BASE = "phalanx/base"
TORCH = "phalanx/torch"
SMALL = ("-c", "0.5", "-m", "256M")
ACROSS = ("--mode", "multi-node", "--spread", "one-per-node")
CONVERGED_WITHIN = 20.0
OURS = re.compile("phx-([a-z2-7]{12})-")

_names = itertools.count(1)


@dataclass(frozen=True)
class Done:
    """A finished command."""

    code: int
    out: str
    err: str

    def ok(self) -> str:
        """Its output, when it succeeded; else everything it said, as the test's failure."""
        assert self.code == 0, f"exit code {self.code}\n--- out\n{self.out}\n--- err\n{self.err}"
        return self.out

    def failed(self, code: int) -> str:
        """What it said, when it ended with that code; else everything, as the test's failure."""
        said = f"exit code {self.code}\n--- out\n{self.out}\n--- err\n{self.err}"
        assert self.code == code, said
        assert "Traceback" not in said, said
        return self.out + self.err


@dataclass(frozen=True)
class Answer:
    """An answer of the HTTP API."""

    status: int
    kind: str
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)

    def ok(self) -> Any:
        """Its document, when it is a success; else all of it, as the test's failure."""
        assert self.status < 300, f"{self.status}: {self.body[:2000]!r}"
        return self.json()


def call(
    *command: str, timeout: float = 120, stdin: str | None = None, env: Mapping[str, str] = {}
) -> Done:
    """Run a command to its end; `timeout` seconds are the most it may take."""
    done = subprocess.run(
        command,
        input=stdin,
        stdin=subprocess.DEVNULL if stdin is None else None,
        capture_output=True,
        text=True,
        errors="replace",
        timeout=timeout,
        check=False,
        env={**os.environ, **env},
    )
    return Done(done.returncode, done.stdout, done.stderr)


def beside_engine(lab: Lab, host: Host, *command: str) -> list[str]:
    """The command as a host's root runs it."""
    own = f"/proc/{lab.pid(f'engine-{host.index}')}/ns"
    spaces = (("mount", "mnt"), ("uts", "uts"), ("net", "net"))
    return ["nsenter", *(f"--{kind}={own}/{space}" for kind, space in spaces), *command]


@dataclass(frozen=True)
class Ground:
    """A lab and a user's command line for it."""

    lab: Lab
    config: Path

    @property
    def env(self) -> dict[str, str]:
        """The environment of a user of this lab."""
        return {
            "PHALANX_CONFIG": str(self.config),
            "PHALANX_URL": self.lab.url,
            "PHALANX_TOKEN": self.lab.admin_token,
        }

    # ------------------------------------------------------------ as a user

    def phalanx(self, *arguments: str, timeout: float = 120, stdin: str | None = None) -> Done:
        """Run `phalanx` as a user would."""
        program = (sys.executable, "-m", "phalanx_client")
        return call(*program, *arguments, timeout=timeout, stdin=stdin, env=self.env)

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """Start `phalanx` and leave it running."""
        return subprocess.Popen(
            [sys.executable, "-m", "phalanx_client", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, **self.env},
        )

    def run(self, *arguments: str, timeout: float = 90) -> Done:
        """Run a small batch session of the base image; later options win over these."""
        return self.phalanx("run", *SMALL, "-i", BASE, *arguments, timeout=timeout)

    def detached(self, *arguments: str) -> str:
        """Submit what `run` would, and leave it; the session's name."""
        name = fresh_name()
        self.run("--detach", "-J", name, *arguments).ok()
        return name

    @contextlib.contextmanager
    def created(self, *arguments: str, timeout: float = 90) -> Iterator[str]:
        """A small interactive session, stopped at the end; its name."""
        name = fresh_name()
        options = (*SMALL, "-i", BASE, "-J", name, *arguments)
        self.phalanx("create", *options, timeout=timeout).ok()
        yield name
        self.phalanx("stop", name).ok()

    def inside(self, place: str, *command: str, timeout: float = 60) -> Done:
        """Run a command in a container, named as `SESSION/HOST`."""
        return self.phalanx("exec", place, "--", *command, timeout=timeout)

    def show(self, session: str) -> dict[str, Any]:
        """A session as `show -o json` prints it."""
        view: dict[str, Any] = json.loads(self.phalanx("show", session, "-o", "json").ok())
        return view

    def await_state(self, session: str, *states: str, within: float = 30.0) -> dict[str, Any]:
        """Wait until a session is in one of some states; what it looks like then."""
        seen: dict[str, Any] = {}

        def there() -> bool:
            seen.update(self.http("GET", f"/v1/sessions/{session}").ok())
            return seen["state"] in states

        try:
            await_true(f"{session} is {' or '.join(states)}", there, within)
        except AssertionError as late:
            late.add_note(json.dumps(seen, indent=2))
            raise
        return seen

    # ------------------------------------------------------------ as a program

    def http(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        token: str | None = None,
        headers: Mapping[str, str] = {},
    ) -> Answer:
        """Ask the API; a body that is no bytes is sent as JSON. An empty token sends none."""
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        sent = {"Content-Type": "application/json", **headers}
        if token is None:
            token = self.lab.admin_token
        if token:
            sent["Authorization"] = f"Bearer {token}"
        connection = http.client.HTTPConnection(urlsplit(self.lab.url).netloc, timeout=60)
        try:
            connection.request(method, path, None if body is None else raw, sent)
            answer = connection.getresponse()
            return Answer(answer.status, answer.getheader("Content-Type", ""), answer.read())
        finally:
            connection.close()

    # ------------------------------------------------------------ as the machine's root

    def docker(self, host: Host, *arguments: str, timeout: float = 60) -> Done:
        """Ask a host's engine directly."""
        return call("docker", "-H", f"unix://{host.engine_socket}", *arguments, timeout=timeout)

    def on_host(self, host: Host, *command: str, timeout: float = 60) -> Done:
        """Run a command in a host's network."""
        return call("ip", "netns", "exec", host.netns, *command, timeout=timeout)

    def host(self, name: str) -> Host:
        """The lab's host of that name."""
        return next(host for host in self.lab.hosts if host.name == name)

    def containers(self, session: str) -> dict[str, str]:
        """Where a session's containers are: the host's name by each container's own."""
        return {
            kernel["host_name"]: kernel["agent"]
            for kernel in self.http("GET", f"/v1/sessions/{session}").ok()["kernels"]
        }

    # ------------------------------------------------------------ the audit

    def traces(self) -> dict[str, tuple[str, ...]]:
        """Everything that a session could leave behind, by place."""
        found: dict[str, tuple[str, ...]] = {}
        for host in self.lab.hosts:
            place, ask = host.name, partial(engine.ask, host.engine_socket, "GET")
            made = ask("/containers/json?all=1")[1]
            found[f"{place} containers"] = tuple(sorted(one["Names"][0] for one in made))
            nets = ask("/networks")[1]
            found[f"{place} networks"] = tuple(sorted(one["Name"] for one in nets))
            kept = ask("/volumes")[1]["Volumes"] or []
            found[f"{place} volumes"] = tuple(sorted(one["Name"] for one in kept))
            links = interface_names(self.on_host(host, "ip", "-o", "link").ok())
            found[f"{place} interfaces"] = tuple(sorted(links))
            rules = self.on_host(host, "iptables-save")
            found[f"{place} firewall"] = lines(rules, keep=is_rule)
            found[f"{place} material"] = files_below(self.lab.plan.agent_memory(host.index))
            found[f"{place} cgroups"] = cgroups(self.lab.plan.cgroup(host.index))
            found |= audit.beneath(self.lab, host)
        found["machine firewall"] = lines(call("iptables-save"), keep=is_rule)
        return found | audit.rows(self.lab)

    def sessions(self) -> set[str]:
        """Ids of all live sessions."""
        return {view["id"] for view in self.http("GET", "/v1/sessions").ok()["sessions"]}


def fresh_name() -> str:
    """A session name that no test has used."""
    return f"t{next(_names)}"


def ranks(out: str) -> dict[int, list[str]]:
    """Take merged output apart: the lines of each rank, out of `[2 sub2] text`."""
    found: dict[int, list[str]] = {}
    for line in out.splitlines():
        mark, closed, text = line.partition("]")
        if (
            closed
            and mark.startswith("[")
            and mark[1:].split()[:1]
            and mark[1:].split()[0].isdigit()
        ):
            found.setdefault(int(mark[1:].split()[0]), []).append(text.lstrip(" "))
    return found


def documents(out: str) -> list[Any]:
    """The JSON documents that ranks printed, one a line, in rank order."""
    return [
        json.loads(line)
        for _rank, said in sorted(ranks(out).items())
        for line in said
        if line.startswith("{")
    ]


def lines(done: Done, keep: Callable[[str], bool] = bool) -> tuple[str, ...]:
    """The output's lines, sorted."""
    return tuple(sorted(line for line in done.ok().splitlines() if keep(line)))


def is_rule(line: str) -> bool:
    """Tell a firewall's rules and chains from its tables and comments."""
    return line.startswith("-") or " - [" in line


def interface_names(listing: str) -> list[str]:
    """Names of interfaces out of `ip -o link`, without the swarm's own legs, which come and go."""
    kept = [line for line in listing.splitlines() if "master docker_gwbridge" not in line]
    return [line.split(": ")[1].split("@")[0] for line in kept]


def files_below(folder: str) -> tuple[str, ...]:
    """Folders of kernels in an agent's memory."""
    return tuple(
        sorted(
            str(Path(root, name).relative_to(folder))
            for root, folders, _files in os.walk(folder)
            for name in folders
        )
    )


def cgroups(parent: str) -> tuple[str, ...]:
    """Containers' cgroups below a host's parent, in one hierarchy that all engines use."""
    for base in (f"/sys/fs/cgroup/memory/{parent}", f"/sys/fs/cgroup/{parent}"):
        if os.path.isdir(base):
            return tuple(sorted(entry.name for entry in os.scandir(base) if entry.is_dir()))
    return ()


def await_true(what: str, condition: Callable[[], bool], within: float = 30.0) -> None:
    """Wait until the outside world is so; a failure names what was awaited."""
    deadline = time.monotonic() + within
    while not condition():
        assert time.monotonic() < deadline, f"not within {within:.0f} s: {what}"
        time.sleep(0.1)


def settled_traces(ground: Ground) -> dict[str, tuple[str, ...]]:
    """What is there, once nothing of an ended session is there any more, and no agent just tries
    whether its host's firewall lets sessions through.
    """
    found: dict[str, tuple[str, ...]] = {}

    def settled() -> bool:
        live = ground.sessions()
        earlier = dict(found)
        found.update(ground.traces())
        theirs = {
            match[1] for names in found.values() for name in names for match in OURS.finditer(name)
        }
        tries = any(name.startswith(probe.BRIDGE) for names in found.values() for name in names)
        return theirs <= live and earlier == found and not tries

    await_true("nothing is left of sessions that have ended", settled, CONVERGED_WITHIN)
    return found


def assert_same_traces(
    before: Mapping[str, tuple[str, ...]],
    ground: Ground,
    ignoring: tuple[str, ...] = (),
    within: float = CONVERGED_WITHIN,
) -> None:
    """Fail with what is left behind, when it does not go away by itself in time; places whose names
    end as told are ignored.
    """
    deadline = time.monotonic() + within
    while True:
        after = ground.traces()
        after |= {place: before[place] for place in after if place.endswith(ignoring)}
        if before == after:
            return
        if time.monotonic() > deadline:
            left = {
                place: {
                    "new": sorted((Counter(after[place]) - Counter(before[place])).elements()),
                    "gone": sorted((Counter(before[place]) - Counter(after[place])).elements()),
                }
                for place in after
                if after[place] != before.get(place)
            }
            raise AssertionError(f"left behind: {json.dumps(left, indent=2)}")
        time.sleep(0.2)
