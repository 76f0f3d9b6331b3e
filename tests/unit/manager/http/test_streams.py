from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from aiohttp import ClientResponse

from phalanx_manager.http import cursor, logs, logs_follow
from phalanx_manager.http.logs_pieces import Batch
from phalanx_manager.http.logs_read import Batches, may_have_output
from phalanx_wire import loglines
from phalanx_wire.api import LogEvent, LogLine
from phalanx_wire.ids import kernel_id
from phalanx_wire.lifecycle import KernelState
from phalanx_wire.mux import Stream
from phalanx_wire.stream import STDOUT, LogsCall
from tests.support.house import row, with_kernel
from tests.support.manager_api import START, Scene, problem, scene, speaking, sse, turns

BEGIN_NS = int(START.timestamp()) * 1_000_000_000
LINES = {
    0: [LogLine(BEGIN_NS + at, False, f"main {at}") for at in (1, 4, 5)],
    1: [LogLine(BEGIN_NS + at, at == 3, f"sub {at}") for at in (2, 3, 6)],
}
STREAM = {"Accept": "text/event-stream"}


Found = list[tuple[str, LogEvent]]


async def read_logs(response: ClientResponse) -> tuple[Found, dict[str, object]]:
    """Read a log stream to its end: the lines with their ids, and what the end says."""
    assert 200 == response.status, await response.text()
    lines: Found = []
    async with asyncio.timeout(10):
        async for event_id, name, data in sse(response):
            if name == "end":
                return lines, json.loads(data)
            assert "log" == name
            lines.append((event_id, msgspec.json.decode(data, type=LogEvent)))
    raise AssertionError("the stream has no end")


def texts(found: Found) -> list[str]:
    return [event.text for _id, event in found]


# ---------------------------------------------------------------- logs that are there


async def test_output_of_all_ranks_is_merged_by_time(tmp_path: Path) -> None:
    async with scene(tmp_path, speaking(LINES)) as api:
        await api.running()
        found, end = await read_logs(await api.get("/v1/sessions/demo/logs"))
        assert ["main 1", "sub 2", "sub 3", "main 4", "main 5", "sub 6"] == texts(found)
        assert LogEvent(1, "sub1", BEGIN_NS + 3, True, "sub 3") == found[2][1]
        assert {} == end


async def test_one_rank_the_last_lines_and_later_lines_can_be_asked_for(tmp_path: Path) -> None:
    async with scene(tmp_path, speaking(LINES)) as api:
        await api.running()

        async def ask(query: str) -> list[str]:
            found, _end = await read_logs(await api.get(f"/v1/sessions/demo/logs?{query}"))
            return texts(found)

        assert ["sub 2", "sub 3", "sub 6"] == await ask("rank=1")
        assert ["main 5", "sub 6"] == await ask("tail=2")
        assert [] == await ask("tail=0")
        assert 6 == len(await ask("since=10m"))
        assert 6 == len(await ask("since=999999999d"))
        assert [] == await ask("since=2025-03-01T12:00:01Z")
        assert 6 == len(await ask("since=2025-03-01T12:00:00%2B00:00"))


async def test_a_session_that_was_never_placed_has_no_output(api: Scene) -> None:
    await api.submit()
    assert ([], {}) == await read_logs(await api.get("/v1/sessions/demo/logs"))


async def test_output_outlives_the_containers(tmp_path: Path) -> None:
    async with scene(tmp_path, speaking(LINES)) as api:
        row = await api.running()
        await api.move(row.session.id, KernelState.EXITED, exit_code=0)
        await api.move(row.session.id, KernelState.REMOVED)
        found, _end = await read_logs(await api.get("/v1/sessions/demo/logs"))
        assert 6 == len(found)


async def test_what_is_missing_is_said_at_the_end(tmp_path: Path) -> None:
    async def answer(stream: Stream) -> None:
        assert isinstance(stream.call, LogsCall)
        if stream.call.kernel.endswith("-1"):
            await stream.close(code="output_gone", why="it is not kept any more")
        else:
            await speaking(LINES)(stream)

    async with scene(tmp_path, answer) as api:
        await api.running()
        found, end = await read_logs(await api.get("/v1/sessions/demo/logs"))
        assert ["main 1", "main 4", "main 5"] == texts(found)
        assert ["the output of sub1 is not complete: it is not kept any more"] == end["missing"]


