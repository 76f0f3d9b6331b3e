"""`sbatch`: submit a script, and say its number."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import replace
from functools import partial

from phalanx_client.failure import Failure, Refused
from phalanx_client.follow import exit_code
from phalanx_client.slurm import ask, site, submit
from phalanx_slurm import options, script
from phalanx_slurm.argv import Given, from_environment
from phalanx_slurm.batch import Asked, Site, batch
from phalanx_slurm.jobs import Job
from phalanx_slurm.request import JobRequest, request, unwarned
from phalanx_slurm.wrong import WrongError

USAGE = "Usage: sbatch [OPTIONS...] executable [args...]"
HELP = """
Options come from the command line, then from SBATCH_* variables, then from the script's #SBATCH
lines. -p names a cluster; a node is a container, and each has a host of its own.

  -N --nodes, -n --ntasks, --ntasks-per-node, -c --cpus-per-task, --mem, --mem-per-cpu,
  --gres=gpu:N, --gpus-per-node, --gpus-per-task, -G --gpus, -t --time, -p --partition,
  -J --job-name, -o --output, -e --error, -i --input, --open-mode, -D --chdir, -a --array,
  -d --dependency, --signal, --requeue, --no-requeue, -H --hold, --priority, --export,
  --container-image, --container-mounts, --container-workdir, --container-env, --wrap, -W --wait,
  --parsable, --test-only, -Q --quiet

Taken, without effect:"""


def main(argv: list[str]) -> int:
    """Run it."""
    given, words = options.SBATCH.parse(argv)
    if "help" in given or "usage" in given:
        print("\n".join([USAGE, *([HELP, *_without_effect()] if "help" in given else [])]))
        return 0
    return ask.through(_run(given, words))


def _without_effect() -> list[str]:
    why: dict[str, list[str]] = {}
    for long, reason in options.IGNORED.items():
        why.setdefault(reason, []).append(f"--{long}")
    return [f"  {' '.join(names)}\n      {reason}" for reason, names in why.items()]


async def _run(given: Given, words: Sequence[str]) -> int:
    asker = ask.Asker("sbatch")
    text, path = _script(given, words)
    environ = from_environment("SBATCH", options.usual("SBATCH"), os.environ, options.RENAMED)
    parts = ({**text.parts[0], **environ, **given}, *text.parts[1:])
    wish = submit.in_partition(request(parts), asker.said.partition)
    wish = _named(wish, path)
    place = site.here(asker.said, os.environ)
    if "quiet" not in given:
        ignored = options.ignored({key: "" for part in parts for key in part})
        for sentence in filter(None, (*ignored, unwarned(wish))):
            asker.note(f"note: {sentence}")
    client = asker.client()
    wish = await submit.sized(client, wish)
    make = partial(_asked, wish, text, tuple(words[1:]), place, path)
    if "test-only" in given:
        return await _test(asker, make(wish.array.tasks[0] if wish.array else None))
    waits = await submit.waits_for(client, wish.after, wish.name)
    try:
        jobs = await submit.submit(client, wish, make, waits)
    except Refused as refused:
        raise Failure(f"Batch job submission failed: {refused}", 1) from refused
    first = jobs[0]
    print(
        first.number if "parsable" in given else f"Submitted batch job {first.number}", flush=True
    )
    _tell(asker, given, make(first.task), first)
    return await _waited(asker, jobs) if "wait" in given else 0


def _asked(
    wish: JobRequest,
    text: script.Script,
    arguments: tuple[str, ...],
    place: Site,
    path: str,
    task: int | None,
) -> Asked:
    return batch(wish, text, arguments, place, path=path, task=task)


def _script(given: Given, words: Sequence[str]) -> tuple[script.Script, str]:
    """Read what is to be submitted, and where it lies."""
    if "wrap" in given:
        if words:
            raise WrongError("Script arguments are not permitted with --wrap option.")
        return script.wrapped(given["wrap"]), ""
    if not words:
        if sys.stdin.isatty():
            raise WrongError("name a script, or write one to standard input")
        return script.read(sys.stdin.buffer.read(script.MOST_BYTES + 1), options.SBATCH), ""
    try:
        with open(words[0], "rb") as file:
            data = file.read(script.MOST_BYTES + 1)
    except OSError as error:
        raise WrongError(f"Unable to open file {words[0]}: {error.strerror}") from error
    return script.read(data, options.SBATCH), os.path.abspath(words[0])


def _named(wish: JobRequest, path: str) -> JobRequest:
    return wish if wish.name else replace(wish, name=os.path.basename(path) or "wrap")


def _tell(asker: ask.Asker, given: Given, asked: Asked, first: Job) -> None:
    """Say what the manager warns of, and where the output is, where it is not where a user of
    SLURM looks for it.
    """
    if "quiet" in given:
        return
    for warning in first.view.warnings:
        asker.note(f"warning: {warning}")
    if asked.files:
        return
    sent = f"{asked.upload} was sent along; " if asked.upload else ""
    asker.note(
        f"note: hosts do not share this folder: {sent}the output is in no file, see: phalanx logs "
        f"{first.number}. For folders that they share: phalanx slurm install --shared DIR"
    )


async def _test(asker: ask.Asker, asked: Asked) -> int:
    plan = await asker.client().dry_run(asked.spec)
    if plan.placement is None:
        raise Failure(f"allocation failure: {plan.reason}", 1)
    asker.note(f"Job would start now on {', '.join(dict.fromkeys(plan.placement))}")
    return 0


async def _waited(asker: ask.Asker, jobs: Sequence[Job]) -> int:
    client, worst = asker.client(), 0
    for one in jobs:
        view = await client.wait(one.view.id, "ended")
        assert view is not None  # noqa: S101 - it was waited for without a limit
        worst = max(worst, exit_code(view))
    return worst
