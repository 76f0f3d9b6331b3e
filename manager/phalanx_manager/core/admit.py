"""Whether a request is right, and what exactly it asks for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import msgspec

from phalanx_manager.core import check, gang, place
from phalanx_manager.core.gang import KernelPlan
from phalanx_manager.core.model import AgentRecord, Limits, Refusal
from phalanx_manager.core.session import LOST_AFTER_S
from phalanx_wire import names
from phalanx_wire.ids import AgentId
from phalanx_wire.spec import RoleSpec, SessionSpec, Spread


@dataclass(frozen=True, slots=True)
class Admitted:
    """A request that can be kept.

    Attributes:
        spec: with everything filled in: name, kind, size, roles in full, profile, resources.
        kernels: in rank order.
        warnings: sentences for the user.
    """

    spec: SessionSpec
    kernels: tuple[KernelPlan, ...]
    warnings: tuple[str, ...] = ()


def admit(
    spec: SessionSpec,
    limits: Limits,
    agents: Mapping[AgentId, AgentRecord],
    fallback_name: str,
    lost_after_s: float = LOST_AFTER_S,
) -> Admitted | Refusal:
    """Judge a request against bounds, and against all agents that the manager knows.

    What they could never hold, even all idle, is refused as `never_satisfiable`. The fallback
    name (`naming.readable_name`) is the session's when the request names none. `lost_after_s` is
    kept with a session that does not say it itself: agents are told it, and a manager that is
    started with another value must not give up earlier than they end.
    """
    for mistake in check.session_mistakes(spec, limits):
        return mistake
    roles = gang.roles(spec, limits)
    if isinstance(roles, Refusal):
        return roles
    full = [gang.in_full(role, spec) for role in roles]
    for mistake in _role_mistakes(spec, roles, full):
        return mistake
    sizes: list[gang.Sized] = []
    for index, role in enumerate(full):
        own = roles[index].resources is not None
        size = gang.sized(
            role.resources or spec.resources, f"roles[{index}].resources" if own else "resources"
        )
        if isinstance(size, Refusal):
            return size
        sizes.append(size)
    kernels = gang.plans(full, sizes)
    filled = msgspec.structs.replace(
        _filled(spec, full, sizes, fallback_name),
        lost_after_s=spec.lost_after_s or lost_after_s,
    )
    refusal = _reachable(filled, kernels, agents)
    if refusal is not None:
        return refusal
    return Admitted(filled, kernels, _nowhere_to_save(spec, full))


def crowded(count: int, more: Admitted, most: int) -> Refusal | None:
    """Refuse a session with which its user, who has so many, would have too many containers: each
    takes time and memory of the manager, whoever waits for it.
    """
    if count + len(more.kernels) <= most:
        return None
    return Refusal(
        "too_many_containers",
        409,
        f"your sessions that have not ended have {count} containers; with {len(more.kernels)} more "
        f"they would have over {most}",
        hint="submit it when some have ended, or stop some",
    )


def _role_mistakes(
    spec: SessionSpec, given: tuple[RoleSpec, ...], full: list[RoleSpec]
) -> Iterator[Refusal]:
    for index, role in enumerate(given):
        yield from check.part_mistakes(role, f"roles[{index}].")
    several = sum(role.replicas for role in full) > 1
    if several and spec.mode == "single-node" and spec.spread in ("spread", "one-per-node"):
        yield Refusal(
            "spread",
            400,
            f"a single-node session cannot be laid out {spec.spread}",
            "spread",
            "leave out spread, or use mode multi-node",
        )
    yield from _job_mistakes(spec, sum(role.replicas for role in full))
    kind = _kind(spec, full)
    for index, role in enumerate(full):
        path = f"roles[{index}]." if spec.roles is not None else ""
        if role.image is None:
            yield Refusal(
                "image_required",
                400,
                f"role {role.name} has no image",
                f"{path}image",
                "name one for the session or for the role",
            )
        if kind == "interactive" and role.command:
            yield Refusal(
                "interactive_command",
                400,
                "an interactive session runs no command: it waits for exec and ssh",
                f"{path}command",
                "leave out the command, or make it a batch session",
            )
        if spec.upload and any(m.target == names.UPLOAD_MOUNT for m in role.mounts or ()):
            yield Refusal(
                "mount_duplicate",
                400,
                f"the upload is unpacked at {names.UPLOAD_MOUNT}, so nothing can be mounted there",
                f"{path}mounts",
            )


def _job_mistakes(spec: SessionSpec, count: int) -> Iterator[Refusal]:
    """Yield what is wrong with the parts of a job: together they are the session's containers."""
    nodes = [part.nodes for part in spec.slurm.parts] if spec.slurm is not None else []
    if nodes and (len(nodes) < 2 or min(nodes) < 1 or sum(nodes) != count):
        yield Refusal(
            "slurm_parts",
            400,
            f"parts of {', '.join(map(str, nodes[:9]))} nodes are not the session's {count} "
            "containers",
            "slurm.parts",
            "give two parts or more, whose nodes are the session's containers in rank order",
        )


