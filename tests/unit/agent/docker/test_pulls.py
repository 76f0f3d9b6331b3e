"""What an engine says while it gets an image, and when it says nothing more."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from aiohttp import web

from phalanx_agent.docker.engine import DockerEngine
from phalanx_agent.docker.port import Unavailable
from tests.support.scripted_engine import Answer, Script

PULL = "POST images/create"


def tells(*messages: dict[str, Any], until: asyncio.Event) -> Answer:
    """A stream of messages that stays open until something happens."""

    async def answer(request: web.Request) -> web.StreamResponse:
        stream = web.StreamResponse()
        await stream.prepare(request)
        for message in messages:
            await stream.write(json.dumps(message).encode() + b"\r\n")
        await until.wait()
        return stream

    return answer


def layer(status: str, **detail: int) -> dict[str, Any]:
    return {"id": "5b3d", "status": status, "progressDetail": detail}


async def test_a_pull_of_which_nothing_comes_is_given_up_and_may_be_tried_again(
    script: Script, docker: DockerEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("phalanx_agent.docker.images._QUIET_S", 0.1)
    begun = layer("Downloading", current=1 << 20, total=8 << 20)
    never = asyncio.Event()
    script.on(PULL, tells(begun, until=never))
    said: list[str] = []

    with pytest.raises(Unavailable, match="Nothing has come of it for 0 s; does its reg") as stall:
        await docker.pull("big", said.append)
    never.set()

    assert ["pulling image big, 1 MiB of 8 MiB"] == said
    assert ("image big", "unknown") == (stall.value.what, stall.value.kind)


async def test_a_pull_that_broke_off_is_told_until_it_goes_on(
    script: Script, docker: DockerEngine
) -> None:
    over = asyncio.Event()
    over.set()
    counted = [layer(f"Retrying in {left} seconds") for left in (2, 1)]
    resumed = layer("Downloading", current=2 << 20, total=8 << 20)
    script.on(PULL, tells(*counted, resumed, until=over))
    said: list[str] = []

    with pytest.raises(Unavailable, match="does not have it afterwards"):
        await docker.pull("big", said.append)

    broke_off = "pulling image big: it broke off, and the engine tries again"
    assert [broke_off, broke_off, "pulling image big, 2 MiB of 8 MiB"] == said
