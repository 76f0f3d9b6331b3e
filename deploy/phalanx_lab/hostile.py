"""An image that has a will of its own wherever an image can have one: what a runner must survive.

It starts through a chain of shells, as a user of its own in a folder of its own, and ends on an odd
signal. It has an ssh server on port 22 (and wherever `SSHD_PORTS` says), loads a library into every
program, misleads every Python, and sends every ssh client to a port where nobody listens.
"""

from __future__ import annotations

import os
from collections.abc import Callable

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

PACKAGES = ("openssh-server", "openssh-client", "rsync", "libjemalloc2", "procps")
ENTRY = """#!/bin/sh
for port in ${SSHD_PORTS:-22}; do
    /usr/sbin/sshd -p "$port" -h /etc/ssh/image_key -E /dev/shm/sshd-log || echo "no sshd on $port"
done
export ENTERED="as $(id -u)"
exec sh -c 'exec "$@"' inner "$@"
"""
WAIT = "trap 'exit 42' RTMIN+3; echo entered $ENTERED in $PWD; while :; do sleep 0.1; done"
ENTRYPOINT = ("/bin/sh", "/entry")
COMMAND = ("bash", "-c", WAIT)
LIBRARY = "/usr/lib/x86_64-linux-gnu/libjemalloc.so.2"
ENV = {
    "LANG": "C.UTF-8",
    "LD_PRELOAD": LIBRARY,
    "LD_LIBRARY_PATH": "/usr/lib/x86_64-linux-gnu:/nowhere",
    "PYTHONHOME": "/nowhere",
    "PYTHONPATH": "/nowhere",
}
WORKDIR = "/srv/app"
SETTINGS = {
    "Entrypoint": list(ENTRYPOINT),
    "User": "worker",
    "WorkingDir": WORKDIR,
    "StopSignal": "SIGRTMIN+3",
}
_MISLED = "Host *\n  Port 9\n"
_ACCOUNTS = """root:x:0:0::/root:/bin/bash
sshd:x:100:65534::/run/sshd:/usr/sbin/nologin
nobody:x:65534:65534::/nonexistent:/usr/sbin/nologin
worker:x:1000:1000::/home/worker:/bin/bash
"""
_GROUPS = """root:x:0:
nogroup:x:65534:
worker:x:1000:
"""
_NOBODY = 65534
RECIPE = f"{ENTRY} {_MISLED} {_ACCOUNTS} {_GROUPS}"


def write(root: str, _report: Callable[[str], None]) -> None:
    """Fill an empty folder with what goes on top of a Debian with these packages."""
    _file(f"{root}/entry", ENTRY)
    for home, mode in (("root", 0o700), ("home/worker", 0o755), ("", 0o755)):
        os.makedirs(f"{root}/{home}/.ssh")
        _file(f"{root}/{home}/.ssh/config", _MISLED)
        os.chmod(f"{root}/{home}", mode)
    for folder in ("home/worker", "home/worker/.ssh", "home/worker/.ssh/config"):
        os.chown(f"{root}/{folder}", 1000, 1000)
    for folder in (WORKDIR, "/run/sshd", "/etc/ssh"):
        os.makedirs(f"{root}{folder}")
    _file(f"{root}/etc/passwd", _ACCOUNTS)
    _file(f"{root}/etc/group", _GROUPS)
    # A key that anybody may use: its check for strangers' eyes is for a key of the caller's own.
    _file(f"{root}/etc/ssh/image_key", _key())
    os.chown(f"{root}/etc/ssh/image_key", _NOBODY, _NOBODY)


def _file(path: str, text: str) -> None:
    with open(path, "w", encoding="ascii") as file:
        file.write(text)
    os.chmod(path, 0o644)


def _key() -> str:
    return (
        Ed25519PrivateKey.generate()
        .private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.OpenSSH,
            serialization.NoEncryption(),
        )
        .decode("ascii")
    )
