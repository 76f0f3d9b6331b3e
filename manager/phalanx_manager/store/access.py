"""Who may come in: agents and tokens."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta

from phalanx_manager.core.explain import SUSPECT_S
from phalanx_manager.core.model import AgentRecord, Refusal
from phalanx_manager.store import rows
from phalanx_manager.store.database import Database
from phalanx_manager.store.port import Joined, TokenRow
from phalanx_wire.control import Observed
from phalanx_wire.ids import AgentId


class Access:
    """The part of the store that knows agents and tokens; see `port.Store`."""

    def __init__(self, database: Database, on_agent_event: Callable[[], None]) -> None:
        self._database = database
        self._on_agent_event = on_agent_event
        self._agents: dict[AgentId, AgentRecord] = {}
        for row in database.rows("agents", {}):
            record = rows.agent(row)
            self._agents[record.name] = record
        self._expelled = self._revoked_agents()

    # -- agents

    async def saw(self, agent: AgentId, observed: Observed, at: datetime) -> bool:
        """See `port.Store`."""
        known = self._agents.get(agent)
        if known is None:
            return False
        kept = rows.lasting(observed)
        fresh = known.observed is None or rows.lasting(known.observed) != kept or known.lost
        if fresh:
            values = {"name": agent, "observed": rows.spell_observed(kept)}
            with self._database.transaction():
                self._database.run("agent_saw", {**values, "seen_at": rows.micros(at)})
        self._agents[agent] = replace(
            known, observed=observed, seen_at=at, connected=True, lost=False
        )
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
        with self._database.transaction():
            self._database.run("agent_lost", {"name": agent})
            text = f"agent {agent} is lost: its kernels are given up"
            event = {"at": rows.micros(at), "kind": "agent.lost", "text": text}
            self._database.run("event_add", {**event, "session": None, "rank": None})
        self._agents[agent] = replace(known, lost=True)
        self._on_agent_event()

    async def agents(self) -> tuple[AgentRecord, ...]:
        """See `port.Store`."""
        return tuple(self._agents[name] for name in sorted(self._agents))

    async def agent_by_key(self, public_key: str) -> AgentRecord | None:
        """See `port.Store`."""
        found = next((a for a in self._agents.values() if a.public_key == public_key), None)
        return None if found is None or found.name in self._expelled else found

    def _revoked_agents(self) -> frozenset[AgentId]:
        """Find the agents whose key came by a join token that is revoked now."""
        return frozenset(AgentId(row[0]) for row in self._database.rows("agents_revoked", {}))

    # -- tokens

    async def add_token(self, token: TokenRow) -> None:
        """See `port.Store`."""
        with self._database.transaction():
            self._database.run(
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
        found = self._database.rows(
            "token_columns", {"hash": secret_hash}, "WHERE secret_hash = :hash"
        )
        return rows.token(found[0]) if found else None

    async def tokens(self) -> tuple[TokenRow, ...]:
        """See `port.Store`."""
        found = self._database.rows("token_columns", {}, "ORDER BY created_at DESC, id")
        return tuple(rows.token(row) for row in found)

    async def revoke_token(self, token: str) -> TokenRow | None:
        """See `port.Store`."""
        with self._database.transaction():
            self._database.run("token_revoke", {"id": token})
        self._expelled = self._revoked_agents()
        found = self._database.rows("token_columns", {"id": token}, "WHERE id = :id")
        return rows.token(found[0]) if found else None

    async def agent_token(self, public_key: str) -> TokenRow | None:
        """See `port.Store`."""
        found = self._token_row(public_key)
        return rows.token(found) if found is not None else None

    async def use_agent_token(
        self, public_key: str, agent: AgentId, agent_public_key: str, at: datetime
    ) -> Joined | Refusal:
        """See `port.Store`."""
        record: AgentRecord | None = None
        with self._database.transaction():
            row = self._token_row(public_key)
            refusal = self._why_not(row, agent, agent_public_key, at)
            if refusal is not None:
                return refusal
            known = self._agents.get(agent)
            if row is not None and (known is None or agent in self._expelled):
                token = rows.token(row)
                record = AgentRecord(agent, token.cluster, agent_public_key, at)
                values = {"name": agent, "cluster": token.cluster, "public_key": agent_public_key}
                statement = "agent_add" if known is None else "agent_add_again"
                self._database.run(statement, {**values, "joined_at": rows.micros(at)})
                used = {"id": token.id, "agent": agent, "key": agent_public_key}
                self._database.run("token_use", used)
                text = f"agent {agent} joined cluster {token.cluster}"
                event = {"at": rows.micros(at), "kind": "agent.joined", "text": text}
                self._database.run("event_add", {**event, "session": None, "rank": None})
        if record is not None:
            self._agents[agent] = record
            self._expelled = self._revoked_agents()
            self._on_agent_event()
        return Joined(self._agents[agent])

    def _token_row(self, public_key: str) -> rows.Row | None:
        found = self._database.rows(
            "token_columns", {"key": public_key}, "WHERE public_key = :key AND kind = 'agent'"
        )
        return found[0] if found else None

    def _why_not(
        self, row: rows.Row | None, agent: AgentId, key: str, at: datetime
    ) -> Refusal | None:
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
        if token.name and token.name != agent:
            title = f"the join token is for agent {token.name}, not {agent}"
            return Refusal("agent_name_mismatch", 409, title, hint="set the agent's name to that")
        taken = agent in self._agents and agent not in self._expelled
        if taken or any(a.public_key == key for a in self._agents.values()):
            title = f"there is an agent {agent} already, or its key is known under another name"
            return Refusal("agent_name_taken", 409, title, hint="give this agent another name")
        return None
