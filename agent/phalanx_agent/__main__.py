"""The agent's process: everything is made here, handed to each other, and run."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import fcntl
import os
import resource
import secrets
import signal
import sys
from collections.abc import Awaitable, Callable, Iterator
from functools import partial
from pathlib import Path

import msgspec
import structlog

from phalanx_agent import config as configuration
from phalanx_agent import log
from phalanx_agent.config import AgentConfig, ConfigError
from phalanx_agent.docker import limits
from phalanx_agent.docker.containers import Ulimits
from phalanx_agent.docker.engine import DockerEngine
from phalanx_agent.docker.port import Docker
from phalanx_agent.host import (
    allow,
    belongings,
    inside,
    inventory,
    mounted,
    neighbours,
    ports,
    remains,
    systemd,
    task_processes,
)
from phalanx_agent.host.confine import confine
from phalanx_agent.host.guard import Guard
from phalanx_agent.host.logstore import LogStore
from phalanx_agent.host.scratch import NotInMemory, Scratch
from phalanx_agent.host.uploads import Uploads
from phalanx_agent.loops import fetch
from phalanx_agent.loops.accounts import Accounts
from phalanx_agent.loops.asks import Asks
from phalanx_agent.loops.board import Board
from phalanx_agent.loops.commands import Commands
from phalanx_agent.loops.converge import Fleet
from phalanx_agent.loops.execs import Execs
from phalanx_agent.loops.hub import Hub
from phalanx_agent.loops.lease import Lease
from phalanx_agent.loops.leave import Leaving
from phalanx_agent.loops.streams import Streams
from phalanx_agent.loops.supervise import for_ever
from phalanx_agent.loops.swarm import SwarmMember
from phalanx_agent.loops.sweep import GuardLoop, HostFigures, tidy
from phalanx_agent.loops.tasks import Tasks
from phalanx_agent.loops.watch import Watch
from phalanx_agent.loops.workshop import Workshop
from phalanx_agent.rpc.identity import (
    MANAGER_FILE,
    IdentityError,
    KeyPair,
    Manager,
    load_manager,
    note_epoch,
    own_keys,
    save_manager,
)
from phalanx_agent.rpc.manager import JoinRefused, Link, address_towards, enrol
from phalanx_runner import bundle, lease
from phalanx_runner.channel import RunnerChannel
from phalanx_wire import join
from phalanx_wire.control import Beat, Observed, Welcome
from phalanx_wire.diary import Diary
from phalanx_wire.mux import Stream, StreamClosed
from phalanx_wire.standard import fill_standard_streams
from phalanx_wire.stream import Call, Closed

_LOG = structlog.get_logger()
DISMISSED = 4
"""Exit code of an agent whose cluster was removed: starting it again would not help."""


class Dismissed(Exception):  # noqa: N818 - the end of the process, said to its operator
    """The manager does not know the agent any more; nothing of it is left here."""


class CannotStart(Exception):  # noqa: N818 - the end of the process, said to its operator
    """The agent cannot work here; the text says why and what to do."""


async def serve(
    config: AgentConfig, ready: Callable[[], None] | None = None, *, anew: bool = False
) -> None:
    """Be an agent, until cancelled; containers are left alone then.

    `ready` is called when the manager has welcomed the agent for the first time. `anew` has it
    use its join token though it has joined before: it may have been forgotten since.

    Raises:
        CannotStart: something here has to be mended first.
        Dismissed: its cluster was removed; it has left its host clean.
    """
    with _alone(config.state_dir):
        try:
            manager = await _manager(config, anew=anew)
            own = own_keys(config.state_dir)
            scratch = Scratch(config.runtime_dir, config.state_dir)
            folder = str(bundle.install(config.state_dir / "runner"))
        except (IdentityError, JoinRefused, NotInMemory, bundle.BundleMissing, OSError) as error:
            raise CannotStart(str(error)) from error
        address = _Address(config.advertise, manager)
        ulimits = Ulimits(inventory.largest_nofile(), -1 if inventory.may_lock_memory() else 0)
        async with DockerEngine.open(config.engine, manager.cluster_id, ulimits) as docker:
            agent = _Agent(config, address, docker, scratch, folder, own)
            agent.workshop.shortfalls = limits.shortfalls(ulimits)
            agent.board.warn("limits", agent.workshop.shortfalls)
            try:
                await agent.run(manager, ready or (lambda: None))
            except Dismissed:
                belongings.clear_identity(config.state_dir)
                raise


class _Address:
    """By which others reach this host: as the operator says, or by the way to the manager, which
    may not be there yet when the machine has just come up.
    """

    def __init__(self, advertised: str, manager: Manager) -> None:
        self._known = advertised
        self._manager = manager

    def __call__(self) -> str:
        self._known = self._known or address_towards(self._manager.addresses[0])
        return self._known


class _Agent:
    """What there is one of in this process, made in the order of who needs whom."""

    def __init__(
        self,
        config: AgentConfig,
        address: Callable[[], str],
        docker: Docker,
        scratch: Scratch,
        folder: str,
        keys: KeyPair,
    ) -> None:
        self.keys = keys
        self._folders = own = (config.state_dir, config.runtime_dir)
        self._name = config.name
        self.link: Link | None = None
        self.logs = LogStore(config.state_dir / "logs", docker.logs)
        fetched = partial(fetch.upload, self._open)
        self.uploads = Uploads(config.state_dir / "uploads", fetched, keys.raw)
        self.asks = Asks(self._open)
        tasks = Tasks(docker, task_processes, lambda: secrets.token_hex(12))
        self.workshop = Workshop(
            docker=docker,
            scratch=scratch,
            logs=self.logs,
            uploads=self.uploads,
            listen=RunnerChannel.listen,
            ask_door=self.asks.door,
            bundle=folder,
            judge_mounts=lambda mounts: allow.judge(
                mounts, config.mounts, (*own, config.engine, docker.root)
            ),
            check_ports=lambda wanted: ports.check(wanted, config.host_ports),
            lives=inside.lives,
            mounts_hold=mounted.as_judged,
            confine=confine,
            end_remains=remains.end,
            silent=neighbours.silent,
            account=Accounts(docker).of,
            signal_tasks=tasks.signal,
            clock=lease.now_s,
            lease=Lease(lease.now_s),
            run_folder=partial(belongings.run_folder, config.state_dir),
        )
        self.board = Board(inventory.boot_id(), self._say)
        self.fleet = Fleet(config.name, self.workshop, self.board)
        self.guard = GuardLoop(Guard(), partial(self.board.hinder, "guard"))
        self.watch = Watch(self.workshop, self.fleet, self.board, self.guard.look_again)
        note = partial(belongings.note_swarm, config.state_dir)
        self._entered_at = partial(belongings.entered_swarm_at, config.state_dir)
        self.swarm = SwarmMember(docker, address, self.board.swarm, note, self._entered_at)
        execs = Execs(docker, Commands(docker, scratch.commands), tasks)
        self.streams = Streams(docker, self.fleet, self.logs, inside.network_of, execs, own[0])
        self.figures = HostFigures(config, address, self.board)
        self.figures.tell()

    async def run(self, manager: Manager, ready: Callable[[], None]) -> None:
        """Run everything, until cancelled."""
        hub = Hub(
            self.board,
            self.fleet,
            self.swarm,
            self.streams,
            _on_welcome(self, ready),
            self.guard.take,
        )
        self.link = Link(self._name, manager, self.keys, hub, partial(note_epoch, self._folders[0]))
        complain = partial(self.board.warn, "leave")
        hub.leaving = leaving = Leaving(
            self.workshop.docker, self._clear, self._entered_at, self.board.left, complain
        )
        async with asyncio.TaskGroup() as tasks:
            running = [
                tasks.create_task(for_ever(name, loop), name=name) for name, loop in self._loops()
            ]
            links = (("link", self.link.run), ("heartbeat", hub.heartbeat), ("watchdog", _watchdog))
            talking = [tasks.create_task(for_ever(name, loop), name=name) for name, loop in links]
            if belongings.has_left(self._folders[0]):
                leaving.begin()  # whoever was told of it may not know us any more
            await leaving.begun.wait()
            for task in running:
                task.cancel()
            await asyncio.wait(running)
            await leaving.take_all_away()
            why = await leaving.dismissed
            for task in talking:
                task.cancel()
        raise Dismissed(why)

    async def _clear(self) -> None:
        """Take away what is not the engine's."""
        await self.watch.leave_clean()
        await Guard().remove()
        await asyncio.to_thread(belongings.clear_sessions, *self._folders)
        belongings.note_left(self._folders[0])

    def _loops(self) -> tuple[tuple[str, Callable[[], Awaitable[None]]], ...]:
        """All that runs for ever, by name."""
        return (
            ("fleet", self.fleet.run),
            ("events", self.watch.events),
            ("listings", self.watch.listings),
            ("swarm", self.swarm.run),
            ("streams", self.streams.run),
            ("asks", self.asks.run),
            ("guard", self.guard.run),
            ("figures", self.figures.run),
            ("tidy", lambda: tidy(self.logs, self.uploads, self.fleet)),
        )

    def _say(self, message: Observed | Beat) -> bool:
        return self.link is not None and self.link.say(message)

    async def _open(self, call: Call) -> Stream:
        if self.link is None:
            raise StreamClosed(Closed(1, code="link_lost", why="There is no manager yet."))
        return await self.link.open(call)


