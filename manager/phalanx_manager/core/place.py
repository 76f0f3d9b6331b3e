"""Where a gang goes: the whole of it, in contiguous blocks of ranks, or nowhere."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Protocol

from phalanx_manager.core.explain import agent_state, spell_counts, spell_slots
from phalanx_manager.core.model import AgentRecord, Snapshot
from phalanx_wire.control import Gpu
from phalanx_wire.ids import AgentId, ClusterName
from phalanx_wire.slots import Slots
from phalanx_wire.spec import Mode, SessionSpec, Spread

_BUDGET: Final = 4_000
"""Tries of the search for gangs of unequal kernels; equal ones need no search."""


class Wants(Protocol):
    """What placement reads of a kernel, planned or stored."""

    @property
    def slots(self) -> Slots:
        """Its amounts."""

    @property
    def gpu_model(self) -> str:
        """The model that its devices must have; empty is any."""


@dataclass(frozen=True, slots=True)
class Need:
    """One kernel's amounts."""

    slots: Slots
    gpu_model: str = ""


@dataclass(frozen=True, slots=True)
class Request:
    """A gang to place, in rank order."""

    needs: tuple[Need, ...]
    mode: Mode
    spread: Spread

    @classmethod
    def of(cls, spec: SessionSpec, kernels: Iterable[Wants]) -> Request:
        """Read a request from a spec in full and its kernels."""
        needs = tuple(Need(kernel.slots, kernel.gpu_model) for kernel in kernels)
        return cls(needs, spec.mode, spec.spread or "pack")


@dataclass(frozen=True, slots=True)
class Room:
    """What an agent has free.

    Attributes:
        gpus: free devices, in the order of the host.
        in_swarm: it can be a host among several.
    """

    agent: AgentId
    free: Slots
    gpus: tuple[Gpu, ...] = ()
    in_swarm: bool = True


@dataclass(frozen=True, slots=True)
class Fit:
    """The agent of each rank."""

    agents: tuple[AgentId, ...]


@dataclass(frozen=True, slots=True)
class NoFit:
    """Why a gang has no place now.

    Attributes:
        certain: there is none; False when the search was given up.
        needs_swarm: it could have one if several hosts could share a network.
    """

    reason: str
    certain: bool = True
    needs_swarm: bool = False


def rooms(
    snapshot: Snapshot, cluster: ClusterName, members: Collection[AgentId], now: datetime
) -> tuple[Room, ...]:
    """List what the ready agents of a cluster have free, by name.

    `members` are the agents whose engines share a working swarm.
    """
    held: dict[AgentId, Slots] = {}
    devices: dict[AgentId, set[str]] = {}
    for row in snapshot.rows():
        for kernel in row.kernels:
            if kernel.agent is not None and kernel.holds:
                held[kernel.agent] = held.get(kernel.agent, Slots()) + kernel.slots
                devices.setdefault(kernel.agent, set()).update(kernel.gpus)
    return tuple(
        Room(
            agent=name,
            free=record.observed.capacity - held.get(name, Slots()),
            gpus=tuple(g for g in record.observed.gpus if g.id not in devices.get(name, ())),
            in_swarm=name in members,
        )
        for name, record in sorted(snapshot.agents.items())
        if record.cluster == cluster
        and record.observed is not None
        and record.connected
        and agent_state(record, now)[0] == "ready"
    )


def idle_rooms(records: Iterable[AgentRecord]) -> tuple[Room, ...]:
    """List what agents would have free if nothing ran, by name."""
    return tuple(
        Room(record.name, record.observed.capacity, record.observed.gpus)
        for record in sorted(records, key=lambda record: record.name)
        if record.observed is not None
    )


def gang(request: Request, offered: Sequence[Room], waits: str = "") -> Fit | NoFit:
    """Place a whole gang, or say why not.

    `waits` says why no session can span several agents now; empty when it can.
    """
    if not offered:
        return NoFit("no agent of this cluster is ready")
    search = _Search(request.needs)
    single = len(request.needs) == 1 or request.mode == "single-node" or len(offered) == 1
    if single or (request.mode == "auto" and request.spread == "pack"):
        fit = search.on_one(offered)
        if fit is not None:
            strict = request.spread == "one-per-node" and request.mode != "single-node"
            return _too_few(request, offered) if strict and len(request.needs) > 1 else fit
        if single:
            return NoFit(_shortage(request, offered))
    hosts = [room for room in offered if room.in_swarm]
    if waits or len(hosts) < 2:
        why = waits or "fewer than two agents share a swarm"
        if _several(request, search, offered) is None:
            return NoFit(_shortage(request, offered), certain=not search.given_up)
        return NoFit(f"it needs several agents: {why}", needs_swarm=True)
    fit = _several(request, search, hosts)
    if fit is not None:
        return fit
    if request.spread == "one-per-node" and len(request.needs) > len(hosts):
        return _too_few(request, hosts)
    return NoFit(_shortage(request, hosts), certain=not search.given_up)


