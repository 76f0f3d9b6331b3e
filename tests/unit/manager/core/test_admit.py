"""What may be asked for: each mistake has a stable code and the path of the field."""

from __future__ import annotations

from typing import Any

import pytest

from phalanx_manager.core.admit import Admitted, admit
from phalanx_manager.core.model import Limits, Refusal
from phalanx_wire.spec import Mount, Resources, RoleSpec, SlurmJob, SlurmPart
from tests.support.house import GIB, admitted, agent, agents, observed, refused, spec

MAIN = RoleSpec(name="main")
DIGEST = "sha256:" + "a" * 64


def mounts(*targets: str) -> tuple[Mount, ...]:
    return tuple(Mount("/data", target) for target in targets)


MISTAKES: list[tuple[dict[str, Any], str, str]] = [
    ({"name": ""}, "name", "name"),
    ({"name": "Upper"}, "name", "name"),
    ({"name": "-a"}, "name", "name"),
    ({"name": "a" * 64}, "name", "name"),
    ({"name": "a\n"}, "name", "name"),
    ({"cluster": "a b"}, "cluster", "cluster"),
    ({"size": 0}, "size", "size"),
    ({"size": -1}, "size", "size"),
    ({"size": 10_001}, "size", "size"),
    ({"size": 3, "roles": (MAIN,)}, "size", "size"),
    ({"roles": ()}, "role_main", "roles"),
    ({"slurm": SlurmJob(tasks=0)}, "slurm", "slurm.tasks"),
    ({"slurm": SlurmJob(cpus_per_task=-1)}, "slurm", "slurm.cpus_per_task"),
    (
        {"size": 2, "slurm": SlurmJob(parts=(SlurmPart(1), SlurmPart(1, tasks_per_node=0)))},
        "slurm",
        "slurm.parts[1].tasks_per_node",
    ),
    (
        {"size": 3, "slurm": SlurmJob(parts=(SlurmPart(1), SlurmPart(1)))},
        "slurm_parts",
        "slurm.parts",
    ),
    ({"size": 1, "slurm": SlurmJob(parts=(SlurmPart(1),))}, "slurm_parts", "slurm.parts"),
    (
        {"size": 1, "slurm": SlurmJob(parts=(SlurmPart(2), SlurmPart(-1)))},
        "slurm_parts",
        "slurm.parts",
    ),
    ({"roles": (RoleSpec(name="sub"),)}, "role_main", "roles[0]"),
    ({"roles": (RoleSpec(name="main", replicas=2),)}, "role_main", "roles[0]"),
    ({"roles": (MAIN, RoleSpec(name="ps1"))}, "role_name", "roles[1].name"),
    ({"roles": (MAIN, RoleSpec(name="a,b"))}, "role_name", "roles[1].name"),
    ({"roles": (MAIN, MAIN)}, "role_duplicate", "roles[1].name"),
    ({"roles": (MAIN, RoleSpec(name="ps", replicas=0))}, "replicas", "roles[1].replicas"),
    ({"roles": (MAIN, RoleSpec(name="ps", replicas=10_000))}, "size", "size"),
    ({"image": None}, "image_required", "image"),
    ({"image": ""}, "image", "image"),
    ({"image": "UPPER"}, "image", "image"),
    ({"image": "a b"}, "image", "image"),
    ({"image": "http://a/b"}, "image", "image"),
    ({"image": "a;rm"}, "image", "image"),
    ({"image": "a" * 5000}, "image", "image"),
    ({"roles": (MAIN, RoleSpec(name="ps", image="X"))}, "image", "roles[1].image"),
    ({"command": ("",)}, "command", "command[0]"),
    ({"command": ("a", "b\0")}, "command", "command[1]"),
    ({"command": ("a",) * 5000}, "command", "command"),
    ({"command": ("a" * 200_000,)}, "command", "command"),
    ({"kind": "interactive"}, "interactive_command", "command"),
    ({"env": {"1A": ""}}, "env_key", "env"),
    ({"env": {"A=B": ""}}, "env_key", "env"),
    ({"env": {"A-B": ""}}, "env_key", "env"),
    ({"env": {"A\0": ""}}, "env_key", "env"),
    ({"env": {"": ""}}, "env_key", "env"),
    ({"env": {"A": "\0"}}, "env_value", "env.A"),
    ({"env": {"A": "x" * 129_000}}, "env_value", "env.A"),
    ({"env": {f"A{n}": "" for n in range(1_025)}}, "env", "env"),
    ({"env": {f"A{n}": "x" * 50_000 for n in range(6)}}, "env", "env"),
    ({"env": {"BACKENDAI_X": ""}}, "reserved_env", "env.BACKENDAI_X"),
    ({"env": {"PHALANX_ATTEMPT": "2"}}, "reserved_env", "env.PHALANX_ATTEMPT"),
    (
        {"roles": (MAIN, RoleSpec(name="ps", env={"PHALANX_X": ""}))},
        "reserved_env",
        "roles[1].env.PHALANX_X",
    ),
    ({"workdir": "here"}, "workdir", "workdir"),
    ({"workdir": "/a/../b"}, "workdir", "workdir"),
    ({"workdir": "/a\0"}, "workdir", "workdir"),
    ({"user": ""}, "user", "user"),
    ({"user": "-1"}, "user", "user"),
    ({"user": "4294967296"}, "user", "user"),
    ({"user": "a:b:c"}, "user", "user"),
    ({"mounts": mounts("/")}, "mount_not_allowed", "mounts[0].target"),
    ({"mounts": mounts("/proc/x")}, "mount_not_allowed", "mounts[0].target"),
    ({"mounts": mounts("/sys")}, "mount_not_allowed", "mounts[0].target"),
    ({"mounts": mounts("/dev/shm")}, "mount_not_allowed", "mounts[0].target"),
    ({"mounts": mounts("/opt/phalanx")}, "mount_not_allowed", "mounts[0].target"),
    ({"mounts": mounts("/run/phalanx/ssh")}, "mount_not_allowed", "mounts[0].target"),
    ({"mounts": mounts("/etc/hosts")}, "mount_not_allowed", "mounts[0].target"),
    ({"mounts": mounts("data")}, "mount_path", "mounts[0].target"),
    ({"mounts": mounts("/a/../b")}, "mount_path", "mounts[0].target"),
    ({"mounts": mounts("/a:ro")}, "mount_path", "mounts[0].target"),
    ({"mounts": mounts("/a/")}, "mount_path", "mounts[0].target"),
    ({"mounts": (Mount("~", "/a"),)}, "mount_path", "mounts[0].source"),
    ({"mounts": mounts("/a", "/b", "/a")}, "mount_duplicate", "mounts[2].target"),
    ({"mounts": mounts("/workspace"), "upload": DIGEST}, "mount_duplicate", "mounts"),
    ({"mounts": mounts(*(f"/m{n}" for n in range(65)))}, "mounts", "mounts"),
    ({"upload": "md5:1"}, "upload", "upload"),
    ({"resources": Resources(cpu=0)}, "cpu", "resources.cpu"),
    ({"resources": Resources(cpu=-1)}, "cpu", "resources.cpu"),
    ({"resources": Resources(cpu=0.0001)}, "cpu", "resources.cpu"),
    ({"resources": Resources(cpu=float("nan"))}, "cpu", "resources.cpu"),
    ({"resources": Resources(cpu=float("inf"))}, "cpu", "resources.cpu"),
    ({"resources": Resources(mem=3)}, "mem", "resources.mem"),
    ({"resources": Resources(mem=-1)}, "mem", "resources.mem"),
    ({"resources": Resources(mem="-1")}, "mem", "resources.mem"),
    ({"resources": Resources(mem="9e99")}, "mem", "resources.mem"),
    ({"resources": Resources(mem="0x10")}, "mem", "resources.mem"),
    ({"resources": Resources(mem="4 GBB")}, "mem", "resources.mem"),
    ({"resources": Resources(mem="1G", shm="2G")}, "shm", "resources.shm"),
    ({"resources": Resources(shm=0)}, "shm", "resources.shm"),
    ({"resources": Resources(gpu=-1)}, "gpu", "resources.gpu"),
    ({"resources": Resources(gpu="1.5")}, "gpu", "resources.gpu"),
    ({"resources": Resources(gpu=1_000_000)}, "gpu", "resources.gpu"),
    ({"resources": Resources(gpu=":1")}, "gpu", "resources.gpu"),
    ({"resources": Resources(pids=0)}, "pids", "resources.pids"),
    (
        {"roles": (MAIN, RoleSpec(name="ps", resources=Resources(cpu=0)))},
        "cpu",
        "roles[1].resources.cpu",
    ),
    ({"master_port": 80}, "master_port", "master_port"),
    ({"master_port": 65_536}, "master_port", "master_port"),
    ({"master_port": 2200}, "master_port", "master_port"),
    ({"time_limit_s": 0.0}, "time_limit", "time_limit_s"),
    ({"time_limit_s": 1e12}, "time_limit", "time_limit_s"),
    ({"time_limit_s": float("nan")}, "time_limit", "time_limit_s"),
    ({"grace_s": -1.0}, "grace", "grace_s"),
    ({"grace_s": 1e9}, "grace", "grace_s"),
    ({"priority": 10**9}, "priority", "priority"),
    ({"max_attempts": 0}, "max_attempts", "max_attempts"),
    ({"max_attempts": 1_001}, "max_attempts", "max_attempts"),
    ({"lost_after_s": 39.0}, "lost_after", "lost_after_s"),
    ({"lost_after_s": float("nan")}, "lost_after", "lost_after_s"),
    ({"warn_signal": "USR1"}, "warn_signal", "warn_signal"),
    ({"after": "demo"}, "after", "after"),
    ({"hold_on_failure_s": 0.0}, "hold_on_failure", "hold_on_failure_s"),
    ({"hold_on_failure_s": 1e9}, "hold_on_failure", "hold_on_failure_s"),
    ({"after": "afterok:a,"}, "after", "after"),
    ({"after": ",".join(["afterok:a"] * 101)}, "after", "after"),
    ({"warn_signal": "NOPE@90", "time_limit_s": 100.0}, "warn_signal", "warn_signal"),
    ({"warn_signal": "USR1@90"}, "warn_signal", "warn_signal"),
    ({"warn_signal": "USR1@90", "time_limit_s": 90.0}, "warn_signal", "warn_signal"),
    ({"warn_signal": "USR1@0", "time_limit_s": 90.0}, "warn_signal", "warn_signal"),
    ({"mode": "single-node", "spread": "one-per-node", "size": 2}, "spread", "spread"),
    ({"network": "host", "egress": False}, "egress", "egress"),
]


