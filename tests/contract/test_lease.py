"""The lease on a real PostgreSQL: one leads, and a stale leader's words are worth nothing."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import asyncpg
import pytest

from phalanx_manager.config import ManagerConfig
from phalanx_manager.core.model import Stop, StopCause
from phalanx_manager.serve import serve
from phalanx_manager.store import postgres
from phalanx_manager.store.leading import Candidate, Deposed, Led
from phalanx_manager.store.lease import PostgresLease
from phalanx_manager.store.ledger import Ledger
from phalanx_manager.store.port import AlreadyThere, Created, NewSession, Unavailable
from phalanx_manager.store.postgres import Postgres, fit, open_postgres
from phalanx_wire.ids import SessionId
from tests.support.house import NOW, admitted
from tests.support.postgres import USER, Server
from tests.support.store_case import ADA, ONE, TWO

FIRST = Candidate("one", "http://one", "key")
SECOND = Candidate("two", "http://two", "key")


async def expire(url: str) -> None:
    """Let the database's clock be where the lease has run out."""
    connection = await asyncpg.connect(url)
    await connection.execute("UPDATE leader SET renewed_at = renewed_at - INTERVAL '1 minute'")
    await connection.close()


def request(session: SessionId, name: str) -> NewSession:
    return NewSession(session, ADA, admitted(name=name), NOW)


async def test_one_leads_until_it_gives_the_lead_back(server: Server) -> None:
    url = await server.fresh()
    async with PostgresLease.open(url, FIRST) as one, PostgresLease.open(url, SECOND) as two:
        epoch = await one.take()
        assert isinstance(epoch, int)
        assert Led("one", "http://one") == await two.take()
        assert await one.renew(epoch)
        await one.give_back(epoch)
        following = await two.take()

    assert isinstance(following, int)
    assert following > epoch


async def test_a_lease_that_has_run_out_is_taken_and_not_renewed(server: Server) -> None:
    url = await server.fresh()
    async with PostgresLease.open(url, FIRST) as one, PostgresLease.open(url, SECOND) as two:
        epoch = await one.take()
        await expire(url)
        following = await two.take()

        assert isinstance(epoch, int)
        assert isinstance(following, int)
        assert not await one.renew(epoch)
        await one.give_back(epoch)
        assert await two.renew(following)


async def test_a_lease_of_a_clock_that_was_ahead_is_taken(server: Server) -> None:
    url = await server.fresh()
    async with PostgresLease.open(url, FIRST) as one, PostgresLease.open(url, SECOND) as two:
        first = await one.take()
        connection = await asyncpg.connect(url)
        await connection.execute("UPDATE leader SET renewed_at = now() + INTERVAL '1 hour'")
        await connection.close()
        second = await two.take()

        assert isinstance(first, int)
        assert isinstance(second, int)
        assert not await one.renew(first)
        assert await two.renew(second)


async def test_of_many_that_try_at_once_one_leads(server: Server) -> None:
    url = await server.fresh()
    async with (
        PostgresLease.open(url, FIRST) as one,
        PostgresLease.open(url, SECOND) as two,
        PostgresLease.open(url, Candidate("three", "", "key")) as three,
    ):
        outcomes = await asyncio.gather(one.take(), two.take(), three.take())

    assert [int, Led, Led] == sorted(map(type, outcomes), key=lambda kind: kind.__name__)[::-1]


async def test_what_a_stale_leader_writes_is_not_there(server: Server) -> None:
    url = await server.fresh()
    async with PostgresLease.open(url, FIRST) as one, PostgresLease.open(url, SECOND) as two:
        epoch = await one.take()
        assert isinstance(epoch, int)
        async with open_postgres(url, epoch, "cid") as (stale, write):
            writing = asyncio.ensure_future(write())
            assert Created(ONE) == await stale.submit(request(ONE, "accepted"))
            await expire(url)
            following = await two.take()
            assert isinstance(following, int)
            with pytest.raises(Deposed, match="another manager leads"):
                await stale.submit(request(TWO, "too-late"))
            with pytest.raises(Unavailable):
                await stale.stop(ONE, Stop(StopCause.USER, "too late", NOW))
            await asyncio.wait({writing})
            assert isinstance(writing.exception(), Deposed)
            seen_by_stale = {row.session.name for row in (await stale.load()).sessions.values()}
        async with open_postgres(url, following, "cid") as (store, _):
            found = (await store.load()).sessions

    assert {ONE} == set(found)
    assert found[ONE].session.stop is None
    assert {"accepted"} == seen_by_stale


