"""The one way to the engine: bounded calls, and one kind of error whatever went wrong."""

from __future__ import annotations

import asyncio
import json
import re
import socket
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from typing import Any, Final
from urllib.parse import urlencode

import aiohttp
from aiodocker import Docker
from aiodocker.exceptions import DockerError

from phalanx_agent.core.refused import SHORTAGES
from phalanx_agent.docker.answer import Answer, get
from phalanx_agent.docker.passing import passes
from phalanx_agent.docker.port import Unavailable

OLDEST_API: Final = (1, 41)
NEWEST_API: Final = (1, 51)
"""The newest version that this code was tested with; a newer engine is asked to speak it."""

CALL_S: Final = 60.0
_REST_S: Final = 5.0
_TRANSPORT_ERROR: Final = 900
"""From this status on aiodocker reports a broken connection, not an answer."""

_NOT_THERE: Final = "The engine does not answer on its socket; is it running?"

_NOT_ALLOWED: Final = "This agent may not use the engine's socket; is it root, or of its group?"

_ID: Final = re.compile(r"[a-f0-9]{64}")


def checked_id(text: str) -> str:
    """Let only an engine's full id into a URL: a name with slashes would ask something else.

    Raises:
        Unavailable: the text is no id.
    """
    if _ID.fullmatch(text) is None:
        raise Unavailable(
            f"object {text[:80]!r}", "naming it", "It is no id of the engine.", kind="not_sent"
        )
    return text


def version_of(text: str) -> tuple[int, int]:
    """Read `1.41`; (0, 0) when it is no version."""
    major, _, minor = text.partition(".")
    return (int(major), int(minor)) if major.isdigit() and minor.isdigit() else (0, 0)


