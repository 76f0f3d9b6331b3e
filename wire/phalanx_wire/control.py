"""What manager and agent say to each other about state: two whole sets, and a greeting.

`Goals` go down, `Observed` come up. Both are complete, so a late, lost, doubled or reordered
message is harmless. Streams of bytes (logs, exec, files) are in `stream`.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from phalanx_wire.ids import AgentId, ClusterName, KernelId, SessionId
from phalanx_wire.lifecycle import KernelState
from phalanx_wire.names import SSH_PORT
from phalanx_wire.notice import Notice
from phalanx_wire.slots import Slots
from phalanx_wire.spec import Mount

PROTOCOL = 1
"""Both sides must speak the same version; the manager refuses another one with a sentence."""


class Message(msgspec.Struct, frozen=True, tag=True, forbid_unknown_fields=True):
    """Base of all that travels between manager and agent; the tag is the class name."""


# ---------------------------------------------------------------- greeting


class Enrol(Message, frozen=True):
    """First words of a new agent, said with the one-time key of its join token.

    Attributes:
        public_key: the agent's own CURVE key, Z85; from now on it is who the agent is.
    """

    protocol: int
    name: AgentId
    public_key: str


class Enrolled(Message, frozen=True):
    """The agent's key is known; it may connect with it."""

    name: AgentId
    cluster_id: str


class Hello(Message, frozen=True):
    """Said after every (re)connection, and again until a `Welcome` comes.

    Attributes:
        incarnation: random per process; a newer process takes the place of the older.
    """

    protocol: int
    version: str
    name: AgentId
    incarnation: str


class Welcome(Message, frozen=True):
    """The manager knows the agent.

    Attributes:
        cluster_id: random, made with the manager's database: the value of our cluster label.
        heartbeat_s: how often the agent says `Observed` when nothing changes.
        egress_subnet: where containers' way out is numbered on every host, CIDR.
        epoch: grows with each manager that leads; an agent turns from one that is older than it
            has seen, because another leads now.
    """

    cluster_id: str
    cluster: ClusterName
    heartbeat_s: float
    egress_subnet: str
    epoch: int = 0


class Heard(Message, frozen=True):
    """The answer to a `Beat`: from when that was sent the agent may go on for the time that each
    of its kernels has, see `Assignment`.
    """

    number: int


FORGOTTEN = "forgotten"
"""Code of the refusal that ends an agent: it has left, and is not known any more."""


class Refused(Message, frozen=True):
    """The manager will not work with this agent; the sentence says why and what to do."""

    code: str
    why: str


# ---------------------------------------------------------------- down


class Member(msgspec.Struct, frozen=True):
    """One kernel as its peers see it.

    Attributes:
        address: on the private network; its host's own on the host's network.
        host_key, user_key: public halves, OpenSSH one-line form, once its agent has made them.
        slots: processes that fit, for the hostfile: its devices, or 1.
        ssh_port: where its runner listens.
    """

    rank: int
    host_name: str
    agent: AgentId
    address: str = ""
    host_key: str = ""
    user_key: str = ""
    slots: int = 1
    ssh_port: int = SSH_PORT


class Network(msgspec.Struct, frozen=True):
    """The network of an attempt.

    Attributes:
        driver: `bridge` on one host, `overlay` over several, `host` for the hosts' own: nobody
            makes or removes that.
        subnet: CIDR, assigned by the manager; members' addresses lie at its upper end. With
            `host` those that the hosts' addresses lie in, separated by commas.
        owner: the agent that makes and removes it (for an overlay: one on a swarm manager).
        engine_id: the engine's id of the network, once the owner has made it.
    """

    name: str
    driver: Literal["bridge", "overlay", "host"]
    subnet: str
    owner: AgentId
    engine_id: str = ""


class Gang(msgspec.Struct, frozen=True):
    """All kernels of one attempt, in rank order, and what they share.

    Attributes:
        hosts: addresses by which the hosts that an overlay spans have to reach each other.
    """

    session: SessionId
    session_name: str
    attempt: int
    network: Network
    egress: bool
    members: tuple[Member, ...]
    hosts: dict[AgentId, str] = {}


class Assignment(msgspec.Struct, frozen=True):
    """One kernel's order to one agent.

    Attributes:
        goal: the state to bring it to: a barrier, STOPPED or REMOVED.
        command: argument list; empty is the image's own.
        idle: never run a command: ready for exec and ssh until stopped.
        env: the complete environment but for what only the agent knows (PATH, HOME).
        slots: `mem_bytes` includes /dev/shm.
        gpus: device ids out of the agent's own inventory.
        upload: `sha256:<hex>` of an archive to unpack at `names.UPLOAD_MOUNT`, or empty.
        grace_s: seconds between TERM and KILL.
        lost_after_s: it has to be over by so long after the last beat that the manager heard.
        master_port: in main1 checked to be free at the start; 0 elsewhere.
        ports: kept for it on its host's network; whoever else holds one ends the attempt.
        notices: to be sent, once each, while the command runs.
        begun: its gang was whole once: what is gone without a trace may have run.
    """

    kernel: KernelId
    goal: KernelState
    host_name: str
    image: str
    command: tuple[str, ...]
    idle: bool
    env: dict[str, str]
    workdir: str
    user: str
    mounts: tuple[Mount, ...]
    slots: Slots
    shm_bytes: int
    gpus: tuple[str, ...]
    upload: str
    grace_s: float
    master_port: int
    ports: tuple[int, ...] = ()
    lost_after_s: float = 300.0
    notices: tuple[Notice, ...] = ()
    begun: bool = False


