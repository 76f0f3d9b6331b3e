"""Sessions go through while faults come; in the end all is counted."""

from __future__ import annotations

import contextlib
import json
import random
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from phalanx_lab.unavailable import Unavailable
from tests.real.failing import ENDED, Site, kill_containerd, thawing
from tests.real.ground import assert_same_traces, await_true, settled_traces
from tests.soak import dice
from tests.soak.dice import Fault, Wish
from tests.support.failpoints import Point

AT_ONCE = 4
SESSION_WITHIN_S = 180.0
ENGINE_WINDOW_S = 30.0
"""What an engine's death has done is seen for so long after it."""
ENGINE_BACK_WITHIN_S = 120.0
"""An engine that was killed, and then its containerd, needs 25 s of waits of its own."""
CLEAR_WITHIN_S = 60.0
"""An agent looks for what a dead engine has left each 30 s, and twice before it removes it."""

Say = Callable[[str], None]


@dataclass
class Count:
    """What has come of a soak."""

    seed: int
    sessions: int = 0
    as_wished: int = 0
    stopped: int = 0
    excused: int = 0  # failed, and said why: an engine had died
    faults: int = 0
    lost: list[str] = field(default_factory=list)
    doubled: list[str] = field(default_factory=list)
    leaks: str = ""

    @property
    def is_clean(self) -> bool:
        """Whether nothing was lost, doubled or left behind."""
        return not (self.lost or self.doubled or self.leaks)

    def __str__(self) -> str:
        return (
            f"{self.sessions} sessions: {self.as_wished} as wished, {self.stopped} stopped, "
            f"{self.excused} failed with a dead engine; {self.faults} faults; "
            f"{len(self.lost)} lost, {len(self.doubled)} doubled, "
            f"{'LEAKS' if self.leaks else 'no leaks'}"
        )


