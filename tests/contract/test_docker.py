"""What the loops may rely on of an engine; the double keeps to it as the real one does."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest

from phalanx_agent.core.recipe import Image
from phalanx_agent.docker.containers import Ulimits
from phalanx_agent.docker.engine import DockerEngine
from phalanx_agent.docker.port import (
    Conflict,
    ContainerFacts,
    ExecSession,
    Inventory,
    Unavailable,
)
from phalanx_agent.host import inventory
from phalanx_lab.lab import Lab
from phalanx_wire.ids import KernelId, kernel_id
from tests.support.engine_stage import (
    EGRESS,
    SESSION,
    SUBNET,
    WITHIN_S,
    FakeStage,
    RealStage,
    Stage,
    Wanted,
    each,
    eventually,
    listening,
    network,
)

KERNEL = kernel_id(SESSION, 1, 0)
NOWHERE = "f" * 64


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    """One real engine with a small image."""
    with Lab.up(f"real{os.getpid()}c", 1, engines_only=True) as lab:
        lab.load("busybox")
        yield lab


@pytest.fixture(params=["double", pytest.param("real", marks=pytest.mark.real)])
async def stage(request: pytest.FixtureRequest) -> AsyncIterator[Stage]:
    if request.param == "double":
        yield FakeStage()
        return
    lab: Lab = request.getfixturevalue("lab")
    limits = Ulimits(inventory.largest_nofile(), memlock=-1 if inventory.may_lock_memory() else 0)
    async with DockerEngine.open(lab.hosts[0].engine_socket, "contract", limits) as docker:
        await docker.info()
        yield RealStage(docker, "phalanx/busybox")
        left = await docker.inventory()
        await asyncio.gather(*(docker.remove(facts.id) for facts in left.containers))
        await asyncio.gather(*(docker.remove_network(facts.id) for facts in left.networks))


@pytest.fixture
async def image(stage: Stage) -> Image:
    image = await stage.docker.image(stage.ref)
    assert image is not None
    return image


@pytest.fixture
async def wanted(stage: Stage, image: Image) -> Wanted:
    return stage.wanted(image, await stage.docker.create_network(SESSION, 1, network()))


@pytest.fixture
async def running(stage: Stage, wanted: Wanted) -> str:
    made = await stage.docker.create_container(wanted.recipe())
    await stage.docker.start(made)
    return made


async def facts_of(stage: Stage, container_id: str) -> ContainerFacts:
    facts = await stage.docker.inspect(container_id)
    assert facts is not None
    return facts


async def ended(stage: Stage, container_id: str) -> ContainerFacts:
    async def is_over() -> bool:
        return (await facts_of(stage, container_id)).status == "exited"

    await eventually(is_over)
    return await facts_of(stage, container_id)


# -------------------------------------------------------------------- engine and images


async def test_an_engine_says_what_it_is(stage: Stage) -> None:
    facts = await stage.docker.info()

    assert ("", True, True) == (facts.problem, facts.cpu_count > 0, facts.mem_bytes > 0)
    assert facts.version
    assert facts.api.startswith("1.")


async def test_an_image_is_known_by_its_id_or_not_at_all(stage: Stage) -> None:
    found = await stage.docker.image(stage.ref)

    assert found is not None
    assert found.id.startswith("sha256:")
    assert await stage.docker.image("no/such:image") is None


# -------------------------------------------------------------------- networks


async def test_a_network_is_made_once_however_often_it_is_asked_for(stage: Stage) -> None:
    first = await stage.docker.create_network(SESSION, 1, network())
    second = await stage.docker.create_network(SESSION, 1, network())

    found = (await stage.docker.inventory()).networks
    assert first == second
    assert [(first, network().name, SESSION, 1, "bridge", SUBNET)] == [
        (net.id, net.name, net.session, net.attempt, net.driver, net.subnet) for net in found
    ]


async def test_a_network_is_removed_twice_without_harm(stage: Stage) -> None:
    made = await stage.docker.create_network(SESSION, 1, network())
    await stage.docker.remove_network(made)
    await stage.docker.remove_network(made)

    assert () == (await stage.docker.inventory()).networks


# -------------------------------------------------------------------- the life of a container


async def test_a_container_is_made_without_running(stage: Stage, wanted: Wanted) -> None:
    made = await stage.docker.create_container(wanted.recipe())

    facts = await facts_of(stage, made)
    assert ("created", KERNEL, SESSION, 1, "hash") == (
        facts.status,
        facts.kernel,
        facts.session,
        facts.attempt,
        facts.spec_hash,
    )
    assert (0, 0.0, 0.0, "") == (facts.pid, facts.started_at, facts.finished_at, facts.error)
    assert (facts,) == (await stage.docker.inventory()).containers


async def test_the_same_container_is_made_once(stage: Stage, wanted: Wanted) -> None:
    first = await stage.docker.create_container(wanted.recipe())

    assert first == await stage.docker.create_container(wanted.recipe())


async def test_another_container_of_the_same_name_is_a_conflict(
    stage: Stage, wanted: Wanted
) -> None:
    await stage.docker.create_container(wanted.recipe())

    with pytest.raises(Conflict):
        await stage.docker.create_container(wanted.recipe(spec_hash="another"))


async def test_a_started_container_runs_and_its_start_rings(stage: Stage, wanted: Wanted) -> None:
    made = await stage.docker.create_container(wanted.recipe())
    async with listening(stage.docker) as ears:
        await stage.docker.start(made)
        await ears.action(made, "start", KERNEL)

    facts = await facts_of(stage, made)
    assert ("running", True, True) == (facts.status, facts.pid > 0, facts.started_at > 0)


async def test_a_second_start_changes_nothing(stage: Stage, running: str) -> None:
    before = await facts_of(stage, running)
    await stage.docker.start(running)

    assert before == await facts_of(stage, running)


async def test_the_way_out_is_attached_however_often_it_is_asked_for(
    stage: Stage, wanted: Wanted
) -> None:
    await stage.docker.ensure_egress(EGRESS)
    made = await stage.docker.create_container(replace(wanted, egress=True).recipe())
    await stage.docker.start(made)
    await stage.docker.connect(made)
    await stage.docker.connect(made)

    assert "running" == (await facts_of(stage, made)).status


async def test_an_end_rings_and_leaves_its_code(stage: Stage, running: str) -> None:
    async with listening(stage.docker) as ears:
        await stage.end(running)
        await ears.action(running, "die", KERNEL)

    facts = await ended(stage, running)
    assert (3, 0, False) == (facts.exit_code, facts.pid, facts.oom_killed)
    assert facts.finished_at >= facts.started_at > 0


async def test_a_kill_ends_a_container_with_137(stage: Stage, running: str) -> None:
    await stage.docker.kill(running, "SIGKILL")

    assert 137 == (await ended(stage, running)).exit_code


async def test_a_signal_to_what_has_ended_or_is_gone_is_fine(stage: Stage, running: str) -> None:
    await stage.end(running)
    await ended(stage, running)
    await stage.docker.kill(running, "SIGTERM")
    await stage.docker.remove(running)

    await stage.docker.kill(running, "SIGTERM")


async def test_a_start_that_fails_leaves_its_reason_and_no_start(
    stage: Stage, wanted: Wanted
) -> None:
    recipe = stage.next_start_fails(wanted.recipe())
    made = await stage.docker.create_container(recipe)

    with pytest.raises(Unavailable) as failure:
        await stage.docker.start(made)

    facts = await facts_of(stage, made)
    assert ("answered", "created", 0.0) == (failure.value.kind, facts.status, facts.started_at)
    assert "no such file" in facts.error


async def test_a_running_container_is_removed_and_rings(stage: Stage, running: str) -> None:
    async with listening(stage.docker) as ears:
        await stage.docker.remove(running)
        await ears.action(running, "destroy", KERNEL)

    assert await stage.docker.inspect(running) is None
    await stage.docker.remove(running)


async def test_many_containers_live_side_by_side(stage: Stage, wanted: Wanted) -> None:
    async def life(rank: int) -> str:
        recipe = wanted.recipe(f"sub{rank}", rank, f"10.213.77.{50 - rank}")
        made = await stage.docker.create_container(recipe)
        await stage.docker.start(made)
        return made

    await asyncio.gather(*(life(rank) for rank in range(1, 5)))

    found = (await stage.docker.inventory()).containers
    assert {KernelId(f"{SESSION}-1-{rank}"): "running" for rank in range(1, 5)} == {
        facts.kernel: facts.status for facts in found
    }


# -------------------------------------------------------------------- what passes in and out


async def test_output_is_read_in_order_by_its_stream(stage: Stage, running: str) -> None:
    await stage.spoken(running)
    lines = [line async for line in each(stage.docker.logs(running))]

    assert ["out 1", "out 3"] == [line.text for line in lines if not line.stderr]
    assert ["err 2"] == [line.text for line in lines if line.stderr]


async def test_output_is_read_from_a_moment_on_or_from_its_end(stage: Stage, running: str) -> None:
    await stage.spoken(running)
    first, *rest = [line async for line in each(stage.docker.logs(running))]

    assert rest == [line async for line in each(stage.docker.logs(running, since_ns=first.at_ns))]
    assert rest[-1:] == [line async for line in each(stage.docker.logs(running, tail=1))]
    assert [] == [line async for line in each(stage.docker.logs(running, tail=0))]


async def test_a_command_beside_gives_its_output_and_code(stage: Stage, running: str) -> None:
    async with killed_after(await stage.runs(running, stdin=False)) as command:
        assert (1, b"hello\n") == await command.read()
        assert await command.read() is None
        assert 7 == await command.exit_code()


async def test_a_command_beside_takes_its_input_to_the_end(stage: Stage, running: str) -> None:
    async with killed_after(await stage.runs(running, stdin=True)) as command:
        assert (1, b"hello\n") == await command.read()
        await command.write(b"some input")
        await command.eof()
        assert (1, b"some input") == await command.read()
        assert await command.read() is None
        assert 7 == await command.exit_code()


async def test_a_command_beside_ends_when_it_is_killed(stage: Stage, running: str) -> None:
    async with killed_after(await stage.runs(running, stdin=True)) as command:
        assert (1, b"hello\n") == await command.read()
        await command.kill()

        assert "running" == (await facts_of(stage, running)).status


async def test_a_command_beside_is_ended_by_its_id_however_often(
    stage: Stage, running: str
) -> None:
    ids: list[str] = []
    async with (
        killed_after(await stage.runs(running, stdin=True, begins=ids.append)) as command,
        asyncio.timeout(WITHIN_S),
    ):
        assert (1, b"hello\n") == await command.read()
        for _ in range(2):
            await stage.docker.end_exec(ids[0])

        while await command.read() is not None:
            continue
        assert 1 == len(ids)
        assert "running" == (await facts_of(stage, running)).status


async def test_a_command_beside_that_is_not_known_has_ended(stage: Stage) -> None:
    await stage.docker.end_exec("e" * 64)


@asynccontextmanager
async def killed_after(command: ExecSession) -> AsyncIterator[ExecSession]:
    """Whoever runs a command beside kills it at last, also when it has ended: that closes it."""
    try:
        yield command
    finally:
        await command.kill()


async def test_a_path_that_is_not_there_cannot_be_read(stage: Stage, running: str) -> None:
    with pytest.raises(Unavailable) as failure:
        await anext(stage.docker.read_archive(running, "/no/such/path"))

    assert ("answered", 404) == (failure.value.kind, failure.value.status)


# -------------------------------------------------------------------- what is not there


async def test_nothing_is_found_of_a_container_that_never_was(stage: Stage) -> None:
    assert await stage.docker.inspect(NOWHERE) is None
    await stage.docker.remove(NOWHERE)
    await stage.docker.kill(NOWHERE, "SIGKILL")


async def test_a_container_on_a_network_that_is_gone_does_not_start(
    stage: Stage, wanted: Wanted
) -> None:
    recipe = replace(wanted.recipe(), network_id=NOWHERE)

    with pytest.raises(Unavailable) as failure:
        await stage.docker.start(await stage.docker.create_container(recipe))

    assert "answered" == failure.value.kind


async def test_all_that_is_ours_goes_however_often_it_is_asked_for(
    stage: Stage, running: str
) -> None:
    await stage.docker.ensure_egress(EGRESS)
    for _ in range(2):
        await stage.docker.clear()
        await stage.docker.swarm_leave(0.0)

    assert Inventory((), ()) == await stage.docker.inventory()
    assert None is await stage.docker.inspect(running)
    assert "inactive" == (await stage.docker.swarm()).state
