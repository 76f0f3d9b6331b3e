"""A PostgreSQL database: one connection that writes in order, some more that read."""

from __future__ import annotations

import asyncio
import os
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from typing import Any, Final, Never
from urllib.parse import urlsplit, urlunsplit

import asyncpg
import structlog

from phalanx_manager.store.leading import Deposed
from phalanx_manager.store.ledger import Ledger
from phalanx_manager.store.port import Unavailable
from phalanx_manager.store.statements import migrations, numbered, queries
from phalanx_manager.store.tables import Change, Clash, Refused, Row, Settled, Write, Writes
from phalanx_wire.ids import SessionId

CONNECT_S: Final = 5.0
READ_S: Final = 10.0
WRITE_S: Final = 20.0
IDLE_S: Final = 4.0
"""The server ends a transaction that stands still for so long: a frozen manager holds locks."""

DEPOSED: Final = "PX001"
"""What the database answers to who does not lead any more; see `lease.SCHEMA`."""

_BATCH: Final = 500
_READERS: Final = 4
_AGAIN_S: Final = (0.1, 2.0)
_SETTINGS: Final = {
    "application_name": "phalanx-manager",
    "synchronous_commit": "on",
    "default_transaction_isolation": "read committed",  # else a renewed lease fails commits
    "idle_in_transaction_session_timeout": f"{IDLE_S * 1000:.0f}",
    "statement_timeout": f"{WRITE_S * 1000:.0f}",
    "lock_timeout": f"{WRITE_S * 500:.0f}",
    "tcp_keepalives_idle": "5",
    "tcp_keepalives_interval": "2",
    "tcp_keepalives_count": "3",
}

_CUT: Final = (
    asyncpg.PostgresConnectionError,
    asyncpg.AdminShutdownError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    ConnectionResetError,
)

ANOTHERS: Final = "another application has tables there: give Phalanx a database of its own"
_FOREIGN: Final = (
    asyncpg.DuplicateTableError,
    asyncpg.DuplicateFunctionError,
    asyncpg.DuplicateObjectError,
    asyncpg.UndefinedColumnError,
    asyncpg.WrongObjectTypeError,
)
_KEPT: Final = ("synchronous_commit", "idle_in_transaction_session_timeout", "statement_timeout")
_ENCODINGS: Final = ("UTF8", "SQL_ASCII")
"""The latter keeps bytes as they are."""

_NO_POOLER: Final = "name the server itself in `database`, no pooler before it"

log = structlog.get_logger(__name__)


