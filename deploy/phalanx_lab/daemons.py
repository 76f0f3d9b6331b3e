"""The lab's one place that knows how Phalanx's own daemons are started and spoken to."""

from __future__ import annotations

import http.client
import json
import os
import sys
from typing import Any

from phalanx_lab import plan as plans
from phalanx_lab import recipes
from phalanx_lab.plan import RPC_PORT, Plan
from phalanx_lab.unavailable import Unavailable

LISTENER = 3  # the first descriptor after the standard ones, as in socket activation
PIDS_PER_AGENT = 65536  # sixteen containers of the default size


def manager_config(plan: Plan) -> str:
    """Write the manager's configuration; its path."""
    folder = f"{plan.state}/manager"
    os.makedirs(folder, mode=0o700, exist_ok=True)
    return _write_toml(
        f"{plan.state}/manager.toml",
        {
            "data_dir": folder,
            "http": f"fd://{LISTENER}",
            "rpc": f"tcp://{plan.manager_address}:{RPC_PORT}",
            "admin_token_file": admin_token_file(plan),
            # The first session over several hosts shall not be the one to wait for the swarm.
            "swarm": "eager" if plan.nodes > 1 else "on-demand",
            **plan.manager,
        },
    )


def manager_command(plan: Plan) -> list[str]:
    """The argument list of the manager; it inherits its HTTP socket as descriptor 3."""
    config = f"{plan.state}/manager.toml"
    return [sys.executable, "-m", plan.manager_module, "--config", config]


def admin_token_file(plan: Plan) -> str:
    """Where the manager writes its first administrator's token."""
    return f"{plan.state}/manager/admin.token"


def admin_token(plan: Plan) -> str:
    """The administrator's token; empty while the manager has not written it."""
    try:
        with open(admin_token_file(plan), encoding="ascii") as file:
            return file.read().strip()
    except FileNotFoundError:
        return ""


def agent_config(plan: Plan, host: int, join: str) -> str:
    """Write an agent's configuration; its path. `join` is needed at its first start only."""
    state = f"{plan.host_state(host)}/agent"
    os.makedirs(state, mode=0o700, exist_ok=True)
    top: dict[str, Any] = {
        "name": plan.host_name(host),
        "state_dir": state,
        "runtime_dir": plan.agent_memory(host),
        "engine": f"unix://{plan.engine_socket(host)}",
        "advertise": plan.address(host),
        **plan.agent,
    }
    if join:
        top["join"] = join
    tables = {
        "capacity": {"cpu": plan.cpu, "mem": plan.mem, "pids": PIDS_PER_AGENT},
        "mounts": {"allow": [_allowed(mount) for mount in _mounts(plan)]},
    }
    return _write_toml(f"{plan.host_state(host)}/agent.toml", top, tables)


def _mounts(plan: Plan) -> list[str]:
    """What was asked for, one folder that all hosts share, and the cache's `site-ml`."""
    return [f"{plan.state}/share:rw", f"{recipes.cache()}/images", *plan.mounts]


def _allowed(mount: str) -> dict[str, Any]:
    path = mount.removesuffix(":rw")
    return {"path": path, "write": path != mount}


def agent_command(plan: Plan, host: int) -> list[str]:
    """The argument list of an agent."""
    config = f"{plan.host_state(host)}/agent.toml"
    return [sys.executable, "-m", plan.agent_module, "--config", config]


def agent_is_enrolled(plan: Plan, host: int) -> bool:
    """Whether the manager took an agent in at an earlier start of this lab."""
    try:
        with open(f"{plan.host_state(host)}/agent/manager.json", "rb") as file:
            return bool(json.load(file)["cluster_id"])
    except FileNotFoundError:
        return False


def manager_answers(port: int) -> bool:
    """Whether the manager serves the API: it listens before it can."""
    try:
        return _request(port, "GET", "/readyz", "")[0] == 200
    except Unavailable:
        return False


def join_token(plan: Plan, port: int, host: int) -> str:
    """A fresh token with which one agent may enrol."""
    status, answer = _request(
        port, "POST", "/v1/agent-tokens", admin_token(plan), {"name": plan.host_name(host)}
    )
    if status not in (200, 201) or not isinstance(answer, dict) or "token" not in answer:
        raise Unavailable("the manager", f"gave no join token ({status}: {answer})", "See its log.")
    return str(answer["token"])


def connected_agents(plan: Plan, port: int) -> set[str]:
    """Names of the agents that the manager is in touch with, fully fit or not."""
    status, answer = _request(port, "GET", "/v1/nodes", admin_token(plan))
    if status != 200 or not isinstance(answer, dict):
        raise Unavailable("the manager", f"does not list its nodes ({status})", "See its log.")
    nodes: list[dict[str, Any]] = answer["nodes"]
    return {node["name"] for node in nodes if node["state"] in ("ready", "degraded")}


def _request(port: int, method: str, path: str, token: str, body: Any = None) -> tuple[int, Any]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    headers = {"Content-Type": "application/json"}
    if token:
        headers["Authorization"] = f"Bearer {token}"
    try:
        connection.request(method, path, None if body is None else json.dumps(body), headers)
        answer = connection.getresponse()
        text = answer.read()
    except (OSError, http.client.HTTPException) as error:
        raise Unavailable(
            "the manager", f"{method} {path} failed: {error}", "See its log."
        ) from error
    finally:
        connection.close()
    try:
        return answer.status, json.loads(text) if text else None
    except ValueError:
        return answer.status, text.decode("utf-8", "replace")


def _write_toml(path: str, top: dict[str, Any], tables: dict[str, Any] | None = None) -> str:
    lines = [f"{key} = {_toml(value)}" for key, value in top.items()]
    for name, table in (tables or {}).items():
        lines += ["", f"[{name}]"]
        lines += [f"{key} = {_toml(value)}" for key, value in table.items()]
    plans.write(path, ("\n".join(lines) + "\n").encode(), mode=0o600)
    return path


def _toml(value: Any) -> str:
    """Strings, numbers and truths are written alike in TOML and JSON; tables are not."""
    match value:
        case dict():
            return "{" + ", ".join(f"{key} = {_toml(one)}" for key, one in value.items()) + "}"
        case list():
            return "[" + ", ".join(map(_toml, value)) + "]"
        case _:
            return json.dumps(value)
