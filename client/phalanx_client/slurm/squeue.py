"""`squeue`: jobs that wait and run."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Final

from phalanx_client.session import Client
from phalanx_client.slurm import ask
from phalanx_client.slurm.documents import print_document, queue_document
from phalanx_slurm import queue, states
from phalanx_slurm.argv import Given, Options
from phalanx_slurm.arrays import job_ref
from phalanx_slurm.columns import Layout, letters, named
from phalanx_slurm.jobs import Job
from phalanx_slurm.queue import Entry
from phalanx_slurm.wrong import WrongError

USAGE: Final = """Usage: squeue [-A ACCOUNTS] [-h] [-j JOBIDS] [-l] [-n NAMES] [-o FORMAT]
              [-O FIELDS] [-p PARTITIONS] [-t STATES] [-u USERS] [--me] [--start] [--json]"""
OPTIONS: Final = Options(
    "account/A= all/a array/r array-unique cluster= clusters/M= federation format/o= Format/O= "
    "help "
    "hide iterate/i= job/j=? jobs=? json=? local licenses/L= long/l me name/n= noconvert "
    "node/w= nodelist= noheader/h notme partition/p= priority/P qos/q= reservation/R= sibling "
    "sort/S= start state/t= states= step/s=? steps=? usage user/u= users= verbose/v version/V "
    "yaml=?"
)
_LIVE: Final = frozenset({"PENDING", "RUNNING", "CONFIGURING", "COMPLETING", "SUSPENDED"})


def main(argv: list[str]) -> int:
    """Run it."""
    given, words = OPTIONS.parse_all(_joined(argv))
    if "help" in given or "usage" in given:
        print(USAGE)
        return 0
    if words:
        raise WrongError(f"Unrecognized option: {words[0]}")
    for long in ("iterate", "step", "steps", "yaml"):
        if long in given:
            raise WrongError(f"--{long}: leave it out; see: watch squeue, phalanx events, --json")
    return ask.through(_run(given))


def _joined(argv: Sequence[str]) -> list[str]:
    """Join `-j 42` and `-s 42.0`: their values may stand apart, unlike other optional ones."""
    words: list[str] = []
    for word in argv:
        apart = words and words[-1] in ("-j", "--job", "--jobs") and word[:1].isdigit()
        if apart:
            words[-1] += word if words[-1] == "-j" else f"={word}"
        else:
            words.append(word)
    return words


async def _run(given: Given) -> int:
    asker = ask.Asker("squeue")
    client = asker.client()
    jobs = await _found(client, given)
    now = ask.local_now()
    if "json" in given:
        print_document(queue_document(jobs))
        return 0
    layout = _layout(given, os.environ)
    if "noheader" not in given:
        print(layout.heading().rstrip() if _is_usual(given, os.environ) else layout.heading())
    for one in jobs:
        print(ask.shown(layout.row(Entry(one, now, os.environ.get(ask.TIME_FORMAT, "")))))
    return 0


async def _found(client: Client, given: Given) -> list[Job]:
    wanted = _states(given)
    jobs_text = given.get("job") or given.get("jobs")
    if jobs_text:
        refs = [job_ref(part) for part in jobs_text.split(",") if part]
        by_ref = await ask.named(client, refs)
        if len(refs) == 1 and not by_ref[refs[0]]:
            raise WrongError("slurm_load_jobs error: Invalid job id specified")
        found = [one for ref in refs for one in by_ref[ref]]
    else:
        sessions = None if wanted is None else states.sessions_in(wanted)
        over = wanted is None or bool(wanted - _LIVE)
        found = await ask.all_jobs(client, sessions if over and sessions else (), ended=over)
    user = given.get("user") or given.get("users")
    if "me" in given:
        user = ask.own_name()
    return ask.chosen(
        found,
        lambda one: wanted is None or one.state in wanted,
        ask.among(user, lambda one: one.user),
        ask.among(given.get("name"), lambda one: one.name),
        ask.among(given.get("partition"), lambda one: one.partition),
        ask.among(given.get("account"), lambda one: one.asked.account),
        ask.on_hosts(given.get("node") or given.get("nodelist")),
    )


def _states(given: Given) -> frozenset[str] | None:
    """States that are asked for; None is all."""
    text = given.get("state") or given.get("states") or os.environ.get("SQUEUE_STATES", "")
    if text.lower() == "all":
        return None
    if "start" in given and not text:
        return frozenset({"PENDING"})
    return frozenset(map(states.named, text.split(","))) if text else _LIVE


def _is_usual(given: Given, environ: Mapping[str, str]) -> bool:
    return not any(one in given for one in ("format", "Format")) and "SQUEUE_FORMAT" not in environ


def _layout(given: Given, environ: Mapping[str, str]) -> Layout[Entry]:
    if "Format" in given:
        return Layout(named(given["Format"], queue.NAMES, spaced=False))
    text = given.get("format") or environ.get("SQUEUE_FORMAT") or ""
    if not text:
        text = queue.START if "start" in given else queue.LONG if "long" in given else queue.USUAL
    return letters(text, queue.LETTERS)
