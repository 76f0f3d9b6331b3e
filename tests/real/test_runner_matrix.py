"""The runner in every kind of image, as every kind of user, however the container is hardened."""

from __future__ import annotations

import asyncio
import hashlib
import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest

from phalanx_lab.lab import Lab
from phalanx_runner import bundle, messages
from phalanx_runner.messages import Bye, Exited
from tests.real.runner_pair import (
    IMAGE_PATH,
    NETWORK,
    ODD,
    SUBNET,
    Pair,
    docker,
    pair,
    write_material,
)

pytestmark = pytest.mark.real

USERS = {"root": (0, 0), "1000:1000": (1000, 1000), "12345": (12345, 0)}
LOCKED = ("--cap-drop", "ALL", "--security-opt", "no-new-privileges")
HARDENINGS = {"plain": (), "read-only": ("--read-only",), "locked": ("--read-only", *LOCKED)}
COMMANDS = {"base": ("sleep", "1000"), "busybox": ("sleep", "1000"), "empty": ("/hold",)}
CASES = list(itertools.product(COMMANDS, USERS, HARDENINGS))
PROGRAM = "/opt/phalanx/libexec/dropbear"


@pytest.fixture(scope="module")
def engine() -> Iterator[str]:
    """An engine with the images and a network with fixed addresses."""
    with Lab.up("runner", 1, engines_only=True) as lab:
        for image in COMMANDS:
            lab.load(image)
        socket = lab.hosts[0].engine_socket
        made = asyncio.run(docker(socket, "network", "create", "--subnet", SUBNET, NETWORK))
        assert (0, "") == (made.returncode, made.stderr)
        yield socket


@pytest.mark.parametrize(("image", "user", "hardening"), CASES)
async def test_containers_reach_each_other_by_ssh_whatever_their_image(
    engine: str, tmp_path: Path, image: str, user: str, hardening: str
) -> None:
    uid, gid = USERS[user]
    write_material(tmp_path, (uid, gid))
    options = ("--user", f"{uid}:{gid}", *HARDENINGS[hardening], f"phalanx/{image}")
    async with pair(engine, bundle.locate(), tmp_path, options, COMMANDS[image]) as both:
        await codes_come_back(both, has_shell=image != "empty")
        await a_strange_host_key_is_refused(both)
        await files_arrive_whole(both)
        if image != "empty":
            await an_ssh_session_has_the_containers_environment(both)
            await a_terminal_is_one(both)
        await a_stop_ends_both(both)


async def codes_come_back(both: Pair, *, has_shell: bool) -> None:
    missing = await both.main_runs("ssh", "sub1", "/no/such/program")
    assert 127 == missing.returncode, missing.stderr
    if has_shell:
        chosen = await both.main_runs("ssh", "anybody@sub1", "exit 7")
        assert (7, "") == (chosen.returncode, chosen.stderr)


async def a_strange_host_key_is_refused(both: Pair) -> None:
    refused = await both.main_runs("ssh", "-o", "UserKnownHostsFile=/dev/null", "sub1", "true")
    assert 255 == refused.returncode
    assert "verification failed" in refused.stderr


async def files_arrive_whole(both: Pair) -> None:
    there = await both.main_runs("scp", "-q", PROGRAM, "sub1:/dev/shm/there")
    back = await both.main_runs("scp", "-q", "sub1:/dev/shm/there", "/dev/shm/back")
    assert [(0, ""), (0, "")] == [(there.returncode, there.stderr), (back.returncode, back.stderr)]
    listed = await both.main_runs("sftp", "-q", "-b", "-", "sub1", given="ls -l /dev/shm\n")
    size = (bundle.locate() / "libexec" / "dropbear").stat().st_size
    assert str(size) in listed.stdout, listed.stderr
    shown = await both.main_runs("ssh", "sub1", "sha256sum /dev/shm/there")
    if shown.returncode == 0:  # an empty image has no such program
        expected = hashlib.sha256((bundle.locate() / "libexec" / "dropbear").read_bytes())
        assert expected.hexdigest() == shown.stdout.split()[0]


async def an_ssh_session_has_the_containers_environment(both: Pair) -> None:
    shown = await both.main_runs("ssh", "sub1", "env")
    assert (0, "") == (shown.returncode, shown.stderr)
    assert "WORLD_SIZE=2\n" in shown.stdout
    assert "BACKENDAI_CLUSTER_HOST=sub1\n" in shown.stdout
    assert f"ODD={ODD}\n" in shown.stdout
    assert f"PATH=/opt/phalanx/first:{IMAGE_PATH}:/opt/phalanx/last\n" in shown.stdout
    assert "PHALANX" not in shown.stdout


async def a_terminal_is_one(both: Pair) -> None:
    shown = await both.main_runs("ssh", "-tt", "sub1", "tty")
    assert 0 == shown.returncode
    assert "/dev/pts/" in shown.stdout


async def a_stop_ends_both(both: Pair) -> None:
    for kernel in (both.main, both.sub):
        kernel.send(messages.stop(15, 2000))
    for kernel in (both.main, both.sub):
        exited, bye = await kernel.wait(Exited), await kernel.wait(Bye)
        waited = await both.docker("wait", f"{NETWORK}-{kernel.name}")
        assert exited.code == bye.code == int(waited.stdout)
