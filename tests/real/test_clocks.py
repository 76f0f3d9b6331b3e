"""Clocks of a host's agent and of the manager are wrong, by an hour each."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.real.failing import ENDED, ON_BOTH, PATIENCE_S, WITNESS, Site, containers
from tests.real.ground import assert_same_traces, await_true, ranks, settled_traces
from tests.support import clocks

pytestmark = [pytest.mark.real, pytest.mark.long, pytest.mark.timeout(500)]

HOUR_S = 3600
CODE = 7
LOST_AFTER_S = 120
LIMIT_S = 2
SOON_S = 60
"""Far longer than anything takes here, and far shorter than clocks are wrong."""

COUNT = WITNESS + (
    "i=0; "
    'until [ -e "/share/enough.$PHALANX_SESSION_ID" ]; do i=$((i+1)); echo $i; sleep 0.1; done; '
    f"exit {CODE}"
)
MOMENT = re.compile(r"\d{4}-\d\d-\d\d[ T]\d\d:\d\d:\d\d")
AHEAD = {"agent-1": HOUR_S, "manager": -HOUR_S}
BEHIND = {"agent-1": -HOUR_S, "manager": HOUR_S}


@pytest.fixture
def site(failing: Site) -> Iterator[Site]:
    """The lab; after the test its clocks are right, and nothing is left of what was done."""
    before = settled_traces(failing.ground)
    try:
        yield failing
    finally:
        failing.clear()
    await_well(failing)
    assert_same_traces(before, failing.ground)


def await_well(site: Site) -> None:
    """Wait until both hosts take work."""
    await_true("all hosts are well", lambda: all(map(site.works, (1, 2))), PATIENCE_S)


@contextmanager
def wrong_clocks(site: Site, by_s: Mapping[str, int]) -> Iterator[None]:
    """Daemons begin anew with clocks that are wrong, and in the end with right ones."""
    try:
        for component, wrong_by_s in by_s.items():
            clocks.set_wrong(site.folder(component), wrong_by_s)
            site.begin_anew(component)
        for component, wrong_by_s in by_s.items():
            is_wrong = partial(tells, site, component, wrong_by_s)
            await_true(f"{component} is wrong by {wrong_by_s} s", is_wrong)
        await_well(site)
        yield
    finally:
        for component in by_s:
            clocks.set_right(site.folder(component))
            site.begin_anew(component)


def tells(site: Site, component: str, wrong_by_s: int) -> bool:
    """Whether what a daemon has written down last is of a time that is wrong by so much."""
    text = Path(site.ground.lab.state_dir, "logs", f"{component}.log").read_text()
    last = datetime.fromisoformat(MOMENT.findall(text)[-1]).replace(tzinfo=UTC)
    return abs(last.timestamp() - time.time() - wrong_by_s) < SOON_S


def counted(site: Site, session: str) -> dict[int, list[int]]:
    """How far each rank has counted, by the logs; empty while a host is away."""
    done = site.ground.phalanx("logs", session)
    return {rank: [int(line) for line in said] for rank, said in ranks(done.out).items()}


def await_progress(site: Site, session: str) -> None:
    """Wait until both ranks have counted on."""
    before: dict[int, list[int]] = {}

    def further() -> bool:
        now = counted(site, session)
        if len(before) < 2:
            before.update(now)
        return len(now) == 2 and all(now[rank][-1] > before[rank][-1] for rank in now)

    await_true("both count on", further)


def submit(site: Site, **spec: Any) -> str:
    """A session of counters on both hosts; its id."""
    share = {"source": str(site.share), "target": "/share", "read_only": False}
    wish = {**ON_BOTH, "mounts": [share], "lost_after_s": LOST_AFTER_S, "grace_s": 1, **spec}
    return site.submit(command=["sh", "-c", COUNT], **wish)


def cut_off_for_a_while(site: Site) -> None:
    """The first host is not heard until that is noticed, and then again."""
    site.ground.lab.fault("cut", "host1")
    try:
        await_true("it is noticed", lambda: site.nodes()["host1"] != "ready")
    finally:
        site.ground.lab.fault("heal", "host1")
    await_well(site)


def moments(view: dict[str, Any]) -> list[float]:
    """When a session was taken, started and ended, in Unix seconds."""
    told = (view[key] for key in ("created_at", "started_at", "ended_at"))
    return [datetime.fromisoformat(text).timestamp() for text in told]


@pytest.mark.parametrize("by_s", [AHEAD, BEHIND], ids=["ahead", "behind"])
def test_sessions_do_not_notice_that_clocks_are_an_hour_wrong(
    site: Site, by_s: Mapping[str, int]
) -> None:
    before = submit(site)
    site.await_state(before, "running")
    with wrong_clocks(site, by_s):
        began = time.time()
        during, limited = submit(site), submit(site, time_limit_s=LIMIT_S)
        for session in (during, limited):
            site.await_state(session, "running", *ENDED)
        first = {session: set(containers(site.ground, session)) for session in (before, during)}
        timeout = site.await_state(limited, *ENDED)
        cut_off_for_a_while(site)
        for session in (before, during):
            await_progress(site, session)
        assert first == {session: set(containers(site.ground, session)) for session in first}
        for session in first:
            (site.share / f"enough.{session}").touch()
        views = {session: site.await_state(session, *ENDED) for session in first}
        took_s = time.time() - began
        logs = {session: counted(site, session) for session in first}

    created, started, ended = moments(views[during])
    assert abs(created - began - by_s["manager"]) < SOON_S
    assert created <= started <= ended <= created + took_s * 1.1
    _created, started, ended = moments(timeout)
    assert ("timeout", 2) == (timeout["state"], site.times_run(limited))
    assert LIMIT_S * 0.9 < ended - started < SOON_S
    for session, view in views.items():
        assert ("failed", CODE, 1) == (view["state"], view["exit_code"], view["attempt"])
        assert [CODE, CODE] == [kernel["exit_code"] for kernel in view["kernels"]]
        assert 2 == site.times_run(session)
        assert 2 == len(logs[session])
        for said in logs[session].values():
            assert list(range(1, len(said) + 1)) == said
