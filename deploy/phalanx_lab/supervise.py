"""The process behind a lab: it builds the network, keeps every daemon running, and clears up."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import signal
import socket
import sys
import time
from collections.abc import Callable

import structlog

from phalanx_lab import daemons, engine, keeper, listen_pid, processes, rooms, status, switch
from phalanx_lab import plan as plans
from phalanx_lab.keeper import Keeper, Program
from phalanx_lab.plan import MANAGER, SWITCH, Plan
from phalanx_lab.rooms import Room, Rooms
from phalanx_lab.status import Status
from phalanx_lab.sweep import members, sweep
from phalanx_lab.unavailable import Unavailable

log = structlog.get_logger()

ENGINES_READY, MANAGER_READY, AGENTS_READY = 60.0, 30.0, 60.0
GIVE_UP_AFTER = 4  # restarts of a component that was never ready
LOOK, HOUSEKEEPING = 0.03, 1.0
PR_SET_CHILD_SUBREAPER = 36
PULL_THE_PLUG = signal.SIGUSR1  # state is not wanted any more: end everything at once


class _ToldToStop(Exception):  # noqa: N818 - not an error
    """SIGTERM came before the lab was up."""


class Supervisor:
    """One lab's life, from the first mount to the last."""

    def __init__(self, plan: Plan, port: int) -> None:
        self.plan = plan
        self.status = Status(supervisor=os.getpid(), http_port=port)
        self.keepers: dict[str, Keeper] = {}
        self._stop = asyncio.Event()
        self._ended = asyncio.Event()
        self._gentle = True

    async def run(self) -> int:
        """Bring the lab up, keep it, end it; the process's exit code."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop.set)
        loop.add_signal_handler(PULL_THE_PLUG, self._pull_the_plug)
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._housekeeping())
                group.create_task(self._live(group))
        except* Unavailable as troubles:
            self.status.error = str(troubles.exceptions[0])
            self.status.phase = "failed"
            log.exception("lab.failed", error=self.status.error)
            await self._end_all()
            self.doing("")
        if self.status.phase == "failed":
            return 1
        await asyncio.to_thread(sweep, self.plan.name, self.plan.run)
        self._reap()
        return 0

    def _pull_the_plug(self) -> None:
        self._gentle = False
        self._stop.set()

    async def _live(self, group: asyncio.TaskGroup) -> None:
        try:
            await self._start(group)
            self.status.phase = "up"
            self.doing("")
            await self._stop.wait()
        except _ToldToStop:
            log.info("lab.start.interrupted")
        self.status.phase = "stopping"
        self.doing("stopping")
        await self._end_all()
        self._ended.set()

    async def _start(self, group: asyncio.TaskGroup) -> None:
        plan = self.plan
        self.doing("making the network")
        inside = await asyncio.to_thread(build, plan)
        if plan.way_out:
            self._keep(group, way_out_program(plan))
        self.doing(f"starting {plan.nodes} engine{'s' * (plan.nodes > 1)}")
        for host in plan.hosts:
            self._keep(group, engine_program(plan, host, inside[host].engine))
        if not plan.engines_only:
            self._keep(group, manager_program(plan))
        sockets = [plan.engine_socket(host) for host in plan.hosts]
        await self._until(lambda: all(map(engine.answers, sockets)), ENGINES_READY, "engine-")
        if not plan.engines_only:
            await self._start_agents(group, inside)

    async def _start_agents(self, group: asyncio.TaskGroup, inside: dict[int, Rooms]) -> None:
        plan, port = self.plan, self.status.http_port
        self.doing("starting the manager")
        await self._until(
            lambda: daemons.manager_answers(port) and bool(daemons.admin_token(plan)),
            MANAGER_READY,
            "manager",
        )
        self.doing(f"starting {len(plan.agents)} agent{'s' * (len(plan.agents) > 1)}")
        for host in plan.agents:
            await asyncio.to_thread(prepare_agent, plan, host, port)
            self._keep(group, agent_program(plan, host, inside[host].agent))
        names = {plan.host_name(host) for host in plan.agents}
        await self._until(
            lambda: names <= daemons.connected_agents(plan, port), AGENTS_READY, "agent-"
        )

    def _keep(self, group: asyncio.TaskGroup, program: Program) -> None:
        kept = Keeper(program, self.tell)
        self.keepers[program.name] = kept
        group.create_task(kept.keep())

    async def _until(self, ready: Callable[[], bool], within: float, component: str) -> None:
        """Await readiness; a component that keeps ending, or the time, makes it a failure."""
        hint = f"Its last words are in {self.plan.state}/logs/{component.rstrip('-')}*.log."
        try:
            async with asyncio.timeout(within):
                while not await asyncio.to_thread(ready):
                    if self._stop.is_set():
                        raise _ToldToStop
                    for name, kept in self.keepers.items():
                        if name.startswith(component) and kept.state.restarts >= GIVE_UP_AFTER:
                            code = kept.state.last_exit
                            raise Unavailable(name, f"ends at each start (code {code})", hint)
                    await asyncio.sleep(LOOK)
        except TimeoutError as slow:
            raise Unavailable(component, f"is not ready after {within:g} s", hint) from slow

    async def _end_all(self) -> None:
        """Agents first, then the manager, engines, and the way out last; or all by force."""
        if not self._gentle:
            for kept in self.keepers.values():
                kept.let_end()
            plan = self.plan
            await asyncio.to_thread(processes.kill_all, lambda: members(plan.name, plan.run))
        for kind in ("agent", "manager", "engine", "way-out"):
            stops = [kept.stop() for name, kept in self.keepers.items() if name.startswith(kind)]
            await asyncio.gather(*stops)

    async def _housekeeping(self) -> None:
        """Reap what engines orphaned and keep logs short."""
        while not self._ended.is_set():
            self._reap()
            for kept in list(self.keepers.values()):  # more may come while one is waited for
                await asyncio.to_thread(keeper.rotate, kept.program.log)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(HOUSEKEEPING):
                    await self._ended.wait()

    def _reap(self) -> None:
        own = {kept.state.pid for kept in self.keepers.values()}
        for pid in processes.orphans_to_reap(own):
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, os.WNOHANG)

    def doing(self, what: str) -> None:
        """Publish what is being waited for."""
        log.info("lab.step", phase=self.status.phase, doing=what)
        self.status.doing = what
        self.tell()

    def tell(self) -> None:
        """Publish the state of the lab."""
        self.status.components = {name: kept.state for name, kept in self.keepers.items()}
        status.write(self.plan.run, self.status)


def build(plan: Plan) -> dict[int, Rooms]:
    """Make everything that daemons stand on: host memory, network, and each host's own view."""
    for folder in ("logs", "share"):
        os.makedirs(f"{plan.state}/{folder}", exist_ok=True)
    dns = plans.WAY_OUT_DNS if plan.way_out else plan.gateway  # which refuses at once
    plans.write(f"{plan.state}/resolv.conf", f"nameserver {dns}\n".encode())
    for host in plan.hosts:
        engine.prepare(plan, host)
        rooms.memory(plan, host)
    switch.build(plan)
    if plan.way_out:
        switch.masquerade(plan)
    return {host: rooms.open_rooms(plan, host) for host in plan.hosts}


