"""The agent's side of the link: join once, then stay connected for ever."""

from __future__ import annotations

import asyncio
import random
import secrets
import socket
from collections.abc import Callable, Iterator
from importlib import metadata
from itertools import cycle
from pathlib import Path
from typing import Final, Never, Protocol
from urllib.parse import urlsplit

import msgspec
import structlog
import zmq.asyncio

from phalanx_agent.rpc.dealer import Dealer, Unavailable, connect
from phalanx_agent.rpc.identity import (
    IdentityError,
    KeyPair,
    Manager,
    key_pair,
    own_keys,
    save_manager,
)
from phalanx_wire.codec import AnyMessage
from phalanx_wire.control import (
    FORGOTTEN,
    PROTOCOL,
    Beat,
    Enrol,
    Enrolled,
    Goals,
    Heard,
    Hello,
    Observed,
    Refused,
    Welcome,
)
from phalanx_wire.ids import AgentId
from phalanx_wire.join import JoinToken
from phalanx_wire.mux import Mux, Stream, StreamClosed
from phalanx_wire.stream import Call, Closed, Open

VERSION: Final = metadata.version("phalanx")
HELLO_EVERY_S: Final = 1.0
ANSWER_WITHIN_S: Final = 10.0
UNHEARD_S: Final = 10.0
"""For so long a manager may leave beats without an answer; longer than its lease lasts."""

BACKOFF_S: Final = (0.1, 2.0)
REFUSED_BACKOFF_S: Final = 15.0

_LOG = structlog.get_logger()


class JoinRefused(Exception):  # noqa: N818 - an answer, not an accident
    """The manager will not take this agent; the text is its sentence."""

    def __init__(self, code: str, why: str) -> None:
        super().__init__(why)
        self.code = code


class LinkHandler(Protocol):
    """Who is told what comes over the link; nothing here may block."""

    def welcomed(self, welcome: Welcome) -> None:
        """The manager knows us; whatever was said before is forgotten there."""

    def heard(self, number: int) -> None:
        """It has heard the beat of this number."""

    def goals(self, goals: Goals) -> None:
        """All that this agent shall have."""

    def opened(self, message: Open, stream: Stream) -> None:
        """The manager wants bytes."""

    def unknown(self, why: str, *, told: bool) -> None:
        """The manager does not know this agent: told so by it, or refused at its door."""

    def disconnected(self) -> None:
        """The connection of the last `welcomed` has broken."""


class Backoff:
    """Waits that grow until something succeeds; with a spread, so that agents do not march."""

    def __init__(self, shortest_s: float, longest_s: float) -> None:
        self._shortest_s = shortest_s
        self._longest_s = longest_s
        self._next_s = shortest_s

    def reset(self) -> None:
        """It went well."""
        self._next_s = self._shortest_s

    async def wait(self, at_least_s: float = 0.0) -> None:
        """Wait for the next try."""
        wait_s = max(self._next_s, at_least_s) * random.uniform(0.8, 1.2)  # noqa: S311 - no secret
        self._next_s = min(self._next_s * 2, self._longest_s)
        await asyncio.sleep(wait_s)


async def enrol(state_dir: Path, name: AgentId, token: JoinToken) -> Manager:
    """Join with a token: show it our own key, which from then on is who we are.

    The key is on the disk before it is shown, so a crash in between is repaired by doing it again.

    Raises:
        JoinRefused: the manager says no.
        IdentityError: the key cannot be kept.
    """
    own = own_keys(state_dir)
    with zmq.asyncio.Context() as context:
        backoff = Backoff(*BACKOFF_S)
        for address in cycle(token.addresses):
            try:
                cluster_id = await _enrol_at(context, address, token, name, own)
            except Unavailable as error:
                _LOG.warning("link.join-failed", address=address, why=str(error))
                await backoff.wait()
                continue
            manager = Manager(token.addresses, token.server_key, cluster_id)
            save_manager(state_dir, manager)
            return manager
    raise AssertionError("a join token has an address")


