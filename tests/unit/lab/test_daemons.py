from __future__ import annotations

import tomllib
from pathlib import Path

import msgspec

from phalanx_agent.config import AllowedMount
from phalanx_agent.config import parse as parse_agent
from phalanx_lab import daemons
from phalanx_lab.plan import Plan
from phalanx_manager.config import parse as parse_manager


def plan(folder: Path) -> Plan:
    return Plan(
        name="t",
        nodes=2,
        cpu=16,
        mem=2**32,
        subnet=7,
        state_root=str(folder / "state"),
        run_root=str(folder / "run"),
    )


def test_the_agents_file_says_where_its_engine_is_and_how_others_reach_it(tmp_path: Path) -> None:
    (tmp_path / "state/t/h2").mkdir(parents=True)

    told = tomllib.loads(Path(daemons.agent_config(plan(tmp_path), 2, "secret")).read_text())

    assert told["name"] == "host2"
    assert told["engine"] == f"unix://{tmp_path}/run/t/h2/docker.sock"
    assert told["advertise"] == "10.99.7.2"
    assert told["join"] == "secret"
    assert (told["capacity"]["cpu"], told["capacity"]["mem"]) == (16, 2**32)
    assert parse_agent(told).mounts[0] == AllowedMount(f"{tmp_path}/state/t/share", write=True)


def test_a_folder_is_for_reading_unless_it_was_allowed_for_writing(tmp_path: Path) -> None:
    (tmp_path / "state/t/h1").mkdir(parents=True)
    wanted = msgspec.structs.replace(plan(tmp_path), mounts=("/data", "/scratch:rw"))

    told = tomllib.loads(Path(daemons.agent_config(wanted, 1, "")).read_text())

    assert parse_agent(told).mounts[-2:] == (
        AllowedMount("/data"),
        AllowedMount("/scratch", write=True),
    )


def test_an_enrolled_agent_gets_no_second_token(tmp_path: Path) -> None:
    (tmp_path / "state/t/h1").mkdir(parents=True)
    path = Path(daemons.agent_config(plan(tmp_path), 1, ""))

    assert "join" not in tomllib.loads(path.read_text())
    identity = tmp_path / "state/t/h1/agent/manager.json"
    assert not daemons.agent_is_enrolled(plan(tmp_path), 1)
    identity.write_text('{"cluster_id": ""}')
    assert not daemons.agent_is_enrolled(plan(tmp_path), 1)
    identity.write_text('{"cluster_id": "c1"}')
    assert daemons.agent_is_enrolled(plan(tmp_path), 1)


def test_files_with_tokens_are_for_their_owner_only(tmp_path: Path) -> None:
    (tmp_path / "state/t/h1").mkdir(parents=True)
    path = Path(daemons.agent_config(plan(tmp_path), 1, "secret"))

    assert path.stat().st_mode & 0o777 == 0o600


def test_the_managers_file_names_its_inherited_socket_and_its_address_on_the_switch(
    tmp_path: Path,
) -> None:
    told = tomllib.loads(Path(daemons.manager_config(plan(tmp_path))).read_text())

    assert told["http"] == "fd://3"
    assert told["rpc"] == "tcp://10.99.7.254:7911"
    parse_manager(told)


def test_a_test_may_turn_the_managers_settings(tmp_path: Path) -> None:
    turned = msgspec.structs.replace(plan(tmp_path), manager={"lost_after_s": 40})

    told = tomllib.loads(Path(daemons.manager_config(turned)).read_text())

    assert parse_manager(told).lost_after_s == 40


def test_a_manager_that_has_not_started_has_no_token(tmp_path: Path) -> None:
    assert daemons.admin_token(plan(tmp_path)) == ""


def test_a_test_may_turn_the_agents_settings(tmp_path: Path) -> None:
    turned = msgspec.structs.replace(plan(tmp_path), agent={"host_network": True})

    told = tomllib.loads(Path(daemons.agent_config(turned, 1, "")).read_text())

    assert told["host_network"] is True
    assert turned == msgspec.json.decode(msgspec.json.encode(turned), type=Plan)


def test_others_may_be_run_in_place_of_the_daemons(tmp_path: Path) -> None:
    wanted = msgspec.structs.replace(plan(tmp_path), manager_module="mine", agent_module="hers")

    assert "-m mine --config" in " ".join(daemons.manager_command(wanted))
    assert "-m hers --config" in " ".join(daemons.agent_command(wanted, 1))
