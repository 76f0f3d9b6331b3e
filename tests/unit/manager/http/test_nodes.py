"""Hosts out of service, back, and given up."""

from __future__ import annotations

from datetime import timedelta

import msgspec
import pytest
from aiohttp import ClientResponse

from phalanx_wire.api import NodeView
from phalanx_wire.ids import AgentId
from phalanx_wire.lifecycle import KernelState
from tests.support.manager_api import Scene, problem

GPU1 = AgentId("gpu-1")


async def view(response: ClientResponse) -> NodeView:
    assert 200 == response.status, await response.text()
    return msgspec.json.decode(await response.read(), type=NodeView)


async def test_a_drained_host_says_why_and_gets_no_work_until_it_is_back(api: Scene) -> None:
    wish = {"reason": "new disks", "deadline_s": 60, "signal": "USR1"}
    drained = await view(await api.post("/v1/nodes/gpu-1/drain", wish, "root"))
    waiting = await api.submit()
    with pytest.raises(AssertionError, match="no agent of this cluster is ready"):
        await api.place(waiting.id)
    back = await view(await api.post("/v1/nodes/gpu-1/undrain", b"", "root"))
    await api.place(waiting.id)

    assert "drained" == drained.state
    until = api.clock.now() + timedelta(seconds=60)
    assert drained.reason == (
        f"root: new disks; what runs there is stopped at {until:%Y-%m-%d %H:%M:%S} UTC"
    )
    assert ("ready", None) == (back.state, back.reason)


async def test_a_host_is_draining_while_something_is_left_on_it(api: Scene) -> None:
    await api.running()
    response = await api.client.post("/v1/nodes/gpu-1/drain", headers=api.as_("root"))
    found = await view(response)

    assert ("draining", "root") == (found.state, found.reason)


async def test_a_drain_outlives_the_manager(api: Scene) -> None:
    await api.post("/v1/nodes/gpu-1/drain", {"reason": "x", "signal": "USR1"}, "root")
    await api.store.reload()
    (record,) = await api.store.agents()

    assert record.drain is not None
    assert ("root: x", 10, False) == (
        record.drain.reason,
        record.drain.signal,
        record.drain.signalled,
    )


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"reason": "a\nb"}, "reason"),
        ({"reason": "a" * 201}, "reason"),
        ({"deadline_s": -1}, "deadline_s"),
        ({"deadline_s": 1e12}, "deadline_s"),
        ({"signal": "NOPE"}, "signal"),
    ],
)
async def test_a_wrong_drain_is_refused_by_field(
    api: Scene, body: dict[str, object], field: str
) -> None:
    found = await problem(await api.post("/v1/nodes/gpu-1/drain", body, "root"))
    assert ("invalid_field", field) == (found.code, found.field)


async def test_a_host_that_is_there_is_not_forgotten(api: Scene) -> None:
    found = await problem(await api.post("/v1/nodes/gpu-1/forget", b"", "root"))
    assert ("node_not_lost", 409) == (found.code, found.status)


async def test_a_forgotten_host_frees_what_it_held_and_its_name(api: Scene) -> None:
    row = await api.running()
    await api.move(row.session.id, KernelState.EXITED, exit_code=0)
    await api.store.link(GPU1, up=False, at=api.clock.now())
    await api.store.lose(GPU1, api.clock.now())
    before = (await api.store.agents())[0].public_key
    response = await api.post("/v1/nodes/gpu-1/forget", b"", "root")
    await api.store.reload()

    assert 204 == response.status
    assert {} == (await api.store.load()).sessions
    assert () == await api.store.agents()
    assert await api.store.agent_by_key(before) is None


@pytest.mark.parametrize("verb", ["drain", "undrain", "forget"])
async def test_a_host_that_nobody_knows_is_not_found(api: Scene, verb: str) -> None:
    found = await problem(await api.post(f"/v1/nodes/nobody/{verb}", {}, "root"))
    assert 404 == found.status
