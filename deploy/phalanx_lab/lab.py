"""A lab as a value: bring it up, hurt it, load images into it, take it down."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Literal, Self, Unpack

from phalanx_lab import (
    client_config,
    daemons,
    fitness,
    loading,
    processes,
    status,
    supervise,
    switch,
)
from phalanx_lab import plan as plans
from phalanx_lab.plan import MANAGER, Plan
from phalanx_lab.status import Lock, Status
from phalanx_lab.sweep import sweep
from phalanx_lab.unavailable import Unavailable
from phalanx_lab.wish import Options, wish

Fault = Literal["kill", "stop", "cont", "cut", "slow", "heal"]
Report = Callable[[str], None]
SILENT_FOR = 2.0  # seconds that a step may take before it is worth a line
UP_WITHIN = 180.0
STARTED_WITHIN = 15.0
PLUG_WITHIN = 15.0
LINK_FAULTS: Mapping[str, Callable[[Plan, str], None]] = {
    "cut": switch.cut,
    "slow": switch.slow,
    "heal": switch.heal,
}
BETWEEN: Mapping[str, Callable[[Plan, str, str], None]] = {
    "cut": switch.cut_between,
    "heal": switch.heal_between,
}
SIGNALS = {"kill": signal.SIGKILL, "stop": signal.SIGSTOP, "cont": signal.SIGCONT}


@dataclass(frozen=True, slots=True)
class Host:
    """One machine of the lab."""

    index: int  # from 1
    name: str
    engine_socket: str
    netns: str
    address: str
    state_dir: str


@dataclass(frozen=True, slots=True)
class Lab:
    """A running lab.

    As a context manager it is taken down at the end.
    """

    plan: Plan

    @classmethod
    def up(
        cls,
        name: str,
        nodes: int,
        report: Report = lambda _line: None,
        **options: Unpack[Options],
    ) -> Self:
        """Bring a lab up, or find it up; `ValueError` when it runs otherwise than wanted.

        What a dead predecessor left is cleared first; its state on disk stays, as after a
        power cut.
        """
        wanted = wish(name, nodes, **options)
        with _only_one(wanted.run_root, wanted.name):
            running = Lock(wanted.run_root, wanted.name, "supervisor").holder()
            if running:
                return cls._adopt(wanted, report)
            if misses := fitness.misses(wanted):
                raise Unavailable("this machine", "cannot run a lab", "\n  ".join(["", *misses]))
            _pull_the_plug(wanted.name, wanted.run)
            with _only_one(wanted.run_root, "subnets"):
                plan = settle(wanted)
                plans.save(plan)
            _spawn_supervisor(plan)
            try:
                _await_up(plan, report)
            except Unavailable:
                _pull_the_plug(plan.name, plan.run)
                raise
            lab = cls.attach(plan.name)
            if not plan.engines_only:
                client_config.write(lab.plan, lab.url, lab.admin_token)
            return lab

    @classmethod
    def _adopt(cls, wanted: Plan, report: Report) -> Self:
        lab = cls.attach(wanted.name)
        if not lab.plan.same_wish(wanted):
            raise ValueError(
                f"lab {wanted.name} runs with other options: {lab.plan.nodes} hosts, "
                f"{lab.plan.cpu} cpu, {lab.plan.mem} bytes each; `down` it first"
            )
        _await_up(lab.plan, report)
        lab = cls.attach(wanted.name)  # its port is known by now
        if not lab.plan.engines_only:
            client_config.complete(lab.plan, lab.url, lab.admin_token)
        report(f"lab {wanted.name} is up already")
        return lab

    @classmethod
    def attach(cls, name: str) -> Self:
        """A lab that was brought up by somebody else."""
        return cls._found(name, plans.run_root())

    @classmethod
    def remembered(cls, name: str) -> Self:
        """A lab, up or not, that has state: logs to read."""
        return cls._found(name, plans.state_root())

    @classmethod
    def _found(cls, name: str, root: str) -> Self:
        found = plans.load(f"{root}/{plans.check_name(name)}/plan.json")
        if found is None:
            raise Unavailable(f"lab {name}", "is not up", f"phalanx lab up --name {name}")
        return cls(found)

    @property
    def hosts(self) -> tuple[Host, ...]:
        """The lab's machines, in order."""
        return tuple(
            Host(
                index=host,
                name=self.plan.host_name(host),
                engine_socket=self.plan.engine_socket(host),
                netns=self.plan.netns(f"h{host}"),
                address=self.plan.address(host),
                state_dir=self.plan.host_state(host),
            )
            for host in self.plan.hosts
        )

    @property
    def url(self) -> str:
        """The manager's address for clients on this machine."""
        return f"http://127.0.0.1:{self.plan.http_port}"

    @property
    def admin_token(self) -> str:
        """The first administrator's token."""
        return daemons.admin_token(self.plan)

    @property
    def state_dir(self) -> str:
        """Logs, engine data and databases."""
        return self.plan.state

    def status(self) -> Status:
        """What the supervisor said last."""
        told = status.read(self.plan.run)
        if told is None:
            raise Unavailable(f"lab {self.plan.name}", "is not up", "phalanx lab up")
        return told

    def phase(self) -> str:
        """The lab's phase; `dead` when its supervisor is gone."""
        holder = Lock(self.plan.run_root, self.plan.name, "supervisor").holder()
        told = status.read(self.plan.run)
        return told.phase if holder and told else "dead"

    def logs(self) -> list[str]:
        """Paths of all components' logs."""
        folder = f"{self.plan.state}/logs"
        return sorted(f"{folder}/{name}" for name in os.listdir(folder) if name.endswith(".log"))

    def pid(self, component: str) -> int:
        """A component's process; 0 while it is being restarted."""
        if component == "supervisor":
            return self.status().supervisor
        components = self.status().components
        if component not in components:
            raise ValueError(f"no component {component!r}; there are {', '.join(components)}")
        return components[component].pid

    def fault(self, action: Fault, target: str) -> None:
        """Kill, freeze, thaw a component; cut, slow down or heal the link of a host or the manager,
        or cut or heal the way between two of them: `host1:host2`.

        Killing a host is a power cut: its engine, agent and containers at once. The supervisor
        starts what died anew.
        """
        host = self._host_number(target)
        if action in LINK_FAULTS:
            self._link_fault(action, target)
        elif host:
            self._signal_host(host, SIGNALS[action])
        else:
            pid = self.pid(target)
            if not pid:
                raise Unavailable(target, "is not running now", "Try again in a moment.")
            os.kill(pid, SIGNALS[action])

    def _link_fault(self, action: Fault, target: str) -> None:
        one, between, other = target.partition(":")
        if between:
            if action not in BETWEEN:
                raise ValueError(f"a way between two hosts can be cut and healed, not {action}")
            BETWEEN[action](self.plan, self._address(one), self._address(other))
        else:
            LINK_FAULTS[action](self.plan, self._part(one))

    def _part(self, target: str) -> str:
        host = self._host_number(target)
        if not host and target != "manager":
            raise ValueError(f"{target!r} has no link; name a host, or manager")
        return f"h{host}" if host else MANAGER

    def _address(self, target: str) -> str:
        if self._part(target) == MANAGER:
            return self.plan.manager_address
        return self.plan.outer_address(self._host_number(target))

    def _host_number(self, target: str) -> int:
        for host in self.plan.hosts:
            if target in (self.plan.host_name(host), f"host-{host}"):
                return host
        return 0

    def _signal_host(self, host: int, number: signal.Signals) -> None:
        components = self.status().components
        found = {
            told.pid
            for name, told in components.items()
            if name in (f"engine-{host}", f"agent-{host}")
        }
        if number == signal.SIGKILL:
            found |= processes.in_cgroup(re.escape(self.plan.cgroup(host)))
        for pid in found - {0}:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    def load(self, image: str, report: Report = lambda _line: None) -> str:
        """Load an image into every engine; the reference to run it by. See `loading.load`."""
        return loading.load([host.engine_socket for host in self.hosts], image, report)

    def down(self) -> None:
        """Take the lab down and remove its state; see `down`."""
        down(self.plan.name, self.plan.state_root)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.down()


