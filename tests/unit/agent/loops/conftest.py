from __future__ import annotations

import pytest

from tests.support.fake_host import FakeHost


@pytest.fixture
def host() -> FakeHost:
    return FakeHost()
