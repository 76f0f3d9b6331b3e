"""Why ranks do not find each other: each case from facts that are made up."""

from __future__ import annotations

import pytest

from phalanx_manager.core import why
from phalanx_manager.core.sight import Scene
from phalanx_wire.look import Look, Process, Socket
from tests.support.house import NOW
from tests.unit.manager.core.sights import (
    LISTENS,
    MAIN,
    PORT,
    SUB,
    first,
    joined,
    judged,
    look,
    process,
    running,
)

# -------------------------------------------------------------------- rendezvous


def test_rank_0_that_does_not_listen_is_told_with_what_it_does() -> None:
    main = look(of=[process("sleep 600", waits="hrtimer_nanosleep", cpu_s=0.0)])
    found = judged(running(), {0: main, 1: look(of=[process("sleep 600")])})[0]

    assert ("master-not-listening", (0,), False) == (found.code, found.ranks, found.certain)
    assert (
        "rank 0 does not listen at MASTER_PORT 12345; in rank 0 `sleep 600` (process 7) sleeps "
        "in hrtimer_nanosleep, 0.0 s of CPU" == found.text
    )


@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
def test_rank_0_that_listens_for_itself_alone_is_certain(address: str) -> None:
    main = look(Socket("listen", address, PORT, pid=7))

    assert ("master-on-loopback", (0,), True) == first(running(), main, look())


def test_rank_0_at_another_port_is_told_with_both() -> None:
    main = look(Socket("listen", "0.0.0.0", 29501, pid=7))
    found = judged(running(), {0: main, 1: look()})[0]

    assert ("master-other-port", (0,)) == (found.code, found.ranks)
    assert "0.0.0.0:29501" in found.text
    assert "--master-port 29501" in found.hint


def test_the_engines_own_resolver_is_no_program_of_rank_0() -> None:
    resolver = Socket("listen", "127.0.0.11", 44915)

    assert "master-not-listening" == first(running(), look(resolver), look())[0]


def test_who_has_not_connected_is_named() -> None:
    one = running("abc")
    late = look(of=[process("pip install x", pid=9)])

    assert ("not-connected", (2,), False) == first(one, look(LISTENS), look(joined(1)), late)


def test_all_connected_and_waiting_is_a_guess_at_the_world_size() -> None:
    assert ("world-size", (), False) == first(running(), look(LISTENS), look(joined(1)))


def test_connections_as_rank_0_sees_them_count_too() -> None:
    taken = Socket("connected", MAIN, PORT, SUB, 50001, pid=7)

    assert ("world-size", (), False) == first(running(), look(LISTENS, taken), look())


def test_once_ranks_are_connected_among_themselves_the_rendezvous_is_over() -> None:
    there = Socket("connected", MAIN, 40000, SUB, 50002, pid=7)
    back = Socket("connected", SUB, 50002, MAIN, 40000, pid=7)

    assert "idle" == first(running(), look(there), look(back))[0]


def test_a_login_by_ssh_is_no_rendezvous() -> None:
    login = Socket("connected", MAIN, 50002, SUB, 2200, pid=9)

    assert "master-not-listening" == first(running(), look(login), look())[0]


def test_a_rank_that_dials_an_address_of_nobody_is_certain() -> None:
    dials = Socket("connecting", SUB, 50001, "10.213.0.99", PORT, pid=7)

    assert ("wrong-address", (1,), True) == first(running(), look(LISTENS), look(dials))


def test_a_rank_whose_way_out_is_slow_is_none_of_ours() -> None:
    dials = Socket("connecting", SUB, 50001, "203.0.113.7", 443, pid=7)

    assert "not-connected" == first(running(), look(LISTENS), look(dials))[0]


def test_a_rank_without_an_answer_of_rank_0_names_both() -> None:
    dials = Socket("connecting", SUB, 50001, MAIN, PORT, pid=7)

    assert ("no-answer", (1, 0), True) == first(running(), look(LISTENS), look(dials))


# -------------------------------------------------------------------- variables


def workers(*ranks: int, world: int, **variables: str) -> list[Process]:
    return [
        process(pid=7 + rank, variables={"RANK": f"{rank}", "WORLD_SIZE": f"{world}", **variables})
        for rank in ranks
    ]


def test_workers_that_expect_different_worlds_are_certain() -> None:
    looks = [look(LISTENS, of=workers(0, world=2)), look(joined(1), of=workers(1, world=4))]
    found = judged(running(), dict(enumerate(looks)))[0]

    assert ("world-size", True) == (found.code, found.certain)
    assert "WORLD_SIZE=2 in rank 0; WORLD_SIZE=4 in rank 1" in found.text


def test_a_world_with_ranks_that_nobody_is_says_which() -> None:
    looks = [look(LISTENS, of=workers(0, world=4)), look(joined(1), of=workers(1, world=4))]
    found = judged(running(), dict(enumerate(looks)))[0]

    assert ("world-size", True) == (found.code, found.certain)
    assert found.text.endswith("there are 2: nobody was started as rank 2, 3")


def test_a_launcher_is_no_worker_of_its_own() -> None:
    def node(first: int) -> Look:
        launcher = process("torchrun", pid=5, variables={"RANK": "9", "WORLD_SIZE": "2"})
        theirs = workers(first, first + 1, world=4)
        children = [process(pid=one.pid, parent=5, variables=one.variables) for one in theirs]
        return look(LISTENS, joined(1), of=[launcher, *children])

    assert ("world-size", (), False) == first(running(), node(0), node(2))


def test_two_workers_of_the_same_rank_are_told() -> None:
    looks = [look(LISTENS, of=workers(0, world=2)), look(joined(1), of=workers(0, world=2))]

    assert ("duplicate-rank", (), True) == first(running(), *looks)


def test_a_worker_that_looks_for_rank_0_elsewhere_is_told() -> None:
    looks = [
        look(LISTENS, of=workers(0, world=2, MASTER_PORT="12345")),
        look(of=workers(1, world=2, MASTER_PORT="29501")),
    ]
    found = judged(running(), dict(enumerate(looks)))[0]

    assert ("wrong-master", (1,), True) == (found.code, found.ranks, found.certain)
    assert "MASTER_PORT=29501, the session's is 12345" in found.text


# -------------------------------------------------------------------- by itself


def seen(*looks: Look) -> Scene:
    return why.scene(running(), dict(enumerate(looks)), {})


def test_ranks_that_have_not_found_each_other_are_stuck() -> None:
    found = why.stuck(seen(look(LISTENS), look()))

    assert found is not None
    assert "not-connected" == found.code


@pytest.mark.parametrize(
    "healthy",
    [
        seen(look(of=[process(cores=1.0)]), look(of=[process(cores=1.0)])),
        seen(look(Socket("connected", MAIN, 40000, SUB, 50002)), look()),
        seen(),
    ],
    ids=["computes", "connected", "unseen"],
)
def test_ranks_that_work_or_have_found_each_other_are_not(healthy: Scene) -> None:
    assert None is why.stuck(healthy)


def test_a_master_port_of_thousands_of_digits_is_none() -> None:
    scene = why.scene(running(env={"MASTER_PORT": "9" * 5000}), {0: look(), 1: look()}, {})

    assert None is scene.master_port
    assert why.findings(scene, {}, NOW)
    why.stuck(scene)
