"""`phalanx ps`."""

from __future__ import annotations

from typing import get_args

from phalanx_client import arguments, output, render
from phalanx_client.arguments import Parser, checked
from phalanx_client.call import Call, Verb
from phalanx_client.failure import OK
from phalanx_wire.api import SessionState


def declare(parser: Parser) -> None:
    """Options of `ps`."""
    parser.add_argument("-a", "--all", action="store_true", help="also those that have ended")
    parser.add_argument(
        "--state", action="append", choices=get_args(SessionState), help="only in this state"
    )
    parser.add_argument("-n", "--limit", type=checked(arguments.count), metavar="N")


async def run(call: Call) -> int:
    """List sessions, newest first."""
    options = call.options
    found = await call.client().sessions(
        options.state or (), ended=options.all or bool(options.state), limit=options.limit
    )
    if call.quiet:
        output.names([view.id for view in found.sessions])
        return OK
    call.show(
        found,
        lambda: render.sessions(found.sessions, call.now, wide=call.form == "wide"),
        [view.name for view in found.sessions],
    )
    return OK


VERBS = {"ps": Verb("ps [-a] [--state STATE]", declare, run)}
