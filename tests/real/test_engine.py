"""What the agent's hands do on real engines: networks, addresses, limits, the guard, events."""

from __future__ import annotations

import asyncio
import contextlib
import io
import itertools
import os
import tarfile
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path

import pytest

from phalanx_agent.core.recipe import ContainerRecipe
from phalanx_agent.docker import containers, places
from phalanx_agent.docker.containers import Ulimits
from phalanx_agent.docker.engine import DockerEngine
from phalanx_agent.docker.port import ContainerFacts, Unavailable
from phalanx_agent.host import inventory
from phalanx_lab import engine_root
from phalanx_lab.lab import Lab
from phalanx_wire.ids import kernel_id
from tests.real.engine_site import (
    DOOR,
    IDLE,
    Site,
    default_route,
    interfaces,
    listener,
    members,
    unguarded_after,
)
from tests.support.engine_stage import (
    EGRESS,
    SESSION,
    Wanted,
    each,
    eventually,
    first,
    listening,
    network,
)

pytestmark = pytest.mark.real

REF = "phalanx/busybox"
_attempts = itertools.count(100)


@pytest.fixture(scope="module", params=["own", "new"])
def lab(request: pytest.FixtureRequest) -> Iterator[Lab]:
    """Two engines with a small image: this Debian's, and then a later generation's."""
    root = engine_root.build(engine_root.SUITE, print) if request.param == "new" else ""
    name = f"real{os.getpid()}{request.param[0]}x"
    with Lab.up(name, 2, engines_only=True, engine_root=root) as lab:
        lab.load("busybox")
        yield lab


@pytest.fixture
async def sites(lab: Lab) -> AsyncIterator[tuple[Site, Site]]:
    """Both hosts; after the test nothing is left on them."""
    limits = Ulimits(inventory.largest_nofile(), memlock=-1 if inventory.may_lock_memory() else 0)
    async with AsyncExitStack() as stack:
        found = []
        for host in lab.hosts:
            docker = await stack.enter_async_context(
                DockerEngine.open(host.engine_socket, "engines", limits)
            )
            await docker.info()
            await docker.ensure_egress(EGRESS)
            image = await docker.image(REF)
            assert image is not None
            found.append(Site(host, docker, image))
        yield found[0], found[1]
        left = [(site, await site.docker.inventory()) for site in found]
        await asyncio.gather(
            *(site.docker.remove(facts.id) for site, seen in left for facts in seen.containers)
        )
        for site, seen in left:
            for facts in seen.networks:
                if facts.driver == "bridge" or site is found[0]:
                    await site.docker.remove_network(facts.id)


@pytest.fixture
async def here(sites: tuple[Site, Site]) -> Site:
    return sites[0]


@pytest.fixture
async def bridge(here: Site) -> Wanted:
    made = await here.docker.create_network(SESSION, 1, network())
    return Wanted(here.image, made, egress=True)


@pytest.fixture
async def overlay(sites: tuple[Site, Site]) -> Wanted:
    """An overlay of both hosts, which are a swarm."""
    one, two = sites
    if (await one.docker.swarm()).state == "inactive":
        await one.docker.swarm_init(one.host.address)
    if (await two.docker.swarm()).state == "inactive":
        token = (await one.docker.swarm()).worker_token
        remotes = (f"{one.host.address}:2377",)
        await two.docker.swarm_join(two.host.address, remotes, token)
    attempt = next(_attempts)  # a swarm is slow to forget: a name is never used twice
    made = await one.docker.create_network(SESSION, attempt, network("overlay", attempt))
    return Wanted(one.image, made, egress=True)


# -------------------------------------------------------------------- interfaces


async def test_on_a_bridge_the_private_network_is_eth0_and_the_way_out_eth1(
    here: Site, bridge: Wanted
) -> None:
    made = await asyncio.gather(*(here.runs(recipe) for recipe in members(bridge, 6)))

    for rank, container in enumerate(made):
        found = await interfaces(here, container)
        assert ["eth0", "eth1"] == sorted(found)
        assert f"10.213.77.{62 - rank}/26" == found["eth0"]
        assert found["eth1"].startswith("10.212.")
        assert ["dev", "eth1"] == (await default_route(here, container))


async def test_without_a_way_out_a_container_reaches_its_peers_alone(
    sites: tuple[Site, Site], bridge: Wanted
) -> None:
    here, there = sites
    recipes = members(replace(bridge, egress=False), 2)
    container, _ = await asyncio.gather(*(here.runs(recipe) for recipe in recipes))

    with listener(there):
        assert {"eth0": "10.213.77.62/26"} == await interfaces(here, container)
        await eventually(lambda: here.reaches(container, "10.213.77.61", DOOR))
        assert not await here.reaches(container, there.host.address, DOOR)


