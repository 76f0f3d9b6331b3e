"""Through ssh from outside a session: files, folders, much of it, and ports."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shlex
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.real.ground import await_true, call
from tests.real.outside import Outside, by_socks, read_all
from tests.support.ports import free_port

pytestmark = pytest.mark.real

MEGABYTE = 1 << 20


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


# ---------------------------------------------------------------- copies


def test_files_go_by_scp_and_sftp_and_come_back(outside: Outside) -> None:
    sent = outside.folder / "sent"
    sent.write_bytes(os.urandom(5 * MEGABYTE))
    there = f"sub1.{outside.name}:/tmp/by-scp"

    outside.run("scp", "-q", str(sent), there).ok()
    outside.run("scp", "-q", there, str(outside.folder / "back")).ok()
    batch = f"get /tmp/by-scp {outside.folder}/fetched\nput {sent} /tmp/by-sftp\n"
    outside.run("sftp", "-q", "-b", "-", f"sub1.{outside.name}", stdin=batch).ok()
    sum_there = outside.run("ssh", f"sub1.{outside.name}", "sha256sum /tmp/by-sftp").ok()

    expected = [digest(sent)] * 3
    assert expected == [
        digest(outside.folder / "back"), digest(outside.folder / "fetched"), sum_there.split()[0],
    ]  # fmt: skip


def test_a_folder_goes_by_rsync_and_comes_back(outside: Outside) -> None:
    """The image has no rsync, so it gets this machine's, with the libraries that it needs."""
    place = f"main1.{outside.name}"
    linked = call("ldd", "/usr/bin/rsync").ok()
    libraries = [word for word in linked.split() if word.startswith("/lib") and "/ld-" not in word]
    outside.run("ssh", place, "mkdir /tmp/tools").ok()
    outside.run("scp", "-q", "/usr/bin/rsync", *libraries, f"{place}:/tmp/tools").ok()
    tree, back = outside.folder / "tree", outside.folder / "tree-back"
    (tree / "below").mkdir(parents=True)
    for number in range(4):
        (tree / "below" / f"{number} of 4").write_bytes(os.urandom(MEGABYTE))
    rsync = ["rsync", "-a", "-e", shlex.join(outside.command("ssh"))]
    rsync += ["--rsync-path", "LD_LIBRARY_PATH=/tmp/tools /tmp/tools/rsync"]

    call(*rsync, f"{tree}/", f"{place}:/tmp/tree/", env=outside.ground.env).ok()
    call(*rsync, f"{place}:/tmp/tree/", f"{back}/", env=outside.ground.env).ok()

    assert hashes(tree) == hashes(back)


def hashes(tree: Path) -> dict[str, str]:
    return {str(path.relative_to(tree)): digest(path) for path in tree.rglob("*") if path.is_file()}


def test_much_passes_quickly(outside: Outside) -> None:
    place, size = f"main1.{outside.name}", 64 * MEGABYTE
    blob = outside.folder / "blob"
    blob.write_bytes(os.urandom(MEGABYTE) * (size // MEGABYTE))
    figures = {}
    for way, line in (("up", "cat >/tmp/blob"), ("down", "cat /tmp/blob")):
        began = time.monotonic()
        with open(blob, "rb") as source, open(outside.folder / "out", "wb") as out:
            done = subprocess.run(
                outside.command("ssh", place, line), check=False, timeout=100,
                stdin=source if way == "up" else subprocess.DEVNULL, stdout=out,
                env={**os.environ, **outside.ground.env},
            )  # fmt: skip
        assert 0 == done.returncode
        figures[way] = size / MEGABYTE / (time.monotonic() - began)
    outside.run("ssh", place, "rm /tmp/blob").ok()
    print({way: f"{speed:.0f} MB/s" for way, speed in figures.items()})

    assert digest(blob) == digest(outside.folder / "out")


# ---------------------------------------------------------------- forwards


ANSWER = (
    "import socket; s = socket.create_server(('127.0.0.1', 0)); "
    "print(s.getsockname()[1], flush=True)\n"
    "while True:\n    c, _ = s.accept(); c.sendall(b'I am ' + socket.gethostname().encode()); "
    "c.close()"
)


@contextlib.contextmanager
def answering(outside: Outside, place: str) -> Iterator[int]:
    """A program in a container that listens on its loopback; its port."""
    with outside.start(place, f"exec python3 -c {shlex.quote(ANSWER)}") as process:
        assert process.stdout is not None
        yield int(process.stdout.readline())
        outside.run("ssh", place, "pkill -f create_server").ok()


def heard(port: int) -> str:
    """What is said at a port of this machine."""
    with socket.create_connection(("127.0.0.1", port), 10) as connection:
        return read_all(connection)


def accepts(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def through_socks(proxy: int, port: int) -> str:
    """What is said at a port of a container's loopback."""
    with by_socks(proxy, port) as connection:
        return read_all(connection)


def test_ssh_forwards_ports_also_over_a_connection_that_is_shared(outside: Outside) -> None:
    place, ours, proxy = f"sub1.{outside.name}", free_port(), free_port()
    control = f"ControlPath={outside.folder}/master"
    with answering(outside, place) as port:
        master = outside.start(
            "-N", "-o", "ControlMaster=yes", "-o", control, "-D", str(proxy),
            "-L", f"{ours}:127.0.0.1:{port}", place,
        )  # fmt: skip
        with master:
            await_true("ssh listens", lambda: accepts(ours) and accepts(proxy))
            told = (heard(ours), through_socks(proxy, port))
            began = time.monotonic()
            shared = outside.run("ssh", "-o", control, place, "hostname").ok()
            print(f"a command over the shared connection took {time.monotonic() - began:.2f} s")
            outside.run("ssh", "-o", control, "-O", "exit", place).ok()

    assert ("I am sub1", "I am sub1", "sub1\n") == (*told, shared)


def test_phalanx_forwards_a_port_without_ssh(outside: Outside) -> None:
    place = f"sub1.{outside.name}"
    with answering(outside, place) as port:
        process = outside.ground.start("forward", f"{outside.name}/1", f"0:{port}")
        with process:
            assert process.stdout is not None
            said = process.stdout.readline()
            ours = int(said.split()[0].rpartition(":")[2])
            told = [heard(ours) for _time in range(3)]
            process.send_signal(signal.SIGINT)
            code = process.wait(10)

    assert (["I am sub1"] * 3, 0) == (told, code)
