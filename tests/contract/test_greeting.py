"""The door of the real link, and what is said first: who gets in, and who does not."""

from __future__ import annotations

import asyncio

import msgspec
import pytest
import zmq
import zmq.asyncio
import zmq.utils.monitor

from phalanx_manager.core.model import Refusal
from phalanx_manager.rpc.agents import Agents
from phalanx_manager.rpc.failure import Unavailable
from phalanx_manager.rpc.keys import ServerKeys, make_pair
from phalanx_manager.rpc.port import House, JoinKey, KnownAgent
from phalanx_wire.control import PROTOCOL, Enrol, Enrolled, Hello, Refused, Welcome
from phalanx_wire.ids import AgentId
from tests.support.link import (
    LOCAL,
    PATIENCE_S,
    REPORT,
    WELCOME,
    Directory,
    Handler,
    Office,
    Peer,
    named,
    office,
    peer,
    refuse_streams,
)


async def _knock(office: Office, keys: ServerKeys) -> int:
    """Try the handshake; returns the monitor's event."""
    context = zmq.asyncio.Context()
    stranger = Peer(context, office, keys)
    monitor = stranger.socket.get_monitor_socket(
        zmq.EVENT_HANDSHAKE_SUCCEEDED | zmq.EVENT_HANDSHAKE_FAILED_AUTH
    )
    try:
        stranger.connect()
        async with asyncio.timeout(PATIENCE_S):
            frames = await monitor.recv_multipart()
        return int(zmq.utils.monitor.parse_monitor_message(frames)["event"])
    finally:
        stranger.socket.disable_monitor()
        monitor.close(linger=0)
        stranger.socket.close(linger=0)
        context.destroy(linger=0)


# ---------------------------------------------------------------- the door


async def test_a_stranger_is_refused_and_logged_once(logged: list[dict[str, object]]) -> None:
    async with office() as here:
        keys = make_pair()
        for _time in range(3):
            assert zmq.EVENT_HANDSHAKE_FAILED_AUTH == await _knock(here, keys)
        assert 4 == here.agents.door.refused  # with the one of the self test
    assert [keys.public] == [line["key"] for line in named(logged, "rpc.stranger.refused")]


async def test_a_known_key_gets_in() -> None:
    async with office() as here:
        keys = here.directory.add("gpu-1")
        assert zmq.EVENT_HANDSHAKE_SUCCEEDED == await _knock(here, keys)


async def test_a_manager_whose_door_lets_strangers_in_does_not_start() -> None:
    class Careless(Directory):
        async def who(self, public_key: str):  # type: ignore[no-untyped-def]  # noqa: ANN202
            self.agents[public_key] = AgentId("anybody")
            return await super().who(public_key)

    house = House("c", 5.0, "10.212.0.0/20", refuse_streams)
    with pytest.raises(Unavailable, match="let a stranger in"):
        async with Agents.listen(LOCAL, make_pair(), Handler(), Careless(), house):
            pass


async def test_the_door_survives_a_failing_directory(logged: list[dict[str, object]]) -> None:
    async with office() as here:
        keys = here.directory.add("gpu-1")
        here.directory.agents = None  # type: ignore[assignment]
        assert zmq.EVENT_HANDSHAKE_FAILED_AUTH == await _knock(here, keys)
        here.directory.agents = {keys.public: AgentId("gpu-1")}
        assert zmq.EVENT_HANDSHAKE_SUCCEEDED == await _knock(here, keys)
    assert named(logged, "rpc.door.failed")


async def test_a_store_that_cannot_answer_is_a_line_in_the_log_and_the_agent_tries_again(
    logged: list[dict[str, object]], monkeypatch: pytest.MonkeyPatch
) -> None:
    fails = asyncio.Semaphore(0)
    sure = Directory.who

    async def who(directory: Directory, public_key: str) -> KnownAgent | JoinKey | None:
        if fails.locked():
            return await sure(directory, public_key)
        await fails.acquire()
        raise Unavailable("the database", "it is not there")

    async with office() as here:
        keys = here.directory.add("gpu-1")
        monkeypatch.setattr(Directory, "who", who)
        fails.release()
        assert zmq.EVENT_HANDSHAKE_FAILED_AUTH == await _knock(here, keys)
        async with peer(here, keys) as agent:
            assert isinstance(await agent.greet("gpu-1"), Welcome)
            fails.release()
            await agent.say(Hello(PROTOCOL, "0.1.0", AgentId("gpu-1"), "one"))
            assert isinstance(await agent.greet("gpu-1"), Welcome)
    said = [line["event"] for line in logged if line.get("why") == "the database: it is not there"]
    assert ["rpc.door.unsure", "rpc.greeting.unanswered"] == said
    assert not any("exc_info" in line for line in logged)


async def test_a_port_in_use_is_said_with_a_hint() -> None:
    async with office() as here:
        house = House("c", 5.0, "10.212.0.0/20", refuse_streams)
        with pytest.raises(Unavailable, match="another manager"):
            async with Agents.listen(
                here.agents.address, make_pair(), Handler(), Directory(), house
            ):
                pass


