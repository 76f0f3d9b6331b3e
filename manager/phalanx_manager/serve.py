"""Puts a manager together: what leads, and what stands by."""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import socket
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Final

import structlog

from phalanx_manager.clock import Clock, SystemClock
from phalanx_manager.config import ManagerConfig
from phalanx_manager.groups import bare
from phalanx_manager.http import guests
from phalanx_manager.http.app import listen
from phalanx_manager.http.auth import is_secret, secret_hash, spell_secret
from phalanx_manager.http.doors import Doors, Joining, Rates
from phalanx_manager.http.entrance import Entrance
from phalanx_manager.http.logs_live import Outputs
from phalanx_manager.http.uploads import Uploads
from phalanx_manager.inside.dispatch import Inside
from phalanx_manager.loops import systemd
from phalanx_manager.loops.converge import Converge
from phalanx_manager.loops.directory import Directory
from phalanx_manager.loops.govern import Govern
from phalanx_manager.loops.lead import Hold, keep, win
from phalanx_manager.loops.retain import Retain
from phalanx_manager.loops.retire import Retire
from phalanx_manager.loops.schedule import Schedule
from phalanx_manager.loops.stuck import Stuck
from phalanx_manager.loops.supervise import for_ever
from phalanx_manager.rpc import keys
from phalanx_manager.rpc.agents import Agents
from phalanx_manager.rpc.port import House
from phalanx_manager.rpc.shares import Shares
from phalanx_manager.rpc.steps import Steps
from phalanx_manager.store.leading import Candidate, Deposed, Lease, Led
from phalanx_manager.store.ledger import Ledger
from phalanx_manager.store.port import Store, TokenRow, Unavailable
from phalanx_manager.store.sqlite import SqliteStore
from phalanx_manager.wake import Chimes
from phalanx_wire.ids import ClusterName, SessionId
from phalanx_wire.join import JoinToken, spell

JOIN_LASTS: Final = timedelta(minutes=15)

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Running:
    """A manager that is up.

    Attributes:
        http: where the API listens, `http://host:port` or `unix:///path`.
        rpc: addresses that agents dial, `tcp://host:port`.
        token_file: holds the administrator's bearer token.
        join: makes a join token for an agent of this name.
    """

    http: str
    rpc: tuple[str, ...]
    token_file: Path
    join: Callable[[str], Awaitable[str]]


@dataclass(slots=True)
class _Site:
    """What is the same whether this manager leads or stands by.

    Attributes:
        told: who hears of the sessions that commits change.
        turns: how often each loop has turned; empty while standing by.
        surely_leads: see `rpc.port.House`.
        trouble: see `http.doors.Doors.ready`.
    """

    config: ManagerConfig
    clock: Clock
    keys: keys.ServerKeys
    ready: Callable[[Running], None]
    entrance: Entrance = field(default_factory=Entrance)
    told: list[Callable[[SessionId], None]] = field(default_factory=list)
    turns: dict[str, int] = field(default_factory=dict)
    surely_leads: Callable[[], bool] = lambda: True
    trouble: Callable[[], str] = str

    def changed(self, session: SessionId) -> None:
        """A commit has changed a session."""
        for listener in self.told:
            listener(session)

    def stands_by(self, because: Led | Unavailable) -> None:
        """Another leads, or nobody can be asked."""
        if isinstance(because, Led):
            self.entrance.leader = because.url
            self.entrance.why = f"this manager stands by: {because.holder} leads"
        else:
            self.entrance.why = f"this manager stands by: {because}"
        systemd.notify("READY=1")

    def closes(self) -> None:
        """It leads no more."""
        self.entrance.close()
        self.told.clear()
        self.turns.clear()


