"""What can never be done, as against what cannot be done now."""

from __future__ import annotations

import errno
from typing import Final

SHORTAGES: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
"""Errors by which a host says that it has nothing left, and not a word of what was asked for."""


class Refused(Exception):  # noqa: N818 - an answer, not an accident
    """A kernel can never run here; the text is the sentence for its user.

    Attributes:
        cause: of the `KernelReport`.
    """

    def __init__(self, text: str, cause: str = "refused") -> None:
        super().__init__(text)
        self.cause = cause
