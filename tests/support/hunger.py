"""What a host may run out of, taken from this process for a moment."""

from __future__ import annotations

import contextlib
import resource
from collections.abc import Iterator


@contextlib.contextmanager
def no_more_files() -> Iterator[None]:
    """No descriptor can be had."""
    with _limited(resource.RLIMIT_NOFILE, 3):
        yield


@contextlib.contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    """No file can be made longer than so many bytes: what is written beyond is taken in part."""
    with _limited(resource.RLIMIT_FSIZE, size):
        yield


@contextlib.contextmanager
def _limited(limit: int, value: int) -> Iterator[None]:
    soft, hard = resource.getrlimit(limit)
    resource.setrlimit(limit, (value, hard))
    try:
        yield
    finally:
        resource.setrlimit(limit, (soft, hard))