def _kind(spec: SessionSpec, full: list[RoleSpec]) -> str:
    if spec.kind is not None:
        return spec.kind
    return "batch" if any(role.command for role in full) else "interactive"


def _filled(
    spec: SessionSpec, full: list[RoleSpec], sizes: list[gang.Sized], fallback_name: str
) -> SessionSpec:
    count = sum(role.replicas for role in full)
    return msgspec.structs.replace(
        spec,
        name=spec.name or fallback_name,
        kind=_kind(spec, full),
        size=count,
        roles=tuple(
            msgspec.structs.replace(
                role,
                resources=size.resources,
                workdir=role.workdir or (names.UPLOAD_MOUNT if spec.upload else None),
            )
            for role, size in zip(full, sizes, strict=True)
        ),
        spread=spec.spread or _spread(spec),
        master_port=spec.master_port or (names.MASTER_PORT if spec.network == "private" else None),
        env_profile=spec.env_profile or ("default" if count > 1 else "none"),
        resources=sizes[0].resources,
    )


def _spread(spec: SessionSpec) -> Spread:
    if spec.mode == "single-node":
        return "pack"
    if spec.env_profile == "slurm":
        return "one-per-node"  # a container is a node there
    return "spread" if spec.mode == "multi-node" else "pack"


def _nowhere_to_save(spec: SessionSpec, full: list[RoleSpec]) -> tuple[str, ...]:
    """Say so where a warning is asked for and what it makes a program save cannot stay."""
    lacking = [role.name for role in full if all(mount.read_only for mount in role.mounts or ())]
    if spec.warn_signal is None or not lacking:
        return ()
    text = (
        f"containers of role {', '.join(lacking)} mount no folder that they can write: what a "
        "program saves at its warning is gone in the next attempt, and one rank's checkpoint is "
        "not there for the others; mount a folder that all hosts share: -v /shared:/shared:rw"
    )
    return (text,)


def _reachable(
    spec: SessionSpec,
    kernels: tuple[KernelPlan, ...],
    agents: Mapping[AgentId, AgentRecord],
) -> Refusal | None:
    """Refuse what all agents of the cluster together, idle, could not hold.

    An agent that has not reported yet may be larger than anything: then nothing is refused.
    """
    members = [record for record in agents.values() if record.cluster == spec.cluster]
    if not members or any(record.observed is None for record in members):
        return None
    if spec.network == "host":
        members = [record for record in members if record.host_network is not None]
        if not members:
            return Refusal(
                "host_network_unsupported",
                422,
                f"no agent of cluster {spec.cluster} lets containers onto its host's network",
                "network",
                "use the private network, or set host_network = true in an agent's agent.toml",
            )
    rooms = place.idle_rooms(members)
    result = place.gang(place.Request.of(spec, kernels), rooms)
    if isinstance(result, place.NoFit) and result.certain:
        return Refusal(
            "never_satisfiable",
            422,
            f"cluster {spec.cluster} could not hold this session even if it were idle: "
            f"{result.reason}",
            "resources",
            "ask for less, or add agents",
        )
    return None
