"""A bug on purpose, in the place of a piece of production code."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Plant:
    """One bug.

    Attributes:
        places: (module or class, name in it).
        caught: words of the violation that it must cause.
        besides: rules that would refuse the bug, each (module or class, name in it, what takes its
            place).
    """

    bug: str
    places: tuple[tuple[Any, str], ...]
    instead: Any
    caught: str
    besides: tuple[tuple[Any, str, Any], ...] = ()

    @contextmanager
    def planted(self) -> Iterator[None]:
        """Have it in place."""
        swaps = (*((where, name, self.instead) for where, name in self.places), *self.besides)
        with ExitStack() as usual:
            for where, name, instead in swaps:
                usual.callback(setattr, where, name, vars(where)[name])
                setattr(where, name, instead)
            yield
