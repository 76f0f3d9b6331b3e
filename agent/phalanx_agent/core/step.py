"""One kernel, one step: compare what shall be with what is, and name the one thing to do."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import assert_never

from phalanx_agent.core import notices
from phalanx_agent.core.seen import Absent, Created, Ended, Running, Seen
from phalanx_wire.lifecycle import KernelState
from phalanx_wire.notice import Notice


@enum.unique
class Op(enum.Enum):
    """What an agent can do for a kernel. Each may be done twice."""

    GET_IMAGE = "get-image"  # and who its user is
    MAKE_MATERIAL = "make-material"  # keys and files on the host
    CREATE = "create"
    FILL = "fill"  # unpack the upload
    TRUST = "trust"  # write the peers' keys
    MARK = "mark"  # note on disk that a start begins
    START = "start"
    CONNECT = "connect"  # attach the way out, while the gang gets ready
    MESH = "mesh"  # ask the runner to reach its peers
    RELEASE = "release"  # ask the runner to start the command
    NOTIFY = "notify"  # send the command a signal that it hears once
    PING = "ping"  # ask the runner whether it has told all again
    DISMISS = "dismiss"  # the runner need not linger
    STOP = "stop"  # TERM, and KILL after the grace
    KILL = "kill"
    KEEP_LOGS = "keep-logs"
    REMOVE_CONTAINER = "remove-container"
    CLEAR = "clear"  # material and marker


@dataclass(frozen=True, slots=True)
class Needs:
    """What a kernel waits for.

    Attributes:
        upload: an archive has to be unpacked before it is created for its gang.
        peers: the public keys of all its peers are known.
        outside: it gets a way out beside the private network.
        notices: what its command shall hear.
    """

    upload: bool = False
    peers: bool = True
    outside: bool = False
    notices: tuple[Notice, ...] = ()


def next_op(goal: KernelState, seen: Seen, needs: Needs) -> Op | None:
    """Return the next operation, or None when there is nothing to do but to wait.

    The goal is a barrier, STOPPED or REMOVED.
    """
    if goal >= KernelState.STOPPING:
        return _downwards(goal, seen)
    if seen.refused:
        return None
    match seen.container:
        case Absent():
            return _make(seen)
        case Created(failure=failure):
            return None if failure else _begin(goal, seen, needs)
        case Running() if seen.vanished:
            return Op.KILL if seen.asked.overdue else None  # by that the engine notices
        case Running():
            lapsed = (seen.lapsed or seen.noted.fenced) and seen.runner.exited is None
            return _end(seen) if lapsed or seen.begun_again else _release(goal, seen, needs)
        case Ended():
            return None
        case _:
            assert_never(seen.container)


def _make(seen: Seen) -> Op | None:
    if seen.marked:
        return None  # it was started once; a second time would run a rank twice
    if not seen.image:
        return Op.GET_IMAGE
    if not seen.material:
        return Op.MAKE_MATERIAL
    return Op.CREATE if seen.network else None


def _begin(goal: KernelState, seen: Seen, needs: Needs) -> Op | None:
    if not seen.material:  # the host's memory was lost: the engine has kept the container
        return Op.MAKE_MATERIAL if seen.image else Op.GET_IMAGE
    if needs.upload and not seen.filled:
        return Op.FILL
    if goal < KernelState.READY or not needs.peers:
        return None
    if not seen.trusted:
        return Op.TRUST
    if not seen.leased:
        return None  # whoever may have been given up begins nothing
    return Op.START if seen.marked else Op.MARK


def _release(goal: KernelState, seen: Seen, needs: Needs) -> Op | None:
    runner, asked = seen.runner, seen.asked
    if runner.failure is not None and not runner.released:
        return _end(seen)
    if runner.exited is not None:
        return Op.DISMISS if seen.connected and not asked.dismiss else None
    if runner.released:
        return _notify(seen, needs) if seen.connected else None
    talks = seen.connected and runner.ready
    if talks and not runner.meshed and goal >= KernelState.MESHED and not asked.mesh:
        return Op.MESH if seen.trusted else Op.TRUST  # a peer's keys may have been made anew
    if needs.outside and not seen.outside:
        return Op.CONNECT
    released = talks and runner.meshed and goal >= KernelState.RUNNING
    return Op.RELEASE if released and not asked.release else None


def _notify(seen: Seen, needs: Needs) -> Op | None:
    if notices.due(needs.notices, seen) is not None:
        return Op.NOTIFY
    return Op.PING if notices.doubted(needs.notices, seen) and not seen.asked.ping else None


def _downwards(goal: KernelState, seen: Seen) -> Op | None:
    match seen.container:
        case Absent():
            left = seen.material or seen.marked
            return Op.CLEAR if left and goal is KernelState.REMOVED else None
        case Created():
            return Op.REMOVE_CONTAINER
        case Running():
            return _end(seen)
        case Ended():
            if goal is not KernelState.REMOVED:
                return None
            return Op.REMOVE_CONTAINER if seen.kept else Op.KEEP_LOGS
        case _:
            assert_never(seen.container)


def _end(seen: Seen) -> Op | None:
    if not seen.asked.stop:
        return Op.STOP
    return Op.KILL if seen.asked.overdue else None