def down(name: str, state_root: str = "") -> None:
    """Remove a lab and all its traces, running or not; doing it again changes nothing.

    State goes with it, so nothing is asked to end gently: the plug is pulled.
    """
    run_folder = f"{plans.run_root()}/{name}"
    found = plans.load(f"{run_folder}/plan.json")
    state_folder = found.state if found else f"{state_root or plans.state_root()}/{name}"
    with _only_one(plans.run_root(), name):
        _pull_the_plug(name, run_folder)
        client_config.restore(state_folder)
        if os.path.exists(state_folder):
            shutil.rmtree(state_folder)


def _pull_the_plug(name: str, run_folder: str) -> None:
    supervisor = Lock(plans.run_root(), name, "supervisor").holder()
    if supervisor:
        with contextlib.suppress(ProcessLookupError):
            os.kill(supervisor, supervise.PULL_THE_PLUG)
        if not processes.await_end(supervisor, within=PLUG_WITHIN):
            with contextlib.suppress(ProcessLookupError):
                os.kill(supervisor, signal.SIGKILL)
            processes.await_end(supervisor, within=PLUG_WITHIN)
    # Held while we sweep, so that a supervisor on its way in waits, and then finds no plan.
    claim = Lock(plans.run_root(), name, "supervisor")
    claim.take(wait=True)
    try:
        sweep(name, run_folder)
    finally:
        claim.drop(remove=True)


