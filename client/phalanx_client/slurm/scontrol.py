"""`scontrol`: look at jobs and hosts in full, requeue, hold, release, give more time."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from typing import Final

from phalanx_client.failure import Refused
from phalanx_client.session import Client
from phalanx_client.slurm import ask
from phalanx_slurm import show, times
from phalanx_slurm.argv import Options
from phalanx_slurm.arrays import job_ref
from phalanx_slurm.jobs import Job
from phalanx_slurm.nodelist import compress, expand
from phalanx_slurm.queue import Entry
from phalanx_slurm.wrong import WrongError

USAGE: Final = """scontrol [-a] [-d] [-o] COMMAND
  show job [ID]            a job in full, or all of them
  show node [LIST]         hosts in full
  show partition [NAME]    partitions
  show hostnames [LIST]    one host a line; without a list those of SLURM_JOB_NODELIST
  show hostlist LIST       the other way round
  requeue ID...            stop what runs of jobs and put them back into the queue
  hold ID... | release ID...
  update JobId=ID TimeLimit=[+]TIME
  ping | version"""
OPTIONS: Final = Options(
    "all/a details/d future/F help/h hide json=? local M= oneliner/o quiet/Q uid/u= verbose/v "
    "version/V clusters= federation sibling yaml=?"
)
_UPDATE: Final = re.compile(r"(?P<key>[A-Za-z]+)=(?P<value>.*)", re.DOTALL)


def main(argv: list[str]) -> int:
    """Run it."""
    given, words = OPTIONS.parse_all(argv)
    if "help" in given or words[:1] == ("help",) or not words:
        print(USAGE)
        return 0
    verb, *rest = words
    one_line = "oneliner" in given
    match verb.lower():
        case "show" | "sh" | "sho":
            return _show(rest, one_line=one_line)
        case "requeue" | "hold" | "release" | "uhold" | "requeuehold":
            return ask.through(_change(verb.lower(), rest))
        case "update":
            return ask.through(_update(rest))
        case "ping":
            return ask.through(_ping())
        case "version":
            print(f"slurm {show.VERSION}")
            return 0
        case _:
            raise WrongError(f"invalid keyword: {verb}\n{USAGE}")


def _show(words: Sequence[str], *, one_line: bool) -> int:
    what, rest = (words[0].lower() if words else ""), words[1:]
    match what:
        case "hostname" | "hostnames":
            text = ",".join(rest) or os.environ.get("SLURM_JOB_NODELIST", "")
            if not text:
                raise WrongError("name a list of hosts, or set SLURM_JOB_NODELIST")
            print("\n".join(_expanded(text)))
            return 0
        case "hostlist" | "hostlistsorted":
            if not rest:
                raise WrongError("name hosts, separated by commas")
            print(compress(_expanded(",".join(rest))))
            return 0
        case "job" | "jobs" | "jobid":
            return ask.through(_show_jobs(rest, one_line=one_line))
        case "node" | "nodes":
            return ask.through(_show_nodes(rest, one_line=one_line))
        case "partition" | "partitions":
            return ask.through(_show_partitions(rest, one_line=one_line))
        case "config":
            print(f"ClusterName             = phalanx\nSLURM_VERSION           = {show.VERSION}")
            return 0
        case _:
            raise WrongError(f"invalid entity: {what or 'nothing'} for keyword: show")


def _expanded(text: str) -> tuple[str, ...]:
    try:
        return expand(text)
    except WrongError as wrong:
        raise WrongError(f"Invalid hostlist: {wrong}") from wrong


def _print(blocks: Sequence[Sequence[str]], *, one_line: bool) -> None:
    for lines in blocks:
        if one_line:
            print(ask.shown(" ".join(line.strip() for line in lines)))
        else:
            print(ask.shown("\n   ".join(lines)), end="\n\n")


async def _show_jobs(words: Sequence[str], *, one_line: bool) -> int:
    client = ask.Asker("scontrol").client()
    if words:
        found = await _jobs(client, words)
    else:
        found = await ask.all_jobs(client, ended=False)
        if not found:
            print("No jobs in the system")
    now, form = ask.local_now(), os.environ.get(ask.TIME_FORMAT, "")
    _print([show.job_lines(Entry(one, now, form)) for one in found], one_line=one_line)
    return 0


async def _show_nodes(words: Sequence[str], *, one_line: bool) -> int:
    found = (await ask.Asker("scontrol").client().nodes()).nodes
    wanted = _expanded(",".join(words))
    known = {str(node.name): node for node in found}
    for name in wanted:
        if name not in known:
            raise WrongError(f"Node {name} not found")
    chosen = [known[name] for name in wanted] or list(found)
    _print([show.node_lines(node) for node in chosen], one_line=one_line)
    return 0


async def _show_partitions(words: Sequence[str], *, one_line: bool) -> int:
    asker = ask.Asker("scontrol")
    found = (await asker.client().nodes()).nodes
    names = sorted({node.cluster for node in found})
    for name in words:
        if name not in names:
            raise WrongError(f"Partition {name} not found")
    usual = asker.said.partition
    blocks = [
        show.partition_lines(name, name == usual, [one for one in found if one.cluster == name])
        for name in words or names
    ]
    _print(blocks, one_line=one_line)
    return 0


async def _jobs(client: Client, words: Sequence[str]) -> list[Job]:
    """Find the jobs that words such as `42`, `jobid=42,43_[1-2]` name."""
    refs = []
    for word in words:
        text = re.sub(r"^(?i:jobid)=", "", word)
        refs += [job_ref(part) for part in ([text] if "[" in text else text.split(","))]
    by_ref = await ask.named(client, refs)
    for ref in refs:
        if not by_ref[ref]:
            raise WrongError("Invalid job id specified")
    return [one for ref in refs for one in by_ref[ref]]


async def _change(verb: str, words: Sequence[str]) -> int:
    if not words:
        raise WrongError(f"too few arguments for keyword: {verb}")
    asker = ask.Asker("scontrol")
    client = asker.client()
    code = 0
    for one in await _jobs(client, words):
        try:
            if verb.startswith("requeue"):
                await client.requeue(one.view.id)
            if verb == "requeuehold":
                await client.hold(one.view.id, held=True)
            if verb in ("hold", "uhold", "release"):
                await client.hold(one.view.id, held=verb != "release")
        except Refused as refused:
            asker.note(f"error: {refused} for job {one.id}")
            code = 1
    return code


async def _update(words: Sequence[str]) -> int:
    fields: dict[str, str] = {}
    for word in words:
        match = _UPDATE.fullmatch(word)
        if match is None:
            raise WrongError(f"Invalid input: {word}")
        fields[match["key"].lower()] = match["value"]
    jobs = fields.pop("jobid", "") or fields.pop("job", "")
    if not jobs:
        raise WrongError("only jobs can be updated: update JobId=ID TimeLimit=TIME")
    wrong = [key for key in fields if key != "timelimit"]
    if wrong or not fields:
        raise WrongError(f"Update of this parameter is not supported: {', '.join(wrong)}")
    asker = ask.Asker("scontrol")
    client = asker.client()
    for one in await _jobs(client, [jobs]):
        await client.extend(one.view.id, _more(one, fields["timelimit"]))
    return 0


def _more(one: Job, text: str) -> float:
    """How much longer a job shall run."""
    wished = times.limit_s(text.lstrip("+-"))
    if one.limit_s is None or wished is None:
        raise WrongError("a job without a time limit can't get one, nor lose the one that it has")
    more = wished if text.startswith("+") else wished - one.limit_s
    if more <= 0 or text.startswith("-"):
        raise WrongError("a time limit can only grow; to end the job earlier: scancel")
    return more


async def _ping() -> int:
    asker = ask.Asker("scontrol")
    await asker.client().sessions(limit=1)
    print(f"Slurmctld(primary) at {asker.manager().url} is UP")
    return 0
