"""Why a session is as it is."""

from __future__ import annotations

from aiohttp import web

from phalanx_manager.core import why
from phalanx_manager.http.ask import Ask, answer
from phalanx_manager.rpc import looks
from phalanx_wire.api import WhyView


async def show(ask: Ask) -> web.Response:
    """Tell it, within a second also when agents are cut off."""
    row = await ask.row()
    doors = ask.doors
    with ask.turnstile.stream(ask.caller):
        scene = await looks.see(doors.link, row)
    agents = {record.name: record for record in await doors.store.agents()}
    now, session = doors.clock.now(), row.session
    return answer(
        WhyView(
            id=session.id,
            name=session.name,
            state=session.state,
            attempt=session.attempt,
            looked_at=now,
            findings=why.findings(scene, agents, now),
            missing=tuple(scene.missing),
        )
    )
