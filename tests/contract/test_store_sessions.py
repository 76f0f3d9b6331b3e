"""What every store does with sessions: asked for, found, listed, stopped."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import replace

import pytest

from phalanx_manager.core.model import Caller, Refusal, SessionRow, Stop, StopCause
from phalanx_manager.store.port import (
    AlreadyThere,
    Created,
    NewSession,
    SessionFilter,
)
from phalanx_wire.ids import SessionId
from phalanx_wire.lifecycle import KernelState
from tests.support.house import NOW, admitted, later
from tests.support.store_case import ADA, BOB, ONE, ROOT, TWO, Case

S = KernelState
THREE = SessionId("cccccccccccc")


async def test_a_submitted_session_is_there_with_all_its_kernels_pending(case: Case) -> None:
    await case.submit(size=3)
    await case.again()
    row = await case.row()

    assert ("pending", 3, "ada") == (row.session.state, len(row.kernels), row.session.user)
    assert {S.PENDING} == {kernel.state for kernel in row.kernels}
    assert row == (await case.store.load()).sessions[ONE]
    assert [ONE] == case.changed


async def test_the_same_key_and_body_give_the_same_session(case: Case) -> None:
    await case.submit(key="k1")
    await case.again()
    again = NewSession(TWO, ADA, admitted(name="other"), NOW, "k1", "digest")

    assert AlreadyThere(ONE) == await case.store.submit(again)


async def test_a_hundred_askings_at_once_by_one_key_are_one_session(case: Case) -> None:
    letters = "abcdefghij"
    askings = [
        NewSession(SessionId(one * 6 + two * 6), ADA, admitted(name="train"), NOW, "k1", "digest")
        for one in letters
        for two in letters
    ]
    outcomes = await asyncio.gather(*map(case.store.submit, askings))
    (made,) = (await case.store.load()).sessions

    assert {Created(made): 1, AlreadyThere(made): 99} == Counter(outcomes)
    assert [made] == case.changed


async def test_a_user_has_no_more_containers_than_one_may_have(case: Case) -> None:
    await case.submit(size=2)
    more = NewSession(TWO, ADA, admitted(name="more", size=2), NOW, most=3)
    refused = await case.store.submit(more)

    assert isinstance(refused, Refusal)
    assert "too_many_containers" == refused.code
    assert Created(TWO) == await case.store.submit(replace(more, caller=BOB))
    assert await case.store.stop(ONE, Stop(StopCause.USER, "stopped", NOW))
    assert Created(THREE) == await case.store.submit(replace(more, id=THREE))


async def test_of_many_askings_at_once_as_many_are_taken_as_one_may_have(case: Case) -> None:
    letters = "abcdefghij"
    askings = [
        NewSession(SessionId(one * 12), ADA, admitted(name=f"n{one}", size=2), NOW, most=5)
        for one in letters
    ]
    outcomes = await asyncio.gather(*map(case.store.submit, askings))

    assert 2 == sum(isinstance(outcome, Created) for outcome in outcomes)


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


async def test_whoever_sees_everybodys_sessions_means_their_own_by_a_name(case: Case) -> None:
    await case.submit(ONE, ROOT, name="train")
    await case.submit(TWO, BOB, name="train")
    await case.submit(THREE, ADA, name="theirs")
    await case.again()

    for ref, wanted in (("train", ONE), ("trai", ONE), (TWO, TWO), ("theirs", THREE)):
        found = await case.store.session(ref, ROOT)
        assert isinstance(found, SessionRow)
        assert wanted == found.session.id


async def test_sessions_are_found_by_id_name_and_unique_prefix_by_those_who_may(case: Case) -> None:
    await case.submit(name="train-alpha")
    await case.submit(TWO, BOB, name="train-beta")
    await case.again()

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


async def test_sessions_are_counted_as_they_arrive_and_found_by_their_number(case: Case) -> None:
    await case.submit(name="train")
    await case.again()
    await case.submit(TWO, BOB, name="2")
    three = SessionId("cccccccccccc")
    await case.submit(three, ADA, name="1-more")

    async def number(ref: str, caller: Caller) -> int | None:
        found = await case.store.session(ref, caller)
        return found.session.number if isinstance(found, SessionRow) else None

    assert [1, 2, 3] == [(await case.row(one)).session.number for one in (ONE, TWO, three)]
    assert [1, None, 3] == [await number(ref, ADA) for ref in ("1", "2", "3")]
    assert 2 == await number("2", BOB)
    assert 3 == await number("1-", ADA)


async def test_a_session_may_be_held_from_the_start(case: Case) -> None:
    await case.submit(hold=True)
    await case.again()
    held = (await case.row()).session.held
    await case.store.hold(ONE, "ada lets it go", later(1), held=False)
    await case.again()

    assert (True, False) == (held, (await case.row()).session.held)


async def test_a_number_is_not_given_again_when_its_session_is_forgotten(case: Case) -> None:
    await case.submit()
    await case.store.stop(ONE, Stop(StopCause.USER, "enough", NOW))
    await case.store.prune(later(10), 10)
    await case.again()
    await case.submit(TWO)

    assert 2 == (await case.row(TWO)).session.number


async def test_listing_is_newest_first_and_hides_what_has_ended_unless_asked(case: Case) -> None:
    await case.submit()
    await case.submit(TWO, BOB)
    await case.store.stop(ONE, Stop(StopCause.USER, "enough", NOW))
    await case.again()

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
    await case.again()
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
    await case.again()
    stop = (await case.row()).session.stop

    assert (True, True) == (longer, shorter)  # the first of them: no other attempt
    assert stop == Stop(StopCause.TIME_LIMIT, "its time is over", later(1), grace_s=0, then="end")


@pytest.mark.parametrize("placed", [False, True])
async def test_of_two_stops_at_once_one_is_the_cause(case: Case, *, placed: bool) -> None:
    await case.join()
    await case.submit(size=2)
    if placed:
        await case.place()
    stops = [Stop(StopCause.USER, f"{who} stopped it", later(1)) for who in ("ada", "root")]
    await asyncio.gather(*(case.store.stop(ONE, stop) for stop in stops))
    await case.again()
    session = (await case.row()).session
    kinds = [event.kind for event in await case.store.events(0, ONE, 100)]

    assert session.stop is not None
    assert ("ada stopped it", later(1)) == (session.stop.text, session.stop.at)
    assert ("stopping" if placed else "cancelled") == session.state
    assert 1 == kinds.count(f"session.{session.state}")


async def test_why_a_session_waits_is_kept_and_told_once(case: Case) -> None:
    await case.submit()
    await case.store.say(ONE, "no room", later(1))
    await case.store.say(ONE, "no room", later(2))
    await case.again()

    assert "no room" == (await case.row()).session.reason
    kinds = [event.kind for event in await case.store.events(0, ONE, 100)]
    assert ["session.submitted", "session.waiting"] == kinds
