"""`sacct`: jobs, those that are over too."""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import datetime
from typing import Final

from phalanx_client.session import Client
from phalanx_client.slurm import ask
from phalanx_client.slurm.documents import accounting_document, print_document
from phalanx_slurm import accounting, columns, states, times
from phalanx_slurm.accounting import FIELDS
from phalanx_slurm.argv import Given, Options
from phalanx_slurm.arrays import job_ref
from phalanx_slurm.jobs import Job
from phalanx_slurm.wrong import WrongError

USAGE: Final = """Usage: sacct [-X] [-j JOBIDS] [-u USERS] [-s STATES] [-S TIME] [-E TIME]
             [-o FIELDS] [-p|-P] [-n] [--name NAMES] [--json] [-e]"""
OPTIONS: Final = Options(
    "accounts/A= allusers/a allocations/X array brief/b cluster= clusters/M= completion/c "
    "constraints/C= "
    "delimiter= duplicates/D endtime/E= env-vars batch-script/B federation flags/F= format/o= "
    "group/g= gid= help/h helpformat/e jobs/j= job= json=? local/L long/l name= ncpus/I= "
    "noconvert nodelist/N= noheader/n nnodes/i= parsable/p parsable2/P partition/r= qos/q= "
    "reason/R= starttime/S= state/s= timelimit-max= timelimit-min/k= truncate/T uid= units= usage "
    "use-local-uid user/u= verbose/v version/V wckeys/W= whole-hetjob=? associations/x= yaml=?"
)


def main(argv: list[str]) -> int:
    """Run it."""
    # `-j 1 -j 2` asks for both, unlike other options.
    numbers: list[str] = []
    words: list[str] = []
    for word in argv:
        if words and words[-1] in ("-j", "--jobs", "--job"):
            numbers.append(word)
            words.pop()
        else:
            words.append(word)
    given, rest = OPTIONS.parse_all(words)
    if "help" in given or "usage" in given:
        print(USAGE)
        return 0
    if "helpformat" in given:
        names = sorted(field.heading for field in FIELDS.values())
        print("\n".join(" ".join(names[at : at + 6]) for at in range(0, len(names), 6)))
        return 0
    if rest or "yaml" in given:
        raise WrongError(f"Unrecognized option: {rest[0] if rest else '--yaml; see --json'}")
    numbers += [given[key] for key in ("jobs", "job") if key in given]
    return ask.through(_run(given, ",".join(numbers)))


async def _run(given: Given, numbers: str) -> int:
    text = given.get("format") or os.environ.get("SACCT_FORMAT") or accounting.USUAL
    if "format" not in given:
        text = accounting.BRIEF if "brief" in given else text
        text = accounting.LONG if "long" in given else text
    chosen = columns.named(text, FIELDS, spaced=True)
    asker = ask.Asker("sacct")
    now = ask.local_now()
    jobs = await _found(asker.client(), given, numbers, now)
    if "json" in given:
        print_document(accounting_document(jobs))
        return 0
    form = os.environ.get(ask.TIME_FORMAT, "")
    rows = list(accounting.entries(jobs, now, form, steps="allocations" not in given))
    heading = "noheader" not in given
    if "parsable" in given or "parsable2" in given:
        mark = given.get("delimiter") or "|"
        last = "parsable2" not in given
        lines = columns.parsable(chosen, rows, mark, heading=heading, last=last)
    else:
        lines = columns.table(chosen, rows, heading=heading)
    print(ask.shown("\n".join(lines))) if lines else None
    return 0


async def _found(client: Client, given: Given, numbers: str, now: datetime) -> list[Job]:
    if numbers:
        refs = [job_ref(part) for part in numbers.split(",") if part]
        by_ref = await ask.named(client, list(dict.fromkeys(refs)))
        found = list({one.number: one for ref in refs for one in by_ref[ref]}.values())
    else:
        found = await ask.all_jobs(client, ended=True)
    wanted = frozenset(map(states.named, given["state"].split(","))) if "state" in given else None
    user = given.get("user") or given.get("uid")
    return ask.chosen(
        found,
        lambda one: wanted is None or states.accounted(one.view) in wanted or one.state in wanted,
        ask.among(None if user in (None, "") else user, lambda one: one.user),
        ask.among(given.get("name"), lambda one: one.name),
        ask.among(given.get("partition"), lambda one: one.partition),
        ask.among(given.get("accounts"), lambda one: one.asked.account),
        ask.on_hosts(given.get("nodelist")),
        _between(given, now, whole=bool(numbers)),
    )


def _between(given: Given, now: datetime, *, whole: bool) -> Callable[[Job], bool]:
    """Make the test of the time: since midnight when nothing is said and no job is named."""
    midnight = now.replace(hour=0, minute=0, second=0, microsecond=0)
    begin = times.moment(given["starttime"], now) if "starttime" in given else midnight
    end = times.moment(given["endtime"], now) if "endtime" in given else None
    if whole and "starttime" not in given:
        begin = datetime.fromtimestamp(0, now.tzinfo)
    return lambda one: (
        (one.view.ended_at or now) >= begin and (end is None or one.view.created_at <= end)
    )
