"""Command lines as SLURM's programs read them, which is getopt's way."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from phalanx_slurm.wrong import WrongError

Takes = Literal["", "value", "maybe"]
Given = dict[str, str]
"""What was given, by long names; a later one wins. A flag's value is empty."""
_ROW: Final = re.compile(r"(?P<long>[a-zA-Z0-9-]+)(?:/(?P<short>\w))?(?P<takes>=\??)?")


@dataclass(frozen=True, slots=True)
class Option:
    """An option; `maybe` takes a value only when it is written with `=`."""

    long: str
    short: str
    takes: Takes


class Options:
    """The options of one program, out of a table like `nodes/N= hold/H exclusive=?`."""

    def __init__(self, *tables: str) -> None:
        self._long: dict[str, Option] = {}
        self._short: dict[str, Option] = {}
        kinds: Mapping[str | None, Takes] = {None: "", "=": "value", "=?": "maybe"}
        for row in " ".join(tables).split():
            match = _ROW.fullmatch(row)
            assert match is not None, row  # noqa: S101 - a table is ours
            option = Option(match["long"], match["short"] or "", kinds[match["takes"]])
            self._long[option.long] = option
            if option.short:
                self._short[option.short] = option

    @property
    def names(self) -> tuple[str, ...]:
        """All by their long names."""
        return tuple(self._long)

    def parse(self, argv: Sequence[str]) -> tuple[Given, tuple[str, ...]]:
        """Read options up to the first word that is none, or `--`; the rest.

        Raises:
            WrongError: there is no such option, or its value is missing.
        """
        given: Given = {}
        words = list(argv)
        while words and words[0].startswith("-") and words[0] != "-":
            word = words.pop(0)
            if word == "--":
                break
            if word.startswith("--"):
                self._read_long(word[2:], words, given)
            else:
                self._read_short(word[1:], words, given)
        return given, tuple(words)

    def parse_all(self, argv: Sequence[str]) -> tuple[Given, tuple[str, ...]]:
        """Read options wherever they stand, as programs do whose arguments are no command."""
        given: Given = {}
        rest: list[str] = []
        words = list(argv)
        while words:
            found, left = self.parse(words)
            given |= found
            if len(left) < len(words) and words[len(words) - len(left) - 1] == "--":
                return given, (*rest, *left)
            rest += left[:1]
            words = list(left[1:])
        return given, tuple(rest)

    def _read_long(self, text: str, words: list[str], given: Given) -> None:
        name, equals, value = text.partition("=")
        option = self._named(name)
        if equals and not option.takes:
            raise WrongError(f"option '--{option.long}' doesn't allow an argument")
        if option.takes == "value" and not equals:
            if not words:
                raise WrongError(f"option '--{option.long}' requires an argument")
            value = words.pop(0)
        _put(given, option.long, value)

    def _named(self, name: str) -> Option:
        if name in self._long:
            return self._long[name]
        near = [option for long, option in self._long.items() if long.startswith(name) and name]
        if len(near) != 1:
            what = "unrecognized option" if not near else "ambiguous option"
            raise WrongError(f"{what} '--{name[:80]}'")
        return near[0]

    def _read_short(self, letters: str, words: list[str], given: Given) -> None:
        while letters:
            letter, letters = letters[0], letters[1:]
            option = self._short.get(letter)
            if option is None:
                raise WrongError(f"invalid option -- '{letter}'")
            if option.takes == "":
                _put(given, option.long, "")
                continue
            if option.takes == "value" and not letters:
                if not words:
                    raise WrongError(f"option requires an argument -- '{letter}'")
                letters = words.pop(0)
            _put(given, option.long, letters.removeprefix("="))
            return


def from_environment(
    prefix: str, options: Iterable[str], environ: Mapping[str, str], renamed: Mapping[str, str]
) -> Given:
    """Read what variables such as `SBATCH_PARTITION` ask for; empty ones are none."""
    found: Given = {}
    for long in options:
        name = renamed.get(long, long.replace("-", "_").upper())
        if value := environ.get(f"{prefix}_{name}"):
            found[long] = value
    return found


def _put(given: Given, long: str, value: str) -> None:
    given.pop(long, None)  # what comes later stands later
    given[long] = value
