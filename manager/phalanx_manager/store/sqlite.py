"""The store of one manager: a SQLite file that is ours alone."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any, Final

from phalanx_manager.core.model import Stop, StopCause
from phalanx_manager.core.session import lost_after_s
from phalanx_manager.store import rows
from phalanx_manager.store.database import Database
from phalanx_manager.store.ledger import Ledger
from phalanx_wire.ids import SessionId

RESTORED: Final = "restored"
"""Is in `meta` of a copy that was put in a database's place, until a manager has opened it."""

_RESTORED_TEXT: Final = (
    "the database was restored: it waits until what may run of it, by a newer one, has ended"
)
_MARGIN: Final = timedelta(seconds=15)
"""Between the last beat that is answered and the goals by which its agent lets go."""


class SqliteStore(Ledger):
    """See `port.Store`; the file needs no server and no waiting."""

    def __init__(
        self,
        database: Database,
        cluster_id: str,
        epoch: int,
        on_change: Callable[[SessionId], None],
    ) -> None:
        super().__init__(database, cluster_id, epoch, on_change)
        self._database = database

    @classmethod
    def open(
        cls,
        path: str,
        now: datetime,
        fresh_cluster_id: str,
        on_change: Callable[[SessionId], None] = lambda _: None,
    ) -> SqliteStore:
        """Open the file, or `database.MEMORY`; a new one gets the given cluster id. Each opening
        is an epoch, counted in seconds so that it grows over a restored backup, too.

        `on_change` hears of every session that a commit has changed, and an empty id when
        something happened to an agent.

        Raises:
            Unavailable: see `Database.open`.
        """
        database = Database.open(path)
        with database.transaction():
            database.run("meta_once", {"key": "cluster_id", "value": fresh_cluster_id})
            cluster_id = str(database.rows("meta_get", {"key": "cluster_id"})[0][0])
            before = database.rows("meta_get", {"key": "epoch"})
            epoch = max(int(before[0][0]) + 1 if before else 1, int(now.timestamp()))
            database.run("meta_set", {"key": "epoch", "value": str(epoch)})
        database.epoch = str(epoch)
        store = cls(database, cluster_id, epoch, on_change)
        _finish(store.fill())
        if database.rows("meta_get", {"key": RESTORED}):
            store._pause_restored(now)
        return store

    def _pause_restored(self, now: datetime) -> None:
        """Begin nothing of a restored database before whatever runs of it, by a database that was
        newer, has ended: no goal claims that, so its lease is over by then. What has a place and
        has not begun gives it up: a later attempt may run elsewhere.
        """
        with self._database.transaction():
            for row in self._live.values():
                session = row.session
                ended_by = now + timedelta(seconds=lost_after_s(session)) + _MARGIN
                told = f"{_RESTORED_TEXT}, {ended_by:%H:%M:%S} UTC"
                stop, reason = session.stop, session.reason
                if session.state == "pending":
                    reason = told
                elif session.ended_at is None and session.started_at is None and stop is None:
                    stop = Stop(StopCause.REQUEUE, told, now, then="again")
                held = replace(session, not_before=ended_by, reason=reason, stop=stop)
                self._database.run("session_set", rows.session_values(held, done=False))
            self._database.run("meta_drop", {"key": RESTORED})
        _finish(self.fill())

    def close(self) -> None:
        """Close the file."""
        self._database.close()


def _finish(coroutine: Coroutine[Any, Any, None]) -> None:
    """Run a coroutine that waits for nothing: reading a file in place does not."""
    try:
        coroutine.send(None)
    except StopIteration:
        return
    coroutine.close()
    raise RuntimeError("a read in place has waited")
