"""The blocking twin of the library, for scripts and notebooks.

Made from `session.py` and `handle.py` by `python -m tests.house.blocking_twin`; a test fails when
they differ. See there for what each does.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import BinaryIO, Self

from phalanx_client.blocking import finish, iterate
from phalanx_client.handle import Session
from phalanx_client.inside import Completed
from phalanx_client.session import Client, Until
from phalanx_wire.api import (
    CreateAgentToken,
    CreateToken,
    DrainRequest,
    DryRun,
    EnvView,
    EventView,
    LogEvent,
    NodeList,
    NodeView,
    SessionList,
    SessionView,
    SshView,
    TokenCreated,
    TokenList,
    UploadCreated,
    WhyView,
)
from phalanx_wire.pools import ClusterList, ClusterView
from phalanx_wire.spec import SessionSpec
from phalanx_wire.stream import Recipients


class BlockingClient:
    """`Client`, called without `await`."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        finish(self._client.__aexit__())

    def run(
        self, spec: SessionSpec, *, upload: str | None = None, seal: bool | None = None
    ) -> BlockingSession:
        """Start a session.

        Args:
            upload: a folder of this machine to copy into every container's /workspace.
            seal: so that the hosts that the cluster has now can read it, and nobody else; None is
                yes unless the environment says `PHALANX_SEAL=no`.

        Raises:
            Refused: with the manager's reason.
            Failure: there is no such folder, or no host yet to seal it for.
        """
        return BlockingSession(finish(self._client.run(spec, upload=upload, seal=seal)))

    def attach(self, ref: str) -> BlockingSession:
        """A session that is there already, by id, name or unique prefix."""
        return BlockingSession(finish(self._client.attach(ref)))

    def exec(
        self, ref: str, command: Sequence[str], *, rank: int = 0, stdin: bytes = b""
    ) -> Completed:
        """Run a command in a container, to its end.

        Raises:
            Refused: the session does not run, or the command could not be started.
            Failure: the command is a text.
        """
        return finish(self._client.exec(ref, command, rank=rank, stdin=stdin))

    def submit(self, spec: SessionSpec, key: str) -> SessionView:
        """Ask for a session; the same key and spec give the same session, however often."""
        return finish(self._client.submit(spec, key))

    def dry_run(self, spec: SessionSpec) -> DryRun:
        """Say where a session would go now."""
        return finish(self._client.dry_run(spec))

    def sessions(
        self, states: Iterable[str] = (), *, ended: bool = False, limit: int | None = None
    ) -> SessionList:
        """Sessions, newest first: the live ones, with `ended` also those that are over."""
        return finish(self._client.sessions(states, ended=ended, limit=limit))

    def session(self, ref: str) -> SessionView:
        """One session by id, name or unique prefix."""
        return finish(self._client.session(ref))

    def wait(self, ref: str, until: Until, timeout_s: float = math.inf) -> SessionView | None:
        """Wait until a session runs, has ended, or is gone from all hosts; None: not in time.

        What has ended is past `running` too. A view does not show whether anything is left on a
        host: there an answer before its time is the yes.
        """
        return finish(self._client.wait(ref, until, timeout_s))

    def look(self, ref: str, until: Until, timeout_s: float) -> SessionView:
        """A session as it is when it runs or has ended, or else after the time: one long poll."""
        return finish(self._client.look(ref, until, timeout_s))

    def stop(self, ref: str, grace_s: float | None = None) -> None:
        """Stop a session; a repeated stop changes nothing."""
        finish(self._client.stop(ref, grace_s))

    def requeue(self, ref: str) -> SessionView:
        """Stop what runs of a session and put it back into the queue, as its next attempt."""
        return finish(self._client.requeue(ref))

    def hold(self, ref: str, *, held: bool) -> SessionView:
        """Keep a waiting session in the queue, or let it go."""
        return finish(self._client.hold(ref, held=held))

    def extend(self, ref: str, seconds: float) -> SessionView:
        """Add to a session's time limit."""
        return finish(self._client.extend(ref, seconds))

    def signal(
        self,
        ref: str,
        signal: str,
        ranks: tuple[int, ...] | None = None,
        to: Recipients | None = None,
    ) -> None:
        """Send a signal to the command of all ranks, or of some; or to the tasks of steps."""
        finish(self._client.signal(ref, signal, ranks, to))

    def env(self, ref: str, rank: int | None = None) -> EnvView:
        """The environment of every rank, or of one."""
        return finish(self._client.env(ref, rank))

    def why(self, ref: str) -> WhyView:
        """Why a session waits, is stuck or has failed, the likeliest reason first."""
        return finish(self._client.why(ref))

    def ssh(self, ref: str) -> SshView:
        """The host keys of a session's ssh servers."""
        return finish(self._client.ssh(ref))

    def events(
        self, ref: str | None = None, *, follow: bool = False, after: str = ""
    ) -> Iterator[EventView]:
        """What happened to a session, or to all; follows over restarts of the manager."""
        return iterate(self._client.events(ref, follow=follow, after=after))

    def logs(
        self,
        ref: str,
        *,
        follow: bool = False,
        ranks: str = "",
        since: str = "",
        tail: int | None = None,
        after: str = "",
    ) -> Iterator[tuple[str, LogEvent]]:
        """Lines of output, each with the point from which `after` resumes.

        `ranks` is like `0,2-3`, empty is all; `since` is a time in RFC 3339; of the last lines at
        most `tail` come.
        """
        return iterate(
            self._client.logs(ref, follow=follow, ranks=ranks, since=since, tail=tail, after=after)
        )

    def logs_of_attempt(
        self, ref: str, attempt: int, *, ranks: str = ""
    ) -> Iterator[tuple[str, LogEvent]]:
        """All lines of an attempt, also of one that is over; see `logs`."""
        return iterate(self._client.logs_of_attempt(ref, attempt, ranks=ranks))

    def upload(self, archive: BinaryIO, length: int) -> UploadCreated:
        """Store a tar archive, sealed or not; its digest is what `SessionSpec.upload` names."""
        return finish(self._client.upload(archive, length))

    def write_archive(self, ref: str, rank: int, path: str, archive: BinaryIO, length: int) -> None:
        """Unpack a tar archive into an existing folder of a container."""
        finish(self._client.write_archive(ref, rank, path, archive, length))

    def nodes(self) -> NodeList:
        """The agents and their hosts."""
        return finish(self._client.nodes())

    def drain(self, name: str, wish: DrainRequest) -> NodeView:
        """Give a host no new work."""
        return finish(self._client.drain(name, wish))

    def undrain(self, name: str) -> NodeView:
        """Give a host work again."""
        return finish(self._client.undrain(name))

    def forget(self, name: str) -> None:
        """Give up a host that is lost, and what it holds."""
        finish(self._client.forget(name))

    def create_token(self, wish: CreateToken) -> TokenCreated:
        """Make a bearer token."""
        return finish(self._client.create_token(wish))

    def create_agent_token(self, wish: CreateAgentToken) -> TokenCreated:
        """Make a token with which one agent may join."""
        return finish(self._client.create_agent_token(wish))

    def tokens(self) -> TokenList:
        """All tokens, without their secrets."""
        return finish(self._client.tokens())

    def revoke_token(self, token: str) -> None:
        """Make a token worthless."""
        finish(self._client.revoke_token(token))

    def create_cluster(self, name: str, *, reuse_name: bool = False) -> ClusterView:
        """Make a pool; hosts join it by tokens of `create_agent_token`."""
        return finish(self._client.create_cluster(name, reuse_name=reuse_name))

    def clusters(self, *, gone: bool = False) -> ClusterList:
        """All pools by name, on request also those that are gone."""
        return finish(self._client.clusters(gone=gone))

    def cluster(self, name: str) -> ClusterView:
        """One pool, also one that is gone."""
        return finish(self._client.cluster(name))

    def remove_cluster(self, name: str, *, force: bool = False) -> ClusterView:
        """Order a pool's end; by force agents that are away are not waited for."""
        return finish(self._client.remove_cluster(name, force=force))

    def wait_cluster(
        self, name: str, *, nodes: int = 1, removed: bool = False, timeout_s: float = math.inf
    ) -> ClusterView | None:
        """Wait until so many agents of a pool are ready, or until it is gone; None: not in time.

        A pool that is being removed gets no agents any more: it is given back as it is.
        """
        return finish(
            self._client.wait_cluster(name, nodes=nodes, removed=removed, timeout_s=timeout_s)
        )

    def cluster_events(
        self, name: str, *, follow: bool = False, after: str = ""
    ) -> Iterator[EventView]:
        """What happened in a pool; follows over restarts of the manager until it is gone."""
        return iterate(self._client.cluster_events(name, follow=follow, after=after))

    def close(self) -> None:
        """Give connections back."""
        finish(self._client.close())


