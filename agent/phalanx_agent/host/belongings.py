"""An agent's own files beside its configuration: what goes when it leaves for good."""

from __future__ import annotations

import contextlib
import json
import shutil
from pathlib import Path
from typing import Final

from phalanx_agent.host import command_notes

_OF_SESSIONS: Final = ("logs", "uploads", "started")
_IN_MEMORY: Final = ("k", command_notes.FOLDER)
_IDENTITY: Final = ("manager.json", "agent.key")
_RUNNER: Final = "runner"
_SWARM: Final = "swarm-entered"
_LEFT: Final = "left"
_ENGINE: Final = "engine.json"


def note_swarm(state_dir: Path) -> None:
    """Note that it is by us that the engine enters a swarm: who made it so may undo it. A note that
    is there stays: what the engine has made for a swarm it keeps if it enters another.
    """
    with contextlib.suppress(FileExistsError):
        (state_dir / _SWARM).touch(mode=0o600, exist_ok=False)


def entered_swarm_at(state_dir: Path) -> float | None:
    """Tell since when it is by us that the engine is in a swarm, in Unix seconds; None if it is
    not.
    """
    try:
        return (state_dir / _SWARM).stat().st_mtime
    except FileNotFoundError:
        return None


def clear_sessions(state_dir: Path, runtime_dir: Path) -> None:
    """Remove what sessions have left: output, archives, markers, keys.

    Raises:
        OSError: something cannot be removed.
    """
    made = [state_dir / name for name in _OF_SESSIONS]
    for folder in (*made, *(runtime_dir / name for name in _IN_MEMORY)):
        with contextlib.suppress(FileNotFoundError):
            shutil.rmtree(folder)


def missing(state_dir: Path, runtime_dir: Path) -> str:
    """Name what somebody has removed while the agent runs: it makes these at its start. Empty when
    nothing is.
    """
    made = [state_dir / name for name in (*_OF_SESSIONS, _RUNNER, *_IDENTITY)]
    made += [runtime_dir / name for name in _IN_MEMORY]
    return next((str(path) for path in made if not path.exists()), "")


def run_folder(state_dir: Path, layers: str, told: str) -> str:
    """Find again where an engine keeps what it has while it runs: it tells that only of containers,
    and there may be none when it is asked for.

    Args:
        layers: where the engine has its layers; another engine on the host has another place.
        told: where by its word, which is noted then; empty when it has told nothing yet.
    """
    path, words = state_dir / _ENGINE, {"layers": layers, "run": told}
    noted = _noted(path)
    if told:
        with contextlib.suppress(OSError):  # it is noted the next time
            if noted != words:
                fresh = path.with_suffix(".new")
                fresh.write_text(json.dumps(words), "utf-8")
                fresh.rename(path)
        return told
    return str(noted.get("run", "")) if layers and noted.get("layers") == layers else ""


def _noted(path: Path) -> dict[str, object]:
    """Read a note; nothing where it was half kept."""
    try:
        noted = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return noted if isinstance(noted, dict) else {}


def note_left(state_dir: Path) -> None:
    """Note that nothing of ours is on this host any more: the manager may forget the agent as soon
    as it is told, and nobody can tell it so if it dies now.

    Raises:
        OSError: it cannot be noted.
    """
    (state_dir / _LEFT).touch(mode=0o600)


def has_left(state_dir: Path) -> bool:
    """Tell whether it has taken all away, in this life or in one before."""
    return (state_dir / _LEFT).exists()


def stays(state_dir: Path) -> None:
    """Be an agent anew; whatever was before.

    Raises:
        OSError: the note cannot be removed.
    """
    (state_dir / _LEFT).unlink(missing_ok=True)


def clear_identity(state_dir: Path) -> None:
    """Be nobody's agent any more.

    Raises:
        OSError: something cannot be removed.
    """
    for name in (*_IDENTITY, _SWARM, _LEFT, _ENGINE):
        (state_dir / name).unlink(missing_ok=True)
    with contextlib.suppress(FileNotFoundError):
        shutil.rmtree(state_dir / _RUNNER)
