from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from phalanx_agent.config import PortRange
from phalanx_agent.core.refused import Refused
from phalanx_agent.host import ports

KEPT = PortRange(61000, 61999)


@pytest.fixture
def settings(tmp_path: Path) -> Path:
    (tmp_path / "ip_local_port_range").write_text("32768\t60999\n")
    (tmp_path / "ip_local_reserved_ports").write_text("8080,33000-33010\n")
    return tmp_path


def reserved(settings: Path) -> str:
    return (settings / "ip_local_reserved_ports").read_text().strip()


@pytest.fixture
def listening() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def test_ports_outside_of_the_outgoing_ones_need_nothing(settings: Path) -> None:
    assert "" == ports.keep(KEPT, settings)
    assert "8080,33000-33010" == reserved(settings)


def test_ports_among_the_outgoing_ones_are_reserved_beside_what_is_reserved(settings: Path) -> None:
    assert "" == ports.keep(PortRange(60000, 60099), settings)
    assert "8080,33000-33010,60000-60099" == reserved(settings)


def test_ports_that_are_reserved_are_left_alone(settings: Path) -> None:
    assert "" == ports.keep(PortRange(33001, 33010), settings)
    assert "8080,33000-33010" == reserved(settings)


def test_what_cannot_be_reserved_is_told_with_what_to_do(settings: Path) -> None:
    (settings / "ip_local_reserved_ports").unlink()
    (settings / "ip_local_reserved_ports").mkdir()

    said = ports.keep(PortRange(60000, 60099), settings)

    assert "60000-60099" in said
    assert "32768-60999" in said
    assert "ip_local_reserved_ports" in said


def test_a_free_port_is_fine(listening: int) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        free = server.getsockname()[1]

    ports.check((free,), KEPT)


def test_a_taken_port_is_named_with_its_holder(listening: int) -> None:
    name = Path("/proc/self/comm").read_text().strip()

    with pytest.raises(Refused) as caught:
        ports.check((listening,), KEPT)

    told = str(caught.value)
    assert f"Port {listening} of the host is taken by {name} (pid {os.getpid()})" in told
    assert "--master-port" in told


def test_of_a_port_that_is_kept_it_is_said_that_it_must_be_left(listening: int) -> None:
    with pytest.raises(Refused, match="must be left to containers"):
        ports.check((listening,), PortRange(listening, listening + 1))
