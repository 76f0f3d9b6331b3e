"""Is a machine fit to be an agent? Facts in, findings out; pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final, Literal

import msgspec

from phalanx_wire import engine_modes

Verdict = Literal["good", "warning", "bad"]
MIN_API: Final = (1, 41)
MIN_DISK: Final = 5 << 30
MIN_NOFILE: Final = 65_536
MIN_NEIGHBOURS: Final = 4096
UNLIMITED: Final = -1


class Finding(msgspec.Struct, frozen=True):
    """One thing that was looked at.

    Attributes:
        text: what is so.
        hint: what to do; empty when there is nothing to do.
    """

    check: str
    verdict: Verdict
    text: str
    hint: str = ""


class Report(msgspec.Struct, frozen=True):
    """What `phalanx doctor -o json` prints."""

    fit: bool
    findings: tuple[Finding, ...]


class Facts(msgspec.Struct, frozen=True):
    """What was found on the machine.

    Attributes:
        engine: where the engine was asked.
        version, info: the engine's answers; empty with `engine_problem`.
        iptables, vxlan: what is wrong with them, or empty; None where only root can tell.
        runtime_fs: type of the file system below `runtime_dir`.
        bundle: where the runner's bundle is, or empty.
        missing: Python packages that the agent needs and that are not installed.
        free: path to free bytes.
        nofile, memlock: hard limits of the engine's process, UNLIMITED, or None if not known.
        neighbours: how many of all containers' neighbours the kernel remembers; None if not known.
    """

    root: bool
    engine: str
    engine_problem: str
    version: Mapping[str, Any]
    info: Mapping[str, Any]
    iptables: str | None
    vxlan: str | None
    ip_forward: bool
    runtime_dir: str
    runtime_fs: str
    bundle: str
    missing: tuple[str, ...]
    free: Mapping[str, int]
    nofile: int | None
    memlock: int | None
    neighbours: int | None = None


def judge(facts: Facts) -> Report:
    """Say what is good and what is not; a machine is fit when nothing is bad."""
    findings = (
        *_machine(facts),
        *_engine(facts),
        *_network(facts),
        *_installation(facts),
        *_limits(facts),
    )
    return Report(all(finding.verdict != "bad" for finding in findings), findings)


def _machine(facts: Facts) -> Iterator[Finding]:
    if facts.root:
        yield Finding("root", "good", "this is root")
    else:
        yield Finding(
            "root",
            "bad",
            "this is not root; an agent guards the host's firewall and makes keys for any user",
            "run it with sudo; on systemd the unit does that",
        )
    if facts.runtime_fs == "tmpfs":
        yield Finding("runtime folder", "good", f"{facts.runtime_dir} is in memory")
    else:
        yield Finding(
            "runtime folder",
            "bad",
            f"{facts.runtime_dir} would be on {facts.runtime_fs or 'an unknown file system'}; "
            "private keys must not touch a disk",
            "set runtime_dir to a folder on a tmpfs, e.g. below /run",
        )
    for path, free in facts.free.items():
        text = f"{path} has {free / (1 << 30):.1f} GiB free"
        if free >= MIN_DISK:
            yield Finding("disk", "good", text)
        else:
            yield Finding("disk", "warning", text, "images and logs need room: make some")


def _engine(facts: Facts) -> Iterator[Finding]:
    if facts.engine_problem:
        yield Finding(
            "engine",
            "bad",
            f"{facts.engine} does not answer: {facts.engine_problem}",
            "install Docker Engine (apt-get install docker.io) and start it, or name another "
            "with --engine",
        )
        return
    api = str(facts.version.get("ApiVersion", "0.0"))
    number = facts.version.get("Version", "?")
    if _numbers(api) >= MIN_API:
        yield Finding("engine", "good", f"Docker Engine {number}, API {api}")
    else:
        yield Finding(
            "engine",
            "bad",
            f"Docker Engine {number} speaks API {api}; 1.41 is the oldest that will do",
            "upgrade it to 20.10 or newer",
        )
    missing = [
        name
        for name, key in (("memory", "MemoryLimit"), ("pids", "PidsLimit"), ("cpu", "CpuCfsQuota"))
        if not facts.info.get(key)
    ]
    if missing:
        yield Finding(
            "cgroups",
            "bad",
            f"the engine can't limit {', '.join(missing)}",
            "use a kernel with these cgroup controllers; on a host: cgroup_enable=memory",
        )
    else:
        yield Finding("cgroups", "good", f"limits work (cgroup v{facts.info.get('CgroupVersion')})")
    mode = engine_modes.unsupported(facts.info.get("SecurityOptions") or ())
    if mode:
        yield Finding("engine mode", "bad", mode.text, mode.hint)
    yield _swarm(facts.info)


def _swarm(info: Mapping[str, Any]) -> Finding:
    swarm = info.get("Swarm") or {}
    state = swarm.get("LocalNodeState", "inactive")
    if info.get("LiveRestoreEnabled"):
        return Finding(
            "swarm",
            "warning",
            "live-restore is on, which excludes a swarm: no sessions over several hosts",
            'remove "live-restore" from /etc/docker/daemon.json if you want them',
        )
    match state:
        case "inactive":
            return Finding("swarm", "good", "in no swarm; Phalanx makes one when it needs it")
        case "active":
            return Finding(
                "swarm",
                "good",
                "in a swarm already; used as it is if all hosts are in the same one",
            )
        case _:
            return Finding(
                "swarm",
                "bad",
                f"its swarm is {state}: {swarm.get('Error') or 'no reason given'}",
                "docker swarm leave --force, if nothing else needs that swarm",
            )


def _network(facts: Facts) -> Iterator[Finding]:
    for name, problem, hint in (
        ("iptables", facts.iptables, "apt-get install iptables; in a container: --privileged"),
        ("vxlan", facts.vxlan, "modprobe vxlan; without it no sessions over several hosts"),
    ):
        if problem is None:
            yield Finding(name, "warning", "only root can tell whether it works", "run with sudo")
        elif problem:
            yield Finding(name, "bad" if name == "iptables" else "warning", problem, hint)
        else:
            yield Finding(name, "good", "works")
    if facts.ip_forward:
        yield Finding("forwarding", "good", "net.ipv4.ip_forward is on")
    else:
        yield Finding(
            "forwarding",
            "warning",
            "net.ipv4.ip_forward is off: containers have no way out",
            "sysctl -w net.ipv4.ip_forward=1 (the engine does it when it starts)",
        )
    if facts.neighbours is not None and facts.neighbours < MIN_NEIGHBOURS:
        yield Finding(
            "neighbours",
            "warning",
            f"the kernel remembers {facts.neighbours} neighbours of all containers together; "
            "32 containers of a session on this host need 1024",
            "sysctl -w net.ipv4.neigh.default.gc_thresh3=16384 (and gc_thresh2=8192)",
        )


def _installation(facts: Facts) -> Iterator[Finding]:
    if facts.missing:
        yield Finding(
            "packages",
            "bad",
            f"not installed: {', '.join(facts.missing)}",
            "pip install 'phalanx[agent]'",
        )
    else:
        yield Finding("packages", "good", "all Python packages of the agent are here")
    if facts.bundle:
        yield Finding("bundle", "good", f"the runner's bundle is at {facts.bundle}")
    else:
        yield Finding(
            "bundle",
            "bad",
            "the runner's bundle is missing",
            "in a checkout: make bundle; else install the wheel, which has it inside",
        )


def _limits(facts: Facts) -> Iterator[Finding]:
    raise_it = "systemctl edit docker, then [Service] LimitNOFILE=1048576 LimitMEMLOCK=infinity"
    if facts.nofile is None or facts.memlock is None:
        return
    if facts.nofile != UNLIMITED and facts.nofile < MIN_NOFILE:
        text = f"the engine may give containers only {facts.nofile} open files"
        yield Finding("nofile", "warning", text, raise_it)
    else:
        yield Finding("nofile", "good", f"{_limit(facts.nofile)} open files")
    if facts.memlock != UNLIMITED:
        text = f"the engine may give containers only {facts.memlock} bytes of locked memory"
        yield Finding("memlock", "warning", text, raise_it + " (RDMA needs it)")
    else:
        yield Finding("memlock", "good", "unlimited locked memory")


def _limit(value: int) -> str:
    return "unlimited" if value == UNLIMITED else str(value)


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".") if part.isdecimal())
