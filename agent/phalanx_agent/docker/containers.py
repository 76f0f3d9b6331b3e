"""Containers: made from a recipe, found before made, started with care for the overlay.

The way out is attached to the running container, right after its start: engines number the
interfaces of one start each in its own order, and the private network shall be the first. Until
the gang is whole nothing of the user's runs, so nothing can miss it.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

import structlog

from phalanx_agent.core.recipe import Bind, ContainerRecipe
from phalanx_agent.docker.call import Line, checked_id, understanding
from phalanx_agent.docker.moments import unix_seconds
from phalanx_agent.docker.networks import EGRESS
from phalanx_agent.docker.port import Conflict, ContainerFacts, Unavailable
from phalanx_agent.docker.turns import Turns
from phalanx_wire import names
from phalanx_wire.ids import KernelId, SessionId

_LOG = structlog.get_logger()

CAPABILITIES: Final = (
    "AUDIT_WRITE", "CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "NET_BIND_SERVICE",
    "SETGID", "SETPCAP", "SETUID", "SYS_CHROOT",
)  # fmt: skip
"""Docker's own default without NET_RAW (forged frames), MKNOD and SETFCAP."""

_LOW_PORTS: Final = "NET_BIND_SERVICE"
"""Kept from containers on the host's network: those ports are the host's own services'."""

LOG_OPTIONS: Final = {"max-size": "16m", "max-file": "4"}
_LABEL_EGRESS: Final = f"{names.LABEL}egress"
_ATTACH_TRIES: Final = 4
_ATTACH_WITHIN_S: Final = 100.0
_NOT_FOUND, _CONFLICT = 404, 409


@dataclass(frozen=True, slots=True)
class Ulimits:
    """What the engine grants at most; `memlock` -1 is without a limit, 0 is not to be set."""

    nofile: int = 1 << 20
    memlock: int = -1


@dataclass(frozen=True, slots=True)
class _Bond:
    """What a container is attached to at its start."""

    network: str
    egress: bool