@pytest.mark.parametrize("query", ["", "?follow=1", "?tail=3&follow=1", "?since=10m"])
@pytest.mark.parametrize("had", [0, 1])
async def test_output_is_told_whole_when_its_container_is_removed_meanwhile(
    tmp_path: Path, query: str, had: int
) -> None:
    asked: set[str] = set()

    async def answer(stream: Stream) -> None:
        assert isinstance(stream.call, LogsCall)
        if stream.call.kernel in asked:
            await speaking(LINES)(stream)
            return
        asked.add(stream.call.kernel)
        rank = int(stream.call.kernel[-1])
        for chunk in loglines.pack(LINES[rank][:had]):
            await stream.write(STDOUT, chunk)
        await stream.close(code="not_found", why="No such container")

    async with scene(tmp_path, answer) as api:
        row = await api.running()
        await api.move(row.session.id, KernelState.EXITED, exit_code=0)
        found, end = await read_logs(await api.get(f"/v1/sessions/demo/logs{query}"))
        assert (sorted(text(LINES)), {}) == (sorted(texts(found)), end)


@pytest.mark.parametrize("query", ["", "?follow=1"])
async def test_output_of_which_no_copy_is_kept_either_is_said_to_be_incomplete(
    tmp_path: Path, query: str
) -> None:
    async def answer(stream: Stream) -> None:
        await stream.close(code="not_found", why="No such container")

    async with scene(tmp_path, answer) as api:
        row = await api.running()
        await api.move(row.session.id, KernelState.EXITED, exit_code=0)
        _found, end = await read_logs(await api.get(f"/v1/sessions/demo/logs{query}"))
        assert ["the output of main1, sub1 is not complete: No such container"] == end["missing"]
        assert 4 == len(api.link.calls)


@pytest.mark.parametrize(("cause", "missing"), [("hosts-apart", 0), ("engine-restart", 1)])
async def test_a_container_that_was_never_started_lacks_no_output(
    tmp_path: Path, cause: str, missing: int
) -> None:
    async def gone(stream: Stream) -> None:
        await stream.close(code="output_gone", why="it is not kept any more")
        await api.move(row.session.id, KernelState.REJECTED, cause=cause)

    async with scene(tmp_path, gone) as api:
        row = await api.placed()
        await api.move(row.session.id, KernelState.CREATED)
        _found, end = await read_logs(await api.get("/v1/sessions/demo/logs?follow=1&rank=0"))

    told = end.get("missing", [])
    assert isinstance(told, list)
    assert missing == len(told)


async def test_an_agent_that_is_away_is_said_at_the_end(tmp_path: Path) -> None:
    async with scene(tmp_path, speaking(LINES)) as api:
        row = await api.running()
        assert row.kernels[0].agent is not None
        api.link.away.add(row.kernels[0].agent)
        found, end = await read_logs(await api.get("/v1/sessions/demo/logs"))
        why = "the output of main1, sub1 is not complete: agent gpu-1: it is not connected"
        assert ([], [why]) == (found, end["missing"])


@pytest.mark.parametrize("cut", range(7))
async def test_a_stream_resumed_anywhere_loses_no_line_and_repeats_none(
    tmp_path: Path, cut: int
) -> None:
    same = BEGIN_NS + 2
    lines = {
        0: [LogLine(same, False, text) for text in ("a", "b", "c")],
        1: [LogLine(same + at, False, text) for at, text in ((-1, "x"), (0, "y"), (0, "z"))],
    }
    async with scene(tmp_path, speaking(lines)) as api:
        await api.running()
        whole, _end = await read_logs(await api.get("/v1/sessions/demo/logs"))
        positions: dict[int, cursor.Position] = {}
        for _id, event in whole[:cut]:
            at_ns, count = positions.get(event.rank, (0, 0))
            positions[event.rank] = (event.at_ns, count + 1 if at_ns == event.at_ns else 1)
        header = {"Last-Event-ID": cursor.spell(positions)}
        rest, _end = await read_logs(await api.get("/v1/sessions/demo/logs", **header))
        assert sorted(texts(whole)) == sorted(texts(whole[:cut]) + texts(rest))
        assert whole[-1][0] == (rest[-1][0] if rest else header["Last-Event-ID"])


