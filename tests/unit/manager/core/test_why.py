"""Why a session is as it is: each case from facts that are made up."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace

from phalanx_manager.core import explain, why
from phalanx_wire.ids import AgentId
from phalanx_wire.look import Look, Reach, Socket
from phalanx_wire.spec import Mount
from tests.support.house import agent, later, row, with_kernel, with_session
from tests.unit.manager.core.sights import (
    LISTENS,
    MAIN,
    SUB,
    S,
    first,
    joined,
    judged,
    look,
    process,
    running,
)

# -------------------------------------------------------------------- processes


def test_a_rank_that_has_ended_while_others_run_comes_before_what_they_wait_for() -> None:
    one = with_kernel(running(), 1, state=S.EXITED, ended_as=S.EXITED, exit_code=0)
    found = judged(one, {0: look(LISTENS)})

    assert ["ended-early"] == [each.code for each in found]
    assert "rank 1 (sub1) on agent b exited with code 0 while others still run" == found[0].text


def test_a_zombie_is_named_with_who_keeps_it() -> None:
    left = [process("bash run.sh", pid=5), process("[python3]", pid=8, parent=5, state="Z")]
    found = judged(running(), {0: look(LISTENS), 1: look(of=left)})[0]

    assert ("process-ended", (1,), True) == (found.code, found.ranks, found.certain)
    assert "`[python3]` (process 8) has ended; `bash run.sh` (process 5) goes on" in found.text


def test_a_command_of_which_nothing_is_left_is_told() -> None:
    assert ("command-gone", (1,), True) == first(running(), look(LISTENS), look(of=[]))


def test_a_stopped_process_is_told_with_how_it_goes_on() -> None:
    found = judged(running(), {0: look(LISTENS), 1: look(joined(1), of=[process(state="T")])})[0]

    assert ("stopped", (1,), True) == (found.code, found.ranks, found.certain)
    assert found.hint.endswith("/1 -- kill -CONT 7")


def test_who_waits_for_a_device_is_a_guess_with_the_kernels_function() -> None:
    linked = [Socket("connected", MAIN, 40000, SUB, 50002), Socket("connected", SUB, 1, MAIN, 4000)]
    stuck = process(state="D", waits="nfs_wait_bit_killable")
    found = judged(running(), {0: look(linked[0]), 1: look(linked[1], of=[stuck])})[0]

    assert ("waits-for-device", (1,), False) == (found.code, found.ranks, found.certain)
    assert "nfs_wait_bit_killable" in found.text


def test_a_rank_that_runs_something_else_than_the_others_is_a_guess() -> None:
    other = look(of=[process("sleep 1000"), process("sh -c x", pid=5)])
    linked = look(Socket("connected", MAIN, 40000, SUB, 50002))

    assert ("no-program", (2,), False) == first(running("abc"), linked, look(), other)


def test_containers_in_which_nothing_was_started_are_told_when_another_waits() -> None:
    one = running(run_on="main")
    found = judged(one, {0: look(LISTENS), 1: look(of=[])})

    assert "not-started" in [each.code for each in found]
    assert not any(each.certain for each in found)


def test_a_slurm_job_whose_script_forgot_srun_is_told_so() -> None:
    job = running(run_on="main", env_profile="slurm")
    found = judged(job, {0: look(LISTENS), 1: look(of=[])})
    hints = {each.code: each.hint for each in found}

    assert "`srun COMMAND` in the script starts it on all nodes" in hints["not-started"]


def test_only_a_rank_that_listens_for_others_is_told_by_itself_to_be_alone() -> None:
    job = running(run_on="main", env_profile="slurm")
    waits = Socket("listen", "::", 15028, pid=7)
    alone, apart = (
        why.stuck(why.scene(job, {0: look(*sockets), 1: look(of=[])}, {}))
        for sockets in ((waits,), (replace(waits, local="127.0.0.1"),))
    )

    assert (None, "not-started") == (apart, alone and alone.code)
    assert alone is not None
    assert alone.text.endswith("1.5 s of CPU, and listens at [::]:15028 for others")


def test_idle_containers_of_an_interactive_session_are_fine() -> None:
    one = running(kind="interactive", command=())

    assert ("idle", (), True) == first(one, look(of=[]), look(of=[]))


# -------------------------------------------------------------------- the network


def reaching(rank: int, answer: Any) -> Look:
    return look(of=[process(cores=1.0)], reach=(Reach(rank, answer),))


def test_a_cut_between_two_hosts_names_both_even_while_all_compute() -> None:
    found = judged(running(), {0: reaching(1, "silent"), 1: reaching(0, "no route")})[0]

    assert ("network-cut", (0, 1), True) == (found.code, found.ranks, found.certain)
    assert (
        "the network between hosts a and b is cut: rank 0 (main1) on a gets no answer of "
        "rank 1 (sub1) on b, nor the other way round" == found.text
    )


def test_a_way_that_fails_in_one_direction_is_a_guess() -> None:
    found = judged(running(), {0: reaching(1, "open"), 1: reaching(0, "silent")})[0]

    assert ("network-cut", False) == (found.code, found.certain)
    assert "from host b to a fails" in found.text


def test_a_port_that_refuses_is_reached() -> None:
    assert "busy" == first(running(), reaching(1, "refused"), reaching(0, "open"))[0]


def test_a_rank_that_does_not_exist_is_no_news() -> None:
    assert "busy" == first(running(), reaching(99, "silent"), reaching(0, "open"))[0]


def test_one_rank_of_each_host_tries_one_of_every_other() -> None:
    assert {0: (2,), 1: (), 2: (0,), 3: ()} == why.plan(running("aabb"))


def test_only_what_runs_is_looked_at() -> None:
    one = with_kernel(running("aab"), 2, state=S.EXITED)

    assert {0: (), 1: ()} == why.plan(one)


def test_of_too_many_ranks_some_of_every_host_are_looked_at_and_the_rest_is_told() -> None:
    one = running("a" * 1200 + "b" * 2)
    looked_at = why.plan(one)
    found = judged(one, {rank: look(of=[process(cores=1.0)]) for rank in looked_at})

    assert [*range(1022), 1200, 1201] == list(looked_at)
    assert ["busy", "not-all-seen"] == [each.code for each in found]
    assert found[1].text.startswith("178 of 1202 ranks were not looked at")


def test_of_very_many_ranks_those_come_first_that_rank_0_has_not_met() -> None:
    one = running("a" * 1200)
    looked_at = why.plan(one, met=set(range(1190)))

    assert [*range(1014), *range(1190, 1200)] == list(looked_at)


# -------------------------------------------------------------------- nothing wrong


def test_busy_ranks_are_told_with_their_cpu() -> None:
    looks = [look(of=[process(cores=0.9, cpu_s=40.0)]), look(of=[process(cores=0.6, cpu_s=30.0)])]
    found = judged(running(), dict(enumerate(looks)))

    assert ["busy"] == [one.code for one in found]
    assert (
        "nothing looks wrong: all 2 ranks are busy: 1.5 cores now, 70 s of CPU so far"
        == found[0].text
    )


def test_whom_the_others_wait_for_is_told() -> None:
    there = Socket("connected", MAIN, 40000, SUB, 50002, pid=7)
    found = judged(running(), {0: look(there), 1: look(of=[process(cores=1.0)])})[0]

    assert ("straggler", (1,)) == (found.code, found.ranks)


def test_who_could_not_be_seen_is_told_after_what_was() -> None:
    found = judged(running(), {0: look(LISTENS)}, {1: "agent b did not answer within 0.85 s"})

    assert ("not-seen", (1,)) == (found[-1].code, found[-1].ranks)
    assert "rank 1 (sub1) could not be looked at: agent b did not answer" in found[-1].text


# -------------------------------------------------------------------- before and after


def test_what_waits_says_for_what() -> None:
    found = judged(with_session(row([None]), reason="needs gpu 2, no host has more than 1"), {})

    assert [("pending", "needs gpu 2, no host has more than 1")] == [
        (one.code, one.text) for one in found
    ]


def test_who_is_late_at_the_start_is_named_with_what_it_does() -> None:
    one = row("abc", [S.CREATED, S.PREPARING, S.PREPARING])
    one = with_session(with_kernel(one, 2, detail="pulling busybox"), state="preparing")
    (found,) = judged(one, {})

    assert ("preparing", (1, 2)) == (found.code, found.ranks)
    assert (
        "rank 2 (sub2) on agent c is being prepared: pulling busybox, and 1 more like it"
        == found.text
    )


def test_an_agent_that_is_not_heard_comes_first_at_the_start() -> None:
    one = with_session(row("ab", S.PREPARING), state="preparing")
    agents = {AgentId("a"): agent("a"), AgentId("b"): agent("b")}
    found = why.findings(why.scene(one, {}, {}), agents, later(20))

    assert ["agent-away", "agent-away", "preparing"] == [each.code for each in found]


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"exit_code": 127}, "the command is not in the image"),
        ({"exit_code": 137, "cause": "oom"}, "ask for more memory"),
        ({"exit_code": 3}, "phalanx logs"),
    ],
)
def test_who_failed_first_is_told_with_what_to_do(fields: dict[str, Any], words: str) -> None:
    one = row("ab", [S.EXITED, S.EXITED])
    one = with_kernel(one, 0, ended_as=S.EXITED, exit_code=1)
    one = with_kernel(one, 1, ended_as=S.EXITED, **fields)
    one = with_session(one, state="failed", failed_rank=1, reason="")
    found = judged(one, {})

    assert [("failed", (1,)), ("failed-later", (0,))] == [(x.code, x.ranks) for x in found]
    assert words in found[0].hint


def test_a_reason_that_is_a_sentence_is_told_once() -> None:
    one = with_kernel(row("ab", [S.REJECTED, S.STOPPED]), 0, ended_as=S.REJECTED, message="No.")
    reason = explain.failure(one.kernels[0])
    found = judged(with_session(one, state="failed", failed_rank=0, reason=reason), {})

    assert reason.endswith("No.")
    assert [f"{reason[:-1]}, before any other rank"] == [each.text for each in found]


@pytest.mark.parametrize("state", ["succeeded", "cancelled", "timeout"])
def test_every_other_end_is_told_too(state: Any) -> None:
    (found,) = judged(with_session(row("a", S.REMOVED), state=state, reason="so it is"), {})

    assert state == found.code


@pytest.mark.parametrize("state", ["running", "timeout", "stopping"])
def test_a_folder_that_hosts_do_not_share_is_told_beside_the_rest(state: Any) -> None:
    mount = Mount("/srv/ckpt", "/ckpt", read_only=False)
    one = with_session(running(requeue=True, mounts=(mount,)), state=state)
    one = with_kernel(with_kernel(one, 0, folders={"/ckpt": "x"}), 1, folders={"/ckpt": "y"})

    assert "folder-unshared" == judged(one, {0: look(), 1: look()})[-1].code
