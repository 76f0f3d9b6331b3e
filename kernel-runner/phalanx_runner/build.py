"""python -m phalanx_runner.build: makes the bundle of static programs, in about a minute.

Does nothing when neither our sources nor the compiler have changed since the newest bundle.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from phalanx_runner import bundle, recipes
from phalanx_runner.recipes import Workshop
from phalanx_runner.sources import Archive, BuildFailed, Source

ROOM = Path(__file__).parent.parent
SRC = ROOM / "src"
SIZE_LIMIT = 8 * 1024 * 1024
PT_INTERP = 3
FORGET_AFTER_S = 7 * 24 * 3600
TOOLS = {  # program: the Debian package that has it
    "musl-gcc": "musl-tools",
    "make": "make",
    "autoreconf": "autoconf",
    "aclocal": "automake",
    "patch": "patch",
    "strip": "binutils",
    "dpkg-source": "dpkg-dev",
    "apt-get": "apt",
}
LINKS = {  # name in the bundle: what it is
    "bin/phalanx-init": "phalanx-runner",
    "bin/phalanx-shell": "phalanx-runner",
    "bin/phalanx-solo": "phalanx-runner",
    "first/ssh": "../bin/phalanx-runner",
    "first/scp": "../libexec/scp",
    "first/sftp": "../libexec/sftp",
    "last/phalanx-solo": "../bin/phalanx-runner",
}


def main(arguments: list[str] | None = None) -> int:
    """Prints the path of the bundle. Returns the exit code."""
    parser = argparse.ArgumentParser(prog="phalanx_runner.build", description=__doc__)
    parser.add_argument("--out", type=Path, default=bundle.IN_PACKAGE, help="parent of the bundle")
    parser.add_argument("--cache", type=Path, default=ROOM.parent / ".cache" / "runner-sources")
    parser.add_argument("--refresh", action="store_true", help="look for newer source packages")
    parser.add_argument("--force", action="store_true", help="build although nothing has changed")
    chosen = parser.parse_args(arguments)
    try:
        path = _build(chosen, _Progress())
    except BuildFailed as error:
        sys.stderr.write(f"phalanx_runner.build: {error}\n")
        return 1
    _make_current(path)
    sys.stdout.write(f"{path}\n")
    return 0


def _make_current(path: Path) -> None:
    """Points to this bundle and forgets old ones; a recent one may be mounted in a container."""
    out = path.parent
    (out / f".{bundle.CURRENT}").write_text(f"{path.name}\n")
    (out / f".{bundle.CURRENT}").replace(out / bundle.CURRENT)
    for manifest in out.glob(f"*/{bundle.MANIFEST}"):
        old = manifest.stat().st_mtime < time.time() - FORGET_AFTER_S
        if old and manifest.parent != path:
            shutil.rmtree(manifest.parent)


class _Progress:
    """Lines with the seconds since the beginning."""

    def __init__(self) -> None:
        self._began = time.monotonic()

    def __call__(self, text: str) -> None:
        sys.stdout.write(f"[{time.monotonic() - self._began:6.1f} s] {text}\n")
        sys.stdout.flush()


def _build(chosen: argparse.Namespace, say: Callable[[str], None]) -> Path:
    if not SRC.is_dir():
        raise BuildFailed(f"{SRC} is missing: a bundle is built in a checkout of the sources.")
    missing = [f"{tool}: apt-get install {of}" for tool, of in TOOLS.items() if not _has(tool)]
    if missing:
        raise BuildFailed("missing tools:\n  " + "\n  ".join(missing))
    inputs = _inputs_digest()
    if not (chosen.force or chosen.refresh):
        for manifest in sorted(chosen.out.glob(f"*/{bundle.MANIFEST}")):
            if json.loads(manifest.read_bytes()).get("inputs") == inputs:
                say("up to date")
                return Path(manifest.parent)
    archive = Archive(chosen.cache.absolute())
    say("fetch the sources of dropbear and openssh")
    dropbear = archive.fetch("dropbear", refresh=chosen.refresh)
    openssh = archive.fetch("openssh", refresh=chosen.refresh)
    chosen.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="phalanx-bundle-") as scratch:
        return _assemble(Workshop(SRC, Path(scratch), say), dropbear, openssh, chosen.out, inputs)


def _has(tool: str) -> bool:
    return shutil.which(tool) is not None


def _inputs_digest() -> str:
    """Of all that decides about the result, but for the versions of the fetched sources."""
    hashed = hashlib.sha256(_compiler().encode())
    for path in [*sorted(SRC.rglob("*")), *sorted(Path(__file__).parent.glob("*.py"))]:
        if path.is_file() and (path.is_relative_to(SRC) or path.stem in ("build", "recipes")):
            hashed.update(f"{path.relative_to(ROOM)} {path.stat().st_size}\n".encode())
            hashed.update(path.read_bytes())
    return hashed.hexdigest()


def _compiler() -> str:
    done = subprocess.run([recipes.CC, "--version"], capture_output=True, text=True, check=True)
    return done.stdout.splitlines()[0]


def _assemble(shop: Workshop, dropbear: Source, openssh: Source, out: Path, inputs: str) -> Path:
    with ThreadPoolExecutor() as pool:
        server_tree = pool.submit(recipes.build_dropbear, shop, dropbear)
        client_tree = pool.submit(recipes.build_openssh, shop, openssh)
        core = recipes.build_core(shop)
        server, client = server_tree.result(), client_tree.result()
    made = Path(tempfile.mkdtemp(prefix=".building-", dir=out))
    try:
        _lay_out(shop, made, core, server, client)
        _check(made)
        digest = bundle.digest_of(made)
        manifest = _manifest(made, digest, inputs, (dropbear, openssh))
        (made / bundle.MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n")
        made.chmod(0o755)
        final = out / digest[:12]
        if final.exists():  # the same contents from other inputs
            (made / bundle.MANIFEST).replace(final / bundle.MANIFEST)
        else:
            made.rename(final)
    finally:
        shutil.rmtree(made, ignore_errors=True)
    size = sum(path.lstat().st_size for path in final.rglob("*"))
    shop.say(f"{size / 1e6:.1f} MB")
    return final


def _lay_out(shop: Workshop, made: Path, core: Path, server: Path, client: Path) -> None:
    for directory in ("bin", "first", "last", "libexec", "licences"):
        (made / directory).mkdir(mode=0o755)
    shutil.copy(core, made / "bin" / "phalanx-runner")
    recipes.strip(shop, server / "dropbear", made / "libexec" / "dropbear")
    for name in recipes.OPENSSH_PROGRAMS:
        where = "last" if name == "ssh-keygen" else "libexec"
        recipes.strip(shop, client / name, made / where / name)
    for link, target in LINKS.items():
        (made / link).symlink_to(target)
    licences = {
        "dropbear": server / "LICENSE",
        "libtomcrypt": server / "libtomcrypt" / "LICENSE",
        "libtommath": server / "libtommath" / "LICENSE",
        "openssh": client / "LICENCE",
        "musl": Path("/usr/share/doc/musl-dev/copyright"),
    }
    for name, text in licences.items():
        shutil.copyfile(text, made / "licences" / name)


def _check(made: Path) -> None:
    """Raises BuildFailed where a program needs something of the image, or the whole is too big."""
    for path in made.rglob("*"):
        if path.is_file() and path.read_bytes()[:4] == b"\x7fELF" and not is_static(path):
            raise BuildFailed(f"{path.relative_to(made)} is not static")
    size = sum(path.lstat().st_size for path in made.rglob("*"))
    if size > SIZE_LIMIT:
        raise BuildFailed(f"the bundle has {size} bytes, the limit is {SIZE_LIMIT}")


def is_static(path: Path) -> bool:
    """Whether a 64-bit little-endian ELF file asks for no program interpreter."""
    data = path.read_bytes()
    (table,) = struct.unpack_from("<Q", data, 32)
    size, count = struct.unpack_from("<HH", data, 54)
    kinds = [struct.unpack_from("<I", data, table + i * size)[0] for i in range(count)]
    return PT_INTERP not in kinds


def _manifest(
    made: Path, digest: str, inputs: str, sources: tuple[Source, ...]
) -> dict[str, object]:
    musl = subprocess.run(
        ["dpkg-query", "-W", "-f", "${Version}", "musl-dev"],
        capture_output=True,
        text=True,
        check=False,
    )
    licences = {
        "dropbear": "MIT and others",
        "libtomcrypt": "public domain",
        "libtommath": "public domain",
        "openssh": "BSD and others",
        "musl": "MIT",
    }
    return {
        "digest": digest,
        "inputs": inputs,
        "compiler": _compiler(),
        "versions": {source.name: source.version for source in sources} | {"musl": musl.stdout},
        "licences": licences,
        "files": {
            name: {"sha256": sha256, "mode": mode, "size": size}
            for name, mode, sha256, size in bundle.contents(made)
        },
    }


if __name__ == "__main__":
    raise SystemExit(main())
