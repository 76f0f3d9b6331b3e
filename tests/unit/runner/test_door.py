"""Who is let in at the ssh port: how many at a time, and over which addresses."""

from __future__ import annotations

from pathlib import Path

import pytest

from phalanx_runner import messages
from phalanx_runner.conf import RunnerConf
from phalanx_runner.messages import Exited, Ready, SshLog, Started
from tests.unit.runner.box import Box, Boxes

# A server that tells who it is, then stays until its client leaves.
SERVER = "#!/bin/sh\necho server $$\nexec cat >/dev/null\n"


async def start(box: Box) -> None:
    await box.wait(Ready)
    box.send(messages.start())
    await box.wait(Started)


@pytest.fixture
def server(boxes: Boxes) -> Path:
    """A program in the place of the ssh server."""
    path = boxes.bundle / "libexec" / "dropbear"
    path.write_text(SERVER)
    path.chmod(0o755)
    return path


FLOOD = """
import select, socket, sys
calls = [socket.create_connection((sys.argv[1], 2200)) for _ in range(1000)]
for call in calls:
    call.sendall(b"SSH-2.0-flood\\r\\n")
served, closed = [], 0
for call in calls:
    call.settimeout(15)
    try:
        said = call.recv(64)
    except ConnectionResetError:  # closed before it was read
        said = b""
    served += [call] if said.startswith(b"server") else []
    closed += not said
ping = socket.create_connection((sys.argv[1], 2200))
ping.sendall(b"PHXPING\\n")
answer = ping.recv(8).decode()
served[0].close()
while True:
    again = socket.create_connection((sys.argv[1], 2200))
    if again.recv(64).startswith(b"server"):
        break
print(len(served), closed, answer.strip())
"""


async def test_a_flood_of_connections_gets_no_more_servers_than_the_limit_and_does_not_last(
    boxes: Boxes, server: Path
) -> None:
    conf = RunnerConf("k1", ssh_limit=5, linger_s=0)
    async with boxes.open(conf, "python3", "-c", FLOOD, "127.0.0.1") as box:
        await start(box)
        log = await box.wait(SshLog)
        await box.wait(Exited)

        assert 0 == await box.code()
        assert "5 995 PHXPONG\n" == await box.output()
        assert "ssh: 5 servers run, no more may" == log.msg


CALL = """
import socket, sys
call = socket.create_connection((sys.argv[1], 2200))
call.sendall(sys.argv[2].encode())
print(call.makefile().readline().split()[0])
"""


@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
async def test_the_ssh_port_is_open_to_both_families(
    boxes: Boxes, server: Path, address: str
) -> None:
    conf = RunnerConf("k1", linger_s=0)
    async with boxes.open(conf, "python3", "-c", CALL, address, "SSH-2.0-x") as box:
        await start(box)

        assert 0 == await box.code()
        assert "server\n" == await box.output()


async def test_without_ipv6_the_ssh_port_is_open_to_ipv4(boxes: Boxes, server: Path) -> None:
    off = "echo 1 >/proc/sys/net/ipv6/conf/all/disable_ipv6"
    call = ("python3", "-c", CALL, "127.0.0.1", "SSH-2.0-x")
    async with boxes.open(RunnerConf("k1", linger_s=0), *call, before=off) as box:
        await start(box)

        assert 0 == await box.code()
        assert "server\n" == await box.output()


async def test_who_waits_for_the_server_to_speak_first_is_served_too(
    boxes: Boxes, server: Path
) -> None:
    call = ("python3", "-c", CALL, "127.0.0.1", "")
    async with boxes.open(RunnerConf("k1", linger_s=0), *call) as box:
        await start(box)

        assert 0 == await box.code()
        assert "server\n" == await box.output()


async def test_a_connection_that_says_nothing_and_goes_costs_no_server(
    boxes: Boxes, server: Path
) -> None:
    served = "/run/phalanx/served"
    server.write_text(f"#!/bin/sh\necho >>{served}\necho server\n")
    leave = "import socket; socket.create_connection(('127.0.0.1', 2200)).close()\n" * 3
    call = ("python3", "-c", leave + CALL, "127.0.0.1", "SSH-2.0-x")
    async with boxes.open(RunnerConf("k1", linger_s=0), *call) as box:
        await start(box)

        assert 0 == await box.code()
        assert "\n" == (box.material / "served").read_text()


async def test_a_session_begins_in_the_containers_folder_though_it_was_made_anew(
    boxes: Boxes, server: Path
) -> None:
    server.write_text("#!/bin/sh\necho $(pwd):$(ls)\n")
    anew = 'rm -r /run/w; mkdir /run/w; touch /run/w/new; cd /; exec python3 -c "$@"'
    command = ("sh", "-c", anew, "sh", CALL, "127.0.0.1", "SSH-2.0-x")
    conf = RunnerConf("k1", linger_s=0)
    async with boxes.open(conf, *command, before="mkdir /run/w; cd /run/w") as box:
        await start(box)

        assert 0 == await box.code()
        assert "/run/w:new\n" == await box.output()
