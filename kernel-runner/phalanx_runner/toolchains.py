"""Compilers that make static programs: musl-gcc for this machine, zig for the other kind."""

from __future__ import annotations

import importlib.util
import platform
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from phalanx_runner.sources import BuildFailed

MACHINES = {"amd64": "x86_64", "arm64": "aarch64"}  # Debian's word: the kernel's
TOOLS = {  # program: the Debian package that has it
    "make": "make",
    "autoreconf": "autoconf",
    "aclocal": "automake",
    "patch": "patch",
    "dpkg-source": "dpkg-dev",
    "apt-get": "apt",
}
MUSL_TOOLS = {"musl-gcc": "musl-tools", "gcc": "gcc"}
MUSL_COPYRIGHT = Path("/usr/share/doc/musl-dev/copyright")


@dataclass(frozen=True)
class Toolchain:
    """What compiles for one kind of machine.

    machine: as `uname -m` says.
    cc: the compiler with its arguments.
    configure: what its output's machine means for a ./configure.
    archiver: ar and ranlib, as arguments of a make or a ./configure.
    versions: of the compiler and of the C library.
    copyright: the C library's licence.
    """

    machine: str
    cc: tuple[str, ...]
    configure: tuple[str, ...]
    archiver: tuple[str, ...]
    versions: dict[str, str]
    copyright: Path


def choose(machine: str) -> Toolchain:
    """The one for a kind of machine. Raises BuildFailed with all that is missing."""
    native = machine == platform.machine()
    wanted = {**TOOLS, **(MUSL_TOOLS if native else {})}
    missing = [f"{tool}: apt-get install {of}" for tool, of in wanted.items() if not _has(tool)]
    if not native and importlib.util.find_spec("ziglang") is None:
        missing.append("zig, to build for another kind of machine: pip install ziglang")
    if missing:
        raise BuildFailed("missing tools:\n  " + "\n  ".join(missing))
    toolchain = _musl(machine) if native else _zig(machine)
    if not toolchain.copyright.is_file():
        raise BuildFailed(
            f"{toolchain.copyright} is missing, and the bundle must carry it. Where dpkg leaves "
            "documentation out (path-exclude), install musl-dev again without that."
        )
    return toolchain


def _has(tool: str) -> bool:
    return shutil.which(tool) is not None


def _musl(machine: str) -> Toolchain:
    versions = {
        "compiler": _first_line("musl-gcc", "--version"),
        "musl": _first_line("dpkg-query", "-W", "-f", "${Version}", "musl-dev"),
    }
    return Toolchain(machine, ("musl-gcc",), (), (), versions, MUSL_COPYRIGHT)


def _zig(machine: str) -> Toolchain:
    found = importlib.util.find_spec("ziglang")
    folder = Path(str(found.origin)).parent if found else Path()
    zig = str(folder / "zig")
    version = f"zig {_first_line(zig, 'version')}"
    target = f"{machine}-linux-musl"
    return Toolchain(
        machine,
        (zig, "cc", "-target", target),
        (f"--host={target}",),
        (f"AR={zig} ar", f"RANLIB={zig} ranlib"),
        {"compiler": version, "musl": f"of {version}"},
        folder / "lib" / "libc" / "musl" / "COPYRIGHT",
    )


def _first_line(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise BuildFailed(f"{' '.join(command)} failed: {done.stderr.strip()}")
    return done.stdout.splitlines()[0]