async def _enrol_at(
    context: zmq.asyncio.Context, address: str, token: JoinToken, name: AgentId, own: KeyPair
) -> str:
    """Enrol at one address; the manager's cluster id.

    A token that is refused may mean that we have enrolled before and died before we could note it:
    then our own key is known.
    """
    manager = (address, token.server_key)
    first = await _question(
        context, manager, key_pair(token.secret_key), Enrol(PROTOCOL, name, own.public)
    )
    answer = first
    if isinstance(first, Unavailable | Refused):
        hello = Hello(PROTOCOL, VERSION, name, secrets.token_hex(8))
        again = await _question(context, manager, own, hello)
        answer = again if isinstance(again, Welcome) else first
        if isinstance(again, Welcome) and isinstance(first, Refused):
            _LOG.warning("link.joined-before", why=first.why, cluster=again.cluster)
    if isinstance(answer, Unavailable):
        raise answer
    match answer:
        case Enrolled(cluster_id=cluster_id) | Welcome(cluster_id=cluster_id):
            return cluster_id
        case Refused(code=code, why=why):
            raise JoinRefused(code, why)
        case _:
            raise Unavailable("joining", f"It answered {type(answer).__name__}.")


async def _question(
    context: zmq.asyncio.Context, manager: tuple[str, str], keys: KeyPair, question: Enrol | Hello
) -> AnyMessage | Unavailable:
    """Ask; a key that is turned away at the door is an answer, too.

    Raises:
        Unavailable: the manager was not reached.
    """
    try:
        return await _ask(context, manager, keys, question)
    except Unavailable as error:
        if not error.stranger:
            raise
        return error


async def _ask(
    context: zmq.asyncio.Context, manager: tuple[str, str], keys: KeyPair, question: Enrol | Hello
) -> AnyMessage:
    """Say one thing on a connection of its own; the first answer."""
    first: asyncio.Future[AnyMessage] = asyncio.get_running_loop().create_future()

    def take(message: AnyMessage) -> None:
        if not first.done():
            first.set_result(message)

    async with connect(context, *manager, keys) as dealer:
        try:
            async with asyncio.timeout(ANSWER_WITHIN_S), asyncio.TaskGroup() as tasks:
                reader = tasks.create_task(dealer.receive(take))
                await dealer.send(question)
                answer = await first
                reader.cancel()
                return answer
        except TimeoutError as error:
            raise Unavailable("joining", "The manager did not answer.") from error


