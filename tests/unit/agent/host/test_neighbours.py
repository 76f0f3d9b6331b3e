"""Who answers at a port of a host, tried with real sockets."""

from __future__ import annotations

import socket

import pytest

from phalanx_agent.host import neighbours

HERE, ALSO_HERE = "127.0.0.1", "127.0.0.2"


async def test_a_port_that_is_closed_is_an_answer_and_one_that_says_nothing_is_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(neighbours, "_TRIES_S", (0.05, 0.05))
    with socket.create_server((HERE, 0), backlog=0) as full:
        address = full.getsockname()
        with socket.create_connection(address):  # nobody accepts, and there is no room for more
            silent = await neighbours.silent((HERE, ALSO_HERE), address[1])

    assert {HERE} == silent
