"""Sessions: submit, list, show, stop, signal, wait."""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Final

import msgspec
import structlog
from aiohttp import web

from phalanx_manager.core import after, place, sealing, seat, swarm
from phalanx_manager.core.admit import Admitted, admit
from phalanx_manager.core.cluster_env import Environments
from phalanx_manager.core.clusters import closed
from phalanx_manager.core.model import AgentRecord, Refusal, SessionRow, Stop, StopCause
from phalanx_manager.core.naming import readable_name
from phalanx_manager.core.notice import hearers, recipients
from phalanx_manager.core.session import is_gone
from phalanx_manager.core.warning import signal_number
from phalanx_manager.http import bodies, views
from phalanx_manager.http.ask import Ask, answer
from phalanx_manager.http.problems import not_found, of_stream, refusal, refused, shown
from phalanx_manager.rpc import signals
from phalanx_manager.store.port import AlreadyThere, Created, NewSession, SessionFilter
from phalanx_wire.api import (
    DryRun,
    EnvView,
    RankEnv,
    SessionList,
    SignalRequest,
    StopRequest,
)
from phalanx_wire.ids import AgentId, session_id
from phalanx_wire.spec import SessionSpec

MAX_WAIT_S: Final = 300.0
MAX_ENV_CHARACTERS: Final = 32 << 20
_KEY: Final = re.compile(r"[\x21-\x7e]{1,255}")

log = structlog.get_logger(__name__)


async def submit(ask: Ask) -> web.Response:
    """Admit a session and write it down, or say where it would go."""
    raw = await bodies.read_json(ask.request)
    spec = bodies.parse(raw, SessionSpec)
    key = ask.request.headers.get("Idempotency-Key")
    if key is not None and _KEY.fullmatch(key) is None:
        raise refused(
            "bad_idempotency_key", 400, "an Idempotency-Key is 1 to 255 printable characters"
        )
    doors = ask.doors
    digest = hashlib.sha256(raw).hexdigest()
    dry_run = ask.values.get("dry_run", False)
    if key is not None and not dry_run:
        # Before it is judged: what speaks against it by now does not undo that it was accepted.
        before = await doors.store.repeated(ask.caller.user, key, digest)
        if before is not None:
            return await _submitted(ask, before)
    known = await doors.store.load()
    name = readable_name(doors.entropy(4))
    admitted = admit(spec, doors.limits, known.agents, name, doors.lost_after_s)
    if isinstance(admitted, Refusal):
        raise refusal(admitted)
    shut = closed(known.clusters, admitted.spec.cluster)
    if shut is not None:
        raise refusal(shut)
    admitted = await _after(ask, await _sealed(ask, admitted, known.agents))
    if dry_run:
        return answer(await _preview(ask, admitted))
    outcome = await doors.store.submit(
        NewSession(
            id=session_id(doors.entropy(12)),
            caller=ask.caller,
            admitted=admitted,
            at=doors.clock.now(),
            idempotency_key=key,
            body_digest=digest,
            most=doors.limits.max_containers,
        )
    )
    return await _submitted(ask, outcome)


async def _sealed(ask: Ask, admitted: Admitted, agents: Mapping[AgentId, AgentRecord]) -> Admitted:
    """Have the upload, and find out who can open it: all of the cluster must."""
    spec, uploads = admitted.spec, ask.doors.uploads
    sealed_for = None
    if spec.upload is not None:
        if not uploads.has(spec.upload):
            title, hint = (
                f"there is no archive {shown(spec.upload)}",
                "send it with PUT /v1/uploads",
            )
            raise refused("upload_unknown", 422, title, "upload", f"{hint} first")
        keys = await asyncio.to_thread(uploads.recipients, spec.upload)
        found = None if keys is None else sealing.recipients(agents, spec.cluster, keys)
        if isinstance(found, Refusal):
            raise refusal(found)
        sealed_for = None if found is None else dict(found)
    return replace(admitted, spec=msgspec.structs.replace(spec, sealed_for=sealed_for))


async def _after(ask: Ask, admitted: Admitted) -> Admitted:
    """Name the sessions to wait for by their ids, for names may be used again."""
    wishes = after.parse(admitted.spec.after) if admitted.spec.after is not None else None
    if wishes is None:
        return admitted
    found: list[after.After] = []
    for wish in wishes:
        row = await ask.doors.store.session(wish.ref, ask.caller)
        if isinstance(row, Refusal):
            raise refusal(replace(row, field="after"))
        if row is None:
            title = f"there is no session {shown(wish.ref)} to wait for"
            raise refused("after_unknown", 422, title, "after", "see: phalanx ps --all")
        found.append(after.After(wish.kind, row.session.id))
    spec = msgspec.structs.replace(admitted.spec, after=after.spell(found))
    return replace(admitted, spec=spec)


async def _submitted(ask: Ask, outcome: Created | AlreadyThere | Refusal) -> web.Response:
    if isinstance(outcome, Refusal):
        raise refusal(outcome)
    row = await ask.doors.store.session(outcome.session, ask.caller)
    if not isinstance(row, SessionRow):
        raise not_found("session", outcome.session)
    if isinstance(outcome, AlreadyThere):
        return answer(views.session(row))
    log.info("session.submitted", session=outcome.session, user=ask.caller.user)
    return answer(views.session(row), 201, Location=f"/v1/sessions/{outcome.session}")


