"""The agent's side of the link, against a ROUTER that plays the manager."""
# ruff: noqa: ARG002 - a double takes what its seam takes

from __future__ import annotations

import asyncio
import errno
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from pathlib import Path

import pytest
import zmq
import zmq.asyncio
from msgspec.structs import replace
from zmq.auth.asyncio import AsyncioAuthenticator

from phalanx_agent.rpc import manager
from phalanx_agent.rpc.identity import (
    IdentityError,
    KeyPair,
    Manager,
    load_manager,
    note_epoch,
    own_keys,
    save_manager,
)
from phalanx_agent.rpc.manager import JoinRefused, Link, address_towards, enrol
from phalanx_wire import codec
from phalanx_wire.codec import AnyMessage
from phalanx_wire.control import (
    PROTOCOL,
    Engine,
    Enrol,
    Enrolled,
    Goals,
    Hello,
    Message,
    Observed,
    Refused,
    Welcome,
)
from phalanx_wire.ids import AgentId, ClusterName, KernelId
from phalanx_wire.join import JoinToken
from phalanx_wire.mux import Stream
from phalanx_wire.slots import Slots
from phalanx_wire.stream import Closed, LogsCall, Open, UploadCall

HOST1 = AgentId("host1")
WELCOME = Welcome("c1", ClusterName("default"), 5.0, "10.212.0.0/20")
NEWS = Observed("boot", 1, Slots(), "10.0.0.1", Engine())


def key_pair() -> KeyPair:
    public, secret = zmq.curve_keypair()
    return KeyPair(public.decode(), secret.decode())


class Known:
    """Lets keys in, as the authenticator wants to be told."""

    def __init__(self) -> None:
        self.keys: set[bytes] = set()

    def callback(self, domain: str, key: bytes) -> bool:
        return key in self.keys


class Host:
    """A manager that hears and says what the test wants."""

    def __init__(self, context: zmq.asyncio.Context, keys: KeyPair, port: int) -> None:
        self._context = context
        self._keys = keys
        self._open(port)

    def _open(self, port: int) -> None:
        self._socket = self._context.socket(zmq.ROUTER)
        self._socket.setsockopt(zmq.LINGER, 0)
        self._socket.setsockopt(zmq.ZAP_ENFORCE_DOMAIN, 1)
        self._socket.zap_domain = b"agents"
        self._socket.curve_server = True
        self._socket.curve_secretkey = self._keys.secret.encode()
        self._socket.curve_publickey = self._keys.public.encode()
        self._bind(f"tcp://127.0.0.1:{port or '*'}")
        self.address = self._socket.getsockopt_string(zmq.LAST_ENDPOINT)
        self._peer = b""

    def _bind(self, address: str) -> None:
        """Listen, as soon as a socket that was closed before has really left the port."""
        deadline = time.monotonic() + 10
        while True:
            try:
                self._socket.bind(address)
            except zmq.ZMQError as error:
                if error.errno != errno.EADDRINUSE or time.monotonic() > deadline:
                    raise
            else:
                return

    async def hear(self) -> AnyMessage:
        async with asyncio.timeout(10):
            self._peer, data = await self._socket.recv_multipart()
        return codec.decode(data)

    async def say(self, message: Message) -> None:
        await self._socket.send_multipart([self._peer, codec.encode(message)])

    async def say_nonsense(self) -> None:
        await self._socket.send_multipart([self._peer, b"\xc1"])

    def drop(self) -> None:
        """End all connections, and listen again."""
        self._socket.unbind(self.address)
        self._socket.close(linger=0)
        self._open(int(self.address.rpartition(":")[2]))

    def close(self) -> None:
        self._socket.close(linger=0)


class Ground:
    """A place where managers come and go, with one key."""

    def __init__(self) -> None:
        self.context = zmq.asyncio.Context()
        self.keys = key_pair()
        self.known = Known()

    @contextmanager
    def manager(self, port: int = 0) -> Iterator[Host]:
        host = Host(self.context, self.keys, port)
        try:
            yield host
        finally:
            host.close()

    def token(self, host: Host, one_time: KeyPair) -> JoinToken:
        return JoinToken((host.address,), self.keys.public, one_time.secret)


@pytest.fixture
async def ground() -> AsyncIterator[Ground]:
    made = Ground()
    authenticator = AsyncioAuthenticator(made.context)
    authenticator.start()
    authenticator.configure_curve_callback("agents", credentials_provider=made.known)
    yield made
    authenticator.stop()
    made.context.destroy(linger=0)