def devices(
    needs: Sequence[Need], agents: Sequence[AgentId], offered: Sequence[Room]
) -> tuple[tuple[str, ...], ...]:
    """Choose the device ids of each rank; those who want a model choose before the others."""
    free = {room.agent: list(room.gpus) for room in offered}
    chosen: dict[int, tuple[str, ...]] = {}
    for rank in sorted(range(len(needs)), key=lambda rank: (not needs[rank].gpu_model, rank)):
        need, pool = needs[rank], free[agents[rank]]
        fitting = [gpu for gpu in pool if need.gpu_model in ("", gpu.model)][: need.slots.gpu]
        chosen[rank] = tuple(gpu.id for gpu in fitting)
        free[agents[rank]] = [gpu for gpu in pool if gpu not in fitting]
    return tuple(chosen[rank] for rank in range(len(needs)))


def _several(request: Request, search: _Search, hosts: Sequence[Room]) -> Fit | None:
    match request.spread:
        case "one-per-node":
            return search.even(len(request.needs), _emptiest_first(hosts))
        case "spread":
            return search.spread(_emptiest_first(hosts))
        case "pack":
            return search.capped(len(request.needs), hosts)


class _Search:
    """Blocks of one gang. Sums of any run of ranks cost one subtraction."""

    def __init__(self, needs: tuple[Need, ...]) -> None:
        self.needs = needs
        self.size = len(needs)
        self.equal = len(set(needs)) == 1
        self.given_up = False
        self._budget = _BUDGET
        total = Slots()
        self._sums = [total]
        for need in needs:
            total = total + need.slots
            self._sums.append(total)
        self._models: dict[str, list[int]] = {}
        for model in {need.gpu_model for need in needs} - {""}:
            counts = [0]
            for need in needs:
                counts.append(counts[-1] + (need.slots.gpu if need.gpu_model == model else 0))
            self._models[model] = counts

    def fits(self, start: int, end: int, room: Room) -> bool:
        """Tell whether the ranks from start to before end fit together."""
        asked = self._sums[end] - self._sums[start]
        if not asked.fits(_countable(room.free, len(room.gpus))):
            return False
        have = Counter(gpu.model for gpu in room.gpus) if self._models else {}
        return all(
            counts[end] - counts[start] <= have.get(model, 0)
            for model, counts in self._models.items()
        )

    def run(self, start: int, room: Room, cap: int) -> int:
        """Count the most ranks from start on that fit together, at most `cap`."""
        low, high = 0, min(cap, self.size - start)
        while low < high:
            middle = (low + high + 1) // 2
            if self.fits(start, start + middle, room):
                low = middle
            else:
                high = middle - 1
        return low

    def on_one(self, offered: Sequence[Room]) -> Fit | None:
        """Put all on the agent that has the least to spare."""
        fitting = [room for room in offered if self.fits(0, self.size, room)]
        if not fitting:
            return None
        return Fit((min(fitting, key=_leftover).agent,) * self.size)

    def even(self, blocks: int, hosts: Sequence[Room]) -> Fit | None:
        """Put even blocks on as many agents, or None. Exact: a matching of blocks to agents."""
        if blocks > len(hosts):
            return None
        bounds = list(_even_bounds(self.size, blocks))
        choices = [
            [at for at, room in enumerate(hosts) if self.fits(start, end, room)]
            for start, end in bounds
        ]
        taken = _matching(choices)
        if taken is None:
            return None
        return Fit(
            tuple(
                hosts[taken[block]].agent
                for block, (start, end) in enumerate(bounds)
                for _ in range(start, end)
            )
        )

    def spread(self, hosts: Sequence[Room]) -> Fit | None:
        """Keep the fullest agent's share as small as can be, on as many agents as help."""
        most = [self._longest(room) for room in hosts]
        for cap in range(math.ceil(self.size / len(hosts)), self.size + 1):
            if sum(min(cap, share) for share in most) < self.size:
                continue
            for blocks in range(math.ceil(self.size / cap), min(self.size, len(hosts)) + 1):
                fit = self.even(blocks, hosts)
                if fit is not None:
                    return fit
            fit = self.capped(cap, hosts)
            if fit is not None:
                return fit
        return None

    def capped(self, cap: int, hosts: Sequence[Room]) -> Fit | None:
        """Take few agents, each with at most `cap` ranks: the longest run first."""
        blocks = self._fill(0, cap, list(hosts))
        if blocks is None:
            return None
        return Fit(tuple(room.agent for room, length in blocks for _ in range(length)))

    def _longest(self, room: Room) -> int:
        """Count the most ranks in a row that fit, wherever they begin: a window that only moves
        forward, since what fits still fits without its first rank.
        """
        if self.equal:
            return self.run(0, room, self.size)
        start = longest = 0
        for end in range(1, self.size + 1):
            while start < end and not self.fits(start, end, room):
                start += 1
            longest = max(longest, end - start)
        return longest

    def _fill(self, start: int, cap: int, unused: list[Room]) -> list[tuple[Room, int]] | None:
        if start == self.size:
            return []
        runs = [(room, self.run(start, room, cap)) for room in unused]
        rest = self.size - start
        runs = [(room, length) for room, length in runs if length]
        runs.sort(key=lambda pair: (-pair[1], _leftover(pair[0])))
        for room, longest in runs:
            shortest = longest if self.equal or longest == rest else 1
            for length in range(longest, shortest - 1, -1):
                self._budget -= 1
                if self._budget < 0:
                    self.given_up = True
                    return None
                others = [other for other in unused if other is not room]
                tail = self._fill(start + length, cap, others)
                if tail is not None:
                    return [(room, length), *tail]
            if self.equal:
                return None  # the longest runs add up to less: no order of agents helps
        return None


