"""What the machine's own ssh needs to reach a container: a key, host keys, and the way there.

All of it lies in the folder `ssh` beside the client's configuration. The way is our `ssh-proxy`,
which ssh starts for every connection; before it passes a single byte on it writes down the host
keys as the manager tells them then, so that a session's next attempt, which has new ones, is
trusted as the first was, by any version of ssh.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shlex
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from phalanx_client import config
from phalanx_client.failure import UNAVAILABLE, Failure
from phalanx_wire.api import SshView
from phalanx_wire.names import is_session_name, split_host_name

USER: Final = "phalanx"
"""The ssh servers take any name: a container has one user, its own."""

KEPT_S: Final = 30 * 86400.0
"""Host keys of a session that nobody connects to are forgotten after this."""


@dataclass(frozen=True, slots=True)
class Home:
    """The folder, and how a program of ours is started again from anywhere.

    Attributes:
        folder: where all of it lies.
        url: the manager's.
        environ: what has to be in the environment for our configuration to be found.
    """

    folder: Path
    url: str
    environ: Mapping[str, str]

    @staticmethod
    def of(url: str, environ: Mapping[str, str]) -> Home:
        """The user's."""
        file = os.path.abspath(config.path(environ))
        named = {"PHALANX_CONFIG": file} if environ.get("PHALANX_CONFIG") else {}
        return Home(Path(file).parent / "ssh", url, named)

    @property
    def key(self) -> Path:
        """The user's private key; beside it the public one."""
        return self.folder / "id_ed25519"

    def host_keys(self, name: str) -> Path:
        """The file of a session's host keys, of this manager's."""
        return (
            self.folder
            / "known_hosts"
            / f"{name}-{hashlib.sha256(self.url.encode()).hexdigest()[:8]}"
        )

    def settings(self, ref: str, name: str, host: str) -> list[tuple[str, str]]:
        """What ssh is to know of one container, as in its configuration file."""
        before = [f"{key}={value}" for key, value in self.environ.items()]
        way = ["env", *before] if before else []
        way += [sys.executable, "-P", "-m", "phalanx_client", "ssh-proxy"]
        way += ["--url", self.url, f"{ref}/{host}"]
        return [
            ("HostKeyAlias", alias(host, name)),
            ("User", USER),
            ("ProxyCommand", shlex.join(way).replace("%", "%%")),
            ("IdentityFile", _quoted(self.key)),
            ("IdentitiesOnly", "yes"),
            ("UserKnownHostsFile", _quoted(self.host_keys(name))),
            ("GlobalKnownHostsFile", "/dev/null"),
            ("StrictHostKeyChecking", "yes"),
            ("UpdateHostKeys", "no"),
            ("CheckHostIP", "no"),
            ("ServerAliveInterval", "30"),
        ]


def checked(view: SshView) -> SshView:
    """What a manager tells becomes names of files and lines that ssh reads: it may be no more.

    Raises:
        Failure: it could be.
    """
    good = is_session_name(view.name) and is_session_name(view.id)
    for one in view.ranks:
        good &= split_host_name(one.host_name) is not None and (one.host_key or "").isprintable()
    if not good:
        raise Failure("the manager tells names that ssh must not be given", UNAVAILABLE)
    return view


def alias(host: str, name: str) -> str:
    """What a container is called for ssh."""
    return f"{host}.{name}"


def _quoted(path: Path) -> str:
    text = str(path).replace("%", "%%")
    return f'"{text}"'


def own_key(home: Home) -> str:
    """The user's public key; what is missing of the pair is made.

    Raises:
        Failure: it can't be made or read.
    """
    try:
        public = home.key.with_suffix(".pub")
        if not home.key.exists():
            _make_key(home.key)
        if not public.exists():
            _write_public(home.key)
        return public.read_text(encoding="ascii").strip()
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise Failure(f"the ssh key {home.key}: {reason}", UNAVAILABLE) from error


