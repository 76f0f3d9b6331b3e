"""The files that operators start from say everything, and nothing wrong."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest

from phalanx_agent import config as agent
from phalanx_agent.config import AgentConfig, AllowedMount, Capacity
from phalanx_manager import config as manager
from phalanx_manager.config import ManagerConfig
from phalanx_manager.core.model import Limits

FILES = Path(__file__).parents[3] / "deploy" / "config"


def document(name: str, *, with_comments: bool) -> dict[str, Any]:
    """The file as it is, or with every option that is commented out taken in."""
    text = (FILES / name).read_text()
    if with_comments:
        text = re.sub(r"^# (?=[a-z_]+ = |    |\])", "", text, flags=re.MULTILINE)
    return tomllib.loads(text)


def keys(found: dict[str, Any], prefix: str = "") -> Iterator[str]:
    for key, value in found.items():
        if isinstance(value, dict):
            yield from keys(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}"


def names(shape: type) -> set[str]:
    return {field.name for field in fields(shape)}


def test_the_managers_file_has_every_option() -> None:
    limits = {f"limits.{name}" for name in names(Limits)}

    assert (names(ManagerConfig) - {"limits"}) | limits == set(
        keys(document("manager.toml", with_comments=True))
    )


def test_the_agents_file_has_every_option() -> None:
    capacity = {f"capacity.{name.partition('_')[0]}" for name in names(Capacity)}

    assert (names(AgentConfig) - {"capacity", "mounts"}) | capacity | {"mounts.allow"} == set(
        keys(document("agent.toml", with_comments=True))
    )


def test_the_managers_file_as_it_is_changes_nothing() -> None:
    assert ManagerConfig() == manager.parse(document("manager.toml", with_comments=False))


def test_the_agents_file_as_it_is_changes_nothing() -> None:
    assert agent.parse({}) == agent.parse(document("agent.toml", with_comments=False))


def test_what_the_managers_file_shows_are_the_defaults() -> None:
    shown = manager.parse(document("manager.toml", with_comments=True))

    assert ManagerConfig().token_file == shown.token_file
    assert ManagerConfig() == replace(shown, advertise=(), admin_token_file=None)


def test_what_the_agents_file_shows_is_valid() -> None:
    shown = agent.parse(document("agent.toml", with_comments=True))
    own = agent.parse({})

    assert (AllowedMount("/data"), AllowedMount("/scratch", write=True)) == shown.mounts
    assert (own.state_dir, own.runtime_dir, own.engine) == (
        shown.state_dir, shown.runtime_dir, shown.engine,
    )  # fmt: skip


@pytest.mark.parametrize("name", ["manager.toml", "agent.toml"])
def test_every_option_has_a_word_before_or_after_it(name: str) -> None:
    bare = [
        line
        for before, line in zip(
            ["", *(FILES / name).read_text().splitlines()],
            (FILES / name).read_text().splitlines(),
            strict=False,
        )
        if re.match(r"# [a-z_]+ = ", line)
        and not before.startswith(("# ", "["))
        and "  # " not in line
    ]

    assert [] == bare
