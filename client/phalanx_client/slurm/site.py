"""What the operator has said about jobs of this machine, and where the asker is."""

from __future__ import annotations

import os
import pwd
import secrets
import socket
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, cast, get_args

from phalanx_client.failure import Failure
from phalanx_slurm.batch import Site
from phalanx_wire.spec import Spread

CONFIG: Final = "PHALANX_SLURM_CONFIG"
"""Names the file; the launchers set it."""
_TAIL: Final = "abcdefghijkmnpqrstuvwxyz23456789"
_KEYS: Final = ("image", "shared", "spread", "partition", "url")


@dataclass(frozen=True, slots=True)
class Settings:
    """What `slurm.toml` says; an environment variable of the same name, `PHALANX_SLURM_IMAGE` or
    `PHALANX_SLURM_SHARED` (separated by commas), wins.

    Attributes:
        image: of jobs that name none.
        shared: folders that this machine and all hosts have at the same path, allowed there; in
            those that are in `read_only`, too, jobs only read (`DIR:ro`).
        spread: `one-per-node`, `spread` or `pack`.
        partition: of jobs that name none.
        url: of the manager, where the user has configured none.
    """

    image: str = ""
    shared: tuple[str, ...] = ()
    read_only: tuple[str, ...] = ()
    spread: Spread = "one-per-node"
    partition: str = "default"
    url: str = ""


def settings(environ: Mapping[str, str]) -> Settings:
    """Read what is said.

    Raises:
        Failure: the file can't be read, or says what it can't.
    """
    path = environ.get(CONFIG, "")
    said = _read(path) if path else {}
    image = environ.get("PHALANX_SLURM_IMAGE") or said.get("image", "")
    shared = environ.get("PHALANX_SLURM_SHARED", "").split(",")
    folders = [one for one in shared if one] or said.get("shared", [])
    spread = environ.get("PHALANX_SLURM_SPREAD") or said.get("spread", "one-per-node")
    if spread not in get_args(Spread):
        raise Failure(f"{path}: spread is one of {', '.join(get_args(Spread))}")
    if any(not one.startswith("/") or one == "/" for one in folders):
        raise Failure(f"{path or 'PHALANX_SLURM_SHARED'}: shared folders are absolute paths")
    return Settings(
        image=image,
        shared=tuple(os.path.realpath(one.removesuffix(":ro")) for one in folders),
        read_only=tuple(
            os.path.realpath(one.removesuffix(":ro")) for one in folders if one.endswith(":ro")
        ),
        spread=cast("Spread", spread),
        partition=said.get("partition", "default"),
        url=said.get("url", ""),
    )


def here(said: Settings, environ: Mapping[str, str]) -> Site:
    """Look where the asker is."""
    uid = os.getuid()
    try:
        name = pwd.getpwuid(uid).pw_name
    except KeyError:
        name = str(uid)
    umask = os.umask(0o022)
    os.umask(umask)
    return Site(
        cwd=os.getcwd(),
        user=(name, uid, os.getgid()),
        host=socket.gethostname(),
        environ=environ,
        shared=said.shared,
        read_only=said.read_only,
        image=said.image,
        spread=said.spread,
        umask=umask,
        tail="".join(_TAIL[byte % len(_TAIL)] for byte in secrets.token_bytes(4)),
    )


def _read(path: str) -> dict[str, Any]:
    try:
        with open(path, "rb") as file:
            said = tomllib.load(file)
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise Failure(f"{path} can't be read: {error}") from error
    for key, value in said.items():
        good = isinstance(value, list) if key == "shared" else isinstance(value, str)
        if key not in _KEYS or not good:
            raise Failure(f"{path}: {key!r} is no setting, or not of its kind; see docs/SLURM.md")
    if not all(isinstance(one, str) for one in said.get("shared", [])):
        raise Failure(f"{path}: shared is a list of texts")
    return said
