from __future__ import annotations

from msgspec.structs import replace

from phalanx_client import machine
from phalanx_client.fitness import UNLIMITED, Facts, judge

GOOD = Facts(
    root=True,
    engine="unix:///var/run/docker.sock",
    engine_problem="",
    version={"Version": "20.10.24", "ApiVersion": "1.41"},
    info={"MemoryLimit": True, "PidsLimit": True, "CpuCfsQuota": True, "CgroupVersion": "2"},
    iptables="",
    vxlan="",
    ip_forward=True,
    runtime_dir="/run/phalanx-agent",
    runtime_fs="tmpfs",
    bundle="/bundle",
    missing=(),
    free={"/": 100 << 30},
    nofile=UNLIMITED,
    memlock=UNLIMITED,
    neighbours=16384,
)


def complaints(facts: Facts) -> list[tuple[str, str]]:
    return [(one.check, one.verdict) for one in judge(facts).findings if one.verdict != "good"]


def test_a_good_machine_is_fit() -> None:
    report = judge(GOOD)

    assert report.fit
    assert [] == complaints(GOOD)


def test_whatever_is_wrong_comes_with_what_to_do() -> None:
    wrong = replace(
        GOOD,
        root=False,
        engine_problem="no such file",
        iptables="iptables is not installed",
        vxlan="not supported",
        ip_forward=False,
        runtime_fs="ext4",
        bundle="",
        missing=("zmq",),
        free={"/": 1 << 30},
        nofile=1024,
        memlock=65536,
        neighbours=1024,
    )
    report = judge(wrong)

    assert not report.fit
    assert [
        ("root", "bad"),
        ("runtime folder", "bad"),
        ("disk", "warning"),
        ("engine", "bad"),
        ("iptables", "bad"),
        ("vxlan", "warning"),
        ("forwarding", "warning"),
        ("neighbours", "warning"),
        ("packages", "bad"),
        ("bundle", "bad"),
        ("nofile", "warning"),
        ("memlock", "warning"),
    ] == complaints(wrong)
    assert all(one.hint for one in report.findings if one.verdict != "good")


def test_an_old_engine_is_not_fit() -> None:
    old = replace(GOOD, version={"Version": "19.03", "ApiVersion": "1.40"})

    assert [("engine", "bad")] == complaints(old)


def test_an_engine_without_limits_is_not_fit() -> None:
    assert [("cgroups", "bad")] == complaints(replace(GOOD, info={**GOOD.info, "PidsLimit": False}))


def test_a_locked_swarm_is_not_fit_and_live_restore_is_a_warning() -> None:
    locked = {**GOOD.info, "Swarm": {"LocalNodeState": "locked"}}
    active = {**GOOD.info, "Swarm": {"LocalNodeState": "active"}}
    live = {**GOOD.info, "LiveRestoreEnabled": True}

    assert [("swarm", "bad")] == complaints(replace(GOOD, info=locked))
    assert [] == complaints(replace(GOOD, info=active))
    assert [("swarm", "warning")] == complaints(replace(GOOD, info=live))


def test_looking_without_an_engine_gives_the_reason(tmp_path: object) -> None:
    facts = machine.look(f"unix://{tmp_path}/none.sock", "/dev/shm/x", f"{tmp_path}/a/b")

    assert "No such file or directory" == facts.engine_problem
    assert "tmpfs" == facts.runtime_fs


def test_what_is_no_socket_is_refused() -> None:
    assert "write it as unix:///PATH" == machine.look("tcp://x", "/run", "/").engine_problem


def test_an_engine_in_a_mode_that_cannot_work_makes_a_machine_unfit() -> None:
    info = {**GOOD.info, "SecurityOptions": ["name=seccomp,profile=default", "name=userns"]}

    assert [("engine mode", "bad")] == complaints(replace(GOOD, info=info))
