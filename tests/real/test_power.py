"""A host loses power under a running session: its engine, agent and containers die at once."""

from __future__ import annotations

import pytest

from tests.real.failing import ENDED, ON_BOTH, PATIENCE_S, WITNESS, Site
from tests.real.ground import assert_same_traces, await_true, settled_traces

pytestmark = [pytest.mark.real, pytest.mark.timeout(400)]

BEAT = "date +%s.%N >> /share/beats.$PHALANX_SESSION_ID.$PHALANX_ATTEMPT.$RANK; "
ONCE_MORE = (
    f"{WITNESS} {BEAT} [ $PHALANX_ATTEMPT = 1 ] || exit 0; while :; do sleep 0.1; {BEAT} done"
)
"""Each rank writes down when it runs; the first attempt goes on for ever."""


def test_a_gang_goes_on_in_a_new_attempt_after_one_of_its_hosts_has_lost_power(
    failing: Site,
) -> None:
    before, lab = settled_traces(failing.ground), failing.ground.lab
    session = failing.submit(
        **ON_BOTH,
        command=["sh", "-c", ONCE_MORE],
        mounts=[{"source": str(failing.share), "target": "/share", "read_only": False}],
        requeue=True,
        grace_s=1,
        lost_after_s=300,
    )
    failing.await_state(session, "running")
    await_true("both ranks run", lambda: failing.times_run(session) == 2)
    dying = {part: lab.pid(part) for part in ("engine-2", "agent-2")}

    lab.fault("kill", "host2")
    view = failing.await_state(session, *ENDED)
    events = failing.ground.phalanx("events", session).ok()
    await_true("all is well", lambda: failing.works(1) and failing.works(2), PATIENCE_S)

    last = view["attempt"]
    assert "succeeded" == view["state"]
    assert last > 1
    assert all(lab.pid(part) != pid for part, pid in dying.items())
    assert "attempt 1 failed, attempt 2 is next" in events
    assert "host2" in events
    assert "engine" in events
    ran = {line: n for line, n in failing.witnesses().items() if line.startswith(session)}
    assert {f"{session} {attempt} {rank}": 1 for attempt in (1, last) for rank in (0, 1)} == ran
    for rank in (0, 1):
        assert beats(failing, session, 1, rank)[-1] < beats(failing, session, last, rank)[0]
    assert_same_traces(before, failing.ground)


def beats(site: Site, session: str, attempt: int, rank: int) -> list[float]:
    """When a rank was seen to run in one attempt, in order."""
    file = site.share / f"beats.{session}.{attempt}.{rank}"
    return [float(line) for line in file.read_text().split()]