class Heard:
    """A `LinkHandler` that keeps what it is told."""

    def __init__(self) -> None:
        self.events: asyncio.Queue[object] = asyncio.Queue()

    def welcomed(self, welcome: Welcome) -> None:
        self.events.put_nowait(welcome)

    def heard(self, number: int) -> None:
        self.events.put_nowait(number)

    def goals(self, goals: Goals) -> None:
        self.events.put_nowait(goals)

    def opened(self, message: Open, stream: Stream) -> None:
        self.events.put_nowait(stream)

    def unknown(self, why: str, *, told: bool) -> None:
        """Not looked at here."""

    def disconnected(self) -> None:
        self.events.put_nowait("disconnected")

    async def next(self) -> object:
        async with asyncio.timeout(10):
            return await self.events.get()


@asynccontextmanager
async def linked(ground: Ground, host: Host) -> AsyncIterator[tuple[Link, Heard]]:
    own, heard = key_pair(), Heard()
    ground.known.keys.add(own.public.encode())
    link = Link(HOST1, Manager((host.address,), ground.keys.public, "c1"), own, heard)
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(link.run())
        try:
            yield link, heard
        finally:
            running.cancel()


async def test_an_agent_joins_with_a_token_and_remembers_it(ground: Ground, tmp_path: Path) -> None:
    one_time = key_pair()
    ground.known.keys.add(one_time.public.encode())
    with ground.manager() as host:
        async with asyncio.TaskGroup() as tasks:
            joining = tasks.create_task(enrol(tmp_path, HOST1, ground.token(host, one_time)))
            asked = await host.hear()
            await host.say(Enrolled(HOST1, "c1"))
        address = host.address

    assert Enrol(PROTOCOL, HOST1, own_keys(tmp_path).public) == asked
    assert Manager((address,), ground.keys.public, "c1") == joining.result()
    assert joining.result() == load_manager(tmp_path)
    assert 0o600 == (tmp_path / "agent.key").stat().st_mode & 0o777


async def test_a_manager_that_says_no_is_heard(ground: Ground, tmp_path: Path) -> None:
    one_time = key_pair()
    ground.known.keys.add(one_time.public.encode())
    with ground.manager() as host:
        async with asyncio.TaskGroup() as tasks:
            joining = tasks.create_task(
                _refusal_of(lambda: enrol(tmp_path, HOST1, ground.token(host, one_time)))
            )
            await host.hear()
            await host.say(Refused("name_taken", "There is a host1 already."))

    assert "There is a host1 already." == joining.result()
    assert load_manager(tmp_path) is None


async def _refusal_of(join: Callable[[], object]) -> str:
    with pytest.raises(JoinRefused) as caught:
        await join()  # type: ignore[misc]
    return str(caught.value)


async def test_an_agent_that_died_after_it_had_joined_finds_itself_known(
    ground: Ground, tmp_path: Path
) -> None:
    ground.known.keys.add(own_keys(tmp_path).public.encode())
    with ground.manager() as host:
        async with asyncio.TaskGroup() as tasks:
            joining = tasks.create_task(enrol(tmp_path, HOST1, ground.token(host, key_pair())))
            assert isinstance(await host.hear(), Hello)
            await host.say(WELCOME)

    assert "c1" == joining.result().cluster_id


async def test_a_used_token_is_no_matter_to_the_agent_that_has_used_it(
    ground: Ground, tmp_path: Path
) -> None:
    one_time = key_pair()
    ground.known.keys |= {one_time.public.encode(), own_keys(tmp_path).public.encode()}
    with ground.manager() as host:
        async with asyncio.TaskGroup() as tasks:
            joining = tasks.create_task(enrol(tmp_path, HOST1, ground.token(host, one_time)))
            assert isinstance(await host.hear(), Enrol)
            await host.say(Refused("token_used", "It is used up."))
            assert isinstance(await host.hear(), Hello)
            await host.say(WELCOME)

    assert "c1" == joining.result().cluster_id


async def test_an_agent_greets_until_it_is_welcomed(ground: Ground) -> None:
    with ground.manager() as host:
        async with linked(ground, host) as (link, heard):
            first, second = await host.hear(), await host.hear()
            assert not link.say(NEWS)
            await host.say(WELCOME)
            assert WELCOME == await heard.next()

            assert isinstance(first, Hello)
            assert first == second
            assert link.connected


async def test_state_goes_both_ways(ground: Ground) -> None:
    with ground.manager() as host:
        async with linked(ground, host) as (link, heard):
            await host.hear()
            await host.say(WELCOME)
            await heard.next()
            assert link.say(NEWS)
            assert NEWS == await host.hear()
            await host.say(Goals(7))

            assert Goals(7) == await heard.next()


async def test_nonsense_is_dropped(ground: Ground) -> None:
    with ground.manager() as host:
        async with linked(ground, host) as (_, heard):
            await host.hear()
            await host.say_nonsense()
            await host.say(WELCOME)

            assert WELCOME == await heard.next()


