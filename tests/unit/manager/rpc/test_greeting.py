from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from phalanx_manager.rpc.greeting import Admit, Incarnations, answer
from phalanx_manager.rpc.port import House
from phalanx_wire.codec import encode
from phalanx_wire.control import PROTOCOL, Hello, Refused
from phalanx_wire.ids import AgentId
from tests.support.link import Directory, refuse_streams

HOUSE = House("cluster-1", 5.0, "10.212.0.0/20", refuse_streams)
KNOWN = Directory(agents={"key": AgentId("gpu-1")})


@given(st.binary(max_size=300))
async def test_nonsense_is_no_greeting(data: bytes) -> None:
    assert await answer(data, "key", KNOWN, HOUSE) is None


@given(st.recursive(st.none() | st.integers(-9, 9) | st.text(max_size=5), st.lists, max_leaves=20))
async def test_well_formed_nonsense_is_no_greeting_either(value: object) -> None:
    greeting = msgspec.msgpack.encode({"type": "Hello", "protocol": PROTOCOL, "name": value})
    assert await answer(greeting, "key", KNOWN, HOUSE) is None


@pytest.mark.parametrize("incarnation", ["a", "~" * 64])
async def test_a_hello_is_answered_with_what_the_agent_needs(incarnation: str) -> None:
    hello = Hello(PROTOCOL, "0.1.0" * 100, AgentId("gpu-1"), incarnation)
    found = await answer(encode(hello), "key", KNOWN, HOUSE)
    assert isinstance(found, Admit)
    assert ("gpu-1", incarnation, 40) == (found.agent, found.incarnation, len(found.version))


@pytest.mark.parametrize("incarnation", ["", "a b", "x" * 65, "\n", "é"])
async def test_an_incarnation_is_short_and_printable(incarnation: str) -> None:
    hello = Hello(PROTOCOL, "0", AgentId("gpu-1"), incarnation)
    found = await answer(encode(hello), "key", KNOWN, HOUSE)
    assert isinstance(found, Refused)
    assert "bad_hello" == found.code


def test_a_process_whose_place_was_taken_stays_out() -> None:
    processes = Incarnations()
    assert [True, True, True, False, True, False, False] == [
        processes.enter(name) for name in ("a", "a", "b", "a", "c", "b", "a")
    ]
