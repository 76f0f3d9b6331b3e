"""One agent whose link has no room keeps no other from its goals."""

from __future__ import annotations

import asyncio

import pytest

from phalanx_manager.loops import converge
from phalanx_wire.control import Goals
from phalanx_wire.ids import AgentId
from tests.unit.manager.loops.conftest import House, Post, two_hosts

A, B = AgentId("a"), AgentId("b")


class FullPost(Post):
    """The link of `a` has no room until `room` is set; `b` is told as ever."""

    def __init__(self) -> None:
        super().__init__()
        self.room = asyncio.Event()
        self.b_told = asyncio.Event()

    async def send(self, agent: AgentId, goals: Goals) -> bool:
        if agent == A:
            await self.room.wait()
        sent = await super().send(agent, goals)
        if agent == B:
            self.b_told.set()
        return sent


async def full(house: House) -> FullPost:
    """Two agents that shall hear of a session of theirs, and the first has no room."""
    await two_hosts(house)
    post = FullPost()
    house.converge.attach(post)
    await house.submit(size=2, mode="multi-node")
    house.schedule.bell.ring()
    await house.schedule.turn()
    house.converge.bell.ring()
    return post


async def test_an_agent_without_room_keeps_no_other_from_its_goals(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(converge, "_SEND_S", 60.0)
    post = await full(house)
    turn = asyncio.ensure_future(house.converge.turn())
    async with asyncio.timeout(5):
        await post.b_told.wait()
        assert A not in post.told
        post.room.set()
        await turn
    assert {A, B} == post.told.keys()


async def test_an_agent_without_room_is_told_as_soon_as_it_has_some(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(converge, "_SEND_S", 0.01)
    post = await full(house)
    await house.converge.turn()
    assert A not in post.told
    post.room.set()
    async with asyncio.timeout(5):
        await house.converge.turn()
    assert A in post.told
