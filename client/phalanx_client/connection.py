"""From a configuration to a client."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence

from phalanx_client import config
from phalanx_client.blocking_client import BlockingClient
from phalanx_client.either import EitherTransport
from phalanx_client.failure import Away, Unavailable
from phalanx_client.inside import Inside
from phalanx_client.paced import PacedTransport
from phalanx_client.plain import PlainTransport
from phalanx_client.session import Client
from phalanx_client.transport import Transport


def connect(url: str | None = None, token: str | None = None, *, patience_s: float = 0.0) -> Client:
    """A client for programs with an event loop; call it inside of one.

    Raises:
        Failure: no manager is named by argument, environment or configuration file.
    """
    from phalanx_client.aio import AioTransport  # noqa: PLC0415 - slow, and only needed here

    manager = config.find(url, token, os.environ)
    transport = _to([AioTransport(one) for one in manager.each()])
    return Client(transport, patience_s=patience_s, inside=Inside(manager))


def connect_blocking(
    url: str | None = None, token: str | None = None, *, patience_s: float = 0.0
) -> BlockingClient:
    """The same for programs without one."""
    return BlockingClient(plain_client(config.find(url, token, os.environ), patience_s=patience_s))


def plain_client(
    manager: config.Manager,
    *,
    patience_s: float = 0.0,
    on_wait: Callable[[Unavailable | Away], None] | None = None,
) -> Client:
    """A client whose coroutines `blocking.finish` can run."""
    transport = _to([PlainTransport(one) for one in manager.each()])
    inside = Inside(manager, apart=True)
    return Client(transport, patience_s=patience_s, on_wait=on_wait, inside=inside)


def _to(managers: Sequence[Transport]) -> Transport:
    return PacedTransport(EitherTransport(managers))
