"""Looks at running containers from outside: processes, sockets, and whom their network reaches."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Collection
from typing import Final

import msgspec

from phalanx_agent.docker.port import Docker
from phalanx_agent.host import census
from phalanx_agent.loops.forward import Network, NetworkOf, of_container
from phalanx_agent.loops.keeper import Keeper
from phalanx_agent.loops.refusal import Refusal
from phalanx_wire.control import Member
from phalanx_wire.look import MAX_REACH, Answer, Look, Reach
from phalanx_wire.mux import Stream
from phalanx_wire.stream import STDOUT, LookCall

_LOOK_S: Final = 0.25
"""Between the two readings: long enough that work shows, in ticks of a hundredth of a second."""

_TRIES_S: Final = (0.2, 0.3)
"""One packet may be lost on a good way. Both tries end before Linux itself sends a second one."""

_AT_ONCE: Final = 32
_NO_ROUTE: Final = frozenset({errno.EHOSTUNREACH, errno.ENETUNREACH, errno.EHOSTDOWN})


class Looks:
    """Serves looks; so many at once as one host bears."""

    def __init__(self, docker: Docker, network_of: NetworkOf) -> None:
        self._docker = docker
        self._network_of = network_of
        self._census = census.Census()
        self._gate = asyncio.Semaphore(_AT_ONCE)

    async def serve(self, call: LookCall, keeper: Keeper, stream: Stream) -> None:
        """Look twice, shortly one after the other, and try the way to the peers meanwhile.

        Raises:
            Refusal: there is nothing to look at.
            Unavailable: the engine does not answer.
            StreamClosed: the caller has left.
        """
        async with self._gate:
            look = await self._look(call, keeper)
        await stream.write(STDOUT, msgspec.msgpack.encode(look))
        await stream.close()

    async def _look(self, call: LookCall, keeper: Keeper) -> Look:
        case = keeper.case
        own_only = case.aim.gang.network.driver == "host"
        peers = [member for member in case.members if member.rank in call.reach[:MAX_REACH]]
        async with of_container(self._docker, self._network_of, case) as network:
            assert case.pid is not None  # noqa: S101 - it is what the network was found by
            seen = await asyncio.to_thread(self._census.read, case.pid, own_only=own_only)
            began_s = asyncio.get_running_loop().time()
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(asyncio.sleep(_LOOK_S))
                reaching = tasks.create_task(_reach(network, peers))
            passed_s = asyncio.get_running_loop().time() - began_s
            processes = await asyncio.to_thread(census.again, seen, passed_s)
            if not network.still_lives():
                raise Refusal("not_running", f"{call.kernel} does not run now.")
        return Look(processes, seen.sockets, reaching.result(), seen.more)


async def _reach(network: Network, peers: Collection[Member]) -> tuple[Reach, ...]:
    """Try the ssh ports of all peers at once."""
    async with asyncio.TaskGroup() as tasks:
        answers = {peer.rank: tasks.create_task(_answer(network, peer)) for peer in peers}
    return tuple(Reach(rank, task.result()) for rank, task in answers.items())


async def _answer(network: Network, peer: Member) -> Answer:
    for patience_s in _TRIES_S:
        try:
            made = network.tcp_socket()
        except OSError:
            return "untried"
        try:
            with made:
                async with asyncio.timeout(patience_s):
                    target = (peer.address, peer.ssh_port)
                    await asyncio.get_running_loop().sock_connect(made, target)
        except TimeoutError:
            continue
        except OSError as error:
            return "no route" if error.errno in _NO_ROUTE else "refused"
        return "open"
    return "silent"
