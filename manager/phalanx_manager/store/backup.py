"""Copies a SQLite database while its manager works, and puts a copy in its place."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

from phalanx_manager.store.database import (
    draft_of,
    give_lock,
    hold,
    inspect,
    read_only,
    telling,
)
from phalanx_manager.store.port import Unavailable
from phalanx_manager.store.sqlite import RESTORED

_LOGS = ("-wal", "-shm")
_BESIDE = ("", *_LOGS)


def backup(database: Path, copy: Path, *, force: bool) -> None:
    """Copy a database as it is at this moment; its manager may be running.

    Raises:
        Unavailable: it is damaged or not there, or the copy cannot be written; then there is none.
    """
    _must_be_there(database)
    if copy.exists() and copy.samefile(database):
        raise Unavailable(str(copy), "is the database itself", "name another file")
    if copy.exists() and not force:
        raise Unavailable(str(copy), "is there already", "name another file, or give --force")
    inspect(str(database))
    _copy(database, copy, like=None)


def restore(copy: Path, database: Path, *, force: bool) -> Path | None:
    """Put a copy in the place of a database that no manager has open. What was there is kept
    beside it; the path of that. One that was cut off is given again.

    Raises:
        Unavailable: the copy is damaged or too new, or a manager runs; then nothing has changed.
    """
    _must_be_there(copy)
    inspect(str(copy))
    lock = hold(str(database))
    try:
        if database.exists() and not force:
            raise Unavailable(
                str(database), "is there already", "give --force: it is kept beside the new one"
            )
        kept = None
        if database.exists() or draft_of(database).exists():  # the latter: of one that was cut off
            kept = database.with_name(f"{database.name}.before")
        _copy(copy, database, like=database.parent, aside=kept)
        return kept
    finally:
        give_lock(lock)


def waiting(database: Path) -> tuple[str, ...]:
    """Name the sessions that have not begun in a database that no manager has open.

    Raises:
        Unavailable: it is damaged.
    """
    with telling(str(database), "read"), closing(read_only(str(database))) as connection:
        unbegun = "started_at IS NULL AND ended_at IS NULL AND stop_cause IS NULL"
        text = f"SELECT name FROM session WHERE {unbegun} ORDER BY created_at, id"  # noqa: S608 - ours
        return tuple(name for (name,) in connection.execute(text))


def _must_be_there(path: Path) -> None:
    if not path.is_file() or not path.stat().st_size:
        raise Unavailable(str(path), "is no database file", "check the path")


def _copy(source: Path, target: Path, *, like: Path | None, aside: Path | None = None) -> None:
    """Write a whole, checked copy that only its owner can read, or nothing at all.

    Args:
        like: it is restored: give it to the owner of this, if we may.
        aside: where to put what is at the target; without it that is replaced.
    """
    draft = draft_of(target)
    with _discarded(draft), telling(str(target), "written"):
        try:
            os.close(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600))
            os.chmod(draft, 0o600)
            with closing(read_only(str(source))) as theirs, closing(sqlite3.connect(draft)) as ours:
                theirs.backup(ours)
                if like is not None:  # a restore: see `sqlite.RESTORED`
                    ours.execute("INSERT OR REPLACE INTO meta VALUES (?, '')", (RESTORED,))
                    ours.commit()
                ours.execute("PRAGMA journal_mode = DELETE")  # one file, whole in itself
            inspect(str(draft))
            _sync(draft)
            if like is not None and os.geteuid() == 0:
                owner = like.stat()
                os.chown(draft, owner.st_uid, owner.st_gid)
            if aside is not None:
                _put_aside(target, aside)
            for suffix in _LOGS:  # of what was here before: it would be read into the copy
                Path(f"{target}{suffix}").unlink(missing_ok=True)
            _put_in_place(draft, target, aside)
            _sync(target.parent)
        except OSError as error:
            raise Unavailable(
                str(target), f"cannot be written: {error.strerror}", "check the folder and its room"
            ) from error


def _put_aside(target: Path, aside: Path) -> None:
    """Rename a database with its log, without which it is not whole; the database first: without
    it nobody begins anew while its draft is there, and whoever does this again goes on.
    """
    if target.exists():
        for suffix in _BESIDE:
            Path(f"{aside}{suffix}").unlink(missing_ok=True)
    _move(target, aside)


def _put_in_place(draft: Path, target: Path, aside: Path | None) -> None:
    try:
        draft.rename(target)
    except OSError:
        if aside is not None:
            _move(aside, target)
        raise


def _move(source: Path, target: Path) -> None:
    for suffix in _BESIDE:
        old = Path(f"{source}{suffix}")
        if old.exists():
            old.rename(f"{target}{suffix}")


@contextmanager
def _discarded(draft: Path) -> Iterator[None]:
    try:
        yield
    finally:
        for suffix in (*_BESIDE, "-journal"):
            with suppress(OSError):  # what hinders is told by what hindered before
                Path(f"{draft}{suffix}").unlink(missing_ok=True)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
