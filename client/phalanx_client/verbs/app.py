"""`phalanx app run|ls`: a script with its folder, on a cluster."""

from __future__ import annotations

import os
import re
import secrets

from phalanx_client import options, output, render
from phalanx_client.arguments import Parser
from phalanx_client.call import Call, Verb
from phalanx_client.failure import NOT_FOUND, OK, USAGE, Failure
from phalanx_client.verbs import run as running
from phalanx_wire.api import SessionList

PREFIX = "app-"
IMAGE = "python:3"
_MOST_OF_A_NAME = 40


def declare(parser: Parser) -> None:
    """Options of `app`: those of `run`, and what is to be run."""
    parser.add_argument("action", choices=("run", "ls"))
    parser.add_argument("script", nargs="?", metavar="FILE", help="a Python script")
    options.add(parser)
    parser.add_argument("--wait", action="store_true", help="wait for its end without its output")
    parser.add_argument("--no-prefix", action="store_true", help="lines as they are")
    parser.add_argument("--all", action="store_true", help="ls: also those that have ended")
    parser.add_argument("--cloud", action="store_true", help="taken, and changes nothing")


async def run(call: Call) -> int:
    """Do what the second word says."""
    if call.options.action == "ls":
        return await _list(call)
    given = call.options
    if not given.script:
        raise Failure(
            "name the script: phalanx app run FILE [--cluster NAME] [-- ARGUMENTS]", USAGE
        )
    if not os.path.isfile(given.script):
        raise Failure(f"{given.script} is no file", NOT_FOUND)
    given.upload = given.upload or os.path.dirname(os.path.abspath(given.script))
    script = os.path.relpath(given.script, given.upload)
    if script.startswith(os.pardir):
        raise Failure(f"{given.script} is not in {given.upload}, the folder that is sent", USAGE)
    given.image = given.image or (None if given.file else IMAGE)
    given.name = name_of(given.name, script)
    given.command = ["python3", "-u", script, *given.command]
    return await running.run(call)


async def _list(call: Call) -> int:
    if call.options.script:
        raise Failure("app ls takes no file", USAGE)
    found = await call.client().sessions(ended=call.options.all)
    views = tuple(view for view in found.sessions if view.name.startswith(PREFIX))
    names = [view.name for view in views]
    if call.quiet:
        output.names(names)
        return OK
    wide = call.form == "wide"
    call.show(SessionList(views), lambda: render.sessions(views, call.now, wide=wide), names)
    return OK


def name_of(wish: str | None, script: str) -> str:
    """Name an app's session: by the wish, or by the script; the prefix tells it from others."""
    if wish:
        return wish if wish.startswith(PREFIX) else f"{PREFIX}{wish}"
    stem = os.path.splitext(os.path.basename(script))[0].lower()
    plain = re.sub(r"[^a-z0-9]+", "-", stem)[:_MOST_OF_A_NAME].strip("-")
    return f"{PREFIX}{plain or 'script'}-{secrets.token_hex(2)}"


VERBS = {"app": Verb("app run FILE [OPTIONS] [-- ARGUMENTS] | ls", declare, run, command="after")}
