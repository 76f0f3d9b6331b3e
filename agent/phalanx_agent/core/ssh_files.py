"""The texts in a kernel's material directory that let containers know and reach each other.

All of them are made from the gang: addresses and public keys of all members, in rank order.
Session hosts have a grammar without special characters (`names.split_host_name`), addresses and
keys come from the manager and the agents, so nothing here needs quoting.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Final

from phalanx_wire.control import Member
from phalanx_wire.names import MATERIAL_MOUNT

MAX_GUESTS: Final = 32
AUTHORIZED_KEYS: Final = "ssh/.ssh/authorized_keys"
_OWN: Final = f"{MATERIAL_MOUNT}/ssh"
_GUEST: Final = "guest"
"""The comment that tells a key from outside the session from a peer's, which has none."""


def hosts(members: Sequence[Member], own_rank: int) -> str:
    """Spell `/etc/hosts`: the own name first among the session's, so that it is what the own
    address is called backwards.
    """
    own = [member for member in members if member.rank == own_rank]
    others = [member for member in members if member.rank != own_rank]
    lines = ["127.0.0.1 localhost", "::1 localhost ip6-localhost ip6-loopback"]
    lines += [f"{member.address} {member.host_name}" for member in (*own, *others)]
    lines += ["::ffff:127.0.0.1 localhost"]
    return _text(lines)


def hostfile(members: Sequence[Member]) -> str:
    """Spell the file that `mpirun --hostfile` reads."""
    return _text(f"{member.host_name} slots={member.slots}" for member in members)


def known_hosts(members: Sequence[Member]) -> str:
    """Spell whom ssh trusts: every member's host key under all names that it is called by."""
    shared = _shared(members)
    return _text(
        f"{_names(member, shared)} {member.host_key}" for member in members if member.host_key != ""
    )


def authorized_keys(members: Sequence[Member], before: str = "") -> str:
    """Spell who may come in: every member's user key, and the guests of the text before."""
    peers = [member.user_key for member in members if member.user_key != ""]
    return _text([*peers, *_guests(before)])


def with_guest(text: str, key: str) -> str:
    """Let a key of somebody outside the session in too; one that is there changes nothing. Beyond
    MAX_GUESTS the oldest goes: it comes again with its owner's next connection.

    Args:
        text: what `authorized_keys` has spelled.
        key: as `ssh_key.public_key` gives it.
    """
    line = f"{key} {_GUEST}"
    guests = _guests(text)
    if line in guests:
        return text
    peers = [one for one in text.splitlines() if one not in guests]
    return _text([*peers, *[*guests, line][-MAX_GUESTS:]])


def _guests(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.endswith(f" {_GUEST}")]


def ssh_config(members: Sequence[Member], user: str) -> str:
    """Spell the configuration that our own `ssh` is started with; it logs in as `user`."""
    return _text([*_session_hosts(members, user), "Match all", "Include ~/.ssh/config"])


def ssh_dropin(members: Sequence[Member], user: str) -> str:
    """Spell the same for the image's own client, which reads it as a system-wide file, where an
    `Include` of a home directory is an error that stops it.
    """
    return _text(_session_hosts(members, user))


def _session_hosts(members: Sequence[Member], user: str) -> list[str]:
    shared = _shared(members)
    by_port: dict[int, list[str]] = {}
    for member in members:
        by_port.setdefault(member.ssh_port, []).extend(_called(member, shared))
    lines = []
    if len(by_port) > 1:  # the first that fits counts, so what differs comes first
        for port, names in by_port.items():
            lines += [f"Host {' '.join(names)}", f"    Port {port}"]
    lines.append(f"Host {' '.join(name for names in by_port.values() for name in names)}")
    if len(by_port) == 1:
        lines.append(f"    Port {next(iter(by_port))}")
    return [
        *lines,
        f"    User {user}",
        f"    IdentityFile {_OWN}/id_ed25519",
        "    IdentitiesOnly yes",
        f"    UserKnownHostsFile {_OWN}/known_hosts",
        "    GlobalKnownHostsFile /dev/null",
        "    StrictHostKeyChecking yes",
        "    UpdateHostKeys no",
        "    LogLevel ERROR",
    ]


def _shared(members: Sequence[Member]) -> frozenset[str]:
    """Find the addresses of several members: those of hosts, on the hosts' own network."""
    counts = Counter(member.address for member in members)
    return frozenset(address for address, count in counts.items() if count > 1)


def _called(member: Member, shared: frozenset[str]) -> list[str]:
    """By what names a member is meant: by its address too, unless others share it."""
    unclear = member.address in shared or not member.address
    return [member.host_name] if unclear else [member.host_name, member.address]


def _names(member: Member, shared: frozenset[str]) -> str:
    """A client asks for `[name]:port`, or for the bare name where a HostKeyAlias is set."""
    plain = _called(member, shared)
    full = [name for name in (member.host_name, member.address) if name]
    return ",".join([*plain, *(f"[{name}]:{member.ssh_port}" for name in full)])


def _text(lines: Iterable[str]) -> str:
    return "".join(f"{line}\n" for line in lines)
