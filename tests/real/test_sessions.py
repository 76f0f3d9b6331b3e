"""A session is what was asked for: its containers, their environment, its end."""

from __future__ import annotations

import json
import time
from datetime import datetime
from pathlib import Path

import pytest

from phalanx_lab import recipes
from tests.real.ground import ACROSS, BASE, PROGRAMS, Ground, await_true, call, ranks

pytestmark = pytest.mark.real


# ---------------------------------------------------------------- environment


def test_two_and_two_containers_see_just_what_phalanx_env_says(clean: Ground) -> None:
    two_fit = f"{clean.lab.plan.mem * 4 // 10}"

    with clean.created(
        "-N", "4", "--mode", "multi-node", "--spread", "pack", "-m", two_fit,
        "-e", "OMP_NUM_THREADS=3", "-e", "MINE=a b",
    ) as name:  # fmt: skip
        view = clean.http("GET", f"/v1/sessions/{name}").ok()
        dump = "import json, os; print(json.dumps(dict(os.environ)))"
        found = [
            json.loads(clean.inside(f"{name}/{rank}", "python3", "-c", dump).ok())
            for rank in range(4)
        ]
        told = json.loads(clean.phalanx("env", name, "-o", "json").ok())
        table = clean.phalanx("env", name).ok()

    names = ["main1", "sub1", "sub2", "sub3"]
    workers = [f"{host}:12345" for host in names]
    one, _, other, _ = (kernel["agent"] for kernel in view["kernels"])
    assert [one, one, other, other] == [kernel["agent"] for kernel in view["kernels"]]
    for rank, variables in enumerate(found):
        assert {
            "BACKENDAI_CLUSTER_SIZE": "4",
            "BACKENDAI_CLUSTER_HOSTS": "main1,sub1,sub2,sub3",
            "BACKENDAI_CLUSTER_REPLICAS": "main:1,sub:3",
            "BACKENDAI_CLUSTER_HOST": names[rank],
            "BACKENDAI_CLUSTER_IDX": str([1, 1, 2, 3][rank]),
            "BACKENDAI_CLUSTER_ROLE": ["main", "sub", "sub", "sub"][rank],
            "BACKENDAI_CLUSTER_LOCAL_RANK": str(rank),
            "WORLD_SIZE": "4",
            "WORLD_RANK": str(rank),
            "RANK": str(rank),
            "LOCAL_RANK": str(rank % 2),
            "LOCAL_WORLD_SIZE": "2",
            "NODE_RANK": str(rank // 2),
            "MASTER_ADDR": "main1",
            "MASTER_ADDRESS": "main1",
            "MASTER_PORT": "12345",
            "OMP_NUM_THREADS": "3",
            "MINE": "a b",
            "GLOO_SOCKET_IFNAME": "eth0",
            "NCCL_SOCKET_IFNAME": "=eth0",
            "PHALANX_SESSION_ID": view["id"],
            "PHALANX_SESSION_NAME": name,
            "PHALANX_ATTEMPT": "1",
            "HOSTNAME": names[rank],
        }.items() <= variables.items()
        assert {
            "cluster": {"worker": workers},
            "task": {"type": "worker", "index": rank},
        } == json.loads(variables["TF_CONFIG"])
        said = {one["name"]: one["value"] for one in told["ranks"][rank]["variables"]}
        assert said.items() <= variables.items()
        ours = ("BACKENDAI_", "PHALANX_", "OMPI_", "PRTE_", "WORLD_", "MASTER_", "LOCAL_")
        assert {key for key in variables if key.startswith(ours)} <= set(said)
    assert "user over phalanx" in table


def test_twelve_containers_over_three_engines_are_one_session(clean: Ground) -> None:
    look = (
        "echo $RANK $LOCAL_RANK $LOCAL_WORLD_SIZE $NODE_RANK $WORLD_SIZE; "
        'for h in $(echo "$BACKENDAI_CLUSTER_HOSTS" | tr , " "); do '
        "nc -z -w 5 $h 2200 || echo cannot reach $h; done"
    )

    with clean.created("-N", "12", "--mode", "multi-node", "-c", "0.2", "-m", "64M") as name:
        told = clean.phalanx("exec", name, "--all", "--", "sh", "-c", look).ok()

    assert {rank: [f"{rank} {rank % 4} 4 {rank // 4} 12"] for rank in range(12)} == ranks(told)


def test_roles_have_their_own_image_command_resources_and_environment(
    clean: Ground, script: Path
) -> None:
    busybox = clean.lab.load("busybox")
    limit = "/sys/fs/cgroup/memory/memory.limit_in_bytes"
    say = f"echo $ROLE $SHARED $OWN $(cat {limit} 2>/dev/null || cat /sys/fs/cgroup/memory.max)"
    wanted = script / "session.yaml"
    wanted.write_text(
        json.dumps(
            {
                "mode": "multi-node",
                "image": BASE,
                "command": ["sh", "-c", "ROLE=$BACKENDAI_CLUSTER_ROLE;" + say],
                "env": {"SHARED": "all", "OWN": "none"},
                "resources": {"cpu": 0.5, "mem": "64M"},
                "roles": [
                    {"name": "main"},
                    {"name": "ps", "replicas": 2, "image": busybox, "env": {"OWN": "ps"}},
                    {
                        "name": "eval",
                        "command": ["sh", "-c", "ROLE=judge;" + say],
                        "resources": {"mem": "96M"},
                    },
                ],
            }
        )
    )

    told = clean.phalanx("run", "-f", str(wanted)).ok()

    mib = 1 << 20
    assert {
        0: [f"main all none {64 * mib}"],
        1: [f"ps all ps {64 * mib}"],
        2: [f"ps all ps {64 * mib}"],
        3: [f"judge all none {96 * mib}"],
    } == ranks(told)


def test_the_same_roles_can_be_written_as_options(clean: Ground) -> None:
    told = clean.run(
        "--role", "main=1", "--role", "ps=2,mem=96M", "--", "printenv", "BACKENDAI_CLUSTER_REPLICAS"
    ).ok()

    assert {rank: ["main:1,ps:2"] for rank in range(3)} == ranks(told)


# ---------------------------------------------------------------- who runs, and how it ends


def test_main_alone_runs_while_the_others_are_there_for_it(clean: Ground) -> None:
    told = clean.run(
        "-N", "3", *ACROSS, "--run-on", "main", "--upload", str(PROGRAMS), "--",
        "sh", "-c", "sh who.sh; exit 6",
    )  # fmt: skip

    assert 6 == told.code
    expected = [f"{host} {rank} of 3" for rank, host in enumerate(("main1", "sub1", "sub2"))]
    assert {0: expected} == ranks(told.out)


@pytest.mark.parametrize(
    ("command", "code"),
    [
        (("sh", "-c", "exit 3"), 3),
        (("no-such-program",), 127),
        (("/etc/hostname",), 126),
        (("sh", "-c", "kill -KILL $$"), 137),
        (("sh", "-c", "kill -TERM $$"), 143),
    ],
)
def test_the_commands_exit_code_is_the_sessions(
    clean: Ground, command: tuple[str, ...], code: int
) -> None:
    told = clean.run("--", *command)

    told.failed(code)


def test_the_first_rank_that_fails_ends_the_others_and_gives_its_code(clean: Ground) -> None:
    script = (
        'if [ $RANK = 1 ]; then exit 5; fi; trap "echo told to stop; exit 9" TERM; sleep 60 & wait'
    )

    told = clean.run("-N", "3", *ACROSS, "-J", "falls", "--", "sh", "-c", script)
    view = clean.show("falls")

    assert {0: ["told to stop"], 2: ["told to stop"]} == ranks(told.out)
    assert (5, "failed", 5) == (told.code, view["state"], view["exit_code"])
    assert "sub1" in view["reason"]
    assert [9, 5, 9] == [kernel["exit_code"] for kernel in view["kernels"]]


def test_others_go_on_after_a_failure_when_that_is_asked_for(clean: Ground) -> None:
    script = (
        "if [ $RANK = 1 ]; then exit 4; fi; until ! nc -z -w 1 sub1 2200; do :; done; echo done"
    )

    told = clean.run("-N", "2", "--on-failure", "continue", "--", "sh", "-c", script)

    assert {0: ["done"]} == ranks(told.out)
    assert 4 == told.code


def test_a_time_limit_ends_a_session_as_timeout(clean: Ground) -> None:
    told = clean.run("-N", "2", "-J", "endless", "-t", "2", "--", "sleep", "600")

    assert 0 != told.code
    assert "timeout" == clean.show("endless")["state"]


def test_a_command_that_ignores_being_told_to_stop_is_killed_after_its_grace(
    clean: Ground,
) -> None:
    name = clean.detached("--", "sh", "-c", 'trap "" TERM; echo deaf; while :; do sleep 1; done')
    clean.await_state(name, "running")
    await_true("it says so", lambda: "deaf" in clean.phalanx("logs", name).out)
    answer = clean.http("POST", f"/v1/sessions/{name}/stop", {"grace_s": 1.0})
    view = clean.await_state(name, "cancelled")

    assert answer.status < 300
    assert [137] == [kernel["exit_code"] for kernel in view["kernels"]]


def test_an_interactive_session_idles_runs_what_it_is_told_and_stops(clean: Ground) -> None:
    with clean.created("-N", "2") as name:
        seen = clean.show(name)
        first = clean.inside(f"{name}/sub1", "sh", "-c", "echo $RANK; exit 3")
        everybody = clean.phalanx("exec", name, "--all", "--", "hostname").ok()
    ended = clean.show(name)

    assert ("running", "interactive", None) == (seen["state"], seen["kind"], seen["exit_code"])
    assert (3, "1\n") == (first.code, first.out)
    assert {0: ["main1"], 1: ["sub1"]} == ranks(everybody)
    assert "cancelled" == ended["state"]


# ---------------------------------------------------------------- what is in a container


def test_an_upload_is_the_working_folder_of_every_container(clean: Ground, script: Path) -> None:
    (script / "deep").mkdir()
    (script / "deep" / "file.txt").write_text("here\n")
    (script / "run.sh").write_text("#!/bin/sh\ncat deep/file.txt && touch mine && pwd\n")
    (script / "run.sh").chmod(0o755)

    for user in ("0", "1000"):
        told = clean.run(
            "-N", "3", *ACROSS, "-u", user, "--upload", str(script), "--", "./run.sh"
        ).ok()
        assert {rank: ["here", "/workspace"] for rank in range(3)} == ranks(told)


def test_only_folders_that_the_hosts_allow_are_mounted(clean: Ground) -> None:
    share = Path(clean.lab.state_dir, "share")
    (share / "data.txt").write_text("shared\n")
    (share / "trap").symlink_to("/etc")
    refused = {
        "elsewhere": "/etc:/x",
        "below a link": f"{share}/trap:/x",
        "for writing": f"{recipes.cache()}/images:/x:rw",
        "that is not there": f"{share}/nothing:/x",
    }
    look = "cat /data/data.txt; touch /data/new 2>/dev/null || echo read only; touch /own/$RANK"

    seen = clean.run(
        "-N", "3", *ACROSS, "-v", f"{share}:/data", "-v", f"{share}:/own:rw",
        "--", "sh", "-c", look,
    ).ok()  # fmt: skip
    told = {
        what: clean.run("-N", "2", "-v", mount, "--", "echo", "ran")
        for what, mount in refused.items()
    }

    assert {rank: ["shared", "read only"] for rank in range(3)} == ranks(seen)
    assert {"0", "1", "2"} <= {path.name for path in share.iterdir()}
    assert [] == [what for what, done in told.items() if done.code == 0 or "ran" in done.out]
    for what, done in told.items():
        assert refused[what].split(":")[0] in done.err, (what, done.err)


def test_a_container_has_the_settings_that_training_needs(clean: Ground) -> None:
    look = (
        "df -B1 --output=size /dev/shm | tail -1; ulimit -n; ulimit -l; "
        "cat /sys/fs/cgroup/pids/pids.max 2>/dev/null || cat /sys/fs/cgroup/pids.max"
    )

    told = clean.run(
        "-m", "512M", "--shm", "100M", "--no-prefix", "-J", "set", "--", "sh", "-c", look
    )
    shm, nofile, memlock, pids = told.ok().split()
    warnings = " ".join(clean.show("set").get("warnings", ()))

    assert str(100 << 20) == shm
    assert int(nofile) >= 65536 or "files" in warnings
    assert "unlimited" == memlock or "lock" in warnings
    assert 4096 <= int(pids) <= 4200


def test_what_a_session_prints_is_kept_merged_after_its_end(clean: Ground) -> None:
    script = 'for i in 1 2 3; do echo "$BACKENDAI_CLUSTER_HOST $i"; done; echo oops >&2'
    clean.run("-N", "3", *ACROSS, "-J", "speaks", "--", "sh", "-c", script).ok()

    whole = clean.phalanx("logs", "speaks")
    last = clean.phalanx("logs", "speaks", "--tail", "2", "--rank", "0,2")
    bare = clean.phalanx("logs", "speaks", "--rank", "1", "--no-prefix").ok()

    names = ("main1", "sub1", "sub2")
    said = {rank: [f"{name} {i}" for i in (1, 2, 3)] for rank, name in enumerate(names)}
    assert said == ranks(whole.out)
    assert {rank: ["oops"] for rank in range(3)} == ranks(whole.err)
    assert 2 == len((last.out + last.err).splitlines())
    assert set(ranks(last.out + last.err)) <= {0, 2}
    assert "sub1 1\nsub1 2\nsub1 3\n" == bare


def test_output_of_every_sort_arrives_whole(clean: Ground) -> None:
    noise = (
        "import sys\n"
        "sys.stdout.buffer.write(b'\\xff\\xfe not text\\n' + 'räksmörgås\\n'.encode())\n"
        "print('z' * 300000)\n"
        "sys.stdout.write('no newline at the end')\n"
    )

    told = clean.run("--no-prefix", "--", "python3", "-c", noise).ok()

    assert "räksmörgås\n" in told
    assert 300000 == told.count("z")
    assert told.rstrip("\n").endswith("no newline at the end")


# ---------------------------------------------------------------- all or nothing


def test_nothing_runs_when_one_container_cannot_be_made(clean: Ground) -> None:
    lonely = "127.0.0.1:1/lonely:latest"  # a registry that refuses at once
    for host in clean.lab.hosts[:2]:
        clean.docker(host, "tag", BASE, lonely).ok()
    try:
        told = clean.run("-N", "3", *ACROSS, "-J", "lonely", "-i", lonely, "--", "echo", "ran")
    finally:
        for host in clean.lab.hosts[:2]:
            clean.docker(host, "rmi", lonely).ok()
    view = clean.show("lonely")

    assert 0 != told.code
    assert "" == told.out
    assert "failed" == view["state"]
    for word in ("2", "sub2", "host3", lonely):
        assert word in view["reason"]
    assert lonely in told.err


def test_nothing_runs_when_one_host_lacks_a_folder_to_mount(clean: Ground) -> None:
    folder = Path(clean.lab.state_dir, "share", "nearly-everywhere")
    (folder / "data").mkdir(parents=True)
    view_of_host_3 = ("nsenter", f"--target={clean.lab.pid('agent-3')}", "--mount")
    call(*view_of_host_3, "mount", "-t", "tmpfs", "tmpfs", str(folder)).ok()
    try:
        told = clean.run(
            "-N", "3", *ACROSS, "-J", "nearly", "-v", f"{folder}/data:/x", "--", "echo", "ran"
        )
    finally:
        call(*view_of_host_3, "umount", str(folder)).ok()
    view = clean.show("nearly")

    assert (True, "", "failed") == (told.code != 0, told.out, view["state"])
    for word in ("2", "sub2", "host3", f"{folder}/data"):
        assert word in view["reason"]


def test_no_command_starts_before_every_rank_is_there(clean: Ground) -> None:
    now = "import time; print(time.time())"
    clean.lab.fault("stop", "agent-3")
    try:
        name = clean.detached("-N", "3", *ACROSS, "--", "python3", "-c", now)
        await_true(
            "two of three are created",
            lambda: [k["state"] for k in clean.show(name)["kernels"]].count("created") == 2,
        )
        thawed = time.time()
    finally:
        clean.lab.fault("cont", "agent-3")
    clean.phalanx("wait", name).ok()

    begun = [float(said[0]) for said in ranks(clean.phalanx("logs", name).ok()).values()]
    assert 3 == len(begun)
    assert min(begun) > thawed
    assert max(begun) - min(begun) < 1


# ---------------------------------------------------------------- waiting


def test_a_session_that_does_not_fit_waits_with_the_numbers_and_starts_in_turn(
    clean: Ground,
) -> None:
    most = str(clean.lab.plan.mem * 8 // 10)
    big = ("-N", "3", *ACROSS, "-m", most)
    with clean.created(*big) as first:
        second = clean.detached(*big, "--", "echo", "second")
        third = clean.detached(*big, "--", "echo", "third")
        await_true("it says why", lambda: bool(clean.show(second)["reason"]))
        waits = clean.show(second)
        clean.phalanx("stop", first).ok()
    for name in (second, third):
        clean.phalanx("wait", name).ok()

    assert "pending" == waits["state"]
    assert "GiB" in waits["reason"]
    ended = {name: clean.show(name) for name in (second, third)}
    moments = (ended[second]["ended_at"], ended[third]["started_at"])
    one, other = (datetime.fromisoformat(moment) for moment in moments)
    assert one <= other


def test_what_no_set_of_hosts_could_ever_hold_is_refused_with_the_numbers(clean: Ground) -> None:
    told = clean.run("-N", "2", "-m", "900G", "--", "true").failed(65)

    assert "900 GiB" in told
    assert "GiB" in told.replace("900 GiB", "")