class Loops:
    """The loops and what wakes them."""

    def __init__(
        self, store: Store, clock: Clock, config: ManagerConfig, own: Collection[str]
    ) -> None:
        self.turns: dict[str, int] = {}
        self.schedule = Schedule(store, clock, config.pool)
        self.converge = Converge(
            store, clock, self.schedule.bell, own, eager_swarm=config.swarm == "eager"
        )
        self.govern = Govern(
            store,
            clock,
            self.converge.silence_s,
            config.lost_after_s,
            touched=self.converge.touch,
        )
        self.stuck = Stuck(store, clock)
        self.retire = Retire(store, clock)
        self.retain = Retain(store, clock, timedelta(days=config.keep_days))

    def touch(self, session: SessionId) -> None:
        """A commit has changed a session: goals, places and limits may differ now."""
        self.converge.touch(session)
        self.schedule.bell.ring()
        self.govern.bell.ring()
        self.retire.bell.ring()

    def start(self, tasks: asyncio.TaskGroup) -> None:
        """Run them until the group is cancelled."""
        for name, turn in (
            ("schedule", self.schedule.turn),
            ("converge", self.converge.turn),
            ("govern", self.govern.turn),
            ("retire", self.retire.turn),
        ):
            tasks.create_task(for_ever(name, turn, self.turns), name=name)
        # Their turns are long: they are not what the watchdog looks at.
        tasks.create_task(for_ever("retain", self.retain.turn, {}), name="retain")
        tasks.create_task(for_ever("stuck", self.stuck.turn, {}), name="stuck")


async def serve(config: ManagerConfig, ready: Callable[[Running], None] | None = None) -> None:
    """Run a manager until cancelled; `ready` is called once it is up and leads.

    Raises:
        Unavailable: the store's or the link's: its folder, database or port cannot be used.
        CannotListenError: the same for the port of the API.
    """
    _make_folder(config.data_dir)
    server_keys = keys.load_or_make(config.data_dir / "manager.key")
    site = _Site(config, SystemClock(), server_keys, ready or (lambda _: None))
    try:
        with bare():
            async with asyncio.TaskGroup() as tasks:
                watchdog = tasks.create_task(systemd.watchdog(site.turns), name="watchdog")
                await (_take_turns(site) if config.database else _lead_alone(site))
                watchdog.cancel()
    finally:
        systemd.notify("STOPPING=1")


async def _lead_alone(site: _Site) -> None:
    """Lead with a database that nobody else can have."""
    path = str(site.config.data_dir / "phalanx.db")
    store = SqliteStore.open(path, site.clock.now(), secrets.token_hex(8), site.changed)
    with contextlib.closing(store):
        await _lead(site, store)


async def _take_turns(site: _Site) -> None:
    """Lead whenever no other manager of the same database does."""
    # asyncpg is an extra, and only needed here.
    from phalanx_manager.store.lease import PostgresLease  # noqa: PLC0415

    name = f"{socket.gethostname()}, process {os.getpid()}"
    candidate = Candidate(name, site.config.url, site.keys.public)
    async with (
        PostgresLease.open(site.config.database, candidate) as lease,
        listen(site.entrance, site.config.http) as address,
    ):
        while True:
            epoch = await win(lease, site.stands_by, asyncio.sleep)
            try:
                await _lead_for(site, lease, epoch, address)
            except* Deposed as group:
                why = [str(error) for error in group.exceptions]
                log.warning("manager.stepped_down", epoch=epoch, why=why)
            finally:
                site.closes()
                await _give_back(lease, epoch)


async def _lead_for(site: _Site, lease: Lease, epoch: int, address: str) -> None:
    """Lead for one epoch; it ends by `Deposed`."""
    from phalanx_manager.store.lease import LASTS_S  # noqa: PLC0415 - as above
    from phalanx_manager.store.postgres import open_postgres  # noqa: PLC0415 - as above

    hold = Hold(site.clock, LASTS_S, site.clock.monotonic_s())
    site.surely_leads, site.trouble = hold.sure, hold.trouble
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(keep(lease, epoch, hold), name="lease")
        async with open_postgres(
            site.config.database, epoch, secrets.token_hex(8), site.changed
        ) as (store, write):
            tasks.create_task(write(), name="store")
            await _lead(site, store, address)


async def _give_back(lease: Lease, epoch: int) -> None:
    try:
        await lease.give_back(epoch)
    except Unavailable as error:
        log.warning("lead.not_given_back", epoch=epoch, why=str(error))  # it runs out by itself


