"""Sessions on their hosts' own networks: names and ports instead of a network of their own."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from typing import Any

import pytest

from phalanx_lab import recipes
from tests.real.ground import ACROSS, PROGRAMS, Ground, await_true, documents, ranks
from tests.real.test_isolation import answering, program

pytestmark = pytest.mark.real

ON_HOSTS = ("--network", "host")
FOUR = ("main1", "sub1", "sub2", "sub3")


@pytest.fixture
def two_by_two(ground: Ground) -> tuple[str, ...]:
    """Options by which four ranks lie on two hosts, two on each."""
    memory = f"{ground.lab.plan.mem * 4 // 10}"
    spread = ("--mode", "multi-node", "--spread", "pack", "-c", "0.5", "-m", memory)
    return ("-N", "4", *ON_HOSTS, *spread, "--shm", "64M", "--upload", str(PROGRAMS))


def held(ground: Ground, session: str) -> set[tuple[str, int]]:
    """Agents and ports that a session's containers hold."""
    return {
        (kernel["agent"], kernel[port])
        for kernel in ground.show(session)["kernels"]
        for port in ("ssh_port", "service_port")
    }


@contextlib.contextmanager
def listening(ground: Ground, port: int) -> Iterator[None]:
    """Somebody else holds a port of every host."""
    with contextlib.ExitStack() as stack:
        for host in ground.lab.hosts:
            stack.enter_context(program(host.netns, "echo.py", str(port)))
        yield


def test_ranks_that_share_hosts_reach_each_other_by_name_with_ssh_and_torch(
    clean: Ground, two_by_two: tuple[str, ...]
) -> None:
    packages = ("-v", f"{recipes.site_ml(print)}:/site:ro", "-e", "PYTHONPATH=/site")
    script = (
        f"for name in {' '.join(FOUR)}; do ssh $name hostname; done; "
        "echo $(hostname) $MASTER_PORT; exec python3 ddp.py"
    )

    told = clean.run(*two_by_two, *packages, "--", "sh", "-c", script, timeout=180).ok()

    said = ranks(told)
    port = said[0][4].split()[1]
    assert 61000 <= int(port) <= 61039
    for rank, name in enumerate(FOUR):
        assert [*FOUR, f"{name} {port}"] == said[rank][:5]
    found = documents(told)
    assert [(0, 4, 10.0), (1, 4, 10.0), (2, 4, 10.0), (3, 4, 10.0)] == [
        (one["rank"], one["world"], one["sum"]) for one in found
    ]
    assert [True] * 4 == [one["equal"] for one in found]
    assert {str(clean.lab.plan.network)} == {one["subnet"] for one in found}


def test_mpirun_from_main_reaches_every_container_although_they_share_addresses(
    clean: Ground, two_by_two: tuple[str, ...]
) -> None:
    image = clean.lab.load("mpi")

    told = clean.run(
        *two_by_two, "-i", image, "--run-on", "main", "--", "mpirun", "python3", "mpi_sum.py",
        timeout=120,
    ).ok()  # fmt: skip

    assert [{"size": 4, "sum": 10, "hosts": list(FOUR)}] == documents(told)


def test_two_sessions_on_the_same_hosts_share_no_port_and_a_private_one_reaches_neither(
    clean: Ground,
) -> None:
    spread = ("--mode", "multi-node", "--spread", "one-per-node", "--upload", str(PROGRAMS))
    options = (*ON_HOSTS, *spread, "-N", "3")
    with clean.created(*options) as one, clean.created(*options) as other:
        mine, theirs = held(clean, one), held(clean, other)
        hosts = {kernel["agent"]: kernel["address"] for kernel in clean.show(one)["kernels"]}
        for kernel in clean.show(one)["kernels"]:
            server = f"exec python3 /workspace/echo.py {kernel['service_port']} >/tmp/e 2>&1 &"
            clean.inside(f"{one}/{kernel['host_name']}", "sh", "-c", server).ok()
        doors = [f"say:{hosts[agent]}:{port}" for agent, port in sorted(mine | theirs)]
        with clean.created(*spread, "-N", "3") as private:
            from_hosts = answering(clean, other, *doors)
            from_private = answering(clean, private, *doors)
        from_outside = clean.phalanx("ssh", f"{other}/sub2", "--", "hostname").ok()
        variables = clean.http("GET", f"/v1/sessions/{one}/env").ok()["ranks"][0]["variables"]

    assert (6, 6) == (len(mine), len(theirs))
    assert set() == mine & theirs
    assert [9, 9, 9] == [len(reached) for _rank, reached in sorted(from_hosts.items())]
    assert {} == from_private
    assert "sub2" == from_outside.strip()
    interface = [one["value"] for one in variables if one["name"] == "GLOO_SOCKET_IFNAME"]
    assert ["eth0"] == interface


def test_a_port_that_somebody_else_holds_is_named_and_nothing_is_left(clean: Ground) -> None:
    with listening(clean, 29555):
        done = clean.run(*ON_HOSTS, "-N", "2", *ACROSS, "--master-port", "29555", "--", "true")

    told = done.failed(125)
    assert re.search(r"rank 0 \(main1\) on agent host\d", told), told
    assert re.search(r"Port 29555 of the host is taken by python\S* \(pid \d+\)", told), told
    assert "--master-port" in told


def test_an_ssh_port_that_is_taken_after_the_container_was_made_is_told_by_its_runner(
    clean: Ground,
) -> None:
    late = clean.lab.hosts[-1].name
    agent = f"agent-{clean.lab.hosts[-1].index}"
    clean.lab.fault("stop", agent)
    try:
        name = clean.detached(*ON_HOSTS, "-N", "3", *ACROSS, "--", "true")
        made: dict[str, Any] = {}

        def two_are_made() -> bool:
            kernels = clean.http("GET", f"/v1/sessions/{name}").ok()["kernels"]
            made.update({one["agent"]: one for one in kernels if one["state"] == "created"})
            return len(made) == 2 and late not in made

        await_true("all but one are created and wait for it", two_are_made)
        host = clean.host(next(iter(made)))
        taken = str(made[host.name]["ssh_port"])
        with program(host.netns, "echo.py", taken):
            clean.lab.fault("cont", agent)
            ended = clean.await_state(name, "failed")
    finally:
        clean.lab.fault("cont", agent)

    said = f"on agent {host.name} has exited: The ssh port {taken} could not be opened: "
    assert f"{said}Address in use." in ended["reason"]


def test_a_container_on_its_hosts_network_takes_no_port_of_the_hosts_services(
    clean: Ground,
) -> None:
    take = (
        "import socket\n"
        "try: socket.create_server(('0.0.0.0', 85)); print('taken')\n"
        "except PermissionError: print('refused')\n"
    )

    told = clean.run(*ON_HOSTS, "--no-prefix", "--", "python3", "-c", take).ok()

    assert "refused" == told.strip()
