"""What every store does: in memory, and in a file that is opened again after each test's act."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from phalanx_manager.core.model import Caller, NetworkRow, Refusal, SessionRow, Stop, StopCause
from phalanx_manager.core.observe import KernelChange, NetworkChange, moved
from phalanx_manager.core.seat import Placement, Seat
from phalanx_manager.store.database import MEMORY
from phalanx_manager.store.port import (
    AlreadyThere,
    Created,
    Joined,
    NewEvent,
    NewSession,
    SessionFilter,
    TokenRow,
)
from phalanx_manager.store.sqlite import SqliteStore
from phalanx_wire.ids import AgentId, SessionId
from phalanx_wire.lifecycle import KernelState, Owner
from tests.support.house import CLUSTER, NOW, admitted, later, observed

S = KernelState
ADA, BOB, ROOT = Caller("ada", "user"), Caller("bob", "user"), Caller("root", "admin")
ONE, TWO = SessionId("aaaaaaaaaaaa"), SessionId("bbbbbbbbbbbb")
A = AgentId("a")


class Case:
    """A store, and what it told about changes."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.changed: list[SessionId] = []
        self.store = self.open()

    def open(self) -> SqliteStore:
        return SqliteStore.open(self.path, NOW, "cid", self.changed.append)

    def again(self) -> SqliteStore:
        """Open the file anew, as after a kill; a store in memory stays as it is."""
        if self.path != MEMORY:
            self.store.close()
            self.store = self.open()
        return self.store

    async def submit(
        self, session: SessionId = ONE, caller: Caller = ADA, **fields: object
    ) -> None:
        key = fields.pop("key", None)
        request = NewSession(
            session,
            caller,
            admitted(**{"name": f"name-{session[0]}", **fields}),
            NOW,
            str(key) if key else None,
            "digest",
        )
        assert Created(session) == await self.store.submit(request)

    async def join(self, name: str = "a") -> None:
        token = TokenRow(f"t{name}", "agent", "", "user", CLUSTER, NOW, None, public_key=f"k{name}")
        await self.store.add_token(token)
        joined = await self.store.use_agent_token(f"k{name}", AgentId(name), f"own-{name}", NOW)
        assert isinstance(joined, Joined)

    async def row(self, session: SessionId = ONE) -> SessionRow:
        found = await self.store.session(session, ROOT)
        assert isinstance(found, SessionRow)
        return found

    async def place(self, session: SessionId = ONE, subnet: str = "10.213.0.0/26") -> bool:
        row = await self.row(session)
        seats = tuple(
            Seat(kernel.id, A, f"10.213.0.{60 + kernel.rank}", (f"gpu{kernel.rank}",))
            for kernel in row.kernels
        )
        attempt = row.session.attempt
        network = NetworkRow(f"phx-{session}-{attempt}", "bridge", subnet, A)
        return await self.store.place(Placement(session, attempt, seats, network), later(1))


    async def place_on_host(self, session: SessionId = ONE) -> bool:
        (kernel,) = (await self.row(session)).kernels
        seat = Seat(kernel.id, A, "192.0.2.1", (), "eth0", 61000, 61001)
        net = NetworkRow(f"phx-{session}-1", "host", "192.0.2.0/24", A, "host", released=True)
        return await self.store.place(Placement(session, 1, (seat,), net), later(1))

    async def move(
        self, rank: int, *steps: KernelState, seen: KernelState | None = None, **fields: object
    ) -> bool:
        kernel = (await self.row()).kernels[rank]
        after = moved(replace(kernel, **fields), steps, later(2))  # type: ignore[arg-type]
        change = KernelChange(seen or kernel.state, steps, Owner.AGENT, after, ("",) * len(steps))
        return await self.store.record((change,), (), later(2))


@pytest.fixture(params=["memory", "file"])
async def case(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Case]:
    made = Case(MEMORY if request.param == "memory" else str(tmp_path / "phalanx.db"))
    yield made
    made.store.close()


