"""One SQLite file, opened so that it can be trusted: durable, checked, and ours alone."""

from __future__ import annotations

import asyncio
import fcntl
import os
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Final

from phalanx_manager.store.port import Unavailable
from phalanx_manager.store.shared_disk import refuse_shared
from phalanx_manager.store.statements import migrations, queries
from phalanx_manager.store.tables import Change, Clash, Refused, Row, Settled, Writes

MEMORY: Final = ":memory:"

_UNTOUCHED: Final = "running containers are not touched"
_FATAL: Final = {
    sqlite3.SQLITE_IOERR_FSYNC,
    sqlite3.SQLITE_IOERR_DIR_FSYNC,
    sqlite3.SQLITE_IOERR_WRITE,
    sqlite3.SQLITE_CORRUPT,
}
"""After these nobody knows what is on the disk: only a new start, which checks all, may go on."""


class Database:
    """See `tables.Tables`. It is used in place: a commit takes a fraction of a millisecond, and
    what was given to be committed since the last one shares it.

    Attributes:
        epoch: as its table `meta` has it, so that another database in its place is noticed.
    """

    def __init__(self, path: str, connection: sqlite3.Connection, lock: int | None) -> None:
        self.path = path
        self._connection = connection
        self._lock = lock
        self._queries = queries()
        self._queue: list[Change] = []
        self.epoch = ""
        self._files = _identities(path)
        self._written = _state(path)
        self._broken: Unavailable | None = None

    @classmethod
    def open(cls, path: str) -> Database:
        """Open or make the file, and bring its schema up to date. A file that is refused is left
        as it was.

        Raises:
            Unavailable: it is in use, damaged, of a newer version, on a disk that several hosts
                share, or cannot be opened.
        """
        if path != MEMORY:
            refuse_shared(path)
        lock = None if path == MEMORY else take_lock(path)
        try:
            if path != MEMORY:
                inspect(path)
            with telling(path, "opened"):
                connection = sqlite3.connect(path, isolation_level=None)
                try:
                    _prepare(connection, path)
                except BaseException:
                    connection.close()
                    raise
        except BaseException:
            give_lock(lock)
            raise
        return cls(path, connection, lock)

    def close(self) -> None:
        """Write what is queued, close the file, and let another manager have it."""
        self._write_queued()
        self._connection.close()
        give_lock(self._lock)
        self._lock = None

    # -- as the store uses it

    async def read(self, name: str, values: Mapping[str, object], tail: str = "") -> list[Row]:
        """See `tables.Tables`."""
        return self.rows(name, values, tail)

    def commit(self, writes: Writes, settled: Settled) -> asyncio.Future[None]:
        """See `tables.Tables`."""
        loop = asyncio.get_running_loop()
        change = Change(writes, settled, loop.create_future())
        self._queue.append(change)
        if len(self._queue) == 1:
            loop.call_soon(self._write_queued)  # after all who are ready to write, too
        return change.done

    def _write_queued(self) -> None:
        queue, self._queue = self._queue, []
        if queue:
            self._write(queue)

    def _write(self, changes: list[Change]) -> None:
        error: Exception | None = None
        try:
            with self.transaction():
                for change in changes:
                    for write in change.writes.all:
                        write.check(self.run_many(write.name, write.values))
        except Unavailable as caught:
            error = caught
        except (Refused, sqlite3.IntegrityError, OverflowError, UnicodeError) as caught:
            # The last two: of a value that no column can hold.
            if len(changes) > 1:
                for change in changes:
                    self._write([change])
                return
            error = _refusal(caught)
        for change in changes:
            change.end(error)

    # -- in place

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Write: everything inside or nothing.

        Raises:
            Unavailable: the file cannot be written.
            sqlite3.IntegrityError: a rule of the schema is broken.
        """
        self._check()
        try:
            with telling(self.path, "written"):
                self._connection.execute("BEGIN IMMEDIATE")
                try:
                    yield
                    self._connection.execute("COMMIT")
                except BaseException:
                    if self._connection.in_transaction:
                        self._connection.execute("ROLLBACK")
                    raise
                finally:
                    self._written = _state(self.path)
        except Unavailable as error:
            cause = error.__cause__
            if isinstance(cause, sqlite3.Error) and cause.sqlite_errorcode in _FATAL:
                self._broken = Unavailable(error.what, error.doing, "mend it, then start again")
            raise

    def run(self, name: str, values: Mapping[str, object]) -> int:
        """Run a named statement and count the rows that it changed."""
        return self._connection.execute(self._queries[name], values).rowcount

    def run_many(self, name: str, values: Sequence[Mapping[str, object]]) -> int:
        """Run a named statement for each of many values and count the rows changed in all."""
        return self._connection.executemany(self._queries[name], values).rowcount

    def rows(self, name: str, values: Mapping[str, object], tail: str = "") -> list[Row]:
        """Read all rows of a named statement; `tail` is a constant of our own code."""
        self._check()
        text = f"{self._queries[name]} {tail}" if tail else self._queries[name]
        with telling(self.path, "read"):
            return self._connection.execute(text, values).fetchall()

    def _check(self) -> None:
        """Refuse to go on with a file that nobody finds any more: what is written there is lost
        with us, and who took our lock away may let another manager in.
        """
        if self._broken is not None:
            raise self._broken
        if _identities(self.path) != self._files:
            raise Unavailable(
                self.path,
                "it, its log or its lock was moved, removed or replaced while in use",
                "put back what was moved; else stop the manager and restore a backup",
            )
        written = _state(self.path)
        if written != self._written:
            self._judge()
            self._written = written

    def _judge(self) -> None:
        """Look at a file that another program has written to. That may be somebody's SQLite, which
        moves what is in the log; a copy of another database over ours is the end of it.
        """
        try:
            with telling(self.path, "read"), closing(read_only(self.path)) as connection:
                sound = connection.execute("PRAGMA integrity_check(1)").fetchone() == ("ok",)
                told = connection.execute(self._queries["meta_get"], {"key": "epoch"}).fetchone()
        except Unavailable:
            sound, told = False, None
        if not sound or (told or ("",))[0] != self.epoch:
            self._broken = Unavailable(
                self.path,
                "another program has written to it while in use",
                "stop the manager and restore a backup",
            )
            raise self._broken


def inspect(path: str) -> int:
    """Look whether a file is a sound database of ours, without changing it; its schema's version.

    Raises:
        Unavailable: it is damaged, somebody else's, or of a newer version.
    """
    with telling(path, "opened"), closing(read_only(path)) as connection:
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        tables = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
        newest = max(migrations())
        if version > newest:
            raise Unavailable(
                path,
                f"is of schema version {version}, and this program knows up to {newest}",
                "run the program that wrote it, or a newer one",
            )
        if not version and tables:
            hint = "set data_dir to another folder"
            raise Unavailable(path, "is a database, but not of Phalanx", hint)
        found = connection.execute("PRAGMA quick_check(1)").fetchone()
        if found != ("ok",):
            told = " ".join(str(found[0]).split())
            hint = "restore it from a backup: phalanx manager restore FILE"
            raise Unavailable(path, f"is damaged: {told}", hint)
        return int(version)


def read_only(path: str) -> sqlite3.Connection:
    """Open a file that is there, for reading."""
    return sqlite3.connect(f"file:{_quoted(path)}?mode=ro", uri=True, isolation_level=None)


def take_lock(path: str) -> int:
    """Make the file if it is not there, and take it for us alone.

    Raises:
        Unavailable: another manager has it, it cannot be opened, it was taken from its log, or a
            restore was cut off when the old one was put aside and the new one was not in its place.
    """
    if draft_of(Path(path)).exists() and not os.path.exists(path):
        hint = "give it again: phalanx manager restore FILE"
        raise Unavailable(path, "is not there: a restore was cut off", hint)
    if _has_log(path) and not os.path.exists(path):
        hint = "put it back or restore a backup; to begin anew, remove the log"
        raise Unavailable(path, f"is not there, but its log {path}-wal is", hint)
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
    except OSError as error:
        raise _cannot_open(path, error) from error
    return hold(path)


def _has_log(path: str) -> bool:
    log = Path(f"{path}-wal")
    return log.exists() and log.stat().st_size > 0


def hold(path: str) -> int:
    """Keep managers from a file; the lock goes with the process, however it ends. Its own file is
    the folder's owner's, who may be another than us that restore something.

    Raises:
        Unavailable: a manager has it.
    """
    try:
        lock = os.open(f"{path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        if os.geteuid() == 0:
            owner = Path(path).parent.stat()
            os.fchown(lock, owner.st_uid, owner.st_gid)
    except OSError as error:
        raise _cannot_open(path, error) from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(lock)
        raise Unavailable(
            path, "is in use by another manager", "stop that one first, or use another data_dir"
        ) from error
    return lock


def draft_of(path: Path) -> Path:
    """Where a copy is written that shall be put in the place of a file."""
    return path.with_name(f"{path.name}.new")


def give_lock(lock: int | None) -> None:
    """Let another have the file."""
    if lock is not None:
        os.close(lock)


@contextmanager
def telling(path: str, doing: str) -> Iterator[None]:
    """Say what goes wrong with a file in our own words; broken rules are the caller's."""
    try:
        yield
    except sqlite3.IntegrityError:
        raise
    except sqlite3.Error as error:
        raise Unavailable(path, f"cannot be {doing}: {error}", _hint(error)) from error


