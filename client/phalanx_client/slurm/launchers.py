"""The programs as files of a folder: small launchers that lead here."""

from __future__ import annotations

import json
import os
import shlex
import sys
from collections.abc import Sequence
from typing import Final

from phalanx_client.failure import BAD_INPUT, Failure
from phalanx_client.slurm.__main__ import PROGRAMS
from phalanx_client.slurm.site import CONFIG

MARK: Final = "# Installed by: phalanx slurm install"
SETTINGS: Final = "etc/phalanx/slurm.toml"


def install(prefix: str, image: str, shared: Sequence[str], url: str) -> list[str]:
    """Write the launchers and, where there is none or something new is said, the settings.

    Returns:
        What was written.

    Raises:
        Failure: a file that is not ours is in the way, or can't be written; nothing is changed
            then.
    """
    top = os.path.abspath(prefix)
    settings = os.path.join(top, SETTINGS)
    files = {os.path.join(top, "bin", name): _launcher(name, settings) for name in PROGRAMS}
    for path in files:
        if os.path.lexists(path) and not _is_ours(path):
            raise Failure(
                f"{path} is there and not ours; it is left alone. Choose another --prefix, or move "
                "it away",
                BAD_INPUT,
            )
    if image or shared or url or not os.path.exists(settings):
        files[settings] = _settings(image, shared, url)
    for path, text in files.items():
        _write(path, text, 0o644 if path == settings else 0o755)
    return list(files)


def uninstall(prefix: str) -> list[str]:
    """Remove what `install` wrote and nobody has replaced; what was removed."""
    top = os.path.abspath(prefix)
    paths = [os.path.join(top, "bin", name) for name in PROGRAMS] + [os.path.join(top, SETTINGS)]
    gone = [path for path in paths if os.path.lexists(path) and _is_ours(path)]
    for path in gone:
        try:
            os.unlink(path)
        except OSError as error:
            raise Failure(f"{path} can't be removed: {error.strerror}") from error
    return gone


def _launcher(program: str, settings: str) -> str:
    python = shlex.quote(sys.executable)
    return (
        f"#!/bin/sh\n{MARK}\n"
        f'[ -n "${CONFIG}" ] || {CONFIG}={shlex.quote(settings)}; export {CONFIG}\n'
        f'exec {python} -m phalanx_client.slurm {program} "$@"\n'
    )


def _settings(image: str, shared: Sequence[str], url: str) -> str:
    def line(key: str, value: object, usual: str) -> str:
        return f"{key} = {json.dumps(value)}" if value else f"# {key} = {usual}"

    folders = [os.path.abspath(one) for one in shared]
    return "\n".join(
        [
            MARK,
            "# What jobs run in that name no --container-image.",
            line("image", image, '"my/image"'),
            "# Folders that this machine and all hosts have at the same path. Each agent must",
            "# allow them, too: [mounts] allow in its agent.toml.",
            line("shared", folders, '["/home"]'),
            "# Jobs that name no --partition run in this cluster.",
            line("partition", "", '"default"'),
            "# How containers are laid out: one-per-node, spread or pack.",
            line("spread", "", '"one-per-node"'),
            "# The manager, for users who have configured none.",
            line("url", url, '"http://manager:7910"'),
            "",
        ]
    )


def _is_ours(path: str) -> bool:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return MARK in file.read(4096)
    except OSError:
        return False


def _write(path: str, text: str, mode: int) -> None:
    fresh = f"{path}.new"
    try:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(fresh, "w", encoding="utf-8") as file:
            file.write(text)
        os.chmod(fresh, mode)
        os.replace(fresh, path)
    except OSError as error:
        raise Failure(f"{path} can't be written: {error.strerror}") from error