class Line:
    """The connection to one engine, and the version that is spoken on it."""

    def __init__(self, socket: str) -> None:
        """Args: socket: its path."""
        self.socket = socket
        self.api = (0, 0)
        self._connector: aiohttp.UnixConnector | None = None
        self._docker: Docker | None = None

    async def open(self) -> None:
        """Make the client; nothing is asked yet."""
        # No limit on connections: a held stream must never keep a `kill` waiting.
        # The pool hands out what has rested longest, so calls that come back every few seconds
        # would keep what a burst has opened; making a connection anew costs next to nothing.
        self._connector = aiohttp.UnixConnector(self.socket, limit=0, keepalive_timeout=_REST_S)
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=3)
        self._docker = Docker(
            url="unix://localhost", connector=self._connector, timeout=timeout, api_version="v1.41"
        )

    async def close(self) -> None:
        """Close the client and its connections."""
        if self._docker is not None:
            await self._docker.close()
        if self._connector is not None:
            await self._connector.close()

    @property
    def docker(self) -> Docker:
        """The open client."""
        assert self._docker is not None, "the line is not open"  # noqa: S101 - a bug of ours
        return self._docker

    async def agree(self) -> dict[str, Any]:
        """Ask for the engine's version, and speak the newest that both know.

        Raises:
            Unavailable: no answer, or no common version.
        """
        said = await self.ask("GET", "version", doing="asking for its version", unversioned=True)
        with understanding("engine", "asking for its version"):
            newest = version_of(said["ApiVersion"])
            oldest = version_of(said.get("MinAPIVersion", ""))
        if newest < OLDEST_API or oldest > NEWEST_API:
            raise Unavailable(
                f"engine {said.get('Version', '?')}",
                "agreeing on an API version",
                f"It speaks {said.get('MinAPIVersion', '?')} to {said['ApiVersion']}, this agent "
                f"1.{OLDEST_API[1]} to 1.{NEWEST_API[1]}; use another version of one of them.",
                kind="answered",
                status=400,
            )
        self.api = min(newest, NEWEST_API)
        self.docker.api_version = f"v{self.api[0]}.{self.api[1]}"
        return dict(said)

    async def ask(  # noqa: PLR0913 - a request has so many parts
        self,
        method: str,
        path: str,
        *,
        what: str = "engine",
        doing: str,
        params: Mapping[str, Any] | None = None,
        body: Any = None,
        within_s: float = CALL_S,
        unversioned: bool = False,
    ) -> Any:
        """Make one call and read its JSON answer; None where there is none.

        Raises:
            Unavailable: no answer in time, none at all, or an error.
        """
        with speaking(what, doing):
            async with (
                asyncio.timeout(within_s),
                self.docker._query(  # noqa: SLF001 - the library lacks several calls we need
                    path,
                    method,
                    params=_flat(params),
                    data=None if body is None else json.dumps(body),
                    headers=None if body is None else {"Content-Type": "application/json"},
                    versioned_api=not unversioned,
                ) as answer,
                _closed_after(answer),
            ):
                text = await answer.text()
                return json.loads(text) if text.lstrip().startswith(("{", "[")) else None

    @asynccontextmanager
    async def stream(
        self,
        path: str,
        *,
        method: str = "GET",
        what: str = "engine",
        doing: str,
        params: Mapping[str, Any] | None = None,
        data: AsyncIterator[bytes] | None = None,
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """Make a call whose answer (or body) is long; only its beginning is bounded in time.

        Raises:
            Unavailable: no beginning, or the connection broke while the block was in it.
        """
        with speaking(what, doing):
            scope = asyncio.timeout(CALL_S if data is None else None)
            async with (
                scope,
                self.docker._query(  # noqa: SLF001 - as above
                    path,
                    method,
                    params=_flat(params),
                    data=data,
                    headers=None if data is None else {"Content-Type": "application/x-tar"},
                ) as answer,
                _closed_after(answer),
            ):
                scope.reschedule(None)
                yield answer

    @asynccontextmanager
    async def trickle(
        self, path: str, *, what: str, doing: str, params: Mapping[str, Any]
    ) -> AsyncIterator[Answer]:
        """Make a call whose long answer is read no further than it is taken.

        Raises:
            Unavailable: no beginning, or the connection broke while the block was in it.
        """
        target = f"/{self.docker.api_version}/{path}?{urlencode(params)}"
        with speaking(what, doing):
            async with asyncio.timeout(CALL_S) as scope:
                try:
                    connection = await _connected(self.socket)
                except OSError as error:
                    hint = _unconnected(error)
                    raise Unavailable(what, doing, hint, kind="not_sent") from error
                with connection:
                    answer = await get(connection, target)
                    scope.reschedule(None)
                    yield answer


async def _connected(path: str) -> socket.socket:
    made = socket.socket(socket.AF_UNIX)
    try:
        made.setblocking(False)
        await asyncio.get_running_loop().sock_connect(made, path)
    except BaseException:
        made.close()
        raise
    return made


@asynccontextmanager
async def _closed_after(answer: aiohttp.ClientResponse) -> AsyncIterator[None]:
    """Close what is not read to its end: the library leaves it open when we are interrupted."""
    try:
        yield
    finally:
        answer.close()


def _flat(params: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """Filters are JSON inside of the query."""
    if params is None:
        return None
    return {
        key: json.dumps(value) if isinstance(value, dict) else value
        for key, value in params.items()
    }


@contextmanager
def speaking(what: str, doing: str) -> Iterator[None]:
    """Turn whatever can go wrong on the way to an engine into `Unavailable`."""
    try:
        yield
    except DockerError as error:
        if isinstance(error.__context__, aiohttp.ClientConnectorError):
            hint = _unconnected(error.__context__.os_error)
            raise Unavailable(what, doing, hint, kind="not_sent") from error
        answered, hint = error.status < _TRANSPORT_ERROR, _sentence(error.message)
        raise Unavailable(
            what,
            doing,
            hint,
            kind="answered" if answered else "unknown",
            status=error.status if answered else 0,
            passing=passes(hint),
        ) from error
    except aiohttp.ClientConnectorError as error:
        raise Unavailable(what, doing, _unconnected(error.os_error), kind="not_sent") from error
    except (FileNotFoundError, ConnectionRefusedError) as error:
        raise Unavailable(what, doing, _NOT_THERE, kind="not_sent") from error
    except TimeoutError as error:
        hint = "The engine did not answer in time; is it overloaded or stopped?"
        raise Unavailable(what, doing, hint) from error
    except (aiohttp.ClientError, OSError) as error:
        raise Unavailable(
            what, doing, f"The connection broke: {error or type(error).__name__}."
        ) from error
    except ValueError as error:
        raise Unavailable(what, doing, f"The answer makes no sense: {error}.") from error


def _unconnected(error: OSError) -> str:
    if isinstance(error, PermissionError):
        return _NOT_ALLOWED
    if error.errno in SHORTAGES:
        return f"This agent cannot open a connection to it: {error.strerror}."
    return _NOT_THERE


@contextmanager
def understanding(what: str, doing: str) -> Iterator[None]:
    """Turn what an engine left out of an answer, or wrote otherwise, into `Unavailable`."""
    try:
        yield
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        raise Unavailable(what, doing, f"The answer makes no sense: {error!r}.") from error


def _sentence(message: object) -> str:
    text = " ".join(str(message).split())[:500]
    return text if text.endswith(".") else f"{text}."
