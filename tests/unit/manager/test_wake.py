"""Bells and chimes."""

from __future__ import annotations

from phalanx_manager.wake import Bell, Chimes


async def test_a_bell_rung_before_anybody_waits_is_remembered_once() -> None:
    bell = Bell()
    bell.ring()
    bell.ring()

    assert (True, False) == (await bell.wait(0), await bell.wait(0))


async def test_who_watches_a_topic_hears_it_and_nothing_else() -> None:
    chimes = Chimes()
    with chimes.watch("a") as mine, chimes.watch("b") as other, chimes.watch(None) as all_topics:
        chimes.ring("a")

        assert (True, False, True) == (
            await mine.wait(0),
            await other.wait(0),
            await all_topics.wait(0),
        )


async def test_who_has_left_is_forgotten() -> None:
    chimes = Chimes()
    with chimes.watch("a"):
        pass
    chimes.ring("a")

    assert {} == chimes._bells
