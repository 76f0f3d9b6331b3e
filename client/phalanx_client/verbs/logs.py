"""`phalanx logs`."""

from __future__ import annotations

from contextlib import aclosing

import msgspec

from phalanx_client import arguments, output
from phalanx_client.arguments import Parser, checked
from phalanx_client.call import Call, Verb
from phalanx_client.failure import OK, TRY_AGAIN, USAGE, Failure
from phalanx_client.follow import Printer, news
from phalanx_client.target import kernel_of, parse


def declare(parser: Parser) -> None:
    """Options of `logs`."""
    parser.add_argument("session", metavar="SESSION[/RANK]")
    parser.add_argument("-f", "--follow", action="store_true", help="go on until the session ends")
    parser.add_argument("--rank", type=checked(arguments.ranks), metavar="0,2-3")
    parser.add_argument("--since", metavar="TIME", help="10m ago, or 2030-01-31T12:00:00Z")
    parser.add_argument("--tail", type=checked(arguments.count), metavar="N", help="last lines")
    parser.add_argument(
        "--attempt", type=checked(arguments.count), metavar="N", help="of an earlier attempt"
    )
    parser.add_argument("--no-prefix", action="store_true", help="lines as they are")
    parser.add_argument("--timestamps", action="store_true", help="with the time of each line")


async def run(call: Call) -> int:
    """Print the merged output."""
    given = call.options
    client = call.client(patient=given.follow)
    target = parse(given.session)
    view = await client.session(target.ref)
    ranks = str(kernel_of(view, target.inside).rank) if target.inside else given.rank or ""
    try:
        since = arguments.since(given.since, call.now) if given.since else ""
    except ValueError as wrong:
        raise Failure(f"--since {wrong}", USAGE) from None
    printer = Printer(view, prefix=not given.no_prefix, times=given.timestamps)
    client.news = lambda event: output.note(news(view, event), quiet=call.quiet)
    if given.attempt is not None:
        if given.follow or since or given.tail is not None:
            raise Failure("--attempt goes with --rank only: it is over", USAGE)
        lines = client.logs_of_attempt(view.id, given.attempt, ranks=ranks)
    else:
        lines = client.logs(view.id, follow=given.follow, ranks=ranks, since=since, tail=given.tail)
    async with aclosing(lines):
        async for _, event in lines:
            if call.form == "json":
                output.say(msgspec.json.encode(event).decode())
            else:
                printer.line(event)
    if client.missing:
        raise Failure("\n".join(client.missing), TRY_AGAIN)
    return OK


VERBS = {"logs": Verb("logs SESSION[/RANK] [-f] [--rank 0,2-3]", declare, run)}
