"""Why things are as they are, in sentences."""

from __future__ import annotations

from phalanx_manager.core.model import Kernel, SessionRow


def session_reason(row: SessionRow) -> str | None:
    """Say why a session is not (or no longer) running; None when there is nothing to say."""
    raise NotImplementedError


def kernel_reason(kernel: Kernel) -> str | None:
    """Say why a kernel is in its state; None when there is nothing to say."""
    raise NotImplementedError
