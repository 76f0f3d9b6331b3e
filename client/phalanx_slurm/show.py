"""What `scontrol show` tells, line by line; all but the first are set in."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from datetime import datetime
from typing import Final

from phalanx_slurm import nodes, queue, times
from phalanx_slurm.nodelist import compress
from phalanx_wire.api import NodeView

VERSION: Final = "23.02.7"


def job_lines(entry: queue.Entry) -> list[str]:
    """Show a job."""
    job, view = entry.job, entry.job.view

    def at(moment: datetime | None) -> str:
        return entry.stamp(moment, "Unknown")

    array = "" if job.task is None else f" ArrayJobId={job.array} ArrayTaskId={job.task}"
    limit = "UNLIMITED" if job.limit_s is None else times.elapsed(job.limit_s)
    gpus = f",gres/gpu={job.gpus * job.nodes}" if job.gpus else ""
    return [
        f"JobId={job.number}{array} JobName={_word(job.name)}",
        f"UserId={job.user} GroupId={job.user} Account={job.asked.account or '(null)'} QOS=normal",
        f"Priority={view.spec.priority} Nice=0",
        f"JobState={job.state} Reason={job.reason} Dependency={view.spec.after or '(null)'}",
        f"Requeue={int(view.spec.requeue)} Restarts={view.attempt - 1} Reboot=0",
        f"BatchFlag={int(view.kind == 'batch')} ExitCode={job.exit_text}",
        f"RunTime={times.elapsed(job.elapsed_s(entry.now))} TimeLimit={limit} TimeMin=N/A",
        f"SubmitTime={at(view.created_at)} EligibleTime={at(view.created_at)}",
        f"StartTime={at(view.started_at)} EndTime={at(queue.end(entry))} Deadline=N/A",
        f"Partition={job.partition} AllocNode:Sid={job.asked.submit_host or '(null)'}:0",
        "ReqNodeList=(null) ExcNodeList=(null)",
        f"NodeList={job.nodelist or '(null)'}",
        f"BatchHost={job.hosts[0] if job.hosts else '(null)'}",
        f"NumNodes={job.nodes} NumCPUs={job.cpus} NumTasks={job.tasks}",
        f"CPUs/Task={job.asked.cpus_per_task or 1}",
        f"TRES=cpu={job.cpus},mem={job.mem_bytes * job.nodes >> 20}M,node={job.nodes}{gpus}",
        f"MinMemoryNode={job.mem_bytes >> 20}M",
        f"Command={_word(job.asked.script) or '(null)'}",
        f"WorkDir={_word(job.asked.submit_dir)}",
        f"StdErr={_word(job.stderr)}",
        "StdIn=/dev/null",
        f"StdOut={_word(job.stdout)}",
        f"Comment={_word(view.id)} Reason_={_word(view.reason or 'None')}",
    ]


def node_lines(node: NodeView) -> list[str]:
    """Show a host."""
    state = nodes.state(node).upper()
    gpus = f"gpu:{node.capacity.gpu}" if node.capacity.gpu else "(null)"
    return [
        f"NodeName={node.name} CoresPerSocket={math.floor(node.capacity.cpu)}",
        f"CPUAlloc={math.ceil(node.used.cpu)} CPUTot={math.floor(node.capacity.cpu)}",
        f"Gres={gpus}",
        f"NodeAddr={node.address or node.name} NodeHostName={node.name} Version={VERSION}",
        f"RealMemory={nodes.mem_mb(node)} AllocMem={node.used.mem_bytes >> 20} Sockets=1 Boards=1",
        f"State={state} ThreadsPerCore=1 TmpDisk=0 Weight=1 Owner=N/A",
        f"Partitions={node.cluster}",
        *([f"Reason={node.reason}"] if node.reason else []),
    ]


def partition_lines(name: str, usual: bool, members: Sequence[NodeView]) -> list[str]:  # noqa: FBT001
    """Show a cluster as a partition."""
    cpus = sum(math.floor(node.capacity.cpu) for node in members)
    return [
        f"PartitionName={name}",
        "AllowGroups=ALL AllowAccounts=ALL AllowQos=ALL",
        f"Default={'YES' if usual else 'NO'} DefaultTime=NONE DisableRootJobs=NO Hidden=NO",
        "MaxNodes=UNLIMITED MaxTime=UNLIMITED MinNodes=0",
        f"Nodes={compress(node.name for node in members)}",
        f"State=UP TotalCPUs={cpus} TotalNodes={len(members)}",
    ]


def _word(text: str) -> str:
    return re.sub(r"\s+", "_", text)
