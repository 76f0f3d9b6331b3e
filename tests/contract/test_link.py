"""The real link on the loopback: who is who, and what passes."""

from __future__ import annotations

import asyncio

import msgspec
import pytest
import zmq
import zmq.asyncio

from phalanx_manager.rpc.failure import Unavailable
from phalanx_wire.codec import MAX_MESSAGE_BYTES, encode
from phalanx_wire.control import PROTOCOL, Beat, Goals, Heard, Hello, Refused
from phalanx_wire.ids import AgentId, KernelId
from phalanx_wire.slots import Slots
from phalanx_wire.stream import Data, ReadCall
from tests.support.link import (
    PATIENCE_S,
    REPORT,
    WELCOME,
    Peer,
    named,
    office,
    peer,
)

READ = ReadCall(KernelId("k"), "/data")


# ---------------------------------------------------------------- identity


async def test_a_name_belongs_to_its_key() -> None:
    async with office() as here:
        thief = here.directory.add("gpu-2")
        async with peer(here, here.directory.add("gpu-1")) as agent, peer(here, thief) as other:
            await agent.greet("gpu-1")
            answer = await other.greet("gpu-1", "two")
            assert isinstance(answer, Refused)
            assert "name_mismatch" == answer.code
            assert await here.agents.send(AgentId("gpu-1"), Goals(revision=7))
            assert Goals(revision=7) == await agent.hear()


async def test_a_route_that_looks_like_another_agents_takes_nothing_over() -> None:
    async with office() as here:
        keys, thief = here.directory.add("gpu-1"), here.directory.add("gpu-2")
        async with peer(here, keys) as agent:
            await agent.greet("gpu-1")
            route = here.agents._links[AgentId("gpu-1")].route
            context = zmq.asyncio.Context()
            other = Peer(context, here, thief)
            other.socket.routing_id = route if route[0] else b"\x01" + route[1:]
            other.connect()
            await other.say(REPORT)
            assert await here.agents.send(AgentId("gpu-1"), Goals(revision=8))
            assert Goals(revision=8) == await agent.hear()
            other.socket.close(linger=0)
            context.destroy(linger=0)
        assert here.handler.reports.empty()


async def test_a_newer_process_takes_the_place_of_the_older_and_keeps_it() -> None:
    async with office() as here:
        keys = here.directory.add("gpu-1")
        async with peer(here, keys) as old, peer(here, keys) as new:
            assert WELCOME == await old.greet("gpu-1", "first")
            assert ("connected", "gpu-1") == await here.handler.next()
            assert WELCOME == await new.greet("gpu-1", "second")
            assert ("disconnected", "gpu-1") == await here.handler.next()
            assert ("connected", "gpu-1") == await here.handler.next()
            await here.agents.send(AgentId("gpu-1"), Goals(revision=3))
            assert Goals(revision=3) == await new.hear()
            answer = await old.greet("gpu-1", "first")
            assert isinstance(answer, Refused)
            assert "superseded" == answer.code
        assert await here.handler.next() == ("disconnected", "gpu-1")


async def test_a_process_that_reconnects_is_welcome_again() -> None:
    async with office() as here:
        keys = here.directory.add("gpu-1")
        for _time in range(2):
            async with peer(here, keys) as agent:
                assert WELCOME == await agent.greet("gpu-1", "same")
                assert ("connected", "gpu-1") == await here.handler.next()
            assert ("disconnected", "gpu-1") == await here.handler.next()


# ---------------------------------------------------------------- state


async def test_goals_go_down_and_reports_come_up() -> None:
    async with office() as here, peer(here, here.directory.add("gpu-1")) as agent:
        await agent.greet("gpu-1")
        assert {"gpu-1"} == here.agents.connected()
        await here.agents.send(AgentId("gpu-1"), Goals(revision=1))
        assert Goals(revision=1) == await agent.hear()
        for _beat in range(3):
            await agent.say(REPORT)
            async with asyncio.timeout(PATIENCE_S):
                assert ("gpu-1", REPORT) == await here.handler.reports.get()


async def test_only_who_has_greeted_is_told_that_it_was_heard() -> None:
    async with office() as here, peer(here, here.directory.add("gpu-1")) as agent:
        await agent.say(Beat(1))
        answer = await agent.hear()
        assert isinstance(answer, Refused)
        await agent.greet("gpu-1")
        await agent.say(Beat(2))
        assert Heard(2) == await agent.hear()


async def test_a_manager_that_may_not_lead_any_more_answers_no_beat() -> None:
    leads = [True, False, True]  # at the greeting, and at each beat
    async with (
        office(surely_leads=lambda: leads.pop(0)) as here,
        peer(here, here.directory.add("gpu-1")) as agent,
    ):
        await agent.greet("gpu-1")
        for number in (1, 2):
            await agent.say(Beat(number))
        assert Heard(2) == await agent.hear()
    assert [] == leads


