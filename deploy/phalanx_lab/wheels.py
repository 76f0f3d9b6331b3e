"""Python packages for Python 3.11, whatever Python this machine runs, and only for the CPU."""

from __future__ import annotations

import glob
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from typing import Any

from phalanx_lab.machine import run, show
from phalanx_lab.unavailable import Unavailable

PYTHON = "3.11"
TORCH_RELEASE = "torch==2.13.0"
CPU_INDEX = "https://download.pytorch.org/whl/cpu"
TORCH = (TORCH_RELEASE, "numpy", "scikit-learn")
ML = (*TORCH, "tensorflow-cpu==2.21.0", "tf-keras==2.21.0", "lightning==2.6.6")
MORE = (  # to the last package, since their needs would bring a PyTorch with CUDA
    "accelerate==1.15.0", "annotated-types==0.8.0", "anyio==4.16.0", "click==8.5.1",
    "dask==2026.8.0", "deepspeed==0.19.8", "distributed==2026.8.0", "einops==0.8.2", "h11==0.16.0",
    "hf-xet==1.8.0", "hjson==3.1.0", "httpcore2==2.16.2", "httpx2==2.16.2",
    "huggingface_hub==2.4.0", "importlib_metadata==10.2.0", "jax==0.10.2", "jaxlib==0.10.2",
    "jsonschema==4.26.0", "jsonschema-specifications==2025.9.1", "lazy-importer==0.1.0",
    "locket==1.0.0", "msgpack==1.2.4", "ninja==1.13.2", "partd==1.4.2",
    "psutil==7.2.2", "py-cpuinfo==9.0.0", "pydantic==2.14.3", "pydantic_core==2.50.4",
    "ray==2.60.0", "referencing==0.37.0", "rpds-py==2026.9.1",
    "safetensors==0.8.0", "sortedcontainers==2.4.0", "tblib==3.2.2", "toolz==1.2.0",
    "tornado==6.6.1", "truststore==0.10.5", "typing-inspection==0.4.5",
    "zict==3.0.0", "zipp==4.1.2",
)  # fmt: skip
SLURM_TOOLS = (  # programs that speak to a cluster by SLURM's commands; `setuptools` is TorchX's
    "submitit==1.5.4", "torchx==0.7.0", "setuptools==65.5.0",
)  # fmt: skip
TORCHRUN = "#!/usr/bin/python3\nfrom torch.distributed.run import main\n\nmain()\n"
IMAGE_PYTHON = "#!/usr/bin/python3"
FOR_ANYBODY = 0o755
NOT_NEEDED = (  # no compiler is in the image, and pip's scripts name the Python of this machine
    "bin",
    "*/include",
    "torch/test",
    "torch/bin/[!t]*",
    "torch/bin/test_*",
    *(f"{name}/**/tests" for name in ("numpy", "scipy", "sklearn")),
)


def install(folder: str, packages: tuple[str, ...], report: Callable[[str], None]) -> None:
    """Install packages into a folder for `PYTHONPATH`."""
    wanted = [cpu_torch() if name == TORCH_RELEASE else name for name in packages]
    report(f"  installing {', '.join(packages)}")
    _install(folder, [*_for_the_image(), *wanted], report)
    for pattern in NOT_NEEDED:
        for useless in glob.glob(f"{folder}/{pattern}", recursive=True):
            if os.path.isdir(useless):
                shutil.rmtree(useless)
            else:
                os.unlink(useless)


def install_more(folder: str, report: Callable[[str], None]) -> None:
    """Install MORE into a folder for `PYTHONPATH`, with its commands in `bin`."""
    report(f"  installing {', '.join(MORE)}")
    # DeepSpeed is published as source only, which is why wheels alone would not do.
    _install(folder, ["--python-version", PYTHON, "--no-deps", *MORE], report)
    run_by_the_images_python(f"{folder}/bin")
    with open(f"{folder}/bin/torchrun", "w", encoding="ascii") as torchrun:
        torchrun.write(TORCHRUN)
    os.chmod(torchrun.name, FOR_ANYBODY)


def run_by_the_images_python(folder: str) -> None:
    """Let the commands in a folder begin with the image's Python, not with the one that ran pip."""
    for name in os.listdir(folder):
        with open(f"{folder}/{name}", "rb+") as file:
            first, text = file.readline(), file.read()
            if first.startswith(b"#!") and b"python" in first:
                file.seek(0)
                file.truncate()
                file.write(f"{IMAGE_PYTHON}\n".encode() + text)


def _install(folder: str, wanted: list[str], report: Callable[[str], None]) -> None:
    argv = [*_pip(), "install", "--target", folder, "--no-compile", *wanted]
    show(argv, report, timeout=1800)


def cpu_torch() -> str:
    """`torch @ URL` of a build without CUDA.

    PyTorch's own index of CPU builds comes first; where that cannot be reached, pip's own
    configuration may know one. A build that wants NVIDIA's packages is refused before it is
    fetched: it is some gigabytes of no use here.
    """
    seen = []
    for index in (["--index-url", CPU_INDEX, "--retries", "0", "--timeout", "8"], []):
        found = _look_up(index)
        if found is None:
            continue
        if is_cpu_build(found["metadata"]):
            return f"torch @ {found['download_info']['url']}"
        seen.append(found["download_info"]["url"])
    raise Unavailable(
        TORCH_RELEASE,
        f"has no build for the CPU here (found: {', '.join(seen) or 'nothing'})",
        f"Let pip reach {CPU_INDEX}, or a folder with that wheel (PIP_FIND_LINKS).",
    )


def is_cpu_build(metadata: dict[str, Any]) -> bool:
    """Whether a wheel's metadata is that of a build without CUDA."""
    if metadata["version"].endswith("+cpu"):
        return True
    needs = " ".join(metadata.get("requires_dist", []))
    return "+" not in metadata["version"] and not any(w in needs for w in ("nvidia", "cuda"))


def _look_up(index: list[str]) -> dict[str, Any] | None:
    """What pip would install for PyTorch; None when it finds nothing."""
    argv = [
        *_pip(), "install", "--dry-run", "--quiet", "--no-deps", "--ignore-installed",
        "--target", "/nonexistent", "--report", "-", *_for_the_image(), *index, TORCH_RELEASE,
    ]  # fmt: skip
    done = subprocess.run(argv, capture_output=True, text=True, timeout=300, check=False)
    if done.returncode != 0:
        return None
    told: dict[str, Any] = json.loads(done.stdout)["install"][0]
    return told


def _for_the_image() -> list[str]:
    return ["--python-version", PYTHON, "--only-binary=:all:"]


def _pip() -> list[str]:
    """Our own Python's pip, or the one on the path: environments come without one too."""
    own = [sys.executable, "-m", "pip"]
    try:
        run([*own, "--version"])
    except Unavailable:
        found = shutil.which("pip3") or shutil.which("pip")
        if not found:
            raise Unavailable("pip", "is not installed", "apt-get install python3-pip") from None
        own = [found]
    return [*own, "--disable-pip-version-check", "--no-input"]