async def test_the_last_line_of_a_stream_carries_the_point_to_resume(tmp_path: Path) -> None:
    async with scene(tmp_path, speaking(LINES)) as api:
        await api.running()
        found, _end = await read_logs(await api.get("/v1/sessions/demo/logs"))
        again, _end = await read_logs(
            await api.get("/v1/sessions/demo/logs", **{"Last-Event-ID": found[-1][0]})
        )
        assert [] == again


async def test_the_last_lines_are_as_many_as_memory_bears(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logs, "_LAST_CHARACTERS", len("main 5" + "sub 6"))
    async with scene(tmp_path, speaking(LINES)) as api:
        await api.running()
        found, _end = await read_logs(await api.get("/v1/sessions/demo/logs?tail=1000000"))
    assert ["main 5", "sub 6"] == texts(found)


async def test_long_lines_are_handed_over_few_at_a_time() -> None:
    sizes: list[int] = []

    async def put(batch: Batch) -> None:
        sizes.append(sum(len(line.text) for _kernel, line in batch))

    batches = Batches(put)
    kernel = row(["a"]).kernels[0]
    for _line in range(256):
        await batches.add(kernel, LogLine(0, False, "x" * loglines.MAX_TEXT_BYTES))
    await batches.flush()

    assert 256 * loglines.MAX_TEXT_BYTES == sum(sizes)
    assert max(sizes) < 4 * loglines.MAX_TEXT_BYTES


# ---------------------------------------------------------------- logs that come


async def test_following_waits_for_the_start_and_ends_with_the_session(tmp_path: Path) -> None:
    ended = asyncio.Event()
    async with scene(tmp_path, speaking(LINES, then=_wait_for(ended))) as api:
        view = await api.submit()
        response = await api.get("/v1/sessions/demo/logs?follow=1")
        reading = asyncio.ensure_future(read_logs(response))
        await turns()
        assert [] == api.link.calls
        await api.place(view.id)
        await turns()
        assert [] == api.link.calls
        await api.move(view.id, KernelState.CREATED)
        await turns()
        assert 2 == len(api.link.calls)
        await api.move(view.id, KernelState.RUNNING)
        await api.move(view.id, KernelState.EXITED, exit_code=0)
        await turns()
        assert not reading.done()
        ended.set()
        found, end = await reading
        assert (sorted(texts(found)), {}) == (sorted(text(LINES)), end)


async def test_following_goes_on_with_the_next_attempt(tmp_path: Path) -> None:
    async with scene(tmp_path, speaking(LINES)) as api:
        row = await api.running(max_attempts=2)
        response = await api.get("/v1/sessions/demo/logs?follow=1&rank=0")
        reading = asyncio.ensure_future(read_logs(response))
        await turns()
        await api.move(row.session.id, KernelState.EXITED, exit_code=3)
        await turns()
        await api.place(row.session.id)
        await api.move(row.session.id, KernelState.RUNNING)
        await turns()
        assert not reading.done()
        await api.move(row.session.id, KernelState.EXITED, exit_code=0)
        found, end = await reading
        asked = [call.kernel for call in api.link.calls if isinstance(call, LogsCall)]
        assert ["main 1", "main 4", "main 5"] * 2 == texts(found)
        assert [kernel_id(row.session.id, attempt, 0) for attempt in (1, 2)] == asked
        assert {} == end


async def test_following_a_session_that_is_cancelled_in_the_queue_ends(api: Scene) -> None:
    await api.submit()
    response = await api.get("/v1/sessions/demo/logs?follow=1")
    reading = asyncio.ensure_future(read_logs(response))
    await turns()
    await api.post("/v1/sessions/demo/stop", {})
    assert ([], {}) == await reading


async def test_a_line_is_there_at_once(tmp_path: Path) -> None:
    more: asyncio.Queue[LogLine | None] = asyncio.Queue()

    async def answer(stream: Stream) -> None:
        assert isinstance(stream.call, LogsCall)
        while stream.call.follow and (line := await more.get()) is not None:
            for chunk in loglines.pack([line]):
                await stream.write(STDOUT, chunk)
        await stream.close()

    async with scene(tmp_path, answer) as api:
        row = await api.running(size=1)
        response = await api.get("/v1/sessions/demo/logs?follow=1")
        events = sse(response)
        for number in range(3):
            more.put_nowait(LogLine(BEGIN_NS + number, False, str(number)))
            async with asyncio.timeout(5):
                _id, _name, data = await anext(events)
            assert str(number) == msgspec.json.decode(data, type=LogEvent).text
        await api.move(row.session.id, KernelState.EXITED, exit_code=0)
        more.put_nowait(None)
        async with asyncio.timeout(5):
            assert "end" == (await anext(events))[1]


