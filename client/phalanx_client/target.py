"""How a container is named on the command line: SESSION/RANK or SESSION/HOST."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from phalanx_client.failure import BAD_INPUT, NOT_FOUND, USAGE, Failure
from phalanx_client.session import Client
from phalanx_wire.api import KernelView, SessionView, SshRank

C = TypeVar("C", KernelView, SshRank)


@dataclass(frozen=True, slots=True)
class Target:
    """What stood on the command line; an empty `inside` is the whole session or its main1."""

    ref: str
    inside: str


@dataclass(frozen=True, slots=True)
class Place:
    """A path: local with `target` None."""

    target: Target | None
    path: str


def parse(text: str) -> Target:
    """Read SESSION, SESSION/RANK or SESSION/HOST."""
    ref, slash, inside = text.partition("/")
    if not ref or (slash and not inside) or "/" in inside:
        raise Failure(
            f"{text!r} names no container; write SESSION, SESSION/RANK or SESSION/HOST", USAGE
        )
    return Target(ref, inside)


def parse_place(text: str) -> Place:
    """Read a local path, or SESSION[/RANK|/HOST]:/PATH; a `./` before makes any text local."""
    before, colon, path = text.partition(":")
    if not colon or before.startswith((".", "/")) or before.count("/") > 1 or not before:
        return Place(None, text)
    if not path.startswith("/"):
        raise Failure(
            f"{text!r}: a path in a container begins with /; for a local file write ./{text}", USAGE
        )
    return Place(parse(before), path)


async def find(client: Client, target: Target) -> tuple[SessionView, KernelView]:
    """The session and the one container that are meant; main1 when none is named."""
    view = await client.session(target.ref)
    return view, kernel_of(view, target.inside)


def kernel_of(view: SessionView, inside: str) -> KernelView:
    """The container of a session that a rank or host name means.

    Raises:
        Failure: the session has no such container.
    """
    if not view.kernels:
        raise Failure(f"session {view.name} is {view.state} and has no containers", BAD_INPUT)
    return pick(view.kernels, view.name, inside)


def pick(containers: Sequence[C], name: str, inside: str) -> C:
    """Of the containers of a session the one that a rank or host name means, or the first.

    Raises:
        Failure: there is no such container.
    """
    for one in containers:
        if inside in ("", str(one.rank), one.host_name):
            return one
    names = ", ".join(one.host_name for one in containers[:8])
    more = ", ..." if len(containers) > 8 else ""
    raise Failure(f"session {name} has no container {inside!r}; it has {names}{more}", NOT_FOUND)
