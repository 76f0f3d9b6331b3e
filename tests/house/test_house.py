"""Does the house stay tidy? Sizes, names, and documents that say what the code does."""

from __future__ import annotations

import ast
import re
import subprocess
from pathlib import Path

import pytest

from phalanx_wire.lifecycle import KernelState
from tests.house import blocking_twin, lifecycle_page

ROOT = Path(__file__).parents[2]
ROOMS = ("wire", "manager", "agent", "kernel-runner", "client", "deploy")
FORBIDDEN_NAMES = {"utils", "helpers", "common", "misc", "base", "types"}
FUNCTION_LINES = 60
FILE_LINES = 400
C_CORE_LINES = 800


def tracked(*patterns: str) -> list[Path]:
    listing = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", *patterns],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    )
    return [ROOT / line for line in listing.stdout.splitlines() if (ROOT / line).exists()]


SOURCES = [path for room in ROOMS for path in tracked(f"{room}/*.py")]


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_file_and_its_functions_stay_readable_at_one_sitting(path: Path) -> None:
    text = path.read_text()
    long = [
        f"{node.name}: {node.end_lineno - node.lineno + 1} lines"
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and node.end_lineno is not None
        and node.end_lineno - node.lineno + 1 > FUNCTION_LINES
    ]

    assert [] == long
    assert len(text.splitlines()) <= FILE_LINES


def test_the_c_core_stays_small() -> None:
    files = tracked("kernel-runner/src/*.c", "kernel-runner/src/*.h")
    core = [path for path in files if not {"ask", "task"} & {*path.parts}]

    assert sum(code_lines(path.read_text()) for path in core) < C_CORE_LINES


def code_lines(text: str) -> int:
    """Count lines that are neither empty nor comment."""
    bare = re.sub(r"/\*.*?\*/|//[^\n]*", "", text, flags=re.DOTALL)
    return sum(bool(line.strip()) for line in bare.splitlines())


def test_no_file_is_named_after_nothing() -> None:
    assert [] == [path for path in SOURCES if path.stem in FORBIDDEN_NAMES]


PUBLIC_LIBRARY = "phalanx_client"


def test_an_init_file_is_one_docstring_but_for_the_public_library() -> None:
    inits = [path for path in SOURCES if path.name == "__init__.py"]
    inits = [path for path in inits if path.parent.name != PUBLIC_LIBRARY]

    for path in inits:
        body = ast.parse(path.read_text()).body
        assert [ast.Expr] == [type(node) for node in body], path


def test_the_page_of_the_life_cycle_is_the_table() -> None:
    assert lifecycle_page.page() == lifecycle_page.PAGE.read_text()


def test_every_state_has_a_meaning() -> None:
    assert set(KernelState) == set(lifecycle_page.MEANING)


def test_links_between_documents_lead_somewhere() -> None:
    broken = [
        f"{page.relative_to(ROOT)} -> {target}"
        for page in tracked("*.md")
        for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text())
        if "://" not in target and not (page.parent / target).exists()
    ]

    assert [] == broken


def test_every_make_target_that_the_readme_names_exists() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    readme = (ROOT / "README.md").read_text()
    named = set(re.findall(r"(?:^|`)make ([a-z-]+)", readme, re.MULTILINE))

    assert set() == named - targets


def test_the_blocking_library_is_made_from_the_other() -> None:
    assert blocking_twin.source() == blocking_twin.TWIN.read_text()
