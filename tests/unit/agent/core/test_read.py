from __future__ import annotations

from dataclasses import replace

import pytest

from phalanx_agent.core.read import Context, Outcome, explain, outcome, report
from phalanx_agent.core.seen import (
    Absent,
    Asked,
    Created,
    Ended,
    Failure,
    Runner,
    Running,
    Seen,
    hear,
)
from phalanx_agent.core.step import Needs
from phalanx_runner.messages import (
    Exited,
    Hello,
    MeshFailed,
    MeshOk,
    Ready,
    RunnerError,
    Signalled,
    Stamp,
    Started,
    Warned,
)
from phalanx_wire.ids import KernelId
from phalanx_wire.lifecycle import KernelState as S

ID = "c" * 64
NO_CONTAINERD = (
    'connection error: desc = "transport: Error while dialing dial unix '
    '/run/docker/containerd/containerd.sock: connect: connection refused": unavailable'
)
KERNEL = KernelId("aaaaaaaaaaaa-1-0")
AT = Stamp(1, 0)


def context(goal: S = S.RUNNING) -> Context:
    return Context(KERNEL, goal, 1 << 30, Needs(), host_key="h", user_key="u")


RELEASED = Runner(heard=True, ready=True, meshed=True, released=True)


@pytest.mark.parametrize(
    ("seen", "state"),
    [
        (Seen(), S.PREPARING),
        (Seen(container=Created(ID), material=True), S.CREATED),
        (Seen(container=Running(ID)), S.STARTING),
        (Seen(container=Running(ID), runner=Runner(ready=True)), S.READY),
        (Seen(container=Running(ID), runner=Runner(ready=True, meshed=True)), S.MESHED),
        (Seen(container=Running(ID), runner=RELEASED), S.RUNNING),
        (
            Seen(container=Running(ID), runner=RELEASED, asked=Asked(stop=True, cancelled=True)),
            S.STOPPING,
        ),
        (Seen(container=Running(ID), asked=Asked(stop=True)), S.STARTING),
    ],
)
def test_the_state_is_as_far_as_container_and_runner_have_come(seen: Seen, state: S) -> None:
    assert state == outcome(seen, context())


def test_a_container_whose_upload_is_not_unpacked_is_not_created() -> None:
    waiting = replace(context(S.CREATED), needs=Needs(upload=True))

    assert S.PREPARING == outcome(Seen(container=Created(ID), material=True), waiting)


def test_a_container_whose_keys_nobody_can_know_is_not_created() -> None:
    keyless = replace(context(S.CREATED), host_key="")

    assert S.PREPARING == outcome(Seen(container=Created(ID), material=True), keyless)


@pytest.mark.parametrize(
    ("seen", "goal", "expected"),
    [
        (Seen(refused="No."), S.CREATED, Outcome(S.REJECTED, "refused", "No.")),
        (Seen(refused="No."), S.STOPPED, Outcome(S.STOPPED, "cancelled")),
        (Seen(), S.STOPPED, Outcome(S.STOPPED, "cancelled")),
        (Seen(), S.REMOVED, Outcome(S.REMOVED, "")),
        (Seen(material=True), S.REMOVED, Outcome(S.STOPPED, "cancelled")),
        (
            Seen(container=Ended(ID, 143), runner=RELEASED, asked=Asked(cancelled=True)),
            S.STOPPED,
            Outcome(S.STOPPED, "cancelled", "", 143),
        ),
        (
            Seen(container=Ended(ID, 0), runner=RELEASED),
            S.RUNNING,
            Outcome(S.EXITED, "exited", "", 0),
        ),
        (
            Seen(container=Ended(ID, 3), runner=RELEASED),
            S.RUNNING,
            Outcome(S.EXITED, "exited", "The command exited with 3.", 3),
        ),
        (
            Seen(container=Ended(ID, 3)),
            S.RUNNING,
            Outcome(S.EXITED, "exited", "The command exited with 3.", 3),
        ),
        (
            Seen(container=Ended(ID, 137, oom_killed=True), runner=RELEASED),
            S.RUNNING,
            Outcome(S.EXITED, "oom", "It used more than its 1 GiB of memory.", 137),
        ),
        (
            Seen(container=Ended(ID, 137), runner=hear(RELEASED, Exited(AT, 137, 9, oom_kills=1))),
            S.RUNNING,
            Outcome(S.EXITED, "oom", "It used more than its 1 GiB of memory.", 137),
        ),
        (
            Seen(container=Ended(ID, 0, oom_killed=True), runner=RELEASED),
            S.RUNNING,
            Outcome(S.EXITED, "exited", "", 0),
        ),
        (
            Seen(container=Ended(ID, 0), runner=Runner(heard=True, ready=True)),
            S.MESHED,
            Outcome(
                S.EXITED,
                "start-failed",
                "The container ended with 0 before its command was started.",
            ),
        ),
        (
            Seen(container=Created(ID, "no such device"), marked=True),
            S.READY,
            Outcome(S.EXITED, "start-failed", "The engine did not start it: no such device"),
        ),
        (
            Seen(container=Created(ID, NO_CONTAINERD), marked=True),
            S.READY,
            Outcome(S.EXITED, "engine-restart", f"The engine did not start it: {NO_CONTAINERD}"),
        ),
        (
            Seen(container=Ended(ID, 121)),
            S.RUNNING,
            Outcome(
                S.EXITED,
                "fenced",
                "Its files in its host's memory (runtime_dir) were lost while it ran, so that its "
                "time could not be extended any more, and it was ended.",
                121,
            ),
        ),
        (
            Seen(marked=True),
            S.RUNNING,
            Outcome(
                S.EXITED,
                "exited",
                "Its container was removed by someone else; its exit code is not known.",
            ),
        ),
    ],
)
def test_the_end_has_a_cause_and_a_sentence(seen: Seen, goal: S, expected: Outcome) -> None:
    assert expected == outcome(seen, context(goal))


