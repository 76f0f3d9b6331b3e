"""From a kernel's assignment to what the engine is asked for, and what the runner is told."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass

import msgspec

from phalanx_agent.core.refused import Refused
from phalanx_runner.conf import RunnerConf
from phalanx_wire import names
from phalanx_wire.control import Assignment, Gang, Member
from phalanx_wire.ids import split_kernel_id
from phalanx_wire.lifecycle import KernelState

RUNNER_PIDS = 32
"""The runner's and its ssh servers' own processes, on top of what the user asked for."""

SSH_LEAST, SSH_MOST = 16, 1024
"""Bounds of how many ssh servers run at a time; between them, a quarter of the user's processes."""

STOP_TIMEOUT_SLACK_S = 30
_IMAGE_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_DEEPSPEED_FOLDER = "/job"
"""Where DeepSpeed's launcher looks for `hostfile`; without one it trains in one container, and says
nothing of the others."""

BASH_ENV_FILE = "bash_env"
BASH_ENV = f"""\
case ":$PATH:" in
*:{names.BUNDLE_MOUNT}/slurm:*) ;;
*) PATH="{names.BUNDLE_MOUNT}/first:{names.BUNDLE_MOUNT}/slurm:$PATH:{names.BUNDLE_MOUNT}/last" ;;
esac
"""
"""Gives scripts of login shells our programs back: an image's profile sets `PATH` anew."""

_INITS = frozenset(
    {
        *("/sbin/init", "/usr/sbin/init", "/bin/systemd", "/lib/systemd/systemd"),
        *("/usr/lib/systemd/systemd", "/init"),  # the last is that of s6
    }
)


@dataclass(frozen=True, slots=True)
class Image:
    """What a recipe takes from an image. Argument lists as the image has them."""

    id: str
    env: tuple[str, ...] = ()
    entrypoint: tuple[str, ...] = ()
    command: tuple[str, ...] = ()
    workdir: str = ""
    user: str = ""


@dataclass(frozen=True, slots=True)
class Account:
    """Who a container's processes are.

    Attributes:
        name: of its passwd entry; empty where the image has none for the uid.
        home: of the same entry.
        passwd: the image's file, where it has no entry for the uid; None where nothing is missing.
    """

    uid: int
    gid: int
    name: str = ""
    home: str = ""
    passwd: str | None = None


@dataclass(frozen=True, slots=True)
class Bind:
    """A path of the host in the container.

    Attributes:
        place: which folder that is, see `host.folders`; empty where that cannot be told, or where
            it is only read.
    """

    source: str
    target: str
    read_only: bool = True
    place: str = ""


@dataclass(frozen=True, slots=True)
class Place:
    """What of its host a container gets.

    Attributes:
        network_id: the engine's id of the network.
        bundle, material: folders on the host.
        mounts: the user's, already judged, with real paths.
    """

    network_id: str
    bundle: str
    material: str
    mounts: tuple[Bind, ...] = ()


@dataclass(frozen=True, slots=True)
class ContainerRecipe:
    """All that a container is made of.

    Attributes:
        image: the id, so that a tag that moves meanwhile changes nothing.
        command: the arguments of the entrypoint; empty idles.
        address: the fixed one on the private network; empty on the host's, where it has none.
        egress: attach the host's way out too.
        stop_timeout_s: more than any grace, for whoever stops it by hand.
    """

    name: str
    host_name: str
    labels: Mapping[str, str]
    image: str
    entrypoint: tuple[str, ...]
    command: tuple[str, ...]
    env: tuple[str, ...]
    workdir: str
    user: str
    binds: tuple[Bind, ...]
    network_id: str
    address: str
    egress: bool
    cpu_milli: int
    mem_bytes: int
    shm_bytes: int
    pids: int
    gpus: tuple[str, ...]
    stop_timeout_s: int


def effective_user(assignment: Assignment, image: Image) -> str:
    """Tell whom a container runs as, in Docker's words; empty is root."""
    return assignment.user or image.user


def workdir(assignment: Assignment, image: Image) -> str:
    """Tell where the command runs; an upload is where its user looks for it."""
    if assignment.workdir:
        return assignment.workdir
    return names.UPLOAD_MOUNT if assignment.upload else image.workdir


def command(assignment: Assignment, image: Image) -> tuple[str, ...]:
    """Tell what the runner starts: the user's command, or the image's own.

    Setting our entrypoint makes the engine forget the image's, so both of its halves are here.

    Raises:
        Refused: the image has none, or an init system, which works as process 1 only.
    """
    if assignment.idle:
        return ()
    if assignment.command:
        return assignment.command
    own = (*image.entrypoint, *image.command)
    if not own:
        raise Refused("The image has no command of its own; give one.")
    if own[0] in _INITS:
        raise Refused(
            f"The image starts {own[0]}, an init system that must be process 1 of its container, "
            "which the runner is here; give a command of your own."
        )
    return own


def login(account: Account) -> str:
    """Name whom ssh logs in as; in our containers every name is the uid that runs there."""
    return account.name or f"uid{account.uid}"


def environment(assignment: Assignment, image: Image, account: Account) -> tuple[str, ...]:
    """Add to the manager's environment what only this host knows, sorted by name.

    Shells that the engine opens get their PATH from here, not from the runner.
    """
    of_image = dict(entry.partition("=")[::2] for entry in image.env)
    env = dict(assignment.env)
    path = env.get("PATH") or of_image.get("PATH") or _IMAGE_PATH
    # Lightning warns of an `srun` that it finds and was not started by, so only jobs have it.
    slurm = f"{names.BUNDLE_MOUNT}/slurm:" if "SLURM_JOB_ID" in env else ""
    if slurm and "BASH_ENV" not in of_image:
        env.setdefault("BASH_ENV", f"{names.MATERIAL_MOUNT}/{BASH_ENV_FILE}")
    env["PATH"] = f"{names.BUNDLE_MOUNT}/first:{slurm}{path}:{names.BUNDLE_MOUNT}/last"
    filled = {"HOME": _home(assignment, account), "USER": login(account), "LOGNAME": login(account)}
    for key, value in filled.items():
        if key not in of_image:
            env.setdefault(key, value)
    return tuple(f"{key}={value}" for key, value in sorted(env.items()))


