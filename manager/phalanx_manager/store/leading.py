"""Which of several managers leads: what the rest of the manager wants to know of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from phalanx_manager.store.port import Unavailable


class Deposed(Unavailable):
    """Another manager leads: nothing that this one has said since is in the database."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A manager that would lead.

    Attributes:
        holder: a name for people.
        url: where its API is, for clients that ask another; empty when it does not tell.
        server_key: the public half of the key by which agents know it.
    """

    holder: str
    url: str
    server_key: str


@dataclass(frozen=True, slots=True)
class Led:
    """Another manager leads.

    Attributes:
        holder: a name for people.
        url: where its API is; empty when it does not tell.
    """

    holder: str
    url: str


class Lease(Protocol):
    """The right to lead, which has to be renewed.

    Raises:
        Unavailable: from every call, when nobody can be asked.
    """

    async def take(self) -> int | Led:
        """Take the lead if nobody has it; the epoch, or who leads."""

    async def renew(self, epoch: int) -> bool:
        """Keep the lead; False when another has taken it."""

    async def give_back(self, epoch: int) -> None:
        """Let another have the lead at once."""
