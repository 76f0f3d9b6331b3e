"""Every verb of the command line does what it says, in every form, with its exit code."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.real.ground import ACROSS, BASE, SMALL, Ground, await_true, ranks

pytestmark = pytest.mark.real

FORMS = ("json", "yaml", "name", "wide", "table")


def test_run_follows_merged_output_and_ends_with_the_sessions_code(clean: Ground) -> None:
    told = clean.run("-N", "2", *ACROSS, "--", "sh", "-c", "echo out $RANK; echo err >&2; exit 3")

    assert 3 == told.code
    assert {0: ["out 0"], 1: ["out 1"]} == ranks(told.out)
    assert {0: ["err"], 1: ["err"]} == ranks(told.err)


def test_run_detached_says_the_name_and_wait_gives_the_code(clean: Ground) -> None:
    said = clean.run("--detach", "-q", "--", "sh", "-c", "exit 4").ok().strip()
    waited = clean.phalanx("wait", said)

    assert 4 == waited.code
    assert said in (clean.show(said)["id"], clean.show(said)["name"])


def test_a_dry_run_says_where_it_would_go_and_starts_nothing(clean: Ground) -> None:
    before = clean.http("GET", "/v1/sessions?all=1").ok()

    told = clean.run("--dry-run", "-N", "3", *ACROSS, "-o", "json", "--", "true").ok()
    shown = clean.run("--dry-run", "-N", "3", *ACROSS, "--", "true").ok()

    assert {"host1", "host2", "host3"} == set(json.loads(told)["placement"])
    assert "host3" in shown
    assert before == clean.http("GET", "/v1/sessions?all=1").ok()


def test_a_session_is_listed_and_shown_in_every_form(clean: Ground) -> None:
    with clean.created("-N", "2") as name:
        api = clean.http("GET", f"/v1/sessions/{name}").ok()
        listed = {form: clean.phalanx("ps", "-o", form).ok() for form in FORMS}
        shown = {form: clean.phalanx("show", name, "-o", form).ok() for form in FORMS}
        quiet = clean.phalanx("ps", "-q").ok()
    ended = clean.phalanx("ps").ok()
    every = clean.phalanx("ps", "--all", "-o", "json").ok()

    assert api == json.loads(shown["json"])
    assert api == plain(yaml.safe_load(shown["yaml"]))
    assert [api] == json.loads(listed["json"])["sessions"]
    assert [api] == plain(yaml.safe_load(listed["yaml"]))["sessions"]
    assert [name] * 2 == [shown["name"].strip(), listed["name"].strip()]
    for text in (listed["table"], listed["wide"], shown["table"], shown["wide"]):
        assert name in text
        assert "running" in text
    for word in ("main1", "sub1", api["kernels"][1]["address"], api["kernels"][1]["agent"]):
        assert word in shown["wide"]
    assert [api["id"]] == quiet.split()
    assert name not in ended
    assert api["id"] in [one["id"] for one in json.loads(every)["sessions"]]


def plain(document: Any) -> Any:
    """A document with its moments as JSON writes them."""
    return json.loads(json.dumps(document, default=str))


def test_env_says_what_each_rank_sees_and_who_reads_it(clean: Ground) -> None:
    with clean.created("-N", "2", "-e", "MINE=1") as name:
        table = clean.phalanx("env", name).ok()
        told = {form: clean.phalanx("env", name, "-o", form).ok() for form in ("json", "yaml")}

    for word in ("MASTER_ADDR", "main1", "MINE", "PyTorch", "TF_CONFIG"):
        assert word in table
    document = json.loads(told["json"])
    assert document == yaml.safe_load(told["yaml"])
    assert [0, 1] == [rank["rank"] for rank in document["ranks"]]


def test_events_tell_the_life_of_a_session_in_order(clean: Ground) -> None:
    name = clean.detached("--", "true")
    clean.phalanx("wait", name).ok()

    # Its containers are removed after its end, so each answer may have more than the one before.
    said = clean.phalanx("events", name, "-o", "json").ok().splitlines()
    told = [json.loads(line) for line in said]
    kinds = clean.phalanx("events", name, "-o", "name").ok().split()
    table = clean.phalanx("events", name).ok()

    assert [one["kind"] for one in told] == kinds[: len(told)]
    assert "session.submitted" == kinds[0]
    places = [
        kinds.index(kind) for kind in ("session.submitted", "kernel.running", "kernel.exited")
    ]
    assert places == sorted(places)
    assert "session.succeeded" in kinds
    assert [one["text"] in table for one in told] == [True] * len(told)


def test_logs_follow_to_the_end_of_a_session(clean: Ground) -> None:
    name = clean.detached(
        "-N", "2", *ACROSS, "--", "sh", "-c", "for i in 1 2 3; do echo $i; sleep 0.3; done"
    )

    told = clean.phalanx("logs", "-f", name).ok()

    assert {rank: ["1", "2", "3"] for rank in (0, 1)} == ranks(told)


def test_exec_passes_streams_codes_and_places(clean: Ground) -> None:
    with clean.created("-N", "2", *ACROSS) as name:
        first = clean.phalanx("exec", name, "--", "printenv", "RANK").ok()
        second = clean.phalanx("exec", f"{name}/1", "--", "printenv", "RANK").ok()
        third = clean.phalanx("exec", f"{name}/sub1", "--", "sh", "-c", "echo no >&2; exit 9")
        typed = clean.phalanx("exec", "-i", name, "--", "sort", stdin="b\na\n").ok()
        everybody = clean.phalanx("exec", name, "--all", "--", "hostname").ok()
        large = clean.phalanx("exec", "-i", name, "--", "wc", "-c", stdin="x" * 5_000_000).ok()
        nobody = clean.phalanx("exec", f"{name}/7", "--", "true")
        missing = clean.phalanx("exec", name, "--", "no-such-program")

    assert ("0\n", "1\n") == (first, second)
    assert (9, "", "no\n") == (third.code, third.out, third.err)
    assert "a\nb\n" == typed
    assert {0: ["main1"], 1: ["sub1"]} == ranks(everybody)
    assert "5000000\n" == large
    nobody.failed(66)
    assert missing.code in (126, 127)


def test_ssh_gives_a_shell_of_the_image_or_runs_a_command(clean: Ground) -> None:
    with clean.created("-N", "2", *ACROSS) as name:
        told = clean.phalanx("ssh", f"{name}/sub1", "--", "printenv", "RANK").ok()
        typed = clean.phalanx("ssh", f"{name}/sub1", stdin="echo $RANK\nexit 5\n")

    assert "1\n" == told
    assert 5 == typed.code
    assert "1" in typed.out.split()


def test_cp_carries_files_and_folders_both_ways(clean: Ground, tmp_path: Path) -> None:
    (tmp_path / "out" / "deep").mkdir(parents=True)
    (tmp_path / "out" / "deep" / "a").write_text("first")
    (tmp_path / "b").write_bytes(bytes(range(256)) * 9000)

    with clean.created("-N", "2", *ACROSS) as name:
        clean.phalanx("cp", str(tmp_path / "out"), f"{name}/sub1:/tmp/").ok()
        clean.phalanx("cp", str(tmp_path / "b"), f"{name}/sub1:/tmp/c").ok()
        there = clean.inside(f"{name}/sub1", "cat", "/tmp/out/deep/a").ok()
        clean.phalanx("cp", f"{name}/1:/tmp/c", str(tmp_path / "d")).ok()
        clean.phalanx("cp", f"{name}/1:/tmp/out", str(tmp_path / "back")).ok()
        missing = clean.phalanx("cp", f"{name}/1:/tmp/nothing", str(tmp_path / "e"))

    assert "first" == there
    assert (tmp_path / "b").read_bytes() == (tmp_path / "d").read_bytes()
    assert ["first"] == [path.read_text() for path in (tmp_path / "back").rglob("a")]
    missing.failed(66)


def test_stop_ends_a_session_and_says_so_again_without_harm(clean: Ground) -> None:
    name = clean.detached("-N", "2", *ACROSS, "--", "sleep", "600")
    clean.await_state(name, "running")

    clean.phalanx("stop", name).ok()
    clean.phalanx("stop", name).ok()

    assert "cancelled" == clean.await_state(name, "cancelled")["state"]
    assert 0 != clean.phalanx("wait", name).code


def test_kill_sends_a_signal_to_every_command_or_to_one(clean: Ground) -> None:
    script = 'trap "echo got it; exit 8" USR1; echo ready; while :; do sleep 0.1; done'
    name = clean.detached("-N", "2", "--on-failure", "continue", "--", "sh", "-c", script)
    await_true("both are ready", lambda: clean.phalanx("logs", name).out.count("ready") == 2)

    clean.phalanx("kill", "-s", "USR1", f"{name}/1").ok()
    await_true("one has it", lambda: ["got it"] == ranks(clean.phalanx("logs", name).out)[1][1:])
    one = clean.phalanx("logs", name).out.count("got it")
    clean.phalanx("kill", "-s", "SIGUSR1", name).ok()

    assert 8 == clean.phalanx("wait", name).code
    assert 1 == one
    assert 2 == clean.phalanx("logs", name).ok().count("got it")


def test_wait_gives_up_in_time_with_75(clean: Ground) -> None:
    name = clean.detached("--", "sleep", "600")

    clean.phalanx("wait", name, "--timeout", "1").failed(75)


def test_nodes_say_what_they_are_have_and_hold(clean: Ground) -> None:
    with clean.created("-N", "3", *ACROSS) as name:
        told = {form: clean.phalanx("nodes", "-o", form).ok() for form in FORMS}

    assert ["host1", "host2", "host3"] == told["name"].split()
    document, other = json.loads(told["json"]), plain(yaml.safe_load(told["yaml"]))
    for node in (*document["nodes"], *other["nodes"]):
        assert node.pop("last_seen_at")  # goes on while they are asked for
    assert document == other
    for node in document["nodes"]:
        assert "ready" == node["state"]
        assert [name] == [holder["session_name"] for holder in node["holders"]]
        assert 0.5 == node["used"]["cpu"]
        assert [] == node["strays"]
    for host in clean.lab.hosts:
        assert host.name in told["table"]
        assert host.address in told["wide"]
    assert name in told["wide"]


def test_tokens_are_made_listed_and_revoked(clean: Ground) -> None:
    secret = clean.phalanx("token", "create", "carl", "--scope", "user", "-q").ok().strip()
    join = clean.phalanx("token", "create", "--agent", "host9", "-q").ok().strip()
    listed = json.loads(clean.phalanx("token", "ls", "-o", "json").ok())["tokens"]
    mine = [one["id"] for one in listed if one["name"] in ("carl", "host9")]
    table = clean.phalanx("token", "ls").ok()

    works = clean.http("GET", "/v1/sessions", token=secret)
    for one in mine:
        clean.phalanx("token", "revoke", one).ok()
    after = clean.http("GET", "/v1/sessions", token=secret)

    assert secret.startswith("phx_")
    assert join.startswith("phxjoin1.")
    assert 2 == len(mine)
    assert secret not in table + json.dumps(listed)
    assert [200, 401] == [works.status, after.status]


def test_doctor_judges_this_machine(clean: Ground) -> None:
    told = clean.phalanx("doctor")

    assert told.code in (0, 69)
    assert "Traceback" not in told.out + told.err
    assert told.out


def test_exit_codes_tell_who_is_to_blame(clean: Ground, tmp_path: Path) -> None:
    weak = clean.http("POST", "/v1/tokens", {"name": "weak", "scope": "read-only"}).ok()
    submit = ("run", *SMALL, "-i", BASE, "--", "true")

    codes = {
        "usage": clean.phalanx("run", "--nonsense").code,
        "input": clean.phalanx("run", *SMALL, "-N", "0", "-i", BASE, "--", "true").code,
        "not found": clean.phalanx("show", "nobody").code,
        "unreachable": clean.phalanx("--url", "http://127.0.0.1:9", "ps").code,
        "not permitted": clean.phalanx("--token", weak["token"], *submit).code,
        "bad token": clean.phalanx("--token", "phx_" + "A" * 43, "ps").code,
    }
    clean.http("DELETE", f"/v1/tokens/{weak['id']}")

    assert {
        "usage": 64, "input": 65, "not found": 66, "unreachable": 69, "not permitted": 77,
        "bad token": 77,
    } == codes  # fmt: skip


def test_an_interrupt_stops_what_run_follows(clean: Ground) -> None:
    arguments = ("run", *SMALL, "-i", BASE, "-J", "cut", "--", "sh", "-c", "echo on; sleep 600")
    with clean.start(*arguments) as running:
        assert running.stdout is not None
        assert "on" in running.stdout.readline()
        running.send_signal(signal.SIGINT)
        out, err = running.communicate(timeout=30)

    assert 0 != running.returncode
    assert "Traceback" not in out + err
    assert "cancelled" == clean.await_state("cut", "cancelled")["state"]


def test_a_closed_pipe_ends_the_command_line_quietly(clean: Ground) -> None:
    with clean.created() as name, clean.start("env", name) as talking:
        assert talking.stdout is not None
        talking.stdout.close()
        err = talking.stderr.read() if talking.stderr else ""
        talking.wait(timeout=30)

    assert "Traceback" not in err


def test_every_verb_has_its_help(ground: Ground) -> None:
    verbs = (
        "run", "create", "ps", "show", "env", "events", "logs", "exec", "ssh", "cp", "stop", "kill",
        "wait", "nodes", "token", "doctor", "up", "lab",
    )  # fmt: skip
    whole = ground.phalanx("--help").ok()
    told = {verb: ground.phalanx(verb, "--help") for verb in verbs}

    assert [] == [verb for verb in verbs if verb not in whole]
    assert [] == [verb for verb, done in told.items() if done.code != 0 or len(done.out) < 100]
