"""Fifty sessions of the soak; `make soak` runs a thousand."""

from __future__ import annotations

import pytest

from tests.real.failing import Site
from tests.soak.dice import OF_OURS
from tests.soak.soak import Soak

pytestmark = pytest.mark.real

SEED = 1


@pytest.mark.timeout(600)
def test_fifty_sessions_survive_their_bad_luck_and_leave_nothing(failing: Site) -> None:
    count = Soak(failing, 50, SEED, print, OF_OURS).run()

    assert count.is_clean, f"{count}\n" + "\n".join((*count.lost, *count.doubled, count.leaks))
    assert count.as_wished > count.sessions // 2
