"""All that people do with ssh, between containers of an image that makes it hard."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

import pytest
import pytest_asyncio
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from phalanx_lab import hostile
from tests.real.crew import Kernel, Wish, crew

pytestmark = [pytest.mark.real, pytest.mark.asyncio(loop_scope="module")]

HOSTS = ("main1", "sub1", "sub2")
COMMAND = (*hostile.ENTRYPOINT, *hostile.COMMAND)
# What the image's own ssh server says first; a runner's says another name.
BANNER = "SSH-2.0-OpenSSH"
LISTENS = "until (: </dev/tcp/127.0.0.1/{port}) 2>/dev/null; do sleep 0.02; done"

OVER_A_FORWARDED_PORT = f"""
ssh -fN -o ExitOnForwardFailure=yes -L 7001:sub2:22 sub1
{LISTENS.format(port=7001)}
head -c 15 </dev/tcp/127.0.0.1/7001
"""
BACK_OVER_A_REMOTE_PORT = """
ssh -R 7002:localhost:22 sub1 'head -c 15 </dev/tcp/127.0.0.1/7002'
"""
# SOCKS 5: no authentication; connect by name; the answer has ten bytes.
THROUGH_A_SOCKS_PROXY = f"""
ssh -fN -D 7003 sub1
{LISTENS.format(port=7003)}
exec 3<>/dev/tcp/127.0.0.1/7003
printf '\\5\\1\\0' >&3
head -c 2 <&3 >/dev/null
printf '\\5\\1\\0\\3\\4sub2\\0\\026' >&3
head -c 10 <&3 >/dev/null
head -c 15 <&3
"""
OVER_ANOTHER_HOST = "ssh -J sub1 sub2 'hostname; echo $SSH_CONNECTION' | head -c 5"
BY_ONE_CONNECTION = """
ssh -M -S /dev/shm/control -fN sub1
for i in 1 2 3; do ssh -S /dev/shm/control -o ProxyCommand=false sub1 "echo -n $i"; done
ssh -S /dev/shm/control -O exit sub1 2>/dev/null
"""
BY_THE_OLD_SCP = """
head -c 3000000 /dev/urandom >/tmp/old
scp -O -q /tmp/old sub1:/tmp/old2 && scp -O -q sub1:/tmp/old2 /tmp/old3 && cmp /tmp/old /tmp/old3
rm /tmp/old /tmp/old3; echo -n same
"""
BY_SFTP = """
head -c 3000000 /dev/urandom >/tmp/a
printf 'put /tmp/a /tmp/b\\nrename /tmp/b /tmp/c\\nget /tmp/c /tmp/d\\nrm /tmp/c\\n' |
    sftp -q -b - sub1 >/dev/null
cmp /tmp/a /tmp/d && rm /tmp/a /tmp/d && echo -n same
"""
WAYS = {
    "-L": (OVER_A_FORWARDED_PORT, BANNER),
    "-R": (BACK_OVER_A_REMOTE_PORT, BANNER),
    "-D": (THROUGH_A_SOCKS_PROXY, BANNER),
    "-J": (OVER_ANOTHER_HOST, "sub2\n"),
    "ControlMaster": (BY_ONE_CONNECTION, "123"),
    "scp -O": (BY_THE_OLD_SCP, "same"),
    "sftp": (BY_SFTP, "same"),
}
TWO_HUNDRED_MEGABYTES = """
mkdir -p /tmp/from/deep && head -c 200000000 /dev/urandom >/tmp/from/big
echo small >/tmp/from/deep/small; ln -s deep/small /tmp/from/link
rsync -a /tmp/from/ sub1:/tmp/to/ && rsync -a --checksum --dry-run -i /tmp/from/ sub1:/tmp/to/
cd /tmp/from && sha256sum big; ssh sub1 'cd /tmp/to && sha256sum big && cat link && rm -r /tmp/to'
rm -r /tmp/from
"""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def trio(
    runner_engine: str, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Mapping[str, Kernel]]:
    """Three containers of the image that has a will of its own, as the user that it wants; its ssh
    server is told to take our port, too.
    """
    options = ("-e", "SSHD_PORTS=22 2200")
    wishes = [
        Wish(name, "phalanx/hostile", COMMAND, (1000, 1000), options=options) for name in HOSTS
    ]
    async with crew(runner_engine, tmp_path_factory.mktemp("trio"), wishes) as kernels:
        for kernel in kernels.values():
            assert 0 == (await kernel.runs("bash", "-c", LISTENS.format(port=22))).returncode
        yield kernels


@pytest.mark.parametrize("way", WAYS)
async def test_whatever_ssh_can_do_works_between_containers(
    trio: Mapping[str, Kernel], way: str
) -> None:
    script, expected = WAYS[way]

    done = await trio["main1"].runs("bash", "-c", script)

    assert (0, expected) == (done.returncode, done.stdout), done.stderr


async def test_two_hundred_megabytes_go_by_rsync_unchanged(trio: Mapping[str, Kernel]) -> None:
    done = await trio["main1"].runs("bash", "-c", TWO_HUNDRED_MEGABYTES)

    assert (0, "") == (done.returncode, done.stderr)
    here, there, small = done.stdout.splitlines()
    assert here == there
    assert "small" == small


async def test_the_images_own_ssh_server_takes_nobody_from_the_runners(
    trio: Mapping[str, Kernel],
) -> None:
    log = await trio["sub1"].sh("cat /dev/shm/sshd-log")
    banners = await trio["main1"].runs(
        "bash", "-c", "head -c 15 </dev/tcp/sub1/22; echo; head -c 16 </dev/tcp/sub1/2200"
    )

    assert "Bind to port 2200 on 0.0.0.0 failed: Address already in use." in log
    assert [BANNER, "SSH-2.0-dropbear"] == banners.stdout.splitlines()


PrivateKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey
KINDS: dict[str, PrivateKey] = {
    "RSA": rsa.generate_private_key(65537, 2048),
    "ECDSA": ec.generate_private_key(ec.SECP256R1()),
    "Ed25519": ed25519.Ed25519PrivateKey.generate(),
}


@pytest.mark.parametrize("kind", KINDS)
async def test_a_users_own_key_opens_a_running_container_once_it_is_added(
    trio: Mapping[str, Kernel], kind: str
) -> None:
    key = KINDS[kind]
    private = key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()).decode()
    line = key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()
    put = await trio["main1"].runs("sh", "-c", "umask 077; cat >/dev/shm/own", given=private)
    login = (
        *("/usr/bin/ssh", "-F", "none", "-i", "/dev/shm/own", "-o", "IdentitiesOnly=yes"),
        *("-o", "UserKnownHostsFile=/run/phalanx/ssh/known_hosts", "-o", "BatchMode=yes"),
        *("-p", "2200", "me@sub1", "hostname"),
    )

    before = await trio["main1"].runs(*login)
    await asyncio.to_thread(add_line, trio["sub1"].folder / "ssh/.ssh/authorized_keys", line)
    after = await trio["main1"].runs(*login)

    assert 0 == put.returncode
    assert (255, True) == (before.returncode, "Permission denied" in before.stderr)
    assert (0, "sub1\n") == (after.returncode, after.stdout), after.stderr


def add_line(path: Path, line: str) -> None:
    """As the agent does it: whole, by another file's name."""
    fresh = path.with_name(".fresh")
    fresh.write_text(f"{path.read_text()}{line}\n")
    fresh.rename(path)
