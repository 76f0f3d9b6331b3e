"""`phalanx up`: a manager and an agent in one process, on this machine.

Containers outlive it: it adopts them again at its next start.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import logging
import os
import resource
import signal
import sys
from pathlib import Path

import structlog

from phalanx_agent import config as agent_config
from phalanx_agent.__main__ import CannotStart
from phalanx_agent.__main__ import serve as serve_agent
from phalanx_agent.rpc.identity import IdentityError
from phalanx_client import config as client_config
from phalanx_manager import config as manager_config
from phalanx_manager.http.app import CannotListenError
from phalanx_manager.log import processors
from phalanx_manager.rpc import failure
from phalanx_manager.serve import Running
from phalanx_manager.serve import serve as serve_manager
from phalanx_manager.store import port
from phalanx_up import plan
from phalanx_up.plan import Wish
from phalanx_wire.diary import Diary

USAGE, UNAVAILABLE = 64, 69
NOTE = "written by phalanx up"
WRONG = (manager_config.ConfigError, agent_config.ConfigError)
TROUBLE = (CannotStart, IdentityError, CannotListenError, failure.Unavailable, port.Unavailable)


def wish(argv: list[str]) -> Wish:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="phalanx up", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, metavar="DIR", help="what is kept (database, keys)")
    parser.add_argument("--listen", default="127.0.0.1:7910", metavar="ADDR", help="the API")
    parser.add_argument(
        "--agents",
        default="tcp://127.0.0.1:7911",
        metavar="ADDR",
        help="where agents connect; tcp://0.0.0.0:7911 lets other hosts join (phalanx token "
        "create --agent)",
    )
    parser.add_argument(
        "--name", default=plan.host_name(), help="this host's name in phalanx nodes"
    )
    parser.add_argument("--engine", default="unix:///var/run/docker.sock", metavar="unix:///PATH")
    parser.add_argument("--runtime-dir", type=Path, metavar="DIR", help="for keys; on a tmpfs")
    parser.add_argument("-v", "--verbose", action="store_true", help="log everything that happens")
    given = parser.parse_args(argv)
    log_to_stderr(logging.INFO if given.verbose else logging.WARNING)
    data = given.data or plan.default_data(root=os.geteuid() == 0, home=os.path.expanduser("~"))
    data = data.absolute()
    runtime = given.runtime_dir or plan.default_runtime(data, plan.is_tmpfs)
    return Wish(data, given.listen, given.agents, given.name, given.engine, runtime.absolute())


def log_to_stderr(level: int) -> None:
    """Keep standard output for what a person shall read."""
    structlog.configure(
        processors=processors(sys.stderr),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),  # until it runs
        wrapper_class=structlog.make_filtering_bound_logger(level),
    )


async def run(asked: Wish) -> None:
    """Be both until cancelled."""
    config = plan.manager(asked)
    up: asyncio.Future[Running] = asyncio.get_running_loop().create_future()
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(serve_manager(config, up.set_result), name="manager")
        running = await up
        must_join = plan.must_join(asked, running.rpc)
        join = await running.join(asked.name) if must_join else ""
        await serve_agent(plan.agent(asked, join), Greeting(asked, running))


class Greeting:
    """Says, once the agent has reached the manager, what can be done now."""

    def __init__(self, asked: Wish, running: Running) -> None:
        self._asked = asked
        self._running = running

    def __call__(self) -> None:
        """Write the client's configuration and print the next steps."""
        token = self._running.token_file.read_text(encoding="ascii").strip()
        file = client_config.path(os.environ)
        kept = keep_aside(file)
        client_config.write(file, self._running.http, token, NOTE)
        print(
            f"phalanx is up at {self._running.http}, data in {self._asked.data}\n"
            f"address and token for the client are in {file}"
            + (f" (what was there is in {kept})" if kept else "")
            + "\nnext:  phalanx nodes\n"
            "       phalanx run -N 2 -i python:3.12 -- "
            "python -c 'import os; print(os.environ[\"RANK\"])'\n"
            "Ctrl-C ends it; sessions run on, and are found again at the next start.",
            flush=True,
        )


def keep_aside(file: str) -> str:
    """Move a client's configuration that is not ours out of the way; where to, or nothing."""
    try:
        with open(file, encoding="utf-8", errors="replace") as opened:
            first = opened.readline().strip()
    except FileNotFoundError:
        return ""
    if first == f"# {NOTE}":
        return ""
    kept = f"{file}.before-up"
    os.replace(file, kept)
    return kept


async def until_signalled(asked: Wish) -> None:
    """Run until SIGINT or SIGTERM."""
    task = asyncio.current_task()
    assert task is not None  # noqa: S101 - asyncio.run has made it
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, task.cancel)
    with contextlib.suppress(asyncio.CancelledError):
        await run(asked)


def main() -> int:
    """Run `phalanx up`; the exit code."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a dump would hold keys and tokens
    try:
        asked = wish(sys.argv[1:])
        with Diary(sys.stderr) as diary:
            structlog.configure(logger_factory=lambda *_: diary)
            asyncio.run(until_signalled(asked))
    except SystemExit as end:
        return USAGE if end.code else 0
    except BaseExceptionGroup as group:
        return explain(first(group))
    except WRONG as wrong:
        return explain(wrong)
    return 0


def first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """What went wrong first among tasks that ended together."""
    inner = group.exceptions[0]
    return first(inner) if isinstance(inner, BaseExceptionGroup) else inner


def explain(error: BaseException) -> int:
    """Say what went wrong; a bug goes on as one."""
    if isinstance(error, WRONG):
        print(f"phalanx up: {error}", file=sys.stderr)
        return USAGE
    if isinstance(error, TROUBLE):
        print(f"phalanx up: {error}", file=sys.stderr)
        return UNAVAILABLE
    raise error


if __name__ == "__main__":
    sys.exit(main())
