"""`srun` outside of containers: a step in a job that there is, or in one of its own."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from contextlib import ExitStack
from typing import Final

import msgspec

from phalanx_client import terminal
from phalanx_client.__main__ import first
from phalanx_client.aio import AioTransport
from phalanx_client.either import leading
from phalanx_client.failure import Failure
from phalanx_client.session import Client
from phalanx_client.slurm import allocate, ask, hangup, site
from phalanx_client.websocket import HEARTBEAT_S, STDERR, Process, of, opened
from phalanx_slurm.argv import Given
from phalanx_slurm.batch import variables
from phalanx_slurm.jobs import Job
from phalanx_slurm.options import SRUN_OUTSIDE
from phalanx_slurm.request import export
from phalanx_slurm.srun_options import SRUN, Surroundings, read
from phalanx_slurm.wrong import WrongError
from phalanx_wire.step import StepSpec

USAGE: Final = "Usage: srun [OPTIONS...] executable [args...]   (--pty, -l, -K, -o, -e, --jobid=ID)"
_PASSED: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2, signal.SIGHUP)


def main(argv: list[str]) -> int:
    """Run it."""
    given, command = SRUN_OUTSIDE.parse(argv)
    if "help" in given or "usage" in given:
        print(USAGE)
        return 0
    if not command:
        raise WrongError("No command given to execute.")
    if "pty" in given and command[1:] and command[1].startswith("--job-name"):
        # Lightning's pages write it behind the shell, which has no such option.
        more, rest = SRUN_OUTSIDE.parse(command[1:])
        given, command = {**given, **more}, (command[0], *rest)
    with hangup.interrupting():
        try:
            return asyncio.run(_run(given, command))
        except BaseExceptionGroup as group:
            raise first(group) from group


async def _run(given: Given, command: tuple[str, ...]) -> int:
    asker = ask.Asker("srun")
    async with AioTransport(await leading(asker.manager())) as transport:
        client = Client(transport, patience_s=ask.PATIENCE_S)
        named = given.get("jobid") or os.environ.get("SLURM_JOB_ID", "")
        if named:
            found = await ask.by_number(client, int(named)) if named.isdecimal() else None
            if found is None:
                raise Failure(f"Unable to confirm allocation for job {named}: Invalid job id", 1)
            return await _step(transport, found, _spec(asker, given, command))
        spec = _spec(asker, given, command)
        if spec.more or spec.part:
            raise WrongError(
                "several commands (:) are for the parts of a job that is there: write them into "
                "its script, with #SBATCH hetjob between the options of its parts"
            )
        name = os.path.basename(command[0])
        found = await allocate.allocated(asker, client, given, name, os.environ)
        try:
            return await _step(transport, found, spec)
        finally:
            await client.stop(found.view.id)


def _spec(asker: ask.Asker, given: Given, command: tuple[str, ...]) -> StepSpec:
    """Make the step: tasks get of this machine's variables what a job would."""
    words = [f"--{long}={value}" if value else f"--{long}" for long, value in given.items()
             if long in SRUN.names and long not in ("jobid", "export")]  # fmt: skip
    place = site.here(asker.said, os.environ)
    chosen = variables(export(given.get("export")), (), os.environ)
    around = Surroundings(chosen, {}, place.cwd if place.is_shared(place.cwd) else "")
    spec = read([*words, "--", *command], around)
    if spec.tty and not (sys.stdin.isatty() and sys.stdout.isatty()):
        return msgspec.structs.replace(spec, tty=False)
    if spec.tty:
        rows, columns = terminal.size()
        return msgspec.structs.replace(spec, rows=rows, columns=columns)
    return spec


async def _step(transport: AioTransport, found: Job, spec: StepSpec) -> int:
    """Run a step with our own input and output; its exit code."""
    path = of(found.view.id, "steps")
    async with opened(transport, path, {}, heartbeat=HEARTBEAT_S) as socket:
        await socket.send_str(msgspec.json.encode(spec).decode())
        process = Process(transport.url, socket)
        keyboard = terminal.Keyboard()
        with ExitStack() as undo:
            if spec.tty:
                undo.enter_context(terminal.raw())
            async with asyncio.TaskGroup() as tasks:
                beside = [tasks.create_task(process.feed(keyboard.pieces()))]
                beside.append(tasks.create_task(_pass_signals(process, spec)))
                async for channel, data in process.output():
                    stream = sys.stderr.buffer if channel == STDERR else sys.stdout.buffer
                    stream.write(data)
                    stream.flush()
                keyboard.stop()
                for task in beside:
                    task.cancel()
    assert process.exit_code is not None  # noqa: S101 - the output ends with it
    return process.exit_code


async def _pass_signals(process: Process, spec: StepSpec) -> None:
    """Hand signals on to all tasks, and the window's size to the one on a terminal."""
    arrived: asyncio.Queue[int] = asyncio.Queue()
    loop = asyncio.get_running_loop()
    watched = (signal.SIGWINCH,) if spec.tty else _PASSED
    interrupted = False
    for number in watched:
        loop.add_signal_handler(number, arrived.put_nowait, int(number))
    try:
        while True:
            one = await arrived.get()
            if one == signal.SIGINT and interrupted:
                raise KeyboardInterrupt  # the first one did not help: all tasks are ended
            interrupted = one == signal.SIGINT
            if one == signal.SIGWINCH:
                await process.resize(*terminal.size())
            else:
                await process.signal(one)
    except ConnectionResetError:
        return
    finally:
        for number in watched:
            loop.remove_signal_handler(number)