def all_labs() -> list[Lab]:
    """The labs of this machine that are up, or were when their supervisor died."""
    root = plans.run_root()
    names = sorted(os.listdir(root)) if os.path.isdir(root) else []
    found = [plans.load(f"{root}/{name}/plan.json") for name in names if not name.startswith(".")]
    return [Lab(plan) for plan in found if plan]


def settle(wanted: Plan) -> Plan:
    """Give a wished lab its subnet, and the port and subnet it had before if it has state."""
    earlier = plans.load(f"{wanted.state}/plan.json")
    taken = {lab.plan.subnet for lab in all_labs() if lab.plan.name != wanted.name}
    if earlier and earlier.subnet not in taken:
        if not earlier.same_wish(wanted):
            raise ValueError(
                f"lab {wanted.name} was made with other options: {earlier.nodes} hosts, "
                f"{earlier.cpu} cpu, {earlier.mem} bytes each; `down` it first"
            )
        return plans.settled(wanted, earlier.subnet, earlier.http_port)
    return plans.settled(wanted, plans.choose_subnet(taken, switch.machine_routes()), 0)


def _spawn_supervisor(plan: Plan) -> None:
    """Start the background process; what we start ends at once and leaves it to init."""
    os.makedirs(f"{plan.state}/logs", exist_ok=True)
    with open(plan.log("supervisor"), "ab") as sink:
        subprocess.run(
            [sys.executable, "-m", "phalanx_lab", "supervise", plan.name],
            stdin=subprocess.DEVNULL,
            stdout=sink,
            stderr=sink,
            cwd="/",
            check=True,
            timeout=30,
        )


def _await_up(plan: Plan, report: Report) -> None:
    """Await the supervisor's word, reporting steps that take their time."""
    began = since = time.monotonic()
    last, reported = "", ""
    while time.monotonic() - began < UP_WITHIN:
        told = status.read(plan.run)
        if told and told.phase == "up":
            return
        if told and told.phase == "failed":
            raise Unavailable(f"lab {plan.name}", "did not come up", told.error)
        doing = told.doing if told else "starting the supervisor"
        if doing != last:
            last, since = doing, time.monotonic()
        if doing != reported and time.monotonic() - since > SILENT_FOR:
            report(f"{doing} ...")
            reported = doing
        if told and not processes.alive(told.supervisor):
            break
        if not told and time.monotonic() - began > STARTED_WITHIN:
            break
        time.sleep(0.05)
    raise Unavailable(f"lab {plan.name}", "did not come up", f"See {plan.log('supervisor')}.")


@contextlib.contextmanager
def _only_one(run_root: str, name: str) -> Iterator[None]:
    """Two verbs never work on the same ground at once; the second waits."""
    claim = Lock(run_root, name, "verb")
    claim.take(wait=True)
    try:
        yield
    finally:
        claim.drop(remove=True)
