"""Images into every engine of a lab at once."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from urllib.parse import quote

from phalanx_lab import archive, engine, recipes
from phalanx_lab.archive import Image, Saved
from phalanx_lab.unavailable import Unavailable

MACHINE_SOCKET = "/var/run/docker.sock"
LOAD_WITHIN = 900.0
REPORT_EVERY = 4.0
Report = Callable[[str], None]


def load(sockets: Sequence[str], what: str, report: Report) -> str:
    """Load an image into engines that lack it; the reference to run it by.

    `what` is a recipe's name, a tar file, `NAME=FILE`, or an image of the machine's own engine.
    """
    name, _, path = what.rpartition("=")
    with tempfile.TemporaryDirectory(prefix="phalanx-load-", dir=_workspace()) as work:
        if not name and what.removeprefix("phalanx/") in recipes.NAMES and not os.path.exists(what):
            image: Image | Saved = recipes.image(what.removeprefix("phalanx/"), report)
        elif os.path.isfile(path):
            stem = os.path.basename(path).split(".")[0].lower()
            image = archive.from_file(path, name or stem, work)
        elif name or path.endswith((".tar", ".tgz", ".gz")) or "/" in path[:1]:
            raise Unavailable(path, "is no file", "Name a tar file, a recipe or an image.")
        else:
            image = _from_the_machine(what, work)
        lacking = [socket for socket in sockets if not has(socket, image)]
        if not lacking:
            report(f"{image.ref} is on all {len(sockets)} engines already")
            return image.ref
        report(f"loading {image.ref} ({image.size / 1e6:.0f} MB) into {len(lacking)} engines")
        _load_into(lacking, image, report)
    return image.ref


def _workspace() -> str:
    folder = f"{recipes.cache()}/images"
    os.makedirs(folder, exist_ok=True)
    return folder


def has(socket: str, image: Image | Saved) -> bool:
    """Whether an engine has all that an archive holds, byte for byte."""
    return all(image_id(socket, ref) == wanted for ref, wanted in image.names.items())


def image_id(socket: str, ref: str) -> str:
    """The id of an image on an engine; empty when it has none of that name."""
    status, told = engine.ask(socket, "GET", f"/images/{quote(ref, safe='')}/json")
    return str(told["Id"]) if status == 200 else ""


def _load_into(sockets: Sequence[str], image: Image | Saved, report: Report) -> None:
    """All at once, with a sign of life now and then."""
    began = time.monotonic()
    with ThreadPoolExecutor(len(sockets)) as pool:
        waiting = {pool.submit(_load_one, socket, image) for socket in sockets}
        while waiting:
            done, waiting = wait(waiting, timeout=REPORT_EVERY, return_when=FIRST_COMPLETED)
            for one in done:
                one.result()
            ready = len(sockets) - len(waiting)
            took = time.monotonic() - began
            if took > REPORT_EVERY or not waiting:
                report(f"  {ready} of {len(sockets)} engines have it after {took:.0f} s")


def _load_one(socket: str, image: Image | Saved) -> None:
    status, told = engine.ask(
        socket, "POST", "/images/load?quiet=1", image.stream(), timeout=LOAD_WITHIN
    )
    said = told if isinstance(told, list) else [told]
    errors = [line["error"] for line in said if "error" in line]
    if status != 200 or errors:
        raise Unavailable(socket, f"did not load {image.ref}: {errors or said}", "See its log.")


def _from_the_machine(name: str, work: str) -> Saved:
    """Save an image of the machine's own engine into a file."""
    hint = (
        f"Recipes: {', '.join(recipes.NAMES)}; or name a tar file, or an image that the "
        "machine's own Docker has (docker pull)."
    )
    if not engine.answers(MACHINE_SOCKET):
        raise Unavailable(name, "is no recipe, no file, and no engine runs here", hint)
    if not image_id(MACHINE_SOCKET, name):
        raise Unavailable(name, "is no recipe, no file, and no image of this machine", hint)
    path = f"{work}/saved.tar"
    engine.save(MACHINE_SOCKET, f"/images/{quote(name, safe='')}/get", path)
    found = archive.from_file(path, name, work)
    if not isinstance(found, Saved):
        raise Unavailable(name, "was saved without a manifest", "See docker save.")
    return found
