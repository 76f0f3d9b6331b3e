"""The one line that lets an agent join: where the manager is, who it is, and a one-time key."""

from __future__ import annotations

import base64
import binascii
import re
from typing import Final

import msgspec

PREFIX: Final = "phxjoin1."
_MAX_CHARS: Final = 4096
_MAX_ADDRESSES: Final = 16
_ADDRESS: Final = re.compile(
    r"tcp://(\[[0-9A-Fa-f:.]{2,45}\]|[A-Za-z0-9]([A-Za-z0-9.-]{0,252}[A-Za-z0-9])?):[1-9][0-9]{0,4}"
)
_Z85_KEY: Final = re.compile(r"[0-9A-Za-z.\-:+=^!/*?&<>()\[\]{}@%$#]{40}")


class JoinToken(msgspec.Struct, frozen=True, array_like=True):
    """What a join token says.

    Attributes:
        addresses: `tcp://host:port` of the manager, the first that answers is used.
        server_key: the manager's public CURVE key, Z85.
        secret_key: the one-time secret CURVE key; its public half is known to the manager.
    """

    addresses: tuple[str, ...]
    server_key: str
    secret_key: str

    def __repr__(self) -> str:
        return f"JoinToken(addresses={self.addresses!r}, server_key={self.server_key!r})"


def is_address(text: str) -> bool:
    """Tell whether a text is a `tcp://host:port` that an agent can connect to."""
    return _ADDRESS.fullmatch(text) is not None and int(text.rpartition(":")[2]) < 1 << 16


def spell(token: JoinToken) -> str:
    """Write a token as one line without blanks."""
    return PREFIX + base64.urlsafe_b64encode(msgspec.msgpack.encode(token)).rstrip(b"=").decode()


def parse(text: str) -> JoinToken:
    """Read a token; blanks and line breaks that copying has left are ignored.

    Raises:
        ValueError: it is no join token; the sentence does not repeat the secret.
    """
    text = "".join(text[: _MAX_CHARS + 1].split())
    if not text.startswith(PREFIX) or len(text) > _MAX_CHARS:
        raise ValueError(
            f"a join token begins with {PREFIX!r} and is one line; "
            "`phalanx token create --agent` makes one"
        )
    body = text.removeprefix(PREFIX)
    try:
        raw = base64.b64decode(body + "=" * (-len(body) % 4), altchars=b"-_", validate=True)
        token = msgspec.msgpack.decode(raw, type=JoinToken)
    except (binascii.Error, msgspec.MsgspecError, ValueError) as error:
        raise ValueError("the join token is damaged; copy all of it, or make a new one") from error
    good = (
        0 < len(token.addresses) <= _MAX_ADDRESSES
        and all(is_address(address) for address in token.addresses)
        and _Z85_KEY.fullmatch(token.server_key) is not None
        and _Z85_KEY.fullmatch(token.secret_key) is not None
    )
    if not good:
        raise ValueError("the join token is damaged; copy all of it, or make a new one")
    return token