async def test_an_overlay_carries_fixed_addresses_between_hosts(
    sites: tuple[Site, Site], overlay: Wanted
) -> None:
    recipes = members(overlay, 8)
    made = await asyncio.gather(
        *(sites[rank % 2].runs(recipe) for rank, recipe in enumerate(recipes))
    )

    for rank, container in enumerate(made):
        found = await interfaces(sites[rank % 2], container)
        assert ["eth0", "eth1"] == sorted(found)
        assert f"10.213.77.{62 - rank}/26" == found["eth0"]
        assert ["dev", "eth1"] == await default_route(sites[rank % 2], container)
        peer = f"10.213.77.{62 - (rank + 1) % 8}"
        assert await sites[rank % 2].reaches(container, peer, DOOR)


async def test_an_overlay_is_made_and_removed_again_and_again(
    sites: tuple[Site, Site], overlay: Wanted
) -> None:
    one, two = sites
    for round_ in range(4):
        attempt, subnet = next(_attempts), f"10.213.78.{round_ * 16}/28"
        made = await one.docker.create_network(
            SESSION, attempt, network("overlay", attempt, subnet)
        )
        wanted = Wanted(one.image, made, egress=False)
        address = f"10.213.78.{round_ * 16 + 14}"
        container = await two.runs(wanted.recipe("main1", 0, address, command=IDLE))
        await two.docker.remove(container)
        await one.docker.remove_network(made)

    assert [overlay.network_id] == [net.id for net in (await one.docker.inventory()).networks]


async def test_a_subnet_that_is_taken_is_refused_and_nothing_is_left(
    here: Site, bridge: Wanted
) -> None:
    with pytest.raises(Unavailable) as failure:
        await here.docker.create_network(SESSION, 2, network(attempt=2))

    assert "answered" == failure.value.kind
    assert [bridge.network_id] == [net.id for net in (await here.docker.inventory()).networks]


# -------------------------------------------------------------------- the guard


async def test_the_guard_keeps_containers_from_hosts_and_from_each_other_but_not_from_peers(
    sites: tuple[Site, Site], bridge: Wanted
) -> None:
    here, there = sites
    inside, _ = await asyncio.gather(*(here.runs(recipe) for recipe in members(bridge, 2)))
    made = await here.docker.create_network(SESSION, 2, network("bridge", 2, "10.213.79.0/26"))
    other = Wanted(here.image, made, egress=True).recipe("main1", 9, "10.213.79.62", command=IDLE)
    stranger = await here.runs(replace(other, name=f"{other.name}-2"))
    _, egress_of_stranger = (await interfaces(here, stranger)).values()
    assert await here.reaches(stranger, egress_of_stranger.partition("/")[0], DOOR)
    gateway = "10.213.77.1"
    with listener(here), listener(there), unguarded_after(here):
        await eventually(lambda: here.reaches(inside, here.host.address, DOOR))
        await eventually(lambda: here.reaches(inside, there.host.address, DOOR))
        here.guard("keep", here.host.address, there.host.address)

        assert not await here.reaches(inside, here.host.address, DOOR)
        assert not await here.reaches(inside, gateway, DOOR)
        assert not await here.reaches(inside, there.host.address, DOOR)
        assert not await here.reaches(inside, egress_of_stranger.partition("/")[0], DOOR)
        assert not await here.reaches(inside, "10.213.79.62", DOOR)
        assert await here.reaches(inside, "10.213.77.61", DOOR)


# -------------------------------------------------------------------- limits


async def test_a_container_has_the_limits_of_its_recipe(here: Site, bridge: Wanted) -> None:
    (recipe,) = members(bridge, 1)
    container = await here.runs(recipe)

    _, shm = await here.says(container, "sh", "-c", "df -k /dev/shm | tail -1")
    _, nofile = await here.says(container, "sh", "-c", "ulimit -n")
    _, status = await here.says(container, "cat", "/proc/self/status")
    _, hosts = await here.says(container, "cat", "/proc/sys/kernel/hostname")
    wide_open = [line for line in status.splitlines() if line.startswith("CapBnd")]
    assert str(recipe.shm_bytes >> 10) == shm.split()[1]
    assert inventory.largest_nofile() == int(nofile)
    assert "NoNewPrivs:\t1" in status
    assert ["CapBnd:\t00000000200405fb"] == wide_open
    assert "sub1" == hosts.strip()


async def test_memory_beyond_the_limit_ends_a_container_as_out_of_memory(
    here: Site, bridge: Wanted
) -> None:
    async def end_of(recipe: ContainerRecipe) -> ContainerFacts:
        greedy = replace(recipe, entrypoint=("sh",), command=("-c", "exec tail /dev/zero"))
        little = replace(greedy, egress=False, mem_bytes=16 << 20, shm_bytes=1 << 20)
        container = await here.runs(little)
        await eventually(lambda: is_over(container))
        facts = await here.docker.inspect(container)
        assert facts is not None
        return facts

    async def is_over(container: str) -> bool:
        facts = await here.docker.inspect(container)
        return facts is not None and facts.status == "exited"

    ends = await asyncio.gather(*map(end_of, members(bridge, 3)))

    assert {137} == {facts.exit_code for facts in ends}
    assert any(facts.oom_killed for facts in ends)  # an engine misses two or three of a hundred


# -------------------------------------------------------------------- beside the command


