"""Whether a request is right, and what exactly it asks for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from phalanx_manager.core.model import AgentRecord, Limits, Refusal
from phalanx_wire.ids import AgentId
from phalanx_wire.slots import Slots
from phalanx_wire.spec import SessionSpec


@dataclass(frozen=True, slots=True)
class KernelPlan:
    """One container of an admitted session.

    Attributes:
        slots: `mem_bytes` includes /dev/shm.
        gpu_model: the devices must be of this model; empty is any.
    """

    rank: int
    role: str
    replica: int
    host_name: str
    slots: Slots
    gpu_model: str
    shm_bytes: int


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
) -> Admitted | Refusal:
    """Judge a request against bounds, and against all agents that the manager knows.

    What they could never hold, even all idle, is refused as `never_satisfiable`. The fallback
    name (`naming.readable_name`) is the session's when the request names none.
    """
    raise NotImplementedError