@pytest.mark.parametrize(
    ("fields", "code", "field"), MISTAKES, ids=[f"{m[1]}-{n}" for n, m in enumerate(MISTAKES)]
)
def test_a_mistake_is_refused_by_code_and_field(
    fields: dict[str, Any], code: str, field: str
) -> None:
    refusal = refused(**fields)

    assert (code, field) == (refusal.code, refusal.field)
    assert 400 <= refusal.status < 500
    assert refusal.title
    assert len(refusal.title) < 400


def test_what_is_left_out_is_filled_in() -> None:
    one = admitted(size=3)

    assert ("calm-otter-aa", "batch", 3, "pack", "default") == (
        one.spec.name,
        one.spec.kind,
        one.spec.size,
        one.spec.spread,
        one.spec.env_profile,
    )
    assert ("main1", "sub1", "sub2") == tuple(plan.host_name for plan in one.kernels)
    slots = one.kernels[0].slots
    assert (1000, 2 * GIB, 0, 4096) == (slots.cpu_milli, slots.mem_bytes, slots.gpu, slots.pids)


def test_one_container_gets_no_rendezvous_unless_asked_for() -> None:
    assert "none" == admitted(size=1).spec.env_profile
    assert "default" == admitted(size=1, env_profile="default").spec.env_profile


