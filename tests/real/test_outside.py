"""From outside a session: ssh through the manager, who may, and what stays of it."""

from __future__ import annotations

import errno
import os
import re
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.real.ground import ROOT, Ground, await_true, call, fresh_name
from tests.real.outside import Outside
from tests.real.screen import PROMPT, at_a_terminal

pytestmark = pytest.mark.real

LOGINS = 20


def as_(ground: Ground, scope: str) -> dict[str, str]:
    """The environment of a user of their own."""
    wish = {"name": fresh_name(), "scope": scope}
    return {**ground.env, "PHALANX_TOKEN": ground.http("POST", "/v1/tokens", wish).ok()["token"]}


# ---------------------------------------------------------------- ssh


def test_a_command_has_its_streams_its_code_and_the_containers_environment(
    outside: Outside,
) -> None:
    line = "echo $RANK of $WORLD_SIZE on $(hostname); echo err >&2; exit 37"

    told = outside.phalanx(f"{outside.name}/1", "--", line)
    env = outside.phalanx(f"{outside.name}/sub1", "--", "env").ok()

    assert (37, "1 of 2 on sub1\n", "err\n") == (told.code, told.out, told.err)
    assert {"RANK=1", "MASTER_ADDR=main1"} <= set(env.splitlines())


def test_without_a_terminal_it_takes_a_script(outside: Outside) -> None:
    told = outside.phalanx(outside.name, stdin="echo $RANK\nexit 4\n")

    assert (4, "0\n", "") == (told.code, told.out, told.err)


def test_a_terminal_has_its_size_and_its_signals(outside: Outside) -> None:
    script = "stty size; read word; stty size; sh -c 'echo up; sleep 60'; exit 9\n"
    argv = [sys.executable, "-m", "phalanx_client", "ssh", outside.name]
    with at_a_terminal(argv, outside.ground.env) as screen:
        screen.await_text(PROMPT)
        screen.type(script)
        screen.await_text(r"33 101\r\n")
        screen.resize(44, 111)
        screen.type("go\r")
        screen.await_text(r"44 111\r\n")
        screen.await_text(r"up\r\n")
        screen.type("\x03")
        screen.await_text(PROMPT)
        screen.type("exit 9\r")
        code = screen.ended()

    assert 9 == code


def test_plain_ssh_reaches_every_container_by_name_as_anybody(outside: Outside) -> None:
    names = {"main1": "main1", "sub1": "sub1"}

    told = {
        host: outside.run("ssh", f"{host}.{outside.name}", "hostname").ok().strip()
        for host in names
    }

    assert names == told
    assert "main1\n" == outside.run("ssh", f"who.ever@{outside.name}", "hostname").ok()


def test_a_host_that_shows_another_key_than_its_own_is_refused(outside: Outside) -> None:
    other = f"HostKeyAlias=sub1.{outside.name}"

    told = outside.run("ssh", "-o", other, f"main1.{outside.name}", "true")

    assert "Host key verification failed" in told.failed(255)


@pytest.mark.parametrize(
    ("target", "code", "sentence"),
    [("nosuch", 66, "there is no session"), ("{}/7", 66, "has no container '7'")],
)
def test_what_is_not_there_is_said(outside: Outside, target: str, code: int, sentence: str) -> None:
    assert sentence in outside.phalanx(target.format(outside.name), "--", "true").failed(code)


# ---------------------------------------------------------------- many, and what stays


def test_many_logins_at_once_leave_nothing_behind(outside: Outside) -> None:
    place = f"sub1.{outside.name}"
    outside.run("ssh", place, "true").ok()
    ports, before = listening(outside.ground), held(outside.ground)

    began = time.monotonic()
    with ThreadPoolExecutor(LOGINS) as pool:
        told = list(
            pool.map(lambda number: outside.run("ssh", place, f"echo {number}"), range(LOGINS))
        )
    print(f"{LOGINS} logins at once took {time.monotonic() - began:.1f} s")

    assert [f"{number}\n" for number in range(LOGINS)] == [done.out for done in told]
    assert_let_go(outside.ground, before)
    assert ports == listening(outside.ground)


def test_an_ssh_that_is_killed_leaves_nothing_behind(outside: Outside) -> None:
    place = f"sub1.{outside.name}"
    before = held(outside.ground)
    with outside.start("-tt", place, "echo up; sleep 1000") as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.kill()

    assert_let_go(outside.ground, before)
    await_true(
        "its command has ended",
        lambda: outside.run("ssh", place, "pgrep -f 'sleep 1000$'").out == "",
        10,
    )


def test_after_a_restart_of_the_agent_the_same_key_still_comes_in(outside: Outside) -> None:
    place = f"main1.{outside.name}"
    on = outside.ground.host(outside.ground.containers(outside.name)["main1"])
    before = outside.ground.lab.pid(f"agent-{on.index}")

    outside.ground.lab.fault("kill", f"agent-{on.index}")
    await_true(
        "it runs again",
        lambda: (
            outside.ground.lab.pid(f"agent-{on.index}") not in (0, before)
            and outside.run("ssh", place, "true").code == 0
        ),
    )
    keys = outside.run("ssh", place, "grep -c guest /run/phalanx/ssh/.ssh/authorized_keys").ok()

    assert "1\n" == keys


def held(ground: Ground) -> dict[str, int]:
    """How many descriptors and threads each of our daemons has."""
    found = {}
    for component in ("manager", *(f"agent-{host.index}" for host in ground.lab.hosts)):
        pid = ground.lab.pid(component)
        for what in ("fd", "task"):
            found[f"{component} {what}"] = len(os.listdir(f"/proc/{pid}/{what}"))
    return found


