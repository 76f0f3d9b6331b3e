"""The images that a lab can make by itself, without a registry.

`base`     Debian with Python 3 and the tools of a shell's first hour
`busybox`  one static program and its names: no C library, no Python
`empty`    one static program that waits: no shell, no folders
`torch`    base, with PyTorch for the CPU, NumPy and scikit-learn
`mpi`      Debian with Open MPI, mpi4py, pdsh and an ssh client
`older`    a Debian of another C library, and nothing more
`musl`     another C library altogether, and one program with its names that is linked to it
`hostile`  an image with a will of its own: see `hostile.py`
`site-ml`  no image but a folder to mount: PyTorch, TensorFlow and Lightning for Python 3.11
`site-more` another one, to mount besides: Accelerate, DeepSpeed, Ray, JAX, Dask
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable

from phalanx_lab import archive, hostile, musl, status, wheels
from phalanx_lab.archive import Image, Layer
from phalanx_lab.machine import run, show
from phalanx_lab.unavailable import Unavailable

Report = Callable[[str], None]

SUITE = "bookworm"  # its Python is 3.11
OLDER_SUITE = "bullseye"
BASE = ("python3", "iproute2", "procps", "netcat-openbsd", "ca-certificates")
MPI = (*BASE, "openmpi-bin", "python3-mpi4py", "openssh-client", "pdsh")
SITE = "usr/local/lib/python3.11/dist-packages"
USELESS = (
    "usr/share/doc/*", "usr/share/man/*", "usr/share/locale/*", "usr/share/info/*",
    "var/cache/apt/*", "var/lib/apt/lists/*", "var/log/*", "dev/*",
)  # fmt: skip
KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"
NAMES = ("base", "busybox", "empty", "torch", "mpi", "older", "musl", "hostile")
SITE_ML = "site-ml"
SITE_MORE = "site-more"
SITE_SLURM = "site-slurm"
OPEN = 0o755  # what an image's folders are to anybody
FOLDERS = {"bin": OPEN, "etc": OPEN, "root": 0o700, "tmp": 0o1777}


def cache() -> str:
    """Where what was built is kept; `PHALANX_CACHE` overrides."""
    return os.path.abspath(
        os.environ.get("PHALANX_CACHE") or os.path.expanduser("~/.cache/phalanx")
    )


def image(name: str, report: Report) -> Image:
    """An image by its recipe's name, built unless the cache has it."""
    match name:
        case "base":
            layers, command = [_debian("base", SUITE, BASE, report)], "/bin/bash"
        case "mpi":
            layers, command = [_debian("mpi", SUITE, MPI, report)], "/bin/bash"
        case "older":
            layers, command = [_debian("older", OLDER_SUITE, (), report)], "/bin/bash"
        case "musl":
            layers, command = [_cached("musl", musl.RECIPE, _musl, report)], "/bin/sh"
        case "hostile":
            return _hostile(report)
        case "busybox":
            layers, command = [_cached("busybox", SUITE, _busybox, report)], "/bin/sh"
        case "empty":
            layers, command = [_cached("empty", _hold_source(), _empty, report)], "/hold"
        case "torch":
            layers, command = [_debian("base", SUITE, BASE, report), _torch(report)], "/bin/bash"
        case _:
            raise ValueError(f"no recipe {name!r}; there are {', '.join(NAMES)}")
    return Image(f"phalanx/{name}:latest", layers, (command,), {"LANG": "C.UTF-8"})


def site_ml(report: Report) -> str:
    """The folder to mount; it is used with `PYTHONPATH`."""
    recipe = str((wheels.ML, wheels.NOT_NEEDED))
    return _site(SITE_ML, recipe, lambda to: wheels.install(to, wheels.ML, report), report)


def site_more(report: Report) -> str:
    """The folder to mount besides `site_ml`; its `bin` goes on the path."""
    return _site(SITE_MORE, str(wheels.MORE), lambda to: wheels.install_more(to, report), report)


