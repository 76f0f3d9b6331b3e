"""What every store does with kernels, their places and their history."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from phalanx_manager.core.model import Drain, Stop, StopCause
from phalanx_manager.core.observe import NetworkChange
from phalanx_manager.store.port import (
    NewEvent,
)
from phalanx_manager.store.tables import Refused, Writes
from phalanx_wire.lifecycle import KernelState
from phalanx_wire.spec import Mount
from tests.support.house import NOW, later
from tests.support.store_case import BOB, ONE, TWO, A, Case

S = KernelState


async def test_a_gang_is_placed_whole_with_its_network_and_devices(case: Case) -> None:
    await case.join()
    await case.submit(size=2)
    placed = await case.place()
    await case.again()
    row = await case.row()

    assert placed
    assert [(S.ASSIGNED, "a", ("gpu0",)), (S.ASSIGNED, "a", ("gpu1",))] == [
        (kernel.state, kernel.agent, kernel.gpus) for kernel in row.kernels
    ]
    assert row.session.network is not None
    assert ("scheduled", "10.213.0.0/26") == (row.session.state, row.session.network.subnet)


@pytest.mark.parametrize("subnet", ["10.213.0.0/26", "10.213.1.0/26"])
async def test_a_subnet_or_device_that_is_taken_undoes_the_whole_placement(
    case: Case, subnet: str
) -> None:
    await case.join()
    await case.submit(size=1)
    await case.submit(TWO, size=2)
    await case.place()
    placed = await case.place(TWO, subnet)
    await case.again()
    row = await case.row(TWO)

    assert not placed
    assert [(S.PENDING, None), (S.PENDING, None)] == [(k.state, k.agent) for k in row.kernels]
    assert row.session.network is None


async def test_ports_of_a_host_are_kept_with_the_kernel_and_held_once(case: Case) -> None:
    await case.join()
    await case.submit(size=1)
    await case.submit(TWO, size=1)
    placed = await case.place_on_host()
    row = await case.row()
    before = await case.place_on_host(TWO)
    await case.move(0, S.PREPARING, S.REJECTED, S.REMOVED)
    await case.again()

    assert (placed, before) == (True, False)
    kernel, network = row.kernels[0], row.session.network
    assert ("eth0", 61000, 61001) == (kernel.interface, kernel.ssh_port, kernel.service_port)
    assert network is not None
    assert ("host", "host", True) == (network.driver, network.engine_id, network.released)
    assert await case.place_on_host(TWO)
    assert {TWO} == set((await case.store.load()).sessions)


async def test_a_stopped_session_is_not_placed_any_more(case: Case) -> None:
    await case.join()
    await case.submit()
    await case.store.stop(ONE, Stop(StopCause.USER, "enough", NOW))

    assert not await case.place()


@pytest.mark.parametrize("order", ["before", "at once"])
async def test_nothing_is_placed_on_a_host_that_was_drained_after_the_plan_was_made(
    case: Case, order: str
) -> None:
    await case.join()
    await case.submit(size=2)
    drained = case.store.drain(A, Drain("new disks", NOW), "drained", NOW)
    if order == "at once":
        _known, placed = await asyncio.gather(drained, case.place())
    else:
        await drained
        placed = await case.place()
    await case.store.drain(A, None, "back", NOW)

    assert not placed
    assert await case.place()


async def test_devices_and_subnet_are_free_again_when_all_is_removed(case: Case) -> None:
    await case.join()
    await case.submit(size=1)
    await case.submit(TWO, size=1)
    await case.place()
    await case.move(0, S.PREPARING, S.REJECTED, S.REMOVED)
    before = await case.place(TWO)
    network = (await case.row()).session.network
    assert network is not None
    gone = NetworkChange(ONE, 1, replace(network, released=True))
    await case.store.record((), (gone,), later(3))
    await case.again()

    assert not before
    assert await case.place(TWO)
    assert {TWO} == set((await case.store.load()).sessions)


async def test_every_state_is_in_the_history_and_told_as_an_event(case: Case) -> None:
    await case.join()
    await case.submit()
    await case.place()
    await case.move(0, S.PREPARING, S.CREATED, S.STARTING, S.READY, S.MESHED, S.RUNNING)
    await case.move(0, S.EXITED, exit_code=0, cause="exited")
    await case.again()
    kinds = [event.kind for event in await case.store.events(0, ONE, 100)]
    row = await case.row()

    assert [
        "session.submitted",
        "kernel.assigned",
        "session.scheduled",
        "kernel.preparing",
        "kernel.created",
        "kernel.starting",
        "kernel.ready",
        "kernel.meshed",
        "kernel.running",
        "session.running",
        "kernel.exited",
        "session.succeeded",
    ] == kinds
    assert ("succeeded", 0, later(2)) == (
        row.session.state,
        row.session.exit_code,
        row.session.ended_at,
    )


async def test_a_change_decided_on_an_older_state_is_dropped(case: Case) -> None:
    await case.join()
    await case.submit()
    await case.place()
    await case.move(0, S.PREPARING)

    assert not await case.move(0, S.PREPARING, seen=S.ASSIGNED)
    assert S.PREPARING is (await case.row()).kernels[0].state


async def test_events_are_read_from_any_point_for_one_session_or_all(case: Case) -> None:
    await case.submit()
    await case.submit(TWO, BOB)
    await case.store.add_event(NewEvent(NOW, "session.note", "hello", ONE, rank=0))
    await case.again()
    events = await case.store.events(0, None, 100)

    assert [ONE, TWO, ONE] == [event.session for event in events]
    assert ["hello"] == [e.text for e in await case.store.events(events[0].id, ONE, 100)]
    assert events[-1].id == await case.store.last_event()
    assert 2 == len(await case.store.events(0, None, 2))


@pytest.mark.parametrize(("before", "after"), [(S.RUNNING, S.CREATED), (S.ASSIGNED, S.RUNNING)])
async def test_the_database_itself_refuses_a_step_that_the_table_does_not_have(
    case: Case, before: KernelState, after: KernelState
) -> None:
    await case.join()
    await case.submit()
    await case.place()
    if before is S.RUNNING:
        await case.move(0, S.PREPARING, S.CREATED, S.STARTING, S.READY, S.MESHED, S.RUNNING)
    kernel = (await case.row()).kernels[0]
    step = {"id": kernel.id, "seen": int(before), "state": int(after), "at": 0}

    writes = Writes()
    writes.run("kernel_step", step)

    with pytest.raises(Refused, match=r"(?i)foreign key"):
        await case.store._tables.commit(writes, lambda _: None)
    await case.again()
    assert before is (await case.row()).kernels[0].state


async def test_folders_that_are_not_shared_are_kept_and_told_once_when_all_have_met(
    case: Case,
) -> None:
    await case.join()
    mount = Mount("/srv/ckpt", "/ckpt", read_only=False)
    await case.submit(size=2, requeue=True, mounts=(mount,))
    await case.place()
    up = (S.PREPARING, S.CREATED, S.STARTING, S.READY, S.MESHED)
    await case.move(0, *up, folders={"/ckpt": "x"})
    before = await case.store.events(0, ONE, 99)
    await case.move(1, *up, folders={"/ckpt": "y"})
    await case.again()
    await case.move(0, S.RUNNING)
    await case.move(1, S.RUNNING)
    told = [event for event in await case.store.events(0, ONE, 99) if "unshared" in event.kind]

    assert [{"/ckpt": "x"}, {"/ckpt": "y"}] == [k.folders for k in (await case.row()).kernels]
    assert not [event for event in before if "unshared" in event.kind]
    (only,) = told
    assert "/srv/ckpt" in only.text
