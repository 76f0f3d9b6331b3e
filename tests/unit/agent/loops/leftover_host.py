"""A host on which an engine has died: what lies there is as a test says."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from phalanx_agent.docker.port import Folders
from phalanx_agent.host import belongings, bridges, mounts, namespaces, remains, rules
from phalanx_agent.host.records import PLACES
from phalanx_agent.loops.leftovers import SOON_FOR_S, Leftovers
from tests.support.fake_engine import FakeEngine

CONTAINERS, OVERLAYS, BALANCER = "d64896bd5b31", "1-i04h6xtbqr", "lb_kinwudd2s"
BRIDGE, KNOWN_BRIDGE, OTHER_BRIDGE = "phxqr27nxe31", "phxabcdefgh12", "phxabcdefgh13"
TUNNEL = "vx-001004-hevyr"
ALWAYS = ("default", "ingress_sbox")
SANDBOX, NETWORK = CONTAINERS.ljust(64, "0"), "i04h6xtbqr7qcjr8q6b58asnq"
NOBODYS, BORNE, KNOWN = "1" * 64, "2" * 64, "3" * 64
WITHIN = {part for place in PLACES for part in place.split("/")}
"""Folders that lie in each other."""


class Host:
    """A machine whose table of mounts and processes a test writes, and the agent's looks at it."""

    def __init__(self, folder: Path) -> None:
        self.engine = FakeEngine()
        self.now_s = 1000.0
        (folder / "agent").mkdir()
        self._note = partial(belongings.run_folder, folder / "agent")
        self.engine_is_back = self.agent_begins()
        self._folder = folder
        self.netns = folder / "netns"
        self.engine.places = Folders(str(folder), str(folder / "overlay2"))
        for place in (self.netns, folder / "self", folder / "7/ns"):
            place.mkdir(parents=True)
        program = folder / "umount"
        program.write_text(f'#!/bin/sh\necho "${{1##*/}}" >> {folder}/unmounted\n')
        program.chmod(0o755)
        self.mounts()
        self.bridges()
        tool = folder / "ip"
        tool.write_text(
            "#!/bin/sh\n"
            f'[ "$1" = -json ] && exec cat {folder}/links\n'
            f'echo "$*" >> {folder}/deleted\n'
        )
        tool.chmod(0o755)
        self.rules()
        self._script("iptables-save", f"cat {folder}/rules")
        self._script("iptables-restore", f"cat >> {folder}/restored")

    def agent_begins(self) -> Callable[[], None]:
        """An agent that has looked at nothing yet; called when its engine is back."""
        self._leftovers = Leftovers(self.engine, lambda: self.now_s, self._note)
        self.now_s += SOON_FOR_S
        self.clear = self._leftovers.clear
        return self._leftovers.engine_is_back

    def _script(self, name: str, line: str) -> None:
        tool = self._folder / name
        tool.write_text(f"#!/bin/sh\n{line}\n")
        tool.chmod(0o755)

    def rules(self, *bridges: str) -> None:
        """Of the host's rules, besides others, one lets each of these bridges' packets pass."""
        ours = [f"-A FORWARD -i {bridge} -o {bridge} -j ACCEPT" for bridge in bridges]
        lines = ["*filter", ":FORWARD DROP [0:0]", "-A FORWARD -i phx+ -j OWN", *ours, "COMMIT"]
        (self._folder / "rules").write_text("\n".join(lines))

    @property
    def rules_removed(self) -> str:
        told = self._folder / "restored"
        return told.read_text() if told.exists() else ""

    def bridges(self, *names: str, first: int = 7) -> None:
        """These bridges are on the host, numbered, with nothing attached."""
        kind = {"linkinfo": {"info_kind": "bridge"}}
        links = [{"ifname": name, "ifindex": at} | kind for at, name in enumerate(names, first)]
        (self._folder / "links").write_text(json.dumps(links))

    def links(self, **fields: object) -> None:
        """The end of a tunnel is on the host, as it was made, but for these fields."""
        link = {"ifname": TUNNEL, "ifindex": 9, "qdisc": "noop", "flags": ["BROADCAST"], **fields}
        (self._folder / "links").write_text(json.dumps([link]))

    def mounts(self, *names: str) -> None:
        """These namespaces are mounted, numbered from 1, among other things."""
        lines = [
            f"9 1 0:4 net:[{number}] {self.netns}/{name} rw shared:8 - nsfs nsfs rw"
            for number, name in enumerate(names, 1)
        ]
        others = [
            f"8 1 0:4 net:[77] {self.netns}s/{CONTAINERS} rw - nsfs nsfs rw",
            f"8 1 0:4 / {self.netns}/{OVERLAYS} rw - tmpfs tmpfs rw",
        ]
        (self._folder / "self/mountinfo").write_text("\n".join((*others, *lines)))
        for name in names:
            (self.netns / name).touch()

    def records(self, *names: str) -> list[str]:
        """These are kept of containers; what is kept, if none are told."""
        for place in PLACES:
            for name in names:
                (self._folder / place / name / "rootfs").mkdir(parents=True)
        kept = [one.name for place in PLACES for one in (self._folder / place).iterdir()]
        return sorted(name for name in kept if name not in WITHIN)

    def is_mounted(self, place: str, kind: str) -> None:
        """Nothing else."""
        row = f"77 1 0:9 / {place} rw - {kind} {kind} rw"
        (self._folder / "self/mountinfo").write_text(row)

    def bears(self, *words: str, cgroup: str = "/", pid: int = 7) -> None:
        """A process."""
        process = self._folder / str(pid)
        process.mkdir(exist_ok=True)
        (process / "cmdline").write_text("\0".join(words))
        (process / "cgroup").write_text(f"4:memory:{cgroup}\n")

    def lives_in(self, number: int) -> None:
        """A process."""
        (self._folder / "7/ns/net").symlink_to(f"net:[{number}]")

    async def look(self, after_s: float = 0.0) -> bool:
        self.now_s += after_s
        return await self._leftovers.look()

    @property
    def deleted(self) -> list[str]:
        """Bridges that were removed."""
        told = self._folder / "deleted"
        return [line.split()[3] for line in told.read_text().splitlines()] if told.exists() else []

    @property
    def unmounted(self) -> list[str]:
        told = self._folder / "unmounted"
        return sorted(told.read_text().split()) if told.exists() else []


def host_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    """Have the agent look at a machine that is in a folder."""
    monkeypatch.setattr(namespaces, "PROC", tmp_path)
    monkeypatch.setattr(remains, "PROC", tmp_path)
    monkeypatch.setattr(mounts, "TABLE", tmp_path / "self/mountinfo")
    monkeypatch.setattr(mounts, "UMOUNT", (str(tmp_path / "umount"),))
    monkeypatch.setattr(bridges, "IP", (str(tmp_path / "ip"),))
    monkeypatch.setattr(rules, "SAVE", (str(tmp_path / "iptables-save"),))
    monkeypatch.setattr(rules, "RESTORE", (str(tmp_path / "iptables-restore"),))
    monkeypatch.setattr(remains, "IP", (str(tmp_path / "ip"),))
    return Host(tmp_path)