@pytest.mark.parametrize("order", ["stop", "hold", "extend"])
async def test_a_stale_leader_does_not_say_that_there_is_nothing_to_do(
    server: Server, order: str
) -> None:
    url = await server.fresh()
    async with PostgresLease.open(url, FIRST) as one, PostgresLease.open(url, SECOND) as two:
        epoch = await one.take()
        assert isinstance(epoch, int)
        async with open_postgres(url, epoch, "cid") as (stale, write):
            writing = asyncio.ensure_future(write())
            await expire(url)
            following = await two.take()
            assert isinstance(following, int)
            async with open_postgres(url, following, "cid") as (store, write_on):
                going_on = asyncio.ensure_future(write_on())
                assert Created(ONE) == await store.submit(request(ONE, "of-the-new-leader"))
                asked = {
                    "stop": lambda: stale.stop(ONE, Stop(StopCause.USER, "enough", NOW)),
                    "hold": lambda: stale.hold(ONE, "held", NOW, held=True),
                    "extend": lambda: stale.extend(ONE, 60, "more", NOW),
                }
                with pytest.raises(Deposed):
                    await asked[order]()
                going_on.cancel()
            await asyncio.wait({writing, going_on})
            assert isinstance(writing.exception(), Deposed)


async def test_a_stale_leader_cannot_even_bring_the_schema_up_to_date(server: Server) -> None:
    url = await server.fresh()
    async with PostgresLease.open(url, FIRST) as one, PostgresLease.open(url, SECOND) as two:
        epoch = await one.take()
        assert isinstance(epoch, int)
        await expire(url)
        await two.take()
        with pytest.raises(Deposed):
            async with open_postgres(url, epoch, "cid"):
                raise AssertionError("it was let in")
    connection = await asyncpg.connect(url)
    tables = await connection.fetchval("SELECT to_regclass('session')")
    await connection.close()

    assert tables is None


async def test_a_connection_that_was_cut_is_made_anew(server: Server) -> None:
    url = await server.fresh()
    async with PostgresLease.open(url, FIRST) as one:
        epoch = await one.take()
        assert isinstance(epoch, int)
        async with open_postgres(url, epoch, "cid") as (store, write):
            writing = asyncio.ensure_future(write())
            await store.submit(request(ONE, "accepted"))
            await server.admin(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE application_name = 'phalanx-manager'"
            )
            outcome = await until_accepted(store, request(TWO, "once-more"))
            writing.cancel()
            await asyncio.wait({writing})

    assert Created(TWO) == outcome


async def test_nobody_waits_long_for_a_server_that_does_not_answer(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres, "READ_S", 0.05)
    url = await server.fresh()
    async with PostgresLease.open(url, FIRST) as one:
        epoch = await one.take()
        assert isinstance(epoch, int)
        async with Postgres.open(url, epoch) as tables, AsyncExitStack() as stack:
            for _one in range(postgres._READERS):  # of others who have no answer yet
                await stack.enter_async_context(tables._pool.acquire())
            with pytest.raises(Unavailable, match="cannot be reached: it does not answer"):
                await tables.read("event_last", {})


async def test_a_server_that_crashes_refuses_for_a_while_and_loses_nothing(server: Server) -> None:
    url = await server.fresh()
    async with PostgresLease.open(url, FIRST) as one:
        epoch = await one.take()
        assert isinstance(epoch, int)
        async with open_postgres(url, epoch, "cid") as (store, write):
            writing = asyncio.ensure_future(write())
            await store.submit(request(ONE, "accepted"))
            server.stop()
            with pytest.raises(Unavailable):
                await store.submit(request(TWO, "refused"))
            with pytest.raises(Unavailable):
                await one.renew(epoch)
            server.start_again()
            outcome = await until_accepted(store, request(TWO, "accepted-later"))
            renewed = await one.renew(epoch)
            names = {row.session.name for row in (await store.load()).sessions.values()}
            writing.cancel()
            await asyncio.wait({writing})

    assert (Created(TWO), True) == (outcome, renewed)
    assert {"accepted", "accepted-later"} == names