# ---------------------------------------------------------------- joining and greeting


async def test_a_join_token_lets_one_agent_enrol_once() -> None:
    async with office() as here:
        token, own, other = make_pair(), make_pair(), make_pair()
        here.directory.tokens[token.public] = None
        async with peer(here, token) as joining:
            await joining.say(Enrol(PROTOCOL, AgentId("gpu-1"), own.public))
            assert Enrolled(AgentId("gpu-1"), "cluster-1") == await joining.hear()
            await joining.say(Enrol(PROTOCOL, AgentId("gpu-2"), other.public))
            assert Refused("token_used", "this join token was used before") == await joining.hear()
        async with peer(here, own) as agent:
            assert WELCOME == await agent.greet("gpu-1")


async def test_an_expired_token_is_refused_with_the_sentence_and_logged_once(
    logged: list[dict[str, object]],
) -> None:
    async with office() as here:
        token, own = make_pair(), make_pair()
        here.directory.tokens[token.public] = Refusal(
            "token_expired", 410, "this join token expired", hint="make a new one"
        )
        async with peer(here, token) as joining:
            for _time in range(3):
                await joining.say(Enrol(PROTOCOL, AgentId("gpu-1"), own.public))
                expected = Refused("token_expired", "this join token expired; make a new one")
                assert expected == await joining.hear()
    assert 1 == len(named(logged, "rpc.agent.refused"))


@pytest.mark.parametrize(
    ("message", "code"),
    [
        (Enrol(PROTOCOL, AgentId("Not A Name"), make_pair().public), "bad_name"),
        (Enrol(PROTOCOL, AgentId("gpu-1"), "short"), "bad_key"),
        (Enrol(PROTOCOL + 1, AgentId("gpu-1"), make_pair().public), "protocol_mismatch"),
        (Hello(PROTOCOL, "0.1.0", AgentId("gpu-1"), "one"), "enrol_first"),
        (REPORT, "hello_first"),
    ],
)
async def test_a_join_key_may_only_enrol_and_rightly(message: Enrol | Hello, code: str) -> None:
    async with office() as here:
        token = make_pair()
        here.directory.tokens[token.public] = None
        async with peer(here, token) as joining:
            await joining.say(message)
            answer = await joining.hear()
            assert isinstance(answer, Refused)
            assert code == answer.code


@pytest.mark.parametrize(
    ("message", "code"),
    [
        (Hello(PROTOCOL, "9", AgentId("gpu-2"), "one"), "name_mismatch"),
        (Hello(PROTOCOL, "9", AgentId("gpu-1"), ""), "bad_hello"),
        (Hello(PROTOCOL + 1, "9", AgentId("gpu-1"), "one"), "protocol_mismatch"),
        (Enrol(PROTOCOL, AgentId("gpu-1"), make_pair().public), "already_enrolled"),
        (REPORT, "hello_first"),
    ],
)
async def test_a_wrong_first_word_of_an_agent_is_answered(message: Hello, code: str) -> None:
    async with office() as here:
        async with peer(here, here.directory.add("gpu-1")) as agent:
            await agent.say(message)
            answer = await agent.hear()
            assert isinstance(answer, Refused)
            assert code == answer.code
        assert here.handler.told.empty()


async def test_a_greeting_of_another_version_is_understood_enough_to_be_refused() -> None:
    async with office() as here, peer(here, here.directory.add("gpu-1")) as agent:
        other = {"type": "Hello", "protocol": 99, "name": "gpu-1", "something": ["new"]}
        await agent.say_raw(msgspec.msgpack.encode(other))
        answer = await agent.hear()
    assert isinstance(answer, Refused)
    assert "protocol_mismatch" == answer.code
    assert "protocol 99" in answer.why


async def test_a_greeting_said_twice_keeps_the_link() -> None:
    async with office() as here, peer(here, here.directory.add("gpu-1")) as agent:
        assert WELCOME == await agent.greet("gpu-1")
        assert WELCOME == await agent.greet("gpu-1")
        assert ("connected", "gpu-1") == await here.handler.next()
        assert here.handler.told.empty()


async def test_a_revoked_key_is_told_so_at_its_next_greeting() -> None:
    async with office() as here:
        keys = here.directory.add("gpu-1")
        async with peer(here, keys) as agent:
            await agent.greet("gpu-1")
            del here.directory.agents[keys.public]
            answer = await agent.greet("gpu-1")
    assert isinstance(answer, Refused)
    assert "unknown_key" == answer.code


async def test_an_agent_that_is_expelled_has_to_greet_again() -> None:
    async with office() as here:
        keys = here.directory.add("gpu-1")
        async with peer(here, keys) as agent:
            await agent.greet("gpu-1")
            del here.directory.agents[keys.public]
            here.agents.expel(AgentId("gpu-1"))
            assert frozenset() == here.agents.connected()
            answer = await agent.greet("gpu-1")
    assert isinstance(answer, Refused)
    assert "unknown_key" == answer.code