async def _lead(site: _Site, store: Ledger, address: str = "") -> None:
    """Do a manager's work on a store that is ours, until cancelled; the API has an address already
    where it answers while standing by, too.
    """
    config, clock, chimes = site.config, site.clock, Chimes()
    loops = Loops(store, clock, config, _hosts(config.advertise or _reachable(config.rpc)))
    loops.turns = site.turns  # the watchdog looks at them
    site.told += [chimes.ring, loops.touch]
    await _ensure_admin(store, clock, config.token_file)
    uploads = Uploads(config.data_dir / "uploads")
    uploads.prepare()
    loops.retain.attach(uploads.forget)
    inside = Inside(store, clock, uploads.serve)
    house = House(
        store.cluster_id,
        config.heartbeat_s,
        str(config.egress_subnet),
        inside.serve,
        store.epoch,
        site.surely_leads,
    )
    directory = Directory(store, clock)
    async with (
        Agents.listen(config.rpc, site.keys, loops.converge, directory, house) as agents,
        asyncio.TaskGroup() as following,
    ):
        loops.converge.attach(agents)
        loops.stuck.attach(agents)
        shares = Shares(agents)
        steps = Steps(shares)
        inside.attach(agents, steps)
        loops.retire.attach(agents.dismiss)
        joining = Joining(config.advertise or _reachable(agents.address), site.keys.public)
        doors = Doors(
            store=store,
            link=agents,
            clock=clock,
            chimes=chimes,
            entropy=secrets.token_bytes,
            uploads=uploads,
            joining=joining,
            limits=config.limits,
            rates=Rates(everybodys_streams=guests.room() * 3 // 4),
            lost_after_s=config.lost_after_s,
            turns=lambda: site.turns,
            ready=site.trouble,
            shares=shares,
            steps=steps,
            outputs=Outputs(shares, following),
        )
        site.entrance.open(doors)
        async with contextlib.AsyncExitStack() as stack:
            address = address or await stack.enter_async_context(listen(site.entrance, config.http))
            tasks = await stack.enter_async_context(asyncio.TaskGroup())
            loops.start(tasks)
            site.ready(_running(config, address, doors))
            systemd.notify("READY=1")
            log.info("manager.ready", http=address, rpc=joining.addresses)
            await asyncio.Event().wait()


def _make_folder(path: Path) -> None:
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise Unavailable(
            str(path), f"cannot be made: {error.strerror}", "set data_dir to another"
        ) from error


async def _ensure_admin(store: Store, clock: Clock, path: Path) -> None:
    """Make the administrator's token at the first start, or know again the one that is there."""
    try:
        if path.exists():
            token = path.read_text("ascii").strip()
            if not is_secret(token):
                hint = "put it back, or remove the file: another is made"
                raise Unavailable(str(path), "holds no token", hint)
        else:
            token = spell_secret(secrets.token_bytes(32))
            draft = path.with_name(f"{path.name}.new")
            with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
                file.write(token + "\n")
                file.flush()
                os.fsync(file.fileno())
            draft.replace(path)
    except (OSError, UnicodeDecodeError) as error:
        raise Unavailable(
            str(path), f"cannot be used: {error}", "set admin_token_file to another file"
        ) from error
    if await store.token_by_hash(secret_hash(token)) is None:
        await store.add_token(
            TokenRow(
                id=secrets.token_hex(6),
                kind="bearer",
                name="admin",
                scope="admin",
                cluster=ClusterName("default"),
                created_at=clock.now(),
                expires_at=None,
                secret_hash=secret_hash(token),
            )
        )


def _running(config: ManagerConfig, address: str, doors: Doors) -> Running:
    async def join(name: str) -> str:
        pair = keys.make_pair()
        now = doors.clock.now()
        await doors.store.add_token(
            TokenRow(
                id=secrets.token_hex(6),
                kind="agent",
                name=name,
                scope="user",
                cluster=ClusterName("default"),
                created_at=now,
                expires_at=now + JOIN_LASTS,
                public_key=pair.public,
            )
        )
        return spell(JoinToken(doors.joining.addresses, doors.joining.server_key, pair.secret))

    return Running(address, doors.joining.addresses, config.token_file, join)


def _reachable(bound: str) -> tuple[str, ...]:
    """Spell what was bound so that others can dial it: `0.0.0.0` becomes our own address."""
    host, _, port = bound.removeprefix("tcp://").rpartition(":")
    if host not in ("0.0.0.0", "*", "[::]"):  # noqa: S104 - it is compared, not bound
        return (f"tcp://{host}:{port}",)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # nothing is sent: this only asks for the route
            return (f"tcp://{probe.getsockname()[0]}:{port}",)
        except OSError:
            return (f"tcp://127.0.0.1:{port}",)  # no route to anywhere: this host only


def _hosts(addresses: Collection[str]) -> tuple[str, ...]:
    """Take the IPv4 addresses out of what is advertised; containers must not reach them."""
    hosts = (address.removeprefix("tcp://").rpartition(":")[0] for address in addresses)
    return tuple(host for host in hosts if host.replace(".", "").isdigit())