def way_out_program(plan: Plan) -> Program:
    """User-mode NAT between the switch and the machine; the machine's firewall is not touched."""
    argv = [
        "slirp4netns",
        "--configure",
        "--mtu=1500",
        "--disable-host-loopback",
        f"--cidr={plans.WAY_OUT_NET}",
        "--netns-type=path",
        switch.path(plan.netns(SWITCH)),
        "tap0",
    ]
    return Program("way-out", lambda: argv, plan.log("way-out"))


def engine_program(plan: Plan, host: int, inside: Room) -> Program:
    """A host's Docker Engine."""
    return Program(
        f"engine-{host}",
        lambda: inside.enter(engine.command(plan, host)),
        plan.log(f"engine-{host}"),
        before=lambda: engine.clear_before_start(plan, host),
        grace=45,
    )


def manager_program(plan: Plan) -> Program:
    """The manager, in a namespace on the switch, serving a socket of the machine's namespace."""
    daemons.manager_config(plan)
    netns = switch.path(plan.netns(MANAGER))
    return Program(
        "manager",
        lambda: ["nsenter", f"--net={netns}", *activated(daemons.manager_command(plan))],
        plan.log("manager"),
        env={"LISTEN_FDS": "1"},
        pass_fds=(daemons.LISTENER,),
    )


def activated(argv: list[str]) -> list[str]:
    """The same program, told that the sockets it inherits are for it."""
    return [sys.executable, "-I", "-S", listen_pid.__file__, *argv]


def prepare_agent(plan: Plan, host: int, port: int) -> None:
    """Write an agent's configuration, with a join token unless it has an identity already."""
    daemons.agent_config(plan, host, "")
    if not daemons.agent_is_enrolled(plan, host):
        daemons.agent_config(plan, host, daemons.join_token(plan, port, host))


def agent_program(plan: Plan, host: int, inside: Room) -> Program:
    """A host's agent, in the same view of the file system as its engine."""
    return Program(
        f"agent-{host}",
        lambda: inside.enter(daemons.agent_command(plan, host)),
        plan.log(f"agent-{host}"),
    )


def supervise(run_root: str, name: str) -> int:
    """Be a lab's supervisor until told to stop; the exit code.

    The HTTP socket is made here, in the machine's own namespace, and stays open while the
    manager restarts: clients queue instead of being refused.
    """
    os.open("/dev/null", os.O_RDONLY)  # takes the number that the listener will have
    claim = status.Lock(run_root, name, "supervisor")
    if not take_patiently(claim):
        raise Unavailable(f"lab {name}", "has a supervisor already", "See phalanx lab ls.")
    plan = plans.load(f"{run_root}/{name}/plan.json")
    if plan is None:  # it was taken down before we got here
        claim.drop(remove=True)
        return 0
    if ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise Unavailable("prctl", "does not let orphans come to us", "")
    with listen(plan.http_port) as listener:
        os.dup2(listener.fileno(), daemons.LISTENER, inheritable=False)
        port: int = listener.getsockname()[1]
        plans.save(plans.settled(plan, plan.subnet, port))
        return asyncio.run(Supervisor(plan, port).run())


def take_patiently(claim: status.Lock, within: float = 2.0) -> bool:
    """Take the claim, though somebody who only looks may hold it for an instant."""
    deadline = time.monotonic() + within
    while not claim.take():
        if time.monotonic() > deadline:
            return False
        time.sleep(LOOK)
    return True


def listen(port: int) -> socket.socket:
    """A listening socket on the machine's loopback: at the wanted port if it is free."""
    for wanted in dict.fromkeys((port, 0)):
        with contextlib.suppress(OSError):
            return socket.create_server(("127.0.0.1", wanted), backlog=128)
    raise Unavailable("127.0.0.1", "has no free port", "See ss -ltn.")
