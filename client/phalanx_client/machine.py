"""Facts of this machine, for `fitness`: the one place of the client that looks at it."""

from __future__ import annotations

import glob
import http.client
import importlib.util
import json
import os
import re
import shutil
import subprocess
from typing import Any

from phalanx_client.fitness import UNLIMITED, Facts
from phalanx_client.plain import UnixConnection

NEEDED = ("aiodocker", "aiohttp", "cryptography", "zmq", "phalanx_agent", "phalanx_runner")
TRIAL_S = 10.0


def look(engine: str, runtime_dir: str, state_dir: str) -> Facts:
    """Look at everything that an agent will need; changes nothing."""
    root = os.geteuid() == 0
    version, problem = _ask(engine, "/version")
    info, _ = ({}, "") if problem else _ask(engine, "/info")
    nofile, memlock = _engine_limits()
    folders = dict.fromkeys([_existing(state_dir), info.get("DockerRootDir", "/")])
    return Facts(
        root=root,
        engine=engine,
        engine_problem=problem,
        version=version,
        info=info,
        iptables=_trial(["iptables", "-w", "5", "-n", "-L", "FORWARD"]) if root else None,
        vxlan=_trial(_VXLAN) if root else None,
        ip_forward=_first_line("/proc/sys/net/ipv4/ip_forward") == "1",
        runtime_dir=runtime_dir,
        runtime_fs=_file_system(_existing(runtime_dir)),
        bundle=_bundle(),
        missing=tuple(name for name in NEEDED if importlib.util.find_spec(name) is None),
        free={path: shutil.disk_usage(path).free for path in folders if os.path.isdir(path)},
        nofile=nofile,
        memlock=memlock,
        neighbours=int(_first_line("/proc/sys/net/ipv4/neigh/default/gc_thresh3") or 0) or None,
    )


_VXLAN = ["unshare", "--net"]
_VXLAN += ["ip", "link", "add", "phx-try", "type", "vxlan", "id", "7", "dstport", "4789"]


def _ask(engine: str, path: str) -> tuple[dict[str, Any], str]:
    """An engine's answer, or why there is none."""
    if not engine.startswith("unix:///"):
        return {}, "write it as unix:///PATH"
    connection = UnixConnection(engine.removeprefix("unix://"))
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        found = json.loads(answer.read())
        if answer.status != 200 or not isinstance(found, dict):
            return {}, f"it answered {answer.status}"
    except (OSError, ValueError, http.client.HTTPException) as error:
        return {}, (error.strerror if isinstance(error, OSError) else None) or str(error)
    finally:
        connection.close()
    return found, ""


def _trial(argv: list[str]) -> str:
    """Run a harmless command; what is wrong, or nothing."""
    try:
        done = subprocess.run(argv, capture_output=True, text=True, timeout=TRIAL_S, check=False)
    except FileNotFoundError:
        return f"{argv[0]} is not installed"
    except subprocess.TimeoutExpired:
        return f"{argv[0]} does not end"
    said = done.stderr.strip().splitlines()
    return "" if done.returncode == 0 else (said[-1] if said else f"{argv[0]} fails")


def _first_line(path: str) -> str:
    try:
        with open(path, encoding="ascii", errors="replace") as file:
            return file.readline().strip()
    except OSError:
        return ""


def _existing(path: str) -> str:
    """The nearest folder above a path that exists."""
    path = os.path.abspath(path)
    while not os.path.isdir(path):
        path = os.path.dirname(path)
    return path


def _file_system(path: str) -> str:
    """The type of the file system that a folder is on."""
    best, kind = "", ""
    with open("/proc/self/mounts", encoding="utf-8", errors="replace") as file:
        for line in file:
            _, point, found, *_ = line.split(" ")
            inside = path == point or path.startswith(point.rstrip("/") + "/")
            if inside and len(point) >= len(best):
                best, kind = point, found
    return kind


def _bundle() -> str:
    chosen = os.environ.get("PHALANX_BUNDLE", "")
    if chosen:
        return chosen if os.path.isfile(f"{chosen}/manifest.json") else ""
    spec = importlib.util.find_spec("phalanx_runner")
    places = (spec.submodule_search_locations if spec else None) or []
    found = [path for place in places for path in glob.glob(f"{place}/bundle/*/manifest.json")]
    return os.path.dirname(max(found, key=os.path.getmtime)) if found else ""


def _engine_limits() -> tuple[int | None, int | None]:
    """Hard limits (open files, locked memory) of a running dockerd; None where there is none."""
    for comm in glob.glob("/proc/[0-9]*/comm"):
        if _first_line(comm) != "dockerd":
            continue
        try:
            with open(comm.removesuffix("comm") + "limits", encoding="ascii") as file:
                text = file.read()
        except OSError:
            continue
        return _hard(text, "Max open files"), _hard(text, "Max locked memory")
    return None, None


def _hard(limits: str, name: str) -> int | None:
    found = re.search(rf"^{name}\s+\S+\s+(\S+)", limits, re.MULTILINE)
    if found is None:
        return None
    return UNLIMITED if found[1] == "unlimited" else int(found[1])