@pytest.mark.parametrize(
    ("code", "finished_at", "cause"),
    [
        (137, 1002.0, "engine-restart"),
        (143, 998.0, "engine-restart"),
        (255, 1000.0, "engine-restart"),
        (1, 1000.0, "exited"),
        (137, 1010.0, "exited"),
        (137, 500.0, "exited"),
    ],
)
def test_an_engine_that_came_up_as_it_ended_has_ended_it(
    code: int, finished_at: float, cause: str
) -> None:
    ended = Ended(ID, code, started_at=100.0, finished_at=finished_at)
    known = replace(context(), engine_started_at=1000.0)

    found = outcome(Seen(container=ended, runner=RELEASED), known)

    assert isinstance(found, Outcome)
    assert cause == found.cause


def test_a_runner_that_failed_before_the_command_tells_why() -> None:
    runner = hear(Runner(), MeshFailed(AT, ("sub1", "sub2"), 60_000))

    found = outcome(Seen(container=Ended(ID, 0), runner=runner), context(S.MESHED))

    said = "It could not reach sub1, sub2 by name within 60 s; "
    assert Outcome(S.EXITED, "mesh-failed", said + "look at the network between the hosts.") == (
        found
    )


@pytest.mark.parametrize(
    ("what", "detail", "said"),
    [
        ("ssh-port", {"detail": "Address in use", "number": 2200}, "2200"),
        ("interface", {"detail": "eth0", "number": 0}, "eth0"),
        ("conf", {"detail": "peers", "number": 0}, "peers"),
        ("fork", {"detail": "No memory", "number": 12}, "No memory"),
        ("exec", {"text": "No such file"}, "No such file"),
        ("moon", {"text": "is full"}, "moon"),
    ],
)
def test_every_error_of_a_runner_becomes_a_sentence(
    what: str, detail: dict[str, str | int], said: str
) -> None:
    failure = hear(Runner(), RunnerError(AT, what, detail)).failure

    assert isinstance(failure, Failure)
    assert said in failure.message


def test_what_a_runner_says_adds_up() -> None:
    runner = Runner()
    for event in (Hello(1, KERNEL, 4), Ready(AT, 2200), MeshOk(AT, 3), Started(AT, 7)):
        runner = hear(runner, event)

    assert replace(RELEASED, seq=AT.seq) == runner
    assert 3 == hear(runner, Exited(AT, 3, 0)).exited


def test_a_taken_master_port_is_a_warning_once() -> None:
    event = Warned(AT, "master-port", {"port": 12345})
    runner = hear(hear(RELEASED, event), event)

    said = report(Seen(container=Running(ID), runner=runner), context()).warnings

    assert 1 == len(said)
    assert "12345" in said[0]


def test_a_runner_that_goes_on_for_ever_is_not_remembered_for_ever() -> None:
    runner = RELEASED
    for number in range(1000):
        stamp = Stamp(number + 1, 0)
        runner = hear(runner, Warned(stamp, "master-port", {"port": number}))
        runner = hear(runner, Signalled(stamp, number, 1))

    assert 1 == len(runner.warnings)
    assert set(range(1, 65)) == runner.signalled.keys()


def test_a_report_of_the_living_has_what_is_done_and_no_cause() -> None:
    told = report(
        Seen(container=Absent()), replace(context(S.CREATED), detail="It pulls the image.")
    )

    assert ("It pulls the image.", "", None, "h") == (
        told.detail,
        told.cause,
        told.exit_code,
        told.host_key,
    )


@pytest.mark.parametrize(
    ("code", "said"), [(0, ""), (126, "126"), (127, "not found"), (137, "SIGKILL"), (255, "255")]
)
def test_an_exit_code_is_said_in_words(code: int, said: str) -> None:
    assert said in explain(code)