class NetworkGoal(msgspec.Struct, frozen=True):
    """One network's order to its owner."""

    session: SessionId
    attempt: int
    network: Network
    present: bool


class SwarmGoal(msgspec.Struct, frozen=True):
    """What an agent's engine shall be in the swarm that carries multi-node networks.

    Attributes:
        action: `init` the first, `join` the others (as worker or manager by the token given),
            `keep` what it is.
        token: a swarm join token; secret.
        remotes: `host:2377` of swarm managers.
        canary: be the one that proves the swarm can make networks.
    """

    action: Literal["init", "join", "keep"]
    token: str = ""
    remotes: tuple[str, ...] = ()
    canary: bool = False


class Goals(Message, frozen=True):
    """All that one agent shall have.

    Attributes:
        revision: the manager's counter for this connection; a smaller one is stale and dropped.
        kernels: what is not named here and is not a stray shall stay as it is: removal is
            always an explicit goal.
        guarded: addresses of all hosts and of the manager; containers must not reach them.
        leave: its cluster is being removed and it holds nothing any more: it shall take away all
            that we have made on its host, and say so. There is no way back from that.
    """

    revision: int
    gangs: tuple[Gang, ...] = ()
    kernels: tuple[Assignment, ...] = ()
    networks: tuple[NetworkGoal, ...] = ()
    swarm: SwarmGoal | None = None
    guarded: tuple[str, ...] = ()
    leave: bool = False


# ---------------------------------------------------------------- up


class KernelReport(msgspec.Struct, frozen=True):
    """What an agent knows of one kernel.

    Attributes:
        detail: what it is doing now, as a sentence; empty when there is nothing to say.
        cause: with an ended state one of exited, oom, engine-restart, cancelled, start-failed,
            mesh-failed, fenced, refused, hosts-apart.
        message: the sentence for the user that goes with the cause.
        exit_code: Docker's, only with EXITED or STOPPED of a container that ran.
        warnings: sentences, e.g. an ulimit that the engine refused.
        folders: by the target of each mount that it may write and that lies on a disk of its host,
            which folder that is: whoever has another text there has another folder.
    """

    kernel: KernelId
    state: KernelState
    detail: str = ""
    cause: str = ""
    message: str = ""
    exit_code: int | None = None
    container_id: str = ""
    host_key: str = ""
    user_key: str = ""
    warnings: tuple[str, ...] = ()
    folders: dict[str, str] = {}


class NetworkReport(msgspec.Struct, frozen=True):
    """What an owner knows of one network.

    Attributes:
        engine_id: empty while it does not exist.
        problem: why it could not be made or removed, as a sentence.
        final: making it will not be tried again.
    """

    name: str
    engine_id: str = ""
    problem: str = ""
    final: bool = False


class Stray(msgspec.Struct, frozen=True):
    """A thing with our cluster's label that no goal claims."""

    kind: Literal["container", "network", "files"]
    name: str


class Gpu(msgspec.Struct, frozen=True):
    """One device of a host.

    Attributes:
        id: stable on its host, what the engine takes as a device id.
        model: lower case, no spaces, e.g. `h200`.
    """

    id: str
    model: str


class HostNetwork(msgspec.Struct, frozen=True):
    """What a host gives to containers on its own network.

    Attributes:
        interface: carries the host's address.
        first_port, last_port: kept for such containers, both ends included.
    """

    interface: str
    first_port: int
    last_port: int


class Engine(msgspec.Struct, frozen=True):
    """A host's Docker Engine.

    Attributes:
        problem: why no work can be given to it, as a sentence; empty when it is well.
    """

    version: str = ""
    api: str = ""
    problem: str = ""


class SwarmReport(msgspec.Struct, frozen=True):
    """A host's engine as a member of a swarm.

    Attributes:
        state: Docker's LocalNodeState: inactive, pending, active, error or locked.
        control: it is a swarm manager.
        address: `host:2377`-less address that others reach it by.
        worker_token, manager_token: only from a swarm manager; secret.
        problem: the last failure, or why the canary network could not be made.
        canary_ok: with `SwarmGoal.canary`, whether the last canary network was made.
    """

    state: str = "inactive"
    swarm_id: str = ""
    node_id: str = ""
    control: bool = False
    address: str = ""
    worker_token: str = ""
    manager_token: str = ""
    problem: str = ""
    canary_ok: bool = False


class Beat(Message, frozen=True):
    """The agent lives; said with every heartbeat.

    Attributes:
        number: counts this process's beats, so that the answer tells which one was heard.
    """

    number: int


class Observed(Message, frozen=True):
    """All that one agent has. Said on every change, and as the heartbeat.

    Attributes:
        revision: of the newest goals this answers; -1 before any.
        capacity: what the host offers in all.
        gpus: as many as `capacity.gpu`.
        addresses: all that reach the host itself, `address` among them; containers must not.
        subnets: what the host's routes use, CIDR; sessions must not overlap them.
        strays: see `Stray`.
        warnings: what an operator should know of this host, sentences.
        host_network: None where containers may not be on the host's network.
        left: it was told to leave, and nothing of ours is on its host any more.
        number: counts what this process has said, from 1, so that nothing that comes late undoes
            what came before it; 0 from an agent that does not count.
    """

    boot_id: str
    revision: int
    capacity: Slots
    address: str
    engine: Engine
    gpus: tuple[Gpu, ...] = ()
    kernels: tuple[KernelReport, ...] = ()
    networks: tuple[NetworkReport, ...] = ()
    strays: tuple[Stray, ...] = ()
    swarm: SwarmReport = SwarmReport()
    addresses: tuple[str, ...] = ()
    subnets: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    host_network: HostNetwork | None = None
    left: bool = False
    number: int = 0
