"""Names of things that never change: sessions, kernels, agents."""

from __future__ import annotations

import re
from typing import Final, NewType

SessionId = NewType("SessionId", str)
"""Twelve characters of `a-z2-7`, made by the manager; part of every name on the engines."""

KernelId = NewType("KernelId", str)
"""`<session id>-<attempt>-<rank>`, unique for ever: a retry is a new kernel."""

AgentId = NewType("AgentId", str)
"""The name of a host's agent, given when it joins; the grammar of a host name."""

ClusterName = NewType("ClusterName", str)
"""The name of a pool of agents."""

_KERNEL: Final = re.compile(
    r"(?P<session>[a-z2-7]{12})-(?P<attempt>[1-9][0-9]{0,5})-(?P<rank>0|[1-9][0-9]{0,5})"
)
_ALPHABET: Final = "abcdefghijklmnopqrstuvwxyz234567"


def session_id(entropy: bytes) -> SessionId:
    """Spell fresh randomness as a session id.

    Args:
        entropy: at least 12 random bytes; five bits of each are used.
    """
    assert len(entropy) >= 12  # noqa: S101 - a caller's mistake, not an input
    return SessionId("".join(_ALPHABET[byte & 31] for byte in entropy[:12]))


def kernel_id(session: SessionId, attempt: int, rank: int) -> KernelId:
    """Name the kernel of one rank in one attempt (counted from 1)."""
    return KernelId(f"{session}-{attempt}-{rank}")


def split_kernel_id(kernel: KernelId) -> tuple[SessionId, int, int]:
    """Take a kernel id apart into session, attempt and rank.

    Raises:
        ValueError: the text is no kernel id.
    """
    match = _KERNEL.fullmatch(kernel)
    if match is None:
        raise ValueError(f"{kernel[:80]!r} is not a kernel id")
    return SessionId(match["session"]), int(match["attempt"]), int(match["rank"])
