"""What a dead engine left of containers: its helpers, and what it and these have kept."""

from __future__ import annotations

from pathlib import Path

import pytest

from phalanx_agent.docker.port import Folders, Possessions
from phalanx_agent.host import belongings, remains
from phalanx_agent.host.records import PLACES
from phalanx_agent.loops.leftovers import STAYS_S
from tests.unit.agent.loops.leftover_host import BORNE, KNOWN, NOBODYS, Host, host_in


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    return host_in(tmp_path, monkeypatch)


async def test_what_is_kept_of_a_container_that_nobody_has_is_removed(host: Host) -> None:
    host.records(NOBODYS, KNOWN, "not-a-container")
    host.engine.has = Possessions(containers=frozenset((KNOWN,)))
    soon = await host.look()
    await host.look(STAYS_S - 1)
    early = host.records()
    over = await host.look(1)

    assert (True, 3 * len(PLACES), False) == (soon, len(early), over)
    assert sorted([KNOWN, "not-a-container"] * len(PLACES)) == host.records()


async def test_what_was_about_to_be_removed_by_who_died_is_removed(host: Host) -> None:
    host.records(f".{NOBODYS}", f".{BORNE}", f".{KNOWN}")
    host.bears("sleep", "9", cgroup=f"/docker/{BORNE}")
    host.engine.has = Possessions(containers=frozenset((KNOWN,)))
    await host.look()
    await host.look(STAYS_S)

    assert sorted([f".{BORNE}", f".{KNOWN}"] * len(PLACES)) == sorted(host.records())


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
    assert [BORNE] * len(PLACES) == host.records()


async def test_what_has_something_mounted_in_it_stays(host: Host) -> None:
    host.records(NOBODYS)
    within = f"{host.engine.places.run}/{PLACES[0]}/{NOBODYS}/rootfs"
    host.is_mounted(within, "overlay")
    await host.look()

    assert await host.look(STAYS_S)
    assert [NOBODYS] == host.records()


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

    assert [NOBODYS] * len(PLACES) == host.records()


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"layers": "x"}'])
async def test_a_note_that_was_half_kept_is_none(tmp_path: Path, content: str) -> None:
    (tmp_path / "engine.json").write_text(content)

    assert "" == belongings.run_folder(tmp_path, "x", "")