async def test_a_commit_whose_answer_was_lost_is_found(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = await server.fresh()
    changed: asyncio.Queue[SessionId] = asyncio.Queue()
    wanted = replace(request(ONE, "accepted"), idempotency_key="k", body_digest="d")
    committed = Postgres._commit

    async def cut_off(self: Postgres, writer: asyncpg.Connection) -> None:
        await committed(self, writer)
        raise ConnectionResetError

    async with PostgresLease.open(url, FIRST) as one:
        epoch = await one.take()
        assert isinstance(epoch, int)
        async with open_postgres(url, epoch, "cid", changed.put_nowait) as (store, write):
            writing = asyncio.ensure_future(write())
            monkeypatch.setattr(Postgres, "_commit", cut_off)
            with pytest.raises(Unavailable):
                await store.submit(wanted)
            monkeypatch.undo()
            async with asyncio.timeout(20):
                told = await changed.get()
            found = (await store.load()).sessions
            outcome = await store.submit(wanted)
            writing.cancel()
            await asyncio.wait({writing})

    assert AlreadyThere(ONE) == outcome
    assert ONE == told
    assert {ONE} == set(found)


async def until_accepted(store: Ledger, wanted: NewSession) -> object:
    """Ask until the database is available; each try waits for the one connection."""
    async with asyncio.timeout(20):
        while True:
            try:
                return await store.submit(wanted)
            except Unavailable:
                await store.last_event()


async def test_a_manager_with_another_key_is_refused(server: Server) -> None:
    url = await server.fresh()
    async with PostgresLease.open(url, FIRST) as one:
        await one.take()
        with pytest.raises(
            Unavailable, match=r"copy manager\.key and admin\.token from the data_dir"
        ):
            async with PostgresLease.open(url, Candidate("two", "", "another key")):
                raise AssertionError("it was let in")


async def test_a_schema_of_a_newer_program_is_left_alone(server: Server) -> None:
    url = await server.fresh()
    async with PostgresLease.open(url, FIRST) as one:
        epoch = await one.take()
        assert isinstance(epoch, int)
        await one.give_back(epoch)
    connection = await asyncpg.connect(url)
    await connection.execute("UPDATE leader SET version = 99")
    await connection.close()

    with pytest.raises(Unavailable, match=r"schema version 99, .*run the program that wrote it"):
        async with PostgresLease.open(url, FIRST):
            raise AssertionError("it was let in")


@pytest.mark.parametrize("theirs", ["session", "leader"])
async def test_a_database_with_somebody_elses_tables_is_left_alone(
    server: Server, theirs: str
) -> None:
    url = await server.fresh()
    connection = await asyncpg.connect(url)
    await connection.execute(f"CREATE TABLE {theirs} (id TEXT)")

    with pytest.raises(Unavailable, match="give Phalanx a database of its own"):
        async with PostgresLease.open(url, FIRST):
            raise AssertionError("it was let in")

    tables = await connection.fetch("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
    await connection.close()
    assert [(theirs,)] == [tuple(row) for row in tables]


async def test_a_database_that_cannot_hold_every_text_is_refused(server: Server) -> None:
    await server.admin("CREATE DATABASE latin ENCODING 'LATIN1' TEMPLATE template0")

    with pytest.raises(Unavailable, match="is encoded in LATIN1; make one with"):
        async with PostgresLease.open(server.url("latin"), FIRST):
            raise AssertionError("it was let in")


async def test_a_pooler_that_drops_our_settings_is_refused(server: Server) -> None:
    url = await server.fresh()
    connection = await asyncpg.connect(url)

    with pytest.raises(Unavailable, match="does not take our settings; name the server itself"):
        await fit(url, connection)
    await connection.close()


@pytest.mark.parametrize("isolation", ["repeatable read", "serializable"])
async def test_a_lease_is_renewed_amid_a_commit_however_its_user_isolates(
    server: Server, isolation: str
) -> None:
    url = await server.fresh()
    await server.admin(f"ALTER ROLE {USER} SET default_transaction_isolation = '{isolation}'")
    try:
        async with PostgresLease.open(url, FIRST) as lease:
            epoch = await lease.take()
            assert isinstance(epoch, int)
            connection = await postgres.connect(url)
            await connection.execute("BEGIN; SELECT 1")  # where transactions have a snapshot: now
            assert await lease.renew(epoch)
            await connection.execute(f"SELECT phalanx_fence({epoch}); COMMIT")
            await connection.close()
    finally:
        await server.admin(f"ALTER ROLE {USER} RESET ALL")


async def test_what_hinders_a_new_leader_is_told_in_a_sentence(
    server: Server, tmp_path: Path
) -> None:
    await server.admin("CREATE ROLE few LOGIN CONNECTION LIMIT 1")
    await server.admin("CREATE DATABASE few OWNER few")
    url = server.url("few").replace("phalanx@", "few@")
    local = "127.0.0.1:0"
    config = ManagerConfig(data_dir=tmp_path, database=url, http=local, rpc=f"tcp://{local}")

    with pytest.raises(Unavailable, match='failed: too many connections for role "few"; '):
        await serve(config)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"port": 1}, "cannot be reached: Connection refused; check that the server runs"),
        ({"password": "wrong-horse"}, "does not let us in: .*check the user and password"),
        ({"database": "nowhere"}, "cannot be used: .*make it with `createdb`"),
    ],
)
async def test_a_server_that_cannot_be_used_is_told_without_the_password(
    server: Server, change: dict[str, object], told: str
) -> None:
    parts = {"password": "correct-horse", "port": server.port, "database": "postgres", **change}
    url = f"postgresql://phalanx:{parts['password']}@127.0.0.1:{parts['port']}/{parts['database']}"
    with pytest.raises(Unavailable, match=told) as caught:
        async with PostgresLease.open(url, FIRST):
            raise AssertionError("it was let in")

    assert "\n" not in str(caught.value)
    assert "horse" not in str(caught.value)


async def test_a_frozen_managers_transaction_is_ended_by_the_server(server: Server) -> None:
    url = await server.fresh()
    async with PostgresLease.open(url, FIRST) as one:
        epoch = await one.take()
        assert isinstance(epoch, int)
        async with open_postgres(url, epoch, "cid") as (store, _):
            limit = await store._tables._writer.fetchval(  # type: ignore[attr-defined]
                "SHOW idle_in_transaction_session_timeout"
            )
    assert timedelta(seconds=4) == timedelta(seconds=int(limit.removesuffix("s")))
