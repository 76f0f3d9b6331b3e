"""The manager daemon, `python -m phalanx_manager [--config FILE] [--check]`, and its backups."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import resource
import signal
import sys
from pathlib import Path
from typing import Final

import structlog

from phalanx_manager.config import ConfigError, ManagerConfig, load
from phalanx_manager.http.app import CannotListenError
from phalanx_manager.log import processors
from phalanx_manager.rpc import failure
from phalanx_manager.serve import serve
from phalanx_manager.store.backup import backup, restore, waiting
from phalanx_manager.store.port import Unavailable
from phalanx_wire.diary import Diary
from phalanx_wire.standard import fill_standard_streams

DEFAULT_CONFIG: Final = Path("/etc/phalanx/manager.toml")
_NAMED: Final = 20


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="phalanx manager", description="The Phalanx manager.")
    say = parser.add_argument
    say("--config", type=Path, help=f"TOML file (default {DEFAULT_CONFIG})")
    say("--check", action="store_true", help="read the configuration and leave")
    say("--force", action="store_true", help="backup, restore: replace what is there")
    say("verb", nargs="?", choices=("serve", "backup", "restore"), default="serve",
        help="backup: copy the database, also of a running manager; restore: put a copy in its "
        "place")  # fmt: skip
    say("file", nargs="?", type=Path, help="the copy")
    arguments = parser.parse_args()
    if (arguments.verb == "serve") is not (arguments.file is None):
        parser.error(f"{arguments.verb}: name the FILE" if not arguments.file else "no such verb")
    return arguments


def _copy(config: ManagerConfig, verb: str, file: Path, *, force: bool) -> None:
    """Back up or restore the database, and say what was done."""
    if config.database:
        tool = "pg_dump" if verb == "backup" else "pg_restore"
        raise Unavailable("the database", "is a PostgreSQL", f"use {tool}")
    database = config.data_dir / "phalanx.db"
    if verb == "backup":
        backup(database, file, force=force)
        print(f"{file}: a copy of {database}")
        return
    kept = restore(file, database, force=force)
    print(f"{database}: as in {file}" + (f"; what was there is {kept}" if kept else ""))
    begun = waiting(database)
    if begun:
        more = ", ..." if len(begun) > _NAMED else ""
        print(
            f"{len(begun)} have not begun in it: {', '.join(begun[:_NAMED])}{more}. They are "
            "begun some minutes after a manager starts, also when they have run since; "
            "docs/OPERATIONS.md says why, and how to stop them before."
        )


async def _until_signalled(config: ManagerConfig) -> None:
    task = asyncio.current_task()
    assert task is not None  # noqa: S101 - asyncio.run has made it
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, task.cancel)
    with contextlib.suppress(asyncio.CancelledError):
        await serve(config)


def main() -> int:
    """Run the daemon; 2 for a bad configuration, 1 for what cannot be used."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a dump would hold keys and tokens
    fill_standard_streams()
    structlog.configure(processors=processors(sys.stdout))
    arguments = _arguments()
    try:
        if arguments.config is None and not DEFAULT_CONFIG.exists():
            config = ManagerConfig()
        else:
            config = load(arguments.config or DEFAULT_CONFIG)
    except ConfigError as error:
        print(error, file=sys.stderr)
        return 2
    if arguments.check:
        print("the configuration is fine")
        return 0
    try:
        if arguments.verb == "serve":
            _, most = resource.getrlimit(resource.RLIMIT_NOFILE)  # each connection takes one
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
            with Diary(sys.stdout) as diary:
                structlog.configure(logger_factory=lambda *_: diary)
                asyncio.run(_until_signalled(config))
        else:
            _copy(config, arguments.verb, arguments.file, force=arguments.force)
    except (Unavailable, failure.Unavailable, CannotListenError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
