"""Lines that users send as public keys."""

from __future__ import annotations

import base64

import pytest

from phalanx_wire.ssh_key import KINDS, public_key


def line(kind: str, *parts: bytes) -> str:
    strings = (kind.encode(), *parts)
    data = b"".join(len(part).to_bytes(4, "big") + part for part in strings)
    return f"{kind} {base64.b64encode(data).decode()}"


GOOD = line("ssh-ed25519", bytes(32))


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_a_key_of_a_known_kind_is_taken_without_its_comment(kind: str) -> None:
    assert line(kind, b"half") == public_key(f"{line(kind, b'half')} me@laptop of mine")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "ssh-ed25519",
        "ssh-ed25519 ",
        "ssh-ed25519 !!!!",
        GOOD.replace("ssh-ed25519", "ssh-dss"),
        GOOD.replace("ssh-ed25519", "ssh-rsa"),
        GOOD[:-4],
        f"{GOOD}\n{GOOD}",
        f"{GOOD}\n",
        f'command="sh" {GOOD}',
        f"no-pty {GOOD}",
        f" {GOOD}",
        GOOD.replace(" ", "\t"),
        f"{GOOD} café",
        f"{GOOD} {'x' * 9000}",
        line("ssh-ed25519"),
        "ssh-ed25519 " + base64.b64encode(b"\xff\xff\xff\xff").decode(),
    ],
)
def test_what_is_no_plain_key_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="key"):
        public_key(text)
