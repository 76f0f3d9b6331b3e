"""What an image says of its users; only a container's files can be read, so one is made for it."""

from __future__ import annotations

import contextlib
import io
import tarfile
from typing import Final

from phalanx_agent.docker.call import Line, checked_id
from phalanx_agent.docker.port import Unavailable
from phalanx_wire import names

LABEL: Final = f"{names.LABEL}looks-at"
_PATHS: Final = ("/etc/passwd", "/etc/group")
_LIMIT_BYTES: Final = 4 << 20
_NOT_FOUND: Final = 404


async def read(line: Line, cluster: str, image_id: str) -> tuple[str, str]:
    """Read an image's passwd and group; empty where it has none."""
    made = await line.ask(
        "POST",
        "containers/create",
        what=f"image {image_id[:19]}",
        doing="reading its users",
        body={
            "Image": image_id,
            "Entrypoint": ["/never-started"],
            "Labels": {names.LABEL_CLUSTER: cluster, LABEL: image_id},
            "HostConfig": {"NetworkMode": "none"},
        },
    )
    container_id = checked_id(made["Id"])
    try:
        passwd, group = [await _text(line, container_id, path) for path in _PATHS]
    finally:
        await _remove(line, container_id)
    return passwd, group


async def clear(line: Line, cluster: str) -> None:
    """Remove what an agent that was killed while it read has left; nobody may read meanwhile."""
    left = await line.ask(
        "GET",
        "containers/json",
        doing="looking for what was left behind",
        params={"all": "1", "filters": {"label": [f"{names.LABEL_CLUSTER}={cluster}", LABEL]}},
    )
    for entry in left:
        if LABEL in entry["Labels"]:
            await _remove(line, checked_id(entry["Id"]))


async def _remove(line: Line, container_id: str) -> None:
    try:
        await line.ask(
            "DELETE",
            f"containers/{container_id}",
            what=f"container {container_id[:12]}",
            doing="removing it after its image's users were read",
            params={"force": "1", "v": "1"},
        )
    except Unavailable as error:
        if error.status != _NOT_FOUND:
            raise


async def _text(line: Line, container_id: str, path: str) -> str:
    packed = bytearray()
    try:
        async with line.stream(
            f"containers/{container_id}/archive",
            what=f"path {path} of an image",
            doing="reading it",
            params={"path": path},
        ) as answer:
            async for chunk in answer.content.iter_chunked(64 << 10):
                packed += chunk
                if len(packed) > _LIMIT_BYTES:
                    return ""
    except Unavailable as error:
        if error.status == _NOT_FOUND:
            return ""
        raise
    with contextlib.suppress(tarfile.TarError), tarfile.open(fileobj=io.BytesIO(packed)) as tar:
        for member in tar:
            file = tar.extractfile(member) if member.isreg() else None
            if file is not None:
                return file.read().decode("utf-8", "replace")
    return ""
