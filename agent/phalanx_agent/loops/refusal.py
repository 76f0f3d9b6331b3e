"""How a call of the manager's is refused."""

from __future__ import annotations


class Refusal(Exception):  # noqa: N818 - an answer, not an accident
    """A call that cannot be served: a stable code and a sentence."""

    def __init__(self, code: str, why: str) -> None:
        super().__init__(why)
        self.code = code
