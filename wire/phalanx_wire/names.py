"""What things are called on the engines and in the containers, and the grammars of names."""

from __future__ import annotations

import re
from typing import Final

from phalanx_wire.ids import ClusterName, SessionId

LABEL: Final = "io.phalanx."
LABEL_CLUSTER: Final = "io.phalanx.cluster"
LABEL_SESSION: Final = "io.phalanx.session"
LABEL_ATTEMPT: Final = "io.phalanx.attempt"
LABEL_KERNEL: Final = "io.phalanx.kernel"
LABEL_RANK: Final = "io.phalanx.rank"
LABEL_SPEC_HASH: Final = "io.phalanx.spec-hash"

OWN_ENV_PREFIXES: Final = ("BACKENDAI_", "PHALANX_")
"""Variables that only we set; a spec that sets one is refused."""

BUNDLE_MOUNT: Final = "/opt/phalanx"
MATERIAL_MOUNT: Final = "/run/phalanx"
UPLOAD_MOUNT: Final = "/workspace"
SSH_PORT: Final = 2200
MASTER_PORT: Final = 12345
SWARM_MANAGERS: Final = 3
"""Of a swarm that has as many members: it survives the loss of any of them."""

HOST_NETWORK: Final = "host"
"""What every engine calls the network of its host."""

EGRESS_BRIDGE: Final = "phxegress"
"""The bridge of each host that is its containers' way out."""

PRIVATE_INTERFACE: Final = "eth0"
"""The private network is attached first, so that it is the first interface of every container."""

_NAME: Final = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
_CLUSTER: Final = re.compile(r"(?=.{1,63}\Z)[a-z0-9]+(-[a-z0-9]+)*")
_ROLE: Final = re.compile(r"[a-z]([a-z0-9-]{0,30}[a-z])?")
_ENV_KEY: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,255}")
_HOST: Final = re.compile(r"(?P<role>[a-z]([a-z0-9-]{0,30}[a-z])?)(?P<replica>[1-9][0-9]{0,5})")


def is_session_name(text: str) -> bool:
    """Tell whether a text may name a session, a cluster or an agent."""
    return _NAME.fullmatch(text) is not None


def is_cluster_name(text: str) -> bool:
    """Tell whether a text may name a new cluster: its hyphens stand alone, inside."""
    return _CLUSTER.fullmatch(text) is not None


def is_role_name(text: str) -> bool:
    """Tell whether a text may name a role: it ends in a letter, so `role1` stays readable."""
    return _ROLE.fullmatch(text) is not None


def is_env_key(text: str) -> bool:
    """Tell whether a text may name an environment variable."""
    return _ENV_KEY.fullmatch(text) is not None


def host_name(role: str, replica: int) -> str:
    """Name a container inside its session: `main1`, `sub3`. Replicas count from 1."""
    return f"{role}{replica}"


def split_host_name(text: str) -> tuple[str, int] | None:
    """Take `sub3` apart into role and replica, or None when it is no host name of ours."""
    match = _HOST.fullmatch(text)
    return (match["role"], int(match["replica"])) if match else None


def container_name(session: SessionId, attempt: int, host: str) -> str:
    """Name the container of a kernel; the attempt makes it a name that is never used twice."""
    return f"phx-{session}-{attempt}-{host}"


def network_name(session: SessionId, attempt: int) -> str:
    """Name the private network of an attempt."""
    return f"phx-{session}-{attempt}"


def bridge_name(session: SessionId, attempt: int) -> str:
    """Name the host's interface of a private bridge; at most 15 characters, the kernel's limit."""
    return f"phx{session[:8]}{attempt % 10000}"


def labels(cluster: ClusterName, session: SessionId, attempt: int) -> dict[str, str]:
    """Label what belongs to an attempt; we touch nothing that lacks our cluster's label."""
    return {
        LABEL_CLUSTER: cluster,
        LABEL_SESSION: session,
        LABEL_ATTEMPT: str(attempt),
    }
