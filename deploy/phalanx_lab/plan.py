"""What a lab shall be, and where its parts live: names, addresses and folders."""

from __future__ import annotations

import ipaddress
import os
import re
from collections.abc import Collection

import msgspec

from phalanx_lab.unavailable import Unavailable

NAME = re.compile(r"[a-z][a-z0-9]{0,11}")
MAX_NODES = 64
MANAGER, SWITCH = "mgr", "sw"
RPC_PORT = 7911
WAY_OUT_NET = "192.168.191.0/24"  # between the switch and the machine
WAY_OUT_DNS = "192.168.191.3"
ENGINE_BRIDGE = "192.168.224.1/24"  # docker0 inside each host
ENGINE_POOL = "192.168.192.0/19"  # what an engine gives its own bridge networks


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """A lab as it was asked for; written beside its state, so that later verbs find it."""

    name: str
    nodes: int
    cpu: int  # cores that each agent advertises
    mem: int  # bytes that each agent advertises
    subnet: int  # K in 10.99.K.0/24
    state_root: str
    run_root: str
    engines_only: bool = False
    way_out: bool = True
    engine_root: str = ""  # another Debian to take the engines from; empty for the machine's own
    nat: tuple[int, ...] = ()  # hosts behind a router that masquerades them
    bare: tuple[int, ...] = ()  # hosts that have an engine and no agent
    mounts: tuple[str, ...] = ()  # folders that sessions may mount, `PATH` or `PATH:rw`
    manager: dict[str, str | float] = {}  # settings of the manager that tests turn
    agent: dict[str, str | float | bool] = {}  # settings of every agent that tests turn
    manager_module: str = "phalanx_manager"  # what is run as the manager
    agent_module: str = "phalanx_agent"  # what is run as each agent
    http_port: int = 0  # the one used last, so that a restarted lab keeps its address

    @property
    def network(self) -> ipaddress.IPv4Network:
        """The hosts' network."""
        return ipaddress.IPv4Network(f"10.99.{self.subnet}.0/24")

    def address(self, host: int) -> str:
        """A host's own address; hosts count from 1."""
        return f"10.98.{host}.1" if host in self.nat else self.outer_address(host)

    def outer_address(self, host: int) -> str:
        """A host's address on the switch, which is its router's where it has one."""
        return f"10.99.{self.subnet}.{host}"

    def inner_gateway(self, host: int) -> str:
        """The inner address of a host's router."""
        return f"10.98.{host}.254"

    @property
    def manager_address(self) -> str:
        """The manager's address on the switch."""
        return f"10.99.{self.subnet}.254"

    @property
    def gateway(self) -> str:
        """The switch's own address: the hosts' default route."""
        return f"10.99.{self.subnet}.253"

    def netns(self, part: str) -> str:
        """Name of a network namespace: of a host (`h1`), the manager or the switch."""
        return f"phx{self.name}-{part}"

    def cgroup(self, host: int) -> str:
        """The cgroup below which a host's containers live."""
        return f"phx{self.name}-h{host}"

    def host_name(self, host: int) -> str:
        """A host's name, which is its agent's."""
        return f"host{host}"

    @property
    def hosts(self) -> range:
        """The hosts' numbers."""
        return range(1, self.nodes + 1)

    @property
    def agents(self) -> tuple[int, ...]:
        """The numbers of the hosts that get an agent."""
        return tuple(host for host in self.hosts if host not in self.bare)

    @property
    def state(self) -> str:
        """What outlives a restart: engine data, logs, the manager's database."""
        return f"{self.state_root}/{self.name}"

    @property
    def run(self) -> str:
        """Sockets, pid files and host memory: gone with the lab's processes."""
        return f"{self.run_root}/{self.name}"

    def host_state(self, host: int) -> str:
        """A host's part of the state."""
        return f"{self.state}/h{host}"

    def host_run(self, host: int) -> str:
        """A host's part of the runtime directory."""
        return f"{self.run}/h{host}"

    def engine_socket(self, host: int) -> str:
        """Path of a host's engine socket."""
        return f"{self.host_run(host)}/docker.sock"

    def agent_memory(self, host: int) -> str:
        """A tmpfs for a host's agent: key material lives in host memory only."""
        return f"{self.host_run(host)}/agent"

    def log(self, component: str) -> str:
        """Path of a component's log."""
        return f"{self.state}/logs/{component}.log"

    def same_wish(self, other: Plan) -> bool:
        """Whether two plans ask for the same lab, whatever addresses they were given."""
        return msgspec.structs.replace(self, subnet=0, http_port=0) == msgspec.structs.replace(
            other, subnet=0, http_port=0
        )


def state_root() -> str:
    """Where labs keep their state; `PHALANX_LAB_DIR` overrides."""
    return os.path.abspath(os.environ.get("PHALANX_LAB_DIR", "/var/lib/phalanx/labs"))


def run_root() -> str:
    """Where labs keep sockets: short, because a socket's path holds 107 bytes."""
    return os.path.abspath(os.environ.get("PHALANX_LAB_RUN", "/run/phalanx-lab"))


def check_name(name: str) -> str:
    """The name itself; `ValueError` says what a name may be."""
    if not NAME.fullmatch(name):
        raise ValueError(f"lab name {name[:40]!r}: 1 to 12 of a-z and 0-9, a letter first")
    return name


def check_nodes(nodes: int) -> int:
    """The number itself; `ValueError` says the limit."""
    if not 1 <= nodes <= MAX_NODES:
        raise ValueError(f"{nodes} nodes: 1 to {MAX_NODES} fit into one lab")
    return nodes


def choose_subnet(taken: Collection[int], routes: Collection[ipaddress.IPv4Network]) -> int:
    """The lowest K whose 10.99.K.0/24 neither another lab nor the machine's routes use."""
    for k in range(256):
        network = ipaddress.IPv4Network(f"10.99.{k}.0/24")
        if k not in taken and not any(network.overlaps(route) for route in routes):
            return k
    raise Unavailable(
        "10.99.0.0/16", "has no free /24 for a lab's switch", "Take a lab down: phalanx lab ls."
    )


def load(path: str) -> Plan | None:
    """A plan from its file; None when there is none."""
    try:
        with open(path, "rb") as file:
            return msgspec.json.decode(file.read(), type=Plan)
    except FileNotFoundError:
        return None
    except msgspec.DecodeError as broken:
        raise Unavailable(path, f"is not a lab's plan ({broken})", "Remove the file.") from broken


def save(plan: Plan) -> None:
    """Write a plan beside the lab's state and into its runtime directory."""
    for folder in (plan.state, plan.run):
        os.makedirs(folder, exist_ok=True)
        write(f"{folder}/plan.json", msgspec.json.format(msgspec.json.encode(plan)))


def write(path: str, content: bytes, mode: int = 0o644) -> None:
    """Replace a file so that a reader sees the old one or the new one."""
    fresh = f"{path}.new"
    with open(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode), "wb") as file:
        file.write(content)
    os.replace(fresh, path)


def settled(plan: Plan, subnet: int, port: int) -> Plan:
    """The plan with the subnet it was given and the port its manager is reached at."""
    return msgspec.structs.replace(plan, subnet=subnet, http_port=port)
