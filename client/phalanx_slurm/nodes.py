"""What `sinfo` can tell of hosts."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from phalanx_slurm.argv import Given, Options
from phalanx_slurm.columns import Column, Field, Layout, letters, named
from phalanx_slurm.nodelist import compress, expand
from phalanx_wire.api import NodeView

OPTIONS: Final = Options(
    "all/a cluster= clusters/M= dead/d exact/e federation format/o= Format/O= future/F help hide "
    "iterate/i= json=? list-reasons/R local long/l Node/N noconvert nodes/n= noheader/h "
    "partition/p= "
    "reservation/T responding/r sort/S= states/t= summarize/s usage verbose/v version/V yaml=?"
)
USUAL: Final = "%9P %.5a %.10l %.6D %.6t %N"
LONG: Final = "%9P %.5a %.10l %.10s %.4r %.8h %.10g %.6D %.11T %N"
BY_NODE: Final = "%N %.6D %9P %6t"
BY_NODE_LONG: Final = "%N %.6D %9P %.11T %.4c %.8z %.6m %.8d %.6w %.8f %20E"
SUMMARY: Final = "%9P %.5a %.10l %16F %N"
_SHORT: Final = {
    "idle": "idle", "mixed": "mix", "allocated": "alloc", "draining": "drng", "drained": "drain",
    "down": "down", "down*": "down*", "unknown*": "unk*",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Group:
    """Hosts of a partition that look the same in what is asked for."""

    partition: str
    default: bool
    nodes: tuple[NodeView, ...]


def state(node: NodeView) -> str:
    """Tell a host's state in SLURM's words."""
    match node.state:
        case "ready":
            if node.used.cpu <= 0 and not node.used.gpu and not node.used.mem_bytes:
                return "idle"
            return "allocated" if node.used.cpu >= node.capacity.cpu else "mixed"
        case "draining" | "drained":
            return node.state
        case "degraded" | "lost":
            return "down"
        case "suspect":
            return "unknown*"
        case "unreachable":
            return "down*"


def mem_mb(node: NodeView) -> int:
    """Memory that it gives away."""
    return node.capacity.mem_bytes >> 20


def _gres(node: NodeView) -> str:
    if not node.capacity.gpu:
        return "(null)"
    model = f":{node.gpu_models[0]}" if node.gpu_models else ""
    return f"gpu{model}:{node.capacity.gpu}"


def _counts(group: Group) -> str:
    used = sum(state(node) in ("allocated", "mixed", "draining") for node in group.nodes)
    idle = sum(state(node) == "idle" for node in group.nodes)
    return f"{used}/{idle}/{len(group.nodes) - used - idle}/{len(group.nodes)}"


def _cpus(group: Group) -> str:
    whole = sum(math.floor(node.capacity.cpu) for node in group.nodes)
    used = sum(math.ceil(node.used.cpu) for node in group.nodes)
    out = sum(math.floor(node.capacity.cpu) for node in group.nodes if node.state != "ready")
    return f"{used}/{max(0, whole - used - out)}/{out}/{whole}"


def _of_all(value: Callable[[NodeView], int]) -> Callable[[Group], str]:
    """The least of the hosts, with a `+` where some have more."""

    def spelled(group: Group) -> str:
        found = {value(node) for node in group.nodes}
        return f"{min(found, default=0)}{'+' if len(found) > 1 else ''}"

    return spelled


def _first(value: Callable[[NodeView], str]) -> Callable[[Group], str]:
    return lambda group: value(group.nodes[0]) if group.nodes else "n/a"


_STATE: Final[Callable[[NodeView], str]] = state
_WHOLE: Final = frozenset("PRahlsgNiDFCA")
"""Letters that are about a partition, or about all its hosts together."""
_FIELDS: Final[tuple[tuple[str, str, Field[Group]], ...]] = (
    ("P", "partition",
     Field("PARTITION", lambda g: f"{g.partition}*" if g.default else g.partition)),
    ("R", "partitionname", Field("PARTITION", lambda g: g.partition)),
    ("a", "available", Field("AVAIL", lambda _: "up")),
    ("l", "time", Field("TIMELIMIT", lambda _: "infinite")),
    ("s", "size", Field("JOB_SIZE", lambda _: "1-infinite")),
    ("r", "root", Field("ROOT", lambda _: "no")),
    ("h", "oversubscribe", Field("OVERSUBS", lambda _: "NO")),
    ("g", "groups", Field("GROUPS", lambda _: "all")),
    ("D", "nodes", Field("NODES", lambda g: str(len(g.nodes)))),
    ("N", "nodelist", Field("NODELIST", lambda g: compress(node.name for node in g.nodes))),
    ("n", "nodehost", Field("HOSTNAMES", _first(lambda node: node.name))),
    ("i", "reservations", Field("RESERVATIONS", lambda _: "")),
    ("t", "statecompact", Field("STATE", _first(lambda node: _SHORT[state(node)]))),
    ("T", "statelong", Field("STATE", _first(_STATE))),
    ("m", "memory", Field("MEMORY", _of_all(mem_mb))),
    ("c", "cpus", Field("CPUS", _of_all(lambda node: math.floor(node.capacity.cpu)))),
    ("C", "cpusstate", Field("CPUS(A/I/O/T)", _cpus)),
    ("A", "nodeai",
     Field("NODES(A/I)", lambda g: "/".join(_counts(g).split("/")[:2]))),
    ("F", "nodeaiot", Field("NODES(A/I/O/T)", _counts)),
    ("G", "gres", Field("GRES", _first(_gres))),
    ("o", "nodeaddr", Field("NODE_ADDR", _first(lambda node: node.address))),
    ("z", "socketcorethread",
     Field("S:C:T", _first(lambda node: f"1:{math.floor(node.capacity.cpu)}:1"))),
    ("d", "disk", Field("TMP_DISK", lambda _: "0")),
    ("w", "weight", Field("WEIGHT", lambda _: "1")),
    ("f", "features", Field("AVAIL_FEATURES", lambda _: "(null)")),
    ("e", "freemem",
     Field("FREE_MEM",
           _of_all(lambda node: (node.capacity.mem_bytes - node.used.mem_bytes) >> 20))),
    ("E", "reason", Field("REASON", _first(lambda node: node.reason or "none"))),
    ("O", "cpusload", Field("CPU_LOAD", lambda _: "N/A")),
    ("v", "version", Field("VERSION", lambda _: "N/A")),
)  # fmt: skip
LETTERS: Final[Mapping[str, Field[Group]]] = {letter: field for letter, _, field in _FIELDS}
NAMES: Final[Mapping[str, Field[Group]]] = {name: field for _, name, field in _FIELDS}
_BY_HEADING: Final = {id(field): letter for letter, _, field in _FIELDS}


def groups(
    nodes: Iterable[NodeView], columns: Sequence[Column[Group]], default: str, *, each: bool
) -> list[Group]:
    """Put hosts together that look the same in these columns; with `each`, every one by itself."""
    apart = [column for column in columns if _BY_HEADING[id(column.field)] not in _WHOLE]
    found: dict[tuple[str, ...], list[NodeView]] = {}
    for node in sorted(nodes, key=lambda one: (one.cluster != default, one.cluster, one.name)):
        alone = Group(node.cluster, node.cluster == default, (node,))
        # Sizes that differ are shown as the least with a `+`, and keep no hosts apart.
        looks = [
            column.field.value(alone) for column in apart if column.field.heading not in _SIZES
        ]
        key = (node.cluster, *looks, *([node.name] if each else []))
        found.setdefault(key, []).append(node)
    return [Group(key[0], key[0] == default, tuple(some)) for key, some in found.items()]


_SIZES: Final = ("MEMORY", "CPUS", "FREE_MEM")


def listing(given: Given, nodes: Iterable[NodeView], default: str) -> list[str]:
    """Spell what `sinfo` prints with these options; `default` is the usual partition.

    Raises:
        WrongError: a format has a field that there is not.
    """
    layout = _layout(given)
    each = "Node" in given and "long" in given
    found = groups(_chosen(given, nodes), layout.columns, default, each=each)
    heading = [] if "noheader" in given else [layout.heading()]
    return [*heading, *(layout.row(group) for group in found)]


def _chosen(given: Given, nodes: Iterable[NodeView]) -> list[NodeView]:
    partitions = set(filter(None, given.get("partition", "").split(",")))
    states = {one.lower() for one in filter(None, given.get("states", "").split(","))}
    names = set(expand(given.get("nodes", "")))
    return [
        node
        for node in nodes
        if (not partitions or node.cluster in partitions)
        and (not names or node.name in names)
        and (not states or _is_in(node, states))
        and ("list-reasons" not in given or node.state != "ready")
        and ("responding" not in given or node.state == "ready")
        and ("dead" not in given or node.state in ("lost", "unreachable", "suspect"))
    ]


def _layout(given: Given) -> Layout[Group]:
    if "Format" in given:
        return Layout(named(given["Format"], NAMES, spaced=False))
    text = given.get("format")
    if text is None:
        by_node = BY_NODE_LONG if "long" in given else BY_NODE
        usual = LONG if "long" in given else USUAL
        usual = SUMMARY if "summarize" in given else usual
        text = by_node if "Node" in given else usual
        text = "%20E %9u %19H %N" if "list-reasons" in given else text
    return letters(text, LETTERS)


def _is_in(node: NodeView, wanted: set[str]) -> bool:
    """Tell whether a host is in one of these states, by their long or short names."""
    own = state(node)
    return bool({own, _SHORT[own], own.rstrip("*")} & wanted) or "all" in wanted
