"""What the guard makes of an agent that died as it set its rules. Needs root."""

from __future__ import annotations

import subprocess
import sys

import pytest

from phalanx_agent.host.guard import TO_HOST

ADDRESSES_OF_BOTH_KINDS = """
import asyncio, subprocess
from phalanx_agent.host.guard import Guard
subprocess.run(["mount", "-t", "sysfs", "sysfs", "/sys"], check=True)
subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
subprocess.run(["sysctl", "-q", "net.ipv4.ip_forward=1"], check=True)
asyncio.run(Guard().keep(["192.0.2.77", "2001:db8::77"]))
rules = subprocess.run(["iptables", "-S"], check=True, capture_output=True, text=True).stdout
print("-d 192.0.2.77/32" in rules)
"""

UNASKED_BRIDGE = """
import asyncio, subprocess
from pathlib import Path
from phalanx_agent.host.guard import Guard
asked = Path("/proc/sys/net/bridge/bridge-nf-call-iptables")
subprocess.run(["mount", "-t", "sysfs", "sysfs", "/sys"], check=True)
subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
subprocess.run(["sysctl", "-q", "net.ipv4.ip_forward=1"], check=True)
asked.write_text("0")
for links in ((), ("ip", "link", "add", "phxegress", "type", "bridge")):
    subprocess.run(links or ("true",), check=True)
    asyncio.run(Guard().keep([]))
    print("asked:", asked.read_text().strip())
"""
PROGRAM = """
import asyncio, subprocess
from phalanx_agent.host.guard import Guard, TO_HOST
from phalanx_agent.host import probe
def sh(*words):
    return subprocess.run(words, check=True, capture_output=True, text=True).stdout
sh("mount", "-t", "sysfs", "sysfs", "/sys")
sh("ip", "link", "set", "lo", "up")
sh("sysctl", "-q", "net.ipv4.ip_forward=1")
async def main():
    await Guard().keep(["192.0.2.77"])
    sh("iptables", "-I", "INPUT", "1", "-i", "phx+", "-j", TO_HOST)
    sh("ip", "link", "add", probe.BRIDGE, "type", "bridge")
    await Guard().keep(["192.0.2.77"])
    print(probe.BRIDGE in sh("ip", "link"), sh("iptables", "-S", "INPUT"))
asyncio.run(main())
"""

ENGINES_RULE = """
import asyncio, subprocess
from phalanx_agent.host.guard import Guard
def sh(*words):
    return subprocess.run(words, check=True, capture_output=True, text=True).stdout
def users(verb):
    sh("iptables", verb, "FORWARD", "-j", "DOCKER-USER")
async def main():
    sh("mount", "-t", "sysfs", "sysfs", "/sys")
    sh("ip", "link", "set", "lo", "up")
    sh("sysctl", "-q", "net.ipv4.ip_forward=1")
    sh("iptables", "-N", "DOCKER-USER")
    sh("iptables", "-A", "FORWARD", "-i", "other", "-j", "ACCEPT")
    for change in ("-I", "-I", "-A", "-A", "-D"):
        users(change)
        if change != "-I":
            await Guard().keep([])
            print(sh("iptables", "-S", "FORWARD").split("\\n")[1:-1])
asyncio.run(main())
"""
"""Twice at the top and once below, once at the top and once below, and not at all."""


FLUSHED = """
import asyncio, subprocess
from phalanx_agent.host import guard as house
from phalanx_agent.host.guard import Guard, GuardFailed
def sh(*words):
    return subprocess.run(words, check=True, capture_output=True, text=True).stdout
async def says(guard):
    try:
        await guard.keep([])
        print("'fine'")
    except GuardFailed as error:
        print(repr(str(error)))
def engine_starts():
    for chain in ("DOCKER-ISOLATION-STAGE-1", "DOCKER-USER"):
        sh("iptables", "-N", chain)
        sh("iptables", "-I", "FORWARD", "-j", chain)
    sh("iptables", "-I", "FORWARD", "-j", "DOCKER-USER")
async def main():
    sh("mount", "-t", "sysfs", "sysfs", "/sys")
    sh("ip", "link", "set", "lo", "up")
    sh("sysctl", "-q", "net.ipv4.ip_forward=1")
    house._ENGINE_SETS_S = 0.0
    guard = Guard()
    engine_starts()
    await says(guard)
    sh("iptables", "-I", "INPUT", "-j", "ACCEPT")
    await says(guard)
    await says(guard)
    sh("iptables", "-F")
    await says(guard)
    sh("iptables", "-F")
    sh("iptables", "-X")
    await says(guard)
    print([line for line in sh("iptables", "-S").splitlines() if "-i phx+" in line])
    engine_starts()
    await says(guard)
    print([line for line in sh("iptables", "-S").splitlines() if "-i phx+" in line])
asyncio.run(main())
"""
"""A firewall that lets all in stands before ours, then all is flushed, then the engine starts."""


@pytest.mark.real
def test_a_firewall_that_somebody_opens_or_flushes_keeps_work_away_until_it_is_well() -> None:
    argv = ["unshare", "--net", "--mount", sys.executable, "-c", FLUSHED]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)

    assert 0 == done.returncode, done.stderr
    well, opened, still, flushed, emptied, without, again, within = [
        line for line in done.stdout.splitlines() if "guard." not in line
    ]
    assert ["'fine'"] * 2 == [well, again]
    assert "reached this host" in opened
    assert opened == still
    assert "flushed this host's firewall" in flushed
    assert flushed == emptied
    hooks = ["-A INPUT -i phx+ -j PHALANX-INPUT", "-A FORWARD -i phx+ -j PHALANX-FORWARD"]
    assert str(hooks) == without
    assert str([hooks[0], "-A DOCKER-USER -i phx+ -j PHALANX-FORWARD"]) == within