def _refusal(error: Exception) -> Refused:
    if isinstance(error, Refused):
        return error
    return Clash(str(error)) if "UNIQUE" in str(error) else Refused(str(error))


def _hint(error: sqlite3.Error) -> str:
    match getattr(error, "sqlite_errorcode", 0) & 0xFF:
        case sqlite3.SQLITE_FULL:
            return f"make room on the disk; {_UNTOUCHED}"
        case sqlite3.SQLITE_CORRUPT | sqlite3.SQLITE_NOTADB:
            return f"restore it from a backup: phalanx manager restore FILE; {_UNTOUCHED}"
        case sqlite3.SQLITE_READONLY:
            return f"make the file and its folder writable for the manager; {_UNTOUCHED}"
        case _:
            return f"check the disk and the file's owner; {_UNTOUCHED}"


def _prepare(connection: sqlite3.Connection, path: str) -> None:
    for pragma in ("busy_timeout = 5000", "foreign_keys = ON", "synchronous = FULL"):
        connection.execute(f"PRAGMA {pragma}")
    if path != MEMORY:
        connection.execute("PRAGMA journal_mode = WAL")
    if connection.execute("PRAGMA foreign_keys").fetchone() != (1,):
        raise Unavailable(path, "this SQLite has no foreign keys", "install a usual one")
    steps = migrations()
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    for number in range(version + 1, max(steps) + 1):
        # executescript commits by itself, so the whole step carries its own transaction.
        connection.executescript(
            f"BEGIN IMMEDIATE;\n{steps[number]}\nPRAGMA user_version = {number};\nCOMMIT;"
        )


def _identities(path: str) -> tuple[tuple[int, int] | None, ...]:
    """Tell which files lie at a database's places; they stay the same while it is open."""
    if path == MEMORY:
        return ()
    return tuple(_identity(f"{path}{suffix}") for suffix in ("", "-wal", ".lock"))


def _state(path: str) -> tuple[int, int]:
    """Tell the size of a database and when somebody has written to it last, log aside."""
    if path == MEMORY:
        return 0, 0
    try:
        found = os.stat(path)
    except OSError:
        return 0, 0  # it was taken away, which is told elsewhere
    return found.st_size, found.st_mtime_ns


def _identity(path: str) -> tuple[int, int] | None:
    try:
        found = os.stat(path)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise _cannot_open(path, error) from error
    return found.st_dev, found.st_ino


def _cannot_open(path: str, error: OSError) -> Unavailable:
    return Unavailable(
        path, f"cannot be opened: {error.strerror}", "check the folder and its owner"
    )


def _quoted(path: str) -> str:
    return path.replace("%", "%25").replace("?", "%3f").replace("#", "%23")
