"""Keeps a container from what all containers of a host have in common, before it runs anything."""

from __future__ import annotations

from pathlib import Path

from phalanx_agent.host import terminals, wayout


def confine(container_id: str, pid: int, subnet: str) -> None:
    """Narrow its way out, and bound its terminals; done already is fine.

    Args:
        pid: of its first process; a number that is another's by now changes nothing.
        subnet: of the way out; empty where it is not known yet.

    Raises:
        OSError: it could not be done.
    """
    try:
        of = Path(f"/proc/{pid}/cgroup").read_text("utf-8", errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return
    if container_id not in of:
        return
    if subnet:
        wayout.narrow(pid, subnet)
    terminals.bound(pid)