def site_slurm(report: Report) -> str:
    """The folder to mount for programs that speak to SLURM, also where they are started."""
    wanted = wheels.SLURM_TOOLS
    return _site(SITE_SLURM, str(wanted), lambda to: wheels.install(to, wanted, report), report)


def _site(name: str, recipe: str, fill: Callable[[str], None], report: Report) -> str:
    folder = f"{cache()}/images/{name}-{_key(recipe)}"
    with _claim(name):
        if not os.path.isdir(folder):
            report(f"building {name} (once; it is kept in {cache()})")
            with _workspace() as work:
                fill(f"{work}/site")
                _compile(f"{work}/site", report)
                os.rename(f"{work}/site", folder)
    return folder


def _cached(name: str, recipe: str, build: Callable[[str, Report], None], report: Report) -> Layer:
    """A layer from the cache, or built: `build` fills an empty folder."""
    path = f"{cache()}/images/{name}-{_key(recipe)}.tar"
    with _claim(name):
        if not os.path.exists(path):
            report(f"building {name} (once; it is kept in {cache()})")
            with _workspace() as work:
                root = f"{work}/root"
                os.mkdir(root, 0o755)
                build(root, report)
                excluded = [f"--exclude=./{pattern}" for pattern in USELESS]
                pack = ["tar", "-C", root, "--sort=name", "--numeric-owner", *excluded]
                run([*pack, "-cf", f"{work}/layer.tar", "."], timeout=600)
                os.rename(f"{work}/layer.tar", path)
        return archive.layer_of(path)


def _debian(name: str, suite: str, packages: tuple[str, ...], report: Report) -> Layer:
    def build(root: str, report: Report) -> None:
        debootstrap(suite, root, packages, report)

    return _cached(name, f"{suite} {packages}", build, report)


def debootstrap(suite: str, root: str, packages: tuple[str, ...], report: Report) -> None:
    """A minimal Debian with some packages in a folder; debs are kept for the next time."""
    debs = f"{cache()}/debs"
    os.makedirs(debs, exist_ok=True)
    keyring = [f"--keyring={KEYRING}"] if os.path.exists(KEYRING) else []
    wanted = [f"--include={','.join(packages)}"] if packages else []
    options = ["--variant=minbase", *wanted, f"--cache-dir={debs}"]
    argv = ["debootstrap", *options, *keyring, suite, root, mirror()]
    show(argv, report, timeout=1200)


def mirror() -> str:
    """The Debian mirror that this machine uses, or the public one; an environment may say."""
    named = os.environ.get("PHALANX_DEBIAN_MIRROR")
    if named:
        return named
    try:
        wanted = ["Created-By: Packages", "Origin: Debian", "Label: Debian"]
        known = run(["apt-get", "indextargets", "--format", "$(REPO_URI)", *wanted]).split()
    except Unavailable:
        known = []
    return known[0] if known else "http://deb.debian.org/debian"


def _busybox(root: str, _report: Report) -> None:
    """The static busybox of Debian, with a link for each of its programs."""
    with tempfile.TemporaryDirectory() as work:
        os.chmod(work, OPEN)
        if shutil.which("apt-get") and shutil.which("dpkg-deb"):
            subprocess.run(
                ["apt-get", "download", "-q", "busybox-static"],
                cwd=work,
                check=False,
                capture_output=True,
                timeout=120,
            )
        debs = [f"{work}/{name}" for name in os.listdir(work) if name.endswith(".deb")]
        if debs:
            run(["dpkg-deb", "-x", debs[0], f"{work}/x"])
            found = next(p for p in (f"{work}/x/bin/busybox", f"{work}/x/usr/bin/busybox")
                         if os.path.exists(p))  # fmt: skip
        else:
            found = shutil.which("busybox") or ""
        if not found:
            raise Unavailable("busybox-static", "cannot be had", "apt-get install busybox-static")
        for folder, mode in FOLDERS.items():
            os.mkdir(f"{root}/{folder}")
            os.chmod(f"{root}/{folder}", mode)
        shutil.copy2(found, f"{root}/bin/busybox")
    for applet in run([f"{root}/bin/busybox", "--list"]).split():
        if applet != "busybox":
            os.symlink("busybox", f"{root}/bin/{applet}")
    for name, text in (
        ("passwd", "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n"),
        ("group", "root:x:0:\nnogroup:x:65534:\n"),
    ):
        with open(f"{root}/etc/{name}", "w", encoding="ascii") as file:
            file.write(text)