async def test_a_submitted_session_is_there_with_all_its_kernels_pending(case: Case) -> None:
    await case.submit(size=3)
    case.again()
    row = await case.row()

    assert ("pending", 3, "ada") == (row.session.state, len(row.kernels), row.session.user)
    assert {S.PENDING} == {kernel.state for kernel in row.kernels}
    assert row == (await case.store.load()).sessions[ONE]
    assert [ONE] == case.changed


async def test_the_same_key_and_body_give_the_same_session(case: Case) -> None:
    await case.submit(key="k1")
    case.again()
    again = NewSession(TWO, ADA, admitted(name="other"), NOW, "k1", "digest")

    assert AlreadyThere(ONE) == await case.store.submit(again)


async def test_the_same_key_with_another_body_is_refused(case: Case) -> None:
    await case.submit(key="k1")
    outcome = await case.store.submit(
        NewSession(TWO, ADA, admitted(name="other"), NOW, "k1", "another digest")
    )

    assert isinstance(outcome, Refusal)
    assert ("idempotency_mismatch", 409) == (outcome.code, outcome.status)


async def test_keys_of_different_users_are_different(case: Case) -> None:
    await case.submit(key="k1")
    await case.submit(TWO, BOB, key="k1")

    assert 2 == len((await case.store.load()).sessions)


async def test_a_live_name_is_taken_for_its_user_only_and_only_while_it_lives(case: Case) -> None:
    await case.submit(name="train")
    second = NewSession(TWO, ADA, admitted(name="train"), NOW)
    outcome = await case.store.submit(second)
    await case.submit(SessionId("cccccccccccc"), BOB, name="train")
    await case.store.stop(ONE, Stop(StopCause.USER, "enough", NOW))

    assert isinstance(outcome, Refusal)
    assert "name_taken" == outcome.code
    assert Created(TWO) == await case.store.submit(second)


async def test_sessions_are_found_by_id_name_and_unique_prefix_by_those_who_may(case: Case) -> None:
    await case.submit(name="train-alpha")
    await case.submit(TWO, BOB, name="train-beta")
    case.again()

    async def found(ref: str, caller: Caller) -> str | None:
        match await case.store.session(ref, caller):
            case SessionRow(session=session):
                return session.id
            case Refusal(code=code):
                return code
            case None:
                return None

    assert ONE == await found(ONE, ADA)
    assert ONE == await found("train-alpha", ADA)
    assert ONE == await found("train", ADA)
    assert ONE == await found("aaaa", ROOT)
    assert "ambiguous" == await found("train", ROOT)
    assert await found(TWO, ADA) is None
    assert await found("train-beta", ADA) is None
    assert await found("%", ROOT) is None
    assert await found("x' OR '1'='1", ROOT) is None


async def test_listing_is_newest_first_and_hides_what_has_ended_unless_asked(case: Case) -> None:
    await case.submit()
    await case.submit(TWO, BOB)
    await case.store.stop(ONE, Stop(StopCause.USER, "enough", NOW))
    case.again()

    async def ids(wanted: SessionFilter) -> list[str]:
        return [row.session.id for row in await case.store.sessions(wanted)]

    assert [TWO] == await ids(SessionFilter())
    assert [TWO, ONE] == await ids(SessionFilter(ended_too=True))
    assert [ONE] == await ids(SessionFilter(states=("cancelled", "failed")))
    assert [ONE] == await ids(SessionFilter(user="ada", ended_too=True))
    assert [TWO] == await ids(SessionFilter(ended_too=True, limit=1))


async def test_stopping_in_the_queue_cancels_at_once_and_only_once(case: Case) -> None:
    await case.submit(size=2)
    first = await case.store.stop(ONE, Stop(StopCause.USER, "ada stopped it", later(1)))
    second = await case.store.stop(ONE, Stop(StopCause.USER, "again", later(2)))
    case.again()
    session = (await case.row()).session

    assert (True, False) == (first, second)
    assert ("cancelled", "ada stopped it", later(1)) == (
        session.state,
        session.reason,
        session.ended_at,
    )
    assert {} == (await case.store.load()).sessions


