"""The client's configuration: where a lab writes its address and token, and puts back what was."""

from __future__ import annotations

import json
import os

from phalanx_lab import plan as plans
from phalanx_lab.plan import Plan


def path() -> str:
    """The client's configuration file, found as the client finds it."""
    named = os.environ.get("PHALANX_CONFIG")
    if named:
        return named
    home = os.environ.get("XDG_CONFIG_HOME") or os.path.expanduser("~/.config")
    return f"{home}/phalanx/config.toml"


def write(plan: Plan, url: str, token: str) -> None:
    """Point the client at a lab; a configuration that spoke of something else is kept aside."""
    target = path()
    keys = f"url = {json.dumps(url)}\ntoken = {json.dumps(token)}\n"
    text = f"# written by phalanx lab {plan.name}\n{keys}"
    kept = _kept(plan.state)
    now = _read(target)
    if now == text:
        return
    earlier = json.loads(_read(kept) or "null")
    before = earlier["before"] if earlier and earlier["ours"] == now else now
    note = {"path": target, "ours": text, "before": before}
    plans.write(kept, json.dumps(note).encode(), mode=0o600)
    os.makedirs(os.path.dirname(target), mode=0o700, exist_ok=True)
    plans.write(target, text.encode(), mode=0o600)


def complete(plan: Plan, url: str, token: str) -> None:
    """Do what `write` does for a lab whose `up` was killed before it; what somebody has written
    since stays.
    """
    note = json.loads(_read(_kept(plan.state)) or "null")
    if note is None or _read(note["path"]) == note["before"]:
        write(plan, url, token)


def restore(state_folder: str) -> None:
    """Undo `write`, unless somebody has changed the file since."""
    note = json.loads(_read(_kept(state_folder)) or "null")
    if not note or _read(note["path"]) != note["ours"]:
        return
    if note["before"]:
        plans.write(note["path"], note["before"].encode(), mode=0o600)
    else:
        os.unlink(note["path"])


def _kept(state_folder: str) -> str:
    return f"{state_folder}/client-config.json"


def _read(target: str) -> str:
    try:
        with open(target, encoding="utf-8") as file:
            return file.read()
    except FileNotFoundError:
        return ""
