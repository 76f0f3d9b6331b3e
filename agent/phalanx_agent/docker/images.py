"""Images: what a recipe needs to know of one, and how one is got."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Callable
from typing import Any, Final
from urllib.parse import quote

from aiohttp import StreamReader

from phalanx_agent.core.recipe import Image
from phalanx_agent.docker.call import Line, speaking
from phalanx_agent.docker.port import Unavailable
from phalanx_wire.slots import spell_bytes

_NOT_FOUND: Final = 404
_GOOD_FOR_S: Final = 1.0
_QUIET_S: Final = 120.0
"""A pull that says nothing for so long has stalled."""

_REFERENCE: Final = re.compile(
    r"[a-zA-Z0-9][a-zA-Z0-9._:/-]{0,254}(@sha256:[a-f0-9]{64})?|sha256:[a-f0-9]{64}"
)


class Images:
    """The images of one engine. What was found is good for a moment: the containers of a gang all
    ask at once.
    """

    def __init__(self, line: Line) -> None:
        self._line = line
        self._found: dict[str, tuple[float, Image]] = {}

    async def find(self, ref: str) -> Image | None:
        """Look an image up by name, digest or id; None when the engine does not have it."""
        now = asyncio.get_running_loop().time()
        self._found = {key: kept for key, kept in self._found.items() if kept[0] > now}
        if ref in self._found:
            return self._found[ref][1]
        try:
            seen = await self._line.ask(
                "GET",
                f"images/{quote(_checked(ref), safe=':/@')}/json",
                what=f"image {ref}",
                doing="looking it up",
            )
        except Unavailable as error:
            if error.status == _NOT_FOUND:
                return None
            raise
        image = _image(seen)
        self._found[ref] = (now + _GOOD_FOR_S, image)
        return image

    async def pull(self, ref: str, progress: Callable[[str], None]) -> Image:
        """Get an image from its registry, telling how far it is."""
        what = f"image {ref}"
        layers: dict[str, tuple[int, int]] = {}
        params = {"fromImage": _checked(ref)}
        if ":" not in ref.rpartition("/")[2] and "@" not in ref:
            params["tag"] = "latest"
        path = "images/create"
        async with self._line.stream(
            path, method="POST", what=what, doing="pulling it", params=params
        ) as answer:
            with speaking(what, "pulling it"):
                while line := await _next_line(answer.content, what):
                    self._take(json.loads(line), ref, layers, progress)
        found = await self.find(ref)
        if found is None:
            raise Unavailable(what, "pulling it", "The engine does not have it afterwards.")
        return found

    def _take(
        self,
        message: dict[str, Any],
        ref: str,
        layers: dict[str, tuple[int, int]],
        progress: Callable[[str], None],
    ) -> None:
        if "error" in message:
            hint = (
                f"{str(message['error'])[:300].rstrip('.')}. Is it spelled so, and does this host "
                "reach its registry? What is in no registry is loaded into each host's engine."
            )
            raise Unavailable(f"image {ref}", "pulling it", hint, kind="answered", status=404)
        if str(message.get("status")).startswith("Retrying"):
            progress(f"pulling image {ref}: it broke off, and the engine tries again")
        amounts = message.get("progressDetail") or {}
        if "total" not in amounts or message.get("status") != "Downloading":
            return
        layers[message.get("id", "")] = (amounts["current"], amounts["total"])
        done = sum(current for current, _ in layers.values())
        whole = sum(total for _, total in layers.values())
        progress(f"pulling image {ref}, {spell_bytes(done)} of {spell_bytes(whole)}")


async def _next_line(content: StreamReader, what: str) -> bytes:
    """Read what is said next of a pull; a slow one is heard of now and then."""
    try:
        async with asyncio.timeout(_QUIET_S):
            return await content.readline()
    except TimeoutError as error:
        hint = f"Nothing has come of it for {_QUIET_S:.0f} s; does its registry answer?"
        raise Unavailable(what, "pulling it", hint) from error


def _checked(ref: str) -> str:
    if _REFERENCE.fullmatch(ref) is None or ".." in ref:
        raise Unavailable(
            f"image {ref[:80]!r}", "naming it", "It is no image name.", kind="answered", status=400
        )
    return ref


def _image(seen: dict[str, Any]) -> Image:
    config = seen.get("Config") or {}
    return Image(
        id=seen["Id"],
        env=tuple(config.get("Env") or ()),
        entrypoint=tuple(config.get("Entrypoint") or ()),
        command=tuple(config.get("Cmd") or ()),
        workdir=config.get("WorkingDir") or "",
        user=config.get("User") or "",
    )