def _on_welcome(agent: _Agent, ready: Callable[[], None]) -> Callable[[Welcome], None]:
    told = False

    def welcomed(welcome: Welcome) -> None:
        nonlocal told
        agent.workshop.egress_subnet = welcome.egress_subnet
        agent.watch.bell.set()  # the way out can be made now
        agent.asks.linked()
        if not told:
            told = True
            systemd.notify("READY=1")
            _LOG.info("agent.ready", cluster=welcome.cluster, key=agent.keys.public)
            ready()

    return welcomed


@contextlib.contextmanager
def _alone(state_dir: Path) -> Iterator[None]:
    """Hold the folder: two agents would undo each other's work.

    Raises:
        CannotStart: another process holds it, or it cannot be used.
    """
    held = -1
    try:
        state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        held = os.open(state_dir / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if held >= 0:
            os.close(held)
        raise CannotStart(_not_alone(state_dir, error)) from error
    try:
        yield
    finally:
        os.close(held)


def _not_alone(state_dir: Path, error: OSError) -> str:
    if isinstance(error, BlockingIOError):
        return f"Another agent runs with state_dir {state_dir}; stop it, or give this one its own."
    return (
        f"state_dir {state_dir}: {error.strerror}; set it to a folder on this host's disk that the "
        "agent may write."
    )


async def _manager(config: AgentConfig, *, anew: bool) -> Manager:
    """Know the manager: from before, or by joining now; at the addresses that the operator says."""
    found = await _joined(config, anew=anew)
    if not config.managers:
        return found
    return msgspec.structs.replace(found, addresses=config.managers)


async def _joined(config: AgentConfig, *, anew: bool) -> Manager:
    known = load_manager(config.state_dir)
    if not config.join:
        if known is None:
            raise CannotStart(
                "This agent has not joined a manager yet: put a join token into its "
                "configuration (join). `phalanx token create --agent` makes one."
            )
        return known
    try:
        token = join.parse(config.join)
    except ValueError as error:
        raise CannotStart(f"join: {error}") from error
    if known is not None and token.server_key != known.server_key:
        raise CannotStart(
            f"This agent belongs to another manager than its join token's; to move it, end its "
            f"sessions and remove {config.state_dir / MANAGER_FILE}."
        )
    if known is None or anew:
        belongings.stays(config.state_dir)
        return await enrol(config.state_dir, config.name, token)
    if token.addresses == known.addresses:
        return known
    moved = msgspec.structs.replace(known, addresses=token.addresses)
    save_manager(config.state_dir, moved)
    return moved


async def _watchdog() -> None:
    """Tell systemd that the event loop turns."""
    every_s = systemd.watchdog_s()
    while every_s is not None:
        systemd.notify("WATCHDOG=1")
        await asyncio.sleep(every_s)
    await asyncio.Event().wait()


async def _until_signalled(config: AgentConfig, *, anew: bool) -> None:
    task = asyncio.current_task()
    assert task is not None  # noqa: S101 - asyncio.run has made it
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, task.cancel)
    with contextlib.suppress(asyncio.CancelledError):
        await serve(config, anew=anew)
    systemd.notify("STOPPING=1")


