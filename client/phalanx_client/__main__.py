"""`phalanx VERB ...`: sends a verb to its module, and turns every end into an exit code."""

from __future__ import annotations

import contextlib
import errno
import importlib
import importlib.util
import io
import os
import sys
import traceback
from typing import TYPE_CHECKING, Final

from phalanx_client import ansi
from phalanx_client.failure import (
    BROKEN_PIPE,
    INTERRUPTED,
    OK,
    UNAVAILABLE,
    USAGE,
    Failure,
)
from phalanx_wire.standard import fill_standard_streams

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable

    from phalanx_client.call import Verb

VERBS: Final[dict[str, tuple[str, str]]] = {
    "run": ("run", "run a command in new containers, follow its output, end with its code"),
    "create": ("run", "make a session that stays, for exec and ssh"),
    "ps": ("ps", "list sessions"),
    "show": ("show", "one session in full"),
    "why": ("why", "why a session waits, is stuck or has failed, and what to do"),
    "lint": ("lint", "what in a program, batch script or session would make its ranks wait"),
    "env": ("show", "the environment of each rank, and who reads what"),
    "events": ("show", "what happened, in order"),
    "logs": ("logs", "the merged output of a session"),
    "exec": ("attach", "run a command in a container of a session"),
    "ssh": ("ssh", "ssh to a container of a session: a shell, a command, forwarded ports"),
    "ssh-config": ("ssh", "what ssh, scp, rsync and editors need to reach a session by name"),
    "ssh-proxy": ("ssh", "the way to a container that such a configuration names"),
    "forward": ("forward", "a port of this machine that leads to one of a container"),
    "cp": ("cp", "copy files from and to a container"),
    "stop": ("stop", "end sessions"),
    "kill": ("stop", "send a signal to a session's command"),
    "requeue": ("queue", "stop what runs of a session and put it back into the queue"),
    "hold": ("queue", "keep sessions in the queue"),
    "release": ("queue", "let held sessions go"),
    "extend": ("queue", "add to a session's time limit"),
    "wait": ("stop", "wait for a session to run or to end"),
    "nodes": ("nodes", "the hosts, their resources and who holds them"),
    "node": ("nodes", "drain, undrain, forget: hosts out of service, back, and given up"),
    "cluster": ("cluster", "create, ls, show, logs, rm: named pools of hosts"),
    "app": ("app", "run a script with its folder on a cluster; ls: such runs"),
    "token": ("token", "create, ls, revoke: access for people, programs and agents"),
    "slurm": ("slurm", "install, uninstall: sbatch, srun, squeue and the others, for this manager"),
    "doctor": ("doctor", "is this machine fit to be an agent, and if not, what to do"),
}
PROGRAMS: Final[dict[str, tuple[str, str]]] = {
    "up": ("phalanx_up", "manager and agent in one process on this machine"),
    "manager": ("phalanx_manager", "the manager daemon"),
    "agent": ("phalanx_agent", "the agent daemon"),
    "lab": ("phalanx_lab", "a whole cluster on one Linux machine, for tries and tests"),
}
FULL: Final = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)
ALIASES: Final = {
    "create cluster": ("cluster", "create"),
    "list clusters": ("cluster", "ls"),
    "delete cluster": ("cluster", "rm"),
    "list apps": ("app", "ls"),
}
"""The words in the order in which other programs have them, where they mean nothing else here."""
WITH_VALUE: Final = ("--url", "--token", "-o", "--output")


def main() -> int:
    """Run one verb; the exit code."""
    fill_standard_streams()
    return end_of(lambda: dispatch(sys.argv[1:]), explain)