class Postgres:
    """See `tables.Tables`; made by `open`. Somebody must `run` it."""

    def __init__(self, url: str, epoch: int, pool: asyncpg.Pool) -> None:
        self._url = url
        self._epoch = epoch
        self._pool = pool
        self._writer: asyncpg.Connection | None = None
        self._queue: deque[Change] = deque()
        self._bell = asyncio.Event()
        self._trouble: Unavailable | None = None
        self._queries = queries()
        self._spelt: dict[str, tuple[str, tuple[str, ...]]] = {}

    @classmethod
    @asynccontextmanager
    async def open(cls, url: str, epoch: int) -> AsyncIterator[Postgres]:
        """Connect as the leader of an epoch, and bring the schema up to date.

        Raises:
            Unavailable: it cannot be reached, does not let us in, or is of a newer version.
            Deposed: another manager leads by now.
        """
        with asking(url):
            pool = await asyncpg.create_pool(
                url, min_size=0, max_size=_READERS, timeout=CONNECT_S, command_timeout=READ_S,
                server_settings=_SETTINGS,
            )  # fmt: skip
        made = cls(url, epoch, pool)
        try:
            made._writer = await connect(url)
            with asking(url):
                await made._migrate(made._writer)
            yield made
        finally:
            pool.terminate()
            if made._writer is not None:
                made._writer.terminate()

    async def read(self, name: str, values: Mapping[str, object], tail: str = "") -> list[Row]:
        """See `tables.Tables`."""
        text, names = self._spell(name, tail)
        found: list[asyncpg.Record] = []
        with asking(self._url):
            async with asyncio.timeout(READ_S):  # the wait for a connection, too
                for left in reversed(range(_READERS + 1)):
                    try:
                        found = await self._pool.fetch(text, *(values[key] for key in names))
                        break
                    except _CUT:
                        if not left:  # all that may have been cut unnoticed have been tried
                            raise
        return [tuple(record) for record in found]

    async def once(self, key: str, value: str) -> str:
        """Keep a value for ever, if there is none of this name yet; the one that is kept."""
        if self._writer is None:
            raise Unavailable(shown(self._url), "is not connected", "try again")
        with asking(self._url):
            await self._writer.execute("BEGIN")
            text, _ = self._spell("meta_once")
            await self._writer.execute(text, key, value)
            await self._commit(self._writer)
        return str((await self.read("meta_get", {"key": key}))[0][0])

    def commit(self, writes: Writes, settled: Settled) -> asyncio.Future[None]:
        """See `tables.Tables`."""
        change = Change(writes, settled, asyncio.get_running_loop().create_future())
        if self._trouble is not None:
            change.end(self._trouble)
        else:
            self._queue.append(change)
            self._bell.set()
        return change.done

    async def run(self, reload: Callable[[], Awaitable[None]]) -> Never:
        """Write what is queued, for ever.

        `reload` is called after a failure, because a commit whose answer was lost may have
        happened: read again what is true.

        Raises:
            Deposed: another manager leads.
        """
        try:
            while True:
                await self._bell.wait()
                self._bell.clear()
                try:
                    while self._queue:
                        await self._write([*self._queue][:_BATCH])
                except Deposed as error:
                    self._refuse(error)
                    raise
                except Unavailable as error:
                    log.warning("store.unavailable", why=str(error))
                    self._refuse(error)
                    await self._mend(reload)
        finally:
            self._refuse(Unavailable(shown(self._url), "is not used any more", "try again"))

    # -- inside

    async def _write(self, batch: list[Change]) -> None:
        error: Refused | None = None
        try:
            await self._transact(batch)
        except Refused as caught:
            if len(batch) > 1:
                for change in batch:
                    await self._write([change])
                return
            error = caught
        for change in batch:
            self._queue.popleft()
            change.end(error)

    async def _transact(self, batch: list[Change]) -> None:
        writer = self._writer
        if writer is None or writer.is_closed():
            self._writer = writer = await connect(self._url)
        with asking(self._url):
            async with asyncio.timeout(WRITE_S):
                await writer.execute("BEGIN")
                try:
                    for change in batch:
                        for write in change.writes.all:
                            await self._execute(writer, write)
                    await self._commit(writer)
                except (Refused, asyncpg.IntegrityConstraintViolationError, asyncpg.DataError):
                    await writer.execute("ROLLBACK")
                    # Rows that are not as we know them: maybe because another leads.
                    await writer.execute(f"SELECT phalanx_fence({self._epoch:d})")
                    raise

    async def _execute(self, writer: asyncpg.Connection, write: Write) -> None:
        text, names = self._spell(write.name)
        values = [tuple(_storable(one[name]) for name in names) for one in write.values]
        if write.exactly is None and len(values) > 1:
            await writer.executemany(text, values)
            return
        statuses = [await writer.execute(text, *one) for one in values]
        if write.exactly is not None:
            write.check(sum(int(status.rpartition(" ")[2]) for status in statuses))

    async def _commit(self, writer: asyncpg.Connection) -> None:
        # One message: whoever is stopped before it has not committed, and after it has; in
        # between nobody can take the lead, because the server runs both without us.
        await writer.execute(f"SELECT phalanx_fence({self._epoch:d}); COMMIT")

    async def _mend(self, reload: Callable[[], Awaitable[None]]) -> None:
        """Come back from a failure: connect anew, and read what is true."""
        wait_s, longest_s = _AGAIN_S
        while self._trouble is not None:
            if self._writer is not None:
                self._writer.terminate()
            try:
                self._writer = await connect(self._url)
                await reload()
            except Unavailable as error:
                self._trouble = error
                await asyncio.sleep(wait_s)
                wait_s = min(wait_s * 2, longest_s)
            else:
                self._trouble = None
                log.info("store.available")

    async def _migrate(self, writer: asyncpg.Connection) -> None:
        steps = migrations("postgres")
        version = await writer.fetchval("SELECT version FROM leader")
        refuse_newer(self._url, version)
        if version == max(steps):
            return
        await writer.execute("BEGIN")
        for number in range(version + 1, max(steps) + 1):
            await writer.execute(steps[number])
        await writer.execute("UPDATE leader SET version = $1", max(steps))
        await self._commit(writer)
        log.info("store.migrated", before=version, after=max(steps))

    def _refuse(self, error: Unavailable) -> None:
        """Fail all that is queued, and what comes, until that is mended."""
        self._trouble = self._trouble or error
        queue, self._queue = self._queue, deque()
        for change in queue:
            change.end(self._trouble)

    def _spell(self, name: str, tail: str = "") -> tuple[str, tuple[str, ...]]:
        key = f"{name} {tail}"
        if key not in self._spelt:
            self._spelt[key] = numbered(f"{self._queries[name]} {tail}".rstrip())
        return self._spelt[key]


async def connect(url: str) -> asyncpg.Connection:
    """Connect.

    Raises:
        Unavailable: it cannot be reached, or does not let us in.
    """
    with asking(url):
        return await asyncpg.connect(
            url, timeout=CONNECT_S, command_timeout=WRITE_S, server_settings=_SETTINGS
        )


