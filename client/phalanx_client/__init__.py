"""The client asks: command line and library.

`Client`, `BlockingClient`, `connect` and `connect_blocking` are looked up when first used: the
command line must start faster than they load.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from phalanx_client.blocking import BlockingClient as BlockingClient
    from phalanx_client.connection import connect as connect
    from phalanx_client.connection import connect_blocking as connect_blocking
    from phalanx_client.session import Client as Client

_HOMES = {
    "BlockingClient": "blocking",
    "Client": "session",
    "connect": "connection",
    "connect_blocking": "connection",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
