"""What a dead engine left on its host: namespaces, bridges and rules, layers, helpers, records."""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from phalanx_agent.docker.port import Folders, Possessions, Unavailable
from phalanx_agent.host import belongings, bridges, mounts, namespaces, remains, rules
from phalanx_agent.host.records import PLACES
from phalanx_agent.loops.leftovers import LAYER_STAYS_S, SOON_FOR_S, STAYS_S, Leftovers
from tests.support.fake_engine import FakeEngine

CONTAINERS, OVERLAYS, BALANCER = "d64896bd5b31", "1-i04h6xtbqr", "lb_kinwudd2s"
BRIDGE, KNOWN_BRIDGE, OTHER_BRIDGE = "phxqr27nxe31", "phxabcdefgh12", "phxabcdefgh13"
TUNNEL = "vx-001004-hevyr"
ALWAYS = ("default", "ingress_sbox")
SANDBOX, NETWORK = CONTAINERS.ljust(64, "0"), "i04h6xtbqr7qcjr8q6b58asnq"
NOBODYS, BORNE, KNOWN = "1" * 64, "2" * 64, "3" * 64


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
        return sorted(one.name for place in PLACES for one in (self._folder / place).iterdir())

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


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    monkeypatch.setattr(namespaces, "PROC", tmp_path)
    monkeypatch.setattr(remains, "PROC", tmp_path)
    monkeypatch.setattr(mounts, "TABLE", tmp_path / "self/mountinfo")
    monkeypatch.setattr(mounts, "UMOUNT", (str(tmp_path / "umount"),))
    monkeypatch.setattr(bridges, "IP", (str(tmp_path / "ip"),))
    monkeypatch.setattr(rules, "SAVE", (str(tmp_path / "iptables-save"),))
    monkeypatch.setattr(rules, "RESTORE", (str(tmp_path / "iptables-restore"),))
    monkeypatch.setattr(remains, "IP", (str(tmp_path / "ip"),))
    return Host(tmp_path)


async def test_what_is_nobodys_for_a_while_is_unmounted(host: Host) -> None:
    host.mounts(CONTAINERS, OVERLAYS, BALANCER, *ALWAYS)
    soon = await host.look()
    early = host.unmounted
    over = await host.look(STAYS_S)

    assert (True, [], False) == (soon, early, over)
    assert sorted((CONTAINERS, OVERLAYS, BALANCER)) == host.unmounted
    assert sorted(ALWAYS) == sorted(place.name for place in host.netns.iterdir())


async def test_what_the_engine_knows_stays(host: Host) -> None:
    host.mounts(CONTAINERS, OVERLAYS)
    host.engine.has = Possessions(frozenset((NETWORK,)), sandboxes=frozenset((SANDBOX,)))

    assert (False, False, []) == (await host.look(), await host.look(STAYS_S), host.unmounted)


async def test_what_an_engine_that_is_back_knows_is_looked_at_again_soon_for_a_while(
    host: Host,
) -> None:
    host.mounts(OVERLAYS)
    host.engine.has = Possessions(networks=frozenset((NETWORK,)))
    host.engine_is_back()

    assert (True, False) == (await host.look(STAYS_S), await host.look(SOON_FOR_S))


async def test_where_a_process_lives_nothing_is_unmounted(host: Host) -> None:
    host.mounts(CONTAINERS)
    host.lives_in(1)

    assert (False, False, []) == (await host.look(), await host.look(STAYS_S), host.unmounted)


async def test_another_namespace_of_the_same_name_has_its_own_while(host: Host) -> None:
    host.mounts(OVERLAYS)
    await host.look()
    host.mounts("default", OVERLAYS)  # another number
    await host.look(STAYS_S)
    early = host.unmounted
    await host.look(STAYS_S)

    assert ([], [OVERLAYS]) == (early, host.unmounted)


async def test_what_cannot_be_unmounted_is_tried_again(host: Host, tmp_path: Path) -> None:
    host.mounts(CONTAINERS)
    await host.look()
    program = (tmp_path / "umount").read_text()
    (tmp_path / "umount").write_text("#!/bin/sh\nexit 32\n")
    more = await host.look(STAYS_S)
    (tmp_path / "umount").write_text(program)
    await host.look()

    assert (True, [CONTAINERS]) == (more, host.unmounted)


async def test_nothing_is_unmounted_on_the_word_of_an_engine_that_does_not_answer(
    host: Host,
) -> None:
    host.mounts(CONTAINERS)
    await host.look()
    host.engine.failures["possessions"] = deque([Unavailable("engine", "listing", "Gone.")])
    with pytest.raises(Unavailable):
        await host.look(STAYS_S)

    assert [] == host.unmounted


