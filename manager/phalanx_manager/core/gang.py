"""From what was asked for to roles in full and to single containers."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import msgspec

from phalanx_manager.core.check import cut
from phalanx_manager.core.model import Limits, Refusal
from phalanx_wire import names
from phalanx_wire.slots import Slots, parse_bytes, spell_bytes
from phalanx_wire.spec import Resources, RoleSpec, SessionSpec

MIN_MEM_BYTES: Final = 16 << 20
MAX_MEM_BYTES: Final = 64 << 40
MIN_SHM_BYTES: Final = 1 << 20
MIN_CPU: Final = 0.01
MAX_CPU: Final = 4_096
MAX_GPU: Final = 1_024
MIN_PIDS: Final = 16
MAX_PIDS: Final = 4_194_304

DEFAULT_CPU: Final = 1.0
DEFAULT_MEM_BYTES: Final = 2 << 30
DEFAULT_SHM_BYTES: Final = 1 << 30
DEFAULT_PIDS: Final = 4_096

_GPU: Final = re.compile(r"(?:(?P<model>[a-z0-9][a-z0-9._-]{0,62}):)?(?P<count>[0-9]{1,7})")


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


def roles(spec: SessionSpec, limits: Limits) -> tuple[RoleSpec, ...] | Refusal:
    """Spell the roles: as given, or `main:1,sub:size-1`."""
    if spec.roles is None:
        size = 1 if spec.size is None else spec.size
        if not 1 <= size <= limits.max_size:
            return _size_refusal(size, limits)
        main = RoleSpec(name="main")
        return (main,) if size == 1 else (main, RoleSpec(name="sub", replicas=size - 1))
    mistake = _role_mistake(spec.roles)
    if mistake is not None:
        return mistake
    total = sum(role.replicas for role in spec.roles)
    if total > limits.max_size:
        return _size_refusal(total, limits)
    if spec.size is not None and spec.size != total:
        return Refusal(
            "size",
            400,
            f"size says {spec.size}, but the roles have {total} containers",
            "size",
            "leave out size where roles are given",
        )
    return spec.roles


def in_full(role: RoleSpec, spec: SessionSpec) -> RoleSpec:
    """Give a role what it takes from its session; `resources` are filled by `sized`."""
    return RoleSpec(
        name=role.name,
        replicas=role.replicas,
        image=spec.image if role.image is None else role.image,
        command=spec.command if role.command is None else role.command,
        env={**spec.env, **role.env},
        workdir=spec.workdir if role.workdir is None else role.workdir,
        user=spec.user if role.user is None else role.user,
        mounts=spec.mounts if role.mounts is None else role.mounts,
        resources=_over(spec.resources, role.resources or Resources()),
    )


@dataclass(frozen=True, slots=True)
class Sized:
    """The resources of a role as amounts, and the same spelled for the spec in full."""

    slots: Slots
    gpu_model: str
    shm_bytes: int
    resources: Resources


def sized(asked: Resources, path: str) -> Sized | Refusal:
    """Turn what a role asks for into amounts; `path` names it, e.g. `roles[1].resources`."""
    cpu = DEFAULT_CPU if asked.cpu is None else asked.cpu
    if not math.isfinite(cpu) or not MIN_CPU <= cpu <= MAX_CPU:
        return _bad("cpu", f"{cpu} cores are out of bounds", path, f"{MIN_CPU} to {MAX_CPU}")
    mem = DEFAULT_MEM_BYTES if asked.mem is None else _bytes(asked.mem, f"{path}.mem", "mem")
    if isinstance(mem, Refusal):
        return mem
    if not MIN_MEM_BYTES <= mem <= MAX_MEM_BYTES:
        bounds = f"{spell_bytes(MIN_MEM_BYTES)} to {spell_bytes(MAX_MEM_BYTES)}"
        return _bad("mem", f"{spell_bytes(mem)} of memory is out of bounds", path, bounds)
    default_shm = min(mem, max(DEFAULT_SHM_BYTES, mem // 2))
    shm = default_shm if asked.shm is None else _bytes(asked.shm, f"{path}.shm", "shm")
    if isinstance(shm, Refusal):
        return shm
    if not MIN_SHM_BYTES <= shm <= mem:
        bounds = f"{spell_bytes(MIN_SHM_BYTES)} to mem, which is {spell_bytes(mem)}"
        return _bad("shm", f"shared memory of {spell_bytes(shm)} is out of bounds", path, bounds)
    match = _GPU.fullmatch(str(0 if asked.gpu is None else asked.gpu).strip().lower())
    if match is None or int(match["count"]) > MAX_GPU:
        title = f"{cut(str(asked.gpu))} is no number of devices"
        return _bad("gpu", title, path, f"a count of 0 to {MAX_GPU}, or model:count")
    pids = DEFAULT_PIDS if asked.pids is None else asked.pids
    if not MIN_PIDS <= pids <= MAX_PIDS:
        return _bad("pids", f"{pids} processes are out of bounds", path, f"{MIN_PIDS}-{MAX_PIDS}")
    gpus, model = int(match["count"]), match["model"] or ""
    slots = Slots(cpu_milli=round(cpu * 1000), mem_bytes=mem, gpu=gpus, pids=pids)
    spelled = f"{model}:{gpus}" if model else gpus
    return Sized(slots, model, shm, Resources(cpu=cpu, mem=mem, gpu=spelled, shm=shm, pids=pids))


def plans(full: Sequence[RoleSpec], sizes: Sequence[Sized]) -> tuple[KernelPlan, ...]:
    """Number the containers: the roles as written, each role's replicas ascending."""
    ranked: list[KernelPlan] = []
    for role, size in zip(full, sizes, strict=True):
        for replica in range(1, role.replicas + 1):
            ranked.append(
                KernelPlan(
                    rank=len(ranked),
                    role=role.name,
                    replica=replica,
                    host_name=names.host_name(role.name, replica),
                    slots=size.slots,
                    gpu_model=size.gpu_model,
                    shm_bytes=size.shm_bytes,
                )
            )
    return tuple(ranked)


