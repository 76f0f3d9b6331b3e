"""`phalanx ssh`, `phalanx ssh-config`: the machine's own ssh, led into a container."""

from __future__ import annotations

import os
import shutil
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

from phalanx_client import config, output, ssh_client
from phalanx_client.arguments import Parser
from phalanx_client.call import Call, Verb
from phalanx_client.config import Manager
from phalanx_client.either import leading
from phalanx_client.failure import BAD_INPUT, NOT_FOUND, OK, UNAVAILABLE, Failure
from phalanx_client.ssh_client import Home
from phalanx_client.target import Target, parse, pick
from phalanx_wire.api import SshRank, SshView
from phalanx_wire.names import BUNDLE_MOUNT

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

SSH: Final = "ssh"
SHELL: Final = f"{BUNDLE_MOUNT}/bin/phalanx-shell"


def _home(manager: Manager) -> Home:
    return Home.of(manager.url, os.environ)


# ---------------------------------------------------------------- ssh


def declare_ssh(parser: Parser) -> None:
    """Options of `ssh`."""
    parser.add_argument("session", metavar="SESSION[/RANK]")


async def run_ssh(call: Call) -> int:
    """Become the machine's ssh, connected to a container."""
    manager, target = call.manager(), parse(call.options.session)
    program = shutil.which(SSH)
    if program is None:
        raise Failure(
            "this machine has no ssh: install OpenSSH's client, or use: "
            f"phalanx exec -it {call.options.session} -- {SHELL}",
            UNAVAILABLE,
        )
    view = ssh_client.checked(await call.client().ssh(target.ref))
    one = pick(view.ranks, view.name, target.inside)
    if one.state != "running":
        raise Failure(f"rank {one.rank} ({one.host_name}) is {one.state}", BAD_INPUT)
    home = _home(manager)
    ssh_client.own_key(home)
    words = call.options.command
    if not words and not sys.stdin.isatty():
        words = ["-T"]  # or ssh wonders aloud that a script is no terminal
    settings = home.settings(view.id, view.name, one.host_name)
    argv = ssh_client.argv(settings, ssh_client.alias(one.host_name, view.name), words)
    environ = {**os.environ, **({"PHALANX_TOKEN": manager.token} if manager.token else {})}
    sys.stdout.flush()
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # Python ignores it, and so would ssh
    os.execve(program, argv, environ)  # noqa: S606 - no shell: good


# ---------------------------------------------------------------- ssh-config


def declare_config(parser: Parser) -> None:
    """Options of `ssh-config`."""
    parser.add_argument("session", metavar="SESSION")
    which = parser.add_mutually_exclusive_group()
    which.add_argument(
        "--install", action="store_true", help="write it, and include it in ~/.ssh/config"
    )
    which.add_argument("--remove", action="store_true", help="remove what --install has written")


async def run_config(call: Call) -> int:
    """Print or install a configuration with one host for each container of a session."""
    given, manager = call.options, call.manager()
    home = _home(manager)
    if given.remove:
        if not ssh_client.remove(home, os.path.basename(given.session)):
            raise Failure(f"nothing is installed for {given.session!r}", NOT_FOUND)
        return OK
    view = ssh_client.checked(await call.client().ssh(given.session))
    ssh_client.own_key(home)
    ref = view.name if given.session == view.name else view.id
    text = ssh_client.entries(home, ref, view)
    if os.environ.get("PHALANX_TOKEN"):
        output.note(
            "phalanx: PHALANX_TOKEN is set; a program that does not see it, such as an editor, "
            f"needs the token in {config.path(os.environ)}",
            quiet=call.quiet,
        )
    if not given.install:
        output.say(text.rstrip("\n"))
        return OK
    path = ssh_client.install(home, view.name, text, Path.home() / ".ssh" / "config")
    names = [ssh_client.alias(one.host_name, view.name) for one in view.ranks]
    output.note(f"phalanx: written to {path}", quiet=call.quiet)
    output.names(names)
    return OK


# ---------------------------------------------------------------- ssh-proxy


def declare_proxy(parser: Parser) -> None:
    """Options of `ssh-proxy`."""
    parser.add_argument("container", metavar="SESSION/HOST")


async def run_proxy(call: Call) -> int:
    """Be ssh's connection to a container: its data on our standard input and output."""
    from phalanx_client.aio import AioTransport  # noqa: PLC0415 - slow
    from phalanx_client.session import Client  # noqa: PLC0415 - slow
    from phalanx_client.terminal import Keyboard  # noqa: PLC0415 - slow
    from phalanx_client.tunnel import tunnel  # noqa: PLC0415 - slow

    manager = call.manager()
    home, target = _home(manager), parse(call.options.container)
    async with AioTransport(await leading(manager), call.away) as transport:
        view = ssh_client.checked(await Client(transport).ssh(target.ref))
        one = _trusted(home, view, target)
        key = ssh_client.own_key(home)
        async with tunnel(transport, view.id, one.rank, key=key) as there:
            pieces: AsyncIterator[bytes] = Keyboard().pieces()
            await there.relay(pieces, _Output())
    return OK


def _trusted(home: Home, view: SshView, target: Target) -> SshRank:
    one = pick(view.ranks, view.name, target.inside)
    ssh_client.trust(home, view)
    return one


class _Output:
    """Standard output. ssh always takes what comes, so that writing does not have to wait."""

    async def write(self, data: bytes) -> None:
        """Hand data to ssh."""
        left = memoryview(data)
        while left:
            left = left[os.write(sys.stdout.fileno(), left) :]

    async def end(self) -> None:
        """Let ssh see the end."""
        output.quiet_at_broken_pipe()


VERBS = {
    "ssh": Verb("ssh SESSION[/RANK] [-- OPTIONS OF SSH | CMD]", declare_ssh, run_ssh, "dashes"),
    "ssh-config": Verb("ssh-config [--install | --remove] SESSION", declare_config, run_config),
    "ssh-proxy": Verb("ssh-proxy SESSION/HOST", declare_proxy, run_proxy, loop=True),
}
