"""A session reaches itself, and the outside if it may, and nothing else."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests.real.ground import ACROSS, PROGRAMS, Ground, ranks

pytestmark = pytest.mark.real

OUTSIDE = "198.51.100.7"
PORT = "8098"
SWARM = ("tcp:{}:2377", "tcp:{}:7946", "udp:{}:7946")
OWN = (f"say:{{}}:{PORT}", f"udp:{{}}:{PORT}")


@contextlib.contextmanager
def program(netns: str, name: str, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """Run one of our programs in a network namespace, from when it is ready until the end."""
    inside = ("ip", "netns", "exec", netns, sys.executable, str(PROGRAMS / name))
    with subprocess.Popen([*inside, *arguments], stdout=subprocess.PIPE, text=True) as running:
        try:
            assert running.stdout is not None
            assert "ready\n" == running.stdout.readline()
            yield running
        finally:
            running.kill()


@pytest.fixture
def outside(ground: Ground) -> Iterator[str]:
    """An address behind the hosts' gateway, with somebody who answers."""
    switch = ground.lab.plan.netns("sw")
    where = (f"{OUTSIDE}/32", "dev", "lo")
    subprocess.run(["ip", "-n", switch, "address", "add", *where], check=True)
    try:
        with program(switch, "echo.py", PORT, OUTSIDE):
            yield OUTSIDE
    finally:
        subprocess.run(["ip", "-n", switch, "address", "del", *where], check=True)


@pytest.fixture
def listening_hosts(ground: Ground) -> Iterator[None]:
    """Somebody on every host answers to whoever gets through."""
    with contextlib.ExitStack() as stack:
        for host in ground.lab.hosts:
            stack.enter_context(program(host.netns, "echo.py", PORT))
        yield


def answering(ground: Ground, session: str, *targets: str) -> dict[int, list[str]]:
    """The targets that answer to each container of a session, for those that any does."""
    probe = ("python3", "/workspace/probe.py", *targets)
    return ranks(ground.phalanx("exec", session, "--all", "--", *probe).ok())


def addresses(ground: Ground, place: str) -> dict[str, str]:
    """A container's addresses by interface."""
    told = ground.inside(place, "ip", "-4", "-o", "address").ok()
    words = [line.split() for line in told.splitlines()]
    return {one[1]: one[3].partition("/")[0] for one in words if one[1] != "lo"}


@pytest.mark.parametrize("where", [ACROSS, ("--mode", "single-node")], ids=["across", "one host"])
def test_two_sessions_at_once_do_not_reach_each_other(
    clean: Ground, where: tuple[str, ...]
) -> None:
    wanted = ("-N", "2", *where, "--upload", str(PROGRAMS))
    with clean.created(*wanted) as one, clean.created(*wanted) as other:
        here = clean.containers(one)
        for name in here:
            server = "exec python3 /workspace/echo.py 9000 >/tmp/echo 2>&1 &"
            clean.inside(f"{one}/{name}", "sh", "-c", server).ok()
        mine = {name: addresses(clean, f"{one}/{name}") for name in here}
        targets = [
            f"{kind}:{address}:9000"
            for found in mine.values()
            for address in found.values()
            for kind in ("say", "udp")
        ]
        private = [
            f"{kind}:{found['eth0']}:9000" for found in mine.values() for kind in ("say", "udp")
        ]

        assert [{"eth0", "eth1"}] * 2 == [set(found) for found in mine.values()]
        assert {0: private, 1: private} == answering(clean, one, *private)
        assert {} == answering(clean, other, *targets)


def test_a_session_reaches_neither_hosts_nor_the_swarm_nor_the_manager(
    clean: Ground, listening_hosts: None, outside: str
) -> None:
    hosts = [host.address for host in clean.lab.hosts]
    manager = clean.lab.plan.manager_address
    http = clean.lab.url.rpartition(":")[2]
    targets = [
        *(form.format(host) for host in hosts for form in (*SWARM, *OWN)),
        f"tcp:{manager}:7911", f"tcp:{manager}:{http}", f"tcp:169.254.169.254:{PORT}",
    ]  # fmt: skip

    from_a_host = clean.on_host(
        clean.lab.hosts[0], sys.executable, str(PROGRAMS / "probe.py"), *targets
    ).ok()
    assert {form.format(host) for host in hosts for form in OWN} <= set(from_a_host.split())
    assert {f"tcp:{host}:2377" for host in hosts[1:]} <= set(from_a_host.split())
    assert f"tcp:{manager}:7911" in from_a_host.split()

    with clean.created("-N", "2", *ACROSS, "--upload", str(PROGRAMS)) as name:
        gateways = {
            gateway
            for container in clean.containers(name)
            for gateway in gateways_of(clean, f"{name}/{container}")
        }
        near = [form.format(gateway) for gateway in sorted(gateways) for form in OWN]
        reached = answering(clean, name, *targets, *near, f"say:{outside}:{PORT}")

    assert len(gateways) >= 2
    assert {rank: [f"say:{outside}:{PORT}"] for rank in (0, 1)} == reached


