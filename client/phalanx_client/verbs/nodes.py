"""`phalanx nodes`."""

from __future__ import annotations

from phalanx_client import output, render
from phalanx_client.arguments import Parser
from phalanx_client.call import Call, Verb
from phalanx_client.failure import NOT_FOUND, OK, Failure
from phalanx_wire.api import NodeList


def declare(parser: Parser) -> None:
    """Options of `nodes`."""
    parser.add_argument("name", metavar="NAME", nargs="*", help="only these")


async def run(call: Call) -> int:
    """List agents by name."""
    found = (await call.client().nodes()).nodes
    wanted = call.options.name
    missing = [name for name in wanted if name not in {view.name for view in found}]
    if missing:
        raise Failure(f"there is no node {missing[0]!r}; see: phalanx nodes", NOT_FOUND)
    views = tuple(view for view in found if not wanted or view.name in wanted)
    names = [str(view.name) for view in views]
    if call.quiet:
        output.names(names)
        return OK
    wide = call.form == "wide"
    call.show(NodeList(views), lambda: render.nodes(views, call.now, wide=wide), names)
    return OK


VERBS = {"nodes": Verb("nodes [NAME...]", declare, run)}
