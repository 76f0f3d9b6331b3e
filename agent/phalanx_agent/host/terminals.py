"""Bounds how many terminals a container has open at a time.

All containers of a machine take theirs out of one number (`kernel.pty.max`, about 3000); one that
took them all left none to the shells and the ssh of others.
"""

from __future__ import annotations

import ctypes
import os
from typing import Final

MOST: Final = 128
_OPTIONS: Final = {"mode": "620", "ptmxmode": "666", "gid": "5", "max": str(MOST)}
"""As engines mount it, and the bound: what is not given anew would be as the kernel has it."""

_PICK, _CONFIGURE = 433, 431  # numbers of system calls, the same on all kinds of machines
_HERE, _CLOSE_ON_EXEC = -100, 1
_SET_STRING, _RECONFIGURE = 1, 7


def bound(pid: int) -> None:
    """Bound those of the container that a process is in; one of the host itself changes nothing.

    Raises:
        OSError: it could not be done, as on Linux before 5.2.
    """
    place = f"/proc/{pid}/root/dev/pts"
    if os.stat(place).st_dev == os.stat("/dev/pts").st_dev:
        return
    flags = ctypes.c_uint(_CLOSE_ON_EXEC)
    picked = _call(_PICK, ctypes.c_int(_HERE), place.encode(), flags)
    try:
        for key, value in _OPTIONS.items():
            _configure(picked, _SET_STRING, key.encode(), value.encode())
        _configure(picked, _RECONFIGURE, None, None)
    finally:
        os.close(picked)


def _configure(picked: int, verb: int, key: bytes | None, value: bytes | None) -> None:
    _call(_CONFIGURE, ctypes.c_int(picked), ctypes.c_uint(verb), key, value, ctypes.c_int(0))


def _call(number: int, *arguments: ctypes.c_int | ctypes.c_uint | bytes | None) -> int:
    result: int = _LIBC.syscall(ctypes.c_long(number), *arguments)
    if result < 0:
        failed = ctypes.get_errno()
        raise OSError(failed, os.strerror(failed))
    return result


_LIBC: Final = ctypes.CDLL(None, use_errno=True)
