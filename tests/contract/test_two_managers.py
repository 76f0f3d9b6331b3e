"""Two managers on one PostgreSQL, as processes: one leads, the other takes over."""

from __future__ import annotations

import asyncio
import signal
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from phalanx_client.connection import connect
from phalanx_manager.store.lease import LASTS_S
from tests.support.postgres import Server
from tests.support.two_managers import PATIENCE_S, Daemon, Pair, pair

TAKEN_OVER_WITHIN_S = 10.0
SPEC = {
    "name": "demo",
    "image": "i",
    "size": 2,
    "command": ["sleep", "99"],
    "resources": {"cpu": 0.1, "mem": "64M", "shm": "16M", "pids": 64},
}


async def ask(here: Pair, daemon: Daemon, method: str, path: str, body: Any = None) -> Any:
    async with (
        asyncio.timeout(PATIENCE_S),
        here.http.request(method, daemon.url + path, json=body) as response,
    ):
        if response.content_type == "text/plain":
            return response.status, await response.text()
        return response.status, await response.json()


async def wait(here: Pair, daemon: Daemon, until: str) -> Any:
    path = f"/v1/sessions/demo/wait?until={until}&timeout_s={PATIENCE_S}"
    return (await ask(here, daemon, "GET", path))[1]


async def welcomed(here: Pair) -> int:
    async with asyncio.timeout(PATIENCE_S):
        return (await here.agent.welcomes.get()).epoch


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP])
async def test_the_other_manager_leads_soon_and_everything_goes_on(
    server: Server, tmp_path: Path, how: signal.Signals
) -> None:
    async with pair(await server.fresh(), tmp_path) as here:
        one, two = here.first, here.second
        first_epoch = await welcomed(here)
        assert 201 == (await ask(here, one, "POST", "/v1/sessions", SPEC))[0]
        assert "running" == (await wait(here, one, "running"))["state"]
        await stands_by(here, two, leader=one)

        one.signal(how)
        begun = time.monotonic()
        late = asyncio.ensure_future(
            ask(here, one, "POST", "/v1/sessions", {**SPEC, "name": "late"})
        )
        await two.says("manager.ready")
        took = time.monotonic() - begun
        print(f"{how.name}: the other leads after {took:.1f} s")
        assert took <= TAKEN_OVER_WITHIN_S
        assert await welcomed(here) > first_epoch
        assert "running" == (await wait(here, two, "running"))["state"]
        if how is signal.SIGSTOP:
            await wakes_up(here, late)
        else:
            await asyncio.wait({late})
            assert late.exception() is not None

        async with connect(f"{one.url},{two.url}", one.token) as client:
            await client.stop("demo")
        assert "cancelled" == (await wait(here, two, "ended"))["state"]
        sessions = (await ask(here, two, "GET", "/v1/sessions?all=1"))[1]["sessions"]
        assert ["demo"] == [session["name"] for session in sessions]


async def stands_by(here: Pair, daemon: Daemon, leader: Daemon) -> None:
    """It lives, says that it is not the one, and who is."""
    assert (200, "ok\n") == await ask(here, daemon, "GET", "/healthz")
    status, problem = await ask(here, daemon, "GET", "/readyz")
    assert (503, "standby") == (status, problem["code"])
    status, problem = await ask(here, daemon, "GET", "/v1/sessions")
    assert (503, "not_leader") == (status, problem["code"])
    assert leader.url in problem["hint"]


async def wakes_up(here: Pair, late: asyncio.Future[Any]) -> None:
    """The one that was frozen finds that another leads, and changes nothing."""
    here.first.signal(signal.SIGCONT)
    await here.first.says("manager.stepped_down")
    await asyncio.wait({late})
    refused = late.exception() is not None or late.result()[0] == 503
    assert refused
    await here.first.says("lead.stands_by")
    await stands_by(here, here.first, leader=here.second)


async def test_a_leader_whose_database_takes_no_writes_says_so_until_it_does(
    server: Server, tmp_path: Path
) -> None:
    async with pair(await server.fresh(), tmp_path) as here:
        one = here.first
        await here.second.end()  # it might lead afterwards
        assert (200, "ok\n") == await ask(here, one, "GET", "/readyz")
        await server.admin("ALTER SYSTEM SET default_transaction_read_only = on")
        try:
            await server.admin("SELECT pg_reload_conf()")
            status, problem = await readiness(here, one, 503)
            assert (503, "not_ready") == (status, problem["code"])
            assert "a read-only transaction" in problem["title"]
            assert 200 == (await ask(here, one, "GET", "/v1/sessions"))[0]
            assert 503 == (await ask(here, one, "POST", "/v1/sessions", SPEC))[0]
        finally:
            await server.admin("ALTER SYSTEM RESET default_transaction_read_only")
            await server.admin("SELECT pg_reload_conf()")

        assert (200, "ok\n") == await readiness(here, one, 200)
        assert 201 == (await ask(here, one, "POST", "/v1/sessions", SPEC))[0]
        assert not [line for line in one.seen if "Traceback" in line]


async def test_a_leader_whose_database_lets_nobody_in_says_so_line_by_line(
    server: Server, tmp_path: Path
) -> None:
    url = await server.fresh()
    name = urlsplit(url).path.removeprefix("/")
    async with pair(url, tmp_path) as here:
        one = here.first
        await here.second.end()  # it might lead afterwards
        await server.admin(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS false')
        await server.admin(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE application_name = 'phalanx-manager'"
        )
        _, problem = await readiness(here, one, 503)
        assert "not currently accepting connections" in problem["title"]
        await one.says("lead.not_renewed")
        await server.admin(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS true')

        assert (200, "ok\n") == await readiness(here, one, 200)
        assert not [line for line in one.seen if "Traceback" in line]


async def readiness(here: Pair, daemon: Daemon, until: int) -> Any:
    """Its answer once it is of this status; it looks every two seconds itself."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            answer = await ask(here, daemon, "GET", "/readyz")
            if answer[0] == until:
                return answer
            await asyncio.sleep(0.1)


async def test_a_leader_that_is_told_to_stop_hands_the_lead_over(
    server: Server, tmp_path: Path
) -> None:
    async with pair(await server.fresh(), tmp_path) as here:
        before = await welcomed(here)
        here.first.signal(signal.SIGTERM)
        begun = time.monotonic()
        await here.second.says("manager.ready")
        took = time.monotonic() - begun
        print(f"SIGTERM: the other leads after {took:.1f} s")
        assert here.first.process is not None
        async with asyncio.timeout(PATIENCE_S):
            assert 0 == await here.first.process.wait()
        assert took <= LASTS_S
        assert await welcomed(here) > before