async def test_a_manager_that_may_not_lead_any_more_sends_no_goals_and_welcomes_nobody() -> None:
    leads, asked = [True], asyncio.Event()

    def surely_leads() -> bool:
        if not leads[0]:
            asked.set()
        return leads[0]

    async with (
        office(surely_leads=surely_leads) as here,
        peer(here, here.directory.add("gpu-1")) as agent,
        peer(here, here.directory.add("gpu-2")) as other,
    ):
        await agent.greet("gpu-1")
        leads[0] = False
        await other.say(Hello(PROTOCOL, "1", AgentId("gpu-2"), "process"))
        async with asyncio.timeout(10):
            await asked.wait()
        sent = await here.agents.send(AgentId("gpu-1"), Goals(revision=1))
        leads[0] = True
        await agent.say(Beat(1))
        assert Heard(1) == await agent.hear()

        assert not sent
        assert frozenset({"gpu-1"}) == here.agents.connected()
        assert await here.agents.send(AgentId("gpu-1"), Goals(revision=2))


async def test_a_lost_connection_is_known_at_once() -> None:
    async with office() as here:
        async with peer(here, here.directory.add("gpu-1")) as agent:
            await agent.greet("gpu-1")
            assert ("connected", "gpu-1") == await here.handler.next()
        assert ("disconnected", "gpu-1") == await here.handler.next()
        assert frozenset() == here.agents.connected()
        assert not await here.agents.send(AgentId("gpu-1"), Goals(revision=1))
        with pytest.raises(Unavailable, match="not connected"):
            await here.agents.open(AgentId("gpu-1"), READ)


NONSENSE: dict[str, tuple[bytes, ...]] = {
    "empty": (b"",),
    "not msgpack": (b"\xff",),
    "three parts": (b"a", b"b", b"c"),
    "a hundred parts": (b"a",) * 100,
    "array bomb": (b"\xdd\xff\xff\xff\xff",),
    "nested": (b"\x91" * 5000,),
    "an extension type": (b"\xd4\x05\x00",),
    "a number for a key": (b"\x81\x01\x02",),
    "a message of nobody": (msgspec.msgpack.encode({"type": "Sudo"}),),
    "goals, which are ours to say": (encode(Goals(1)),),
    "a stream that is not there": (encode(Data(77, 1, b"x")),),
}


@pytest.mark.parametrize("what", NONSENSE)
async def test_nonsense_is_survived(what: str) -> None:
    frames = NONSENSE[what]
    async with office() as here, peer(here, here.directory.add("gpu-1")) as agent:
        await agent.say_raw(*frames)  # before the greeting
        await agent.greet("gpu-1")
        await agent.say_raw(*frames)  # and after
        await agent.say(REPORT)
        async with asyncio.timeout(PATIENCE_S):
            assert ("gpu-1", REPORT) == await here.handler.reports.get()


@pytest.mark.parametrize("frames", [(b"\xff",), (b"a", b"b")], ids=["noise", "two parts"])
async def test_an_agent_that_only_talks_nonsense_loses_its_link(
    frames: tuple[bytes, ...], logged: list[dict[str, object]]
) -> None:
    async with office() as here, peer(here, here.directory.add("gpu-1")) as agent:
        await agent.greet("gpu-1")
        assert ("connected", "gpu-1") == await here.handler.next()
        for _time in range(10):
            await agent.say_raw(*frames)
        assert ("disconnected", "gpu-1") == await here.handler.next()
    assert 1 == len(named(logged, "rpc.nonsense"))


async def test_a_message_that_is_too_large_ends_the_connection_unread() -> None:
    async with office() as here, peer(here, here.directory.add("gpu-1")) as agent:
        await agent.greet("gpu-1")
        assert ("connected", "gpu-1") == await here.handler.next()
        await agent.say_raw(bytes(MAX_MESSAGE_BYTES + 1))
        assert ("disconnected", "gpu-1") == await here.handler.next()


async def test_a_host_that_cannot_be_is_refused(logged: list[dict[str, object]]) -> None:
    async with office() as here, peer(here, here.directory.add("gpu-1")) as agent:
        await agent.greet("gpu-1")
        await agent.say(msgspec.structs.replace(REPORT, capacity=Slots(cpu_milli=-1)))
        answer = await agent.hear()
        assert isinstance(answer, Refused)
        assert "bad_report" == answer.code
        assert "agent gpu-1" in answer.why
        assert ("connected", "gpu-1") == await here.handler.next()
        assert ("disconnected", "gpu-1") == await here.handler.next()
        assert here.handler.reports.empty()
    assert ["bad_report"] == [line["code"] for line in named(logged, "rpc.agent.refused")]