class Link:
    """The connection that the loops speak through; `run` keeps it up."""

    def __init__(
        self,
        name: AgentId,
        manager: Manager,
        own: KeyPair,
        handler: LinkHandler,
        note_epoch: Callable[[int], None] = lambda _epoch: None,
    ) -> None:
        """Args: note_epoch: remembers for the next process who leads."""
        self._hello = Hello(PROTOCOL, VERSION, name, secrets.token_hex(8))
        self._manager = manager
        self._own = own
        self._handler = handler
        self._dealer: Dealer | None = None
        self._mux: Mux | None = None
        self._welcome: asyncio.Event = asyncio.Event()
        self._heard: asyncio.Event = asyncio.Event()
        self._refused: Refused | None = None
        self._over = asyncio.Event()
        self._note_epoch = note_epoch

    @property
    def connected(self) -> bool:
        """Whether the manager has welcomed us on the present connection."""
        return self._dealer is not None and self._welcome.is_set()

    def say(self, message: Observed | Beat) -> bool:
        """Tell the manager what is; at once, or not at all while it is away."""
        return self._dealer is not None and self._welcome.is_set() and self._dealer.say(message)

    async def open(self, call: Call) -> Stream:
        """Ask the manager for bytes.

        Raises:
            StreamClosed: there is no connection.
        """
        if self._mux is None or not self._welcome.is_set():
            raise StreamClosed(Closed(1, code="link_lost", why="The manager is not connected."))
        return await self._mux.open(call)

    async def run(self) -> Never:
        """Stay connected for ever."""
        backoff = Backoff(*BACKOFF_S)
        addresses: Iterator[str] = cycle(self._manager.addresses)
        alone = len(self._manager.addresses) == 1
        with zmq.asyncio.Context() as context:
            while True:
                address = next(addresses)
                try:
                    async with connect(
                        context, address, self._manager.server_key, self._own, alone=alone
                    ) as dealer:
                        await self._converse(dealer, address, backoff.reset)
                except Unavailable as error:
                    _LOG.warning("link.unavailable", address=address, why=str(error))
                    if error.stranger:
                        self._handler.unknown(error.hint, told=False)
                refused, self._refused = self._refused, None
                if refused is not None:
                    _LOG.error("link.refused", code=refused.code, why=refused.why)
                    if refused.code == FORGOTTEN:
                        self._handler.unknown(refused.why, told=True)
                await backoff.wait(REFUSED_BACKOFF_S if refused else 0.0)

    async def _converse(self, dealer: Dealer, address: str, is_well: Callable[[], None]) -> None:
        """Speak over one connection until it breaks."""
        self._welcome.clear()
        self._over.clear()
        self._dealer = dealer
        self._mux = mux = Mux(dealer.send, 1, self._handler.opened)
        try:
            async with asyncio.TaskGroup() as tasks:
                talking = [
                    tasks.create_task(dealer.receive(self._take)),
                    tasks.create_task(self._greet(dealer)),
                    tasks.create_task(self._watch(dealer)),
                    tasks.create_task(self._listen()),
                ]
                await self._over.wait()
                for task in talking:
                    task.cancel()
        finally:
            self._dealer = self._mux = None
            mux.abort("The connection to the manager broke.")
            if self._welcome.is_set():
                self._welcome.clear()
                is_well()
                _LOG.warning("link.lost", address=address)
                self._handler.disconnected()

    async def _watch(self, dealer: Dealer) -> None:
        await dealer.lost()
        self._over.set()

    async def _listen(self) -> None:
        """Where there are several managers, leave one that does not answer: its database may be
        out of its reach only, and another leads.
        """
        while len(self._manager.addresses) > 1:
            self._heard.clear()
            try:
                async with asyncio.timeout(UNHEARD_S):
                    await self._heard.wait()
            except TimeoutError:
                _LOG.warning("link.unheard", for_s=UNHEARD_S)
                self._over.set()
                return

    async def _greet(self, dealer: Dealer) -> None:
        while not self._welcome.is_set():
            dealer.say(self._hello)
            try:
                async with asyncio.timeout(HELLO_EVERY_S):
                    await self._welcome.wait()
            except TimeoutError:
                continue

    def _leads(self, epoch: int) -> None:
        """Note who leads before anything is done for it: the next process must not listen to one
        that led before.
        """
        if epoch == self._manager.epoch:
            return
        self._manager = msgspec.structs.replace(self._manager, epoch=epoch)
        try:
            self._note_epoch(epoch)
        except IdentityError as error:
            _LOG.error("link.epoch-not-kept", epoch=epoch, why=str(error))

    def _take(self, message: AnyMessage) -> None:
        match message:
            case Welcome(epoch=epoch) if epoch < self._manager.epoch:
                _LOG.warning("link.not-leading", epoch=epoch, seen=self._manager.epoch)
                self._over.set()
            case Welcome():
                self._leads(message.epoch)
                first = not self._welcome.is_set()
                self._welcome.set()
                if first:
                    _LOG.info("link.welcomed", cluster=message.cluster)
                    self._handler.welcomed(message)
            case Refused():
                self._refused = message
                self._over.set()
            case _ if self._over.is_set() or not self._welcome.is_set():
                pass  # only who has welcomed us, and leads still, is listened to
            case Goals():
                self._handler.goals(message)
            case Heard():
                self._heard.set()
                self._handler.heard(message.number)
            case _ if self._mux is not None:
                self._mux.receive(message)
            case _:
                _LOG.warning("link.unexpected", message=type(message).__name__)


def address_towards(endpoint: str) -> str:
    """Tell which of this host's addresses the way to `tcp://host:port` starts from; empty when
    there is no way now. Nothing is sent.
    """
    parts = urlsplit(endpoint)
    try:
        for family, kind, _, _, target in socket.getaddrinfo(
            parts.hostname, parts.port, type=socket.SOCK_DGRAM
        ):
            with socket.socket(family, kind) as probe:
                probe.connect(target)
                return str(probe.getsockname()[0])
    except OSError:
        return ""
    return ""
