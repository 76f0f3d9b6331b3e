"""Who may come in through the agents' door: the store's answers in the link's words."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from phalanx_manager.clock import Clock
from phalanx_manager.core.model import Refusal
from phalanx_manager.rpc.failure import Unavailable
from phalanx_manager.rpc.port import JoinKey, KnownAgent
from phalanx_manager.store import port as store
from phalanx_manager.store.port import Store
from phalanx_wire.ids import AgentId


class Directory:
    """The `KeyDirectory` of the link."""

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store = store
        self._clock = clock

    async def who(self, public_key: str) -> KnownAgent | JoinKey | None:
        """Tell whose key this is; None is a stranger's."""
        with _asking():
            agent = await self._store.agent_by_key(public_key)
            if agent is not None:
                return KnownAgent(agent.name, agent.cluster)
            return None if await self._store.agent_token(public_key) is None else JoinKey()

    async def enrol(self, token_key: str, name: AgentId, agent_key: str) -> KnownAgent | Refusal:
        """Spend a join token."""
        now = self._clock.now()
        with _asking():
            outcome = await self._store.use_agent_token(token_key, name, agent_key, now)
        if isinstance(outcome, Refusal):
            return outcome
        return KnownAgent(outcome.agent.name, outcome.agent.cluster)


@contextmanager
def _asking() -> Iterator[None]:
    try:
        yield
    except store.Unavailable as error:
        raise Unavailable(error.what, error.doing, error.hint) from error
