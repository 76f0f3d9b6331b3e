"""`phalanx requeue`: sessions and the queue."""

from __future__ import annotations

from phalanx_client import output
from phalanx_client.arguments import Parser
from phalanx_client.call import Call, Verb
from phalanx_client.failure import OK
from phalanx_client.target import parse


def declare(parser: Parser) -> None:
    """What all of them take."""
    parser.add_argument("session", metavar="SESSION", nargs="+")


async def requeue(call: Call) -> int:
    """Stop what runs of sessions and put them back into the queue, each as its next attempt."""
    client = call.client()
    for text in call.options.session:
        view = await client.requeue(parse(text).ref)
        where = f": {view.reason}" if view.reason else ""
        output.note(f"{view.name} is {view.state}{where}", quiet=call.quiet)
    return OK


VERBS = {"requeue": Verb("requeue SESSION...", declare, requeue)}