async def test_a_later_stop_may_shorten_the_grace_but_not_change_the_cause(case: Case) -> None:
    await case.join()
    await case.submit()
    await case.place()
    await case.store.stop(ONE, Stop(StopCause.TIME_LIMIT, "its time is over", later(1)))
    longer = await case.store.stop(ONE, Stop(StopCause.USER, "ada", later(2), grace_s=60))
    shorter = await case.store.stop(ONE, Stop(StopCause.USER, "ada", later(3), grace_s=0))
    case.again()
    stop = (await case.row()).session.stop

    assert (True, True) == (longer, shorter)  # the first of them: no other attempt
    assert stop == Stop(StopCause.TIME_LIMIT, "its time is over", later(1), grace_s=0, then="end")


async def test_a_gang_is_placed_whole_with_its_network_and_devices(case: Case) -> None:
    await case.join()
    await case.submit(size=2)
    placed = await case.place()
    case.again()
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
    case.again()
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
    case.again()

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
    case.again()

    assert not before
    assert await case.place(TWO)
    assert {TWO} == set((await case.store.load()).sessions)


async def test_every_state_is_in_the_history_and_told_as_an_event(case: Case) -> None:
    await case.join()
    await case.submit()
    await case.place()
    await case.move(0, S.PREPARING, S.CREATED, S.STARTING, S.READY, S.MESHED, S.RUNNING)
    await case.move(0, S.EXITED, exit_code=0, cause="exited")
    case.again()
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
    case.again()
    events = await case.store.events(0, None, 100)

    assert [ONE, TWO, ONE] == [event.session for event in events]
    assert ["hello"] == [e.text for e in await case.store.events(events[0].id, ONE, 100)]
    assert events[-1].id == await case.store.last_event()
    assert 2 == len(await case.store.events(0, None, 2))


async def test_why_a_session_waits_is_kept_and_told_once(case: Case) -> None:
    await case.submit()
    await case.store.say(ONE, "no room", later(1))
    await case.store.say(ONE, "no room", later(2))
    case.again()

    assert "no room" == (await case.row()).session.reason
    kinds = [event.kind for event in await case.store.events(0, ONE, 100)]
    assert ["session.submitted", "session.waiting"] == kinds


async def test_a_join_token_is_spent_once_and_the_same_again_is_the_same(case: Case) -> None:
    await case.join()
    case.again()
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
    assert None is await case.again().agent_by_key("own-a")
    assert [A] == [record.name for record in await case.store.agents()]


async def test_an_agent_whose_token_was_revoked_joins_again_by_another(case: Case) -> None:
    await case.join()
    await case.store.revoke_token("ta")
    await case.store.add_token(
        TokenRow("t2", "agent", "", "user", CLUSTER, NOW, None, public_key="k2")
    )
    joined = await case.store.use_agent_token("k2", A, "new-a", later(1))
    found = await case.again().agent_by_key("new-a")
    assert isinstance(joined, Joined)
    assert found is not None
    assert (A, later(1)) == (found.name, found.joined_at)
    assert None is await case.store.agent_by_key("own-a")


async def test_bearer_tokens_are_found_by_their_hash_and_revoked_by_id(case: Case) -> None:
    token = TokenRow("t1", "bearer", "ada", "user", CLUSTER, NOW, later(60), secret_hash="abc")
    await case.store.add_token(token)
    case.again()

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
    (record,) = await case.again().agents()

    assert (True, False, True) == (fresh, same, other)
    assert record.observed is not None
    assert 8000 == record.observed.capacity.cpu_milli
    assert "" == record.observed.swarm.worker_token


async def test_a_lost_agent_is_not_lost_any_more_when_it_is_heard(case: Case) -> None:
    await case.join()
    await case.store.saw(A, observed("a"), later(1))
    await case.store.lose(A, later(400))
    lost = [record.lost for record in await case.again().agents()]
    await case.store.saw(A, observed("a"), later(500))

    assert ([True], [False]) == (lost, [record.lost for record in await case.again().agents()])


async def test_the_cluster_id_is_made_once(case: Case) -> None:
    case.again()

    assert "cid" == case.store.cluster_id


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

    with (
        pytest.raises(sqlite3.IntegrityError, match="FOREIGN KEY"),
        case.store._database.transaction(),
    ):
        case.store._database.run("kernel_step", step)
    case.again()
    assert before is (await case.row()).kernels[0].state
