"""Who may come in: agents and tokens."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import datetime, timedelta

from phalanx_manager.core import clusters
from phalanx_manager.core.explain import SUSPECT_S
from phalanx_manager.core.model import AgentRecord, Drain, Refusal
from phalanx_manager.store import rows
from phalanx_manager.store.clusters import Clusters, tell
from phalanx_manager.store.port import Joined, TokenRow
from phalanx_manager.store.tables import Row, Tables, Writes
from phalanx_wire.control import Observed
from phalanx_wire.ids import AgentId


class Access(Clusters):
    """The part of the store that knows agents and tokens; see `port.Store`."""

    def __init__(self, tables: Tables, on_agent_event: Callable[[], None]) -> None:
        super().__init__(tables, on_agent_event)
        self._expelled: frozenset[AgentId] = frozenset()
        self._forgotten: set[AgentId] = set()

    async def reload_agents(self) -> None:
        """Read all agents; whose link is up is only known here."""
        every = await self._tables.read("agents", {})
        self._forgotten = {AgentId(row[0]) for row in every if row[12]}
        found = [rows.agent(row) for row in every if not row[12]]
        self._expelled = await self._revoked_agents()
        up = {record.name for record in self._agents.values() if record.connected}
        self._agents = {one.name: replace(one, connected=one.name in up) for one in found}

    # -- agents

    async def saw(self, agent: AgentId, observed: Observed, at: datetime) -> bool:
        """See `port.Store`."""
        known = self._agents.get(agent)
        if known is None:
            return False
        kept = rows.lasting(observed)
        fresh = known.observed is None or rows.lasting(known.observed) != kept or known.lost
        news = {"observed": observed, "seen_at": at, "connected": True, "lost": False}
        if fresh:
            writes = Writes()
            values = {"name": agent, "observed": rows.spell_observed(kept)}
            writes.run("agent_saw", {**values, "seen_at": rows.micros(at)})
            _tell_health(writes, known, observed, at)
            await self._change_agent(writes, agent, news)
            if observed.left or len(writes.all) > 1:
                self._on_agent_event()
        else:
            self._agents[agent] = replace(known, **news)  # type: ignore[arg-type]
        silent = known.seen_at is None or at - known.seen_at > timedelta(seconds=SUSPECT_S)
        return fresh or silent or not known.connected

    async def link(self, agent: AgentId, *, up: bool, at: datetime) -> None:
        """See `port.Store`."""
        known = self._agents.get(agent)
        if known is not None:
            seen_at = at if up else known.seen_at
            self._agents[agent] = replace(known, connected=up, seen_at=seen_at)

    async def lose(self, agent: AgentId, at: datetime) -> None:
        """See `port.Store`."""
        known = self._agents.get(agent)
        if known is None:
            return
        writes = Writes()
        writes.run("agent_lost", {"name": agent})
        text = f"agent {agent} is lost: its kernels are given up"
        tell(writes, at, "agent.lost", text, known.cluster)
        await self._change_agent(writes, agent, {"lost": True})
        self._on_agent_event()

    async def drain(self, agent: AgentId, drain: Drain | None, text: str, at: datetime) -> bool:
        """See `port.Store`."""
        known = self._agents.get(agent)
        if known is None:
            return False
        writes = Writes()
        writes.run("agent_drain", rows.drain_values(agent, drain))
        tell(writes, at, "agent.drained" if drain else "agent.undrained", text, known.cluster)
        await self._change_agent(writes, agent, {"drain": drain})
        self._on_agent_event()
        return True

    async def forget(self, agent: AgentId, text: str, at: datetime) -> None:
        """See `port.Store`."""
        async with self._alone():
            known = self._agents.get(agent)
            if known is None:
                return
            writes = Writes()
            writes.run("agent_forget", {"name": agent})
            tell(writes, at, "agent.forgotten", text, known.cluster)

            def settled(well: bool) -> None:  # noqa: FBT001 - see `tables.Settled`
                if well:
                    self._agents.pop(agent, None)
                    self._forgotten.add(agent)

            await self._commit_alone(writes, settled)
        self._on_agent_event()

    async def agents(self) -> tuple[AgentRecord, ...]:
        """See `port.Store`."""
        return tuple(self._agents[name] for name in sorted(self._agents))

    async def agent_by_key(self, public_key: str) -> AgentRecord | None:
        """See `port.Store`."""
        found = next((a for a in self._agents.values() if a.public_key == public_key), None)
        return None if found is None or found.name in self._expelled else found

    async def _change_agent(
        self, writes: Writes, agent: AgentId, news: Mapping[str, object]
    ) -> None:
        """Write, and then say the same of the agent as we know it by then, if we still do."""

        def settled(well: bool) -> None:  # noqa: FBT001 - see `tables.Settled`
            known = self._agents.get(agent)
            if well and known is not None:
                self._agents[agent] = replace(known, **news)  # type: ignore[arg-type]

        await asyncio.shield(self._tables.commit(writes, settled))

    async def _revoked_agents(self) -> frozenset[AgentId]:
        """Find the agents whose key came by a join token that is revoked now."""
        return frozenset(AgentId(row[0]) for row in await self._tables.read("agents_revoked", {}))

    # -- tokens

    async def add_token(self, token: TokenRow) -> None:
        """See `port.Store`."""
        await self._write(
            "token_add",
            {
                "id": token.id,
                "kind": token.kind,
                "name": token.name,
                "scope": token.scope,
                "cluster": token.cluster,
                "created_at": rows.micros(token.created_at),
                "expires_at": rows.micros(token.expires_at),
                "secret_hash": token.secret_hash or None,
                "public_key": token.public_key or None,
            },
        )

    async def token_by_hash(self, secret_hash: str) -> TokenRow | None:
        """See `port.Store`."""
        found = await self._tables.read(
            "token_columns", {"hash": secret_hash}, "WHERE secret_hash = :hash"
        )
        return rows.token(found[0]) if found else None

    async def tokens(self) -> tuple[TokenRow, ...]:
        """See `port.Store`."""
        found = await self._tables.read("token_columns", {}, "ORDER BY created_at DESC, id")
        return tuple(rows.token(row) for row in found)

    async def revoke_token(self, token: str) -> TokenRow | None:
        """See `port.Store`."""
        async with self._alone():
            await self._write("token_revoke", {"id": token})
            self._expelled = await self._revoked_agents()
        found = await self._tables.read("token_columns", {"id": token}, "WHERE id = :id")
        return rows.token(found[0]) if found else None

    async def agent_token(self, public_key: str) -> TokenRow | None:
        """See `port.Store`."""
        found = await self._token_row(public_key)
        return rows.token(found) if found is not None else None

    async def use_agent_token(
        self, public_key: str, agent: AgentId, agent_public_key: str, at: datetime
    ) -> Joined | Refusal:
        """See `port.Store`."""
        async with self._alone():  # one after the other: a token is spent once
            row = await self._token_row(public_key)
            refusal = self._why_not(row, agent, agent_public_key, at)
            if refusal is not None:
                return refusal
            known = self._agents.get(agent)
            if row is not None and (known is None or agent in self._expelled):
                token = rows.token(row)
                record = AgentRecord(agent, token.cluster, agent_public_key, at)
                again = known is not None or agent in self._forgotten
                await self._admit(token, record, again=again)
                self._on_agent_event()
        return Joined(self._agents[agent])

    async def _admit(self, token: TokenRow, record: AgentRecord, *, again: bool) -> None:
        writes = Writes()
        at = record.joined_at
        values = {"cluster": record.cluster, "public_key": record.public_key}
        writes.run(
            "agent_add_again" if again else "agent_add",
            {"name": record.name, **values, "joined_at": rows.micros(at)},
        )
        used = {"id": token.id, "agent": record.name, "key": record.public_key}
        writes.run("token_use", used, exactly=1)
        text = f"agent {record.name} joined cluster {record.cluster}"
        tell(writes, at, "agent.joined", text, record.cluster)

        def settled(well: bool) -> None:  # noqa: FBT001 - see `tables.Settled`
            # Here, not where it is awaited: an agent that has hung up meanwhile asks again.
            if well:
                self._forgotten.discard(record.name)
                self._expelled -= {record.name}
                self._agents[record.name] = record

        await self._commit_alone(writes, settled)

    async def _token_row(self, public_key: str) -> Row | None:
        found = await self._tables.read(
            "token_columns", {"key": public_key}, "WHERE public_key = :key AND kind = 'agent'"
        )
        return found[0] if found else None

    def _why_not(self, row: Row | None, agent: AgentId, key: str, at: datetime) -> Refusal | None:
        """Find what speaks against a join; the same agent saying the same again is welcome."""
        again = "make another with `phalanx token create --agent`"
        if row is None:
            return Refusal("token_unknown", 401, "the join token is not known here", hint=again)
        token = rows.token(row)
        if token.revoked:
            return Refusal("token_revoked", 401, "the join token is revoked", hint=again)
        if token.used_by is not None:
            if (token.used_by, row[11]) == (agent, key) and agent in self._agents:
                return None
            title = f"the join token was used by agent {token.used_by}"
            return Refusal("token_used", 401, title, hint=again)
        if token.expires_at is not None and token.expires_at <= at:
            return Refusal("token_expired", 401, "the join token has expired", hint=again)
        shut = clusters.closed(self.clusters_in_use(), token.cluster)
        if shut is not None:
            return shut
        if token.name and token.name != agent:
            title = f"the join token is for agent {token.name}, not {agent}"
            return Refusal("agent_name_mismatch", 409, title, hint="set the agent's name to that")
        taken = agent in self._agents and agent not in self._expelled
        if taken or any(a.public_key == key for a in self._agents.values()):
            title = f"there is an agent {agent} already, or its key is known under another name"
            return Refusal("agent_name_taken", 409, title, hint="give this agent another name")
        return None


def _tell_health(writes: Writes, known: AgentRecord, observed: Observed, at: datetime) -> None:
    """Tell when an agent is able to work for the first time, when it is not any more, and again."""
    before = known.observed.engine.problem if known.observed is not None else None
    now = observed.engine.problem
    if before == now and not known.lost:
        return
    kind, said = (
        ("agent.degraded", f"cannot take work: {now}") if now else ("agent.ready", "is ready")
    )
    tell(writes, at, kind, f"agent {known.name} {said}", known.cluster)
