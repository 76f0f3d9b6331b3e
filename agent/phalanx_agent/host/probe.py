"""Looks at the guard from inside: a process in a network of its own, behind a bridge like a
session's, tries what no container may. What counts is what did not arrive, and that our rules
saw it.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from phalanx_agent.host.tools import ToolFailed, run

BRIDGE: Final = "phxprobe"
VXLAN_PORT: Final = 4789
_PORT_HERE, _PORT_THERE = "phxprobe0", "phxprobe1"
_OUT_HERE, _OUT_THERE = "phxprobe2", "phxprobe3"
_HOST, _GUEST = "192.0.2.1", "192.0.2.2"  # of a block for documentation: nobody routes it
_OUTSIDE, _BEYOND = "203.0.113.2", "203.0.113.1"  # likewise; the way there leads to nobody
_WITHIN_S: Final = 15.0

_GUEST_PROGRAM: Final = """
import json, socket, subprocess, sys, time
print("ready", flush=True)
port, link, host, guest, beyond, vxlan = json.loads(sys.stdin.readline())
for words in (f"addr add {guest}/30 dev {link}", f"link set {link} up",
              f"route add default via {host}"):
    subprocess.run(["ip", *words.split()], check=True)
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagrams:
    # A new bridge forwards only after a while; no firewall holds back that addresses are found.
    for _ in range(500):
        datagrams.sendto(b"phalanx", (host, port))
        with open("/proc/net/arp") as table:
            if any(row.split()[:3:2] == [host, "0x2"] for row in table):
                break
        time.sleep(0.01)
    else:
        sys.exit("the bridge carries nothing")
    for target in ((host, port), (beyond, vxlan)):
        datagrams.sendto(b"phalanx", target)
with socket.socket() as stream:
    stream.settimeout(0.3)
    print(json.dumps(stream.connect_ex((host, port)) == 0), flush=True)
"""


@asynccontextmanager
async def _bridge() -> AsyncIterator[None]:
    """A bridge as a session's, with a port whose other end is still ours."""
    await _clear()
    try:
        await run(
            "ip",
            "-batch",
            "-",
            stdin=f"link add {BRIDGE} type bridge\n"
            f"link add {_PORT_HERE} type veth peer name {_PORT_THERE}\n"
            f"link set {_PORT_HERE} master {BRIDGE}\n"
            f"addr add {_HOST}/30 dev {BRIDGE}\n"
            f"link add {_OUT_HERE} type veth peer name {_OUT_THERE}\n"
            f"addr add {_OUTSIDE}/30 dev {_OUT_HERE}\n"
            + "".join(
                f"link set {link} up\n" for link in (_PORT_HERE, BRIDGE, _OUT_HERE, _OUT_THERE)
            ),
        )
        yield
    finally:
        await _clear()


async def _clear() -> None:
    for link in (_PORT_HERE, _OUT_HERE, BRIDGE):
        with contextlib.suppress(ToolFailed):  # not there
            await run("ip", "link", "del", link)


async def reached() -> tuple[str, ...]:
    """Try to reach this host from behind a bridge of ours; also sends VXLAN to beyond, for the
    rules' counters to show. Empty when all was held back.

    Raises:
        ToolFailed: the attempt itself could not be made.
    """
    with (
        socket.socket() as stream,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagrams,
    ):
        stream.bind(("0.0.0.0", 0))  # noqa: S104 - as open as a careless service would be
        stream.listen()
        datagrams.bind(stream.getsockname())
        datagrams.setblocking(False)
        async with _bridge():
            connected = await _guest(stream.getsockname()[1])
        found = ["TCP"] if connected else []
        with contextlib.suppress(BlockingIOError):
            datagrams.recv(64)
            found.append("UDP")
        return tuple(found)


async def _guest(port: int) -> bool:
    """Run the guest; whether it could connect."""
    process = await asyncio.create_subprocess_exec(
        "unshare",
        "--net",
        sys.executable,
        "-I",
        "-c",
        _GUEST_PROGRAM,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(_WITHIN_S):
            assert process.stdout is not None  # noqa: S101 - it was asked for
            await process.stdout.readline()  # now it is in its own network
            await run("ip", "link", "set", _PORT_THERE, "netns", str(process.pid))
            order = json.dumps([port, _PORT_THERE, _HOST, _GUEST, _BEYOND, VXLAN_PORT])
            said, complaint = await process.communicate(f"{order}\n".encode())
    except TimeoutError as error:
        raise ToolFailed(f"the guard's probe did not end within {_WITHIN_S:.0f} s") from error
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode != 0:
        raise ToolFailed(f"the guard's probe failed: {complaint.decode(errors='replace')[-300:]}")
    return bool(json.loads(said))
