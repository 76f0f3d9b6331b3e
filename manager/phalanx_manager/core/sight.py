"""What was seen of a running session's containers, put so that it can be judged and told."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from ipaddress import ip_address
from typing import Final

from phalanx_manager.core.cluster_env import rank_env
from phalanx_manager.core.model import Kernel, SessionRow
from phalanx_wire import names
from phalanx_wire.look import Look, Process, Socket

BUSY_CORES: Final = 0.1
"""Less is waiting: a program that polls for its peers uses some, too. Of a container that has less
than three times as much, a third of that.
"""

_ENGINES_RESOLVER: Final = "127.0.0.11"
"""Docker's own, in the network of every container."""

_SHELLS: Final = frozenset({"sh", "bash", "dash", "ash", "zsh", "env", "timeout", "tee", "cat"})
_LONG_PORT: Final = 10
_MAX_NAMED: Final = 8
_MAX_SHOWN: Final = 80


@dataclass(frozen=True)
class Sight:
    """One rank that runs, as its agent has seen it.

    Attributes:
        commanded: the session has a command for it; else it idles until somebody logs in.
    """

    kernel: Kernel
    look: Look
    commanded: bool

    @cached_property
    def theirs(self) -> tuple[Process, ...]:
        """The user's processes, zombies among them."""
        return tuple(one for one in self.look.processes if not one.ours)

    @cached_property
    def alive(self) -> tuple[Process, ...]:
        """The user's processes that have not ended."""
        return tuple(one for one in self.theirs if one.state not in ("Z", "X"))

    @property
    def cores(self) -> float:
        """What all its processes use now."""
        return sum(one.cores for one in self.alive)

    @property
    def busy(self) -> bool:
        """It works, or seems to."""
        return self.cores >= min(BUSY_CORES, self.kernel.slots.cpu_milli / 3000)

    @cached_property
    def programs(self) -> frozenset[str]:
        """Names of what runs, but shells."""
        return frozenset(map(program, self.alive)) - _SHELLS

    @cached_property
    def workers(self) -> tuple[Process, ...]:
        """Processes that know their rank and have started none that do: a launcher is not one."""
        knowing = [one for one in self.alive if "RANK" in one.variables]
        parents = {one.parent for one in knowing}
        return tuple(one for one in knowing if one.pid not in parents)

    @cached_property
    def listening(self) -> tuple[Socket, ...]:
        """Where the user's processes listen."""
        ours = {one.pid for one in self.look.processes if one.ours} - {0}
        ssh = self.kernel.ssh_port or names.SSH_PORT
        return tuple(
            one
            for one in self.look.sockets
            if one.state == "listen"
            and one.pid not in ours
            and one.local_port != ssh
            and one.local != _ENGINES_RESOLVER
        )

    def of(self, state: str) -> tuple[Socket, ...]:
        """Sockets that connect, or are connected."""
        return tuple(one for one in self.look.sockets if one.state == state)


@dataclass(frozen=True)
class Scene:
    """A running session.

    Attributes:
        sights: of the ranks that were seen, in rank order.
        missing: why others could not be seen, a sentence each.
        unseen: how many more were not looked at: there are too many.
    """

    row: SessionRow
    sights: tuple[Sight, ...]
    missing: Mapping[int, str]
    unseen: int = 0

    @property
    def complete(self) -> bool:
        """All its ranks were seen."""
        return len(self.sights) == len(self.row.kernels)

    @cached_property
    def variables(self) -> Mapping[str, str]:
        """What rank 0 finds in its environment."""
        found = rank_env(self.row.session, self.row.kernels, 0)
        return {one.name: one.value for one in found}

    @cached_property
    def master_port(self) -> int | None:
        """Where the ranks expect rank 0; None when nowhere."""
        text = self.variables.get("MASTER_PORT", "")
        alone = len(self.row.kernels) < 2 or "WORLD_SIZE" not in self.variables
        if alone and "PET_MASTER_PORT" not in self.variables:
            return None
        return int(text) if text.isascii() and text.isdigit() and len(text) < _LONG_PORT else None

    @cached_property
    def ranks_at(self) -> Mapping[str, tuple[int, ...]]:
        """Ranks by address; on the hosts' network several may share one."""
        found: dict[str, tuple[int, ...]] = {}
        for kernel in self.row.kernels:
            if kernel.address:
                found[kernel.address] = (*found.get(kernel.address, ()), kernel.rank)
        return found

    def sight(self, rank: int) -> Sight | None:
        """Find what was seen of a rank."""
        return next((one for one in self.sights if one.kernel.rank == rank), None)

    @cached_property
    def joined(self) -> frozenset[int]:
        """Ranks that have a connection with rank 0's MASTER_PORT, as either end tells."""
        port, main = self.master_port, self.row.kernels[0].address
        found: set[int] = set()
        for sight in self.sights:
            rank = sight.kernel.rank
            for socket in sight.of("connected"):
                if rank and socket.remote == main and socket.remote_port == port:
                    found.add(rank)
                if not rank and socket.local_port == port and not is_loopback(socket.remote):
                    found.update(self.ranks_at.get(socket.remote, ()))
        return frozenset(found - {0})

    @cached_property
    def linked(self) -> frozenset[int]:
        """Ranks that are connected with another one other than through MASTER_PORT and ssh."""
        return frozenset(
            sight.kernel.rank
            for sight in self.sights
            if any(self._is_link(sight.kernel, socket) for socket in sight.of("connected"))
        )

    def _is_link(self, own: Kernel, socket: Socket) -> bool:
        ends = {socket.local_port, socket.remote_port}
        peers = set(self.ranks_at.get(socket.remote, ())) - {own.rank}
        others = {own.ssh_port or names.SSH_PORT, self.master_port, 22}
        return bool(peers) and not ends & others and not ends & self._ssh_ports

    @cached_property
    def _ssh_ports(self) -> frozenset[int]:
        return frozenset(kernel.ssh_port for kernel in self.row.kernels if kernel.ssh_port)


