"""What every container finds in its environment."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Final

from phalanx_manager.core import address
from phalanx_manager.core.model import Kernel, Session
from phalanx_manager.core.step import job_of
from phalanx_slurm.task_env import Job, node_env, script_env, shared_env
from phalanx_wire import names
from phalanx_wire.api import EnvVar
from phalanx_wire.spec import Profile

HOSTFILE: Final = f"{names.MATERIAL_MOUNT}/hostfile"
MAX_VALUE: Final = 131_000
"""Linux takes no longer string in an environment; a TF_CONFIG that would be longer is left out."""

_TORCHRUN_HIDES: Final = frozenset({"RANK", "LOCAL_RANK", "WORLD_SIZE", "TF_CONFIG"})
_TORCH: Final = "PyTorch env://"
_OPEN_MPI: Final = "Open MPI"
_LIGHTNING: Final = "Lightning, submitit"
_SLURM_READERS: Final = {
    "SLURM_JOB_ID": f"{_LIGHTNING}, scontrol requeue",
    "SLURM_JOB_NAME": "Lightning: `bash` and `interactive` turn its SLURM mode off",
    "SLURM_JOB_NODELIST": "submitit, scontrol show hostnames",
    "SLURM_NODELIST": "Lightning, JAX",
    "SLURM_NNODES": "Lightning compares it with num_nodes",
    "SLURM_NTASKS": "Lightning, JAX",
    "SLURM_NTASKS_PER_NODE": "Lightning compares it with devices",
    "SLURM_RESTART_COUNT": "TorchX, scripts that resume",
    "SLURM_PROCID": _LIGHTNING,
    "SLURM_LOCALID": _LIGHTNING,
    "SLURM_NODEID": _LIGHTNING,
}


@dataclass(frozen=True)
class Environments:
    """The environments of all ranks; what they have in common is spelled once, since each names
    all the others.

    Attributes:
        kernels: all, in rank order.
    """

    session: Session
    kernels: Sequence[Kernel]

    def of(self, rank: int) -> tuple[EnvVar, ...]:
        """Spell one rank's, sorted by name.

        What depends on the placement (`LOCAL_RANK`, `PHALANX_SUBNET`, ...) is left out until the
        session is placed.
        """
        ours = {name: (value, reader) for name, value, reader in _ours(_View(self, rank))}
        users = user_env(self.session, self.kernels[rank])
        merged: list[EnvVar] = []
        for name in sorted(ours.keys() | users.keys()):
            if name not in users:
                merged.append(EnvVar(name, ours[name][0], "phalanx", ours[name][1]))
            elif name in ours:
                merged.append(EnvVar(name, users[name], "user over phalanx", ours[name][1]))
            else:
                merged.append(EnvVar(name, users[name], "user"))
        return tuple(merged)

    @cached_property
    def seats(self) -> Mapping[int, tuple[int, int, int]]:
        """Of each rank: its host, in order of their lowest ranks, which it is there, and of how
        many; empty before placement.
        """
        return {
            rank: (node, local, len(together))
            for node, together in enumerate(nodes(self.kernels) or ())
            for local, rank in enumerate(together)
        }

    @cached_property
    def hosts(self) -> str:
        """The names of all, as `BACKENDAI_CLUSTER_HOSTS` has them."""
        return ",".join(kernel.host_name for kernel in self.kernels)

    @cached_property
    def replicas(self) -> str:
        """How many there are of each role."""
        counts = Counter(kernel.role for kernel in self.kernels)
        return ",".join(f"{role}:{count}" for role, count in counts.items())

    @cached_property
    def workers(self) -> str:
        """`TF_CONFIG` as far as it is the same for all; empty when a port is not known yet."""
        ports = [(kernel.host_name, service_port(self.session, kernel)) for kernel in self.kernels]
        if any(port is None for _, port in ports):
            return ""
        return json.dumps({"cluster": {"worker": [f"{host}:{port}" for host, port in ports]}})

    @cached_property
    def job(self) -> Job:
        """The session in SLURM's words."""
        return job_of(self.session, self.kernels)

    @cached_property
    def of_job(self) -> Mapping[str, str]:
        """What SLURM tells all."""
        return shared_env(self.job)


