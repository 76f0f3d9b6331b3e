"""One session in a program's hands: from `Client.run`, or `Client.attach` for one that is there.

async with await client.run(SessionSpec(image="my/torch", size=4, command=CMD)) as session:
    await session.follow()
    await session.result()
"""

from __future__ import annotations

import math
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from typing import TYPE_CHECKING, Self

from phalanx_client.failure import TRY_AGAIN, Failure
from phalanx_client.inside import Completed
from phalanx_wire.api import ENDED_STATES, EventView, LogEvent, SessionView, WhyView

if TYPE_CHECKING:
    from phalanx_client.session import Client


class SessionFailed(Failure):
    """A session ended otherwise than well; the text is what `phalanx why` says.

    Attributes:
        view: the session as it ended.
        why: the reasons, the likeliest first.
    """

    def __init__(self, view: SessionView, why: WhyView) -> None:
        reasons: list[str] = []
        for found in why.findings:
            reasons.append(found.text if found.certain else f"likely: {found.text}")
            reasons += [f"  {found.hint}"] if found.hint else []
        super().__init__("\n  ".join([f"session {view.name}: {view.state}", *reasons]))
        self.view = view
        self.why = why


class Session:
    """A session; leaving its context stops it, and waits until nothing of it is left on any host.

    Attributes:
        view: as it was when it was last asked for.
    """

    def __init__(self, client: Client, view: SessionView) -> None:
        self._client = client
        self.view = view

    @property
    def id(self) -> str:
        """Its id."""
        return self.view.id

    @property
    def name(self) -> str:
        """Its name."""
        return self.view.name

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._client.stop(self.id)
        await self._client.wait(self.id, "removed")

    async def refresh(self) -> SessionView:
        """The session as it is now."""
        self.view = await self._client.session(self.id)
        return self.view

    async def running(self, timeout_s: float = math.inf) -> SessionView:
        """Wait until its command runs.

        Raises:
            SessionFailed: it ended otherwise than well before.
            Failure: it does not run yet after `timeout_s`; the text says why.
        """
        view = await self._client.wait(self.id, "running", timeout_s)
        return await self._judged(view, "does not run yet", timeout_s)

    async def wait(self, timeout_s: float = math.inf) -> SessionView | None:
        """Wait until it has ended, however; None: not in time."""
        view = await self._client.wait(self.id, "ended", timeout_s)
        self.view = view or self.view
        return view

    async def result(self, timeout_s: float = math.inf) -> SessionView:
        """Wait until it has ended well.

        Raises:
            SessionFailed: it ended otherwise.
            Failure: it has not ended after `timeout_s`; the text says why.
        """
        view = await self._client.wait(self.id, "ended", timeout_s)
        return await self._judged(view, "has not ended", timeout_s)

    async def logs(
        self, *, follow: bool = False, ranks: str = "", tail: int | None = None
    ) -> AsyncGenerator[LogEvent, None]:
        """Its output, merged; with `follow` until it ends. `ranks` is like `0,2-3`."""
        lines = self._client.logs(self.id, follow=follow, ranks=ranks, tail=tail)
        async with aclosing(lines):
            async for _, line in lines:
                yield line

    async def follow(self, tell: Callable[[str], object] = print) -> SessionView:
        """Tell its output line by line, and what happens to it beside, until it has ended."""
        before = self._client.news

        def tell_news(event: EventView) -> None:
            tell(f"phalanx: {event.text}")

        self._client.news = tell_news
        try:
            lines = self._client.logs(self.id, follow=True)
            async with aclosing(lines):
                async for _, line in lines:
                    tell(f"[{line.rank} {line.host_name}] {line.text}")
        finally:
            self._client.news = before
        return await self._ended()

    async def exec(self, command: Sequence[str], rank: int = 0, stdin: bytes = b"") -> Completed:
        """Run a command in one of its containers, to its end."""
        return await self._client.exec(self.id, command, rank=rank, stdin=stdin)

    async def why(self) -> WhyView:
        """Why it waits, is stuck or has failed, the likeliest reason first."""
        return await self._client.why(self.id)

    async def stop(self, grace_s: float | None = None) -> SessionView:
        """Stop it, and wait until it has ended."""
        await self._client.stop(self.id, grace_s)
        return await self._ended()

    async def _ended(self) -> SessionView:
        view = await self.wait()
        assert view is not None  # noqa: S101 - it was waited for without a limit
        return view

    async def _judged(self, view: SessionView | None, yet: str, timeout_s: float) -> SessionView:
        if view is None:
            why = await self._client.why(self.id)
            reason = f": {why.findings[0].text}" if why.findings else ""
            text = f"session {self.name} {yet} after {timeout_s:g} s{reason}"
            raise Failure(text, TRY_AGAIN)
        self.view = view
        if view.state in ENDED_STATES and view.state != "succeeded":
            raise SessionFailed(view, await self._client.why(self.id))
        return view