def end_of(work: Callable[[], int], explain: Callable[[str, int], int]) -> int:
    """Run a program's work and turn every end of it into an exit code; `explain` says a sentence
    about a failure and gives its code.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a terminal may know few characters
    try:
        code = work()
        sys.stdout.flush()
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else USAGE
    except BrokenPipeError:
        from phalanx_client import output  # noqa: PLC0415 - see dispatch

        output.quiet_at_broken_pipe()
        return BROKEN_PIPE
    except KeyboardInterrupt:
        return INTERRUPTED
    except Failure as failure:
        return explain(str(failure), failure.exit_code)
    except UnicodeEncodeError as error:  # of an argument or variable that is bytes of another kind
        return explain(f"{ascii(error.object)[:80]} is not in UTF-8", USAGE)
    except Exception as bug:  # noqa: BLE001 - the one place where a bug becomes a sentence
        if isinstance(bug, OSError) and bug.errno in FULL and bug.filename is None:
            from phalanx_client import output  # noqa: PLC0415 - see dispatch

            output.quiet_at_broken_pipe()
            return explain(f"the output can't be written: {bug.strerror}", UNAVAILABLE)
        return explain(
            f"this is a bug in phalanx: {type(bug).__name__}: {bug}; "
            "PHALANX_DEBUG=1 shows where, please report it",
            UNAVAILABLE,
        )
    return code


def explain(text: str, exit_code: int) -> int:
    """Say why the command failed; with PHALANX_DEBUG also where."""
    if os.environ.get("PHALANX_DEBUG"):
        traceback.print_exc()
    shown = "\n".join(map(ansi.escape, text.split("\n")))  # some of it may be a stranger's
    with contextlib.suppress(OSError):  # the exit code is all that can be told then
        print(f"phalanx: {shown}", file=sys.stderr, flush=True)
    return exit_code


def dispatch(argv: list[str]) -> int:
    """Find the verb behind options that stand before it; imports happen here, as late as can be."""
    before: list[str] = []
    while argv and argv[0].startswith("-"):
        if argv[0] in ("-h", "--help"):
            return usage()
        if argv[0] == "--version":
            return version()
        taken = 2 if argv[0] in WITH_VALUE else 1
        before, argv = before + argv[:taken], argv[taken:]
    if not argv:
        return usage(code=USAGE)
    argv = [*ALIASES.get(" ".join(argv[:2]), argv[:2]), *argv[2:]]
    name, *rest = argv
    if name == "help":
        return dispatch([rest[0], "--help"]) if rest else usage()
    if name in PROGRAMS:
        return become(PROGRAMS[name][0], rest)
    if name not in VERBS:
        raise Failure(f"there is no verb {name!r}{_nearest(name)}; see: phalanx --help", USAGE)
    module = importlib.import_module(f"phalanx_client.verbs.{VERBS[name][0]}")
    verb: Verb = module.VERBS[name]
    return perform(verb, parse(name, verb, before + rest))


def parse(name: str, verb: Verb, argv: list[str]) -> argparse.Namespace:
    """The options of a verb; those that all verbs have are added here."""
    import argparse  # noqa: PLC0415 - `phalanx --help` does without

    from phalanx_client.arguments import Parser, split_command  # noqa: PLC0415
    from phalanx_client.output import FORMS  # noqa: PLC0415

    parser = Parser(name, VERBS[name][1], verb.usage)
    verb.declare(parser)
    everywhere = parser.add_argument_group("for every verb")
    everywhere.add_argument("--url", help="the manager's address")
    everywhere.add_argument("--token", help="the bearer token; PHALANX_TOKEN keeps it out of ps")
    everywhere.add_argument("-o", "--output", choices=FORMS, default="table")
    everywhere.add_argument("-q", "--quiet", action="store_true", help="only the result")
    command: list[str] | None = None
    if verb.command == "after" or (verb.command == "dashes" and "--" in argv):
        argv, command = split_command(argv)
    elif verb.command:
        parser.add_argument("command", nargs=argparse.REMAINDER, metavar="CMD")
    options = parser.parse_args(argv)
    if command is not None:
        options.command = command
    elif verb.command and options.command[:1] == ["--"]:
        options.command = options.command[1:]
    return options


def perform(verb: Verb, options: argparse.Namespace) -> int:
    """Run a verb's coroutine, with an event loop only where it needs one."""
    from phalanx_client.call import Call  # noqa: PLC0415

    if verb.loop:
        import asyncio  # noqa: PLC0415

        try:
            return asyncio.run(verb.run(Call(options)))
        except BaseExceptionGroup as group:
            raise first(group) from group
    from phalanx_client.blocking import finish  # noqa: PLC0415

    return finish(verb.run(Call(options)))


def first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """What went wrong first among tasks that ended together."""
    inner = group.exceptions[0]
    return first(inner) if isinstance(inner, BaseExceptionGroup) else inner


def become(module: str, argv: list[str]) -> int:
    """Become another of our programs, so that the client imports none of them."""
    if importlib.util.find_spec(module) is None:
        raise Failure(f"{module} is not installed here: pip install 'phalanx[manager,agent]'")
    sys.stdout.flush()
    os.execv(sys.executable, [sys.executable, "-m", module, *argv])  # noqa: S606 - no shell: good


def usage(code: int = OK) -> int:
    """Print all verbs."""
    lines = [
        "usage: phalanx VERB ...",
        "",
        "Container cluster sessions on machines that you own.",
        "",
    ]
    lines += [f"  {name:10} {about}" for name, (_, about) in (VERBS | PROGRAMS).items()]
    lines += ["", "A session is named by id, name or unique prefix; a container by SESSION/RANK or"]
    lines += ["SESSION/HOST. `phalanx VERB --help` tells the options of one verb."]
    print("\n".join(lines), file=sys.stdout if code == OK else sys.stderr)
    return code


def version() -> int:
    """Print the version of the client."""
    from importlib.metadata import version as installed  # noqa: PLC0415

    print(f"phalanx {installed('phalanx')}")
    return OK


def _nearest(name: str) -> str:
    from difflib import get_close_matches  # noqa: PLC0415

    found = get_close_matches(name, [*VERBS, *PROGRAMS], n=1)
    return f"; did you mean {found[0]!r}?" if found else ""


if __name__ == "__main__":
    sys.exit(main())