async def test_a_manager_that_comes_back_is_greeted_anew(ground: Ground) -> None:
    with ground.manager() as host:
        port = int(host.address.rpartition(":")[2])
        async with linked(ground, host) as (link, heard):
            await host.hear()
            await host.say(WELCOME)
            await heard.next()
            host.close()
            assert "disconnected" == await heard.next()
            assert not link.say(NEWS)
            with ground.manager(port) as again:
                assert isinstance(await again.hear(), Hello)
                await again.say(WELCOME)

                assert WELCOME == await heard.next()


async def test_a_manager_whose_time_is_over_is_left_for_the_one_that_leads(ground: Ground) -> None:
    with ground.manager() as leader, ground.manager() as frozen:
        own = key_pair()
        ground.known.keys.add(own.public.encode())
        manager = Manager((leader.address, frozen.address), ground.keys.public, "c1")
        heard = Heard()
        link = Link(HOST1, manager, own, heard)
        running = asyncio.ensure_future(link.run())
        await leader.hear()
        await leader.say(replace(WELCOME, epoch=5))
        assert replace(WELCOME, epoch=5) == await heard.next()
        leader.drop()
        assert "disconnected" == await heard.next()
        await frozen.hear()
        await frozen.say(replace(WELCOME, epoch=4))
        await frozen.say(Goals(7))
        await leader.hear()
        await leader.say(replace(WELCOME, epoch=6))

        assert replace(WELCOME, epoch=6) == await heard.next()
        running.cancel()
        await asyncio.wait({running})


async def test_a_manager_that_does_not_answer_is_left_for_another(
    ground: Ground, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(manager, "UNHEARD_S", 0.5)
    with ground.manager() as silent, ground.manager() as leader:
        own, heard = key_pair(), Heard()
        ground.known.keys.add(own.public.encode())
        both = Manager((silent.address, leader.address), ground.keys.public, "c1")
        running = asyncio.ensure_future(Link(HOST1, both, own, heard).run())
        await silent.hear()
        await silent.say(replace(WELCOME, epoch=5))
        assert replace(WELCOME, epoch=5) == await heard.next()
        assert "disconnected" == await heard.next()
        await leader.hear()
        await leader.say(replace(WELCOME, epoch=6))

        assert replace(WELCOME, epoch=6) == await heard.next()
        running.cancel()
        await asyncio.wait({running})


async def test_the_only_manager_is_not_left_when_it_does_not_answer(
    ground: Ground, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(manager, "UNHEARD_S", 0.0)
    with ground.manager() as silent:
        async with linked(ground, silent) as (link, heard):
            await silent.hear()
            await silent.say(WELCOME)
            assert WELCOME == await heard.next()
            await silent.say(Goals(1))
            assert Goals(1) == await heard.next()

            assert link.connected


async def test_who_has_led_before_is_left_by_the_next_process_of_an_agent_too(
    ground: Ground, tmp_path: Path
) -> None:
    with ground.manager() as frozen, ground.manager() as leader:
        own = key_pair()
        ground.known.keys.add(own.public.encode())
        first = Manager((leader.address,), ground.keys.public, "c1")
        save_manager(tmp_path, first)
        heard = Heard()
        link = Link(HOST1, first, own, heard, partial(note_epoch, tmp_path))
        running = asyncio.ensure_future(link.run())
        await leader.hear()
        await leader.say(replace(WELCOME, epoch=5))
        await heard.next()
        running.cancel()
        await asyncio.wait({running})
        known = load_manager(tmp_path)
        assert known is not None
        assert "disconnected" == await heard.next()
        both = replace(known, addresses=(frozen.address, leader.address))
        running = asyncio.ensure_future(Link(HOST1, both, own, heard).run())
        await frozen.hear()
        await frozen.say(replace(WELCOME, epoch=4))
        await leader.hear()
        await leader.say(replace(WELCOME, epoch=5))

        assert replace(WELCOME, epoch=5) == await heard.next()
        running.cancel()
        await asyncio.wait({running})


async def test_streams_end_with_their_connection(ground: Ground) -> None:
    with ground.manager() as host:
        async with linked(ground, host) as (link, heard):
            await host.hear()
            await host.say(WELCOME)
            await heard.next()
            ours = await link.open(UploadCall("sha256:" + "0" * 64))
            assert isinstance(await host.hear(), Open)
            await host.say(Open(0, LogsCall(KernelId("aaaaaaaaaaaa-1-0"))))
            theirs = await heard.next()
            host.close()
            await heard.next()

            assert isinstance(theirs, Stream)
            for stream in (ours, theirs):
                assert isinstance(stream.closed, Closed)
                assert "link_lost" == stream.closed.code


def test_a_damaged_key_is_named(tmp_path: Path) -> None:
    (tmp_path / "agent.key").write_text("short")

    with pytest.raises(IdentityError, match=r"agent\.key"):
        own_keys(tmp_path)


def test_the_own_address_is_that_of_the_way_to_the_manager() -> None:
    assert "127.0.0.1" == address_towards("tcp://127.0.0.1:7911")
    assert "" == address_towards("tcp://nosuch.invalid:7911")
