"""`sinfo`: hosts and their partitions."""

from __future__ import annotations

from typing import Final

from phalanx_client.slurm import ask
from phalanx_slurm import nodes
from phalanx_slurm.argv import Given
from phalanx_slurm.wrong import WrongError

USAGE: Final = """Usage: sinfo [-h] [-l] [-N] [-s] [-R] [-n NODES] [-p PARTITIONS] [-t STATES]
             [-o FORMAT] [-O FIELDS] [--noconvert]"""


def main(argv: list[str]) -> int:
    """Run it."""
    given, words = nodes.OPTIONS.parse_all(argv)
    if "help" in given or "usage" in given:
        print(USAGE)
        return 0
    for long in ("iterate", "json", "yaml", "reservation"):
        if long in given:
            raise WrongError(f"--{long}: leave it out; see: phalanx nodes -o json")
    if words:
        raise WrongError(f"Unrecognized option: {words[0]}")
    return ask.through(_run(given))


async def _run(given: Given) -> int:
    asker = ask.Asker("sinfo")
    found = await asker.client().nodes()
    for line in nodes.listing(given, found.nodes, asker.said.partition):
        print(ask.shown(line))
    return 0
