"""docs/BENCHMARKS.md, from what was measured."""

from __future__ import annotations

from typing import Any

from tests.bench import footprint, starts


def page(kept: dict[str, Any]) -> str:
    """Spell the parts that have been measured."""
    parts = [(name, spell) for name, spell in SECTIONS.items() if name in kept]
    return f"""# Benchmarks

Written by `make bench`; `python -m tests.bench --only starts` (or `footprint`) renews one part.

{"".join(spell(kept[name]) for name, spell in parts)}"""


def _starting(part: dict[str, Any]) -> str:
    return f"""## Starting and stopping

Medians of {part["pairs"]} interleaved pairs, the first pair dropped; ratios are medians of the
pairs' ratios, ours to raw. The target is at most {starts.TARGET:.2f}.

{_starts(part["rows"])}

*ready*: raw, all starts have returned; ours, from the submission over HTTP until every rank's
command is released: keys made, ssh up, every rank reached by every other by name. *stop*: until
no container and no network is left. Both sides make the same internal network and the same
containers with the same settings, and attach the same way out.

{_where(part)}
"""


def _weighing(part: dict[str, Any]) -> str:
    return f"""
## Footprint

Medians of {part["pairs"]} rounds or more where nothing else is said, of our wheel as users install
it: `phalanx[client,manager,agent]` in an environment of its own.

{_footprint(part["rows"])}

*over a plain one*: the container's CPU time when its ssh port answers, less that of the same
container without the runner when its start has returned, the two started in turn. *lateness*: the
time by which a rank's command starts after the first rank's, by the clock that the commands see.

{_where(part)}
"""


def _starts(rows: dict[str, list[dict[str, float]]]) -> str:
    figures = {title: [starts.Figures(**pair) for pair in pairs] for title, pairs in rows.items()}
    return "\n".join(starts.table(figures))


def _footprint(rows: list[dict[str, Any]]) -> str:
    lines = ["| what | measured | target | | load |", "| --- | --- | --- | --- | --- |"]
    for row in rows:
        found = footprint.Finding(**row)
        target = "" if found.target is None else f"{found.target:g} {found.unit}"
        met = {None: "", True: "met", False: "**not met**"}[found.met]
        measured = f"{found.value:.3g} {found.unit}"
        lines.append(f"| {found.what} | {measured} | {target} | {met} | {found.load:.1f} |")
    return "\n".join(lines)


def _where(part: dict[str, Any]) -> str:
    load = ", ".join(f"{value:.1f}" for value in part["load"])
    return f"{part['machine']}, shared by all engines. Load average at the end: {load}."


SECTIONS = {"starts": _starting, "footprint": _weighing}
