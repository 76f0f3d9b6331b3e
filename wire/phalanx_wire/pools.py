"""The shapes of the HTTP API that speak of clusters; see `api`."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

import msgspec

from phalanx_wire.ids import AgentId

ClusterState = Literal["creating", "running", "unavailable", "deleting", "deleted"]


class CreateCluster(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Body of `POST /v1/clusters`.

    Attributes:
        reuse_name: also a name that a removed cluster has had.
    """

    name: str
    reuse_name: bool = False


class ClusterView(msgspec.Struct, frozen=True, omit_defaults=True):
    """A named pool of agents.

    Attributes:
        state: creating until an agent has joined, running while one is ready, unavailable while
            none is, deleting until nothing of it is left, then deleted.
        reason: why it is not running, as a sentence.
        created_at: None where it was there before clusters were noted.
        nodes: its agents by name, and `ready` those of them that take work.
        sessions: those that have not ended.
        leaves: once it is being removed, what is left behind on hosts, as sentences.
    """

    name: str
    state: ClusterState
    reason: str | None
    created_at: datetime | None
    nodes: tuple[AgentId, ...]
    ready: tuple[AgentId, ...]
    sessions: tuple[str, ...]
    leaves: tuple[str, ...] = ()


class ClusterList(msgspec.Struct, frozen=True):
    """Clusters by name."""

    clusters: tuple[ClusterView, ...]
