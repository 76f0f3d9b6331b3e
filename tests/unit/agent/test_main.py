"""Why an agent cannot start, said to its operator."""

from __future__ import annotations

import fcntl
import sys
from pathlib import Path

import pytest
import zmq

from phalanx_agent.__main__ import CannotStart, main, serve
from phalanx_agent.config import AgentConfig
from phalanx_agent.rpc.identity import Manager, save_manager
from phalanx_wire import join
from phalanx_wire.ids import AgentId
from phalanx_wire.join import JoinToken


def config(folder: Path, token: str = "") -> AgentConfig:
    return AgentConfig(AgentId("host1"), folder / "state", folder / "memory", "/nosuch.sock", token)


def token_of(server_key: str) -> str:
    _, secret = zmq.curve_keypair()
    return join.spell(JoinToken(("tcp://127.0.0.1:1",), server_key, secret.decode()))


async def test_an_agent_without_a_token_says_how_to_get_one(tmp_path: Path) -> None:
    with pytest.raises(CannotStart, match="phalanx token create --agent"):
        await serve(config(tmp_path))


async def test_a_damaged_token_is_named(tmp_path: Path) -> None:
    with pytest.raises(CannotStart, match="join"):
        await serve(config(tmp_path, "phxjoin1.x"))


async def test_an_agent_does_not_change_its_manager_by_accident(tmp_path: Path) -> None:
    mine, other = (zmq.curve_keypair()[0].decode() for _ in range(2))
    save_manager(tmp_path / "state", Manager(("tcp://127.0.0.1:1",), mine, "c1"))

    with pytest.raises(CannotStart, match="another manager"):
        await serve(config(tmp_path, token_of(other)))


async def test_keys_are_kept_in_memory_or_not_at_all(tmp_path: Path) -> None:
    mine = zmq.curve_keypair()[0].decode()
    save_manager(tmp_path / "state", Manager(("tcp://127.0.0.1:1",), mine, "c1"))
    disk = Path("/var/tmp")
    wrong = AgentConfig(AgentId("host1"), tmp_path / "state", disk, "/nosuch.sock")

    with pytest.raises(CannotStart, match="memory"):
        await serve(wrong)


@pytest.mark.parametrize("place", ["/proc/nowhere", "{folder}/file/below", "/sys"])
async def test_a_state_folder_that_cannot_be_used_is_said(tmp_path: Path, place: str) -> None:
    (tmp_path / "file").touch()
    state = Path(place.format(folder=tmp_path))
    wrong = AgentConfig(AgentId("host1"), state, tmp_path / "memory", "/nosuch.sock")

    with pytest.raises(CannotStart, match=f"state_dir {state}: .*; set it to a folder"):
        await serve(wrong)


async def test_two_agents_do_not_share_a_state_folder(tmp_path: Path) -> None:
    (tmp_path / "state").mkdir()
    with (tmp_path / "state" / "lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(CannotStart, match="Another agent runs with state_dir"):
            await serve(config(tmp_path))


def test_a_wrong_configuration_ends_with_2(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "agent.toml"
    file.write_text("nonsense = 1")
    monkeypatch.setattr(sys, "argv", ["agent", "--config", str(file)])

    assert 2 == main()
    assert "nonsense" in capsys.readouterr().err


def test_a_configuration_can_be_checked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "agent.toml"
    file.write_text('name = "host1"')
    monkeypatch.setattr(sys, "argv", ["agent", "--config", str(file), "--check"])

    assert 0 == main()
    assert "fine" in capsys.readouterr().out
