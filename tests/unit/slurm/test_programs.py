"""SLURM's programs, as tools call them: what they ask, what they print, how they fail."""

from __future__ import annotations

import io
import json
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import pytest
from aiohttp import web
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from phalanx_client.slurm.__main__ import main
from phalanx_wire import sealed
from phalanx_wire.api import (
    Amounts,
    NodeList,
    NodeView,
    SessionList,
    SessionView,
    UploadCreated,
)
from phalanx_wire.ids import AgentId, SessionId
from phalanx_wire.spec import SessionSpec, SlurmJob
from tests.unit.client.fake_manager import TOKEN, FakeManager, Running, fails, session

REST = "Partition|Account|AllocCPUS|State|ExitCode"


@dataclass(frozen=True)
class Outcome:
    code: int
    out: str
    err: str


Slurm = Callable[..., Outcome]


def job(number: int, state: Any = "running", **slurm: Any) -> SessionView:
    asked = SlurmJob(**{"name": "train", "submit_user": "ada", **slurm})
    code = {"succeeded": 0, "failed": 3}.get(state)
    view = session(state, exit_code=code, reason="waits its turn behind session x")
    spec = msgspec.structs.replace(view.spec, slurm=asked, time_limit_s=7200.0)
    return msgspec.structs.replace(view, id=SessionId(f"id{number}"), number=number, spec=spec)


NODE = NodeView(
    name=AgentId("host1"), cluster="default", state="ready", reason=None, address="10.0.0.1",
    engine="27", capacity=Amounts(16.0, 64 << 30, 8, 1000), used=Amounts(4.0, 1 << 30, 0, 1),
    gpu_models=("a100",), swarm="active", last_seen_at=None, holders=(), strays=(), warnings=(),
)  # fmt: skip


@pytest.fixture
def manager() -> Iterator[FakeManager]:
    with Running(FakeManager()) as running:
        jobs = [job(42), job(43, "succeeded"), job(44, "pending", array_task=3)]
        running.on("GET", "/v1/sessions", SessionList(tuple(jobs)))
        for one in jobs:
            running.on("GET", f"/v1/sessions/{one.number}", one)
            running.on("POST", f"/v1/sessions/{one.id}/stop", one)
            running.on("POST", f"/v1/sessions/{one.id}/signal", one)
            running.on("POST", f"/v1/sessions/{one.id}/requeue", one)
            running.on("POST", f"/v1/sessions/{one.id}/extend", one)
        other = msgspec.structs.replace(NODE, name=AgentId("host2"), state="drained")
        running.on("GET", "/v1/nodes", NodeList((NODE, other)))
        running.on("POST", "/v1/sessions", job(45))
        yield running


