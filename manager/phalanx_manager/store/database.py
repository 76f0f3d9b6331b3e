"""One SQLite file, opened so that it can be trusted: durable, checked, and ours alone."""

from __future__ import annotations

import fcntl
import os
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final

from phalanx_manager.store.port import Unavailable
from phalanx_manager.store.statements import migrations, queries

MEMORY: Final = ":memory:"


class Database:
    """A connection that is used in place: a commit takes a fraction of a millisecond."""

    def __init__(self, path: str, connection: sqlite3.Connection, lock: int | None) -> None:
        self.path = path
        self._connection = connection
        self._lock = lock
        self._queries = queries()

    @classmethod
    def open(cls, path: str) -> Database:
        """Open or make the file, and bring its schema up to date.

        Raises:
            Unavailable: it is in use, damaged, of a newer version, or cannot be opened.
        """
        lock = None if path == MEMORY else _lock(path)
        try:
            connection = sqlite3.connect(path, isolation_level=None)
            try:
                _prepare(connection, path)
            except BaseException:
                connection.close()
                raise
        except sqlite3.Error as error:
            _unlock(lock)
            raise Unavailable(path, f"cannot be opened: {error}", _hint(error)) from error
        except Unavailable:
            _unlock(lock)
            raise
        return cls(path, connection, lock)

    def close(self) -> None:
        """Close the file and let another manager have it."""
        self._connection.close()
        _unlock(self._lock)
        self._lock = None

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Write: everything inside or nothing.

        Raises:
            Unavailable: the file cannot be written.
            sqlite3.IntegrityError: a rule of the schema is broken; the caller knows which.
        """
        try:
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield
            except BaseException:
                self._connection.execute("ROLLBACK")
                raise
            self._connection.execute("COMMIT")
        except sqlite3.IntegrityError:
            raise
        except sqlite3.Error as error:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
            raise Unavailable(self.path, f"cannot be written: {error}", _hint(error)) from error

    def run(self, name: str, values: Mapping[str, object]) -> int:
        """Run a named statement and count the rows that it changed."""
        return self._connection.execute(self._queries[name], values).rowcount

    def run_many(self, name: str, values: Sequence[Mapping[str, object]]) -> int:
        """Run a named statement for each of many values and count the rows changed in all."""
        return self._connection.executemany(self._queries[name], values).rowcount

    def rows(self, name: str, values: Mapping[str, object], tail: str = "") -> list[Any]:
        """Read all rows of a named statement; `tail` is a constant of our own code."""
        text = f"{self._queries[name]} {tail}" if tail else self._queries[name]
        try:
            return self._connection.execute(text, values).fetchall()
        except sqlite3.IntegrityError:
            raise
        except sqlite3.Error as error:
            raise Unavailable(self.path, f"cannot be read: {error}", _hint(error)) from error


def _prepare(connection: sqlite3.Connection, path: str) -> None:
    for pragma in ("busy_timeout = 5000", "foreign_keys = ON", "synchronous = FULL"):
        connection.execute(f"PRAGMA {pragma}")
    if path != MEMORY:
        connection.execute("PRAGMA journal_mode = WAL")
    if connection.execute("PRAGMA foreign_keys").fetchone() != (1,):
        raise Unavailable(path, "this SQLite has no foreign keys", "install a usual one")
    (verdict,) = connection.execute("PRAGMA quick_check(1)").fetchone()
    if verdict != "ok":
        raise Unavailable(path, f"is damaged: {verdict}", "restore it from a backup")
    steps = migrations()
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    newest = max(steps)
    if version > newest:
        raise Unavailable(
            path,
            f"is of schema version {version}, and this program knows up to {newest}",
            "run the program that wrote it, or a newer one",
        )
    for number in range(version + 1, newest + 1):
        # executescript commits by itself, so the whole step carries its own transaction.
        connection.executescript(
            f"BEGIN IMMEDIATE;\n{steps[number]}\nPRAGMA user_version = {number};\nCOMMIT;"
        )


def _lock(path: str) -> int:
    """Take the file for us alone; the lock goes with the process, however it ends."""
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        lock = os.open(f"{path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise Unavailable(
            path, f"cannot be opened: {error.strerror}", "check the folder and its owner"
        ) from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(lock)
        raise Unavailable(
            path, "is in use by another manager", "stop that one first, or use another data_dir"
        ) from error
    return lock


def _unlock(lock: int | None) -> None:
    if lock is not None:
        os.close(lock)


def _hint(error: sqlite3.Error) -> str:
    if "full" in str(error):
        return "make room on the disk; running containers are not touched"
    return "check the disk and the file's owner; running containers are not touched"
