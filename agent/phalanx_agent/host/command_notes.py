"""Which commands run beside the main ones: their engine's ids, as empty files in memory."""

from __future__ import annotations

import os
from pathlib import Path

from phalanx_agent.host.remains import ID

FOLDER = "x"


class CommandNotes:
    """The ids of this host's commands; the next process finds them again."""

    def __init__(self, runtime_dir: Path) -> None:
        """Make the folder.

        Args:
            runtime_dir: is in the host's memory: what it names ends with the host, too.

        Raises:
            OSError: it cannot be made.
        """
        self._folder = runtime_dir / FOLDER
        self._folder.mkdir(mode=0o700, exist_ok=True)

    def note(self, exec_id: str) -> None:
        """Note one; it is there when this returns.

        Raises:
            OSError: it cannot be noted.
        """
        if ID.fullmatch(exec_id) is None:
            raise ValueError(f"{exec_id[:80]!r} is no id of an engine")
        os.close(os.open(self._folder / exec_id, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600))

    def forget(self, exec_id: str) -> None:
        """Take a note away; gone already is fine."""
        (self._folder / exec_id).unlink(missing_ok=True)

    def noted(self) -> frozenset[str]:
        """List them; none where somebody has removed the folder."""
        try:
            names = os.listdir(self._folder)
        except FileNotFoundError:
            return frozenset()
        return frozenset(name for name in names if ID.fullmatch(name))
