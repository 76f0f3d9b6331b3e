"""Try to fool the agent, or to change what the runner works with; print what succeeded.

`speak N`: N connections to the agent, each with lies and with what is no message at all; prints how
many of them the agent did not close. `deface`: prints each attempt that had an effect.
"""

from __future__ import annotations

import ctypes
import json
import os
import socket
import sys
from collections.abc import Callable

MATERIAL, BUNDLE = "/run/phalanx", "/opt/phalanx"
LIES = (
    b'{"ev":"hello","proto":1,"kernel":"me","last_seq":9}\n'
    b'{"ev":"exited","seq":9,"t":1,"code":0,"signal":0}\n'
    b'{"ev":"bye","seq":10,"t":1,"code":0}\n'
)
NOISE = (LIES, b"no json\n" * 1000, b"{" * 100_000 + b"\n", b"x" * 10_000_000)
PATIENCE = 20.0
MS_RDONLY_LESS_REMOUNT = 32 | 4096
PTRACE_ATTACH = 16


def speak(count: int) -> int:
    """All connections are open before the first one says anything."""
    callers = []
    for _ in range(count):
        caller = socket.socket(socket.AF_UNIX)
        caller.connect(f"{MATERIAL}/agent.sock")  # waits for its turn
        caller.settimeout(PATIENCE)
        callers.append(caller)
    return sum(still_open(caller, NOISE[i % len(NOISE)]) for i, caller in enumerate(callers))


def still_open(caller: socket.socket, noise: bytes) -> bool:
    try:
        caller.sendall(noise)
        return caller.recv(1) != b""
    except ConnectionError:
        return False


def deface() -> None:
    c = ctypes.CDLL(None, use_errno=True)

    def call(name: str, *arguments: object) -> Callable[[], object]:
        def attempt() -> None:
            if getattr(c, name)(*arguments) != 0:
                raise OSError(ctypes.get_errno(), name)

        return attempt

    attempts: dict[str, Callable[[], object]] = {
        f"write {path}": lambda path=path: os.open(path, os.O_RDWR)  # type: ignore[misc]
        for path in (
            f"{MATERIAL}/runner.conf",
            f"{MATERIAL}/ssh/host_key",
            f"{MATERIAL}/ssh/.ssh/authorized_keys",
            f"{BUNDLE}/bin/phalanx-runner",
            "/etc/hosts",
            "/proc/1/mem",
        )
    }
    attempts |= {
        "make a file": lambda: os.open(f"{MATERIAL}/mine", os.O_CREAT),
        "remove the socket": lambda: os.unlink(f"{MATERIAL}/agent.sock"),
        "take the socket's place": lambda: socket.socket(socket.AF_UNIX).bind(
            f"{MATERIAL}/other.sock"
        ),
        "move the material": lambda: os.rename(MATERIAL, "/run/elsewhere"),
        "change a mode": lambda: os.chmod(f"{MATERIAL}/ssh/id_ed25519", 0o644),
        "remove a program": lambda: os.unlink(f"{BUNDLE}/libexec/dropbear"),
        "see its files": lambda: os.readlink("/proc/1/fd/0"),
        "trace it": call("ptrace", PTRACE_ATTACH, 1, None, None),
        "remount": call("mount", None, MATERIAL.encode(), None, MS_RDONLY_LESS_REMOUNT, None),
        "mount over": call("mount", b"t", MATERIAL.encode(), b"tmpfs", 0, None),
        "unmount": call("umount2", MATERIAL.encode(), 0),
    }
    for name, attempt in attempts.items():
        try:
            attempt()
            print(name)
        except OSError:
            pass


if sys.argv[1] == "speak":
    print(json.dumps({"open": speak(int(sys.argv[2]))}))
else:
    deface()