def open_files(ground: Ground, component: str) -> str:
    """What a daemon's descriptors are, and its connections, for whoever reads a failure."""
    pid = str(ground.lab.pid(component))
    files = call("ls", "-l", f"/proc/{pid}/fd").out
    lines = call("ss", "-xtpn").out.splitlines()
    return "\n".join([files, *(line for line in lines if f"pid={pid}," in line)])


def assert_let_go(ground: Ground, before: dict[str, int]) -> None:
    """Fail with what the daemons hold more than before, when they do not let it go in time: an
    agent keeps connections to its engine for a while.
    """
    deadline = time.monotonic() + 40
    while more := {
        what: count - before[what] for what, count in held(ground).items() if count > before[what]
    }:
        assert time.monotonic() < deadline, (more, open_files(ground, next(iter(more)).split()[0]))
        time.sleep(0.1)


def listening(ground: Ground) -> dict[str, set[str]]:
    """Where anybody listens, by host."""
    return {
        host.name: {
            line.split()[3] for line in ground.on_host(host, "ss", "-Hltn").ok().splitlines()
        }
        for host in ground.lab.hosts
    }


def test_the_units_power_is_enough_to_enter_a_container(tmp_path: Path) -> None:
    """The agent's unit, as setpriv would have it, and a container's user with no power at all."""
    unit = (ROOT / "deploy" / "systemd" / "phalanx-agent.service").read_text()
    names = [
        f"+{name.removeprefix('CAP_').lower()}"
        for line in unit.splitlines()
        if line.startswith("CapabilityBoundingSet=")
        for name in line.partition("=")[2].split()
    ]
    program = tmp_path / "enter.py"
    program.write_text(
        "import sys\nfrom phalanx_agent.host.inside import network_of\n"
        "with network_of(int(sys.argv[1])) as it, it.tcp_socket() as made:\n"
        "    made.setblocking(True)\n    print(made.connect_ex(('127.0.0.1', 7)))\n"
    )
    nobody = ("setpriv", "--reuid=12345", "--clear-groups", "--no-new-privs")
    waiting = f"ip link set lo up && exec {' '.join(nobody)} sh -c 'echo; exec sleep 60'"
    limited = ("setpriv", "--no-new-privs", f"--bounding-set=-all,{','.join(names)}")
    with subprocess.Popen(
        ["unshare", "--net", "sh", "-c", waiting], stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        told = call(*limited, sys.executable, str(program), str(process.pid))
        process.kill()

    assert f"{errno.ECONNREFUSED}\n" == told.ok()


# ---------------------------------------------------------------- who may, and any user


@pytest.mark.parametrize(("scope", "code"), [("user", 66), ("read-only", 77)])
def test_nobody_else_comes_in(outside: Outside, scope: str, code: int) -> None:
    env = as_(outside.ground, scope)
    phalanx = (sys.executable, "-m", "phalanx_client")

    told = [
        call(*phalanx, "ssh", outside.name, "--", "true", env=env),
        call(*phalanx, "ssh-proxy", f"{outside.name}/main1", env=env),
        call(*phalanx, "ssh-config", outside.name, env=env),
    ]
    plain = call(*outside.command("ssh", f"main1.{outside.name}", "true"), env=env)

    assert [code] * 3 == [done.code for done in told]
    assert 255 == plain.code


def test_a_key_that_was_never_sent_does_not_log_in(outside: Outside) -> None:
    key = outside.folder / "stranger"
    call("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)).ok()

    told = outside.run("ssh", "-o", f"IdentityFile={key}", "-o", "BatchMode=yes",
                       f"main1.{outside.name}", "true")  # fmt: skip

    assert 0 == told.code  # its configuration names the right key too
    only = outside.folder / "only"
    only.write_text(re.sub(r"IdentityFile .*", f"IdentityFile {key}", outside.config.read_text()))
    refused = call("ssh", "-F", str(only), "-o", "BatchMode=yes", f"main1.{outside.name}", "true",
                   env=outside.ground.env)  # fmt: skip
    assert "Permission denied" in refused.failed(255)


def test_it_works_for_a_user_that_the_image_has_never_heard_of_and_after_another_attempt(
    clean: Ground, tmp_path: Path
) -> None:
    with clean.created("-u", "12345:12345") as name:
        there = Outside(clean, name, tmp_path)
        first = there.run("ssh", name, "id -u; touch ~/mine && echo wrote").ok()
        clean.http("POST", f"/v1/sessions/{name}/requeue").ok()
        await_true(
            "the next attempt runs",
            lambda: (
                clean.http("GET", f"/v1/sessions/{name}").ok()["attempt"] == 2
                and clean.await_state(name, "running")["attempt"] == 2
            ),
        )
        second = there.run("ssh", name, "id -u").ok()

    assert ("12345\nwrote\n", "12345\n") == (first, second)


def test_on_a_hosts_own_network_every_container_is_reached_as_itself(
    clean: Ground, tmp_path: Path
) -> None:
    with clean.created("-N", "2", "--network", "host") as name:
        there = Outside(clean, name, tmp_path)
        told = [there.run("ssh", f"{host}.{name}", "echo $RANK").ok() for host in ("main1", "sub1")]

    assert ["0\n", "1\n"] == told


def test_a_session_that_does_not_run_is_said_to_be_so(clean: Ground) -> None:
    with clean.created() as name:
        pass
    clean.await_state(name, "cancelled")

    told = clean.phalanx("ssh", name, "--", "true").failed(65)

    assert "rank 0 (main1) is" in told
