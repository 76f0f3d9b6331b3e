"""Standing by, leading surely, and stepping down."""
# ruff: noqa: ARG002 - a double takes what its seam takes

from __future__ import annotations

import pytest

from phalanx_manager.loops.lead import LOOK_S, Hold, keep, win
from phalanx_manager.store.leading import Deposed, Led
from phalanx_manager.store.port import Unavailable
from tests.unit.manager.loops.conftest import HandClock

AWAY = Unavailable("the database", "does not answer", "look at it")


class Row:
    """A lease whose database answers as it is told, each after a second."""

    def __init__(self, clock: HandClock, *answers: int | Led | Unavailable) -> None:
        self.clock, self.answers = clock, list(answers)

    async def take(self) -> int | Led:
        self.clock.passed_s += 1
        answer = self.answers.pop(0)
        if isinstance(answer, Unavailable):
            raise answer
        return answer

    async def renew(self, epoch: int) -> bool:
        return bool(await self.take())

    async def give_back(self, epoch: int) -> None:
        return


async def test_who_cannot_renew_is_not_sure_for_longer_than_the_lease_lasts() -> None:
    clock, seen = HandClock(), []
    hold = Hold(clock, 6.0, 0.0)

    async def pause(seconds: float) -> None:
        seen.append((clock.passed_s, hold.since_s, hold.sure()))
        clock.passed_s += seconds

    with pytest.raises(Deposed):
        await keep(Row(clock, True, AWAY, AWAY, True, False), 1, hold, pause)

    assert [
        (0.0, 0.0, True),
        (3.0, 2.0, True),  # from when it was asked, not from the answer
        (6.0, 2.0, True),
        (9.0, 2.0, False),
        (12.0, 11.0, True),
    ] == seen


async def test_who_cannot_renew_says_so_and_why_until_it_can() -> None:
    clock, said = HandClock(), []
    hold = Hold(clock, 6.0, 0.0)

    async def pause(seconds: float) -> None:
        said.append(hold.trouble())
        clock.passed_s += seconds

    with pytest.raises(Deposed):
        await keep(Row(clock, AWAY, AWAY, True, False), 1, hold, pause)

    late = f"the lead was not renewed for 6 s: {AWAY}"
    assert ["", "", late, ""] == said


async def test_it_stands_by_until_nobody_leads_and_tells_each_reason_once() -> None:
    other, clock = Led("the other", "http://other"), HandClock()
    told: list[Led | Unavailable] = []
    paused: list[float] = []

    async def pause(seconds: float) -> None:
        paused.append(seconds)

    epoch = await win(Row(clock, other, other, AWAY, other, 7), told.append, pause)

    assert 7 == epoch
    assert [other, AWAY, other] == told
    assert [LOOK_S] * 4 == paused
