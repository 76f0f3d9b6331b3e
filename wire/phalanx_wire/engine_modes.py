"""Ways to run an engine in which the runner's keys do not reach containers as they must.

The runner's material belongs to the container's user and to root. Where the engine shifts user ids,
or forbids containers what has no label of theirs, a container could not read its own keys, or the
ssh server would not trust them.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Unsupported:
    """A mode. `text` says what is so, `hint` what to do."""

    text: str
    hint: str


_MODES: Final = {
    "userns": Unsupported(
        "The engine shifts user ids (userns-remap), so that containers cannot read their keys.",
        'Remove "userns-remap" from /etc/docker/daemon.json and restart the engine, or use a '
        "host without it.",
    ),
    "rootless": Unsupported(
        "The engine is rootless: it can neither guard the host nor join hosts by a network.",
        "Use an engine that runs as root.",
    ),
    "selinux": Unsupported(
        "The engine labels containers for SELinux, so that they cannot read their keys.",
        'Set "selinux-enabled": false in /etc/docker/daemon.json and restart the engine.',
    ),
}


def unsupported(security_options: Iterable[str]) -> Unsupported | None:
    """Judge an engine's `SecurityOptions`, such as `name=seccomp,profile=default`."""
    for option in security_options:
        name = option.partition(",")[0].removeprefix("name=")
        if name in _MODES:
            return _MODES[name]
    return None
