"""`phalanx requeue`, `hold`, `release`, `extend`: sessions, the queue, and their time."""

from __future__ import annotations

from phalanx_client import arguments, output
from phalanx_client.arguments import Parser, checked
from phalanx_client.call import Call, Verb
from phalanx_client.failure import OK
from phalanx_client.target import parse
from phalanx_wire.api import SessionView


def declare(parser: Parser) -> None:
    """What all of them take."""
    parser.add_argument("session", metavar="SESSION", nargs="+")


async def requeue(call: Call) -> int:
    """Stop what runs of sessions and put them back into the queue, each as its next attempt."""
    client = call.client()
    for text in call.options.session:
        _say(call, await client.requeue(parse(text).ref))
    return OK


async def hold(call: Call) -> int:
    """Keep sessions in the queue."""
    client = call.client()
    for text in call.options.session:
        _say(call, await client.hold(parse(text).ref, held=True))
    return OK


async def release(call: Call) -> int:
    """Let held sessions go."""
    client = call.client()
    for text in call.options.session:
        _say(call, await client.hold(parse(text).ref, held=False))
    return OK


def declare_extend(parser: Parser) -> None:
    """Options of `extend`."""
    parser.add_argument("session", metavar="SESSION")
    parser.add_argument("time", metavar="+TIME", type=checked(_more), help="+30m, +2h, +1:30:00")


async def extend(call: Call) -> int:
    """Add to a session's time limit."""
    _say(call, await call.client().extend(parse(call.options.session).ref, call.options.time))
    return OK


def _more(text: str) -> float:
    return arguments.seconds(text.removeprefix("+"))


def _say(call: Call, view: SessionView) -> None:
    reason = f": {view.reason}" if view.reason else ""
    output.note(f"{view.name} is {view.state}{reason}", quiet=call.quiet)


VERBS = {
    "requeue": Verb("requeue SESSION...", declare, requeue),
    "hold": Verb("hold SESSION...", declare, hold),
    "release": Verb("release SESSION...", declare, release),
    "extend": Verb("extend SESSION +TIME", declare_extend, extend),
}
