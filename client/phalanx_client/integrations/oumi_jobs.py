"""An Oumi job as a session, and a session as the state of an Oumi job; without Oumi itself.

An Oumi cluster is no more than a name here: that of the jobs which were started under it. Each job
is a session with a container for each node, and carries the two names in its environment, so that
every process that asks the manager knows what any other has started.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, Final

from phalanx_wire.api import ENDED_STATES, SessionView
from phalanx_wire.spec import Resources, SessionSpec

CLUSTER: Final = "OUMI_CLUSTER"
JOB: Final = "OUMI_JOB"
NO_NAME: Final = "oumi"
MAX_PREFIX: Final = 50
IGNORED: Final = ("zone", "instance_type", "use_spot", "disk_size", "disk_tier", "config_overrides")

# Every node: setup, then run, each as a script of its own. `oumi distributed` reads the variables.
SCRIPT: Final = """\
SKYPILOT_NODE_RANK=$BACKENDAI_CLUSTER_LOCAL_RANK
SKYPILOT_NODE_IPS=$(IFS=,; printf '%s\\n' $BACKENDAI_CLUSTER_HOSTS)
export SKYPILOT_NODE_RANK SKYPILOT_NODE_IPS
shell=sh
command -v bash >/dev/null && shell=bash
for part; do "$shell" -c "$part" || exit; done
"""


def spec_of(job: Any, cluster: str, mark: str, priority: int = 0) -> SessionSpec:
    """The session that a `JobConfig` asks for; `working_dir` is left to be uploaded.

    Args:
        mark: what makes the session's name differ from that of other jobs of the cluster.

    Raises:
        ValueError: the job asks for what there is not.
    """
    _refuse(job)
    wish = job.resources
    gpus = _devices(wish.accelerators)
    per_node = int(str(gpus).rpartition(":")[2]) if gpus else 1
    env = {
        **{str(key): str(value) for key, value in (job.envs or {}).items()},
        "SKYPILOT_NUM_NODES": str(job.num_nodes),
        "SKYPILOT_NUM_GPUS_PER_NODE": str(per_node),
        CLUSTER: cluster,
        JOB: job.name or "",
    }
    memory = _least("memory", wish.memory)
    return SessionSpec(
        name=f"{_prefix(cluster)}-{mark}",
        kind="batch",
        size=job.num_nodes,
        # The launchers that jobs call start a node's processes; they must not find a rank.
        env_profile="torchrun" if job.num_nodes > 1 else None,
        image=_image(wish),
        command=("sh", "-c", SCRIPT, "oumi", *filter(None, (job.setup, job.run))),
        env=env,
        user=job.user,
        resources=Resources(
            cpu=_least("cpus", wish.cpus),
            mem=None if memory is None else f"{memory:g}G",
            gpu=gpus,
        ),
        cluster=wish.region or "default",
        priority=priority,
    )


def notices(job: Any) -> list[str]:
    """Sentences about what a job asks for in vain."""
    return [
        f"resources.{name} means nothing on hosts of one's own and is ignored"
        for name in IGNORED
        if getattr(job.resources, name)
    ]


def is_done(view: SessionView) -> bool:
    """Whether a job has ended."""
    return view.state in ENDED_STATES


def state_of(view: SessionView) -> str:
    """The name of Oumi's `JobState`."""
    match view.state:
        case "running" | "stopping":
            return "RUNNING"
        case "succeeded":
            return "SUCCEEDED"
        case "failed" | "timeout":
            return "FAILED"
        case "cancelled":
            return "CANCELLED"
        case _:
            return "PENDING"


def story_of(view: SessionView) -> str:
    """What there is to say about a job: the session to look at, and why it is as it is."""
    code = "" if view.exit_code is None else f", exit code {view.exit_code}"
    reason = f": {view.reason}" if view.reason else ""
    return f"session {view.name}{code}{reason}"


def cluster_of(view: SessionView) -> str | None:
    """The name of the Oumi cluster that a session is a job of; None for any other session."""
    return view.spec.env.get(CLUSTER)


def clusters_of(views: Iterable[SessionView]) -> list[str]:
    """The names of the clusters that sessions are jobs of, each once, in their order."""
    return [*dict.fromkeys(name for view in views if (name := cluster_of(view)))]


def _refuse(job: Any) -> None:
    if job.file_mounts:
        raise ValueError(
            f"file_mounts ({', '.join(job.file_mounts)}): files come with working_dir, which is "
            "copied to /workspace; give secrets as envs"
        )
    if job.storage_mounts:
        raise ValueError(
            f"storage_mounts ({', '.join(job.storage_mounts)}): there is no remote storage here; "
            "the hosts' own folders are for `phalanx run --mount`"
        )
    if not job.run:
        raise ValueError("the job has no `run`")


def _image(wish: Any) -> str:
    named: str | None = wish.image_id or (wish.image_id_map or {}).get(wish.region)
    if not named:
        raise ValueError("resources.image_id must name the image, as in docker:python:3.12")
    return named.removeprefix("docker:")


def _devices(text: str | None) -> str | None:
    """`A100:4`, or one when no count is given."""
    if not text:
        return None
    return text if ":" in text or text.isdecimal() else f"{text}:1"


def _least(field: str, text: Any) -> float | None:
    """Read `4` or `4+`: a host of one's own gives what is asked for, and no more."""
    if text is None:
        return None
    if not re.fullmatch(r"[0-9]+(\.[0-9]+)?\+?", str(text)):
        raise ValueError(f"resources.{field}: {text!r} is no amount; write 4 or 4+")
    return float(str(text).rstrip("+"))


def _prefix(cluster: str) -> str:
    """What a cluster's name becomes in a session's: lower case, digits, hyphens."""
    return re.sub(r"[^a-z0-9]+", "-", cluster.lower())[:MAX_PREFIX].strip("-") or NO_NAME
