"""What every store does with clusters."""

from __future__ import annotations

from phalanx_manager.core.model import Cluster, Refusal, Removal
from phalanx_manager.store.port import NewSession, TokenRow
from phalanx_wire.ids import AgentId, ClusterName
from tests.support.house import CLUSTER, NOW, admitted, later
from tests.support.store_case import ADA, ONE, Case

LAB = ClusterName("lab")
MADE = Cluster(LAB, NOW, "root")
REMOVAL = Removal(later(1), "root")


async def refusal_of(case: Case, *, reuse: bool = False) -> str:
    outcome = await case.store.add_cluster(MADE, reuse=reuse)
    return outcome.code if outcome is not None else ""


async def test_the_default_cluster_is_there_from_the_start(case: Case) -> None:
    assert (Cluster(CLUSTER),) == await case.store.clusters()


async def test_a_cluster_is_made_once_ends_once_and_its_name_is_not_used_by_mistake(
    case: Case,
) -> None:
    assert "" == await refusal_of(case)
    assert "cluster_exists" == await refusal_of(case, reuse=True)
    assert await case.store.remove_cluster(LAB, REMOVAL, "root removes it")
    assert not await case.store.remove_cluster(LAB, REMOVAL, "again")
    assert "cluster_deleting" == await refusal_of(case, reuse=True)
    await case.again()
    assert await case.store.drop_cluster(LAB, "it is gone", later(2))
    await case.again()
    assert not await case.store.remove_cluster(LAB, REMOVAL, "too late")
    assert "cluster_name_used" == await refusal_of(case)
    assert LAB not in (await case.store.load()).clusters
    assert "" == await refusal_of(case, reuse=True)
    assert MADE == (await (await case.again()).load()).clusters[LAB]


async def test_who_was_told_to_make_the_swarm_is_known_to_the_next_manager(case: Case) -> None:
    await case.store.add_cluster(MADE, reuse=False)
    await case.store.tell_founder(LAB, AgentId("a"))
    await case.store.tell_founder(LAB, AgentId("b"))
    await case.store.cluster_left(LAB, ("on a: this",))

    assert "b" == (await (await case.again()).load()).clusters[LAB].founder


async def test_force_is_added_to_an_order_and_never_taken_back(case: Case) -> None:
    await case.store.add_cluster(MADE, reuse=False)
    await case.store.remove_cluster(LAB, REMOVAL, "")
    forced = Removal(later(5), "ada", force=True)
    assert await case.store.remove_cluster(LAB, forced, "")
    assert not await case.store.remove_cluster(LAB, REMOVAL, "")
    await case.store.cluster_left(LAB, ("on a: this", "on b: that"))
    await case.store.cluster_left(LAB, ("on b: that",))
    found = await (await case.again()).cluster(LAB)

    assert found is not None
    assert Removal(later(1), "root", force=True) == found.removal
    assert ("on a: this", "on b: that") == found.leaves


async def test_a_cluster_that_ends_takes_no_session_and_no_agent(case: Case) -> None:
    await case.store.add_cluster(MADE, reuse=False)
    for name in ("k1", "k2"):
        token = TokenRow(name, "agent", "", "user", LAB, NOW, None, public_key=name)
        await case.store.add_token(token)
    await case.store.remove_cluster(LAB, REMOVAL, "")
    request = NewSession(ONE, ADA, admitted(name="one", cluster="lab"), NOW)
    session = await case.store.submit(request)
    agent = await case.store.use_agent_token("k1", AgentId("a"), "own", later(1))

    assert isinstance(session, Refusal)
    assert "cluster_deleting" == session.code
    assert isinstance(agent, Refusal)
    assert "token_revoked" == agent.code


async def test_a_cluster_is_not_gone_while_a_session_or_an_agent_is_there(case: Case) -> None:
    await case.store.add_cluster(MADE, reuse=False)
    token = TokenRow("t", "agent", "", "user", LAB, NOW, None, public_key="k")
    await case.store.add_token(token)
    await case.store.use_agent_token("k", AgentId("a"), "own", NOW)
    await case.submit(cluster="lab")
    await case.store.remove_cluster(LAB, REMOVAL, "")

    assert not await case.store.drop_cluster(LAB, "", later(2))
    await case.store.forget(AgentId("a"), "", later(2))
    assert not await case.store.drop_cluster(LAB, "", later(2))


async def test_events_are_told_by_cluster(case: Case) -> None:
    await case.store.add_cluster(MADE, reuse=False)
    await case.join()
    await case.submit(cluster="lab")
    await case.store.remove_cluster(LAB, REMOVAL, "root removes it")
    told = await (await case.again()).events_of_cluster(0, LAB, 10)
    elsewhere = await case.store.events_of_cluster(0, CLUSTER, 10)

    assert ["cluster.created", "session.submitted", "cluster.deleting"] == [e.kind for e in told]
    assert told[1:] == await case.store.events_of_cluster(told[0].id, LAB, 10)
    assert ["agent.joined"] == [event.kind for event in elsewhere]