@pytest.fixture
def slurm(
    manager: FakeManager,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> Slurm:
    monkeypatch.setenv("PHALANX_URL", manager.url)
    monkeypatch.setenv("PHALANX_TOKEN", TOKEN)
    monkeypatch.setenv("PHALANX_CONFIG", str(tmp_path / "none.toml"))
    monkeypatch.setenv("PHALANX_SLURM_IMAGE", "my/image")
    monkeypatch.setenv("PHALANX_SLURM_SHARED", str(tmp_path))
    monkeypatch.delenv("PHALANX_DEBUG", raising=False)
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    monkeypatch.chdir(tmp_path)

    def use(*argv: str) -> Outcome:
        monkeypatch.setattr(sys, "argv", ["phalanx", *argv])
        code = main()
        said = capsys.readouterr()
        return Outcome(code, said.out, said.err)

    return use


# The words that Oumi's, submitit's and TorchX's clients use, and what they read.
@pytest.mark.parametrize(
    ("line", "out"),
    [
        ("sinfo --version", "slurm 23.02.7\n"),
        ("sinfo --format %P,%m --noconvert", "PARTITION,MEMORY\ndefault*,65536\n"),
        ("squeue --noheader --format=%i|%j|%u|%T|%R -j 42", "42|train|ada|RUNNING|host1\n"),
        ("squeue -h -o %i:%t:%R -t PD,R", "42:R:host1\n44_3:PD:(Priority)\n"),
        ("squeue -h -o %i -u nobody", ""),
        ("squeue -h -O JobID:6,StateCompact:3,TimeLimit:8 -j 42", "42    R  2:00:00 \n"),
        ("sacct -X -n -P -o JobID,State -u ada -S 2020-01-01",
         "42|RUNNING\n43|COMPLETED\n44_3|PENDING\n"),
        ("sacct -o JobID,State,NodeList --parsable2 -j 43",
         "JobID|State|NodeList\n43|COMPLETED|host1\n43.batch|COMPLETED|host1\n"),
        ("sacct --parsable2 -j 43 -X",
         f"JobID|JobName|{REST}\n43|train|default||1|COMPLETED|0:0\n"),
        ("scontrol show hostnames main1,sub[1-2]", "main1\nsub1\nsub2\n"),
        ("scontrol show hostlist a1,a2,a3", "a[1-3]\n"),
        ("scontrol requeue 42", ""),
        ("scontrol update JobId=42 TimeLimit=3:00:00", ""),
        ("scancel 42", ""),
        ("scancel -s USR2 42", ""),
    ],
)  # fmt: skip
def test_tools_read_what_they_expect(slurm: Slurm, line: str, out: str) -> None:
    said = slurm(*line.split())

    assert (0, out, "") == (said.code, said.out, said.err)


def test_moments_are_spelled_as_the_variable_says(
    slurm: Slurm, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLURM_TIME_FORMAT", "%s")
    lines = slurm("scontrol", "show", "job", "43").out.split()

    assert {"JobId=43", "JobState=COMPLETED", "SubmitTime=1893456000"} <= set(lines)
    assert "1893456000\n" == slurm("squeue", "-h", "-o", "%V", "-j", "42").out
    assert "1893456000\n" == slurm("sacct", "-XnP", "-o", "Submit", "-j", "42").out


def test_a_table_has_a_line_of_dashes_by_which_columns_are_cut(slurm: Slurm) -> None:
    fields = "JobId%-30,JobName%30,User%30,State%30,Reason%30"
    lines = slurm("sacct", "--user=ada", f"--format={fields}", "-X", "-S", "2020-01-01").out
    heading, dashes, first, *_ = lines.split("\n")
    widths = [len(part) for part in dashes.strip().split(" ")]
    cells = [first[sum(widths[:at]) + at :][: widths[at]].strip() for at in range(5)]

    assert heading.startswith("JobID ")
    assert [30] * 5 == widths
    assert ["42", "train", "ada", "RUNNING", "None"] == cells


def test_what_others_have_written_does_not_steer_the_terminal(
    manager: FakeManager, slurm: Slurm
) -> None:
    evil = "\x1b]0;evil\x07\x1b[2J"
    odd = job(42, name=evil, submit_dir=f"/{evil}", script=evil)
    odd = msgspec.structs.replace(odd, name=evil, reason=evil)
    node = msgspec.structs.replace(NODE, reason=evil, state="degraded", engine=evil)
    manager.on("GET", "/v1/sessions", SessionList((odd,)))
    manager.on("GET", "/v1/sessions/42", odd)
    manager.on("GET", "/v1/nodes", NodeList((node,)))

    for line in (
        "squeue", "squeue --format=%i\t%j", "scontrol show job 42", "scontrol -o show job 42",
        "scontrol show node", "sinfo -R", "sinfo", "sacct -X", "sacct -P -o JobName%40",
    ):  # fmt: skip
        said = slurm(*line.split(" "))
        assert not {"\x1b", "\x07"} & set(said.out + said.err), line


def test_hosts_are_grouped_by_their_state(slurm: Slurm) -> None:
    lines = [line.split() for line in slurm("sinfo").out.splitlines()]

    assert [
        ["PARTITION", "AVAIL", "TIMELIMIT", "NODES", "STATE", "NODELIST"],
        ["default*", "up", "infinite", "1", "mix", "host1"],
        ["default*", "up", "infinite", "1", "drain", "host2"],
    ] == lines


def test_a_submission_is_a_session_and_its_number_is_told(
    slurm: Slurm, manager: FakeManager, tmp_path: Path
) -> None:
    (tmp_path / "job.sh").write_text("#!/bin/bash\n#SBATCH -J train -N 2 -t 5\nsrun true\n")
    plain = slurm("sbatch", "job.sh", "x")
    parsable = slurm("sbatch", "--parsable", "-A", "acct", "job.sh")
    first = msgspec.json.decode(manager.asked("POST", "/v1/sessions")[0].body, type=SessionSpec)

    assert (0, "Submitted batch job 45\n", "") == (plain.code, plain.out, plain.err)
    assert (0, "45\n") == (parsable.code, parsable.out)
    assert "sbatch: note: --account: nothing is accounted by it\n" == parsable.err
    assert (2, 300.0, "slurm") == (first.size, first.time_limit_s, first.env_profile)
    assert "x" == first.command[-1]


def test_an_arrays_limit_is_kept_by_waiting_for_those_before(
    slurm: Slurm, manager: FakeManager
) -> None:
    manager.on("POST", "/v1/sessions", *(job(number, "pending") for number in (50, 51, 52)))
    slurm("sbatch", "--array=0-2%1", "--wrap", "true")
    specs = [
        msgspec.json.decode(one.body, type=SessionSpec)
        for one in manager.asked("POST", "/v1/sessions")
    ]

    assert [None, "afterany:id50", "afterany:id51"] == [spec.after for spec in specs]
    assert [None, 50, 50] == [spec.slurm and spec.slurm.array_job for spec in specs]


def test_a_folder_that_hosts_do_not_have_is_sent_sealed_once_for_a_whole_array(
    slurm: Slurm, manager: FakeManager, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PHALANX_SLURM_SHARED", "/elsewhere")
    key = sealed.key_text(X25519PrivateKey.generate().public_key().public_bytes_raw())
    host = msgspec.structs.replace(NODE, public_key=key)
    manager.on("GET", "/v1/nodes", NodeList((host,)))
    manager.on("PUT", "/v1/uploads", UploadCreated("sha256:one", 1))
    (tmp_path / "train.py").write_text("the secret recipe")

    assert 0 == slurm("sbatch", "--array=0-2", "--wrap", "true").code

    (sent,) = manager.asked("PUT", "/v1/uploads")
    assert {key} == sealed.read_header(io.BytesIO(sent.body)).recipients
    asked = [json.loads(one.body) for one in manager.asked("POST", "/v1/sessions")]
    assert ["sha256:one"] * 3 == [spec["upload"] for spec in asked]


def test_all_memory_is_that_of_the_smallest_host_in_service(
    slurm: Slurm, manager: FakeManager
) -> None:
    slurm("sbatch", "--mem=0", "--wrap", "true")
    asked = manager.asked("POST", "/v1/sessions")[0].body

    assert 64 << 30 == json.loads(asked)["resources"]["mem"]


def test_signals_and_ends_are_asked_for(slurm: Slurm, manager: FakeManager) -> None:
    slurm("scancel", "-s", "SIGUSR2", "42")
    slurm("scancel", "-b", "-s", "10", "42")
    slurm("scancel", "-s", "KILL", "42")

    assert [("USR2", "tasks"), ("10", "command")] == [
        (json.loads(one.body)["signal"], json.loads(one.body)["to"])
        for one in manager.asked("POST", "/v1/sessions/id42/signal")
    ]
    assert [{"grace_s": 0.0}] == [
        json.loads(one.body) for one in manager.asked("POST", "/v1/sessions/id42/stop")
    ]


def test_json_is_in_slurms_shape(slurm: Slurm) -> None:
    queued = json.loads(slurm("squeue", "--json", "-j", "42").out)["jobs"]
    over = json.loads(slurm("sacct", "--json", "-S1970-01-01-00:00:01").out)["jobs"]

    assert [(42, "RUNNING", "host1")] == [
        (one["job_id"], one["job_state"], one["job_resources"]["nodes"]) for one in queued
    ]
    assert [(42, "RUNNING"), (43, "COMPLETED"), (44, "PENDING")] == [
        (one["job_id"], one["state"]["current"]) for one in over
    ]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("sbatch nowhere.sh", "sbatch: error: Unable to open file nowhere.sh"),
        ("sbatch --bogus", "sbatch: error: unrecognized option '--bogus'"),
        ("sbatch --time=soon --wrap true", "sbatch: error: Invalid --time specification: soon"),
        ("sbatch -w host1 --wrap true", "sbatch: error: --nodelist: hosts can't be named"),
        ("sbatch -d afterok:99 --wrap true", "sbatch: error: Batch job submission failed: Job dep"),
        ("sbatch --wrap true extra", "sbatch: error: Script arguments are not permitted"),
        ("squeue -j 99", "squeue: error: slurm_load_jobs error: Invalid job id specified"),
        ("squeue -t SLEEPING", "squeue: error: Invalid job state specified: SLEEPING"),
        ("squeue -o %J", "squeue: error: Invalid job format specification: J"),
        ("sacct -o Bogus", 'sacct: error: Invalid field requested: "Bogus"'),
        ("sacct -S never", "sacct: error: Invalid time specification: never"),
        ("scancel", "scancel: error: No job identification provided"),
        ("scancel 99", "scancel: error: Kill job error on job id 99: Invalid job id specified"),
        ("scancel abc", "scancel: error: Invalid job id abc"),
        ("scontrol frobnicate", "scontrol: error: invalid keyword: frobnicate"),
        ("scontrol show job 99", "scontrol: error: Invalid job id specified"),
        ("scontrol show hostnames a[", "scontrol: error: Invalid hostlist"),
        ("scontrol update JobId=42 Foo=1", "scontrol: error: Update of this parameter is not"),
        ("scontrol update JobId=42 TimeLimit=1:00:00", "scontrol: error: a time limit can only"),
        ("scontrol show node nowhere", "scontrol: error: Node nowhere not found"),
        ("sinfo --json", "sinfo: error: --json: leave it out"),
        ("srun", "srun: error: No command given to execute."),
        ("srun --multi-prog x", "srun: error: --multi-prog: all tasks run the same command"),
        ("salloc --bogus", "salloc: error: unrecognized option '--bogus'"),
        ("nothing", "phalanx: write one of: sbatch srun"),
    ],
)
def test_what_is_wrong_is_told_in_slurms_voice(slurm: Slurm, line: str, said: str) -> None:
    found = slurm(*line.split())

    assert (1, "") == (found.code, found.out)
    assert found.err.startswith(said)
    assert "Traceback" not in found.err


def test_a_refusal_is_told_with_its_reason(slurm: Slurm, manager: FakeManager) -> None:
    manager.on("POST", "/v1/sessions", fails(422, "never_satisfiable", "it could not hold it"))
    found = slurm("sbatch", "--wrap", "true")

    assert (1, "sbatch: error: Batch job submission failed: it could not hold it\n") == (
        found.code,
        found.err,
    )


@pytest.mark.parametrize(
    ("limit", "why"),
    [
        ((), "there is no --time"),
        (("--time", "1"), "that is no moment between the start and the end of --time"),
    ],
)
def test_a_warning_that_cannot_be_is_told(
    slurm: Slurm, manager: FakeManager, limit: tuple[str, ...], why: str
) -> None:
    manager.on("POST", "/v1/sessions", job(45))
    found = slurm("sbatch", "--signal", "SIGUSR1@90", *limit, "--wrap", "true")

    (asked,) = manager.asked("POST", "/v1/sessions")
    assert None is msgspec.json.decode(asked.body, type=SessionSpec).warn_signal
    assert f"sbatch: note: --signal=USR1@90: no warning is sent: {why}\n" in found.err


def test_what_the_manager_warns_of_is_told(slurm: Slurm, manager: FakeManager) -> None:
    warned = msgspec.structs.replace(job(45), warnings=("nowhere to save",))
    manager.on("POST", "/v1/sessions", warned)
    found = slurm("sbatch", "--wrap", "true")
    quiet = slurm("sbatch", "--quiet", "--wrap", "true")

    assert "sbatch: warning: nowhere to save\n" == found.err
    assert "" == quiet.err


@pytest.mark.parametrize("text", ["shared = 5", "nonsense = 1", "= =", 'shared = ["relative"]'])
def test_settings_that_mean_nothing_are_refused(
    slurm: Slurm, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, text: str
) -> None:
    (tmp_path / "slurm.toml").write_text(text)
    monkeypatch.setenv("PHALANX_SLURM_CONFIG", str(tmp_path / "slurm.toml"))
    monkeypatch.delenv("PHALANX_SLURM_SHARED")
    found = slurm("squeue")

    assert 1 == found.code
    assert str(tmp_path / "slurm.toml") in found.err


def steps(told: list[Any]) -> Callable[[web.Request], Any]:
    """Answer a step: what it asks for is kept, its input comes back, then it ends with 5."""

    async def answer(request: web.Request) -> web.StreamResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        told.append(json.loads((await socket.receive()).data))
        await socket.send_bytes(b"\x01out\n")
        await socket.send_bytes(b"\x02err\n")
        await socket.send_str('{"exit_code": 5}')
        await socket.close()
        return socket

    return answer


def test_a_step_in_a_job_that_is_there_is_run_with_our_output(
    slurm: Slurm, manager: FakeManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[Any] = []
    manager.on("GET", "/v1/sessions/id42/steps", steps(told))
    monkeypatch.setenv("SLURM_JOB_ID", "42")
    monkeypatch.setenv("MINE", "1")
    with open(os.devnull, encoding="ascii") as nothing:
        monkeypatch.setattr(sys, "stdin", nothing)
        said = slurm("srun", "-l", "-n2", "--export=MINE,A=2", "python3", "train.py", "-x")

    assert 5 == said.code
    assert (["python3", "train.py", "-x"], 2, True, {"MINE": "1", "A": "2"}) == (
        told[0]["command"],
        told[0]["tasks"],
        told[0]["label"],
        told[0]["env"],
    )


@pytest.mark.parametrize(
    "line",
    ["-N2 --pty --job-name interactive bash", "-N2 --pty bash --job-name interactive --mem=1G"],
)
def test_a_step_without_a_job_has_one_of_its_own_which_ends_with_it(
    slurm: Slurm, manager: FakeManager, monkeypatch: pytest.MonkeyPatch, line: str
) -> None:
    told: list[Any] = []
    manager.on("POST", "/v1/sessions", job(45, "pending"))
    manager.on("GET", "/v1/sessions/id45/wait", job(45))
    manager.on("POST", "/v1/sessions/id45/stop", job(45))
    manager.on("GET", "/v1/sessions/id45/steps", steps(told))
    with open(os.devnull, encoding="ascii") as nothing:
        monkeypatch.setattr(sys, "stdin", nothing)
        said = slurm("srun", *line.split())
    asked = msgspec.json.decode(manager.asked("POST", "/v1/sessions")[0].body, type=SessionSpec)

    assert (5, ["bash"]) == (said.code, told[0]["command"])
    assert ("interactive", 2, "interactive") == (
        asked.kind,
        asked.size,
        asked.slurm and asked.slurm.name,
    )
    assert 1 == len(manager.asked("POST", "/v1/sessions/id45/stop"))


def test_a_held_allocation_lasts_as_long_as_its_command(
    slurm: Slurm, manager: FakeManager, tmp_path: Path
) -> None:
    variable = {"name": "SLURM_JOB_ID", "value": "45", "source": "phalanx"}
    ranks = [{"rank": 0, "host_name": "main1", "variables": [variable]}]
    manager.on("GET", "/v1/sessions/id45/wait", job(45))
    manager.on("GET", "/v1/sessions/id45/env", {"profile": "slurm", "ranks": ranks})
    manager.on("POST", "/v1/sessions/id45/stop", job(45))
    said = slurm("salloc", "-N1", "sh", "-c", f"echo $SLURM_JOB_ID > {tmp_path}/id; exit 4")

    assert (4, "45\n") == (said.code, (tmp_path / "id").read_text())
    assert "salloc: Granted job allocation 45\n" in said.err
    assert said.err.endswith("salloc: Relinquishing job allocation 45\n")
    assert 1 == len(manager.asked("POST", "/v1/sessions/id45/stop"))
