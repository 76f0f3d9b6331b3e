"""What an image says of its users; only a container's files can be read, so one is made for it."""

from __future__ import annotations

import contextlib
import io
import tarfile
from typing import Final

from phalanx_agent.docker.call import Line, checked_id
from phalanx_agent.docker.port import Unavailable
from phalanx_wire import names

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
            "Labels": {names.LABEL_CLUSTER: cluster},
            "HostConfig": {"NetworkMode": "none"},
        },
    )
    container_id = checked_id(made["Id"])
    try:
        passwd, group = [await _text(line, container_id, path) for path in _PATHS]
    finally:
        await line.ask(
            "DELETE",
            f"containers/{container_id}",
            what=f"image {image_id[:19]}",
            doing="reading its users",
            params={"force": "1", "v": "1"},
        )
    return passwd, group


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
