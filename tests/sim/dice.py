"""All chance comes from one number: a stream of it for each part that draws."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import TypeVar

_T = TypeVar("_T")


class Dice:
    """One part's chance; what other parts draw does not change it."""

    def __init__(self, seed: int, part: str) -> None:
        self._random = random.Random(f"{seed}/{part}")  # noqa: S311 - no secret

    def chance(self, probability: float) -> bool:
        """Say yes as often as told, of 1."""
        return self._random.random() < probability

    def between(self, least: float, most: float) -> float:
        """Draw a number, all alike."""
        return self._random.uniform(least, most)

    def skewed(self, least: float, most: float) -> float:
        """Draw a number, mostly a small one: each order of magnitude is as likely as the next."""
        return float(least * (most / least) ** self._random.random())

    def whole(self, least: int, most: int) -> int:
        """Draw a whole number, both ends included."""
        return self._random.randint(least, most)

    def pick(self, things: Sequence[_T]) -> _T:
        """Draw one of several."""
        return self._random.choice(things)

    def some(self, things: Sequence[_T], count: int) -> list[_T]:
        """Draw several, each at most once; all of them when there are not more."""
        return self._random.sample(list(things), min(count, len(things)))

    def bytes(self, count: int) -> bytes:
        """Draw bytes."""
        return self._random.randbytes(count)
