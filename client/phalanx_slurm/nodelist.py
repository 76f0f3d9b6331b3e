"""Lists of hosts as SLURM writes them: `main1,sub[1-3,7]`."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Final

from phalanx_slurm.wrong import WrongError

MAX_HOSTS: Final = 65_536
_PART: Final = re.compile(
    r"(?P<head>[^\[\],\s]*)(?:\[(?P<ranges>[0-9,-]+)\])?(?P<tail>[^\[\],\s]*)"
)
_RANGE: Final = re.compile(r"(?P<first>[0-9]{1,9})(?:-(?P<last>[0-9]{1,9}))?")
_NUMBERED: Final = re.compile(r"(?P<stem>.*?)(?P<number>0|[1-9][0-9]{0,8})", re.DOTALL)


def compress(hosts: Iterable[str]) -> str:
    """Write hosts in their order; neighbours that differ by one in their last number share a
    bracket.
    """
    groups: list[tuple[str, list[list[int]]]] = []
    for host in hosts:
        match = _NUMBERED.fullmatch(host)
        stem, number = (match["stem"], int(match["number"])) if match else (host, None)
        if number is None:
            groups.append((host, []))
        elif groups and groups[-1][0] == stem and groups[-1][1]:
            ranges = groups[-1][1]
            if ranges[-1][1] + 1 == number:
                ranges[-1][1] = number
            else:
                ranges.append([number, number])
        else:
            groups.append((stem, [[number, number]]))
    return ",".join(_spelled(stem, ranges) for stem, ranges in groups)


def expand(text: str) -> tuple[str, ...]:
    """Read a list of hosts; commas and spaces part them, brackets hold numbers, zeros in front are
    kept.

    Raises:
        WrongError: it is none, or names more than `MAX_HOSTS`.
    """
    hosts: list[str] = []
    for part in _parts(text):
        match = _PART.fullmatch(part)
        if match is None:
            raise WrongError(f"{part[:80]!r} is no host and no range like sub[1-3]")
        if match["ranges"] is None:
            hosts.append(part)
        else:
            hosts += [f"{match['head']}{one}{match['tail']}" for one in _numbers(match["ranges"])]
        if len(hosts) > MAX_HOSTS:
            raise WrongError(f"the list names more than {MAX_HOSTS} hosts")
    return tuple(hosts)


def _spelled(stem: str, ranges: list[list[int]]) -> str:
    if not ranges:
        return stem
    if len(ranges) == 1 and ranges[0][0] == ranges[0][1]:
        return f"{stem}{ranges[0][0]}"
    spelled = (f"{first}-{last}" if first != last else str(first) for first, last in ranges)
    return f"{stem}[{','.join(spelled)}]"


def _parts(text: str) -> Iterator[str]:
    """Split at commas and spaces that are not inside of brackets."""
    for part in re.split(r"[,\s]+(?![^\[\]]*\])", text.strip(", \t\n")):
        if part:
            yield part


def _numbers(ranges: str) -> Iterator[str]:
    total = 0
    for piece in ranges.split(","):
        match = _RANGE.fullmatch(piece)
        if match is None:
            raise WrongError(f"[{ranges[:80]}] is no list of ranges like [1-3,7]")
        first, last = int(match["first"]), int(match["last"] or match["first"])
        total += last - first + 1
        if last < first or total > MAX_HOSTS:
            raise WrongError(f"[{ranges[:80]}] names no hosts, or more than {MAX_HOSTS}")
        width = len(match["first"])
        yield from (str(number).zfill(width) for number in range(first, last + 1))
