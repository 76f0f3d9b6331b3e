"""The runner in a container, and the user's command that it starts."""

from __future__ import annotations

import asyncio
import json
import signal as signals
from collections.abc import Callable
from typing import Any, Final, Protocol

from phalanx_agent.core.recipe import ContainerRecipe
from phalanx_agent.docker.port import ContainerFacts
from phalanx_runner import messages
from phalanx_runner.messages import Event, Hello, Stamp
from phalanx_wire.ids import KernelId
from tests.sim.dice import Dice
from tests.sim.process import Process
from tests.sim.virtual_loop import TICK_S

LINGER_S: Final = 30.0
MESH_S: Final = 60.0


class Surroundings(Protocol):
    """What a runner finds around itself.

    `luck` is the chance of its misfortunes; 0 once the world is healed.
    """

    luck: float

    def door(self, kernel: KernelId) -> Door | None:
        """The socket at which an agent listens for this runner, if one does."""

    def finish(self, container_id: str, code: int) -> None:
        """The runner has ended, and with it the container."""

    def lease(self, kernel: KernelId) -> float | None:
        """When all has to be over; None is never."""

    def reachable(self, kernel: KernelId) -> bool:
        """Whether all peers listen, and trust each other's keys."""

    def released(self, kernel: KernelId) -> None:
        """The user's command starts, or its idling."""

    def signalled(self, kernel: KernelId, number: int) -> None:
        """The user's command hears a signal."""


class Door:
    """An agent's end of the line to one runner; it dies with the agent's process."""

    def __init__(
        self,
        process: Process,
        pid: Callable[[], int | None],
        hear: Callable[[Event], None],
    ) -> None:
        self.runner: Runner | None = None
        self._process = process
        self._pid = pid
        self._hear = hear
        self._last_seq = 0
        self._waiting: Runner | None = None

    @property
    def connected(self) -> bool:
        return self.runner is not None

    @property
    def open(self) -> bool:
        """Whether anybody is behind it."""
        return self._process.alive

    def knock(self, runner: Runner) -> None:
        """A runner wants in; it waits until its pid is known."""
        self._waiting = runner
        self.recheck()

    def recheck(self) -> None:
        if self._waiting is not None and self._pid() is not None and self.open:
            self.runner, self._waiting = self._waiting, None
            self.runner.connected(self)

    def lost(self) -> None:
        """The runner is gone."""
        self.runner = self._waiting = None

    def close(self) -> None:
        """Nobody is behind it any more."""
        if self.runner is not None:
            self.runner.lost(self)
        self.lost()

    def hear(self, event: Event) -> None:
        """Take an event, each once, as the real channel does."""
        if not self.open:
            return
        if isinstance(event, Hello):
            if event.last_seq < self._last_seq:
                self._last_seq = 0
        elif event.stamp.seq <= self._last_seq:
            return
        else:
            self._last_seq = event.stamp.seq
        self._process.inside(self._hear, event)

    def send(self, command: bytes) -> bool:
        if self.runner is None:
            return False
        self._process.point("runner.send.before")
        self.runner.told(command)
        self._process.point("runner.send.after")
        return True


