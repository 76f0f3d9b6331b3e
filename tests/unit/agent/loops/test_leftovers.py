"""What a dead engine left on its host: namespaces, bridges and rules, layers, interfaces."""

from __future__ import annotations

import asyncio
from collections import deque
from pathlib import Path

import pytest

from phalanx_agent.docker.port import Folders, Possessions, Unavailable
from phalanx_agent.host import bridges
from phalanx_agent.host.records import PLACES
from phalanx_agent.loops.leftovers import LAYER_STAYS_S, SOON_FOR_S, STAYS_S
from tests.unit.agent.loops.leftover_host import (
    ALWAYS,
    BALANCER,
    BRIDGE,
    CONTAINERS,
    KNOWN_BRIDGE,
    NETWORK,
    NOBODYS,
    OTHER_BRIDGE,
    OVERLAYS,
    SANDBOX,
    TUNNEL,
    Host,
    host_in,
)


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    return host_in(tmp_path, monkeypatch)


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
    assert [NOBODYS] * len(PLACES) == host.records()


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


async def test_a_layer_of_which_nothing_but_the_mount_is_there_is_unmounted(host: Host) -> None:
    layer = Path(host.engine.places.layers, "5" * 64)
    (layer / "merged").mkdir(parents=True)
    host.is_mounted(f"{layer}/merged", "overlay")
    soon = await host.look()
    await host.look(LAYER_STAYS_S)

    assert (True, ["merged"], False) == (soon, host.unmounted, layer.exists())


async def test_a_layer_that_its_engine_has_stays_mounted(host: Host) -> None:
    layer = Path(host.engine.places.layers, "5" * 64)
    for part in ("merged", "diff"):
        (layer / part).mkdir(parents=True)
    host.is_mounted(f"{layer}/merged", "overlay")

    assert (False, False) == (await host.look(), await host.look(LAYER_STAYS_S))
    assert ([], True) == (host.unmounted, (layer / "merged").is_dir())


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
