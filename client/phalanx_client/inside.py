"""One command in a container, its output collected: what `Client.exec` does."""

from __future__ import annotations

from dataclasses import dataclass

from phalanx_client.config import Manager


@dataclass(frozen=True, slots=True)
class Completed:
    """A command that has ended, with what it said."""

    exit_code: int
    stdout: bytes
    stderr: bytes

    @property
    def text(self) -> str:
        """Standard output as text; what is no UTF-8 is replaced."""
        return self.stdout.decode("utf-8", "replace")


@dataclass(frozen=True, slots=True)
class Inside:
    """Runs commands through one manager.

    Attributes:
        apart: on an event loop in a thread of its own, for callers that have none, or whose own
            belongs to somebody else, as in a notebook.
    """

    manager: Manager
    apart: bool = False

    async def run(self, ref: str, rank: int, command: tuple[str, ...], stdin: bytes) -> Completed:
        """Run it to its end.

        Raises:
            Refused: it could not be run, or was cut off.
            Unavailable: the manager can't be reached.
        """
        from phalanx_client import collect  # noqa: PLC0415 - slow, and only needed here

        running = collect.output_of(self.manager, ref, (rank, command), stdin)
        return Completed(*(collect.apart(running) if self.apart else await running))