class Soak:
    """One run."""

    def __init__(
        self,
        site: Site,
        sessions: int,
        seed: int,
        say: Say,
        faults: Mapping[dice.FaultKind, int] = dice.WEIGHTS,
    ) -> None:
        """Args: faults: which kinds, and how often each."""
        self.site = site
        self._faults = faults
        self.count = Count(seed)
        self._sessions = sessions
        self._say = say
        self._hosts = len(site.ground.lab.hosts)
        self._over = threading.Event()
        self._guard = threading.Lock()
        self._engines_died: list[float] = []

    def run(self, look_again_after_s: float = 0.0) -> Count:
        """Let all sessions through; what came of it.

        Args: look_again_after_s: what comes back so long after the audit is left behind, too.
        """
        before = settled_traces(self.site.ground)
        thrown = random.Random(self.count.seed)  # noqa: S311 - no secret
        wishes = [dice.wish(thrown, self._hosts) for _ in range(self._sessions)]
        with (
            thawing(self.site, self._daemons()),
            self._bad_luck(thrown.random()),
            ThreadPoolExecutor(AT_ONCE) as pool,
        ):
            list(pool.map(self._one, wishes))
        self._heal()
        for line, times in self.site.witnesses().items():
            if times > 1:
                self.count.doubled.append(f"{line}: {times} times")
        try:
            self._use_all_hosts()
            assert_same_traces(before, self.site.ground, within=CLEAR_WITHIN_S)
            time.sleep(look_again_after_s)
            assert_same_traces(before, self.site.ground)
        except AssertionError as left:
            self.count.leaks = str(left)
        return self.count

    # ------------------------------------------------------------ sessions

    def _one(self, wish: Wish) -> None:
        began = time.monotonic()
        view: dict[str, Any] = {}
        try:
            session = self.site.submit(**wish.spec(str(self.site.share)))
            if wish.stop_after_s is not None:
                self._over.wait(wish.stop_after_s)
                self.site.stop(session)
            view = self.site.await_state(session, *ENDED, within=SESSION_WITHIN_S)
            said = self._judge(wish, view, began)
        except AssertionError as late:
            said = f"{late} {json.dumps(view)}"
        with self._guard:
            self.count.sessions += 1
            if said:
                self.count.lost.append(said)
                self._say(f"LOST {said}")
            if self.count.sessions % 10 == 0:
                self._say(str(self.count))

    def _judge(self, wish: Wish, view: dict[str, Any], began: float) -> str:
        """Why a session did not end as it should have; empty when it did."""
        codes = {kernel["exit_code"] for kernel in view["kernels"]}
        ran = {line for line in self.site.witnesses() if line.startswith(view["id"])}
        # A later attempt than the first is fine where nothing of the one before had begun.
        once = {f"{view['id']} {view['attempt']} {rank}" for rank in range(wish.size)}
        whole = codes == {wish.code} and ran == once
        with self._guard:
            # The first rank that fails ends the others, which then have no code of their own.
            if view["state"] == ("failed" if wish.code else "succeeded") and (
                whole or (wish.code and wish.code in codes)
            ):
                self.count.as_wished += 1
                return ""
            if wish.stop_after_s is not None and view["state"] == "cancelled":
                self.count.stopped += 1
                return ""
            engines = any(began - ENGINE_WINDOW_S < at for at in self._engines_died)
            if engines and view["state"] == "failed" and view["reason"]:
                self.count.excused += 1
                return ""
        return f"wished {wish}, became {view['state']} {sorted(map(str, codes))}: {view['reason']}"

    # ------------------------------------------------------------ faults

    @contextlib.contextmanager
    def _bad_luck(self, seed: float) -> Iterator[None]:
        """Meanwhile, let one thing go wrong after the other."""
        thrown = random.Random(seed)  # noqa: S311 - no secret

        def go_wrong() -> None:
            while True:
                fault = dice.fault(thrown, self._hosts, self._faults)
                if self._over.wait(fault.after_s):
                    return
                self._say(f"fault: {fault}")
                self.count.faults += 1
                try:
                    with contextlib.suppress(Unavailable, ProcessLookupError):
                        self._do(fault)
                except AssertionError as late:
                    with self._guard:
                        self.count.lost.append(f"{fault}: {late}")

        with ThreadPoolExecutor(1) as alone:
            going = alone.submit(go_wrong)
            try:
                yield
            finally:
                self._over.set()
            going.result()  # whatever it stumbled over is told

    def _do(self, fault: Fault) -> None:
        lab = self.site.ground.lab
        daemon = f"agent-{fault.target}" if fault.target else "manager"
        match fault.kind:
            case "point":
                fault.point.arm(self.site.folder(daemon))
            case "kill":
                lab.fault("kill", daemon)
            case "freeze":
                lab.fault("stop", daemon)  # it is thawed or killed by who looks after these
            case "cut":
                lab.fault("cut", f"host{fault.target}")
                self._over.wait(fault.lasts_s)
                lab.fault("heal", f"host{fault.target}")
            case "engine" | "containerd":
                self._engines_died.append(time.monotonic())
                if fault.kind == "engine":
                    lab.fault("kill", f"engine-{fault.target}")
                else:
                    kill_containerd(lab, fault.target)
                back = partial(self.site.works, fault.target)
                await_true("the engine is back", back, ENGINE_BACK_WITHIN_S)
                self._engines_died.append(time.monotonic())

    def _use_all_hosts(self) -> None:
        """What is left in the way of sessions is found by one; its containers let their agents
        know where their engines keep namespaces.
        """
        wish = {"size": self._hosts, "mode": "multi-node", "spread": "one-per-node"}
        excused_until = max(self._engines_died, default=0.0) + ENGINE_WINDOW_S
        while True:
            began = time.monotonic()
            last = self.site.await_state(self.site.submit(**wish, command=["true"]), *ENDED)
            if last["state"] == "succeeded":
                return
            assert began < excused_until, f"no session runs: {last['reason']}"

    def _daemons(self) -> dict[str, list[Point]]:
        agents = (f"agent-{host.index}" for host in self.site.ground.lab.hosts)
        return {name: [] for name in ("manager", *agents)}

    def _heal(self) -> None:
        """Take all points away, and wait until all hosts are well."""
        for daemon in self._daemons():
            for file in self.site.folder(daemon).glob("failpoint.*"):
                file.unlink(missing_ok=True)
        hosts = range(1, self._hosts + 1)
        await_true(
            "all hosts are well",
            lambda: all(map(self.site.works, hosts)),
            ENGINE_BACK_WITHIN_S,
        )
