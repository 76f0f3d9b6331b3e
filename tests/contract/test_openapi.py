"""The API keeps to its own description, whatever is sent: schemathesis draws the requests."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    allow_header_conformance,
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
    unsupported_method,
)

from phalanx_manager.core.model import Stop, StopCause
from phalanx_manager.http.openapi import document
from phalanx_manager.http.routes import ROUTES
from tests.support.manager_api import scene

LONGEST_S: Final = 5.0
CHECKS: Final = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
    allow_header_conformance,
    unsupported_method,
]
DESCRIBED: Final = schemathesis.openapi.from_dict(document(ROUTES, "1")).exclude(
    path_regex="/(exec|forward)$"  # a WebSocket's frames are not described by OpenAPI
)


@dataclass(frozen=True)
class Served:
    """A manager's API on a port of this machine.

    Attributes:
        kept: how many tasks its loop has when nobody asks anything.
    """

    url: str
    token: str
    loop: asyncio.AbstractEventLoop
    kept: int

    def rests(self) -> int:
        """Wait until the service has no more in hand than before, and count it."""
        return asyncio.run_coroutine_threadsafe(_rest(self.kept), self.loop).result(LONGEST_S)


async def _rest(tasks: int) -> int:
    async with asyncio.timeout(LONGEST_S):
        while len(asyncio.all_tasks()) - 1 > tasks:  # noqa: ASYNC110 - they end alone
            await asyncio.sleep(0)
    return tasks


async def _serve(folder: Path, up: Future[Served], down: threading.Event) -> None:
    async with scene(folder) as api:
        session = (await api.submit("root")).id
        await api.store.stop(session, Stop(StopCause.USER, "", api.clock.now()))
        kept = len(asyncio.all_tasks())
        url = str(api.client.make_url("/"))
        up.set_result(Served(url, api.tokens["root"], asyncio.get_running_loop(), kept))
        await asyncio.to_thread(down.wait)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """The API, in a thread of its own, with one session `demo` that has ended."""
    up, down = Future[Served](), threading.Event()
    folder = tmp_path_factory.mktemp("api")
    thread = threading.Thread(target=lambda: asyncio.run(_serve(folder, up, down)))
    thread.start()
    yield up.result(LONGEST_S)
    down.set()
    thread.join(LONGEST_S)
    assert not thread.is_alive()


@schemathesis.serializer("application/x-tar")
def tarball(context: schemathesis.SerializationContext, value: object) -> bytes:
    """Send what was drawn as it is: it is hardly ever an archive."""
    del context
    return value if isinstance(value, bytes) else str(value).encode()


@DESCRIBED.parametrize()
@settings(max_examples=25, suppress_health_check=list(HealthCheck))
def test_whatever_is_sent_the_answer_is_one_that_the_description_names(
    case: schemathesis.Case[Any], served: Served
) -> None:
    ref = case.path_parameters.get("ref", "") if case.path_parameters else ""
    if len(str(ref)) % 2:  # of the drawn sessions every other one is there
        case.path_parameters["ref"] = "demo"
    headers = {"Authorization": f"Bearer {served.token}", "Connection": "close"}
    if case.path.endswith("/events"):
        headers["Accept"] = "application/json"  # a stream of all that happens has no end

    answer = case.call(base_url=served.url, timeout=LONGEST_S, headers=headers)

    case.validate_response(answer, checks=CHECKS)


def test_after_all_that_the_service_has_nothing_in_hand_and_answers(served: Served) -> None:
    assert 200 == requests.get(f"{served.url}healthz", timeout=LONGEST_S).status_code
    assert served.kept == served.rests()
