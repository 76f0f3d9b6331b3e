"""Which files of a folder an upload leaves out: `.phalanxignore`, in the manner of `.gitignore`."""

from __future__ import annotations

import re
from dataclasses import dataclass

FILE = ".phalanxignore"
DEFAULT = (
    ".git/",
    ".hg/",
    ".venv/",
    "venv/",
    "node_modules/",
    "__pycache__/",
    "*.pyc",
    ".mypy_cache/",
    ".pytest_cache/",
    ".ruff_cache/",
)
"""What is left out where the folder has no `.phalanxignore` of its own."""


@dataclass(frozen=True, slots=True)
class Rule:
    """One line of the file.

    Attributes:
        keep: the line began with `!`: it takes back what earlier lines left out.
        folders_only: the line ended with `/`.
    """

    pattern: re.Pattern[str]
    keep: bool
    folders_only: bool


def rules(lines: list[str] | tuple[str, ...]) -> tuple[Rule, ...]:
    """Read the lines of an ignore file; comments and empty lines count for nothing."""
    return tuple(
        _rule(line.strip()) for line in lines if line.strip() and not line.strip().startswith("#")
    )


def ignored(path: str, *, folder: bool, by: tuple[Rule, ...]) -> bool:
    """Tell whether the last rule that matches leaves a path out.

    Args:
        path: relative to the folder, with `/`.
        folder: the path is one.
        by: in the order of the file.
    """
    verdict = False
    for rule in by:
        if (folder or not rule.folders_only) and rule.pattern.fullmatch(path):
            verdict = not rule.keep
    return verdict


def _rule(line: str) -> Rule:
    keep = line.startswith("!")
    line = line.removeprefix("!")
    folders_only = line.endswith("/")
    line = line.rstrip("/")
    anchored = "/" in line
    body = _expression(line.lstrip("/"))
    return Rule(re.compile(body if anchored else f"(?:.*/)?{body}"), keep, folders_only)


def _expression(glob: str) -> str:
    """A glob as a regular expression: `*` and `?` stop at a slash, `**` does not."""
    found = []
    for part in re.findall(r"\*\*/|\*\*|\*|\?|\[[^\]/]+\]|.", glob):
        match part:
            case "**/":
                found.append("(?:.*/)?")
            case "**":
                found.append(".*")
            case "*":
                found.append("[^/]*")
            case "?":
                found.append("[^/]")
            case _ if part.startswith("[") and len(part) > 1:
                found.append("[" + part[1:-1].replace("!", "^", 1).replace("\\", "\\\\") + "]")
            case _:
                found.append(re.escape(part))
    return "".join(found)
