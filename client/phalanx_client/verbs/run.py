"""`phalanx run`, `phalanx create`: asking for a session."""

from __future__ import annotations

import os

from msgspec.structs import replace

from phalanx_client import options, output, render
from phalanx_client.arguments import Parser
from phalanx_client.call import Call, Verb
from phalanx_client.failure import BAD_INPUT, OK
from phalanx_client.follow import Follower, exit_code, explain_end
from phalanx_client.session import Client
from phalanx_wire.api import SessionView
from phalanx_wire.spec import Kind


def declare_run(parser: Parser) -> None:
    """Options of `run`."""
    options.add(parser)
    parser.add_argument("--wait", action="store_true", help="wait for its end without its output")
    parser.add_argument("--no-prefix", action="store_true", help="lines as they are")


async def run(call: Call) -> int:
    """Submit, follow, and end with the session's code."""
    client = call.client(patient=True)
    view = await _submit(call, client, "batch")
    if view is None:
        return OK
    if call.options.detach:
        _print_handle(call, view)
        return OK
    follower = Follower(
        client, view, quiet=call.quiet or call.options.wait, prefix=not call.options.no_prefix
    )
    if call.options.wait:
        ended = await client.wait(view.id, "ended")
        assert ended is not None  # noqa: S101 - it was waited for without a limit
    else:
        ended = await follower.to_the_end()
    if call.form in ("json", "yaml"):
        output.say(output.data(ended, call.form) or "")
    explain_end(ended, quiet=call.quiet)
    return exit_code(ended)


async def create(call: Call) -> int:
    """Submit an interactive session; return when it runs."""
    client = call.client(patient=True)
    view = await _submit(call, client, "interactive")
    if view is None:
        return OK
    if not call.options.detach:
        try:
            view = await Follower(client, view, quiet=call.quiet, prefix=True).to_the_start()
        except KeyboardInterrupt:
            output.note(f"\n{view.name} goes on without us; to end it: phalanx stop {view.name}")
            raise
        if view.state != "running":
            view = await client.wait(view.id, "ended") or view
            explain_end(view, quiet=False)
            return exit_code(view) or BAD_INPUT
    _print_handle(call, view)
    if call.form == "table" and view.state == "running":
        output.note(f"  phalanx ssh {view.name}     phalanx stop {view.name}", quiet=call.quiet)
    return OK


async def _submit(call: Call, client: Client, kind: Kind) -> SessionView | None:
    """Ask for the session that the options describe; None after a dry run."""
    given = call.options
    spec = options.spec(given, getattr(given, "command", ()), os.environ)
    spec = replace(spec, kind=spec.kind or kind)
    options.check_upload(given.upload)
    if given.dry_run:
        plan = await client.dry_run(spec)
        call.show(plan, lambda: render.dry_run(plan), list(plan.placement or ()))
        return None
    seal = False if given.no_seal else None
    view = (await client.run(spec, upload=given.upload, seal=seal)).view
    for warning in view.warnings:
        output.note(f"phalanx: warning: {warning}", quiet=call.quiet)
    return view


def _print_handle(call: Call, view: SessionView) -> None:
    """What a script takes the session by: its name, or with -q its id."""
    if call.quiet:
        output.say(view.id)
    else:
        call.show(view, lambda: view.name, [view.name])


def declare_create(parser: Parser) -> None:
    """Options of `create`."""
    options.add(parser)


VERBS = {
    "run": Verb("run [OPTIONS] [--] CMD...", declare_run, run, command="last"),
    "create": Verb("create [OPTIONS]", declare_create, create),
}
