"""The library: the same client with and without an event loop."""

from __future__ import annotations

import asyncio
import io
from collections.abc import Callable
from typing import Any

import pytest

from phalanx_client.connect import connect, connect_blocking
from phalanx_client.failure import Refused, Unavailable
from phalanx_wire.api import SessionList, UploadCreated
from phalanx_wire.spec import SessionSpec
from tests.unit.client.fake_manager import END, ID, TOKEN, FakeManager, fails, line, session, stream

Use = Callable[..., Any]


def with_a_loop(url: str, method: str, *args: Any, **more: Any) -> Any:
    async def use() -> Any:
        async with connect(url, TOKEN) as client:
            made = getattr(client, method)(*args, **more)
            return [item async for item in made] if hasattr(made, "__aiter__") else await made

    return asyncio.run(use())


def without(url: str, method: str, *args: Any, **more: Any) -> Any:
    with connect_blocking(url, TOKEN) as client:
        made = getattr(client, method)(*args, **more)
        return list(made) if hasattr(made, "__next__") else made


BOTH = pytest.mark.parametrize("use", [with_a_loop, without])


@BOTH
def test_a_request_gives_its_view(manager: FakeManager, use: Use) -> None:
    manager.on("GET", "/v1/sessions", SessionList((session(),)))

    assert SessionList((session(),)) == use(manager.url, "sessions")
    assert f"Bearer {TOKEN}" == manager.heard[0].headers["Authorization"]


@BOTH
def test_a_stream_gives_its_lines(manager: FakeManager, use: Use) -> None:
    manager.on("GET", f"/v1/sessions/{ID}/logs", stream(line(0, "a", "1"), line(1, "b", "2"), END))

    found = use(manager.url, "logs", ID)

    assert [("1", "a"), ("2", "b")] == [(point, event.text) for point, event in found]


@BOTH
def test_a_refusal_carries_the_problem(manager: FakeManager, use: Use) -> None:
    manager.on("POST", "/v1/sessions", fails(422, "never_satisfiable", "too large", field="size"))

    with pytest.raises(Refused) as caught:
        use(manager.url, "submit", SessionSpec(), "key")

    assert ("never_satisfiable", "size") == (caught.value.problem.code, caught.value.problem.field)


@BOTH
def test_a_manager_that_is_not_there_is_unavailable(use: Use) -> None:
    with pytest.raises(Unavailable, match="can't be reached"):
        use("http://127.0.0.1:9", "nodes")


@BOTH
def test_a_file_is_sent_with_its_length(manager: FakeManager, use: Use) -> None:
    manager.on("PUT", "/v1/uploads", UploadCreated("sha256:x", 5))

    assert UploadCreated("sha256:x", 5) == use(manager.url, "upload", io.BytesIO(b"12345"), 5)
    assert ("5", b"12345") == (manager.heard[0].headers["Content-Length"], manager.heard[0].body)


@BOTH
def test_waiting_asks_until_it_has_ended(manager: FakeManager, use: Use) -> None:
    manager.on(
        "GET", "/v1/sessions/demo/wait", session("running"), session("stopping"), session("failed")
    )

    assert session("failed") == use(manager.url, "wait", "demo", "ended")


def test_a_name_can_not_leave_its_place_in_the_address(manager: FakeManager) -> None:
    with pytest.raises(Refused):
        without(manager.url, "session", "../tokens?x=1")

    assert "/v1/sessions/../tokens?x=1" == manager.heard[0].path


def test_the_blocking_client_has_only_requests(manager: FakeManager) -> None:
    with connect_blocking(manager.url, TOKEN) as client, pytest.raises(AttributeError):
        client.nothing()
