"""`phalanx why`: the reason, for whatever state a session is in."""

from __future__ import annotations

from functools import partial

from phalanx_client import output, render
from phalanx_client.arguments import Parser
from phalanx_client.call import Call, Verb
from phalanx_client.failure import OK
from phalanx_client.target import parse


def declare(parser: Parser) -> None:
    """Options of `why`."""
    parser.add_argument("session", metavar="SESSION", nargs="+")


async def why(call: Call) -> int:
    """Why each session waits, is stuck or has failed."""
    client = call.client()
    for place, ref in enumerate(call.options.session):
        view = await client.why(parse(ref).ref)
        if place and call.form in ("table", "wide"):
            output.say("")
        call.show(view, partial(render.why, view), [one.code for one in view.findings])
    return OK


VERBS = {"why": Verb("why SESSION...", declare, why)}
