from __future__ import annotations

from pathlib import Path

import pytest

from phalanx_agent.config import ConfigError as AgentMistakes
from phalanx_agent.rpc.identity import Manager, save_manager
from phalanx_manager.config import ConfigError as ManagerMistakes
from phalanx_up import plan
from phalanx_up.plan import Wish

WISH = Wish(
    data=Path("/srv/phalanx"),
    listen="127.0.0.1:7910",
    agents="tcp://127.0.0.1:7911",
    name="host1",
    engine="unix:///run/docker.sock",
    runtime=Path("/run/phalanx-up"),
)


def test_manager_and_agent_share_one_data_folder() -> None:
    assert Path("/srv/phalanx/manager") == plan.manager(WISH).data_dir
    assert Path("/srv/phalanx/agent") == plan.agent(WISH, "").state_dir


def test_the_agent_uses_the_engine_that_was_named() -> None:
    assert "/run/docker.sock" == plan.agent(WISH, "").engine


def test_a_wrong_address_or_name_is_a_sentence() -> None:
    with pytest.raises(ManagerMistakes, match="http must be host:port"):
        plan.manager(Wish(WISH.data, "nowhere", WISH.agents, "x", WISH.engine, WISH.runtime))
    with pytest.raises(AgentMistakes, match="engine must be a socket"):
        plan.agent(Wish(WISH.data, WISH.listen, WISH.agents, "x", "tcp://x", WISH.runtime), "")


def test_state_is_kept_where_the_user_may_write() -> None:
    assert Path("/var/lib/phalanx") == plan.default_data(root=True, home="/root")
    assert Path("/home/u/.local/share/phalanx") == plan.default_data(root=False, home="/home/u")


@pytest.mark.parametrize(
    ("data", "memory", "expected"),
    [
        ("/var/lib/phalanx", {"/run", "/dev/shm"}, "/run/phalanx-up"),
        ("/var/lib/phalanx", {"/dev/shm"}, "/dev/shm/phalanx-up"),
        ("/srv/a", {"/run"}, "/run/phalanx-up-srv-a"),
        ("/srv/a", set(), "/run/phalanx-up-srv-a"),
    ],
)
def test_keys_lie_in_memory_apart_for_each_data_folder(
    data: str, memory: set[str], expected: str
) -> None:
    assert Path(expected) == plan.default_runtime(Path(data), memory.__contains__)


def test_what_is_in_memory_is_read_from_the_kernel() -> None:
    assert plan.is_tmpfs("/dev/shm") is True
    assert plan.is_tmpfs("/proc") is False


def test_an_agent_joins_once_and_again_when_its_manager_has_moved(tmp_path: Path) -> None:
    wish = Wish(tmp_path, WISH.listen, WISH.agents, "x", WISH.engine, WISH.runtime)
    here, there = ("tcp://127.0.0.1:7911",), ("tcp://127.0.0.1:8000",)
    before = plan.must_join(wish, here)
    save_manager(tmp_path / "agent", Manager(here, "key"))

    assert (True, False, True) == (
        before,
        plan.must_join(wish, here),
        plan.must_join(wish, there),
    )


def test_the_machines_name_fits_the_grammar(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("socket.gethostname", lambda: "My_Host.example.org")

    assert "my-host" == plan.host_name()
