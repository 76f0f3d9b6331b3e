"""Who leads, of several managers with one PostgreSQL: a row that the leader renews.

The database's clock decides. Each lead has a number of its own, the epoch, and every commit says
which it belongs to (`phalanx_fence`): of a manager that was frozen and wakes up when another
leads, nothing is written any more.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

import asyncpg

from phalanx_manager.store.leading import Candidate, Led
from phalanx_manager.store.port import Unavailable
from phalanx_manager.store.postgres import (
    ANOTHERS,
    asking,
    connect,
    fit,
    newest_version,
    refuse_newer,
    shown,
)

LASTS_S: Final = 6.0
"""A lease that is not renewed for so long may be taken."""

ANSWER_S: Final = 3.0

SCHEMA: Final = """
SELECT pg_advisory_xact_lock(7911);
CREATE TABLE IF NOT EXISTS leader (
    one BIGINT PRIMARY KEY DEFAULT 1 CHECK (one = 1),
    epoch BIGINT NOT NULL,
    holder TEXT NOT NULL,
    url TEXT NOT NULL,
    server_key TEXT NOT NULL, -- public; agents know all managers by this one key
    renewed_at TIMESTAMPTZ NOT NULL,
    version BIGINT NOT NULL -- of the schema
);
INSERT INTO leader (epoch, holder, url, server_key, renewed_at, version)
VALUES (0, '', '', '', '-infinity', 0) ON CONFLICT DO NOTHING;
CREATE OR REPLACE FUNCTION phalanx_fence(mine BIGINT) RETURNS BOOLEAN LANGUAGE plpgsql AS $$
BEGIN
    PERFORM 1 FROM leader WHERE epoch = mine FOR SHARE;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'another manager leads' USING ERRCODE = 'PX001';
    END IF;
    RETURN TRUE;
END $$;
"""

# The epoch is at least the time in seconds, so that it grows over a restored backup, too: agents
# refuse an epoch that is older than what they have seen. A renewal that is still to come was made
# by another clock: the server's was set, or it is another server now.
_TAKE: Final = """
UPDATE leader SET
    epoch = greatest(epoch + 1, extract(epoch FROM clock_timestamp())::BIGINT),
    holder = $1, url = $2, server_key = $3, renewed_at = clock_timestamp()
WHERE NOT renewed_at BETWEEN clock_timestamp() - $4 * INTERVAL '1 second'
        AND clock_timestamp() + $4 * INTERVAL '1 second'
    AND version <= $5 AND server_key IN ('', $3)
RETURNING epoch
"""
_RENEW: Final = "UPDATE leader SET renewed_at = clock_timestamp() WHERE epoch = $1"
_GIVE_BACK: Final = "UPDATE leader SET renewed_at = '-infinity' WHERE epoch = $1"
_LOOK: Final = "SELECT holder, url, server_key, version FROM leader"
_IS_THERE: Final = """
SELECT to_regclass('leader') IS NOT NULL, to_regclass('session') IS NOT NULL
"""


class PostgresLease:
    """See `leading.Lease`; by a connection of its own, made by `open`."""

    def __init__(self, database: str, candidate: Candidate) -> None:
        self._database = database
        self._candidate = candidate
        self._connection: asyncpg.Connection | None = None

    @classmethod
    @asynccontextmanager
    async def open(cls, database: str, candidate: Candidate) -> AsyncIterator[PostgresLease]:
        """Connect; a database that is refused is left as it was.

        Raises:
            Unavailable: it cannot be reached, does not let us in, or is not for us.
        """
        lease = cls(database, candidate)
        try:
            await fit(database, await lease._connected())
            ((there, session),) = await lease._ask(_IS_THERE)
            if there:
                await lease.look()
            elif session:
                raise Unavailable(shown(database), "has a table `session`", ANOTHERS)
            with asking(database):
                await (await lease._connected()).execute(SCHEMA)
            yield lease
        finally:
            lease._hang_up()

    async def take(self) -> int | Led:
        """Take the lead if nobody has it; the epoch, or who leads.

        Raises:
            Unavailable: the database does not answer, or is not for us.
        """
        ours = self._candidate
        epoch = await self._ask(
            _TAKE, ours.holder, ours.url, ours.server_key, LASTS_S, newest_version()
        )
        return int(epoch[0][0]) if epoch else await self.look()

    async def look(self) -> Led:
        """Tell who leads, or led last.

        Raises:
            Unavailable: the database does not answer, or is not for us.
        """
        ((holder, url, server_key, version),) = await self._ask(_LOOK)
        refuse_newer(self._database, version)
        if server_key not in ("", self._candidate.server_key):
            raise Unavailable(
                shown(self._database),
                "belongs to managers with another key than this one's manager.key",
                "copy manager.key and admin.token from the data_dir of the other manager",
            )
        return Led(holder, url)

    async def renew(self, epoch: int) -> bool:
        """Keep the lead; False when another has taken it."""
        return bool(await self._ask(f"{_RENEW} RETURNING 1", epoch))

    async def give_back(self, epoch: int) -> None:
        """Let another have the lead at once."""
        await self._ask(f"{_GIVE_BACK} RETURNING 1", epoch)

    async def _ask(self, text: str, *values: object) -> list[asyncpg.Record]:
        try:
            with asking(self._database):
                async with asyncio.timeout(ANSWER_S):
                    return list(await (await self._connected()).fetch(text, *values))
        except BaseException:
            self._hang_up()  # what is half done on this connection must not meet the next call
            raise

    async def _connected(self) -> asyncpg.Connection:
        if self._connection is None or self._connection.is_closed():
            self._connection = await connect(self._database)
        return self._connection

    def _hang_up(self) -> None:
        if self._connection is not None:
            self._connection.terminate()
            self._connection = None