async def test_a_terminal_has_its_size_and_dies_with_all_its_children(
    here: Site, bridge: Wanted
) -> None:
    container = await here.runs(members(bridge, 1)[0])
    shell = await here.docker.exec(container, ("sh",), tty=True, stdin=True)
    await shell.resize(41, 132)
    await shell.write(b"stty size; sleep 1234 & sleep 1234; echo never\n")
    said = b""
    async with asyncio.timeout(20):
        while b"41 132" not in said:
            chunk = await shell.read()
            assert chunk is not None
            said += chunk[1]
    await shell.kill()

    _, processes = await here.says(container, "ps")
    assert "sleep 1234" not in processes


async def test_files_go_in_and_come_out(here: Site, bridge: Wanted) -> None:
    container = await here.docker.create_container(members(bridge, 1)[0])
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        member = tarfile.TarInfo("workspace/data")
        member.size, member.uid = 5 << 20, 1000
        tar.addfile(member, io.BytesIO(bytes(5 << 20)))

    async def chunks() -> AsyncIterator[bytes]:
        yield out.getvalue()

    await here.docker.write_archive(container, "/", chunks())
    read = [chunk async for chunk in here.docker.read_archive(container, "/workspace")]
    with tarfile.open(fileobj=io.BytesIO(b"".join(read))) as tar:
        found = tar.getmember("workspace/data")

    assert (5 << 20, 1000) == (found.size, found.uid)


async def test_a_followed_log_ends_with_its_container(here: Site, bridge: Wanted) -> None:
    (recipe,) = members(replace(bridge, egress=False), 1)
    command = ("sh", "-c", "for i in 1 2 3; do echo line $i; sleep 0.2; done; printf rest")
    container = await here.runs(replace(recipe, entrypoint=command[:1], command=command[1:]))

    async with asyncio.timeout(30):
        lines = [line.text async for line in each(here.docker.logs(container, follow=True))]

    assert ["line 1", "line 2", "line 3", "rest"] == lines


def size_of(log: Path) -> int:
    """How much a container's output takes, with what was put aside of it."""
    while True:
        # Newer engines compress what they have put aside, each file under another name in the end.
        with contextlib.suppress(FileNotFoundError):
            return sum(file.stat().st_size for file in log.parent.glob(f"{log.name}*"))


async def test_output_without_end_takes_a_bounded_place_and_its_end_is_kept(
    here: Site, bridge: Wanted, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(containers.LOG_OPTIONS, "max-size", "64k")
    (recipe,) = members(replace(bridge, egress=False), 1)
    script = "yes 0123456789 | head -c 2000000; head -c 300000 /dev/zero | tr '\\0' z; echo; echo x"
    container = await here.runs(replace(recipe, entrypoint=("sh", "-c"), command=(script,)))

    async with asyncio.timeout(30):
        async for _line in each(here.docker.logs(container, follow=True)):
            pass
        kept = [line.text async for line in each(here.docker.logs(container))]
    looked = await here.docker._line.ask("GET", f"containers/{container}/json", doing="looking")
    log = Path(looked["LogPath"])
    taken = size_of(log)

    assert "x" == kept[-1]
    assert set("z") == set(kept[-2])
    assert 0 < taken <= 4 * (64 << 10) + (64 << 10)  # the newest file is cut after its last entry


async def test_more_readers_than_an_engine_has_places_for_are_all_told_everything_once(
    here: Site, bridge: Wanted, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(places, "REST_S", 0.0)
    (recipe,) = members(replace(bridge, egress=False), 1)
    script = (
        "for i in 1 2 3; do seq 700; seq 700 >&2 & head -c 40000 /dev/zero | tr '\\0' z; wait; done"
    )
    container = await here.runs(replace(recipe, entrypoint=("sh", "-c"), command=(script,)))

    async with asyncio.timeout(60):
        async for _line in each(here.docker.logs(container, follow=True)):
            pass
        told = [line async for line in each(here.docker.logs(container))]
        readers = [each(here.docker.logs(container)) for _ in range(20)]
        taken = [[await anext(reader)] for reader in readers]
        for _ in range((len(told) - 1) // 50):
            for at, reader in enumerate(readers):
                taken[at] += [line async for line in first(50, reader)]
        for at, reader in enumerate(readers):
            taken[at] += [line async for line in reader]

    assert [told] * len(readers) == taken


# -------------------------------------------------------------------- an engine that goes away


async def test_events_go_on_after_the_engine_was_killed(
    lab: Lab, here: Site, bridge: Wanted
) -> None:
    container = await here.runs(members(bridge, 1)[0])
    before = await here.docker.info()
    async with listening(here.docker) as ears:
        lab.fault("kill", "engine-1")
        await ears.reopened()
        after = await here.docker.info()
        seen = {facts.id: facts for facts in (await here.docker.inventory()).containers}
        await here.docker.remove(container)
        await ears.action(container, "destroy", kernel_id(SESSION, 1, 0))

    assert after.started_at > before.started_at
    assert "exited" == seen[container].status
