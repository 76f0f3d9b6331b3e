"""What can never be done, as against what cannot be done now."""

from __future__ import annotations


class Refused(Exception):  # noqa: N818 - an answer, not an accident
    """A kernel can never run here; the text is the sentence for its user."""