def main() -> int:
    """Run the daemon; 2 for a bad configuration, 1 for what has to be mended first."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a dump would hold keys and tokens
    fill_standard_streams()
    parser = argparse.ArgumentParser(prog="phalanx agent", description="The Phalanx agent.")
    parser.add_argument("--config", type=Path, default=configuration.DEFAULT_PATH)
    parser.add_argument("--join", metavar="TOKEN", help="join by this token; needs no file")
    parser.add_argument("--name", metavar="NAME", help="this agent's name; else the host's")
    parser.add_argument("--check", action="store_true", help="read the configuration and leave")
    given = parser.parse_args()
    try:
        said = {"join": given.join, "name": given.name}
        config = configuration.load(given.config, {k: v for k, v in said.items() if v})
    except ConfigError as error:
        print(error, file=sys.stderr)
        return 2
    if given.check:
        print("the configuration is fine")
        return 0
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)  # each call that is passed on takes one
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    try:
        with Diary(sys.stdout) as diary:
            log.configure(diary)
            asyncio.run(_until_signalled(config, anew=bool(given.join)))
    except CannotStart as error:
        print(error, file=sys.stderr)
        return 1
    except Dismissed as error:
        print(f"This host is free of Phalanx: {error}.", file=sys.stderr)
        return DISMISSED
    return 0


if __name__ == "__main__":
    sys.exit(main())
