from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_ssh_private_key,
)

from phalanx_agent.host import keys


def test_openssh_reads_the_private_half_and_says_the_public_one(tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.touch(0o600)
    for _ in range(5):
        key = keys.fresh()
        file.write_bytes(key.openssh())

        told = subprocess.run(
            ["ssh-keygen", "-y", "-P", "", "-f", str(file)],
            check=True, capture_output=True, text=True, timeout=30,
        )  # fmt: skip

        assert key.public == told.stdout.rstrip()


def test_what_is_written_is_what_the_library_would_write() -> None:
    key = keys.fresh()
    read = load_ssh_private_key(key.openssh(), None)
    theirs = read.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption())
    public = read.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH)

    assert key.public == public.decode()
    assert [len(line) for line in theirs.splitlines()] == [
        len(line) for line in key.openssh().splitlines()
    ]
    assert theirs.splitlines()[:2] == key.openssh().splitlines()[:2]  # random numbers come later


def test_an_agent_does_not_load_what_would_cost_it_a_megabyte() -> None:
    look = "import sys, phalanx_agent.__main__; print(*sys.modules, sep='\\n')"
    loaded = subprocess.run(
        [sys.executable, "-c", look], check=True, capture_output=True, text=True, timeout=60
    ).stdout.split()

    unwanted = {"cryptography.hazmat.primitives.serialization", "aiohttp.web", "yaml", "sqlite3"}
    assert set() == unwanted & set(loaded)
