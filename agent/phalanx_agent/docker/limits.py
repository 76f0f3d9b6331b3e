"""What containers of this host may have at most."""

from __future__ import annotations

from phalanx_agent.docker.containers import Ulimits


def shortfalls(granted: Ulimits) -> tuple[str, ...]:
    """What containers of this host get less of than they should, as sentences."""
    wanted, found = Ulimits(), []
    if granted.nofile < wanted.nofile:
        found.append(
            f"Containers may open {granted.nofile} files here, not {wanted.nofile}: the host "
            f"allows no more."
        )
    if granted.memlock != wanted.memlock:
        found.append("Containers may lock little memory here, which RDMA needs: the host's limit.")
    return tuple(found)