async def test_nothing_is_looked_at_before_the_engine_has_told_its_folders(host: Host) -> None:
    host.mounts(CONTAINERS)
    host.bridges(BRIDGE)
    host.engine.places = Folders()

    assert (False, False, []) == (await host.look(), await host.look(STAYS_S), host.unmounted)
    assert [] == host.deleted


async def test_layers_and_bridges_are_looked_after_where_no_container_has_run(host: Host) -> None:
    name = f"{'5' * 64}-init"
    host.is_mounted(f"{host.engine.places.layers}/{name}/merged", "overlay")
    host.bridges(BRIDGE)
    host.records(NOBODYS)
    host.engine.places = Folders(layers=host.engine.places.layers)
    await host.look()
    await host.look(LAYER_STAYS_S)

    assert (["merged"], [BRIDGE]) == (host.unmounted, host.deleted)
    assert [NOBODYS, NOBODYS] == host.records()


async def test_a_bridge_of_no_network_is_removed_after_a_while(host: Host) -> None:
    host.bridges(BRIDGE, KNOWN_BRIDGE)
    host.engine.has = Possessions(bridges=frozenset((KNOWN_BRIDGE,)))
    soon = await host.look()
    early = host.deleted
    over = await host.look(STAYS_S)

    assert (True, [], False) == (soon, early, over)
    assert [BRIDGE] == host.deleted


async def test_a_bridge_that_was_made_anew_has_its_own_while(host: Host) -> None:
    host.bridges(BRIDGE)
    await host.look()
    host.bridges(BRIDGE, first=8)
    await host.look(STAYS_S)
    early = host.deleted
    await host.look(STAYS_S)

    assert ([], [BRIDGE]) == (early, host.deleted)


async def test_where_interfaces_cannot_be_listed_namespaces_are_looked_after(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bridges, "IP", ("/nowhere/ip",))
    host.mounts(CONTAINERS)
    await host.look()
    await host.look(STAYS_S)

    assert [CONTAINERS] == host.unmounted


async def test_a_first_layer_that_stays_mounted_is_unmounted(host: Host) -> None:
    name = f"{'5' * 64}-init"
    host.is_mounted(f"{host.engine.places.layers}/{name}/merged", "overlay")
    soon = await host.look()
    await host.look(LAYER_STAYS_S - 1)
    early = host.unmounted
    over = await host.look(1)

    assert (True, [], False) == (soon, early, over)
    assert ["merged"] == host.unmounted


async def test_what_is_kept_of_a_container_that_nobody_has_is_removed(host: Host) -> None:
    host.records(NOBODYS, KNOWN, "not-a-container")
    host.engine.has = Possessions(containers=frozenset((KNOWN,)))
    soon = await host.look()
    await host.look(STAYS_S - 1)
    early = host.records()
    over = await host.look(1)

    assert (True, 6, False) == (soon, len(early), over)
    assert [KNOWN, KNOWN, "not-a-container", "not-a-container"] == host.records()


async def test_what_was_about_to_be_removed_by_who_died_is_removed(host: Host) -> None:
    host.records(f".{NOBODYS}", f".{BORNE}", f".{KNOWN}")
    host.bears("sleep", "9", cgroup=f"/docker/{BORNE}")
    host.engine.has = Possessions(containers=frozenset((KNOWN,)))
    await host.look()
    await host.look(STAYS_S)

    assert sorted([f".{BORNE}", f".{KNOWN}"] * 2) == sorted(host.records())


@pytest.mark.parametrize(
    ("words", "cgroup"),
    [
        (("/usr/bin/containerd-shim-runc-v2", "-namespace", "moby", "-id", BORNE), "/"),
        (("sleep", "9"), f"/docker/{BORNE}"),
        (("sleep", "9"), f"/system.slice/docker-{BORNE}.scope"),
    ],
)
async def test_what_is_kept_of_a_container_stays_while_a_process_bears_its_id(
    host: Host, words: tuple[str, ...], cgroup: str
) -> None:
    host.records(BORNE)
    host.bears(*words, cgroup=cgroup)

    assert (False, False) == (await host.look(), await host.look(STAYS_S))
    assert [BORNE, BORNE] == host.records()


async def test_what_has_something_mounted_in_it_stays(host: Host) -> None:
    host.records(NOBODYS)
    within = f"{host.engine.places.run}/{PLACES[0]}/{NOBODYS}/rootfs"
    host.is_mounted(within, "overlay")
    await host.look()

    assert await host.look(STAYS_S)
    assert [NOBODYS] == host.records()


async def test_the_engine_is_not_asked_while_there_is_nothing_to_ask_for(host: Host) -> None:
    host.mounts(*ALWAYS)

    assert not await host.look()
    assert "possessions" not in host.engine.calls