class Containers:
    """The containers of one engine."""

    def __init__(self, line: Line, ulimits: Ulimits, setting_up: Turns) -> None:
        """Args: setting_up: the turns of networks that the engine sets up on its host."""
        self._line = line
        self._ulimits = ulimits
        self._setting_up = setting_up
        self.run_folder = ""  # the engine's, of what it keeps while it runs; once known
        self.cpu_count = 0  # of the engine, once known: it refuses to grant more than it has
        self._bonds: dict[str, _Bond] = {}
        self._connected: set[str] = set()  # containers that have their way out
        self._attached = {names.HOST_NETWORK}  # networks that this engine has attached once

    def knows_network(self, network_id: str) -> None:
        """Note a network of this host alone: its first attach needs no care."""
        self._attached.add(network_id)

    def forgets_network(self, network_id: str) -> None:
        """Note that a network is gone."""
        self._attached.discard(network_id)

    async def listing(self, cluster: str) -> tuple[ContainerFacts, ...]:
        """Look at all containers of kernels of a cluster, whatever their state."""
        told = await self._line.ask(
            "GET",
            "containers/json",
            doing="listing containers",
            params={
                "all": "1",
                "filters": {"label": [f"{names.LABEL_CLUSTER}={cluster}", names.LABEL_KERNEL]},
            },
        )
        found = [entry for entry in told if is_kernels(entry)]
        looked = await asyncio.gather(*(self.inspect(entry["Id"]) for entry in found))
        for entry in found:
            networks = entry["NetworkSettings"]["Networks"]
            if entry["State"] == "running" and _wants_egress(entry) and EGRESS not in networks:
                await self._mend(entry["Id"])
        return tuple(facts for facts in looked if facts is not None)

    async def _mend(self, container_id: str) -> None:
        """Give a container the way out that an earlier process did not come to attach."""
        try:
            await self._connect_egress(container_id)
        except Unavailable as error:
            _LOG.warning("container.no-way-out", container=container_id[:12], why=str(error))

    async def create(self, cluster: str, recipe: ContainerRecipe) -> str:
        """Make a container; it has not run then."""
        try:
            made = await self._line.ask(
                "POST",
                "containers/create",
                what=f"container {recipe.name}",
                doing="making it",
                params={"name": recipe.name},
                body=_body(cluster, self._within(recipe), self._ulimits),
            )
            container_id = str(made["Id"])
        except Unavailable as error:
            if error.kind == "not_sent" or (error.kind == "answered" and error.status != _CONFLICT):
                raise
            container_id = await self._adopt(recipe, error)
        self._bonds[container_id] = _Bond(recipe.network_id, egress=recipe.egress)
        return container_id

    def _within(self, recipe: ContainerRecipe) -> ContainerRecipe:
        """An operator may offer more cores than there are; as a limit, all there are is as good."""
        most = self.cpu_count * 1000 or recipe.cpu_milli
        return replace(recipe, cpu_milli=min(recipe.cpu_milli, most))

    async def _adopt(self, recipe: ContainerRecipe, error: Unavailable) -> str:
        """Find out what the name's holder is: what we made and do not remember, or a stranger."""
        found = await self._by_name(recipe.name)
        if found is None:
            raise error
        hash_found = found["Config"]["Labels"].get(names.LABEL_SPEC_HASH, "")
        if hash_found != recipe.labels[names.LABEL_SPEC_HASH]:
            raise Conflict(
                f"A container named {recipe.name} exists on the host and is not this one; "
                f"remove it with `docker rm -f {recipe.name}` there."
            ) from error
        return str(found["Id"])

    async def _by_name(self, name: str) -> dict[str, Any] | None:
        try:
            seen = await self._line.ask(
                "GET", f"containers/{name}/json", what=f"container {name}", doing="looking at it"
            )
        except Unavailable as error:
            if error.status == _NOT_FOUND:
                return None
            raise
        return dict(seen)

    async def _connect_egress(self, container_id: str) -> None:
        try:
            await self._line.ask(
                "POST",
                f"networks/{EGRESS}/connect",
                what=f"container {container_id[:12]}",
                doing="connecting it to the way out",
                body={"Container": container_id},
            )
        except Unavailable as error:
            there = "already exists in network" in error.hint
            if not there and (error.kind != "answered" or await self._runs(container_id)):
                raise

    async def _runs(self, container_id: str) -> bool:
        seen = await self.inspect(container_id)
        return seen is not None and seen.status == "running"

    async def start(self, container_id: str) -> None:
        """Start a container; running already is fine.

        The first attach of an overlay on a host breaks when several networks are at it at once,
        so one network has its turn, with all its containers, and what fails is tried again: it
        succeeds later with the same container.
        """
        bond = await self._bond(container_id)
        if bond.network in self._attached:
            await self._start_once(container_id)
            return
        async with self._setting_up.of(bond.network):
            await self._attach_first(container_id)
            self._attached.add(bond.network)

    async def connect(self, container_id: str) -> None:
        """Attach the way out to a running container that is to have it; done already is fine."""
        bond = await self._bond(container_id)
        if bond.egress and container_id not in self._connected:
            await self._connect_egress(container_id)
            self._connected.add(container_id)

    async def _attach_first(self, container_id: str) -> None:
        deadline = asyncio.get_running_loop().time() + _ATTACH_WITHIN_S
        for left in reversed(range(_ATTACH_TRIES)):
            try:
                await self._start_once(container_id)
            except Unavailable as error:
                late = asyncio.get_running_loop().time() > deadline
                if left == 0 or late or not _is_attach_trouble(error):
                    raise
                await asyncio.sleep(0.5)
            else:
                return

    async def _start_once(self, container_id: str) -> None:
        await self._line.ask(
            "POST",
            f"containers/{checked_id(container_id)}/start",
            what=f"container {container_id[:12]}",
            doing="starting it",
        )

    async def _bond(self, container_id: str) -> _Bond:
        """What a container is to be attached to; asked for one that an earlier process made."""
        if container_id not in self._bonds:
            seen = await self._line.ask(
                "GET", f"containers/{checked_id(container_id)}/json", doing="looking at a container"
            )
            network = seen["HostConfig"]["NetworkMode"]
            self._bonds[container_id] = _Bond(network, egress=_wants_egress(seen["Config"]))
        return self._bonds[container_id]

    async def inspect(self, container_id: str) -> ContainerFacts | None:
        """Look at one; None when it is gone."""
        try:
            seen = await self._line.ask(
                "GET",
                f"containers/{checked_id(container_id)}/json",
                what=f"container {container_id[:12]}",
                doing="looking at it",
            )
        except Unavailable as error:
            if error.status == _NOT_FOUND:
                return None
            raise
        with understanding(f"container {container_id[:12]}", "looking at it"):
            sandbox = (seen.get("NetworkSettings") or {}).get("SandboxKey") or ""
            self.run_folder = os.path.dirname(os.path.dirname(sandbox)) or self.run_folder
            return facts(seen)

    async def kill(self, container_id: str, signal: str) -> None:
        """Signal its first process; ended or gone already is fine."""
        try:
            await self._line.ask(
                "POST",
                f"containers/{checked_id(container_id)}/kill",
                what=f"container {container_id[:12]}",
                doing="signalling it",
                params={"signal": signal},
            )
        except Unavailable as error:
            if error.status not in (_NOT_FOUND, _CONFLICT):
                raise

    async def remove(self, container_id: str) -> None:
        """Kill and remove it; gone already, or on its way, is fine once it is gone."""
        deadline = asyncio.get_running_loop().time() + _ATTACH_WITHIN_S
        while True:
            try:
                await self._line.ask(
                    "DELETE",
                    f"containers/{checked_id(container_id)}",
                    what=f"container {container_id[:12]}",
                    doing="removing it",
                    params={"force": "1", "v": "1"},
                )
            except Unavailable as error:
                if error.status == _NOT_FOUND:
                    break
                late = asyncio.get_running_loop().time() > deadline
                if error.status != _CONFLICT or late:
                    raise
                await asyncio.sleep(0.1)
            else:
                break
        self._bonds.pop(container_id, None)
        self._connected.discard(container_id)


