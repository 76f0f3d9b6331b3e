from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.support.fake_host import FakeHost
from tests.unit.agent.loops import asking


@pytest.fixture
def host() -> FakeHost:
    return FakeHost()


@pytest.fixture(scope="session")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return asking.built(tmp_path_factory.mktemp("ask"))


@pytest.fixture
async def container(tmp_path: Path, programs: Path) -> AsyncIterator[asking.Site]:
    async with asking.site(tmp_path, programs) as it:
        with it.asks.door(asking.KERNEL, tmp_path):
            yield it