FLUSHED_BEFORE = """
import asyncio, subprocess
from phalanx_agent.host import guard as house
from phalanx_agent.host.guard import Guard, GuardFailed
def sh(*words):
    return subprocess.run(words, check=True, capture_output=True, text=True).stdout
async def an_agent_begins():
    try:
        await Guard().keep([])
        print("fine")
    except GuardFailed as error:
        print(error)
async def main():
    sh("mount", "-t", "sysfs", "sysfs", "/sys")
    sh("ip", "link", "set", "lo", "up")
    sh("sysctl", "-q", "net.ipv4.ip_forward=1")
    house._ENGINE_SETS_S = 0.0
    await an_agent_begins()
    sh("iptables", "-t", "nat", "-N", "DOCKER")
    ports = "PREROUTING -m addrtype --dst-type LOCAL -j DOCKER".split()
    sh("iptables", "-t", "nat", "-A", *ports)
    sh("iptables", "-N", "DOCKER-FORWARD")
    sh("iptables", "-A", "FORWARD", "-j", "DOCKER-FORWARD")
    await an_agent_begins()
    sh("iptables", "-F")
    await an_agent_begins()
    sh("iptables", "-t", "nat", "-D", *ports)
    await an_agent_begins()
asyncio.run(main())
"""
"""An engine without rules; with them; its filter flushed; and told to set none any more."""


@pytest.mark.real
def test_a_firewall_flushed_before_the_agent_began_is_seen_and_an_engine_may_have_none() -> None:
    argv = ["unshare", "--net", "--mount", sys.executable, "-c", FLUSHED_BEFORE]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)

    assert 0 == done.returncode, done.stderr
    without, within, flushed, told = [x for x in done.stdout.splitlines() if "guard." not in x]
    assert ["fine"] * 3 == [without, within, told]
    assert "flushed this host's firewall" in flushed


UNTRACKED = """
import asyncio, subprocess
from phalanx_agent.host.guard import Guard
def rules():
    words = ["iptables-save", "-t", "raw"]
    saved = subprocess.run(words, check=True, capture_output=True, text=True).stdout
    print([line for line in saved.splitlines() if "PHALANX" in line])
async def main():
    subprocess.run(["mount", "-t", "sysfs", "sysfs", "/sys"], check=True)
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    subprocess.run(["sysctl", "-q", "net.ipv4.ip_forward=1"], check=True)
    for before in (["true"], ["true"], ["iptables", "-t", "raw", "-F"]):
        subprocess.run(before, check=True)
        await Guard().keep([])
        rules()
    await Guard().remove()
    rules()
asyncio.run(main())
"""
"""At first, again, after a flush, and when it leaves."""


@pytest.mark.real
def test_what_containers_of_one_session_say_to_each_other_is_not_tracked_by_the_host() -> None:
    argv = ["unshare", "--net", "--mount", sys.executable, "-c", UNTRACKED]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
    kept = [
        ":PHALANX-PRIVATE - [0:0]",
        "-A PREROUTING -i phx+ -j PHALANX-PRIVATE",
        "-A PHALANX-PRIVATE -i phxegress -j RETURN",
        "-A PHALANX-PRIVATE -m addrtype ! --dst-type LOCAL -j CT --notrack",
    ]

    said = [line for line in done.stdout.splitlines() if line.startswith("[")]
    assert ("", [*[str(kept)] * 3, "[]"]) == (done.stderr, said)


@pytest.mark.real
def test_what_an_agent_has_left_that_died_as_it_set_the_rules_is_put_right() -> None:
    argv = ["unshare", "--net", "--mount", sys.executable, "-c", PROGRAM]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)

    assert 0 == done.returncode, done.stderr
    assert ["False -P INPUT ACCEPT", f"-A INPUT -i phx+ -j {TO_HOST}"] == done.stdout.split("\n")[
        :2
    ]


@pytest.mark.real
def test_that_the_engine_asks_our_chain_is_so_exactly_once_and_before_all_else() -> None:
    argv = ["unshare", "--net", "--mount", sys.executable, "-c", ENGINES_RULE]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
    kept = "['-A FORWARD -j DOCKER-USER', '-A FORWARD -i other -j ACCEPT']"

    assert ([kept] * 3, "") == (lines_of_lists(done.stdout), done.stderr)


@pytest.mark.real
@pytest.mark.parametrize(
    ("program", "said"),
    [(ADDRESSES_OF_BOTH_KINDS, ["True"]), (UNASKED_BRIDGE, ["asked: 0", "asked: 1"])],
    ids=["a host with IPv6", "settings that were set anew"],
)
def test_the_rules_are_in_force_whatever_the_hosts_are_like(program: str, said: list[str]) -> None:
    argv = ["unshare", "--net", "--mount", sys.executable, "-c", program]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)

    assert ("", said) == (done.stderr, [x for x in done.stdout.splitlines() if "guard." not in x])


def lines_of_lists(text: str) -> list[str]:
    """The lines that are lists, without what is logged."""
    return [line for line in text.splitlines() if line.startswith("['")]