def is_kernels(entry: Mapping[str, Any]) -> bool:
    """Tell a kernel's container from one that somebody has started by hand from its image: whoever
    commits a container commits its labels, but not what is mounted in it.
    """
    return any(mount.get("Destination") == names.BUNDLE_MOUNT for mount in entry["Mounts"])


def _is_attach_trouble(error: Unavailable) -> bool:
    """Tell a failed attach, which passes, from a container that can't run."""
    passing = ("attach", "network", "deadline exceeded", "already in use", "Invalid address")
    return error.kind != "not_sent" and any(word in error.hint for word in passing)


def _wants_egress(labelled: Mapping[str, Any]) -> bool:
    return str(labelled["Labels"].get(_LABEL_EGRESS)) == "1"


def _body(cluster: str, recipe: ContainerRecipe, ulimits: Ulimits) -> dict[str, Any]:
    own_labels = {names.LABEL_CLUSTER: cluster, _LABEL_EGRESS: "1" if recipe.egress else "0"}
    return {
        "Image": recipe.image,
        "Hostname": recipe.host_name,
        "Entrypoint": list(recipe.entrypoint),
        "Cmd": list(recipe.command),
        "Env": list(recipe.env),
        "WorkingDir": recipe.workdir,
        "User": recipe.user,
        "Labels": {**recipe.labels, **own_labels},
        "StopTimeout": recipe.stop_timeout_s,
        "HostConfig": {
            "NetworkMode": recipe.network_id,
            "Mounts": [_mount(bind) for bind in recipe.binds],
            "Init": False,
            "NanoCpus": recipe.cpu_milli * 1_000_000,
            "Memory": recipe.mem_bytes,
            "MemorySwap": recipe.mem_bytes,
            "ShmSize": recipe.shm_bytes,
            "PidsLimit": recipe.pids,
            "CapDrop": ["ALL"],
            "CapAdd": [one for one in CAPABILITIES if one != _LOW_PORTS or recipe.address],
            "SecurityOpt": ["no-new-privileges"],
            "Ulimits": _ulimits(ulimits),
            "IpcMode": "private",
            "LogConfig": {"Type": "json-file", "Config": LOG_OPTIONS},
            "RestartPolicy": {"Name": "no"},
            "AutoRemove": False,
            # A name that nobody knows must not hold up a look-up for ten seconds.
            "DnsOptions": ["timeout:1", "attempts:1"],
            "DeviceRequests": _devices(recipe.gpus),
        },
        "NetworkingConfig": {"EndpointsConfig": _endpoint(recipe)},
    }


def _endpoint(recipe: ContainerRecipe) -> dict[str, Any]:
    """On the host's network there is none to give."""
    if not recipe.address:
        return {}
    return {recipe.network_id: {"IPAMConfig": {"IPv4Address": recipe.address}}}


def _mount(bind: Bind) -> dict[str, Any]:
    return {
        "Type": "bind",
        "Source": bind.source,
        "Target": bind.target,
        "ReadOnly": bind.read_only,
        "BindOptions": {"Propagation": "rprivate"},
    }


def _ulimits(ulimits: Ulimits) -> list[dict[str, Any]]:
    wanted = {"nofile": ulimits.nofile, "memlock": ulimits.memlock}
    return [{"Name": name, "Soft": limit, "Hard": limit} for name, limit in wanted.items() if limit]


def _devices(gpus: tuple[str, ...]) -> list[dict[str, Any]]:
    if not gpus:
        return []
    return [{"Driver": "nvidia", "DeviceIDs": list(gpus), "Capabilities": [["gpu"]]}]


def facts(seen: Mapping[str, Any]) -> ContainerFacts:
    """Read an engine's description of a container of ours."""
    state, labels = seen["State"], seen["Config"]["Labels"]
    return ContainerFacts(
        id=seen["Id"],
        name=seen["Name"].removeprefix("/"),
        kernel=KernelId(labels.get(names.LABEL_KERNEL, "")),
        session=SessionId(labels.get(names.LABEL_SESSION, "")),
        attempt=int(labels.get(names.LABEL_ATTEMPT, "0")),
        spec_hash=labels.get(names.LABEL_SPEC_HASH, ""),
        status=state["Status"],
        exit_code=state["ExitCode"],
        oom_killed=state["OOMKilled"],
        error=state["Error"],
        pid=state["Pid"],
        started_at=unix_seconds(state["StartedAt"]),
        finished_at=unix_seconds(state["FinishedAt"]),
    )
