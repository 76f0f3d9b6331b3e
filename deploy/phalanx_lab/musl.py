"""The root of an image whose only C library is musl: that library and one program that needs it.

Debian has no program that is linked to musl, so the small one that has a shell and its tools is
compiled here, from Debian's source of it, in some ten seconds.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from phalanx_lab.machine import run
from phalanx_lab.unavailable import Unavailable
from phalanx_runner.sources import Archive, BuildFailed

APPLETS = (
    "cat", "cmp", "cp", "echo", "env", "false", "head", "hostname", "id", "ls", "mkdir", "printenv",
    "printf", "ps", "pwd", "rm", "seq", "sha256sum", "sleep", "test", "touch", "true", "tty", "wc",
)  # fmt: skip
SWITCHES = ("BUSYBOX", "LFS", "ASH", "SH_IS_ASH", "FEATURE_SH_MATH", "ASH_ECHO", "ASH_TEST")
# The kernel's headers, which the compiler's wrapper hides together with the other C library.
HEADERS = "-idirafter /usr/include -idirafter /usr/include/x86_64-linux-gnu"
OPEN = 0o755
FOLDERS = {"bin": OPEN, "lib": OPEN, "etc": OPEN, "tmp": 0o1777}
RECIPE = f"{APPLETS} {SWITCHES} {HEADERS}"
LIBRARY = "/usr/lib/x86_64-linux-musl/libc.so"
LOADER = "lib/ld-musl-x86_64.so.1"


def build(root: str, work: str, sources: str) -> None:
    """Fill an empty folder. `sources` keeps the source for the next time.

    Raises:
        Unavailable: a tool, the library or the source is missing.
    """
    if not os.path.exists(LIBRARY) or not shutil.which("musl-gcc"):
        raise Unavailable("musl", "is not installed", "apt-get install musl-tools")
    try:
        source = Archive(Path(sources)).fetch("busybox", refresh=False)
    except BuildFailed as error:
        raise Unavailable("the source of busybox", str(error), "Is the mirror there?") from error
    tree = f"{work}/tree"
    description = next(source.directory.glob("*.dsc"))
    run(["dpkg-source", "--no-check", "-x", str(description), tree], timeout=60)
    run(["make", "-C", tree, "allnoconfig"], timeout=120)
    _switch_on(f"{tree}/.config")
    flags = [f"CONFIG_EXTRA_CFLAGS={HEADERS}", "CC=musl-gcc", "SKIP_STRIP=n"]
    run(["make", "-C", tree, f"-j{os.cpu_count()}", *flags, "busybox"], timeout=300)
    for folder, mode in FOLDERS.items():
        os.mkdir(f"{root}/{folder}")
        os.chmod(f"{root}/{folder}", mode)
    shutil.copy2(f"{tree}/busybox", f"{root}/bin/busybox")
    shutil.copy2(LIBRARY, f"{root}/{LOADER}")
    os.chmod(f"{root}/{LOADER}", OPEN)
    for applet in ("sh", *APPLETS):
        os.symlink("busybox", f"{root}/bin/{applet}")


def _switch_on(path: str) -> None:
    """Answer yes to what is wanted; options that depend on it stay as they are, at no."""
    with open(path, encoding="utf-8") as file:
        text = file.read()
    for name in (*SWITCHES, *(applet.upper() for applet in APPLETS)):
        text = text.replace(f"# CONFIG_{name} is not set\n", f"CONFIG_{name}=y\n")
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)
