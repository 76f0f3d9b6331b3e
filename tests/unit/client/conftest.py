from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest

from phalanx_client.__main__ import main
from tests.unit.client.fake_manager import TOKEN, FakeManager, Running


@dataclass(frozen=True)
class Outcome:
    code: int
    out: str
    err: str


Cli = Callable[..., Outcome]


@pytest.fixture
def manager() -> Iterator[FakeManager]:
    with Running(FakeManager()) as running:
        yield running


@pytest.fixture
def cli(
    manager: FakeManager,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path_factory: pytest.TempPathFactory,
) -> Cli:
    monkeypatch.setenv("PHALANX_URL", manager.url)
    monkeypatch.setenv("PHALANX_TOKEN", TOKEN)
    monkeypatch.setenv("PHALANX_CONFIG", str(tmp_path_factory.mktemp("none") / "config.toml"))
    monkeypatch.delenv("PHALANX_DEBUG", raising=False)

    def use(*argv: str) -> Outcome:
        monkeypatch.setattr(sys, "argv", ["phalanx", *argv])
        code = main()
        said = capsys.readouterr()
        return Outcome(code, said.out, said.err)

    return use
