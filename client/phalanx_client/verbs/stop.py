"""`phalanx stop`, `phalanx kill`, `phalanx wait`: the end of sessions."""

from __future__ import annotations

import math

from phalanx_client import arguments, output
from phalanx_client.arguments import Parser, checked
from phalanx_client.call import Call, Verb
from phalanx_client.failure import OK, TRY_AGAIN, Failure
from phalanx_client.follow import exit_code, explain_end
from phalanx_client.session import Client
from phalanx_client.target import kernel_of, parse


def declare_stop(parser: Parser) -> None:
    """Options of `stop`."""
    parser.add_argument("session", metavar="SESSION", nargs="+")
    parser.add_argument(
        "--grace", type=checked(arguments.seconds), metavar="TIME", help="between TERM and KILL"
    )
    parser.add_argument("--detach", action="store_true", help="do not wait until they are gone")


async def stop(call: Call) -> int:
    """Stop sessions and wait until nothing is left of them; all are told before any wait."""
    client = call.client(patient=True)
    refs = [parse(text).ref for text in call.options.session]
    failures = [failure for ref in refs if (failure := await _stopped(call, client, ref))]
    if failures:
        for failure in failures[1:]:
            output.note(f"phalanx: {failure}")
        raise failures[0]
    for ref in refs:
        if not call.options.detach:
            view = await client.wait(ref, "removed")
            assert view is not None  # noqa: S101 - it was waited for without a limit
            output.note(f"{view.name} has ended: {view.state}", quiet=call.quiet)
    return OK


async def _stopped(call: Call, client: Client, ref: str) -> Failure | None:
    try:
        await client.stop(ref, call.options.grace)
    except Failure as failure:
        return failure
    return None


def declare_kill(parser: Parser) -> None:
    """Options of `kill`."""
    parser.add_argument("session", metavar="SESSION[/RANK]")
    parser.add_argument("-s", "--signal", default="TERM", metavar="SIG", help="TERM, USR1, 10")


async def kill(call: Call) -> int:
    """Send a signal to the command of every rank, or of one."""
    client = call.client()
    target = parse(call.options.session)
    ranks = None
    if target.inside:
        ranks = (kernel_of(await client.session(target.ref), target.inside).rank,)
    await client.signal(target.ref, call.options.signal, ranks)
    return OK


def declare_wait(parser: Parser) -> None:
    """Options of `wait`."""
    parser.add_argument("session", metavar="SESSION")
    parser.add_argument("--until", choices=("running", "ended", "removed"), default="ended")
    parser.add_argument(
        "--timeout", type=checked(arguments.seconds), default=math.inf, metavar="TIME"
    )


async def wait(call: Call) -> int:
    """Wait; end with the session's code once it has ended, with 0 once it runs."""
    given = call.options
    client = call.client(patient=True)
    # Found first: a manager that has answered may be away later, and a name may become another's.
    found = await client.session(parse(given.session).ref)
    view = await client.wait(found.id, given.until, given.timeout)
    if view is None:
        raise Failure(
            f"session {given.session} is not {given.until} after {given.timeout:g} s; wait again",
            TRY_AGAIN,
        )
    if view.ended_at is None:
        return OK
    explain_end(view, quiet=call.quiet)
    return exit_code(view)


VERBS = {
    "stop": Verb("stop SESSION... [--grace TIME]", declare_stop, stop),
    "kill": Verb("kill [-s SIG] SESSION[/RANK]", declare_kill, kill),
    "wait": Verb("wait SESSION [--until running|ended|removed]", declare_wait, wait),
}