async def test_following_goes_on_where_it_was_after_a_lost_link(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logs_follow, "_AWAY_S", 0.01)
    ended = asyncio.Event()
    async with scene(tmp_path, speaking(LINES, then=_wait_for(ended))) as api:
        row = await api.running()
        response = await api.get("/v1/sessions/demo/logs?follow=1")
        events = sse(response)
        found = [await anext(events) for _line in range(6)]
        api.link.lose()
        async with asyncio.timeout(10):
            await api.link.until(lambda: len(api.link.calls) == 4)
            await api.move(row.session.id, KernelState.EXITED, exit_code=0)
            ended.set()
            found += [event async for event in events]
        assert ["log"] * 6 + ["end"] == [name for _id, name, _data in found]


async def test_a_client_that_goes_away_frees_its_streams(tmp_path: Path) -> None:
    async with scene(tmp_path, speaking(LINES, then=_wait_for(asyncio.Event()))) as api:
        await api.running()
        response = await api.get("/v1/sessions/demo/logs?follow=1")
        await anext(sse(response))
        await api.link.until(lambda: 2 == sum(len(ours) for ours, _theirs in api.link.muxes))
        response.close()
        await api.link.until(lambda: not any(len(ours) for ours, _theirs in api.link.muxes))


async def test_a_slow_client_slows_the_agent_and_memory_stays_bounded(tmp_path: Path) -> None:
    sent = 0

    async def pour(stream: Stream) -> None:
        nonlocal sent
        line = LogLine(BEGIN_NS, False, "x" * 4000)
        for _chunk in range(4000):
            for chunk in loglines.pack([line] * 15):
                await stream.write(STDOUT, chunk)
                sent += len(chunk)
        await stream.close()

    async with scene(tmp_path, pour) as api:
        await api.running(size=1)
        response = await api.get("/v1/sessions/demo/logs?follow=1")
        before = -1
        async with asyncio.timeout(20):
            while before != sent:
                before = sent
                await turns(2000)
        assert sent < 4 << 20  # of 240 MB: the rest waits at its source, and little in the kernel
        response.close()


# ---------------------------------------------------------------- resume points


@pytest.mark.parametrize(
    "positions",
    [
        {},
        {0: (0, 1)},
        {0: (BEGIN_NS, 1), 1: (BEGIN_NS - 5, 3), 900: (BEGIN_NS + 10**12, 1)},
        {rank: (BEGIN_NS + rank * 7919, 1) for rank in range(1000)},
    ],
)
def test_a_resume_point_reads_back(positions: dict[int, cursor.Position]) -> None:
    text = cursor.spell(positions)
    assert positions == cursor.parse(text)
    assert len(text) < 16_000


def test_nonsense_is_no_resume_point() -> None:
    for text in ("A", "AA", "____", "%", "AAA" * 30_000, "gICAgICAgICAgICA"):
        with pytest.raises(ValueError, match="resume point"):
            cursor.parse(text)


def text(lines: dict[int, list[LogLine]]) -> list[str]:
    return [line.text for line in itertools.chain(*lines.values())]


def _wait_for(event: asyncio.Event) -> Callable[[], Awaitable[None]]:
    async def wait() -> None:
        await event.wait()

    return wait


async def test_a_wrong_session_is_a_problem_not_a_stream(api: Scene) -> None:
    response = await api.get("/v1/sessions/nobody/logs?follow=1", **STREAM)
    assert "not_found" == (await problem(response)).code


@pytest.mark.parametrize(
    ("fields", "asked"),
    [
        ({"state": KernelState.RUNNING}, [0]),
        ({"state": KernelState.REMOVED, "cause": "exited", "exit_code": 3}, [0]),
        ({"state": KernelState.REMOVED, "cause": "cancelled", "exit_code": 143}, [0]),
        ({"state": KernelState.REMOVED, "cause": "cancelled"}, []),
        ({"state": KernelState.LOST, "cause": "lost"}, [0]),
    ],
)
def test_only_what_has_run_can_lack_output(fields: dict[str, Any], asked: list[int]) -> None:
    one = with_kernel(row("a", KernelState.RUNNING), 0, container_id="c" * 64, **fields)

    assert asked == [kernel.rank for kernel in one.kernels if may_have_output(kernel)]
