"""Sessions that are tried again: by themselves, by the clock, by an operator, by bad luck."""

from __future__ import annotations

import os
import re
import signal
import time
from pathlib import Path

import pytest

from tests.real.ground import ACROSS, Ground, await_true, fresh_name, ranks
from tests.real.test_survival import ready

pytestmark = pytest.mark.real

SAY = 'echo "attempt $PHALANX_ATTEMPT"; '
# Says that it was warned, and goes on until it is stopped.
HEEDS = 'trap "echo warned" USR1; ' + SAY + "while :; do sleep 0.1; done"
# Runs for ever in the first attempt, and succeeds in the second.
SECOND = SAY + "[ $PHALANX_ATTEMPT = 2 ] || exec sleep 1000"
# The same, but fails by itself in the second attempt, and succeeds in the third.
THIRD = SAY + "case $PHALANX_ATTEMPT in 1) exec sleep 1000;; 2) exit 3;; esac"

RESTARTED = "The container engine of its host was restarted, which ended it."
BEING_STOPPED = (
    "It was ended through the container engine of its host: the engine was being stopped, or "
    "somebody stopped the container by hand."
)
"""What is said where an agent sees the end before its engine has gone."""
# The same, and writes down when it is warned and when it is stopped.
NOTES = """
note() { echo "$1 $(date +%s.%N)" >> /share/heard.$PHALANX_SESSION_ID.$RANK; }
[ $PHALANX_ATTEMPT = 1 ] || exit 0
trap 'note warned' USR1
trap 'note stopped; exit 1' TERM
echo ready
while :; do sleep 0.1; done
"""
DEADLINE_S = 3


def test_a_gang_that_fails_is_tried_again_as_a_whole_and_its_followers_see_it_all(
    clean: Ground,
) -> None:
    name = fresh_name()
    done = clean.run(
        "-N", "3", *ACROSS, "-J", name, "--max-attempts", "2",
        "--", "sh", "-c", SAY + "sleep 0.3; [ $PHALANX_ATTEMPT = 2 ] || [ $RANK != 1 ]",
    )  # fmt: skip
    said = ranks(done.ok())
    view = clean.show(name)
    first = ranks(clean.phalanx("logs", name, "--attempt", "1").ok())

    assert {rank: ["attempt 1", "attempt 2"] for rank in range(3)} == said
    assert ("succeeded", 2) == (view["state"], view["attempt"])
    assert {rank: ["attempt 1"] for rank in range(3)} == first


def test_at_its_limit_a_session_is_warned_stopped_and_queued_again(clean: Ground) -> None:
    name = clean.detached(
        "-N", "2", *ACROSS, "-t", "4s", "--signal", "USR1@2", "--grace", "1s", "--requeue",
        "--", "sh", "-c", HEEDS,
    )  # fmt: skip
    await_true("it is tried again", lambda: clean.show(name)["attempt"] == 2)
    clean.await_state(name, "running")
    clean.phalanx("stop", name).ok()
    first = ranks(clean.phalanx("logs", name, "--attempt", "1").ok())
    events = clean.phalanx("events", name).ok()

    assert {rank: ["attempt 1", "warned"] for rank in range(2)} == first
    assert 1 == events.count("USR1 sent, 2 s before its time limit")
    assert "attempt 1 reached its time limit, attempt 2 is next" in events
    assert ("cancelled", 2) == tuple(clean.show(name)[key] for key in ("state", "attempt"))


def test_a_running_session_goes_back_to_the_queue_when_it_is_told_to(clean: Ground) -> None:
    name = clean.detached("--grace", "0s", "--", "sh", "-c", SECOND)
    clean.await_state(name, "running")
    clean.phalanx("requeue", name).ok()

    assert 0 == clean.phalanx("wait", name).code
    assert 2 == clean.show(name)["attempt"]


@pytest.mark.parametrize(
    ("number", "causes"),
    [(signal.SIGKILL, {RESTARTED}), (signal.SIGTERM, {RESTARTED, BEING_STOPPED})],
    ids=["killed", "restarted"],
)
def test_a_killed_engine_is_not_held_against_its_sessions(
    clean: Ground, number: signal.Signals, causes: set[str]
) -> None:
    name = clean.detached(
        "-N", "3", *ACROSS, "--requeue", "--max-attempts", "2", "--", "sh", "-c", THIRD
    )
    clean.await_state(name, "running")
    first = clean.lab.pid("engine-3")
    os.kill(first, number)
    await_true("there is a new one", lambda: clean.lab.pid("engine-3") not in (0, first))
    code = clean.phalanx("wait", name).code
    events = clean.phalanx("events", name).ok()
    await_true("it takes work", lambda: all(ready(clean, h.name) for h in clean.lab.hosts), 90)

    # The second failure is the first of its own: of two it may have.
    assert (0, 3) == (code, clean.show(name)["attempt"])
    (why,) = re.findall("attempt 1 failed, attempt 2 is next: (.*)", events)
    assert why in {f"rank 2 (sub2) on agent host3 has exited: {cause}" for cause in causes}
    assert "attempt 2 failed, attempt 3 is next" in events


def test_what_has_failed_is_kept_for_a_look_until_it_is_let_go(
    clean: Ground, tmp_path: Path
) -> None:
    name = fresh_name()
    done = clean.run(
        "-J", name, "--hold-on-failure", "1h", "--", "sh", "-c", "echo why > /tmp/clue; exit 5"
    )
    clean.phalanx("cp", f"{name}:/tmp/clue", str(tmp_path / "clue")).ok()
    clean.phalanx("stop", name).ok()

    assert 5 == done.code
    assert "its containers are kept until" in done.err
    assert "why\n" == (tmp_path / "clue").read_text()


def test_what_runs_on_a_drained_host_is_warned_and_moves_to_another(clean: Ground) -> None:
    share = Path(clean.lab.state_dir, "share")
    name = clean.detached(
        "-N", "2", *ACROSS, "-v", f"{share}:/share:rw", "--requeue", "--grace", "2s",
        "--", "sh", "-c", NOTES,
    )  # fmt: skip
    await_true("both are ready", lambda: clean.phalanx("logs", name).out.count("ready") == 2)
    session, home = clean.show(name)["id"], clean.containers(name)["sub1"]
    began = time.time()
    try:
        drained = clean.phalanx(
            "node", "drain", home, "--reason", "new disks", "--signal", "USR1",
            "--deadline", f"{DEADLINE_S}s",
        ).ok()  # fmt: skip
        code = clean.phalanx("wait", name).code
        other = set(clean.containers(name).values())
        shown = clean.phalanx("nodes", home).ok()
    finally:
        clean.phalanx("node", "undrain", home).ok()
    events = clean.phalanx("events", name).ok()

    assert f"{home} is draining: admin: new disks" in drained
    assert (0, 2) == (code, clean.show(name)["attempt"])
    assert {home}.isdisjoint(other)
    assert "drained" in shown
    assert f"agent {home} is drained: admin: new disks" in events
    for rank in range(2):
        heard = (share / f"heard.{session}.{rank}").read_text().split()
        assert ["warned", "stopped"] == heard[::2]
        warned, stopped = map(float, heard[1::2])
        assert began + DEADLINE_S <= stopped
        assert warned < stopped - DEADLINE_S / 2
    assert ready(clean, home)
