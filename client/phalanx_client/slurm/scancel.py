"""`scancel`: end jobs, or send them a signal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from phalanx_client.failure import Refused
from phalanx_client.session import Client
from phalanx_client.slurm import ask
from phalanx_slurm import states
from phalanx_slurm.argv import Given, Options
from phalanx_slurm.arrays import job_ref
from phalanx_slurm.jobs import Job
from phalanx_slurm.wrong import WrongError
from phalanx_wire.stream import Recipients

USAGE: Final = """Usage: scancel [-n NAME] [-p PARTITION] [-s SIGNAL] [-t STATES] [-u USER] [--me]
               [-b|-f] [-Q] [JOBID[_TASK] ...]"""
OPTIONS: Final = Options(
    "account/A= batch/b clusters/M= ctld cron full/f help hurry/H interactive/i jobname/n= name= "
    "me nodelist/w= partition/p= qos/q= quiet/Q reservation/R= sibling= signal/s= state/t= usage "
    "user/u= verbose/v version/V wckey="
)
_FILTERS: Final = ("account", "jobname", "name", "me", "nodelist", "partition", "state", "user")
_ENDING: Final = ("KILL", "9")


def main(argv: list[str]) -> int:
    """Run it."""
    given, words = OPTIONS.parse_all(argv)
    if "help" in given or "usage" in given:
        print(USAGE)
        return 0
    if "interactive" in given:
        raise WrongError("--interactive: nothing is asked here; see first: squeue")
    if not words and not any(name in given for name in _FILTERS):
        raise WrongError("No job identification provided")
    return ask.through(_run(given, words))


async def _run(given: Given, words: Sequence[str]) -> int:
    asker = ask.Asker("scancel")
    client = asker.client()
    code = 0
    parts = [part for word in words for part in _parted(word)]
    refs = [job_ref(part) for part in parts]
    if refs:
        by_ref = await ask.named(client, refs)
        for part, ref in zip(parts, refs, strict=True):
            if not by_ref[ref]:
                asker.note(f"error: Kill job error on job id {part}: Invalid job id specified")
                code = 1
        found = list({one.number: one for ref in refs for one in by_ref[ref]}.values())
    else:
        found = await ask.all_jobs(client, ended=False)
    for one in _filtered(given, found):
        code = await _end(asker, client, given, one, named=bool(refs)) or code
    return code


def _parted(word: str) -> list[str]:
    """Split `1,2`, but not `1_[2,3]`."""
    return [word] if "[" in word else [part for part in word.split(",") if part]


def _filtered(given: Given, found: Sequence[Job]) -> list[Job]:
    wanted = frozenset(map(states.named, given["state"].split(","))) if "state" in given else None
    user = ask.own_name() if "me" in given else given.get("user")
    return ask.chosen(
        found,
        lambda one: wanted is None or one.state in wanted,
        ask.among(user, lambda one: one.user),
        ask.among(given.get("jobname") or given.get("name"), lambda one: one.name),
        ask.among(given.get("partition"), lambda one: one.partition),
        ask.among(given.get("account"), lambda one: one.asked.account),
        ask.on_hosts(given.get("nodelist")),
    )


async def _end(asker: ask.Asker, client: Client, given: Given, one: Job, *, named: bool) -> int:
    quiet = "quiet" in given or not named
    if one.ended:
        if not quiet:
            said = "Job/step already completing or completed"
            asker.note(f"error: Kill job error on job id {one.id}: {said}")
        return 0
    signal = given.get("signal", "").upper().removeprefix("SIG")
    try:
        if not signal:
            await client.stop(one.view.id)
        elif signal in _ENDING and "batch" not in given:
            await client.stop(one.view.id, 0.0)
        else:
            to: Recipients = "all" if "full" in given else "tasks"
            to = "command" if "batch" in given else to
            await client.signal(one.view.id, signal, None, to)
    except Refused as refused:
        asker.note(f"error: Kill job error on job id {one.id}: {refused}")
        return 1
    return 0