def _musl(root: str, report: Report) -> None:
    report("  compiling its program")
    with tempfile.TemporaryDirectory() as work:
        musl.build(root, work, f"{cache()}/sources")


def _hostile(report: Report) -> Image:
    system = _debian("hostile", SUITE, hostile.PACKAGES, report)
    files = _cached("hostile-files", hostile.RECIPE, hostile.write, report)
    return Image(
        "phalanx/hostile:latest", [system, files], hostile.COMMAND, hostile.ENV, hostile.SETTINGS
    )


def _hold_path() -> str:
    return f"{os.path.dirname(os.path.abspath(__file__))}/hold.c"


def _hold_source() -> str:
    with open(_hold_path(), encoding="utf-8") as file:
        return file.read()


def _empty(root: str, _report: Report) -> None:
    compiler = shutil.which("musl-gcc") or shutil.which("gcc")
    if not compiler:
        raise Unavailable("a C compiler", "is not installed", "apt-get install musl-tools")
    run([compiler, "-static", "-O2", "-Wall", "-Werror", "-s", "-o", f"{root}/hold", _hold_path()])


def _torch(report: Report) -> Layer:
    def build(root: str, report: Report) -> None:
        wheels.install(f"{root}/{SITE}", wheels.TORCH, report)
        _compile(f"{root}/{SITE}", report)
        os.makedirs(f"{root}/usr/local/bin")
        with open(f"{root}/usr/local/bin/torchrun", "w", encoding="ascii") as file:
            file.write(wheels.TORCHRUN)
        os.chmod(file.name, OPEN)

    return _cached("torch", f"{wheels.TORCH} {wheels.NOT_NEEDED} {wheels.TORCHRUN}", build, report)


def _compile(folder: str, report: Report) -> None:
    """Compile with the image's own Python, so that no container does it at each start."""
    base = _debian("base", SUITE, BASE, report)
    report("  compiling Python files")
    with _workspace() as work:
        run(["tar", "-C", work, "-xf", base.path], timeout=300)
        inside = f"{work}/{SITE}"
        shutil.rmtree(inside, ignore_errors=True)
        os.makedirs(os.path.dirname(inside), exist_ok=True)
        os.rename(folder, inside)
        # Hashes that nobody checks: a layer's files keep their compiled forms whatever their times.
        mode = ["--invalidation-mode", "unchecked-hash"]
        subprocess.run(  # some files of some packages are not for this Python, which is fine
            ["chroot", work, "python3", "-m", "compileall", "-qq", *mode, f"/{SITE}"],
            check=False,
            timeout=900,
            capture_output=True,
        )
        os.rename(inside, folder)


def _key(recipe: str) -> str:
    return hashlib.sha256(recipe.encode()).hexdigest()[:10]


class _claim:  # noqa: N801 - reads as a verb where it is used
    """Only one process builds a thing; others wait and find it."""

    def __init__(self, name: str) -> None:
        self._lock = status.Lock(f"{cache()}/images", name, "build")

    def __enter__(self) -> None:
        self._lock.take(wait=True)

    def __exit__(self, *_told: object) -> None:
        self._lock.drop(remove=True)


def _workspace() -> tempfile.TemporaryDirectory[str]:
    folder = tempfile.TemporaryDirectory(prefix="build-", dir=f"{cache()}/images")
    os.chmod(folder.name, OPEN)
    return folder
