"""`phalanx why` names what keeps real sessions from getting on, within a second."""

from __future__ import annotations

import json
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from phalanx_lab import recipes
from tests.real.ground import ACROSS, BASE, PROGRAMS, Ground, await_true, fresh_name

pytestmark = pytest.mark.real

TINY = ("-c", "0.1", "-m", "64M", "--shm", "8M", "-N", "2", "--upload", str(PROGRAMS))
RUN = ("python3", "stuck.py")
CASES = {
    "ended": (*RUN, "ended"),
    "deaf": (*RUN, "deaf"),
    "loopback": (*RUN, "loopback"),
    "port": (*RUN, "port"),
    "other": ("sh", "-c", "MASTER_PORT=$((12345 + RANK)) exec python3 stuck.py world"),
    "late": (*RUN, "late"),
    "world": (*RUN, "world"),
    "env": ("env", "WORLD_SIZE=4", *RUN, "world"),
    "died": ("sh", "-c", "python3 stuck.py died & exec sleep 1000"),
    "stopped": (*RUN, "stopped"),
    "busy": (*RUN, "busy"),
    "linked": (*RUN, "linked"),
}
EXPECTED = {
    "ended": ("ended-early", [1]),
    "deaf": ("master-not-listening", [0]),
    "loopback": ("master-on-loopback", [0]),
    "port": ("master-other-port", [0]),
    "other": ("wrong-master", [1]),
    "late": ("not-connected", [1]),
    "world": ("world-size", None),
    "env": ("world-size", None),
    "died": ("process-ended", [1]),
    "stopped": ("stopped", [1]),
    "busy": ("busy", None),
    "linked": ("idle", [0, 1]),
}


def first(ground: Ground, session: str) -> tuple[str, Any]:
    """The first finding of a session: its code, and its ranks."""
    found = ground.http("GET", f"/v1/sessions/{session}/why").ok()["findings"][0]
    return found["code"], found.get("ranks")


def timed(ground: Ground, session: str) -> tuple[float, Any]:
    """An answer, and the seconds that it took."""
    began = time.monotonic()
    answer = ground.http("GET", f"/v1/sessions/{session}/why").ok()
    return time.monotonic() - began, answer


def test_every_way_to_hang_is_named_within_a_second(clean: Ground) -> None:
    with ThreadPoolExecutor(4) as pool:
        names = dict(
            zip(CASES, pool.map(lambda one: clean.detached(*TINY, "--", *one), CASES.values()),
                strict=True)
        )  # fmt: skip
    found: dict[str, tuple[str, Any]] = {}

    def all_named() -> bool:
        found.update({case: first(clean, name) for case, name in names.items()})
        return found == EXPECTED

    try:
        await_true("every case is named", all_named, within=30)
    except AssertionError as late:
        for case, name in names.items():
            if found.get(case) != EXPECTED[case]:
                late.add_note(f"{case}: {clean.phalanx('why', name).out}")
        raise
    slowest = max(timed(clean, name)[0] for name in names.values())
    told = {case: clean.phalanx("why", name).ok() for case, name in names.items()}
    clean.phalanx("stop", "--grace", "0", *names.values()).ok()

    print(f"the slowest answer took {slowest * 1000:.0f} ms")
    assert slowest < 1.0
    assert "rank 1 (sub1)" in told["ended"]
    assert "listens at 127.0.0.1:12345" in told["loopback"]
    assert "0.0.0.0:29501" in told["port"]
    assert "MASTER_PORT=12346" in told["other"]
    assert "waits for 4 workers, and there are 2: nobody was started as rank 2, 3" in told["env"]


def test_a_cut_between_two_hosts_is_named_within_a_second(clean: Ground) -> None:
    session = clean.detached(*TINY, *ACROSS, "--", *RUN, "linked")
    clean.await_state(session, "running")
    hosts = "host {0[main1]} and {0[sub1]}".format(clean.containers(session))
    one, other = clean.containers(session).values()
    clean.lab.fault("cut", f"{one}:{other}")
    try:
        took_s, answer = timed(clean, session)
    finally:
        clean.lab.fault("heal", f"{one}:{other}")
    clean.phalanx("stop", "--grace", "0", session).ok()

    print(f"named after {took_s * 1000:.0f} ms")
    named = answer["findings"][0]
    assert ("network-cut", [0, 1]) == (named["code"], named["ranks"])
    assert took_s < 1.0
    assert hosts.replace("host ", "hosts ") in named["text"]
    assert "nor the other way round" in named["text"]


def test_an_agent_that_is_cut_off_does_not_hold_the_answer_up(clean: Ground) -> None:
    session = clean.detached(*TINY, *ACROSS, "--", *RUN, "linked")
    clean.await_state(session, "running")
    agent = clean.containers(session)["sub1"].replace("host", "agent-")
    clean.lab.fault("stop", agent)
    try:
        took_s, answer = timed(clean, session)
    finally:
        clean.lab.fault("cont", agent)
    clean.phalanx("stop", "--grace", "0", session).ok()

    assert took_s < 1.0
    assert [1] == answer["missing"]
    assert "not-seen" in [one["code"] for one in answer["findings"]]


def test_torch_that_waits_for_more_ranks_than_there_are_is_told(clean: Ground) -> None:
    folder = recipes.site_ml(print)
    program = (
        "import os, torch.distributed as d; "
        "d.init_process_group('gloo', rank=int(os.environ['RANK']), world_size=4)"
    )
    session = clean.detached(
        "-N", "2", "-c", "1", "-m", "1G", "-v", f"{folder}:/site:ro", "-e", "PYTHONPATH=/site",
        "--", "python3", "-c", program,
    )  # fmt: skip
    await_true("it is told", lambda: first(clean, session)[0] == "world-size", within=40)
    answer = json.loads(clean.phalanx("why", session, "-o", "json").ok())
    clean.phalanx("stop", "--grace", "0", session).ok()

    (named, *_) = answer["findings"]
    assert "all 2 ranks are connected with rank 0's MASTER_PORT and wait" in named["text"]
    assert "WORLD_SIZE is 2" in named["hint"]


@pytest.mark.long
@pytest.mark.timeout(300)
def test_ranks_that_have_not_met_after_a_minute_are_told_to_who_follows(clean: Ground) -> None:
    name = fresh_name()
    slurm = ("--env-profile", "slurm", "--run-on", "main")
    forgot = clean.detached(*TINY, *slurm, "--", "python3", "-m", "http.server", "12345")
    with clean.start("run", "-J", name, "-i", BASE, *TINY, "--", *CASES["deaf"]) as following:
        told = "do not work together yet, after 60 s"

        def both_are_told() -> bool:
            return all(told in clean.phalanx("events", one).out for one in (forgot, name))

        await_true("both are told", both_are_told, within=90)
        said = clean.phalanx("logs", forgot).err
        clean.phalanx("stop", "--grace", "0", forgot, name).ok()
        _, err = following.communicate(timeout=30)

    assert f"{forgot}: its ranks {told}: in rank 1 (sub1) nothing was started; in rank 0" in said
    assert "listens at 0.0.0.0:12345 for others; " in said
    assert "`srun COMMAND` in the script" in said
    assert f"{name}: its ranks {told}: rank 0 does not listen at MASTER_PORT 12345" in err
