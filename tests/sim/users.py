"""People: they submit, ask again with the same key when no answer comes, stop, and change their
minds.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from typing import Any, Final

import msgspec

from phalanx_manager.core.admit import admit
from phalanx_manager.core.model import Caller, Limits, Refusal, SessionRow, Stop, StopCause
from phalanx_manager.store.port import NewSession, Unavailable
from phalanx_wire.ids import SessionId, session_id
from phalanx_wire.spec import Resources, SessionSpec
from tests.sim.auditor import Auditor
from tests.sim.climate import SIDE, Climate
from tests.sim.daemons import ManagerLife
from tests.sim.dice import Dice
from tests.sim.engine import BIG, MISSING
from tests.sim.operators import insist
from tests.sim.process import Crash

UPLOAD: Final = "sha256:" + "1" * 64
ADA: Final = Caller("ada", "user")
_ASK_AGAIN_S: Final = 0.5
_PATIENCE_S: Final = 10.0


@dataclass
class Wish:
    """One session that a user wants.

    Attributes:
        accepted: the manager has said so.
        refused: or it has not.
        expected: the command's exit code, where nothing but the command decides.
        sealed_for: who can open its upload, with their keys; None where anybody can.
    """

    key: str
    spec: SessionSpec
    expected: int | None
    sealed_for: dict[str, str] | None = None
    accepted: SessionId | None = None
    refused: str = ""
    stopped: bool = False


@dataclass
class People:
    """All users of one seed.

    Attributes:
        rest, sides: what they ask for beside a session and its end is drawn from these.
        manager: the one that lives now, or None.
    """

    climate: Climate
    dice: Dice
    rest: Dice
    sides: Dice
    manager: Callable[[], ManagerLife | None]
    auditor: Auditor
    note: Callable[[str, str], None]
    wishes: list[Wish] = field(default_factory=list)

    async def live(self) -> None:
        """Do everything, until it is done."""
        async with asyncio.TaskGroup() as tasks:
            for number in range(self.climate.sessions):
                wish = self._wish(number)
                self.wishes.append(wish)
                tasks.create_task(self._user(wish))

    async def _user(self, wish: Wish) -> None:
        dice = self.dice
        storm_s = self.climate.storm_s
        await asyncio.sleep(dice.between(0, storm_s * 0.7))
        self._follow(wish)
        async with asyncio.TaskGroup() as tasks:
            for _ in range(1 if dice.chance(0.8) else 3):
                tasks.create_task(self.submit(wish))
        if wish.accepted is None:
            return
        if self.rest.chance(0.2):
            await self._hold(wish, wish.accepted)
        if wish.spec.time_limit_s is not None and self.rest.chance(0.5):
            await self._extend(wish.accepted)
        if dice.chance(0.2):
            await asyncio.sleep(dice.between(0, 60))
            await self.submit(wish)
        if dice.chance(0.35):
            await asyncio.sleep(dice.skewed(0.01, storm_s))
            await self.stop(wish, None)
            if dice.chance(0.5):
                await asyncio.sleep(dice.between(0, 12))
                await self.stop(wish, 0.0)

    async def submit(self, wish: Wish) -> None:
        """Ask until there is an answer."""
        while True:
            try:
                async with asyncio.timeout(_PATIENCE_S):
                    answered = await self._submit_once(wish)
            except (Crash, Unavailable, TimeoutError):
                answered = False
            if answered:
                return
            await asyncio.sleep(_ASK_AGAIN_S)

    async def _submit_once(self, wish: Wish) -> bool:
        manager = self.manager()
        if manager is None:
            return False
        agents = {record.name: record for record in await manager.store.agents()}
        lost_after_s = self.climate.lost_after_s
        admitted = admit(wish.spec, Limits(), agents, wish.key, lost_after_s)
        await asyncio.sleep(self.dice.skewed(0.001, 0.1))
        fresh = session_id(self.dice.bytes(12))
        outcome: object = admitted
        if not isinstance(admitted, Refusal):
            manager.point("http.submit")
            sealed = msgspec.structs.replace(admitted.spec, sealed_for=wish.sealed_for)
            admitted = replace(admitted, spec=sealed)
            outcome = await manager.store.submit(
                NewSession(fresh, ADA, admitted, manager.clock.now(), wish.key, wish.key)
            )
        if self.dice.chance(0.1 if not self.climate.calm else 0.0):
            return False  # the answer is lost on its way
        if isinstance(outcome, Refusal):
            again = "name_taken" if wish.accepted else ""
            self.auditor.demand(
                outcome.code != again, f"key {wish.key} was accepted, and is refused now"
            )
            wish.refused = "" if wish.accepted else outcome.code
            self.note("user", f"{wish.key} refused {outcome.code}")
            return True
        session = SessionId(getattr(outcome, "session", ""))
        self.note("user", f"{wish.key} is {session}")
        same = wish.accepted in (None, session)
        self.auditor.demand(
            same, f"key {wish.key} is session {wish.accepted} and session {session}"
        )
        wish.accepted, wish.refused = session, ""
        return True

    def _follow(self, wish: Wish) -> None:
        """Have a session wait for the end of another one now and then."""
        others = [one.accepted for one in self.wishes if one.accepted is not None]
        if others and self.rest.chance(0.25):
            kind = self.rest.pick(("afterok", "afterok", "afternotok", "afterany"))
            wish.spec = msgspec.structs.replace(wish.spec, after=f"{kind}:{self.rest.pick(others)}")

    async def _hold(self, wish: Wish, session: SessionId) -> None:
        """Keep a session in the queue for a while, if it is still there."""

        def order(text: str, *, held: bool) -> Callable[[ManagerLife], Awaitable[bool]]:
            return lambda manager: manager.store.hold(session, text, manager.clock.now(), held=held)

        if not await insist(self.manager, order("held by ada", held=True)):
            return
        self.auditor.promised.holds(session)
        self.note("user", f"{wish.key} held")
        await asyncio.sleep(self.rest.skewed(0.1, self.climate.storm_s))
        self.auditor.promised.held.discard(session)
        await insist(self.manager, order("released by ada", held=False))
        self.note("user", f"{wish.key} released")

    async def _extend(self, session: SessionId) -> None:
        """Add to the time limit of whichever attempt there is."""
        await asyncio.sleep(self.rest.skewed(0.5, 20.0))
        seconds = self.rest.between(1, 60)

        async def extend(manager: ManagerLife) -> bool:
            store, now = manager.store, manager.clock.now()
            return await store.extend(session, seconds, "ada has added to its time limit", now)

        row = await insist(self.manager, lambda manager: manager.store.session(session, ADA))
        if isinstance(row, SessionRow) and await insist(self.manager, extend):
            self.auditor.promised.adds(session, row.session.attempt, seconds)
            self.note("user", f"{session} has {seconds:.3f} s more")

    async def stop(self, wish: Wish, grace_s: float | None) -> None:
        """Stop a session; ask until it was heard."""
        wish.stopped = True
        while wish.accepted is not None:
            manager = self.manager()
            if manager is not None:
                stop = Stop(StopCause.USER, "stopped by ada", manager.clock.now(), grace_s=grace_s)
                try:
                    async with asyncio.timeout(_PATIENCE_S):
                        await manager.store.stop(wish.accepted, stop)
                except (Crash, Unavailable, TimeoutError):
                    pass
                else:
                    self.note("user", f"{wish.key} stopped")
                    return
            await asyncio.sleep(_ASK_AGAIN_S)

    # ---------------------------------------------------------------- what they want

    def _wish(self, number: int) -> Wish:
        dice = self.dice
        size = dice.pick((1, 1, 2, 2, 3, 4, 6, 8))
        interactive = dice.chance(0.12)
        code = dice.pick((0, 0, 0, 0, 1, 7, 137))
        spec: dict[str, Any] = {
            "name": f"job-{number}",
            "size": size,
            "image": "alpine" if dice.chance(0.85) else dice.pick((BIG, BIG, MISSING)),
            "command": () if interactive else ("work", f"{dice.skewed(0.01, 40):.3f}", str(code)),
            "mode": dice.pick(("auto", "auto", "auto", "single-node", "multi-node")),
            "resources": Resources(
                cpu=dice.pick((0.1, 0.5, 1.0, 2.0)),
                mem=dice.pick((64 << 20, 1 << 30, 4 << 30)),
                gpu=dice.pick((0, 0, 0, 1)) if any(self.climate.gpus) else 0,
                shm=1 << 20,
            ),
            "egress": dice.chance(0.5),
            "priority": dice.pick((0, 0, 0, 5)),
            "grace_s": dice.pick((10.0, 10.0, 1.0, 0.0)),
        }
        if spec["mode"] != "single-node" and dice.chance(0.3):
            spec["spread"] = dice.pick(("pack", "spread"))
        if dice.chance(0.15):
            spec["upload"] = UPLOAD
        if dice.chance(0.1):
            spec["on_failure"] = "continue"
        if dice.chance(0.1) and not interactive:
            spec["run_on"] = "main"
        if dice.chance(0.1):
            spec["time_limit_s"] = dice.between(1, 30)
        if dice.chance(0.3):
            spec["requeue"] = True
        if dice.chance(0.3):
            spec["max_attempts"] = dice.pick((2, 3))
        if dice.chance(0.1) and not interactive:
            spec["hold_on_failure_s"] = dice.between(1, 30)
        if self.climate.retires and self.sides.chance(0.4):
            spec = {**spec, "cluster": SIDE, "size": min(spec["size"], 3)}
            if self.climate.retires == 1:
                spec["mode"] = "single-node"
                spec.pop("spread", None)
        spec |= self._rest(spec)
        plain = not interactive and not {"time_limit_s"} & spec.keys() and spec["image"] != MISSING
        expected = int(spec["command"][2]) if plain else None
        return Wish(f"key-{number}", SessionSpec(**spec), expected, self._seal(spec))

    def _seal(self, spec: dict[str, Any]) -> dict[str, str] | None:
        """Seal an upload for some hosts of its cluster, as if the others had joined later."""
        if "upload" not in spec or self.sides.chance(0.2):
            return None
        others = [f"host{number}" for number in range(self.climate.agents - self.climate.retires)]
        names = self.climate.retired if "cluster" in spec else others
        some = self.sides.some(names, self.sides.whole(1, len(names)))
        return {name: name for name in some}  # in these hosts' world a name is its key

    def _rest(self, spec: dict[str, Any]) -> dict[str, Any]:
        """Draw limits that are reached, work that outlasts a leader, signals, hosts' networks."""
        rest, wishes = self.rest, dict[str, Any]()
        if spec["command"] and rest.chance(0.12):
            wishes = {"time_limit_s": rest.between(5, 25), "command": ("work", "60", "0")}
        elif spec["command"] and self.climate.managers > 1 and rest.chance(0.4):
            wishes = {"command": ("work", "70", "0")}
        if "time_limit_s" in {**spec, **wishes} and rest.chance(0.5):
            wishes["warn_signal"] = f"USR2@{rest.whole(0, 4)}"
        if self.climate.host_ports and spec["mode"] != "single-node" and rest.chance(0.2):
            wishes |= {"network": "host", "egress": True}
        return wishes