class BlockingSession:
    """`Session`, called without `await`."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        finish(self._session.__aexit__())

    @property
    def id(self) -> str:
        """Its id."""
        return self._session.id

    @property
    def name(self) -> str:
        """Its name."""
        return self._session.name

    def refresh(self) -> SessionView:
        """The session as it is now."""
        return finish(self._session.refresh())

    def running(self, timeout_s: float = math.inf) -> SessionView:
        """Wait until its command runs.

        Raises:
            SessionFailed: it ended otherwise than well before.
            Failure: it does not run yet after `timeout_s`; the text says why.
        """
        return finish(self._session.running(timeout_s))

    def wait(self, timeout_s: float = math.inf) -> SessionView | None:
        """Wait until it has ended, however; None: not in time."""
        return finish(self._session.wait(timeout_s))

    def result(self, timeout_s: float = math.inf) -> SessionView:
        """Wait until it has ended well.

        Raises:
            SessionFailed: it ended otherwise.
            Failure: it has not ended after `timeout_s`; the text says why.
        """
        return finish(self._session.result(timeout_s))

    def logs(
        self, *, follow: bool = False, ranks: str = "", tail: int | None = None
    ) -> Iterator[LogEvent]:
        """Its output, merged; with `follow` until it ends. `ranks` is like `0,2-3`."""
        return iterate(self._session.logs(follow=follow, ranks=ranks, tail=tail))

    def follow(self, tell: Callable[[str], object] = print) -> SessionView:
        """Tell its output line by line, and what happens to it beside, until it has ended."""
        return finish(self._session.follow(tell))

    def exec(self, command: Sequence[str], rank: int = 0, stdin: bytes = b"") -> Completed:
        """Run a command in one of its containers, to its end."""
        return finish(self._session.exec(command, rank, stdin))

    def why(self) -> WhyView:
        """Why it waits, is stuck or has failed, the likeliest reason first."""
        return finish(self._session.why())

    def stop(self, grace_s: float | None = None) -> SessionView:
        """Stop it, and wait until it has ended."""
        return finish(self._session.stop(grace_s))

    @property
    def view(self) -> SessionView:
        """As it was when it was last asked for."""
        return self._session.view