def _role_mistake(given: Sequence[RoleSpec]) -> Refusal | None:
    if not given or given[0].name != "main" or given[0].replicas != 1:
        return Refusal(
            "role_main",
            400,
            "the first role is not main with exactly one replica",
            "roles[0]" if given else "roles",
            "begin with {name: main, replicas: 1}",
        )
    seen: set[str] = set()
    for index, role in enumerate(given):
        if not names.is_role_name(role.name):
            return Refusal(
                "role_name",
                400,
                f"{cut(role.name)} is no role name",
                f"roles[{index}].name",
                "use lowercase letters, digits and inner hyphens; begin and end with a letter",
            )
        if role.name in seen:
            return Refusal(
                "role_duplicate",
                400,
                f"two roles are named {role.name}",
                f"roles[{index}].name",
                "give one of them another name",
            )
        if role.replicas < 1:
            return Refusal(
                "replicas",
                400,
                f"role {role.name} has {role.replicas} replicas",
                f"roles[{index}].replicas",
                "use at least 1, or leave the role out",
            )
        seen.add(role.name)
    return None


def _size_refusal(size: int, limits: Limits) -> Refusal:
    return Refusal(
        "size",
        400,
        f"a session of {size} containers is out of bounds",
        "size",
        f"use 1 to {limits.max_size}",
    )


def _over(below: Resources, above: Resources) -> Resources:
    return Resources(
        **{
            field: getattr(below if getattr(above, field) is None else above, field)
            for field in msgspec.structs.asdict(below)
        }
    )


def _bytes(amount: int | str, path: str, code: str) -> int | Refusal:
    if isinstance(amount, int):
        return amount
    try:
        return parse_bytes(amount)
    except ValueError as error:
        return Refusal(code, 400, str(error), path)


def _bad(code: str, title: str, path: str, bounds: str) -> Refusal:
    return Refusal(code, 400, title, f"{path}.{code}", f"use {bounds}")
