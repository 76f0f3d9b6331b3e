"""`sinfo`: hosts and their partitions."""

from __future__ import annotations

from typing import Final

from phalanx_client.slurm import ask
from phalanx_slurm import nodes
from phalanx_slurm.argv import Given, Options
from phalanx_slurm.columns import Layout, letters, named
from phalanx_slurm.nodelist import expand
from phalanx_slurm.nodes import Group
from phalanx_slurm.wrong import WrongError

USAGE: Final = """Usage: sinfo [-h] [-l] [-N] [-s] [-R] [-n NODES] [-p PARTITIONS] [-t STATES]
             [-o FORMAT] [-O FIELDS] [--noconvert]"""
OPTIONS: Final = Options(
    "all/a cluster= clusters/M= dead/d exact/e federation format/o= Format/O= future/F help hide "
    "iterate/i= json=? list-reasons/R local long/l Node/N noconvert nodes/n= noheader/h "
    "partition/p= "
    "reservation/T responding/r sort/S= states/t= summarize/s usage verbose/v version/V yaml=?"
)


def main(argv: list[str]) -> int:
    """Run it."""
    given, words = OPTIONS.parse_all(argv)
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
    layout = _layout(given)
    found = await asker.client().nodes()
    wanted = {
        "partition": set(filter(None, given.get("partition", "").split(","))),
        "state": {one.lower() for one in filter(None, given.get("states", "").split(","))},
        "name": set(expand(given.get("nodes", ""))),
    }
    chosen = [
        node
        for node in found.nodes
        if (not wanted["partition"] or node.cluster in wanted["partition"])
        and (not wanted["name"] or node.name in wanted["name"])
        and (not wanted["state"] or nodes.is_in(node, wanted["state"]))
        and ("list-reasons" not in given or node.state != "ready")
        and ("responding" not in given or node.state == "ready")
        and ("dead" not in given or node.state in ("lost", "unreachable", "suspect"))
    ]
    groups = nodes.groups(
        chosen, layout.columns, asker.said.partition, each="Node" in given and "long" in given
    )
    if "noheader" not in given:
        print(layout.heading())
    for group in groups:
        print(layout.row(group))
    return 0


def _layout(given: Given) -> Layout[Group]:
    if "Format" in given:
        return Layout(named(given["Format"], nodes.NAMES, spaced=False))
    text = given.get("format")
    if text is None:
        by_node = nodes.BY_NODE_LONG if "long" in given else nodes.BY_NODE
        usual = nodes.LONG if "long" in given else nodes.USUAL
        usual = nodes.SUMMARY if "summarize" in given else usual
        text = by_node if "Node" in given else usual
        text = "%20E %9u %19H %N" if "list-reasons" in given else text
    return letters(text, nodes.LETTERS)
