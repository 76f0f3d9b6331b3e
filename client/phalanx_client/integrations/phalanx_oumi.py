"""The cloud `phalanx` for Oumi's launcher; Oumi imports this file by `OUMI_EXTRA_DEPS_FILE`.

Nothing is kept in memory: what one process starts another finds, since the manager knows it.
"""

from __future__ import annotations

import io
import secrets
from collections.abc import Iterator
from typing import Any, Final

from oumi.core.configs import JobConfig
from oumi.core.launcher import BaseCloud, BaseCluster, JobState, JobStatus
from oumi.core.registry import register_cloud_builder
from oumi.utils.logging import logger

from phalanx_client import BlockingClient, connect_blocking
from phalanx_client.failure import NOT_FOUND, Refused
from phalanx_client.integrations import oumi_jobs
from phalanx_wire.api import SessionView

PATIENCE_S: Final = 300.0
RECENT: Final = 200
"""So many ended sessions are looked through for jobs."""
REMOVED_WITHIN_S: Final = 120.0


class PhalanxClient:
    """What the cloud asks of the manager; each request has a connection of its own, since Oumi
    asks from forked processes, too.
    """

    def submit(self, job: JobConfig, cluster: str, **options: Any) -> SessionView:
        """Start a job."""
        for notice in oumi_jobs.notices(job):
            logger.warning(notice)
        spec = oumi_jobs.spec_of(job, cluster, secrets.token_hex(3), **options)
        with _connect() as client:
            return client.run(spec, upload=job.working_dir).view

    def jobs(self) -> list[SessionView]:
        """All that run or wait and the newest that have ended, newest first."""
        with _connect() as client:
            live = client.sessions().sessions
            recent = client.sessions(ended=True, limit=RECENT).sessions
        found = {view.id: view for view in (*live, *recent) if oumi_jobs.cluster_of(view)}
        return sorted(found.values(), key=lambda view: view.created_at, reverse=True)

    def job(self, job_id: str) -> SessionView | None:
        """One job."""
        with _connect() as client:
            try:
                view = client.session(job_id)
            except Refused as refused:
                if refused.exit_code == NOT_FOUND:
                    return None
                raise
        return view if oumi_jobs.cluster_of(view) else None

    def end(self, job_ids: list[str]) -> None:
        """Stop jobs, and wait until no process and no container of them is left."""
        with _connect() as client:
            for job_id in job_ids:
                client.stop(job_id)
            for job_id in job_ids:
                if client.wait(job_id, "removed", REMOVED_WITHIN_S) is None:
                    logger.warning(f"job {job_id} is still being stopped")

    def lines(self, job_id: str) -> Iterator[str]:
        """A job's output as it comes, each line with its node's name, to the job's end."""
        with _connect() as client:
            for _, line in client.logs(job_id, follow=True):
                yield f"[{line.rank} {line.host_name}] {line.text}\n"
            client.wait(job_id, "ended")


class PhalanxCluster(BaseCluster):  # type: ignore[misc]
    """The jobs that were started under one name."""

    def __init__(self, name: str, client: PhalanxClient) -> None:
        self._name = name
        self._client = client

    def name(self) -> str:
        """The name."""
        return self._name

    def get_job(self, job_id: str) -> JobStatus | None:
        """One of its jobs, or None."""
        view = self._client.job(job_id)
        if view is None or oumi_jobs.cluster_of(view) != self._name:
            return None
        return _status(view)

    def get_jobs(self) -> list[JobStatus]:
        """Its jobs, newest first."""
        return [_status(view) for view in self._own()]

    def run_job(self, job: JobConfig, **options: Any) -> JobStatus:
        """Start a job; jobs do not wait for each other but for hosts with room."""
        return _status(self._client.submit(job, self._name, **options))

    def cancel_job(self, job_id: str) -> JobStatus:
        """Stop a job; nothing of it runs any more when this returns."""
        if self.get_job(job_id) is None:
            raise ValueError(f"cluster {self._name} has no job {job_id}")
        self._client.end([job_id])
        return self.get_job(job_id)

    def stop(self) -> None:
        """Stop all its jobs; a cluster holds nothing else."""
        self._client.end([view.id for view in self._own() if not oumi_jobs.is_done(view)])

    def down(self) -> None:
        """The same."""
        self.stop()

    def get_logs_stream(self, cluster_name: str, job_id: str | None = None) -> io.TextIOBase:
        """The output of a job, or of the newest one, to its end."""
        jobs = [job_id] if job_id else [view.id for view in self._own()[:1]]
        if not jobs:
            raise ValueError(f"cluster {cluster_name} has had no job")
        return Lines(self._client.lines(jobs[0]))

    def _own(self) -> list[SessionView]:
        return [view for view in self._client.jobs() if oumi_jobs.cluster_of(view) == self._name]


class PhalanxCloud(BaseCloud):  # type: ignore[misc]
    """The hosts of a manager."""

    def __init__(self) -> None:
        self._client = PhalanxClient()

    def up_cluster(self, job: JobConfig, name: str | None, **options: Any) -> JobStatus:
        """Start a job under a name, or under a fresh one.

        Args:
            options: `priority`, a number; higher starts first.
        """
        return PhalanxCluster(name or f"oumi-{secrets.token_hex(3)}", self._client).run_job(
            job, **options
        )

    def get_cluster(self, name: str) -> PhalanxCluster | None:
        """The cluster of that name, if a job was ever started under it."""
        return next((one for one in self.list_clusters() if one.name() == name), None)

    def list_clusters(self) -> list[PhalanxCluster]:
        """The clusters whose jobs the manager knows."""
        names = oumi_jobs.clusters_of(self._client.jobs())
        return [PhalanxCluster(name, self._client) for name in names]


class Lines(io.TextIOBase):
    """Lines as a text stream that can only be read line by line."""

    def __init__(self, lines: Iterator[str]) -> None:
        self._lines = lines

    def readline(self, _size: int = -1, /) -> str:  # type: ignore[override]
        """The next line, or nothing at the end."""
        return next(self._lines, "")


def _connect() -> BlockingClient:
    return connect_blocking(patience_s=PATIENCE_S)


def _status(view: SessionView) -> JobStatus:
    times = (view.created_at, view.started_at, view.ended_at)
    submitted, started, ended = (at.timestamp() if at else None for at in times)
    return JobStatus(
        name=view.spec.env.get(oumi_jobs.JOB) or view.name,
        id=view.id,
        status=view.state.upper(),
        cluster=oumi_jobs.cluster_of(view) or "",
        metadata=oumi_jobs.story_of(view),
        done=oumi_jobs.is_done(view),
        state=JobState[oumi_jobs.state_of(view)],
        submit_time=submitted,
        start_at=started,
        end_at=ended,
    )


register_cloud_builder("phalanx")(PhalanxCloud)
