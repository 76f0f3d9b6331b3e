"""Tokens."""

from __future__ import annotations

import base64
import math
from datetime import timedelta
from typing import Final

import structlog
from aiohttp import web

from phalanx_manager.core.clusters import closed
from phalanx_manager.http import auth, views
from phalanx_manager.http.ask import Ask, answer
from phalanx_manager.http.problems import not_found, refusal, refused, shown
from phalanx_manager.rpc.keys import make_pair
from phalanx_manager.store.port import NewEvent, TokenRow
from phalanx_wire import join
from phalanx_wire.api import CreateAgentToken, CreateToken, TokenCreated, TokenList
from phalanx_wire.ids import AgentId, ClusterName
from phalanx_wire.names import is_session_name

_MAX_TTL_S: Final = 10 * 366 * 86_400.0
_MAX_JOIN_TTL_S: Final = 30 * 86_400.0

log = structlog.get_logger(__name__)


async def create(ask: Ask) -> web.Response:
    """Make a bearer token."""
    wish = await ask.body(CreateToken)
    _check_name(wish.name, "name")
    secret = auth.spell_secret(ask.doors.entropy(auth.SECRET_BYTES))
    now = ask.doors.clock.now()
    row = TokenRow(
        id=_token_id(ask),
        kind="bearer",
        name=wish.name,
        scope=wish.scope,
        cluster=ClusterName(""),
        created_at=now,
        expires_at=None if wish.ttl_s is None else now + _ttl(wish.ttl_s, _MAX_TTL_S),
        secret_hash=auth.secret_hash(secret),
    )
    await ask.doors.store.add_token(row)
    await _tell(ask, "token.created", f"{ask.caller.user} made token {row.id} for {row.name}")
    return answer(TokenCreated(row.id, secret, row.expires_at), 201)


async def create_for_agent(ask: Ask) -> web.Response:
    """Make a token that lets one agent join."""
    wish = await ask.body(CreateAgentToken)
    if wish.name is not None:
        _check_name(wish.name, "name")
    _check_name(wish.cluster, "cluster")
    shut = closed((await ask.doors.store.load()).clusters, wish.cluster)
    if shut is not None:
        raise refusal(shut)
    ttl = _ttl(wish.ttl_s, _MAX_JOIN_TTL_S)
    pair = make_pair()
    now = ask.doors.clock.now()
    row = TokenRow(
        id=_token_id(ask),
        kind="agent",
        name=wish.name or "",
        scope="user",
        cluster=ClusterName(wish.cluster),
        created_at=now,
        expires_at=now + ttl,
        public_key=pair.public,
    )
    await ask.doors.store.add_token(row)
    await _tell(ask, "token.created", f"{ask.caller.user} made join token {row.id}", row.cluster)
    joining = ask.doors.joining
    line = join.spell(join.JoinToken(joining.addresses, joining.server_key, pair.secret))
    return answer(TokenCreated(row.id, line, row.expires_at), 201)


async def listing(ask: Ask) -> web.Response:
    """List tokens, newest first."""
    rows = await ask.doors.store.tokens()
    return answer(TokenList(tuple(views.token(row) for row in rows)))


async def revoke(ask: Ask) -> web.Response:
    """Make a token worthless, end what is served to it, and with it the key of the agent that has
    joined by it; a second time changes nothing.
    """
    token = ask.request.match_info["token"]
    row = await ask.doors.store.revoke_token(token) if len(token) <= 64 else None
    if row is None:
        raise not_found("token", token)
    if row.used_by is not None:
        ask.doors.link.expel(AgentId(row.used_by))
    ask.turnstile.end(token)
    await _tell(ask, "token.revoked", f"{ask.caller.user} revoked token {token}")
    return web.Response(status=204)


def _check_name(name: str, field: str) -> None:
    if not is_session_name(name):
        raise refused(
            "invalid_field",
            400,
            f"{field}: {shown(name)} is no name",
            field,
            "lower case letters, digits and hyphens, at most 63, no hyphen at the ends",
        )


def _ttl(seconds: float, longest: float) -> timedelta:
    if not (math.isfinite(seconds) and 0 < seconds <= longest):
        title = f"ttl_s is {seconds:g}; it is a number of seconds up to {longest:g}"
        raise refused("invalid_field", 400, title, "ttl_s")
    return timedelta(seconds=seconds)


def _token_id(ask: Ask) -> str:
    return base64.b32encode(ask.doors.entropy(10)).decode().lower()[:12]


async def _tell(ask: Ask, kind: str, text: str, cluster: ClusterName | None = None) -> None:
    event = NewEvent(ask.doors.clock.now(), kind, text, cluster=cluster)
    await ask.doors.store.add_event(event)
    ask.doors.chimes.ring("")
    log.info(kind, text=text)
