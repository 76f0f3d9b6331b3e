"""The whole life of kernels, on a host of doubles that outlives its agents."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Any

import pytest

from phalanx_agent.docker.port import Unavailable
from phalanx_wire.lifecycle import KernelState as S
from phalanx_wire.spec import Mount
from tests.support.agent_life import MAIN1, SUB1, assignment, gang, living
from tests.support.fake_engine import ALPINE, refusal
from tests.support.fake_host import FakeHost

AWAY = Unavailable("the engine", "asking it", "It does not answer.", kind="not_sent")


async def test_a_way_out_that_somebody_removed_is_made_again_before_the_next_try(
    host: FakeHost,
) -> None:
    async with living(host) as life:
        await life.reach(S.READY)
        calls = host.engine.calls
        host.engine.failures["connect"] = deque([refusal(404, "network phx-egress not found")])
        before = len(calls)
        await life.aim(assignment(S.RUNNING))
        await life.pass_time(1)
        await life.until(lambda: life.state() is S.RUNNING)

        way_out = [call for call in calls[before:] if call in ("ensure_egress", "connect")]
        made, attached = "ensure_egress", "connect"
        assert [made, *[made, attached] * 2] == way_out  # a refused call is not among them


async def test_a_kernel_runs_and_ends_and_leaves_nothing(host: FakeHost) -> None:
    async with living(host) as life:
        await life.reach(S.RUNNING)
        host.runner(MAIN1).command_ends(0)
        await life.until(lambda: life.state() is S.EXITED)
        ended = life.report()
        await life.aim(assignment(S.REMOVED))
        await life.until(lambda: life.state() is S.REMOVED)

        assert ("exited", 0) == (ended.cause, ended.exit_code)
        assert [S.RUNNING, S.EXITED, S.REMOVED] == life.history()[-3:]
        assert {} == host.engine.containers
        assert frozenset() == host.scratch.kernels()
        assert {MAIN1} == host.logs.kept


async def test_a_removed_kernel_is_told_until_the_goals_drop_it(host: FakeHost) -> None:
    async with living(host) as life:
        await life.reach(S.RUNNING)
        await life.aim(assignment(S.REMOVED))
        await life.until(lambda: life.state() is S.REMOVED)
        await life.aim(of=gang(1))

        assert {} == life.states()


async def test_a_gang_climbs_from_barrier_to_barrier(host: FakeHost) -> None:
    async with living(host) as life:
        for goal in (S.CREATED, S.READY, S.MESHED, S.RUNNING):
            await life.aim(assignment(goal), assignment(goal, 1))

            assert {MAIN1: goal, SUB1: goal} == life.states()


async def test_nothing_starts_before_all_peers_have_keys(host: FakeHost) -> None:
    keyless = gang(2)
    members = tuple(
        type(member)(member.rank, member.host_name, member.agent, member.address)
        for member in keyless.members
    )
    async with living(host) as life:
        await life.aim(assignment(S.READY), assignment(S.READY, 1), of=gang(2, members=members))

        assert {MAIN1: S.CREATED, SUB1: S.CREATED} == life.states()
        assert "start" not in host.engine.calls


async def test_the_peers_keys_are_written_before_the_start(host: FakeHost) -> None:
    async with living(host) as life:
        await life.aim(assignment(S.READY), assignment(S.READY, 1))

        texts = host.scratch.texts[MAIN1]
        assert f"user {MAIN1}\nuk1\n" == texts["ssh/.ssh/authorized_keys"]
        assert "sub1,10.213.0.61,[sub1]:2200,[10.213.0.61]:2200 hk1" in texts["ssh/known_hosts"]


STAGES = [S.CREATED, S.READY, S.MESHED, S.RUNNING]


@pytest.mark.parametrize("stage", STAGES)
async def test_a_restarted_agent_carries_on_where_it_finds_the_kernel(
    host: FakeHost, stage: S
) -> None:
    async with living(host) as life:
        await life.reach(stage)
        before = host.engine.of(MAIN1).id
    async with living(host) as life:
        await life.reach(stage)
        await life.reach(S.RUNNING)

        assert before == host.engine.of(MAIN1).id
        assert 1 == host.engine.calls.count("create_container")
        assert 1 == host.engine.calls.count("start")


@pytest.mark.parametrize("stage", STAGES)
async def test_a_restarted_agent_removes_what_it_finds(host: FakeHost, stage: S) -> None:
    async with living(host) as life:
        await life.reach(stage)
    async with living(host) as life:
        await life.aim(assignment(S.REMOVED))
        await life.until(lambda: life.state() is S.REMOVED)

        assert {} == host.engine.containers
        assert frozenset() == host.scratch.kernels()


async def test_a_killed_agent_leaves_containers_alone(host: FakeHost) -> None:
    async with living(host) as life:
        await life.reach(S.RUNNING)

    assert "running" == host.engine.of(MAIN1).status


async def test_an_exit_while_the_agent_was_away_is_told_with_its_code(host: FakeHost) -> None:
    async with living(host) as life:
        await life.reach(S.RUNNING)
    host.engine.end(host.engine.of(MAIN1).id, 3)
    async with living(host) as life:
        await life.aim(assignment(S.RUNNING))
        await life.until(lambda: life.state() is S.EXITED)

        assert (3, "exited") == (life.report().exit_code, life.report().cause)


async def test_a_container_removed_behind_our_back_is_never_made_again(host: FakeHost) -> None:
    async with living(host) as life:
        await life.reach(S.RUNNING)
        host.engine.vanish(host.engine.of(MAIN1).id)
        await life.until(lambda: life.state() is S.EXITED)

        assert "someone else" in life.report().message
        assert 1 == host.engine.calls.count("create_container")


async def test_a_listing_finds_what_an_event_did_not_tell(host: FakeHost) -> None:
    async with living(host) as life:
        await life.reach(S.RUNNING)
        facts = host.engine.of(MAIN1)
        host.engine.end(facts.id, 5)
        host.engine._events = asyncio.Queue()
        host.engine.reopen()
        life.watch.bell.set()
        await life.until(lambda: life.state() is S.EXITED)

        assert 5 == life.report().exit_code


async def test_a_stop_ends_the_command_and_is_no_failure(host: FakeHost) -> None:
    async with living(host) as life:
        await life.reach(S.RUNNING)
        await life.aim(assignment(S.STOPPED, grace_s=3.0))
        await life.until(lambda: life.state() is S.STOPPED)

        assert ("cancelled", 143) == (life.report().cause, life.report().exit_code)
        assert b'{"op":"stop","signal":15,"grace_ms":3000}\n' in host.runner(MAIN1).commands
        assert [] == host.engine.signals


async def test_a_command_that_ignores_a_stop_is_killed_after_its_grace(host: FakeHost) -> None:
    host.runner(MAIN1).stubborn.add("stop")
    async with living(host) as life:
        await life.reach(S.RUNNING)
        await life.aim(assignment(S.STOPPED))
        assert S.STOPPING is life.state()
        await life.pass_time(11)
        assert S.STOPPING is life.state()
        await life.pass_time(2)

        assert (S.STOPPED, 137) == (life.state(), life.report().exit_code)


async def test_a_second_stop_with_a_shorter_grace_counts(host: FakeHost) -> None:
    host.runner(MAIN1).stubborn.add("stop")
    async with living(host) as life:
        await life.reach(S.RUNNING)
        await life.aim(assignment(S.STOPPED, grace_s=1000.0))
        await life.aim(assignment(S.STOPPED, grace_s=0.0))
        await life.pass_time(3)

        assert S.STOPPED is life.state()


async def test_a_container_without_a_runner_is_stopped_by_the_engine(host: FakeHost) -> None:
    host.engine.survives_term = False
    async with living(host) as life:
        await life.reach(S.RUNNING)
        host.runner(MAIN1).connected = False
        await life.aim(assignment(S.STOPPED))
        await life.until(lambda: life.state() is S.STOPPED)

        assert [(host.engine.of(MAIN1).id, "SIGTERM")] == host.engine.signals


async def test_a_created_container_goes_with_its_cancelled_session(host: FakeHost) -> None:
    async with living(host) as life:
        await life.reach(S.CREATED)
        await life.aim(assignment(S.STOPPED))
        await life.until(lambda: life.state() is S.STOPPED)

        assert {} == host.engine.containers
        assert life.report().exit_code is None


async def test_a_stop_breaks_a_pull_off(host: FakeHost) -> None:
    host.engine.held["pull"] = asyncio.Event()
    async with living(host) as life:
        await life.aim(assignment(S.CREATED, image="big"))
        assert "It pulls the image big: 1 of 2 MiB." == life.report().detail
        await life.aim(assignment(S.STOPPED, image="big"))

        assert S.STOPPED is life.state()


async def test_one_pull_serves_all_kernels(host: FakeHost) -> None:
    host.engine.registry["big"] = ALPINE
    async with living(host) as life:
        await life.aim(assignment(S.CREATED, image="big"), assignment(S.CREATED, 1, image="big"))

        assert {MAIN1: S.CREATED, SUB1: S.CREATED} == life.states()
        assert 1 == host.engine.calls.count("pull")


async def test_all_kernels_that_wait_for_a_pull_tell_how_far_it_is(host: FakeHost) -> None:
    host.engine.held["pull"] = asyncio.Event()
    async with living(host) as life:
        await life.aim(assignment(S.CREATED, image="big"), assignment(S.CREATED, 1, image="big"))

        said = "It pulls the image big: 1 of 2 MiB."
        assert [said, said] == [life.report(one).detail for one in (MAIN1, SUB1)]


async def test_an_image_that_nobody_has_is_refused(host: FakeHost) -> None:
    async with living(host) as life:
        await life.aim(assignment(S.CREATED, image="nosuch"))

        assert (S.REJECTED, "refused") == (life.state(), life.report().cause)
        assert "nosuch" in life.report().message


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"mounts": (Mount("/etc", "/x"),)}, "/etc"),
        ({"user": "nobody-knows"}, "nobody-knows"),
        ({"upload": "sha256:" + "2" * 64}, "upload"),
    ],
)
async def test_what_can_never_be_is_refused_with_a_sentence(
    host: FakeHost, changes: dict[str, Any], said: str
) -> None:
    async with living(host) as life:
        await life.aim(assignment(S.CREATED, **changes))

        assert S.REJECTED is life.state()
        assert said in life.report().message


async def test_an_upload_is_unpacked_before_the_container_counts_as_created(
    host: FakeHost,
) -> None:
    digest = "sha256:" + "1" * 64
    host.engine.held["write_archive"] = asyncio.Event()
    async with living(host) as life:
        await life.aim(assignment(S.RUNNING, upload=digest))
        assert S.PREPARING is life.state()
        host.engine.held["write_archive"].set()
        await life.until(lambda: life.state() is S.RUNNING)

        assert digest.encode() == host.engine.files["/"]


async def test_an_engine_that_is_away_is_waited_for(host: FakeHost) -> None:
    host.engine.failures["create_container"] = deque([AWAY] * 5)
    async with living(host) as life:
        await life.aim(assignment(S.RUNNING))
        assert S.PREPARING is life.state()
        assert "It does not answer; it is tried again." in life.report().detail
        for _ in range(5):
            await life.pass_time(20)
        await life.until(lambda: life.state() is S.RUNNING)

        assert "" == life.report().detail


async def test_an_engine_that_fails_again_and_again_has_its_last_word(host: FakeHost) -> None:
    host.engine.failures["create_container"] = deque([refusal(500, "broken")] * 5)
    async with living(host) as life:
        await life.aim(assignment(S.CREATED))
        for _ in range(3):
            await life.pass_time(20)

        assert S.REJECTED is life.state()
        assert "broken" in life.report().message


async def test_a_request_that_the_engine_refuses_is_not_tried_again(host: FakeHost) -> None:
    host.engine.failures["create_container"] = deque([refusal(400, "invalid mount")])
    async with living(host) as life:
        await life.aim(assignment(S.CREATED))

        assert S.REJECTED is life.state()


async def test_an_answer_that_got_lost_makes_no_second_container(host: FakeHost) -> None:
    lost = Unavailable("the engine", "creating", "It took too long.", kind="unknown")
    async with living(host) as life:
        await life.reach(S.CREATED)
    async with living(host) as life:
        life.fleet._containers = {}  # as if the listing had been made before
        host.engine.failures["create_container"] = deque([lost])
        await life.aim(assignment(S.CREATED))
        await life.pass_time(20)

        assert S.CREATED is life.state()
        assert 1 == len(host.engine.containers)


async def test_a_start_that_the_engine_cannot_do_is_told_in_its_words(host: FakeHost) -> None:
    host.engine.start_error = "could not select device driver"
    async with living(host) as life:
        await life.aim(assignment(S.RUNNING))

        assert (S.EXITED, "start-failed") == (life.state(), life.report().cause)
        assert "could not select device driver" in life.report().message


async def test_peers_that_are_not_reached_are_named(host: FakeHost) -> None:
    host.runner(MAIN1).mesh_fails = True
    async with living(host) as life:
        await life.aim(assignment(S.READY), assignment(S.READY, 1))
        await life.aim(assignment(S.MESHED), assignment(S.MESHED, 1))
        await life.until(lambda: life.state() is S.EXITED)

        assert "mesh-failed" == life.report().cause
        assert "sub1" in life.report().message
        await life.aim(assignment(S.REMOVED), assignment(S.MESHED, 1))
        await life.until(lambda: life.state() is S.REMOVED)


async def test_a_command_that_runs_out_of_memory_is_told_so(host: FakeHost) -> None:
    async with living(host) as life:
        await life.reach(S.RUNNING)
        host.engine.end(host.engine.of(MAIN1).id, 137, oom=True)
        await life.until(lambda: life.state() is S.EXITED)

        assert "oom" == life.report().cause


async def test_a_restarted_engine_is_named_as_the_cause(host: FakeHost) -> None:
    async with living(host) as life:
        await life.reach(S.RUNNING)
        host.engine.booted_at = host.engine._clock + 2
        host.engine.end(host.engine.of(MAIN1).id, 255)
        host.engine._events = asyncio.Queue()
        host.engine.reopen()
        await life.until(lambda: life.state() is S.EXITED)

        assert "engine-restart" == life.report().cause


async def test_an_engine_that_was_stopped_long_before_it_came_back_is_the_cause(
    host: FakeHost,
) -> None:
    async with living(host) as life:
        await life.reach(S.RUNNING)
        host.engine.end(host.engine.of(MAIN1).id, 143)
        life.workshop.wall = lambda: host.engine._clock + 3
        host.engine.booted_at = host.engine._clock + 300
        host.engine._events = asyncio.Queue()
        host.engine.reopen()
        await life.until(lambda: life.state() is S.EXITED)

        assert "engine-restart" == life.report().cause


async def test_what_was_stopped_through_the_engine_is_no_failure_of_the_command(
    host: FakeHost,
) -> None:
    async with living(host) as life:
        await life.reach(S.RUNNING)
        host.engine.kill_by_hand(host.engine.of(MAIN1).id)
        await life.until(lambda: life.state() is S.EXITED)

        assert ("engine-restart", 143) == (life.report().cause, life.report().exit_code)
        assert "by hand" in life.report().message


async def test_a_host_whose_memory_is_full_is_tried_again(host: FakeHost) -> None:
    host.scratch.failing.append(OSError(28, "No space left on device", "/run/x"))
    async with living(host) as life:
        await life.aim(assignment(S.RUNNING))
        assert "No space left on device" in life.report().detail
        await life.pass_time(1)

        assert S.RUNNING is life.state()


async def test_a_network_that_cannot_be_made_holds_its_kernels_back(host: FakeHost) -> None:
    host.engine.failures["create_network"] = deque([refusal(403, "it overlaps")])
    async with living(host) as life:
        await life.aim(assignment(S.CREATED))

        (network,) = life.said[-1].networks
        assert S.PREPARING is life.state()
        assert network.final
        assert "it overlaps" in network.problem


async def test_the_way_out_is_there_before_the_first_kernel(host: FakeHost) -> None:
    async with living(host) as life:
        await life.settle()

        assert "10.212.0.0/20" == host.engine.egress


async def test_what_changes_in_one_turn_leaves_as_one_message(host: FakeHost) -> None:
    async with living(host) as life:
        await life.aim(assignment(S.CREATED), assignment(S.CREATED, 1))
        before = len(life.said)
        life.board.warn("a", ("x",))
        life.board.warn("b", ("y",))
        await life.settle()

        assert 1 == len(life.said) - before
        assert ("x", "y") == life.said[-1].warnings
