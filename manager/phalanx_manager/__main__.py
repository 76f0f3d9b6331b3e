"""The manager daemon: `python -m phalanx_manager [--config FILE] [--check]`."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import secrets
import signal
import socket
import sys
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Final

import structlog

from phalanx_manager.clock import Clock, SystemClock
from phalanx_manager.config import ConfigError, ManagerConfig, load
from phalanx_manager.http.app import CannotListenError, listen
from phalanx_manager.http.auth import secret_hash, spell_secret
from phalanx_manager.http.doors import Doors, Joining
from phalanx_manager.http.uploads import Uploads
from phalanx_manager.loops import systemd
from phalanx_manager.loops.converge import Converge
from phalanx_manager.loops.directory import Directory
from phalanx_manager.loops.govern import Govern
from phalanx_manager.loops.schedule import Schedule
from phalanx_manager.loops.supervise import for_ever
from phalanx_manager.rpc import failure, keys
from phalanx_manager.rpc.agents import Agents
from phalanx_manager.rpc.port import House
from phalanx_manager.store.port import Store, TokenRow, Unavailable
from phalanx_manager.store.sqlite import SqliteStore
from phalanx_manager.wake import Chimes
from phalanx_wire.ids import ClusterName, SessionId
from phalanx_wire.join import JoinToken, spell

DEFAULT_CONFIG: Final = Path("/etc/phalanx/manager.toml")
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


class _Loops:
    """The three loops and what wakes them."""

    def __init__(
        self, store: Store, clock: Clock, config: ManagerConfig, own: Collection[str]
    ) -> None:
        self.turns: dict[str, int] = {}
        self.schedule = Schedule(store, clock, config.pool)
        self.converge = Converge(
            store, clock, self.schedule.bell, own, eager_swarm=config.swarm == "eager"
        )
        self.govern = Govern(store, clock, self.converge.silence_s, config.lost_after_s)

    def touch(self, session: SessionId) -> None:
        """A commit has changed a session: goals, places and limits may differ now."""
        self.converge.touch(session)
        self.schedule.bell.ring()
        self.govern.bell.ring()

    def start(self, tasks: asyncio.TaskGroup) -> None:
        """Run them until the group is cancelled."""
        for name, turn in (
            ("schedule", self.schedule.turn),
            ("converge", self.converge.turn),
            ("govern", self.govern.turn),
        ):
            tasks.create_task(for_ever(name, turn, self.turns), name=name)
        tasks.create_task(systemd.watchdog(self.turns), name="watchdog")


async def serve(config: ManagerConfig, ready: Callable[[Running], None] | None = None) -> None:
    """Run a manager until cancelled; `ready` is called once it is up.

    Raises:
        Unavailable: the store's or the link's: its folder, database or port cannot be used.
        CannotListenError: the same for the port of the API.
    """
    clock = SystemClock()
    chimes = Chimes()
    listeners: list[Callable[[SessionId], None]] = [chimes.ring]
    with contextlib.closing(_open_store(config, clock, listeners)) as store:
        loops = _Loops(store, clock, config, _hosts(config.advertise or _reachable(config.rpc)))
        listeners.append(loops.touch)
        await _ensure_admin(store, clock, config.token_file)
        uploads = Uploads(config.data_dir / "uploads")
        uploads.prepare()
        server_keys = keys.load_or_make(config.data_dir / "manager.key")
        house = House(
            store.cluster_id, config.heartbeat_s, str(config.egress_subnet), uploads.serve
        )
        directory = Directory(store, clock)
        async with Agents.listen(
            config.rpc, server_keys, loops.converge, directory, house
        ) as agents:
            loops.converge.attach(agents)
            joining = Joining(config.advertise or _reachable(agents.address), server_keys.public)
            doors = Doors(
                store=store,
                link=agents,
                clock=clock,
                chimes=chimes,
                changed=lambda _: None,  # the store tells of every commit
                entropy=secrets.token_bytes,
                uploads=uploads,
                joining=joining,
                limits=replace(config.limits, lost_after_s=config.lost_after_s),
                turns=lambda: loops.turns,
            )
            async with listen(doors, config.http) as address, asyncio.TaskGroup() as tasks:
                loops.start(tasks)
                if ready is not None:
                    ready(_running(config, address, doors))
                systemd.notify("READY=1")
                log.info("manager.ready", http=address, rpc=joining.addresses)
                try:
                    await asyncio.Event().wait()
                finally:
                    systemd.notify("STOPPING=1")


def _open_store(
    config: ManagerConfig, clock: Clock, listeners: Collection[Callable[[SessionId], None]]
) -> SqliteStore:
    def changed(session: SessionId) -> None:
        for listener in listeners:
            listener(session)

    try:
        config.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise Unavailable(
            str(config.data_dir), f"cannot be made: {error.strerror}", "set data_dir to another"
        ) from error
    path = str(config.data_dir / "phalanx.db")
    return SqliteStore.open(path, clock.now(), secrets.token_hex(8), changed)


async def _ensure_admin(store: Store, clock: Clock, path: Path) -> None:
    """Make the administrator's token at the first start, or know again the one that is there."""
    try:
        if path.exists():
            token = path.read_text("ascii").strip()
        else:
            token = spell_secret(secrets.token_bytes(32))
            draft = path.with_name(f"{path.name}.new")
            with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
                file.write(token + "\n")
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


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="phalanx manager", description="The Phalanx manager.")
    parser.add_argument("--config", type=Path, help=f"TOML file (default {DEFAULT_CONFIG})")
    parser.add_argument("--check", action="store_true", help="read the configuration and leave")
    return parser.parse_args()


async def _until_signalled(config: ManagerConfig) -> None:
    task = asyncio.current_task()
    assert task is not None  # noqa: S101 - asyncio.run has made it
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, task.cancel)
    with contextlib.suppress(asyncio.CancelledError):
        await serve(config)


def main() -> int:
    """Run the daemon; 2 for a bad configuration, 1 for what cannot be used."""
    arguments = _arguments()
    try:
        if arguments.config is None and not DEFAULT_CONFIG.exists():
            config = ManagerConfig()
        else:
            config = load(arguments.config or DEFAULT_CONFIG)
    except ConfigError as error:
        print(error, file=sys.stderr)
        return 2
    if arguments.check:
        print("the configuration is fine")
        return 0
    try:
        asyncio.run(_until_signalled(config))
    except (Unavailable, failure.Unavailable, CannotListenError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
