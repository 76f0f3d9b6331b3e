"""`phalanx nodes`, `phalanx node drain|undrain|forget`: hosts."""

from __future__ import annotations

from phalanx_client import arguments, output, render
from phalanx_client.arguments import Parser, checked
from phalanx_client.call import Call, Verb
from phalanx_client.failure import NOT_FOUND, OK, USAGE, Failure
from phalanx_wire.api import DrainRequest, NodeList, NodeView


def declare(parser: Parser) -> None:
    """Options of `nodes`."""
    parser.add_argument("name", metavar="NAME", nargs="*", help="only these")
    parser.add_argument(
        "--strays", action="store_true", help="what carries our label and no session claims"
    )


async def run(call: Call) -> int:
    """List agents by name."""
    found = (await call.client().nodes()).nodes
    wanted = call.options.name
    missing = [name for name in wanted if name not in {view.name for view in found}]
    if missing:
        raise Failure(f"there is no node {missing[0]!r}; see: phalanx nodes", NOT_FOUND)
    views = tuple(view for view in found if not wanted or view.name in wanted)
    if call.options.strays:
        views = tuple(view for view in views if view.strays)
        names = [stray for view in views for stray in view.strays]
        call.show(NodeList(views), lambda: render.strays(views), names)
        return OK
    names = [str(view.name) for view in views]
    if call.quiet:
        output.names(names)
        return OK
    wide = call.form == "wide"
    call.show(NodeList(views), lambda: render.nodes(views, call.now, wide=wide), names)
    return OK


def declare_node(parser: Parser) -> None:
    """Options of `node`."""
    parser.add_argument("action", choices=("drain", "undrain", "forget"))
    parser.add_argument("name", metavar="NAME")
    parser.add_argument("--reason", default="", metavar="TEXT", help="drain: shown by nodes")
    parser.add_argument(
        "--deadline",
        type=checked(arguments.seconds),
        metavar="TIME",
        help="drain: what still runs there after so long is stopped, and requeued if it may be",
    )
    parser.add_argument(
        "--signal", metavar="SIG", help="drain: told at once to the commands of its sessions"
    )


async def node(call: Call) -> int:
    """Do what the second word says."""
    given = call.options
    if given.action != "drain" and (given.reason or given.deadline is not None or given.signal):
        raise Failure("--reason, --deadline and --signal belong to node drain", USAGE)
    client = call.client()
    if given.action == "forget":
        await client.forget(given.name)
        output.note(
            f"{given.name} is forgotten and what it held is free; it may come back only with a new "
            "join token, and containers that it still has are shown as strays then",
            quiet=call.quiet,
        )
        return OK
    if given.action == "drain":
        wish = DrainRequest(given.reason, given.deadline, given.signal)
        view = await client.drain(given.name, wish)
    else:
        view = await client.undrain(given.name)
    call.show(view, lambda: _said(view), [str(view.name)])
    return OK


def _said(view: NodeView) -> str:
    names = list(dict.fromkeys(holder.session_name for holder in view.holders))
    reason = f": {view.reason}" if view.reason else ""
    runs = f"; it still has {', '.join(names)}" if names else ""
    return f"{view.name} is {view.state}{reason}{runs}"


VERBS = {
    "nodes": Verb("nodes [NAME...] [--strays]", declare, run),
    "node": Verb("node drain|undrain|forget NAME", declare_node, node),
}