async def _preview(ask: Ask, admitted: Admitted) -> DryRun:
    """Say where a request would go if it were alone in the queue."""
    spec = admitted.spec
    cluster = views.cluster_of(spec)
    snapshot = await ask.doors.store.load()
    verdict = swarm.verdict(snapshot, cluster)
    rooms = place.rooms(snapshot, cluster, verdict.members, ask.doors.clock.now())
    rooms = tuple(sealing.rooms(rooms, snapshot.agents, spec.sealed_for))
    waits = verdict.waits
    if spec.network == "host":
        rooms, waits = seat.host_rooms(snapshot, rooms), ""
        if not rooms:
            return DryRun(spec, None, seat.NO_HOST_NETWORK)
    fit = place.gang(place.Request.of(spec, admitted.kernels), rooms, waits)
    if isinstance(fit, place.Fit):
        return DryRun(spec, fit.agents, None)
    return DryRun(spec, None, fit.reason)


async def listing(ask: Ask) -> web.Response:
    """List sessions, newest first."""
    rows = await ask.doors.store.sessions(
        SessionFilter(
            user=None if ask.caller.scope == "admin" else ask.caller.user,
            states=ask.values.get("state"),
            ended_too=ask.values.get("all", False),
            limit=ask.values.get("limit", 100),
        )
    )
    return answer(SessionList(tuple(views.session(row) for row in rows)))


async def show(ask: Ask) -> web.Response:
    """Show one session."""
    return answer(views.session(await ask.row()))


async def stop(ask: Ask) -> web.Response:
    """Stop a session; again, or when it has ended, nothing changes."""
    raw = await bodies.read_json(ask.request) if ask.request.can_read_body else b"{}"
    wish = bodies.parse(raw, StopRequest)
    longest = ask.doors.limits.max_grace_s
    if wish.grace_s is not None and not 0 <= wish.grace_s <= longest:
        title = f"grace_s is {wish.grace_s:g}; it is a number of seconds from 0 to {longest:g}"
        raise refused("invalid_field", 400, title, "grace_s")
    row = await ask.row()
    order = Stop(
        cause=StopCause.USER,
        text=f"stopped by {ask.caller.user}",
        at=ask.doors.clock.now(),
        grace_s=wish.grace_s,
    )
    if await ask.doors.store.stop(row.session.id, order):
        log.info("session.stop", session=row.session.id, user=ask.caller.user)
    return answer(views.session(await ask.again(row)))


async def env(ask: Ask) -> web.Response:
    """Show the environment of every rank."""
    row = await ask.row()
    every = Environments(row.session, row.kernels)
    ranks: list[RankEnv] = []
    held = 0
    for one in ask.kernels(row):
        if held > MAX_ENV_CHARACTERS:
            title = f"all of it is too long; ask for fewer ranks, e.g. up to {one.rank - 1}"
            raise refused("too_many_ranks", 400, title, "rank")
        found = every.of(one.rank)
        ranks.append(RankEnv(one.rank, one.host_name, found))
        held += sum(len(variable.value) for variable in found)
        await asyncio.sleep(0)  # each names all the others, which takes a while where they are many
    return answer(EnvView(row.session.spec.env_profile or "default", tuple(ranks)))


async def wait(ask: Ask) -> web.Response:
    """Answer when the session runs or has ended, or when the time is over."""
    row = await ask.row()
    until = ask.values.get("until", "ended")
    clock = ask.doors.clock
    end = clock.monotonic_s() + ask.values.get("timeout_s", 30.0)
    with ask.turnstile.stream(ask.caller), ask.doors.chimes.watch(row.session.id) as bell:
        row = await ask.again(row)
        while not _reached(row, until):
            left = end - clock.monotonic_s()
            if left <= 0 or not await bell.wait(left):
                break
            row = await ask.again(row)
    return answer(views.session(await ask.again(row)))


def _reached(row: SessionRow, until: str) -> bool:
    if until == "removed":
        return is_gone(row)
    if row.session.ended_at is not None:
        return True
    return until == "running" and row.session.state == "running"


# ---------------------------------------------------------------- signals


async def send_signal(ask: Ask) -> web.Response:
    """Send a signal to the command of all ranks that run, or of the ranks named."""
    wish = await ask.body(SignalRequest)
    number = signal_number(wish.signal)
    if number is None:
        hint = "a name like TERM or SIGUSR1, or a number from 1 to 64"
        raise refused("invalid_field", 400, f"{shown(wish.signal)} is no signal", "signal", hint)
    row = await ask.row()
    named = wish.ranks
    if named is not None and (not named or len(named) > len(row.kernels)):
        title = "it names ranks from 1 to as many as there are, each once"
        raise refused("invalid_field", 400, f"ranks: {title}", "ranks")
    wanted = [one for one in row.kernels if named is None or one.rank in named]
    if named is not None and len(wanted) != len(set(named)):
        raise refused("no_such_rank", 404, f"it has ranks 0 to {len(row.kernels) - 1}", "ranks")
    to = wish.to or ("all" if row.session.spec.env_profile == "slurm" else "command")
    running = [one for one in hearers(row, to) if one in wanted]
    if not running or (named is not None and len(running) != len(wanted)):
        where = f"session {row.session.name} is {row.session.state}"
        raise refused("not_running", 409, f"{where}, but no command runs there that takes a signal")
    addressed = [(one, recipients(row.session, one, to) or to) for one in running]
    failed = await signals.send_all(ask.doors.link, addressed, number)
    if failed:
        problem = of_stream(failed[0])
        raise refused(problem.code, problem.status, problem.title)
    return web.Response(status=204)