def _countable(slots: Slots, gpus: int) -> Slots:
    """Count devices by what is there by name, whatever the amounts say."""
    return Slots(slots.cpu_milli, slots.mem_bytes, min(slots.gpu, gpus), slots.pids)


def _leftover(room: Room) -> tuple[int, int, int, str]:
    """Order agents by what they would have to spare; devices are the dearest."""
    return (room.free.gpu, room.free.mem_bytes, room.free.cpu_milli, room.agent)


def _emptiest_first(hosts: Sequence[Room]) -> list[Room]:
    return sorted(
        hosts,
        key=lambda room: (-room.free.gpu, -room.free.mem_bytes, -room.free.cpu_milli, room.agent),
    )


def _even_bounds(size: int, blocks: int) -> Iterator[tuple[int, int]]:
    """Cut ranks into blocks whose sizes differ by one at most, the longer ones first."""
    start = 0
    for block in range(blocks):
        end = start + size // blocks + (1 if block < size % blocks else 0)
        yield start, end
        start = end


def _matching(choices: Sequence[Sequence[int]]) -> list[int] | None:
    """Give each block an agent of its own out of its choices (augmenting paths), or None."""
    owner: dict[int, int] = {}
    for block in range(len(choices)):
        came_from: dict[int, int] = {}
        todo, free = [block], -1
        while todo and free < 0:
            current = todo.pop(0)
            for agent in choices[current]:
                if agent in came_from:
                    continue
                came_from[agent] = current
                if agent not in owner:
                    free = agent
                    break
                todo.append(owner[agent])
        if free < 0:
            return None
        _augment(owner, came_from, free, block)
    agent_of = {block: agent for agent, block in owner.items()}
    return [agent_of[block] for block in range(len(choices))]


def _augment(owner: dict[int, int], came_from: dict[int, int], free: int, block: int) -> None:
    """Shift agents along the path that ends at a free one, so that `block` gets one."""
    agent_of = {held: agent for agent, held in owner.items()}
    agent: int | None = free
    while agent is not None:
        taker = came_from[agent]
        before = agent_of.get(taker)
        owner[agent] = taker
        agent = None if taker == block else before


def _too_few(request: Request, hosts: Sequence[Room]) -> NoFit:
    return NoFit(
        f"one container per agent needs {len(request.needs)} agents; "
        f"{len(hosts)} can be used: {', '.join(room.agent for room in hosts[:8])}"
    )


def _shortage(request: Request, offered: Sequence[Room]) -> str:
    """Say what is needed and what there is, with numbers."""
    pids = _pids_are_scarcest(request, offered)
    needed = spell_counts([spell_slots(n.slots, n.gpu_model, pids=pids) for n in request.needs])
    there = [
        f"{room.agent} has {spell_slots(_countable(room.free, len(room.gpus)), pids=pids)}"
        for room in offered[:6]
    ]
    more = f" and {len(offered) - 6} more agents" if len(offered) > 6 else ""
    where = "one agent" if request.mode == "single-node" and len(request.needs) > 1 else "agents"
    return f"it needs {needed}; of the {where} that can be used {', '.join(there)}{more} free"


def _pids_are_scarcest(request: Request, offered: Sequence[Room]) -> bool:
    """Tell whether processes are what there is least of, for what is asked."""

    def share(of: Callable[[Slots], int]) -> float:
        return sum(of(n.slots) for n in request.needs) / max(1, sum(of(r.free) for r in offered))

    return share(lambda s: s.pids) > max(share(lambda s: s.cpu_milli), share(lambda s: s.mem_bytes))
