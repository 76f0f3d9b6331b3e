"""Who is at the other end: `Enrol` and `Hello`, judged."""

from __future__ import annotations

import asyncio
import re
from collections import deque
from dataclasses import dataclass, field
from typing import Final

import msgspec

from phalanx_manager.core.model import Refusal
from phalanx_manager.rpc.failure import Unavailable
from phalanx_manager.rpc.port import House, JoinKey, KeyDirectory, KnownAgent
from phalanx_wire.codec import decode
from phalanx_wire.control import PROTOCOL, Enrol, Enrolled, Hello, Refused, Welcome
from phalanx_wire.ids import AgentId
from phalanx_wire.names import is_session_name

_INCARNATION: Final = re.compile(r"[\x21-\x7e]{1,64}")
_Z85: Final = re.compile(r"[0-9A-Za-z.\-:+=^!/*?&<>()\[\]{}@%$#]{40}")
_REMEMBERED: Final = 16
_ANSWER_S: Final = 10.0


class _AnyGreeting(msgspec.Struct, frozen=True):
    """What greetings of all protocol versions have."""

    type: str
    protocol: int


@dataclass(frozen=True, slots=True)
class Admit:
    """The agent is who it says it is; `welcome` is the answer."""

    agent: AgentId
    incarnation: str
    version: str
    welcome: Welcome


@dataclass(slots=True)
class Incarnations:
    """Which processes of an agent have had their place taken; the newest ones are remembered."""

    current: str = ""
    past: deque[str] = field(default_factory=lambda: deque(maxlen=_REMEMBERED))

    def enter(self, incarnation: str) -> bool:
        """Let a process in; False for one whose place another has taken."""
        if incarnation in self.past:
            return False
        if self.current and self.current != incarnation:
            self.past.append(self.current)
        self.current = incarnation
        return True


async def answer(
    body: bytes | memoryview, key: str, directory: KeyDirectory, house: House
) -> Admit | Enrolled | Refused | None:
    """Judge the first words of a connection; None when they are no words at all. The key is the
    one that the handshake has proved, Z85.

    Raises:
        Unavailable: it cannot be told now whose key that is; the agent asks again.
    """
    try:
        async with asyncio.timeout(_ANSWER_S):
            return await _judge(body, key, directory, house)
    except TimeoutError as error:
        raise Unavailable("the database", f"it has not answered for {_ANSWER_S:g} s") from error


async def _judge(
    body: bytes | memoryview, key: str, directory: KeyDirectory, house: House
) -> Admit | Enrolled | Refused | None:
    other = _other_version(body)
    if other is not None:
        return Refused(
            "protocol_mismatch",
            f"the agent speaks protocol {other}, this manager {PROTOCOL}; "
            "install the same version of phalanx on both",
        )
    try:
        message = decode(body)
    except msgspec.MsgspecError:
        return None
    owner = await directory.who(key)
    match message, owner:
        case _, None:
            return Refused("unknown_key", "this key was revoked; join again with a new token")
        case Hello(), KnownAgent():
            return _hello(message, owner, house)
        case Enrol(), JoinKey():
            return await _enrol(message, key, directory, house)
        case Enrol(), KnownAgent():
            return Refused("already_enrolled", f"this key is {owner.name}'s; say hello with it")
        case Hello(), _:
            return Refused("enrol_first", "this key is of a join token; enrol with it")
        case _:
            return Refused("hello_first", "say hello on every new connection")


def _other_version(body: bytes | memoryview) -> int | None:
    try:
        greeting = msgspec.msgpack.decode(body, type=_AnyGreeting)
    except (msgspec.MsgspecError, RecursionError):
        return None
    is_greeting = greeting.type in {"Hello", "Enrol"}
    return greeting.protocol if is_greeting and greeting.protocol != PROTOCOL else None


def _hello(message: Hello, owner: KnownAgent, house: House) -> Admit | Refused:
    if message.name != owner.name:
        return Refused(
            "name_mismatch",
            f"this key is {owner.name}'s, not {message.name[:80]}'s; "
            "an agent keeps the name it joined with",
        )
    if _INCARNATION.fullmatch(message.incarnation) is None:
        return Refused("bad_hello", "an incarnation is 1 to 64 printable characters")
    welcome = Welcome(
        house.cluster_id, owner.cluster, house.heartbeat_s, house.egress_subnet, house.epoch
    )
    return Admit(owner.name, message.incarnation, message.version[:40], welcome)


async def _enrol(
    message: Enrol, key: str, directory: KeyDirectory, house: House
) -> Enrolled | Refused:
    if not is_session_name(message.name):
        return Refused(
            "bad_name",
            f"{message.name[:80]!r} cannot name an agent: lower case letters, digits and "
            "hyphens, at most 63, a letter or digit at both ends",
        )
    if _Z85.fullmatch(message.public_key) is None or message.public_key == key:
        return Refused("bad_key", "an agent enrols with a CURVE public key of its own")
    outcome = await directory.enrol(key, message.name, message.public_key)
    if isinstance(outcome, Refusal):
        return Refused(outcome.code, outcome.title + (f"; {outcome.hint}" if outcome.hint else ""))
    return Enrolled(outcome.name, house.cluster_id)
