"""What an agent finds of one kernel: the engine's part, the host's part and the runner's part.

A container variant carries only what exists in its situation, so that "running without an id"
cannot be written. What is found again after a restart of the agent (container, marker, material,
and what the runner repeats) and what is only remembered are told apart in `Seen`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Final, assert_never

from phalanx_runner import messages
from phalanx_wire.names import PRIVATE_INTERFACE

_SIGNALS: Final = range(1, 65)
"""Of Linux."""


@dataclass(frozen=True, slots=True)
class Absent:
    """The engine has no container of this kernel."""


@dataclass(frozen=True, slots=True)
class Created:
    """It exists and has not run.

    Attributes:
        failure: the engine's words on why it could not be started; empty when nobody tried.
    """

    container_id: str
    failure: str = ""


@dataclass(frozen=True, slots=True)
class Running:
    """It runs. `started_at` is in Unix seconds, by the engine's clock."""

    container_id: str
    started_at: float = 0.0


@dataclass(frozen=True, slots=True)
class Ended:
    """It has run and does no more.

    Attributes:
        started_at, finished_at: Unix seconds, by the engine's clock.
    """

    container_id: str
    exit_code: int
    oom_killed: bool = False
    started_at: float = 0.0
    finished_at: float = 0.0


Container = Absent | Created | Running | Ended


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a runner gave up before the command: a cause of `KernelReport` and a sentence."""

    cause: str
    message: str


@dataclass(frozen=True, slots=True)
class Runner:
    """What the runner in a container has said so far.

    Attributes:
        released: it has started the command, or idles as it was told to.
        exited: the command's code, while the container lingers.
        oom_killed: a process of the container had been ended for want of memory when the command
            ended.
        signalled: by the number of a signal, that of the last event that told of it.
        seq: the number of the last event.
        replayed: on this connection it has told again all that it had told before.
    """

    heard: bool = False
    ready: bool = False
    meshed: bool = False
    released: bool = False
    exited: int | None = None
    oom_killed: bool = False
    failure: Failure | None = None
    warnings: tuple[str, ...] = ()
    signalled: Mapping[int, int] = field(default_factory=dict, hash=False)
    seq: int = 0
    replayed: bool = False


@dataclass(frozen=True, slots=True)
class Asked:
    """What this process has told a container's runner or engine. Forgotten by a restart: telling
    it again does no harm.

    Attributes:
        stop: TERM was sent, because the goal says so or because the start failed.
        cancelled: the goal was the reason.
        overdue: the grace is over and it still runs.
        ping: what is asked on this connection to know when all has been told again.
    """

    mesh: bool = False
    release: bool = False
    dismiss: bool = False
    stop: bool = False
    cancelled: bool = False
    overdue: bool = False
    ping: bool = False


@dataclass(frozen=True, slots=True)
class Noted:
    """What an agent notes before it does it, and finds again after a restart.

    Attributes:
        fenced: TERM was sent because the manager had not answered for so long.
        notices: by the id of each that was sent, or was about to be, the number of the runner's
            last event before.
        life: when the container began in which the runner was first asked for anything; Unix
            seconds, 0 before that.
    """

    fenced: bool = False
    notices: Mapping[str, int] = field(default_factory=dict, hash=False)
    life: float = 0.0


@dataclass(frozen=True, slots=True)
class Seen:
    """All that is known of one kernel.

    Attributes:
        marked: a start was once begun; kept on the host's disk.
        material: its files in the host's memory are whole.
        image, network: there for a container to be made from and attached to.
        filled: this process has unpacked the upload into the container.
        trusted: this process has written whom the container trusts, by the keys known now.
        outside: this process has attached the way out.
        kept: its output is in the agent's own store.
        killed: the engine was told to signal it, and not by us.
        vanished: the engine says that it runs, but its first process was found gone.
        leased: the manager has answered lately, so that it may be started.
        lapsed: it has to go: the manager has not answered for so long.
        connected: its runner is.
        notified: ids of the notices that were sent on this connection to its runner.
        refused: why it can never run here, as a sentence; empty while it may.
        refused_as: the cause of `KernelReport` that goes with it.
    """

    container: Container = field(default_factory=Absent)
    marked: bool = False
    material: bool = False
    image: bool = False
    network: bool = False
    filled: bool = False
    trusted: bool = False
    outside: bool = False
    kept: bool = False
    killed: bool = False
    vanished: bool = False
    leased: bool = True
    lapsed: bool = False
    connected: bool = False
    runner: Runner = Runner()
    asked: Asked = Asked()
    noted: Noted = Noted()
    notified: frozenset[str] = frozenset()
    refused: str = ""
    refused_as: str = "refused"

    @property
    def begun_again(self) -> bool:
        """Whether somebody has started the container a second time: its command may have run."""
        match self.container:
            case Running(started_at=began_at) | Ended(started_at=began_at):
                return self.noted.life not in (0.0, began_at)
            case _:
                return False


def hear(runner: Runner, event: messages.Event) -> Runner:
    """Fold one event of a runner into what is known of it."""
    if isinstance(event, messages.Hello):
        return replace(runner, heard=True, replayed=False)
    runner = replace(runner, heard=True, seq=event.stamp.seq)
    match event:
        case messages.Signalled(signal=number):
            if number not in _SIGNALS:
                return runner  # what is kept has a bound
            return replace(runner, signalled={**runner.signalled, number: event.stamp.seq})
        case messages.Pong():
            return replace(runner, replayed=True)
        case messages.Ready():
            return replace(runner, ready=True)
        case messages.MeshOk():
            return replace(runner, meshed=True)
        case messages.MeshFailed(peers=peers, ms=ms):
            return replace(runner, failure=_mesh_failure(peers, ms))
        case messages.Started():
            return replace(runner, ready=True, meshed=True, released=True)
        case messages.Exited(code=code, oom_kills=oom_kills):
            return replace(runner, exited=code, oom_killed=oom_kills > 0)
        case messages.RunnerError():
            return _error(runner, event)
        case messages.Warned():
            return _warned(runner, event)
        case messages.Boot() | messages.SshLog() | messages.Bye():
            return runner
        case _:
            assert_never(event)


def _mesh_failure(peers: tuple[str, ...], milliseconds: int) -> Failure:
    return Failure(
        "mesh-failed",
        f"It could not reach {', '.join(peers)} by name within "
        f"{milliseconds / 1000:.0f} s; look at the network between the hosts.",
    )


def _error(runner: Runner, event: messages.RunnerError) -> Runner:
    """`exec` comes after `started`: the command's exit code tells it, and this its words."""
    text = str(event.detail.get("text") or event.detail.get("detail") or "")
    match event.what:
        case "interface":
            said = (
                f"The private address is not on {PRIVATE_INTERFACE}: the engine attached the "
                f"networks in another order."
            )
        case "ssh-port":
            said = f"The ssh port {event.detail.get('number', '')} could not be opened: {text}."
        case "conf":
            said = f"The runner refused its settings: {text}."
        case "lease":
            return replace(runner, failure=Failure("fenced", ""))
        case "exec":
            said = f"The command could not be executed: {text}."
        case "fork":
            said = f"The command could not be started: {text}."
        case _:
            said = f"The runner reports {event.what}: {text}."
    return replace(runner, failure=Failure("start-failed", said))


def _warned(runner: Runner, event: messages.Warned) -> Runner:
    if event.what != "master-port" or runner.warnings:
        return runner  # it is said once, and a runner that says it of every port is not believed
    said = (
        f"Port {event.detail.get('port', '')} (MASTER_PORT) was taken in main1 at the start; "
        f"choose another with --master-port."
    )
    return replace(runner, warnings=(said,))
