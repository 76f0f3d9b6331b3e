"""The service: the table made into an application, and what every request goes through."""

from __future__ import annotations

import asyncio
import importlib.metadata
import logging
import os
import socket
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Final

import msgspec
import structlog
from aiohttp import web
from aiohttp.http import HttpProcessingError

from phalanx_manager.groups import bare
from phalanx_manager.http import auth, health, openapi, problems
from phalanx_manager.http.ask import NOBODY, Ask, Route
from phalanx_manager.http.entrance import Entrance
from phalanx_manager.http.guests import MOST, Guests, room
from phalanx_manager.http.params import read_all
from phalanx_manager.http.routes import ROUTES
from phalanx_manager.rpc import failure
from phalanx_manager.store import port

_MAX_HEADER_BYTES: Final = 64 << 10
_FIRST_DESCRIPTOR: Final = 3
_SHUTDOWN_S: Final = 0.5
_WAITING: Final = 128
_IDLE_S: Final = 75.0
"""Who asks nothing for so long is let go; proxies keep connections for a minute."""

_GUESTS: Final = web.AppKey("guests", Guests)
_BEGUN: Final = web.RequestKey("begun", web.StreamResponse)

log = structlog.get_logger(__name__)


class _OwnFaults(logging.Filter):
    """Keeps out of the log what is not HTTP: its text is a stranger's, and it is answered 400."""

    def filter(self, record: logging.LogRecord) -> bool:
        error = record.exc_info[1] if record.exc_info else None
        return not isinstance(error, HttpProcessingError)


_OWN_FAULTS: Final = _OwnFaults()


class CannotListenError(Exception):
    """The address of the API cannot be used; the sentence says why."""


def build(entrance: Entrance, most: int = MOST) -> web.Application:
    """Make the application, for so many connections at once."""
    app = web.Application(middlewares=[_answer])
    app[_GUESTS] = Guests(most)
    app.on_response_prepare.append(_begin)
    for route in ROUTES:
        app.router.add_route(route.method, route.path, _through(route, entrance))
    app[health.REQUESTS] = Counter()
    version = importlib.metadata.version("phalanx")
    app[health.DOCUMENT] = msgspec.json.encode(openapi.document(ROUTES, version))
    return app


def _through(
    route: Route, entrance: Entrance
) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    """Lead a request to its handler: do we lead, who asks, may they, and is the query right."""

    async def handle(request: web.Request) -> web.StreamResponse:
        simple = entrance.answer(request)
        if simple is not None:
            return simple
        with entrance.enter(route.path) as (doors, turnstile):
            caller, token = NOBODY, ""
            if route.scope is not None:
                caller, token = await auth.identify(request, doors.store, doors.clock)
                turnstile.enter(caller)
                auth.authorize(caller, route.scope)
            values = read_all(route.params, request.query)
            with turnstile.serve(token), bare():
                return await route.handler(Ask(doors, request, caller, values, turnstile))

    return handle