def _make_key(path: Path) -> None:
    """Make a key; of several that make one at the same time the first wins."""
    from cryptography.hazmat.primitives import serialization as form  # noqa: PLC0415 - slow
    from cryptography.hazmat.primitives.asymmetric.ed25519 import (  # noqa: PLC0415 - slow
        Ed25519PrivateKey,
    )

    private = Ed25519PrivateKey.generate()
    secret = private.private_bytes(
        form.Encoding.PEM, form.PrivateFormat.OpenSSH, form.NoEncryption()
    )
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    _write(fresh, secret)
    with contextlib.suppress(FileExistsError):
        os.link(fresh, path)
    fresh.unlink()
    path.with_suffix(".pub").unlink(missing_ok=True)


def _write_public(path: Path) -> None:
    from cryptography.hazmat.primitives import serialization as form  # noqa: PLC0415 - slow

    private = form.load_ssh_private_key(path.read_bytes(), None)
    line = private.public_key().public_bytes(form.Encoding.OpenSSH, form.PublicFormat.OpenSSH)
    _replace(path.with_suffix(".pub"), line.decode() + "\n")


def trust(home: Home, view: SshView) -> None:
    """Write down the host keys of a session, and forget those that were not used for long."""
    path = home.host_keys(view.name)
    lines = [
        f"{alias(one.host_name, view.name)} {one.host_key}\n"
        for one in view.ranks
        if one.host_key is not None
    ]
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    _replace(path, "".join(lines))
    oldest = time.time() - KEPT_S
    for other in path.parent.iterdir():
        with contextlib.suppress(FileNotFoundError):  # another process was quicker
            if other.stat().st_mtime < oldest:
                other.unlink()


def _replace(path: Path, text: str) -> None:
    """Write a file that only its owner reads, whole or not at all."""
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    _write(fresh, os.fsencode(text))
    fresh.replace(path)


def _write(path: Path, content: bytes) -> None:
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        os.fchmod(file.fileno(), 0o600)
        file.write(content)


# ---------------------------------------------------------------- configuration files


def entries(home: Home, ref: str, view: SshView) -> str:
    """A configuration of ssh with one host for each container; the first is also the session."""
    blocks = []
    for one in view.ranks:
        names = [alias(one.host_name, view.name), *([view.name] if one.rank == 0 else [])]
        settings = home.settings(ref, view.name, one.host_name)
        lines = "".join(f"    {key} {value}\n" for key, value in settings)
        blocks.append(f"Host {' '.join(names)}\n{lines}")
    return "\n".join(blocks)


def install(home: Home, name: str, text: str, user_config: Path) -> Path:
    """Write a session's configuration, and have the user's own include it; where it was written.

    Raises:
        Failure: one of the two cannot be written.
    """
    path = home.folder / "config.d" / name
    user_config = Path(os.path.realpath(user_config))
    with _unwritable():
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        _replace(path, text)
        _include(f'Include "{path.parent}/*"\n', user_config)
    return path


def _include(line: str, user_config: Path) -> None:
    user_config.parent.mkdir(mode=0o700, exist_ok=True)
    # What else is in there is the user's, in whatever encoding.
    before = os.fsdecode(user_config.read_bytes()) if user_config.exists() else ""
    if line not in before.splitlines(keepends=True):
        # At the top: further down it would belong to the host above it.
        _replace(user_config, f"{line}\n{before}" if before else line)


def remove(home: Home, name: str) -> bool:
    """Remove what `install` has written for a session; whether there was anything.

    Raises:
        Failure: it cannot be removed.
    """
    path = home.folder / "config.d" / name
    there = path.is_file()
    if there:
        with _unwritable():
            path.unlink()
            home.host_keys(name).unlink(missing_ok=True)
    return there


@contextlib.contextmanager
def _unwritable() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise Failure(f"{error.filename}: {error.strerror}", UNAVAILABLE) from error


def argv(settings: Sequence[tuple[str, str]], host: str, words: Sequence[str]) -> list[str]:
    """The command line of ssh; options at the beginning of the words are its own."""
    options = [word for key, value in settings for word in ("-o", f"{key}={value}")]
    return ["ssh", *options, host, *words]