def commanded(row: SessionRow, kernel: Kernel) -> bool:
    """Tell whether the session runs a command in a container by itself."""
    spec = row.session.spec
    return spec.kind != "interactive" and (spec.run_on == "all" or kernel.rank == 0)


def command(row: SessionRow, kernel: Kernel) -> tuple[str, ...]:
    """Tell a kernel's command."""
    for role in row.session.spec.roles or ():
        if role.name == kernel.role and role.command is not None:
            return role.command
    return row.session.spec.command


def program(process: Process) -> str:
    """Name what a process runs: `python3`."""
    return process.command.split(" ", 1)[0].rpartition("/")[2]


def main_process(sight: Sight) -> Process | None:
    """Pick the process that tells most of what a rank does."""
    telling = [one for one in sight.alive if program(one) not in _SHELLS] or sight.alive
    return max(telling, key=lambda one: (one.cores, one.cpu_s), default=None)


def doing(sight: Sight) -> str:
    """Say what a rank does: "`python3 train.py` sleeps in ep_poll, 1.2 s of CPU"."""
    process = main_process(sight)
    if process is None:
        return "nothing runs there"
    does = {"R": "computes", "D": "waits for a device", "T": "is stopped", "t": "is traced"}
    state = does.get(process.state, "sleeps")
    if sight.busy:
        state = f"uses {process.cores:.1f} cores"
    waits = (
        f" in {shown(process.waits)}"
        if process.waits and process.state in "SD" and not sight.busy
        else ""
    )
    return f"{quoted(process)} {state}{waits}, {process.cpu_s:.1f} s of CPU"


def place(address: str, port: int) -> str:
    """Name an end of a connection: "0.0.0.0:80", "[::]:80"."""
    return f"[{shown(address)}]:{port}" if ":" in address else f"{shown(address)}:{port}"


def quoted(process: Process) -> str:
    """Name a process: "`python3 train.py` (process 7)"."""
    return f"`{shown(process.command)}` (process {process.pid})"


def shown(text: str) -> str:
    """Cut what a container, or its agent, may have made up."""
    text = "".join(char if char.isprintable() else "?" for char in text[:_MAX_SHOWN])
    return text if len(text) < _MAX_SHOWN else f"{text[:-1]}…"


def named(kernels: Collection[Kernel]) -> str:
    """Name kernels: `rank 1 (sub1)`, `ranks 1, 2 and 5 more`."""
    if len(kernels) == 1:
        (one,) = kernels
        return f"rank {one.rank} ({one.host_name})"
    numbers = [str(one.rank) for one in kernels]
    more = len(numbers) - _MAX_NAMED
    if more > 0:
        return f"ranks {', '.join(numbers[:_MAX_NAMED])} and {more} more"
    return f"ranks {', '.join(numbers[:-1])} and {numbers[-1]}"


def is_loopback(address: str) -> bool:
    """Tell whether only the container itself reaches an address."""
    try:
        return ip_address(address).is_loopback
    except ValueError:
        return False


def claims(sights: Collection[Sight], name: str) -> Iterator[tuple[Sight, Process, str]]:
    """Walk the values of a variable that workers were started with."""
    for sight in sights:
        for process in sight.workers:
            if name in process.variables:
                yield sight, process, process.variables[name]