@dataclass(frozen=True, slots=True)
class _View:
    """One rank's place among the others."""

    all: Environments
    rank: int

    @property
    def session(self) -> Session:
        return self.all.session

    @property
    def kernels(self) -> Sequence[Kernel]:
        return self.all.kernels

    @property
    def own(self) -> Kernel:
        return self.kernels[self.rank]

    @property
    def size(self) -> int:
        return len(self.kernels)


def rank_env(session: Session, kernels: Sequence[Kernel], rank: int) -> tuple[EnvVar, ...]:
    """Spell the environment of one rank; for those of many see `Environments`."""
    return Environments(session, kernels).of(rank)


def user_env(session: Session, kernel: Kernel) -> Mapping[str, str]:
    """Tell what the user set for a role; the session's is merged in at admission."""
    for role in session.spec.roles or ():
        if role.name == kernel.role:
            return role.env
    return session.spec.env


def nodes(kernels: Sequence[Kernel]) -> tuple[tuple[int, ...], ...] | None:
    """Group ranks by host, hosts in order of their lowest rank; None before placement."""
    by_agent: dict[str, list[int]] = {}
    for kernel in kernels:
        if kernel.agent is None:
            return None
        by_agent.setdefault(kernel.agent, []).append(kernel.rank)
    return tuple(tuple(ranks) for ranks in by_agent.values())


def service_port(session: Session, kernel: Kernel) -> int | None:
    """Tell where the others reach what a rank serves; None before placement on the host's network,
    where each rank has a port of its own.
    """
    if kernel.service_port:
        return kernel.service_port
    if session.spec.network == "host" and (kernel.rank > 0 or session.spec.master_port is None):
        return None
    return session.spec.master_port or names.MASTER_PORT