@web.middleware
async def _answer(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    """Answer every failure as a problem, and count."""
    try:
        with request.app[_GUESTS].serve(request):
            response = await handler(request)
    except problems.Refused as error:
        response = problems.response(error.problem, error.headers)
    except web.HTTPException as error:
        response = _of_aiohttp(error)
    except (port.Unavailable, failure.Unavailable) as error:
        log.warning("http.unavailable", path=request.path, error=str(error))
        title = f"{error.what}: {error.doing}"
        refused = problems.refused("unavailable", 503, title, hint=error.hint or "try again")
        response = problems.response(refused.problem, {"Retry-After": "1"})
    except TimeoutError:
        refused = problems.refused("unavailable", 503, "an agent did not answer", hint="try again")
        response = problems.response(refused.problem, {"Retry-After": "1"})
    except Exception:  # the one supervisor of requests: a bug must not show its insides
        log.exception("http.failed", method=request.method, path=request.path)
        refused = problems.refused("internal", 500, "the manager failed; its log says how")
        response = problems.response(refused.problem)
    begun = request.get(_BEGUN)
    if begun is not None and begun is not response:
        # Too late for a problem: what was begun must look cut off.
        if request.transport is not None:
            request.transport.abort()
        response = begun
    resource = request.match_info.route.resource
    path = resource.canonical if resource is not None else "(none)"
    request.app[health.REQUESTS][request.method[:10], path, response.status] += 1
    return response


async def _begin(request: web.Request, response: web.StreamResponse) -> None:
    request[_BEGUN] = response


def _of_aiohttp(error: web.HTTPException) -> web.Response:
    code, title, hint = "http_error", error.reason, ""
    headers = {}
    if isinstance(error, web.HTTPNotFound):
        code, title, hint = "no_such_path", "there is no such path", "see /v1/openapi.json"
    if isinstance(error, web.HTTPMethodNotAllowed):
        allowed = ", ".join(sorted(error.allowed_methods))
        code, title = "method_not_allowed", f"the path takes {allowed}, not {error.method[:20]}"
        headers = {"Allow": allowed}
    if isinstance(error, web.HTTPRequestEntityTooLarge):
        code = "body_too_large"
    return problems.response(
        problems.refused(code, error.status, title, hint=hint).problem, headers
    )


@asynccontextmanager
async def listen(entrance: Entrance, address: str, most: int | None = None) -> AsyncIterator[str]:
    """Serve the API at `host:port`, `unix:///path` or `fd://N`; yields the URL that was bound.

    Args:
        most: how many connections there may be at once; None: as many as there is room for.

    Raises:
        CannotListenError: the address is wrong, taken or forbidden.
    """
    logging.getLogger("aiohttp.server").addFilter(_OWN_FAULTS)
    app = build(entrance, most or room())
    runner = web.AppRunner(
        app,
        access_log=None,
        handle_signals=False,
        handler_cancellation=True,
        auto_decompress=False,  # no compressed body is read, and none is worth unpacking
        keepalive_timeout=_IDLE_S,
        shutdown_timeout=_SHUTDOWN_S,
        max_line_size=_MAX_HEADER_BYTES,
        max_field_size=_MAX_HEADER_BYTES,
    )
    await runner.setup()
    server = runner.server
    assert server is not None  # noqa: S101 - it is set up
    try:
        with bare():
            async with _bound(server, address) as listeners:
                url = _url(address, listeners[0])
                log.info("http.listening", url=url)
                async with asyncio.TaskGroup() as tasks:
                    accepting = [
                        tasks.create_task(app[_GUESTS].let_in(listener, server), name="http")
                        for listener in listeners
                    ]
                    yield url
                    for task in accepting:
                        task.cancel()
    finally:
        await runner.cleanup()


@asynccontextmanager
async def _bound(server: web.Server, address: str) -> AsyncIterator[Sequence[socket.socket]]:
    """Have an address; a name may be several. Nobody is accepted yet."""
    try:
        bound = await _bind(server, address)
        listeners = [one.dup() for one in bound.sockets]
        for listener in listeners:
            listener.setblocking(False)
            listener.listen(_WAITING)
    except OSError as error:
        raise CannotListenError(
            f"{address}: cannot listen for the API: {os.strerror(error.errno or 0)}"
        ) from error
    try:
        yield listeners
    finally:
        for listener in listeners:
            listener.close()
        bound.close()


async def _bind(server: web.Server, address: str) -> asyncio.Server:
    loop = asyncio.get_running_loop()
    if address.startswith("unix://"):
        path = address.removeprefix("unix://")
        _remove_dead_socket(path)
        return await loop.create_unix_server(server, path, start_serving=False)
    if address.startswith("fd://"):
        return await loop.create_server(server, sock=_inherited(address), start_serving=False)
    host, number = _split(address)
    return await loop.create_server(server, host or None, number, start_serving=False)


def _split(address: str) -> tuple[str, int]:
    host, colon, number = address.rpartition(":")
    if not colon or not number.isdigit() or int(number) >= 1 << 16:
        raise CannotListenError(f"{address}: an address is host:port, unix:///path or fd://3")
    host = host.strip("[]")
    if host not in {"127.0.0.1", "::1", "localhost"}:
        log.warning("http.not_encrypted", address=address)
    return host, int(number)


def _inherited(address: str) -> socket.socket:
    """Take a socket that systemd has opened for us."""
    number = address.removeprefix("fd://")
    passed = os.environ.get("LISTEN_FDS", "0")
    if not number.isdigit() or os.environ.get("LISTEN_PID") != str(os.getpid()):
        raise CannotListenError(f"{address}: no socket was passed to this process")
    if not _FIRST_DESCRIPTOR <= int(number) < _FIRST_DESCRIPTOR + int(passed):
        raise CannotListenError(f"{address}: {passed} sockets were passed, from fd://3 on")
    return socket.socket(fileno=int(number))


def _remove_dead_socket(path: str) -> None:
    """Remove what an earlier process has left; one that answers is somebody's."""
    if not os.path.exists(path):
        return
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            os.unlink(path)
        except OSError as error:
            raise CannotListenError(f"{path}: {error.strerror or error}") from error
        else:
            raise CannotListenError(f"{path}: another process listens there")


def _url(address: str, listener: socket.socket) -> str:
    if address.startswith("unix://"):
        return address
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
