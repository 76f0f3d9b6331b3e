"""The client asks: command line and library.

Its names are looked up when first used: the command line must start faster than they load.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from phalanx_client.blocking_client import BlockingClient as BlockingClient
    from phalanx_client.blocking_client import BlockingSession as BlockingSession
    from phalanx_client.connection import connect as connect
    from phalanx_client.connection import connect_blocking as connect_blocking
    from phalanx_client.failure import Failure as Failure
    from phalanx_client.failure import Refused as Refused
    from phalanx_client.failure import Unavailable as Unavailable
    from phalanx_client.handle import Session as Session
    from phalanx_client.handle import SessionFailed as SessionFailed
    from phalanx_client.inside import Completed as Completed
    from phalanx_client.session import Client as Client
    from phalanx_wire.spec import Mount as Mount
    from phalanx_wire.spec import Resources as Resources
    from phalanx_wire.spec import RoleSpec as RoleSpec
    from phalanx_wire.spec import SessionSpec as SessionSpec

_HOMES = {
    "BlockingClient": "phalanx_client.blocking_client",
    "BlockingSession": "phalanx_client.blocking_client",
    "Client": "phalanx_client.session",
    "Completed": "phalanx_client.inside",
    "Failure": "phalanx_client.failure",
    "Mount": "phalanx_wire.spec",
    "Refused": "phalanx_client.failure",
    "Resources": "phalanx_wire.spec",
    "RoleSpec": "phalanx_wire.spec",
    "Session": "phalanx_client.handle",
    "SessionFailed": "phalanx_client.handle",
    "SessionSpec": "phalanx_wire.spec",
    "Unavailable": "phalanx_client.failure",
    "connect": "phalanx_client.connection",
    "connect_blocking": "phalanx_client.connection",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
