"""`phalanx token create|ls|revoke`."""

from __future__ import annotations

from phalanx_client import arguments, output, render
from phalanx_client.arguments import Parser, checked
from phalanx_client.call import Call, Verb
from phalanx_client.failure import OK, USAGE, Failure
from phalanx_wire.api import CreateAgentToken, CreateToken, TokenCreated

AGENT_TTL_S = 900.0


def declare(parser: Parser) -> None:
    """Options of `token`."""
    parser.add_argument("action", choices=("create", "ls", "revoke"))
    parser.add_argument(
        "name",
        nargs="?",
        metavar="NAME|ID",
        help="create: whom it is for; revoke: the token's id",
    )
    parser.add_argument(
        "--agent",
        nargs="?",
        const="",
        metavar="NAME",
        help="create: lets one agent join, once; with a name only the one called so",
    )
    parser.add_argument("--cluster", default="default", help="create --agent: the pool it joins")
    parser.add_argument("--scope", choices=("admin", "user", "read-only"), default="user")
    parser.add_argument(
        "--ttl",
        type=checked(arguments.seconds),
        metavar="TIME",
        help="create: its life; without it an agent's has 15m, others have no end",
    )


async def run(call: Call) -> int:
    """Do what the second word says."""
    match call.options.action:
        case "create" if call.options.agent is not None:
            return await _create_for_agent(call)
        case "create":
            return await _create(call)
        case "revoke":
            return await _revoke(call)
        case _:
            found = await call.client().tokens()
            ids = [token.id for token in found.tokens]
            call.show(found, lambda: render.tokens(found.tokens), ids)
            return OK


async def _create_for_agent(call: Call) -> int:
    given = call.options
    ttl = AGENT_TTL_S if given.ttl is None else given.ttl
    name = given.agent or given.name
    made = await call.client().create_agent_token(CreateAgentToken(name, given.cluster, ttl))
    _print(call, made)
    output.note(
        f"\nOn the new host, within {render.span(ttl)}, write into /etc/phalanx/agent.toml\n"
        f'  name = "{name or "NAME"}"\n  join = "THE TOKEN ABOVE"\n'
        "and start the agent: systemctl enable --now phalanx-agent",
        quiet=call.quiet or call.form != "table",
    )
    return OK


async def _create(call: Call) -> int:
    given = call.options
    if not given.name:
        raise Failure("name whom the token is for: phalanx token create NAME", USAGE)
    made = await call.client().create_token(CreateToken(given.name, given.scope, given.ttl))
    _print(call, made)
    output.note(
        "This is the only time it is shown. Use it as PHALANX_TOKEN.",
        quiet=call.quiet or call.form != "table",
    )
    return OK


def _print(call: Call, made: TokenCreated) -> None:
    call.show(made, lambda: made.token, [made.token])


async def _revoke(call: Call) -> int:
    if not call.options.name:
        raise Failure("name the token's id: phalanx token revoke ID; ids: phalanx token ls", USAGE)
    await call.client().revoke_token(call.options.name)
    return OK


VERBS = {"token": Verb("token create [NAME] [--agent] | ls | revoke ID", declare, run)}