async def fit(url: str, connection: asyncpg.Connection) -> None:
    """Refuse what would lose settings that keep commits durable, or texts.

    Raises:
        Unavailable: a pooler has dropped our settings, or the encoding cannot hold every text.
    """
    with asking(url):
        found = dict(await connection.fetch("SELECT name, setting FROM pg_settings"))
    if any(found[name] != _SETTINGS[name] for name in _KEPT):
        raise Unavailable(shown(url), "does not take our settings", _NO_POOLER)
    if found["server_encoding"] not in _ENCODINGS:
        hint = "make one with `createdb -T template0 -E UTF8`"
        raise Unavailable(shown(url), f"is encoded in {found['server_encoding']}", hint)


def shown(url: str) -> str:
    """Spell a URL for people: without its password."""
    parts = urlsplit(url)
    user, found, host = parts.netloc.rpartition("@")
    return urlunsplit(parts._replace(netloc=f"{user.partition(':')[0]}{found}{host}", query=""))


def newest_version() -> int:
    """Tell which schema this program knows."""
    return max(migrations("postgres"))


def refuse_newer(url: str, version: int) -> None:
    """Refuse a schema that a newer program has written."""
    newest = newest_version()
    if version > newest:
        raise Unavailable(
            shown(url),
            f"is of schema version {version}, and this program knows up to {newest}",
            "run the program that wrote it, or a newer one",
        )


@contextmanager
def asking(url: str) -> Iterator[None]:
    """Say what goes wrong with the server in our own words."""
    where = shown(url)
    try:
        yield
    except asyncpg.UniqueViolationError as error:
        raise Clash(str(error)) from error
    except (asyncpg.IntegrityConstraintViolationError, asyncpg.DataError) as error:
        raise Refused(str(error)) from error  # the latter: of a value that no column can hold
    except (asyncpg.InvalidPasswordError, asyncpg.InvalidAuthorizationSpecificationError) as error:
        hint = "check the user and password in `database`, and the server's pg_hba.conf"
        raise Unavailable(where, f"does not let us in: {_line(error)}", hint) from error
    except asyncpg.InvalidCatalogNameError as error:
        hint = "make it with `createdb`, or check the name in `database`"
        raise Unavailable(where, f"cannot be used: {_line(error)}", hint) from error
    except asyncpg.ProtocolViolationError as error:
        raise Unavailable(where, f"failed: {_line(error)}", _NO_POOLER) from error
    except _CUT as error:
        hint = "check that the server runs; it is dialled again"
        raise Unavailable(where, "the connection was cut", hint) from error
    except asyncpg.PostgresError as error:
        if error.sqlstate == DEPOSED:
            raise Deposed(where, "another manager leads", "ask that one") from error
        raise Unavailable(where, f"failed: {_line(error)}", _hint(error)) from error
    except (OSError, TimeoutError) as error:
        number = error.errno if isinstance(error, OSError) else None
        reason = os.strerror(number) if number else str(error)
        hint = "check that the server runs, and the host and port in `database`"
        raise Unavailable(
            where, f"cannot be reached: {reason or 'it does not answer'}", hint
        ) from error


def _line(error: asyncpg.PostgresError) -> str:
    """What the server says, without what it and asyncpg add to it."""
    return next(iter(str(error).splitlines()), "")


def _hint(error: asyncpg.PostgresError) -> str:
    if isinstance(error, asyncpg.DiskFullError):
        return "make room on the server's disk; running containers are not touched"
    if isinstance(error, asyncpg.ReadOnlySQLTransactionError):
        return "it is read-only, maybe a replica: name the primary in `database`"
    if isinstance(error, asyncpg.InsufficientPrivilegeError):
        return "the user must own the database"
    if isinstance(error, _FOREIGN):
        return ANOTHERS
    return "the server's log may say more; running containers are not touched"


def _storable(value: object) -> object:
    """PostgreSQL's texts cannot hold NUL, which an engine's message may have."""
    return value.replace("\0", "\ufffd") if isinstance(value, str) else value


@asynccontextmanager
async def open_postgres(
    url: str,
    epoch: int,
    fresh_cluster_id: str,
    on_change: Callable[[SessionId], None] = lambda _: None,
) -> AsyncIterator[tuple[Ledger, Callable[[], Coroutine[Any, Any, Never]]]]:
    """Open the store as the leader of an epoch, with what must run for as long as it is used.

    Raises:
        Unavailable, Deposed: see `Postgres.open`; what runs may raise the latter, too.
    """
    async with Postgres.open(url, epoch) as tables:
        cluster_id = await tables.once("cluster_id", fresh_cluster_id)
        store = Ledger(tables, cluster_id, epoch, on_change)
        await store.fill()
        yield store, lambda: tables.run(store.reload)
