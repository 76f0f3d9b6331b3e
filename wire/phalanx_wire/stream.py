"""Bytes that pass between manager and agent beside the control messages: logs, exec, files,
connections into containers.

One side opens a stream with a call, both send data on it, one closes it. Numbers are chosen by
the opener: the manager's are even, the agent's odd. A sender may have `WINDOW_BYTES` on the way;
the receiver gives room back with `Credit` as its consumer takes the data, so a slow reader slows
its writer and nobody else.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from phalanx_wire.control import Message
from phalanx_wire.ids import KernelId

WINDOW_BYTES = 1 << 20
CHUNK_BYTES = 64 << 10

STDIN = 0
STDOUT = 1
STDERR = 2
BEGUN = 3
SIGNAL = 4


Recipients = Literal["command", "tasks", "all"]
"""Who of a kernel hears a signal: its command, the tasks of steps, both."""


class ExecCall(Message, frozen=True):
    """Run a command in a running container; data is STDIN, STDOUT, STDERR; ends with its code.
    Signals for a task come by their numbers, a byte each, on SIGNAL.

    Attributes:
        shell: run the login shell of the runner instead of `command`.
        tty: one merged stream on a terminal of `rows` x `columns`.
        env: laid over the container's own.
        task: it is a step's: it hears the session's signals, and when it or the stream ends,
            nothing that it has started is left: TERM, a little later KILL.
    """

    kernel: KernelId
    command: tuple[str, ...]
    shell: bool = False
    tty: bool = False
    stdin: bool = False
    rows: int = 24
    columns: int = 80
    env: dict[str, str] = msgspec.field(default_factory=dict)
    task: bool = False


class LogsCall(Message, frozen=True):
    """Read a kernel's output, also after its container is gone. Data comes on STDOUT, each chunk
    made by `loglines.pack`.

    Attributes:
        since_ns: Unix nanoseconds; only later lines.
        tail: at most that many of the last lines; -1 is all.
    """

    kernel: KernelId
    follow: bool = False
    since_ns: int = 0
    tail: int = -1


class ReadCall(Message, frozen=True):
    """Read a path of a container as a tar archive on STDOUT."""

    kernel: KernelId
    path: str


class WriteCall(Message, frozen=True):
    """Unpack a tar archive from STDIN into an existing folder of a container."""

    kernel: KernelId
    path: str


class SignalCall(Message, frozen=True):
    """Send a signal (its number) to the command of a running kernel, to its tasks, or to both."""

    kernel: KernelId
    signal: int
    to: Recipients = "command"


class ConnectCall(Message, frozen=True):
    """Connect to a TCP port inside a running container; data is STDIN there, STDOUT back. Each
    direction ends with its own `Eof`; the stream ends with both.

    Attributes:
        port: on the container's 127.0.0.1, or else its own address; 0 is its ssh server's.
        authorize: a public key in OpenSSH's one-line form that the ssh server shall let in.
    """

    kernel: KernelId
    port: int = 0
    authorize: str = ""


class LookCall(Message, frozen=True):
    """Look at a running container from outside; the answer is one `look.Look` in msgpack on STDOUT.

    Attributes:
        reach: ranks whose ssh ports are tried from inside its network, at most `look.MAX_REACH`.
    """

    kernel: KernelId
    reach: tuple[int, ...] = ()


class UploadCall(Message, frozen=True):
    """Agent to manager: give me the archive with this digest on STDOUT."""

    digest: str


class AskCall(Message, frozen=True):
    """Agent to manager: a process in a kernel's container asks for something by a command line.

    The answer is STDOUT and STDERR, and ends with an exit code. What takes input, or must not be
    asked twice, begins with one byte on BEGUN: until that has come nothing is read of the asker's
    input, and an agent whose link breaks asks again. After it come STDIN, its `Eof`, `Resize`, and
    signals by their numbers, a byte each, on SIGNAL.

    Attributes:
        argv: beginning with the bare name of the program.
        cwd: of the process; empty where it is no text.
        environ: of the process, as far as it is text.
        tty: its input and output are a terminal of `rows` x `columns`; the byte on BEGUN is 1
            where that shall pass every key on, else 0.
    """

    kernel: KernelId
    argv: tuple[str, ...]
    cwd: str = ""
    environ: dict[str, str] = msgspec.field(default_factory=dict)
    tty: bool = False
    rows: int = 24
    columns: int = 80


Call = (
    ExecCall
    | LogsCall
    | ReadCall
    | WriteCall
    | SignalCall
    | ConnectCall
    | LookCall
    | UploadCall
    | AskCall
)


class Open(Message, frozen=True):
    """Begin a stream.

    Attributes:
        window: what the callee may have on the way to the opener, at least two chunks; the
            other direction always has `WINDOW_BYTES`.
    """

    stream: int
    call: Call
    window: int = WINDOW_BYTES


class Data(Message, frozen=True):
    """Up to `CHUNK_BYTES` on one channel of a stream."""

    stream: int
    channel: int
    data: bytes


class Eof(Message, frozen=True):
    """The sender will send no more data but signals; the stream stays open for the other
    direction.
    """

    stream: int


class Resize(Message, frozen=True):
    """The terminal of an exec has a new size."""

    stream: int
    rows: int
    columns: int


class Credit(Message, frozen=True):
    """The receiver has consumed data of that cost (`mux.cost`)."""

    stream: int
    bytes: int


class Closed(Message, frozen=True):
    """The end of a stream, from either side.

    Attributes:
        exit_code: of an exec or an ask.
        code, why: a problem's stable code and sentence; empty when all went well.
    """

    stream: int
    exit_code: int | None = None
    code: str = ""
    why: str = ""
