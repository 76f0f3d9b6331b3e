"""How each program of the bundle is compiled: static, stripped, and the same every time."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from phalanx_runner.sources import BuildFailed, Source
from phalanx_runner.toolchains import Toolchain

STRICT = ["-std=c11", "-D_GNU_SOURCE", "-O2", "-Wall", "-Wextra", "-Werror"]
# An event without fields has an empty format, on purpose.
STRICT += ["-Wno-format-zero-length"]

# Everything that is not needed goes, above all what would read files of the image.
DROPBEAR_OPTIONS = [
    "--enable-bundled-libtom",
    "--disable-harden",
    "--disable-zlib",
    "--disable-pam",
    "--disable-syslog",
    "--disable-shadow",
    "--disable-lastlog",
    "--disable-utmp",
    "--disable-utmpx",
    "--disable-wtmp",
    "--disable-wtmpx",
    "--disable-loginfunc",
    "--disable-pututline",
    "--disable-pututxline",
]
OPENSSH_OPTIONS = [
    "--prefix=/opt/phalanx",
    "--bindir=/opt/phalanx/first",  # scp and sftp start the ssh that they find there
    "--libexecdir=/opt/phalanx/libexec",
    "--sysconfdir=/etc/ssh",
    "--without-openssl",
    "--without-zlib",
    "--without-pam",
    "--without-shadow",
    "--without-pie",
    "--with-sandbox=no",
    "--disable-security-key",
    "--disable-pkcs11",
    "--disable-lastlog",
    "--disable-utmp",
    "--disable-utmpx",
    "--disable-wtmp",
    "--disable-wtmpx",
    "--disable-libutil",
]
CORE_OF_SSH = ["shell.c", "wrapper.c"]  # of src/ssh; the others are linked to the ssh programs
OPENSSH_PROGRAMS = ["ssh", "scp", "sftp", "sftp-server", "ssh-keygen"]


@dataclass(frozen=True)
class Workshop:
    """Where a build takes place: our C files, a scratch directory, tools, and a place to say so."""

    src: Path
    scratch: Path
    tools: Toolchain
    say: Callable[[str], None]

    def run(self, title: str, command: list[str], where: Path) -> None:
        """Raises BuildFailed with the end of what the command said."""
        self.say(title)
        environment = {
            "PATH": os.environ.get("PATH", os.defpath),
            "HOME": str(self.scratch),
            "LC_ALL": "C",
            "TZ": "UTC",
            "SOURCE_DATE_EPOCH": "0",
            "ZIG_GLOBAL_CACHE_DIR": str(self.scratch / "zig"),
            "ZIG_LOCAL_CACHE_DIR": str(self.scratch / "zig"),
        }
        done = subprocess.run(
            command, cwd=where, env=environment, capture_output=True, text=True, check=False
        )
        if done.returncode != 0:
            end = "\n".join((done.stdout + done.stderr).splitlines()[-25:])
            raise BuildFailed(f"{title} failed: {' '.join(command)}\n{end}")

    def flags(self, where: Path) -> str:
        """Flags that keep the place of the build out of its result."""
        return f"-O2 -ffile-prefix-map={where}=. -Wl,--build-id=none"

    def configure(self, where: Path) -> list[str]:
        """What every ./configure is told."""
        compiler = [f"CC={' '.join(self.tools.cc)}", *self.tools.archiver]
        flags = [f"CFLAGS={self.flags(where)}", "LDFLAGS=-static -s"]
        return [*self.tools.configure, *compiler, *flags]

    def unpack(self, source: Source) -> Path:
        """The patched source tree."""
        to = self.scratch / source.name
        (dsc,) = source.directory.glob("*.dsc")
        title = f"{source.name} {source.version}: unpack"
        self.run(title, ["dpkg-source", "-x", str(dsc), str(to)], self.scratch)
        return to

    def shim(self, name: str) -> str:
        """Compiles one of src/ssh/*.c to an object for the link line of the ssh programs."""
        to = self.scratch / f"{name}.o"
        command = [
            *self.tools.cc,
            *STRICT,
            "-c",
            str(self.src / "ssh" / f"{name}.c"),
            "-o",
            str(to),
        ]
        self.run(f"{name}: compile", command, self.scratch)
        return str(to)


def build_core(shop: Workshop) -> Path:
    """The runner's own program."""
    to = shop.scratch / "phalanx-runner"
    paths = [*sorted(shop.src.glob("*.c")), *(shop.src / "ssh" / name for name in CORE_OF_SSH)]
    files = [str(path.relative_to(shop.src)) for path in paths]
    flags = [*STRICT, *shop.flags(shop.src).split(), "-I.", "-static", "-s"]
    shop.run("phalanx-runner: compile", [*shop.tools.cc, *flags, "-o", str(to), *files], shop.src)
    return to


def build_small(shop: Workshop, name: str) -> Path:
    """One of our programs beside the core: what a container asks by, what tasks begin with."""
    to = shop.scratch / f"phalanx-{name}"
    flags = [*STRICT, *shop.flags(shop.src).split(), "-static", "-s"]
    command = [*shop.tools.cc, *flags, "-o", str(to), f"{name}/{name}.c"]
    shop.run(f"phalanx-{name}: compile", command, shop.src)
    return to


def build_dropbear(shop: Workshop, source: Source) -> Path:
    """The ssh server; returns its source directory with the program in it."""
    tree = shop.unpack(source)
    name = f"{source.name} {source.version}"
    patch = shop.src / "ssh" / "dropbear-inetd-stderr.patch"
    shop.run(f"{name}: patch", ["patch", "-p1", "-i", str(patch)], tree)
    shutil.copy(shop.src / "ssh" / "localoptions.h", tree)
    options = [*DROPBEAR_OPTIONS, *shop.configure(tree)]
    shop.run(f"{name}: configure", ["./configure", *options], tree)
    objects = f"{shop.shim('passwd_shim')} {shop.shim('server_shim')}"
    libraries = f"LIBS=-Wl,--wrap=putenv {objects}"
    shop.run(f"{name}: make", ["make", _jobs(), "PROGRAMS=dropbear", "STATIC=1", libraries], tree)
    return tree


def build_openssh(shop: Workshop, source: Source) -> Path:
    """The ssh clients; returns their source directory with the programs in it."""
    tree = shop.unpack(source)
    name = f"{source.name} {source.version}"
    # Debian patches configure.ac and not its result.
    shop.run(f"{name}: autoreconf", ["autoreconf", "-fi"], tree)
    options = [*OPENSSH_OPTIONS, *shop.configure(tree)]
    shop.run(f"{name}: configure", ["./configure", *options], tree)
    objects = f"{shop.shim('passwd_shim')} {shop.shim('client_shim')}"
    link = f"LDFLAGS=-L. -Lopenbsd-compat/ -static -s -Wl,--wrap=socket {objects}"
    shop.run(f"{name}: make", ["make", _jobs(), link, *OPENSSH_PROGRAMS], tree)
    return tree


def _jobs() -> str:
    return f"-j{len(os.sched_getaffinity(0))}"