def gateways_of(ground: Ground, place: str) -> list[str]:
    """First addresses of a container's networks: the host's own on each bridge."""
    listing = "import ipaddress, sys; print(*(ipaddress.ip_network(n)[1] for n in sys.argv[1:]))"
    routes = ground.inside(place, "ip", "-4", "route").ok().splitlines()
    networks = [line.split()[0] for line in routes if "/" in line.split()[0]]
    found = ground.inside(place, "python3", "-c", listing, *networks).ok().split()
    return found + [line.split()[2] for line in routes if line.startswith("default via")]


def test_a_forged_overlay_frame_does_not_leave_its_host(clean: Ground) -> None:
    send = (
        "import socket, sys\n"
        "out = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\n"
        "for _ in range(5): out.sendto(bytes(8) + sys.argv[2].encode(), (sys.argv[1], 4789))\n"
    )
    with clean.created("--mode", "single-node") as name:
        here = clean.host(clean.containers(name)["main1"])
        there = next(host for host in clean.lab.hosts if host != here)
        with program(there.netns, "sniff.py", "eth0", "forged", "honest") as tap:
            assert tap.stdout is not None
            clean.inside(f"{name}/main1", "python3", "-c", send, there.address, "forged").ok()
            clean.on_host(here, sys.executable, "-c", send, there.address, "honest").ok()

            assert ["honest\n"] * 5 == [tap.stdout.readline() for _ in range(5)]


def test_what_a_session_says_within_itself_takes_no_room_in_its_hosts_table_of_connections(
    clean: Ground,
) -> None:
    speak = (
        "import socket, sys\n"
        "one = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(50)]\n"
        "for out in one:\n"
        "    for port in range(20000, 20080): out.sendto(b'x', (sys.argv[1], port))\n"
    )
    count = ("cat", "/proc/sys/net/netfilter/nf_conntrack_count")
    with clean.created("-N", "2", "--mode", "single-node") as name:
        host = clean.host(clean.containers(name)["main1"])
        before = int(clean.on_host(host, *count).ok())
        clean.inside(f"{name}/main1", "python3", "-c", speak, "sub1").ok()
        after = int(clean.on_host(host, *count).ok())

    assert after - before < 400, "4000 pairs of ports were used"


@pytest.mark.parametrize("where", [ACROSS, ("--mode", "single-node")], ids=["across", "one host"])
def test_the_only_neighbour_on_the_way_out_is_the_gateway(
    clean: Ground, where: tuple[str, ...]
) -> None:
    seek = (
        "import socket\n"
        "for last in range(50, 250):\n"
        "    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as out:\n"
        "        out.sendto(b'x', (f'10.212.3.{last}', 9))\n"
        "rows = [line.split() for line in open('/proc/net/arp')][1:]\n"
        "print(*{row[0] for row in rows if row[5] == 'eth1'})\n"
    )

    said = ranks(clean.run("-N", "2", *where, "--", "python3", "-c", seek).ok())

    assert {0: ["10.212.0.1"], 1: ["10.212.0.1"]} == said


def test_a_container_has_a_bounded_part_of_its_hosts_terminals(clean: Ground) -> None:
    take = (
        "import os\n"
        "held = []\n"
        "try:\n"
        "    while len(held) < 500: held.append(os.open('/dev/ptmx', os.O_RDWR))\n"
        "except OSError: pass\n"
        "print(len(held), flush=True)\n"
    )

    for egress in ((), ("--no-egress",)):
        said = clean.run("--no-prefix", *egress, "--", "python3", "-c", take).ok()

        assert "128" == said.strip()


@pytest.mark.parametrize("mode", ["single-node", "multi-node"])
def test_the_way_out_is_there_unless_it_is_not_wanted(
    clean: Ground, outside: str, mode: str
) -> None:
    wanted = ("-N", "2", "--mode", mode, "--upload", str(PROGRAMS), "--", "sh", "-c")
    probe = f"python3 probe.py say:{outside}:{PORT} udp:{outside}:{PORT}; ip -o link | wc -l"

    on = clean.run(*wanted, probe).ok()
    off = clean.run("--no-egress", *wanted, probe).ok()

    answered = [f"say:{outside}:{PORT}", f"udp:{outside}:{PORT}", "3"]
    assert {0: answered, 1: answered} == ranks(on)
    assert {0: ["2"], 1: ["2"]} == ranks(off)


def test_a_container_has_no_raw_sockets_and_gains_no_privileges(clean: Ground) -> None:
    forge = (
        "import socket\n"
        "for family, kind, number in ((socket.AF_INET, socket.SOCK_RAW, 1),\n"
        "                             (socket.AF_PACKET, socket.SOCK_RAW, 0)):\n"
        "    try: socket.socket(family, kind, number); print('raw')\n"
        "    except PermissionError: print('refused')\n"
    )

    status = dict(
        line.partition(":\t")[::2]
        for line in clean.run("--no-prefix", "--", "cat", "/proc/self/status").ok().splitlines()
    )

    assert ["refused"] * 2 == clean.run("--no-prefix", "--", "python3", "-c", forge).ok().split()
    assert "1" == status["NoNewPrivs"]
    assert "2" == status["Seccomp"]
    net_raw, sys_admin, sys_ptrace = 13, 21, 19
    bounding = int(status["CapBnd"], 16)
    assert [0, 0, 0] == [bounding >> bit & 1 for bit in (net_raw, sys_admin, sys_ptrace)]
