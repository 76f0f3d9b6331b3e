"""`phalanx show`, `phalanx env`, `phalanx events`: looking at one session."""

from __future__ import annotations

from contextlib import aclosing
from functools import partial

import msgspec

from phalanx_client import output, render
from phalanx_client.arguments import Parser
from phalanx_client.call import Call, Verb
from phalanx_client.failure import OK
from phalanx_client.target import kernel_of, parse


def declare_show(parser: Parser) -> None:
    """Options of `show`."""
    parser.add_argument("session", metavar="SESSION", nargs="+")


async def show(call: Call) -> int:
    """Sessions in full."""
    client = call.client()
    for place, ref in enumerate(call.options.session):
        view = await client.session(parse(ref).ref)
        if place and call.form in ("table", "wide"):
            output.say("")
        call.show(view, partial(render.session, view, call.now), [view.name])
    return OK


def declare_env(parser: Parser) -> None:
    """Options of `env`."""
    parser.add_argument("session", metavar="SESSION[/RANK]")


async def env(call: Call) -> int:
    """The environment of all ranks, or of one."""
    client = call.client()
    target = parse(call.options.session)
    rank = None
    if target.inside:
        rank = kernel_of(await client.session(target.ref), target.inside).rank
    view = await client.env(target.ref, rank)
    if call.quiet:
        output.names([f"{var.name}={var.value}" for rank in view.ranks for var in rank.variables])
        return OK
    names = dict.fromkeys(var.name for rank in view.ranks for var in rank.variables)
    call.show(view, lambda: render.env(view), list(names))
    return OK


def declare_events(parser: Parser) -> None:
    """Options of `events`."""
    parser.add_argument("session", metavar="SESSION", nargs="?", help="without: of all sessions")
    parser.add_argument("-f", "--follow", action="store_true", help="go on as they happen")


async def events(call: Call) -> int:
    """What happened, in order."""
    ref = call.options.session
    follow = call.options.follow
    client = call.client(patient=follow)
    wide = call.form == "wide" or ref is None
    async with aclosing(client.events(ref and parse(ref).ref, follow=follow)) as found:
        async for event in found:
            match call.form:
                case "json":
                    output.say(msgspec.json.encode(event).decode())
                case "yaml":
                    output.say(f"---\n{output.data(event, 'yaml')}")
                case "name":
                    output.say(event.kind)
                case _:
                    output.say(render.event(event, wide=wide))
    return OK


VERBS = {
    "show": Verb("show SESSION...", declare_show, show),
    "env": Verb("env SESSION[/RANK]", declare_env, env),
    "events": Verb("events [SESSION] [-f]", declare_events, events),
}