def _ours(view: _View) -> Iterator[tuple[str, str, str]]:
    """Yield name, value and reader of what the profile sets."""
    profile: Profile = view.session.spec.env_profile or "default"
    yield from _cluster(view)
    yield from _phalanx(view)
    yield from _master(view)
    if profile == "none":
        return
    if profile == "slurm":
        yield from _slurm(view)
    else:
        for name, value, reader in (*_rendezvous(view, profile), *_tensorflow(view)):
            if profile != "torchrun" or name not in _TORCHRUN_HIDES:
                yield name, value, reader
    if profile == "torchrun":
        yield from _torchrun(view)
    yield from _interfaces(view)
    yield from _open_mpi(view)
    cores = max(1, view.own.slots.cpu_milli // 1000)
    yield "OMP_NUM_THREADS", str(cores), "OpenMP, PyTorch, NumPy"
    if view.size > 1 and not view.own.slots.gpu:
        # Else it takes every container without devices for a training of its own, and says nothing.
        yield "ACCELERATE_USE_CPU", "true", "Accelerate"


def _cluster(view: _View) -> Iterator[tuple[str, str, str]]:
    own = view.own
    for name, value in (
        ("SIZE", str(view.size)),
        ("HOSTS", view.all.hosts),
        ("REPLICAS", view.all.replicas),
        ("HOST", own.host_name),
        ("IDX", str(own.replica)),
        ("ROLE", own.role),
        ("LOCAL_RANK", str(view.rank)),  # the name is historical: it is the global index
    ):
        yield f"BACKENDAI_CLUSTER_{name}", value, "programs for Backend.AI"


def _phalanx(view: _View) -> Iterator[tuple[str, str, str]]:
    session = view.session
    yield "PHALANX_SESSION_ID", session.id, ""
    yield "PHALANX_SESSION_NAME", session.name, ""
    yield "PHALANX_ATTEMPT", str(session.attempt), ""
    yield "PHALANX_HOSTFILE", HOSTFILE, "mpirun --hostfile, DeepSpeed --hostfile"
    if session.network is not None:
        subnets = session.network.subnet.split(",")
        own = subnets[0] if len(subnets) == 1 else address.home(view.own.address, subnets)
        yield "PHALANX_SUBNET", own, ""
        yield "PHALANX_ADDRESS", view.own.address, "dask scheduler --host, ray start"


def _master(view: _View) -> Iterator[tuple[str, str, str]]:
    main = view.kernels[0]
    yield "MASTER_ADDR", main.host_name, _TORCH
    yield "MASTER_ADDRESS", main.host_name, "older launchers"
    port = service_port(view.session, main)
    if port is not None:
        yield "MASTER_PORT", str(port), _TORCH


def _rendezvous(view: _View, profile: Profile) -> Iterator[tuple[str, str, str]]:
    yield "WORLD_SIZE", str(view.size), f"{_TORCH}, Accelerate, DeepSpeed"
    yield "WORLD_RANK", str(view.rank), "programs for Backend.AI"
    yield "RANK", str(view.rank), f"{_TORCH}, Accelerate, DeepSpeed"
    local, together, node = 0, 1, view.rank
    if profile != "node":
        if not view.all.seats:
            return
        node, local, together = view.all.seats[view.rank]
        if profile == "torchrun":
            node = view.rank  # a container is a node with its own devices, so it is numbered as one
    yield "LOCAL_RANK", str(local), "PyTorch, Lightning, Accelerate, DeepSpeed"
    yield "LOCAL_WORLD_SIZE", str(together), "PyTorch"
    yield "NODE_RANK", str(node), "Lightning, torchrun --node-rank=$NODE_RANK"


def _tensorflow(view: _View) -> Iterator[tuple[str, str, str]]:
    workers = view.all.workers
    if not workers:
        return
    task = json.dumps({"task": {"type": "worker", "index": view.rank}})
    if len(workers) + len(task) <= MAX_VALUE:
        config = f"{workers[:-1]}, {task[1:]}"
        yield "TF_CONFIG", config, "TensorFlow MultiWorkerMirroredStrategy"


def _torchrun(view: _View) -> Iterator[tuple[str, str, str]]:
    reader = "torchrun"
    yield "PET_NNODES", str(view.size), reader
    yield "PET_NODE_RANK", str(view.rank), reader
    yield "PET_MASTER_ADDR", view.kernels[0].host_name, reader
    port = service_port(view.session, view.kernels[0])
    if port is not None:
        yield "PET_MASTER_PORT", str(port), reader
    yield "PET_NPROC_PER_NODE", str(max(1, view.own.slots.gpu)), reader


def _slurm(view: _View) -> Iterator[tuple[str, str, str]]:
    """Yield what a job's script finds; tasks get the rest, each its own, from their step."""
    script = script_env() if view.rank == 0 else {}
    own = node_env(view.all.job.nodes[view.rank])
    for name, value in {**view.all.of_job, **own, **script}.items():
        yield name, value, _SLURM_READERS.get(name, "programs for SLURM")


def _interfaces(view: _View) -> Iterator[tuple[str, str, str]]:
    if not view.session.spec.egress:
        return  # the private network is the only one there is
    on_host = view.session.spec.network == "host"
    interface = view.own.interface if on_host else names.PRIVATE_INTERFACE
    if interface:
        yield "GLOO_SOCKET_IFNAME", interface, "Gloo"
        yield "TP_SOCKET_IFNAME", interface, "PyTorch RPC"
        yield "NCCL_SOCKET_IFNAME", f"={interface}", "NCCL"


def _open_mpi(view: _View) -> Iterator[tuple[str, str, str]]:
    if view.session.network is not None:
        subnet = view.session.network.subnet
        yield "OMPI_MCA_btl_tcp_if_include", subnet, _OPEN_MPI
        yield "OMPI_MCA_oob_tcp_if_include", subnet, f"{_OPEN_MPI} 4"
        yield "PRTE_MCA_oob_tcp_if_include", subnet, f"{_OPEN_MPI} 5"
    yield "OMPI_MCA_orte_default_hostfile", HOSTFILE, f"{_OPEN_MPI} 4"
    yield "PRTE_MCA_prte_default_hostfile", HOSTFILE, f"{_OPEN_MPI} 5"
    for launcher in ("OMPI", "PRTE"):
        yield f"{launcher}_ALLOW_RUN_AS_ROOT", "1", _OPEN_MPI
        yield f"{launcher}_ALLOW_RUN_AS_ROOT_CONFIRM", "1", _OPEN_MPI
    yield "OMPI_MCA_btl_vader_single_copy_mechanism", "none", f"{_OPEN_MPI} 4"
    if view.session.spec.network == "host":
        # Names that share an address are different containers all the same.
        yield "OMPI_MCA_if_base_do_not_resolve", "1", f"{_OPEN_MPI} 4"
