from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from phalanx_agent.docker.engine import DockerEngine
from tests.support.scripted_engine import Script, scripted


@pytest.fixture
async def engine(tmp_path: Path) -> AsyncIterator[tuple[Script, DockerEngine]]:
    async with scripted(tmp_path) as (script, docker):
        yield script, docker


@pytest.fixture
def script(engine: tuple[Script, DockerEngine]) -> Script:
    return engine[0]


@pytest.fixture
def docker(engine: tuple[Script, DockerEngine]) -> DockerEngine:
    return engine[1]
