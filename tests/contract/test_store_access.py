"""What every store does with agents and tokens."""

from __future__ import annotations

from dataclasses import replace

import pytest

from phalanx_manager.core.model import Drain, Refusal
from phalanx_manager.store.port import (
    Joined,
    TokenRow,
)
from phalanx_wire.ids import AgentId
from phalanx_wire.lifecycle import KernelState
from tests.support.house import CLUSTER, NOW, later, observed
from tests.support.store_case import A, Case

S = KernelState


async def test_a_join_token_is_spent_once_and_the_same_again_is_the_same(case: Case) -> None:
    await case.join()
    await case.again()
    again = await case.store.use_agent_token("ka", A, "own-a", later(9))
    other = await case.store.use_agent_token("ka", AgentId("b"), "own-b", later(9))
    found = await case.store.agent_by_key("own-a")

    assert isinstance(again, Joined)
    assert isinstance(other, Refusal)
    assert "token_used" == other.code
    assert found is not None
    assert A == found.name


@pytest.mark.parametrize(
    ("token", "agent", "key", "code"),
    [
        ({"expires_at": NOW}, "b", "own-b", "token_expired"),
        ({"name": "c"}, "b", "own-b", "agent_name_mismatch"),
        ({}, "a", "own-b", "agent_name_taken"),
        ({}, "b", "own-a", "agent_name_taken"),
        ({"public_key": "another"}, "b", "own-b", "token_unknown"),
    ],
)
async def test_a_join_that_may_not_be_is_refused_by_code(
    case: Case, token: dict[str, object], agent: str, key: str, code: str
) -> None:
    await case.join()
    fresh = TokenRow("t2", "agent", "", "user", CLUSTER, NOW, None, public_key="k2")
    await case.store.add_token(replace(fresh, **token))  # type: ignore[arg-type]
    outcome = await case.store.use_agent_token("k2", AgentId(agent), key, later(1))

    assert isinstance(outcome, Refusal)
    assert code == outcome.code


async def test_a_revoked_join_token_is_refused(case: Case) -> None:
    await case.store.add_token(
        TokenRow("t", "agent", "", "user", CLUSTER, NOW, None, public_key="k")
    )
    revoked = await case.store.revoke_token("t")
    outcome = await case.store.use_agent_token("k", A, "own-a", NOW)

    assert revoked
    assert isinstance(outcome, Refusal)
    assert "token_revoked" == outcome.code


async def test_with_its_join_token_revoked_an_agents_key_is_worth_nothing(case: Case) -> None:
    await case.join()
    known = await case.store.agent_by_key("own-a")
    await case.store.revoke_token("ta")
    assert known is not None
    assert None is await (await case.again()).agent_by_key("own-a")
    assert [A] == [record.name for record in await case.store.agents()]


async def test_an_agent_whose_token_was_revoked_joins_again_by_another(case: Case) -> None:
    await case.join()
    await case.store.revoke_token("ta")
    await case.store.add_token(
        TokenRow("t2", "agent", "", "user", CLUSTER, NOW, None, public_key="k2")
    )
    joined = await case.store.use_agent_token("k2", A, "new-a", later(1))
    found = await (await case.again()).agent_by_key("new-a")
    assert isinstance(joined, Joined)
    assert found is not None
    assert (A, later(1)) == (found.name, found.joined_at)
    assert None is await case.store.agent_by_key("own-a")


async def test_bearer_tokens_are_found_by_their_hash_and_revoked_by_id(case: Case) -> None:
    token = TokenRow("t1", "bearer", "ada", "user", CLUSTER, NOW, later(60), secret_hash="abc")
    await case.store.add_token(token)
    await case.again()

    assert token == await case.store.token_by_hash("abc")
    assert await case.store.token_by_hash("abd") is None
    assert await case.store.revoke_token("t1")
    assert not await case.store.revoke_token("t2")
    assert [True] == [row.revoked for row in await case.store.tokens()]


async def test_an_agents_report_is_kept_without_what_is_secret_or_said_anew(case: Case) -> None:
    await case.join()
    fresh = await case.store.saw(A, observed("a", cpu=4), later(1))
    same = await case.store.saw(A, observed("a", cpu=4), later(2))
    other = await case.store.saw(A, observed("a", cpu=8), later(3))
    (record,) = await (await case.again()).agents()

    assert (True, False, True) == (fresh, same, other)
    assert record.observed is not None
    assert 8000 == record.observed.capacity.cpu_milli
    assert "" == record.observed.swarm.worker_token


async def test_a_lost_agent_is_not_lost_any_more_when_it_is_heard(case: Case) -> None:
    await case.join()
    await case.store.saw(A, observed("a"), later(1))
    await case.store.lose(A, later(400))
    lost = [record.lost for record in await (await case.again()).agents()]
    await case.store.saw(A, observed("a"), later(500))

    assert ([True], [False]) == (
        lost,
        [record.lost for record in await (await case.again()).agents()],
    )


async def test_the_cluster_id_is_made_once(case: Case) -> None:
    await case.again()

    assert "cid" == case.store.cluster_id


async def test_a_drain_is_kept_until_it_is_taken_back(case: Case) -> None:
    await case.join()
    drain = Drain("ada: new disks", NOW, later(60), 10)
    known = await case.store.drain(A, drain, "drained", later(1))
    await case.again()
    kept = [record.drain for record in await case.store.agents()]
    await case.store.drain(A, None, "undrained", later(2))
    await case.again()

    assert (True, [drain]) == (known, kept)
    assert [None] == [record.drain for record in await case.store.agents()]
    assert not await case.store.drain(AgentId("nobody"), drain, "drained", later(1))


async def test_a_forgotten_agent_is_nobody_and_may_join_anew(case: Case) -> None:
    await case.join()
    await case.store.drain(A, Drain("x", NOW), "drained", later(1))
    await case.store.forget(A, "forgotten", later(1))
    await case.again()
    agents, key = await case.store.agents(), await case.store.agent_by_key("own-a")
    await case.store.add_token(
        TokenRow("t2", "agent", "", "user", CLUSTER, NOW, None, public_key="k2")
    )
    joined = await case.store.use_agent_token("k2", A, "own-a", later(2))
    await case.again()

    assert ((), None) == (agents, key)
    assert isinstance(joined, Joined)
    assert [(A, None, later(2))] == [
        (record.name, record.drain, record.joined_at) for record in await case.store.agents()
    ]
