"""What containers ask about their own sessions, with no token and no way to the manager."""

from __future__ import annotations

import pytest

from phalanx_lab.lab import Fault
from tests.real.ground import ACROSS, Ground, await_true, fresh_name, ranks

pytestmark = pytest.mark.real

# In the first attempt it asks, says what came of it, and goes on until it is stopped.
AGAIN = "[ $PHALANX_ATTEMPT = 2 ] && exit 0; "
ASKS = 'phalanx requeue; echo "said $?"; exec sleep 1000'
WAITS = "until [ -e /tmp/go ]; do sleep 0.05; done; "


@pytest.mark.parametrize("user", ["0:0", "12345"])
def test_a_session_goes_back_to_the_queue_when_it_asks_inside(clean: Ground, user: str) -> None:
    name = fresh_name()
    done = clean.run("-J", name, "-u", user, "--grace", "1s", "--", "sh", "-c", AGAIN + ASKS)
    said = clean.phalanx("logs", name, "--attempt", "1", "--no-prefix").ok()

    assert (0, 2) == (done.code, clean.show(name)["attempt"])
    answer = f"session {name} goes back to the queue as attempt 2"
    assert [answer, "said 0"] == said.splitlines()


def test_a_warned_session_asks_in_slurms_words_and_is_tried_again_once(clean: Ground) -> None:
    asks = "[ $RANK = 0 ] && { /opt/phalanx/slurm/scontrol requeue; echo asked $?; }"
    goes_on = f"[ $PHALANX_ATTEMPT = 2 ] && exit 0; trap '{asks}' USR1; while :; do sleep 0.1; done"
    name = fresh_name()
    done = clean.run(
        "-N", "2", *ACROSS, "-J", name, "-t", "60s", "--signal", "USR1@58", "--requeue",
        "--grace", "1s", "--", "sh", "-c", goes_on,
    )  # fmt: skip
    said = ranks(clean.phalanx("logs", name, "--attempt", "1").ok())
    events = clean.phalanx("events", name).ok()

    assert (0, 2) == (done.code, clean.show(name)["attempt"])
    assert {0: ["asked 0"]} == said
    assert "requeued by itself, in main1" in events


@pytest.mark.parametrize(
    ("first", "fault", "target"), [("stop", "kill", "agent"), ("kill", None, "manager")]
)
def test_whoever_asks_while_a_daemon_is_away_is_answered_when_it_is_back(
    clean: Ground, first: Fault, fault: Fault | None, target: str
) -> None:
    name = clean.detached("--grace", "1s", "--", "sh", "-c", AGAIN + WAITS + ASKS)
    shown = clean.await_state(name, "running")
    host = clean.host(shown["kernels"][0]["agent"])
    part = f"agent-{host.index}" if target == "agent" else target
    before = clean.lab.pid(part)
    clean.lab.fault(first, part)
    clean.docker(host, "exec", f"phx-{shown['id']}-1-main1", "touch", "/tmp/go").ok()
    if fault is not None:
        clean.lab.fault(fault, part)
    await_true("there is a new one", lambda: clean.lab.pid(part) not in (0, before))
    await_true("the manager answers", lambda: clean.phalanx("ps").code == 0)

    assert 0 == clean.phalanx("wait", name).code
    assert 2 == clean.show(name)["attempt"]
    said = clean.phalanx("logs", name, "--attempt", "1", "--no-prefix").ok()
    assert "said 0" == said.splitlines()[-1]


def test_a_container_asks_about_its_own_session_and_no_other(clean: Ground) -> None:
    with clean.created("-N", "2", *ACROSS) as own, clean.created() as other:
        shown = clean.inside(f"{own}/1", "phalanx", "show")
        hosts = clean.inside(own, "/opt/phalanx/slurm/scontrol", "show", "hostnames")
        refused = [
            clean.inside(own, *argv, other)
            for argv in (
                ("phalanx", "stop"),
                ("phalanx", "requeue"),
                ("/opt/phalanx/slurm/scancel",),
            )
        ]
        unknown = clean.inside(own, "phalanx", "run", "--", "true")
        states = [clean.show(name)["state"] for name in (own, other)]

    assert f"{own} is running" in shown.ok()
    assert "* 1 sub1 " in shown.out
    assert "main1\nsub1\n" == hosts.ok()
    assert [77, 77, 77] == [done.code for done in refused]
    assert all("only the own session" in done.err for done in refused)
    assert "these do: requeue, stop" in unknown.failed(64)
    assert ["running", "running"] == states
