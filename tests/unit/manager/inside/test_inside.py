"""What containers ask about their own sessions, over the real store."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable
from pathlib import Path

import pytest

from phalanx_manager.core.model import SessionRow
from phalanx_manager.inside.dispatch import Inside
from phalanx_manager.store.port import Unavailable
from phalanx_wire.control import Message
from phalanx_wire.ids import AgentId
from phalanx_wire.lifecycle import KernelState
from phalanx_wire.mux import Mux, Stream
from phalanx_wire.stream import AskCall, SignalCall, UploadCall
from tests.support.manager_api import Scene, closed, scene
from tests.unit.manager.inside.conftest import HOME, Said, a_stream, ask, of

# ---------------------------------------------------------------- who may ask what


async def test_nobody_else_is_heard(api: Scene, row: SessionRow) -> None:
    kernel = of(row)
    session = row.session.id
    strangers = {
        "another agent": await ask(api, kernel, "phalanx", "requeue", agent=AgentId("gpu-2")),
        "no kernel": await ask(api, "nonsense", "phalanx", "requeue"),
        "another attempt": await ask(api, f"{session}-2-0", "phalanx", "requeue"),
        "another rank": await ask(api, f"{session}-1-7", "phalanx", "requeue"),
        "no session": await ask(api, "zzzzzzzzzzzz-1-0", "phalanx", "requeue"),
    }

    assert dict.fromkeys(strangers, "not_live") == {who: s.problem for who, s in strangers.items()}
    assert "running" == (await api.view("demo")).state


async def test_what_has_ended_is_not_heard(api: Scene, row: SessionRow) -> None:
    await api.move(row.session.id, KernelState.EXITED, exit_code=0)

    assert "not_live" == (await ask(api, of(row), "phalanx", "requeue")).problem


ABOUT_ANOTHER = [
    ("phalanx", "requeue", "other"),
    ("phalanx", "show", "other", "-o", "json"),
    ("phalanx", "stop", "other"),
    ("phalanx", "why", "other"),
    ("scontrol", "requeue", "7"),
    ("scontrol", "show", "job", "7"),
    ("squeue", "-j", "7"),
    ("sacct", "-j", "7"),
    ("scancel", "7"),
]


@pytest.mark.parametrize("argv", ABOUT_ANOTHER, ids=" ".join)
async def test_a_container_cannot_ask_about_another_session(
    api: Scene, row: SessionRow, argv: tuple[str, ...]
) -> None:
    await api.running(name="other")
    said = await ask(api, of(row), *argv)
    states = [(await api.view(name)).state for name in ("demo", "other")]

    assert (77, "") == (said.code, said.out)
    assert "only the own session can be asked about in a container: demo" in said.err
    assert ["running", "running"] == states


async def test_its_own_session_may_be_named_in_each_way(api: Scene, row: SessionRow) -> None:
    session = row.session
    names = (session.id, session.name, str(session.number))

    assert [0, 0, 0] == [(await ask(api, of(row), "phalanx", "show", one)).code for one in names]


WRONG = [
    (("phalanx", "run", "--", "true"), 64, "run does not work in a container; these do: requeue"),
    (("phalanx", "requeue", "--force"), 64, "requeue has no option --force"),
    (("scontrol", "update"), 64, "in a container there are: requeue [ID]"),
    (("scontrol",), 64, "in a container there are"),
    (("scontrol", "show", "hostnames", "a[3-1]"), 1, "scontrol: error: "),
    (("squeue", "--unheard-of"), 1, "squeue: error: unrecognized option"),
    (("scancel",), 1, "No job identification provided"),
    (("sbatch", "job.sh"), 1, "sbatch: error: a container can ask about its own job only"),
    (("salloc",), 1, "with --dependency=afterany:1 for what comes after this one"),
    (("sinfo", "-o", "%j"), 1, "sinfo: error: "),
    (("rm", "-rf"), 64, "rm: it cannot be asked for in a container"),
    ((), 64, "it cannot be asked for in a container"),
]


@pytest.mark.parametrize(("argv", "code", "why"), WRONG, ids=lambda one: str(one)[:30])
async def test_bad_usage_is_told_of(
    api: Scene, row: SessionRow, argv: tuple[str, ...], code: int, why: str
) -> None:
    said = await ask(api, of(row), *argv)

    assert (code, "") == (said.code, said.out)
    assert why in said.err


async def test_what_agents_ask_for_themselves_is_still_served(api: Scene) -> None:
    muxes: list[Stream] = []

    async def quiet(_message: Message) -> None:
        return

    stream = await Mux(quiet, 1, lambda _open, _stream: None).open(UploadCall("sha256:00"))
    inside = Inside(api.store, api.clock, lambda _agent, one: _note(muxes, one))
    await inside.serve(HOME, stream)

    assert [stream] == muxes


async def _note(found: list[Stream], stream: Stream) -> None:
    found.append(stream)


async def test_who_asks_before_the_manager_is_all_there_is_answered_then(
    api: Scene, row: SessionRow
) -> None:
    inside = Inside(api.store, api.clock, api.doors.uploads.serve)
    stream, theirs = await a_stream(AskCall(of(row), ("phalanx", "requeue")))
    serving = asyncio.ensure_future(inside.serve(HOME, theirs))
    await asyncio.sleep(0)
    early = stream.closed
    inside.attach(api.link, api.doors.steps)
    await serving

    assert (None, 0) == (early, closed(stream).exit_code)


async def test_more_questions_than_an_agent_may_have_are_refused(
    api: Scene, row: SessionRow, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("phalanx_manager.inside.dispatch.AT_ONCE", 0)
    said = await ask(api, of(row), "phalanx", "requeue")

    assert "busy" == said.problem
    assert "running" == (await api.view("demo")).state


async def test_a_users_steps_leave_room_for_what_others_ask(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("phalanx_manager.inside.dispatch.AT_ONCE", 8)
    async with scene(tmp_path, until_closed) as api:
        adas, bobs = [await api.running(user, name=f"of-{user}") for user in ("ada", "bob")]
        inside = Inside(api.store, api.clock, api.doors.uploads.serve)
        inside.attach(api.link, api.doors.steps)
        async with asyncio.TaskGroup() as tasks:
            said = []
            for row in (adas, adas, adas, adas, adas, bobs):
                stream, theirs = await a_stream(AskCall(of(row), ("srun", "-n1", "p")))
                begun = len(api.link.calls)
                tasks.create_task(inside.serve(HOME, theirs))
                await api.link.until(
                    lambda begun=begun, stream=stream: (  # type: ignore[misc]
                        stream.closed is not None or len(api.link.calls) > begun
                    )
                )
                said.append((stream, stream.closed.code if stream.closed is not None else ""))
            for stream, _ in said:
                await stream.close(code="cancelled")

    assert ["", "", "", "", "busy", ""] == [code for _, code in said]


async def until_closed(stream: Stream) -> None:
    """An agent whose tasks run until they are called off."""
    await stream.ended()


async def test_a_database_that_is_away_is_told_of(
    api: Scene, row: SessionRow, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def away(*_arguments: object) -> None:
        raise Unavailable("phalanx.db", "it cannot be read")

    monkeypatch.setattr(api.store, "session", away)

    assert "unavailable" == (await ask(api, of(row), "phalanx", "requeue")).problem


# ---------------------------------------------------------------- what is told


async def test_help_tells_what_works_inside(api: Scene, row: SessionRow) -> None:
    asked = await ask(api, of(row), "phalanx", "--help")
    bare = await ask(api, of(row), "phalanx")

    assert "phalanx requeue" in asked.out
    assert (0, 64, asked.out) == (asked.code, bare.code, bare.out)


async def test_a_session_is_shown_to_itself(api: Scene, row: SessionRow) -> None:
    short = await ask(api, of(row, 1), "phalanx", "show")
    document = json.loads((await ask(api, of(row), "phalanx", "show", "-o", "json")).out)

    assert f"demo is running, attempt 1, id {row.session.id}" == short.out.splitlines()[0]
    assert [" ", "*"] == [line[0] for line in short.out.splitlines()[1:]]
    assert (row.session.id, 2) == (document["id"], len(document["kernels"]))


async def test_a_session_is_told_why_it_is_as_it_is(api: Scene, row: SessionRow) -> None:
    said = await ask(api, of(row), "phalanx", "why")

    assert (0, "") == (said.code, said.err)
    assert said.out.strip()


async def test_lists_of_hosts_are_taken_apart_and_put_together(api: Scene, row: SessionRow) -> None:
    kernel = of(row)
    show = ("scontrol", "show")
    own = await ask(api, kernel, *show, "hostnames")
    told = {"SLURM_JOB_NODELIST": "a[08-10],b"}
    environ = await ask(api, kernel, *show, "hostnames", environ=told)
    given = await ask(api, kernel, *show, "hostnames", "x[1-2]", environ=told)
    together = await ask(api, kernel, *show, "hostlist", "sub1,sub2,sub3")

    assert ("main1\nsub1\n", "a08\na09\na10\nb\n") == (own.out, environ.out)
    assert ("x1\nx2\n", "sub[1-3]\n") == (given.out, together.out)


async def test_the_nodes_are_the_own_containers(api: Scene, row: SessionRow) -> None:
    kernel = of(row)
    each = await ask(api, kernel, "sinfo", "-N", "-h", "-o", "%N %t %P")
    named = await ask(api, kernel, "sinfo", "-h", "-n", "sub1", "-O", "nodelist:6,statelong:9")

    assert "main1,sub1 alloc default*\n" == each.out
    assert "sub1  allocated\n" == named.out


@pytest.mark.parametrize("program", ["srun", "sbatch", "sinfo", "scontrol"])
async def test_all_programs_say_their_version(api: Scene, row: SessionRow, program: str) -> None:
    said = await ask(api, of(row), program, "--version")

    assert Said(0, "slurm 23.02.7\n", "", "") == said


async def test_the_queue_can_be_asked_for_users_names_and_long_fields(
    api: Scene, row: SessionRow
) -> None:
    def queue(*words: str) -> Awaitable[Said]:
        return ask(api, of(row), "squeue", "-h", *words, "-O", "name:8,state:8")

    mine = await queue("-u", row.session.user, "-n", "demo,other", "-t", "all")
    others = await queue("--user", "nobody")

    assert ["demo    RUNNING \n", ""] == [mine.out, others.out]


async def test_the_queue_is_the_own_job(api: Scene, row: SessionRow) -> None:
    api.clock.passed_s += 75
    kernel, number = of(row), str(row.session.number)
    usual = (await ask(api, kernel, "squeue")).out.splitlines()
    chosen = await ask(api, kernel, "squeue", "-h", "-j", number, "-o", "%i %t %M %D")
    waiting = await ask(api, kernel, "squeue", "-h", "-t", "PENDING")
    asked = await ask(api, kernel, "scontrol", "-o", "show", "jobid", "-dd", number)
    accounted = await ask(api, kernel, "sacct", "-X", "-n", "-P", "-o", "JobID,State")

    assert ("JOBID", number) == (usual[0].split()[0], usual[1].split()[0])
    assert (f"{number} R 1:15 2\n", "") == (chosen.out, waiting.out)
    assert asked.out.startswith(f"JobId={number} JobName=demo ")
    assert f"{number}|RUNNING\n" == accounted.out


async def test_a_job_that_cancels_itself_is_stopped(api: Scene, row: SessionRow) -> None:
    said = await ask(api, of(row), "scancel", f"{row.session.number}.batch")

    assert Said(0, "", "", "") == said
    assert "stopping" == (await api.view("demo")).state


@pytest.mark.parametrize(
    ("words", "heard"),
    [
        (("-s", "USR2"), [(0, 12, "tasks"), (1, 12, "tasks")]),
        (("--signal=SIGUSR1", "--full"), [(0, 10, "all"), (1, 10, "all")]),
        (("--batch", "--signal=TERM"), [(0, 15, "command"), (1, 15, "command")]),
    ],
    ids=["tasks", "all", "script"],
)
async def test_a_job_that_signals_itself_is_heard_and_goes_on(
    api: Scene, row: SessionRow, words: tuple[str, ...], heard: list[tuple[int, int, str]]
) -> None:
    async def taken(stream: Stream) -> None:
        await stream.close()

    api.link.answer = taken
    said = await ask(api, of(row), "scancel", *words, str(row.session.number))
    ranks = {kernel.id: kernel.rank for kernel in row.kernels}

    assert Said(0, "", "", "") == said
    assert heard == sorted(
        (ranks[call.kernel], call.signal, call.to)
        for call in api.link.calls
        if isinstance(call, SignalCall)
    )
    assert "running" == (await api.view("demo")).state


async def test_a_signal_that_is_none_or_that_nobody_takes_is_told_of(
    api: Scene, row: SessionRow
) -> None:
    api.link.away.add(HOME)
    number = str(row.session.number)
    unknown = await ask(api, of(row), "scancel", "-s", "HELLO", number)
    away = await ask(api, of(row), "scancel", "-s", "USR1", number)

    assert (1, "scancel: error: Unknown job signal: HELLO\n") == (unknown.code, unknown.err)
    assert (1, True) == (away.code, "it is not connected" in away.err)
