"""The JSON of `squeue` and `sacct`, in the shapes of their 23.02 versions."""

from __future__ import annotations

import os
from collections.abc import Iterable
from datetime import datetime
from typing import Any, Final

import msgspec

from phalanx_slurm import states
from phalanx_slurm.jobs import Job

_META: Final = {
    "plugin": {"type": "openapi/dbv0.0.39", "name": "Phalanx"},
    "Slurm": {"version": {"major": "23", "micro": "7", "minor": "02"}, "release": "23.02.7"},
}
_UNIT: Final = {"set": True, "infinite": False}


def print_document(document: dict[str, Any]) -> None:
    """Print JSON for people and programs."""
    print(msgspec.json.format(msgspec.json.encode(document), indent=1).decode(), flush=True)


def queue_document(jobs: Iterable[Job]) -> dict[str, Any]:
    """Spell jobs as `squeue --json` does."""
    return {"meta": _META, "jobs": [_queued(job) for job in jobs], "warnings": [], "errors": []}


def accounting_document(jobs: Iterable[Job]) -> dict[str, Any]:
    """Spell jobs as `sacct --json` does."""
    return {"meta": _META, "jobs": [_accounted(job) for job in jobs], "warnings": [], "errors": []}


def _queued(job: Job) -> dict[str, Any]:
    view = job.view
    return {
        "job_id": job.number,
        "array_job_id": _number(job.array or 0),
        "array_task_id": _number(job.task),
        "name": job.name,
        "user_name": job.user,
        "user_id": 0,
        "group_name": job.user,
        "account": job.asked.account,
        "partition": job.partition,
        "cluster": "phalanx",
        "job_state": job.state,
        "state_reason": job.reason,
        "state_description": view.reason or "",
        "nodes": job.nodelist,
        "node_count": _number(job.nodes),
        "tasks": _number(job.tasks),
        "cpus": _number(job.cpus),
        "cpus_per_task": _number(job.asked.cpus_per_task),
        "memory_per_node": _number(job.mem_bytes >> 20),
        "tres_per_node": f"gres:gpu:{job.gpus}" if job.gpus else "",
        "time_limit": _minutes(job.limit_s),
        "submit_time": _seconds(view.created_at),
        "start_time": _seconds(view.started_at),
        "end_time": _seconds(view.ended_at),
        "exit_code": view.exit_code or 0,
        "restart_cnt": view.attempt - 1,
        "requeue": view.spec.requeue,
        "hold": view.held,
        "dependency": view.spec.after or "",
        "batch_host": job.hosts[0] if job.hosts else "",
        "batch_flag": view.kind == "batch",
        "command": job.asked.script,
        "current_working_directory": job.asked.submit_dir,
        "standard_output": job.stdout,
        "standard_error": job.stderr,
        "standard_input": os.devnull,
        "het_job_id": _number(0),
        "het_job_offset": _number(0),
        "container": view.spec.image or "",
        "job_resources": {
            "nodes": job.nodelist,
            "allocated_hosts": len(job.hosts),
            "allocated_cpus": job.cpus if job.hosts else 0,
            "allocated_nodes": [
                {"nodename": host, "cpus_used": 0, "memory_used": 0} for host in job.hosts
            ],
        },
    }


def _accounted(job: Job) -> dict[str, Any]:
    view = job.view
    ended = view.ended_at or view.started_at
    elapsed = (ended - view.started_at).total_seconds() if ended and view.started_at else 0
    return {
        "job_id": job.number,
        "array": {"job_id": job.array or 0, "task_id": _number(job.task)},
        "name": job.name,
        "user": job.user,
        "account": job.asked.account,
        "partition": job.partition,
        "cluster": "phalanx",
        "nodes": job.nodelist or "None assigned",
        "allocation_nodes": len(job.hosts),
        "state": {"current": states.accounted(view), "reason": job.reason},
        "exit_code": {"status": "SUCCESS" if not view.exit_code else "ERROR",
                      "return_code": view.exit_code or 0},
        "time": {
            "submission": _seconds(view.created_at),
            "start": _seconds(view.started_at),
            "end": _seconds(view.ended_at),
            "elapsed": int(elapsed),
            "limit": _minutes(job.limit_s),
        },
        "required": {"CPUs": job.cpus, "memory_per_node": _number(job.mem_bytes >> 20)},
        "restart_cnt": view.attempt - 1,
        "working_directory": job.asked.submit_dir,
        "steps": [],
    }  # fmt: skip


def _number(value: int | None) -> dict[str, Any]:
    return {**_UNIT, "set": value is not None, "number": value or 0}


def _minutes(seconds: float | None) -> dict[str, Any]:
    if seconds is None:
        return {"set": False, "infinite": True, "number": 0}
    return {**_UNIT, "number": int(seconds // 60)}


def _seconds(at: datetime | None) -> int:
    return 0 if at is None else int(at.timestamp())