def test_under_slurm_a_container_is_a_node_unless_told_otherwise() -> None:
    found = [
        admitted(size=2, env_profile="slurm", **fields).spec.spread
        for fields in ({}, {"spread": "pack"}, {"mode": "single-node"})
    ]

    assert ["one-per-node", "pack", "pack"] == found


def test_a_warning_that_nothing_can_be_saved_by_is_told() -> None:
    wish = {"warn_signal": "USR1@90", "time_limit_s": 600.0}
    shared = (Mount("/shared", "/shared", read_only=False),)

    assert () == admitted(**wish, mounts=shared).warnings
    assert () == admitted(time_limit_s=600.0).warnings
    (told,) = admitted(**wish, mounts=(Mount("/data", "/data"),)).warnings
    assert "mount a folder that all hosts share" in told


def test_without_a_command_a_session_is_interactive() -> None:
    assert "interactive" == admitted(command=()).spec.kind
    assert "batch" == admitted(command=(), kind="batch").spec.kind


def test_several_nodes_are_spread_over() -> None:
    assert "spread" == admitted(size=2, mode="multi-node").spec.spread


@pytest.mark.parametrize(
    ("asked", "mem", "shm"),
    [
        (Resources(), 2 * GIB, GIB),
        (Resources(mem="8G"), 8 * GIB, 4 * GIB),
        (Resources(mem="512M"), GIB // 2, GIB // 2),
        (Resources(mem="4 GiB", shm="64m"), 4 * GIB, 64 << 20),
    ],
)
def test_shared_memory_is_the_larger_of_one_gib_and_half_of_memory_within_memory(
    asked: Resources, mem: int, shm: int
) -> None:
    plan = admitted(resources=asked).kernels[0]

    assert (mem, shm) == (plan.slots.mem_bytes, plan.shm_bytes)


def test_a_role_takes_from_its_session_what_it_leaves_out() -> None:
    one = admitted(
        env={"A": "session", "B": "session"},
        resources=Resources(cpu=2, mem="4G"),
        user="1000:1000",
        roles=(MAIN, RoleSpec(name="ps", env={"B": "role"}, resources=Resources(gpu="H200:2"))),
    )
    assert one.spec.roles is not None
    main, ps = one.spec.roles

    assert {"A": "session", "B": "role"} == ps.env
    assert ("busybox", ("true",), "1000:1000") == (ps.image, ps.command, ps.user)
    assert {"A": "session", "B": "session"} == main.env
    plan = one.kernels[1]
    assert (2000, 4 * GIB, 2, "h200") == (
        plan.slots.cpu_milli,
        plan.slots.mem_bytes,
        plan.slots.gpu,
        plan.gpu_model,
    )


def test_an_upload_gives_its_folder_as_the_default_workdir() -> None:
    one = admitted(upload=DIGEST)

    assert one.spec.roles is not None
    assert "/workspace" == one.spec.roles[0].workdir


@pytest.mark.parametrize(
    "image",
    [
        "busybox",
        "registry.example:5000/team/train_it:v1.2",
        "localhost/a",
        "ghcr.io/Org/x".lower(),
        "a@sha256:" + "0" * 64,
        "a:tag@sha256:" + "0" * 64,
    ],
)
def test_image_references_as_docker_knows_them_are_admitted(image: str) -> None:
    assert image == admitted(image=image).spec.image


def judged(**fields: Any) -> Admitted | Refusal:
    members = agents(agent("a", observed("a", cpu=4, gpus=2)), agent("b", observed("b", cpu=8)))
    return admit(spec(**fields), Limits(), members, "calm-otter-aa")


@pytest.mark.parametrize(
    "fields",
    [
        {"resources": Resources(cpu=9)},
        {"resources": Resources(cpu=5), "size": 2},
        {"resources": Resources(gpu=3)},
        {"resources": Resources(gpu="l4:1")},
        {"size": 13},
        {"size": 9, "mode": "single-node"},
        {"size": 3, "mode": "multi-node", "spread": "one-per-node"},
    ],
)
def test_what_all_agents_together_could_never_hold_is_refused_with_the_numbers(
    fields: dict[str, Any],
) -> None:
    refusal = judged(**fields)

    assert isinstance(refusal, Refusal)
    assert ("never_satisfiable", 422) == (refusal.code, refusal.status)
    assert any(character.isdigit() for character in refusal.title)


@pytest.mark.parametrize(
    "fields", [{"size": 12}, {"size": 2, "mode": "multi-node", "spread": "one-per-node"}]
)
def test_what_an_idle_cluster_could_hold_is_admitted(fields: dict[str, Any]) -> None:
    assert isinstance(judged(**fields), Admitted)


def test_nothing_is_never_satisfiable_while_an_agent_has_not_said_what_it_has() -> None:
    silent = agent("b", observed("b"))
    members = agents(agent("a", observed("a", cpu=1)), silent)
    members = {
        **members,
        silent.name: type(silent)(silent.name, silent.cluster, "k", silent.joined_at),
    }

    assert isinstance(
        admit(spec(resources=Resources(cpu=64)), Limits(), members, "calm-otter-aa"), Admitted
    )


def test_how_long_a_silence_a_session_bears_is_kept_with_it() -> None:
    def kept(**fields: Any) -> float | None:
        outcome = admit(spec(**fields), Limits(), {}, "calm-otter-aa", 120.0)
        assert isinstance(outcome, Admitted)
        return outcome.spec.lost_after_s

    assert (120.0, 900.0) == (kept(), kept(lost_after_s=900.0))
