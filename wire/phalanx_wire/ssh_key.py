"""What a public key of ssh looks like when a user sends one: nothing else gets into a file that
an ssh server reads.
"""

from __future__ import annotations

import base64
import binascii
from typing import Final

MAX_LINE: Final = 8192

KINDS: Final = frozenset(
    {
        "ssh-ed25519",
        "ssh-rsa",
        "ecdsa-sha2-nistp256",
        "ecdsa-sha2-nistp384",
        "ecdsa-sha2-nistp521",
        "sk-ssh-ed25519@openssh.com",
        "sk-ecdsa-sha2-nistp256@openssh.com",
    }
)


def public_key(line: str) -> str:
    """Read OpenSSH's one-line form, without options; give it back without its comment.

    Raises:
        ValueError: it is no such line; the sentence says why.
    """
    if len(line) > MAX_LINE:
        raise ValueError(f"a public key has at most {MAX_LINE} characters")
    if not line.isascii() or not line.isprintable():
        raise ValueError("a public key is one line of plain text")
    kind, _, rest = line.partition(" ")
    body = rest.split(" ", 1)[0]
    if kind not in KINDS:
        raise ValueError("a public key begins with its kind, e.g. ssh-ed25519")
    try:
        data = base64.b64decode(body, validate=True)
    except binascii.Error as error:
        raise ValueError("the second word of a public key is base64") from error
    name = kind.encode("ascii")
    if data[:4] != len(name).to_bytes(4, "big") or data[4 : 4 + len(name)] != name:
        raise ValueError(f"the key is not the {kind} that it says it is")
    if not _is_whole(data):
        raise ValueError("the key is cut off")
    return f"{kind} {body}"


def _is_whole(data: bytes) -> bool:
    """Tell whether it is strings to its end, each with its length before it; at least two."""
    place, count = 0, 0
    while place < len(data):
        place += 4 + int.from_bytes(data[place : place + 4], "big")
        count += 1
    return place == len(data) and count > 1
