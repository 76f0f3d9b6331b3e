"""`phalanx cluster create|ls|show|logs|rm`: named pools of agents."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import aclosing

import msgspec

from phalanx_client import arguments, output, render
from phalanx_client.ansi import escape
from phalanx_client.arguments import Parser, checked
from phalanx_client.call import Call, Verb
from phalanx_client.failure import BAD_INPUT, OK, TRY_AGAIN, USAGE, Failure
from phalanx_client.session import Client
from phalanx_wire.api import CreateAgentToken
from phalanx_wire.pools import ClusterView

JOIN_TTL_S = 3600.0
HEAD = ("NAME", "STATE", "NODES", "READY", "SESSIONS", "CREATED", "REASON")
OF_ACTION = {
    "nodes": ("create",),
    "reuse_name": ("create",),
    "ttl": ("create",),
    "follow": ("logs",),
    "force": ("rm",),
    "wait": ("create", "rm"),
    "timeout": ("create", "rm"),
    "all": ("ls",),
}


class Made(msgspec.Struct, frozen=True):
    """A new cluster, and the commands that join a host each; shown once."""

    cluster: ClusterView
    join: tuple[str, ...]


def declare(parser: Parser) -> None:
    """Options of `cluster`."""
    parser.add_argument("action", choices=("create", "ls", "show", "logs", "rm"))
    parser.add_argument("name", nargs="?", metavar="NAME")
    say = parser.add_argument
    say("--wait", action="store_true", help="create: until hosts are ready; rm: until it is gone")
    say("--nodes", type=checked(arguments.count), metavar="N", help="create: so many hosts")
    say("--timeout", type=checked(arguments.seconds), metavar="TIME", help="the most to wait")
    say("--reuse-name", action="store_true", help="create: a name that a removed one has had")
    say("--ttl", type=checked(arguments.seconds), metavar="TIME",
        help="create: how long the join commands are good for; 1h without it")  # fmt: skip
    say("-f", "--follow", action="store_true", help="logs: go on as things happen")
    say("--force", action="store_true", help="rm: do not wait for hosts that are away")
    say("--all", action="store_true", help="ls: also those that are gone")


async def run(call: Call) -> int:
    """Do what the second word says."""
    given = call.options
    for option, actions in OF_ACTION.items():
        if getattr(given, option) not in (False, None) and given.action not in actions:
            flag = option.replace("_", "-")
            raise Failure(f"--{flag} belongs to cluster {' and '.join(actions)}", USAGE)
    if given.action == "ls":
        return await _list(call)
    if not given.name:
        raise Failure(f"name the cluster: phalanx cluster {given.action} NAME", USAGE)
    match given.action:
        case "create":
            return await _create(call)
        case "show":
            return await _show(call)
        case "logs":
            return await _logs(call)
        case _:
            return await _remove(call)


async def _create(call: Call) -> int:
    given = call.options
    count = 1 if given.nodes is None else given.nodes
    if count < 1:
        raise Failure("--nodes is 1 or more", USAGE)
    client = call.client(patient=given.wait)
    view = await client.create_cluster(given.name, reuse_name=given.reuse_name)
    ttl = JOIN_TTL_S if given.ttl is None else given.ttl
    made = [
        await client.create_agent_token(CreateAgentToken(None, given.name, ttl))
        for _ in range(count)
    ]
    commands = [f"phalanx agent --join {token.token}" for token in made]
    where = "each of the new hosts, one line a host" if count > 1 else "the new host"
    output.note(
        f"As root on {where}, within {render.span(ttl)}:", quiet=call.quiet or call.form != "table"
    )
    call.show(Made(view, tuple(commands)), lambda: "\n".join(commands), commands)
    if not given.wait:
        return OK
    timeout = math.inf if given.timeout is None else given.timeout
    found = await client.wait_cluster(given.name, nodes=count, timeout_s=timeout)
    if found is None or found.state != "running":
        return await _not_in_time(client, given.name, f"{count} ready hosts", timeout)
    output.note(
        f"{given.name} is {found.state}: {', '.join(found.ready)}",
        quiet=call.quiet or call.form != "table",
    )
    return OK


async def _not_in_time(client: Client, name: str, wanted: str, timeout: float) -> int:
    now = await client.cluster(name)
    reason = f": {now.reason}" if now.reason else ""
    output.note(
        escape(
            f"phalanx: cluster {name} has not {wanted} after {render.span(timeout)}; it is "
            f"{now.state}{reason}"
        )
    )
    return TRY_AGAIN if now.state not in ("deleting", "deleted") else BAD_INPUT


async def _list(call: Call) -> int:
    if call.options.name:
        raise Failure("cluster ls takes no name; one cluster: phalanx cluster show NAME", USAGE)
    found = await call.client().clusters(gone=call.options.all)
    names = [view.name for view in found.clusters]
    if call.quiet:
        output.names(names)
        return OK
    call.show(found, lambda: _table(found.clusters), names)
    return OK


async def _show(call: Call) -> int:
    view = await call.client().cluster(call.options.name)
    call.show(view, lambda: _full(view), [view.name])
    return OK


async def _logs(call: Call) -> int:
    follow = call.options.follow
    client = call.client(patient=follow)
    async with aclosing(client.cluster_events(call.options.name, follow=follow)) as events:
        async for event in events:
            if call.form == "json":
                output.say(msgspec.json.encode(event).decode())
            else:
                output.say(render.event(event, wide=True))
    return OK


async def _remove(call: Call) -> int:
    given = call.options
    client = call.client(patient=given.wait)
    view = await client.remove_cluster(given.name, force=given.force)
    _tell_leaves(view)
    if not given.wait:
        reason = f": {view.reason}" if view.reason else ""
        call.show(view, lambda: escape(f"{view.name} is {view.state}{reason}"), [view.name])
        return OK
    timeout = math.inf if given.timeout is None else given.timeout
    found = await client.wait_cluster(given.name, removed=True, timeout_s=timeout)
    if found is None:
        now = await client.cluster(given.name)
        reason = f": {now.reason}" if now.reason else ""
        output.note(escape(f"phalanx: {given.name} is still {now.state}{reason}"))
        return TRY_AGAIN
    if found.leaves != view.leaves:
        _tell_leaves(found)
    call.show(found, lambda: f"{found.name} is {found.state}", [found.name])
    return OK


def _tell_leaves(view: ClusterView) -> None:
    for text in view.leaves:
        output.note(escape(f"phalanx: left behind {text}"))


def _table(views: Sequence[ClusterView]) -> str:
    rows = [
        [
            view.name,
            view.state,
            str(len(view.nodes)),
            str(len(view.ready)),
            str(len(view.sessions)),
            render.moment(view.created_at) or "-",
            view.reason or "",
        ]
        for view in views
    ]
    return render.table(HEAD, rows)


def _full(view: ClusterView) -> str:
    away = [name for name in view.nodes if name not in view.ready]
    return render.facts(
        [
            ("cluster", view.name),
            ("state", view.state),
            ("reason", view.reason or ""),
            ("created", render.moment(view.created_at)),
            ("ready", ", ".join(view.ready)),
            ("not ready", ", ".join(away)),
            ("sessions", ", ".join(view.sessions)),
            *(("left behind", text) for text in view.leaves),
        ]
    )


VERBS = {
    "cluster": Verb(
        "cluster create NAME [--wait [--nodes N]] | ls | show NAME | logs NAME [-f] | rm NAME",
        declare,
        run,
    )
}
