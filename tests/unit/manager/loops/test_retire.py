"""A cluster's removal, however often the manager dies on the way."""

from __future__ import annotations

import msgspec

from phalanx_manager.core.model import Cluster, Removal
from phalanx_manager.loops.retire import Retire
from phalanx_manager.store.port import Joined, TokenRow
from phalanx_wire.ids import AgentId, ClusterName
from tests.support.house import NOW, SID
from tests.unit.manager.loops.conftest import House, Player

LAB = ClusterName("lab")
A = AgentId("a")


async def in_the_lab(house: House) -> Player:
    """A cluster with one agent, on which a session runs."""
    await house.store.add_cluster(Cluster(LAB, NOW, "root"), reuse=False)
    token = TokenRow("t", "agent", "", "user", LAB, NOW, None, public_key="k")
    await house.store.add_token(token)
    assert isinstance(await house.store.use_agent_token("k", A, "own", NOW), Joined)
    player = Player(house, "a")
    player.connect()
    await house.settle()
    await house.submit(cluster="lab", kind="interactive", command=())
    await house.settle()
    while (await house.row()).session.state != "running":
        player.obey()
        await house.settle()
    return player


async def turn(house: House, dismissed: list[str]) -> None:
    """One turn of a loop that was just made, as after a kill."""
    loop = Retire(house.store, house.clock)

    async def dismiss(agent: AgentId, why: str) -> None:
        dismissed.append(f"{agent}: {why}")

    loop.attach(dismiss)
    loop.bell.ring()
    await loop.turn()
    await house.settle()


async def test_sessions_end_then_agents_leave_then_all_is_forgotten(house: House) -> None:
    player = await in_the_lab(house)
    dismissed: list[str] = []
    await house.store.remove_cluster(LAB, Removal(NOW, "root"), "root removes it")

    await turn(house, dismissed)
    assert not house.post.told[A].leave
    for _ in range(4):
        player.obey()
        await turn(house, dismissed)
    assert house.post.told[A].leave
    assert [] == dismissed

    player.base = msgspec.structs.replace(player.base, left=True)
    player.say()
    await house.settle()
    await turn(house, dismissed)
    assert ["a: cluster lab was removed, and this agent with it"] == dismissed
    assert None is await house.store.agent_by_key("own")

    await turn(house, dismissed)
    found = await house.store.cluster(LAB)
    assert found is not None
    assert found.removed_at is not None
    assert "cancelled" == (await house.row(SID)).session.state
    kinds = [event.kind for event in await house.store.events_of_cluster(0, LAB, 1000)]
    assert ["agent.forgotten", "cluster.deleted"] == kinds[-2:]


async def test_an_agent_that_goes_away_while_its_cluster_ends_is_given_up_by_force(
    house: House,
) -> None:
    player = await in_the_lab(house)
    dismissed: list[str] = []
    await house.store.remove_cluster(LAB, Removal(NOW, "root"), "")
    house.converge.disconnected(player.name)
    await house.settle()
    await turn(house, dismissed)
    await turn(house, dismissed)
    assert LAB in (await house.store.load()).clusters

    await house.store.remove_cluster(LAB, Removal(NOW, "root", force=True), "")
    for _ in range(4):
        await turn(house, dismissed)
    found = await house.store.cluster(LAB)

    assert found is not None
    assert found.removed_at is not None
    assert [f"on a: containers phx-{SID}-1-main1"] == [one.split(";")[0] for one in found.leaves]
    assert {} == (await house.store.load()).sessions