async def test_the_end_of_a_tunnel_that_was_never_handed_over_is_removed(host: Host) -> None:
    host.links()
    await host.look()
    early = host.deleted
    await host.look(STAYS_S)

    assert ([], [TUNNEL]) == (early, host.deleted)


@pytest.mark.parametrize(
    "fields", [{"master": "br0"}, {"qdisc": "noqueue"}, {"flags": ["UP"]}, {"ifname": "vxlan0"}]
)
async def test_an_interface_that_somebody_uses_stays(host: Host, fields: dict[str, object]) -> None:
    host.links(**fields)

    assert (False, False, []) == (await host.look(), await host.look(STAYS_S), host.deleted)


async def test_a_rule_that_names_a_bridge_that_is_gone_is_removed(host: Host) -> None:
    host.bridges(BRIDGE)
    host.rules(BRIDGE, KNOWN_BRIDGE, OTHER_BRIDGE)
    host.engine.has = Possessions(bridges=frozenset((BRIDGE, KNOWN_BRIDGE)))
    soon = await host.look()
    early = host.rules_removed
    over = await host.look(STAYS_S)

    assert (True, "", False) == (soon, early, over)
    assert host.rules_removed == (
        f"*filter\n-D FORWARD -i {OTHER_BRIDGE} -o {OTHER_BRIDGE} -j ACCEPT\nCOMMIT\n"
    )


def shim_of(host: Host, container: str, **options: str) -> tuple[str, ...]:
    """How one was begun."""
    socket = f"{host.engine.places.run}/containerd/containerd.sock"
    told = {"-namespace": "moby", "-id": container, "-address": socket, **options}
    return ("/usr/bin/containerd-shim-runc-v2", *(word for pair in told.items() for word in pair))


async def test_a_shim_of_a_container_that_the_engine_has_lost_is_ended(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended = []

    async def end(container: str) -> None:
        ended.append(container)

    monkeypatch.setattr(remains, "end", end)
    host.bears(*shim_of(host, NOBODYS))
    soon = await host.look()
    await host.look(STAYS_S - 1)
    early = list(ended)
    over = await host.look(1)

    assert (True, [], False) == (soon, early, over)
    assert [NOBODYS] == ended


@pytest.mark.parametrize(
    ("container", "options", "also"),
    [
        (KNOWN, {}, ("", "/")),
        (NOBODYS, {"-address": "/run/containerd/containerd.sock"}, ("", "/")),
        (NOBODYS, {"-namespace": "plugins.moby"}, ("", "/")),
        (NOBODYS, {"-id": "a-task"}, ("", "/")),
        (NOBODYS, {}, ("sleep", f"/docker/{NOBODYS}")),
    ],
)
async def test_a_shim_that_helps_somebody_stays(
    host: Host, container: str, options: dict[str, str], also: tuple[str, str]
) -> None:
    host.engine.has = Possessions(containers=frozenset((KNOWN,)))
    host.bears(*shim_of(host, container, **options))
    host.bears(also[0], cgroup=also[1], pid=8)

    assert (False, False) == (await host.look(), await host.look(STAYS_S))


async def test_a_shim_that_does_not_end_is_tried_again(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def end(_container: str) -> None:
        raise remains.RemainsStay("Process 7 of it does not end.")

    monkeypatch.setattr(remains, "end", end)
    host.bears(*shim_of(host, NOBODYS))
    await host.look()

    assert await host.look(STAYS_S)


async def test_where_the_engine_keeps_what_it_has_is_known_to_the_next_agent(host: Host) -> None:
    await host.look()
    where = host.engine.places
    host.agent_begins()
    host.engine.places = Folders(layers=where.layers)
    host.records(NOBODYS)
    await host.look()
    await host.look(STAYS_S)

    assert [] == host.records()


async def test_where_another_engine_keeps_what_it_has_is_not_known(host: Host) -> None:
    await host.look()
    host.agent_begins()
    host.engine.places = Folders(layers="/another/overlay2")
    host.records(NOBODYS)
    await host.look()
    await host.look(STAYS_S)

    assert [NOBODYS, NOBODYS] == host.records()


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"layers": "x"}'])
async def test_a_note_that_was_half_kept_is_none(tmp_path: Path, content: str) -> None:
    (tmp_path / "engine.json").write_text(content)

    assert "" == belongings.run_folder(tmp_path, "x", "")


async def test_who_leaves_a_host_waits_for_what_is_nobodys_there(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def sleep(seconds: float) -> None:
        host.now_s += seconds

    monkeypatch.setattr(asyncio, "sleep", sleep)
    host.bridges(BRIDGE)
    host.mounts(OVERLAYS)
    await host.clear()

    assert ([BRIDGE], [OVERLAYS]) == (host.deleted, host.unmounted)