class Runner:
    """One container's first process. It repeats all its events on each connection.

    Attributes:
        ready, meshed: how far it is, as its peers and the checkers see it.
    """

    def __init__(
        self, facts: ContainerFacts, recipe: ContainerRecipe, around: Surroundings, dice: Dice
    ) -> None:
        self.kernel = facts.kernel
        self.container_id = facts.id
        self.ready = False
        self.meshed = False
        self.alive = True
        self._recipe = recipe
        self._around = around
        self._dice = dice
        self._door: Door | None = None
        self._ring: list[Callable[[Stamp], Event] | None] = []
        self._started = False
        self._stopping = False
        self._code: int | None = None
        self._said_at = 0.0
        self._mesh_until = 0.0
        self._after(dice.skewed(0.001, 0.05), self._booted)
        self._mind_lease()

    # ---------------------------------------------------------------- its life

    def _after(self, delay_s: float, act: Callable[[], None]) -> None:
        asyncio.get_running_loop().call_later(delay_s, lambda: act() if self.alive else None)

    def _unlucky(self) -> bool:
        return self._dice.chance(self._around.luck)

    def _booted(self) -> None:
        self.look()
        if self._unlucky():
            if self._dice.chance(0.5):
                self._end(self._dice.pick((1, 125, 137)))
            return  # else it hangs, never ready
        self.ready = True
        self._tell(lambda at: messages.Ready(at, 2200))

    def _mind_lease(self) -> None:
        """End when the lease does, unless it was moved on meanwhile."""
        until_s = self._around.lease(self.kernel)
        if until_s is None:
            return
        left_s = until_s - asyncio.get_running_loop().time()
        if left_s <= 0:
            self._tell(lambda at: messages.RunnerError(at, "lease", {}))
            self._end(137)
        else:
            self._after(left_s, self._mind_lease)

    def _end(self, code: int) -> None:
        if self.alive:
            self._around.finish(self.container_id, code)

    def dies(self) -> None:
        """All processes of the container are gone; what it had said may still arrive."""
        self.alive = False
        self.ready = False
        if self._door is not None:
            self._door.lost()

    def signalled(self, signal: str) -> None:
        if signal == "SIGTERM":
            self._stop(10.0)
        elif self._started and self._code is None and self._recipe.command:
            self._around.signalled(self.kernel, int(signals.Signals[signal]))

    # ---------------------------------------------------------------- its line

    def look(self) -> None:
        """Look for a door to knock at."""
        door = self._around.door(self.kernel)
        if self._door is None and door is not None and door.open and self.alive:
            door.knock(self)

    def connected(self, door: Door) -> None:
        self._door = door
        self._say(lambda: Hello(1, self.kernel, len(self._ring)))
        for number, make in enumerate(self._ring, 1):
            if make is not None:
                self._say(lambda number=number, make=make: make(Stamp(number, 0)))  # type: ignore[misc]

    def lost(self, door: Door) -> None:
        if self._door is door:
            self._door = None
            self._after(self._dice.skewed(0.01, 0.5), self.look)

    def _tell(self, make: Callable[[Stamp], Event]) -> None:
        self._ring.append(make)
        number = len(self._ring)
        self._say(lambda: make(Stamp(number, 0)))

    def _say(self, make: Callable[[], Event]) -> None:
        """Events arrive in order, a little later, at the door that was open when they were said."""
        door = self._door
        if door is None:
            return
        loop = asyncio.get_running_loop()
        at = loop.time() + self._dice.skewed(0.0002, 0.01)
        self._said_at = max(self._said_at + TICK_S, at)
        loop.call_at(self._said_at, lambda: door.hear(make()))

    def told(self, command: bytes) -> None:
        """A command arrives a little later."""
        order = json.loads(command)
        self._after(self._dice.skewed(0.0002, 0.01), lambda: self._obey(order))

    def _obey(self, order: dict[str, Any]) -> None:
        match order["op"]:
            case "mesh":
                self._mesh_until = asyncio.get_running_loop().time() + MESH_S
                self._mesh()
            case "start":
                self._release()
            case "stop":
                self._stop(10.0)
            case "signal":
                self._signal(order["signal"])
            case "ping":
                self._ring.append(None)  # its answer is not told again
                number = len(self._ring)
                self._say(lambda: messages.Pong(Stamp(number, 0)))
            case "exit" if self._code is not None:
                self._end(self._code)
            case _:
                pass

    # ---------------------------------------------------------------- what it does

    def _signal(self, number: int) -> None:
        hears = self._started and self._code is None and bool(self._recipe.command)
        if hears:
            self._around.signalled(self.kernel, number)
        self._tell(lambda at: messages.Signalled(at, number, int(hears)))

    def _mesh(self) -> None:
        late = asyncio.get_running_loop().time() > self._mesh_until
        if self._unlucky() or late:
            self._tell(lambda at: messages.MeshFailed(at, ("sub1",), 60_000))
        elif self._around.reachable(self.kernel):
            self.meshed = True
            self._tell(lambda at: messages.MeshOk(at, 1))
        else:
            self._after(1.0, self._mesh)

    def _release(self) -> None:
        if self._started:
            return
        self._started = True
        self._around.released(self.kernel)
        self._tell(lambda at: messages.Started(at, 7 if self._recipe.command else 0))
        if self._recipe.command:
            _, duration, code = self._recipe.command
            self._after(float(duration), lambda: self._exited(int(code)))

    def _exited(self, code: int) -> None:
        if self._code is not None:
            return
        self._code = code
        self._tell(lambda at: messages.Exited(at, code, 0))
        if self._stopping:
            self._end(code)
        else:
            self._after(LINGER_S, lambda: self._end(code))

    def _stop(self, grace_s: float) -> None:
        if self._stopping:
            return
        self._stopping = True
        if self._code is not None:
            self._end(self._code)
        elif self._unlucky():
            self._after(grace_s, lambda: self._end(137))
        else:
            self._after(self._dice.skewed(0.001, 1.0), lambda: self._end(143))
