"""What docs/FRAMEWORKS.md tells its readers to type, so that the tests can do just that."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

PAGE = Path(__file__).parents[2] / "docs" / "FRAMEWORKS.md"
_BLOCK = re.compile(r"^```\w+\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Recipe:
    """One section of the page.

    Attributes:
        commands: each an argument list.
        files: their texts by name, which is in a comment in their first line.
    """

    commands: tuple[tuple[str, ...], ...]
    files: dict[str, str]

    def write(self, folder: Path) -> None:
        """Make its files."""
        for name, text in self.files.items():
            (folder / name).write_text(text)


def recipes() -> dict[str, Recipe]:
    """All sections with a command, by their titles."""
    found = {}
    for section in PAGE.read_text().split("\n## ")[1:]:
        title, _, text = section.partition("\n")
        commands: list[tuple[str, ...]] = []
        files = {}
        for block in _BLOCK.findall(text):
            first = block.partition("\n")[0]
            if first.startswith("# "):
                files[first.removeprefix("# ")] = block
            else:
                whole = block.replace("\\\n", " ")
                commands += [tuple(shlex.split(line)) for line in whole.splitlines()]
        if commands:
            found[title] = Recipe(tuple(commands), files)
    return found
