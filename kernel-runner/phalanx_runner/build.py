"""python -m phalanx_runner.build: makes the bundle of static programs, in about a minute.

Does nothing when neither our sources nor the compiler have changed since the last bundle.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from phalanx_runner import bundle, elf, recipes, toolchains
from phalanx_runner.recipes import Workshop
from phalanx_runner.sources import Archive, BuildFailed, Source
from phalanx_runner.toolchains import Toolchain

ROOM = Path(__file__).parent.parent
SRC = ROOM / "src"
SIZE_LIMIT = 8 * 1024 * 1024
DECIDING = ("build", "recipes", "toolchains")  # of this package
FORGET_AFTER_S = 7 * 24 * 3600
SMALL = ("ask", "task")  # programs of ours beside the core, each a folder of src
SLURM = ("srun", "sbatch", "salloc", "squeue", "scancel", "scontrol", "sacct", "sinfo")
LINKS = {  # name in the bundle: what it is
    "bin/phalanx": "../libexec/phalanx-ask",
    "last/phalanx": "../libexec/phalanx-ask",
    **{f"slurm/{name}": "../libexec/phalanx-ask" for name in SLURM},
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
    parser.add_argument("--arch", choices=toolchains.MACHINES, help="by default this machine's")
    parser.add_argument("--refresh", action="store_true", help="look for newer source packages")
    parser.add_argument("--force", action="store_true", help="build although nothing has changed")
    chosen = parser.parse_args(arguments)
    try:
        path = _build(chosen, _Progress())
    except BuildFailed as error:
        sys.stderr.write(f"phalanx_runner.build: {error}\n")
        return 1
    _make_current(path, toolchains.MACHINES.get(chosen.arch, platform.machine()))
    sys.stdout.write(f"{path}\n")
    return 0


def _make_current(path: Path, machine: str) -> None:
    """Points to this bundle and forgets old ones; a recent one may be mounted in a container."""
    out = path.parent
    pointer = bundle.pointer(out, machine)
    partial = pointer.with_name(f".{pointer.name}")
    partial.write_text(f"{path.name}\n")
    partial.replace(pointer)
    in_use = {pointer.read_text().strip() for pointer in bundle.pointers(out)}
    for manifest in out.glob(f"*/{bundle.MANIFEST}"):
        old = manifest.stat().st_mtime < time.time() - FORGET_AFTER_S
        if old and manifest.parent.name not in in_use:
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
    tools = toolchains.choose(toolchains.MACHINES.get(chosen.arch, platform.machine()))
    inputs = _inputs_digest(tools)
    if not (chosen.force or chosen.refresh):
        for manifest in sorted(chosen.out.glob(f"*/{bundle.MANIFEST}")):
            if json.loads(manifest.read_bytes()).get("inputs") == inputs and _whole(manifest):
                say("up to date")
                return Path(manifest.parent)
    archive = Archive(chosen.cache.absolute())
    say("fetch the sources of dropbear and openssh")
    dropbear = archive.fetch("dropbear", refresh=chosen.refresh)
    openssh = archive.fetch("openssh", refresh=chosen.refresh)
    chosen.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="phalanx-bundle-") as scratch:
        shop = Workshop(SRC, Path(scratch), tools, say)
        return _assemble(shop, dropbear, openssh, chosen.out, inputs)


def _whole(manifest: Path) -> bool:
    try:
        bundle.verify(manifest.parent)
    except bundle.BundleMissing:
        return False
    return True


def _inputs_digest(tools: Toolchain) -> str:
    """Of all that decides about the result, but for the versions of the fetched sources."""
    hashed = hashlib.sha256(f"{tools.machine} {sorted(tools.versions.items())}\n".encode())
    for path in [*sorted(SRC.rglob("*")), *sorted(Path(__file__).parent.glob("*.py"))]:
        if path.is_file() and (path.is_relative_to(SRC) or path.stem in DECIDING):
            hashed.update(f"{path.relative_to(ROOM)} {path.stat().st_size}\n".encode())
            hashed.update(path.read_bytes())
    return hashed.hexdigest()


def _assemble(shop: Workshop, dropbear: Source, openssh: Source, out: Path, inputs: str) -> Path:
    with ThreadPoolExecutor() as pool:
        server_tree = pool.submit(recipes.build_dropbear, shop, dropbear)
        client_tree = pool.submit(recipes.build_openssh, shop, openssh)
        core = recipes.build_core(shop)
        small = [recipes.build_small(shop, name) for name in SMALL]
        server, client = server_tree.result(), client_tree.result()
    made = Path(tempfile.mkdtemp(prefix=".building-", dir=out))
    try:
        _make_folders(made)
        for program in small:
            shutil.copy(program, made / "libexec")
        _lay_out(shop, made, core, server, client)
        _check(made, shop.tools.machine)
        _try_out(shop, made)
        digest = bundle.digest_of(made)
        manifest = _manifest(made, digest, shop.tools, (dropbear, openssh)) | {"inputs": inputs}
        (made / bundle.MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n")
        made.chmod(0o755)
        final = out / digest[:12]
        if final.exists() and _whole(final / bundle.MANIFEST):  # the same from other inputs
            (made / bundle.MANIFEST).replace(final / bundle.MANIFEST)
        else:
            shutil.rmtree(final, ignore_errors=True)
            made.rename(final)
    finally:
        shutil.rmtree(made, ignore_errors=True)
    size = sum(path.lstat().st_size for path in final.rglob("*"))
    shop.say(f"{size / 1e6:.1f} MB")
    return final


def _make_folders(made: Path) -> None:
    for directory in ("bin", "first", "last", "libexec", "slurm", "licences"):
        (made / directory).mkdir(mode=0o755)


def _lay_out(shop: Workshop, made: Path, core: Path, server: Path, client: Path) -> None:
    shutil.copy(core, made / "bin" / "phalanx-runner")
    shutil.copy(server / "dropbear", made / "libexec" / "dropbear")
    for name in recipes.OPENSSH_PROGRAMS:
        where = "last" if name == "ssh-keygen" else "libexec"
        shutil.copy(client / name, made / where / name)
    for link, target in LINKS.items():
        (made / link).symlink_to(target)
    licences = {
        "dropbear": server / "LICENSE",
        "libtomcrypt": server / "libtomcrypt" / "LICENSE",
        "libtommath": server / "libtommath" / "LICENSE",
        "openssh": client / "LICENCE",
        "musl": shop.tools.copyright,
    }
    for name, text in licences.items():
        shutil.copyfile(text, made / "licences" / name)


def _check(made: Path, machine: str) -> None:
    """Raises BuildFailed where a program needs something of the image, or the whole is too big."""
    for path in made.rglob("*"):
        if path.is_file() and elf.is_program(path):
            if not elf.is_static(path):
                raise BuildFailed(f"{path.relative_to(made)} is not static")
            if elf.machine(path) != machine:
                raise BuildFailed(f"{path.relative_to(made)} is not for {machine}")
    size = sum(path.lstat().st_size for path in made.rglob("*"))
    if size > SIZE_LIMIT:
        raise BuildFailed(f"the bundle has {size} bytes, the limit is {SIZE_LIMIT}")


def _try_out(shop: Workshop, made: Path) -> None:
    """Runs two of the programs, by an emulator where they are for another kind of machine."""
    machine = shop.tools.machine
    emulator: list[str] = []
    if machine != platform.machine():
        found = shutil.which(f"qemu-{machine}-static") or shutil.which(f"qemu-{machine}")
        if not found:
            shop.say(f"not run: no qemu-{machine}-static here (apt-get install qemu-user-static)")
            return
        emulator = [found]
    for program, argument, code, says in (
        ("bin/phalanx-init", "true", 125, "not PID 1 of a container"),
        ("libexec/ssh", "-V", 0, "OpenSSH"),
    ):
        command = [*emulator, str(made / program), argument]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
        if done.returncode != code or says not in done.stderr:
            raise BuildFailed(f"{' '.join(command)}: {done.returncode}, {done.stderr.strip()}")
    shop.say(f"the programs run{' under ' + emulator[0] if emulator else ''}")


def _manifest(
    made: Path, digest: str, tools: Toolchain, sources: tuple[Source, ...]
) -> dict[str, object]:
    licences = {
        "dropbear": "MIT and others",
        "libtomcrypt": "public domain",
        "libtommath": "public domain",
        "openssh": "BSD and others",
        "musl": "MIT",
    }
    return {
        "digest": digest,
        "machine": tools.machine,
        "versions": {source.name: source.version for source in sources} | tools.versions,
        "licences": licences,
        "files": {
            name: {"sha256": sha256, "mode": mode, "size": size}
            for name, mode, sha256, size in bundle.contents(made)
        },
    }


if __name__ == "__main__":
    raise SystemExit(main())