def _home(assignment: Assignment, account: Account) -> str:
    """The engine would give `/` to a uid that the image does not know, which it cannot write."""
    if account.home:
        return account.home
    if account.uid == 0:
        return "/root"
    return names.UPLOAD_MOUNT if assignment.upload else "/tmp"  # noqa: S108 - in the container


def passwd(assignment: Assignment, account: Account) -> str | None:
    """Spell the image's passwd with the entry that it lacks: `whoami`, `pdsh` and Python's
    `getpass` refuse to work for somebody who is not in it. None where nobody is missing.
    """
    if account.passwd is None:
        return None
    kept = "".join(f"{line}\n" for line in account.passwd.splitlines())
    home = _home(assignment, account)
    return f"{kept}{login(account)}:x:{account.uid}:{account.gid}::{home}:/bin/sh\n"


def container(
    assignment: Assignment, gang: Gang, image: Image, account: Account, place: Place
) -> ContainerRecipe:
    """Say what the container of a kernel is made of."""
    member = own_member(assignment, gang)
    return ContainerRecipe(
        name=names.container_name(gang.session, gang.attempt, assignment.host_name),
        host_name=assignment.host_name,
        labels=labels_of(assignment, gang),
        image=image.id,
        entrypoint=(f"{names.BUNDLE_MOUNT}/bin/phalanx-init",),
        command=command(assignment, image),
        env=environment(assignment, image, account),
        workdir=workdir(assignment, image),
        user=effective_user(assignment, image),
        binds=(*_own_binds(place, account), *place.mounts),
        network_id=place.network_id,
        address="" if gang.network.driver == "host" else member.address,
        egress=gang.egress,
        cpu_milli=assignment.slots.cpu_milli,
        mem_bytes=assignment.slots.mem_bytes,
        shm_bytes=assignment.shm_bytes,
        pids=assignment.slots.pids + RUNNER_PIDS,
        gpus=assignment.gpus,
        stop_timeout_s=math.ceil(assignment.grace_s) + STOP_TIMEOUT_SLACK_S,
    )


def own_member(assignment: Assignment, gang: Gang) -> Member:
    """Find the assignment's own place in its gang.

    Raises:
        ValueError: the gang has no such rank: the goals contradict themselves.
    """
    _, _, rank = split_kernel_id(assignment.kernel)
    for member in gang.members:
        if member.rank == rank:
            return member
    raise ValueError(f"{assignment.kernel} is not in the gang it came with")


def labels_of(assignment: Assignment, gang: Gang) -> dict[str, str]:
    """Say by what a container of ours is found again; without the cluster, which docker/ adds."""
    _, _, rank = split_kernel_id(assignment.kernel)
    return {
        names.LABEL_SESSION: gang.session,
        names.LABEL_ATTEMPT: str(gang.attempt),
        names.LABEL_KERNEL: assignment.kernel,
        names.LABEL_RANK: str(rank),
        names.LABEL_SPEC_HASH: spec_hash(assignment),
    }


def spec_hash(assignment: Assignment) -> str:
    """Tell recipes apart: the same for one assignment at every goal and grace."""
    timeless = msgspec.structs.replace(assignment, goal=KernelState.ASSIGNED, grace_s=0.0)
    return hashlib.sha256(msgspec.json.encode(timeless, order="sorted")).hexdigest()


def runner_conf(assignment: Assignment, gang: Gang) -> RunnerConf:
    """Say what the runner of a kernel is told before it exists.

    Raises:
        ValueError: by `render`, where a setting is none that a runner takes.
    """
    own = own_member(assignment, gang)
    # On the host's network the agent has looked at the address itself, and interfaces are many.
    address = "" if gang.network.driver == "host" else own.address
    return RunnerConf(
        kernel=assignment.kernel,
        ssh_port=own.ssh_port,
        ssh_limit=min(max(assignment.slots.pids // 4, SSH_LEAST), SSH_MOST),
        address=address,
        interface=names.PRIVATE_INTERFACE if address else "",
        peers=tuple(_peer(member, own) for member in gang.members),
        master_port=assignment.master_port or None,
        grace_s=math.ceil(assignment.grace_s),
    )


def _peer(member: Member, own: Member) -> str:
    name, port = member.host_name, member.ssh_port
    return name if port == own.ssh_port else f"{name}:{port}"


def _own_binds(place: Place, account: Account) -> tuple[Bind, ...]:
    binds = [
        Bind(place.bundle, names.BUNDLE_MOUNT),
        Bind(place.material, names.MATERIAL_MOUNT),
        Bind(f"{place.material}/hosts", "/etc/hosts"),
        Bind(f"{place.material}/ssh/dropin.conf", "/etc/ssh/ssh_config.d/00-phalanx.conf"),
    ]
    if account.passwd is not None:
        binds.append(Bind(f"{place.material}/passwd", "/etc/passwd"))
    if not any(f"{bind.target}/".startswith(f"{_DEEPSPEED_FOLDER}/") for bind in place.mounts):
        binds.append(Bind(f"{place.material}/hostfile", f"{_DEEPSPEED_FOLDER}/hostfile"))
    return tuple(binds)
