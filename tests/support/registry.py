"""A registry of one image that is slow, stalls, lies or is gone, as a test wants it."""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import io
import json
import os
import re
import select
import socket
import sys
import tarfile
import threading
import time
from collections.abc import Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from phalanx_lab import archive, recipes

_KIND = "application/vnd.docker.distribution.manifest.v2+json"
_CONFIG = "application/vnd.docker.container.image.v1+json"
_LAYER = "application/vnd.docker.image.rootfs.diff.tar.gzip"
_TLS = b"\x16"
"""The first byte of whoever tries TLS first, as engines do."""
_STEP_S = 0.05
_FILLER = 300_000
"""Bytes that nobody has yet, so that every engine has to fetch the layer."""


def digest_of(data: bytes) -> str:
    """Name content as registries do."""
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


class Registry:
    """Serves one image at listening sockets, which it closes when it dies.

    Attributes:
        rate: bytes of the layer per second, also of a transfer that goes on; None is as fast as can
            be. A transfer that begins at 0 stalls until it is broken off.
        lies: what comes otherwise than its digest says: "layer", "manifest", or nothing.
        sending: how many transfers of the layer go on.
        broken: how many the other side has broken off.
        sent_at: when the last of the layer was last sent, seconds of CLOCK_BOOTTIME.
    """

    def __init__(self, folder: Path) -> None:
        """Args: folder: where the image's layer is made; busybox, and what is in no other image."""
        self.rate: float | None = None
        self.lies = ""
        self.sending = self.broken = 0
        self.sent_at = 0.0
        tar = folder / "layer.tar"
        tar.write_bytes(Path(recipes.image("busybox", print).layers[0].path).read_bytes())
        with tarfile.open(tar, "a") as layer:
            member = tarfile.TarInfo("filler")
            member.size = _FILLER
            layer.addfile(member, io.BytesIO(os.urandom(_FILLER)))
        config = archive.Image("", (archive.layer_of(str(tar)),)).config
        self.layer = gzip.compress(tar.read_bytes(), 1)
        parts = {
            "config": {"mediaType": _CONFIG, "size": len(config), "digest": digest_of(config)},
            "layers": [
                {"mediaType": _LAYER, "size": len(self.layer), "digest": digest_of(self.layer)}
            ],
        }
        self.manifest = json.dumps({"schemaVersion": 2, "mediaType": _KIND, **parts}).encode()
        self.blobs = {digest_of(data): data for data in (config, self.layer)}
        self._servers: list[_Server] = []

    def serve(self, listeners: Sequence[socket.socket]) -> None:
        """Answer whoever comes to these from now on."""
        for listener in listeners:
            self._servers.append(_Server(self, listener))

    def die(self) -> None:
        """End as by kill -9: nobody listens any more, and every connection breaks."""
        for server in self._servers:
            server.die()
        self._servers.clear()


class _Server(ThreadingHTTPServer):
    """One listening socket, and the connections that came by it."""

    def __init__(self, registry: Registry, listener: socket.socket) -> None:
        super().__init__(listener.getsockname(), _Handler, bind_and_activate=False)
        self.socket.close()
        self.socket = listener
        self.registry = registry
        self.lines: set[socket.socket] = set()
        threading.Thread(target=self.serve_forever, args=(_STEP_S,), daemon=True).start()

    def die(self) -> None:
        self.shutdown()
        self.server_close()
        for line in list(self.lines):
            with contextlib.suppress(OSError):
                line.shutdown(socket.SHUT_RDWR)

    def handle_error(self, request: object, client_address: object) -> None:
        """Bear that somebody has gone; all else is a mistake of ours."""
        if not isinstance(sys.exc_info()[1], OSError):
            super().handle_error(request, client_address)  # type: ignore[arg-type]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def setup(self) -> None:
        super().setup()
        self.server.lines.add(self.connection)

    def handle(self) -> None:
        if self.rfile.peek(1)[:1] != _TLS:  # type: ignore[attr-defined]
            super().handle()

    def finish(self) -> None:
        self.server.lines.discard(self.connection)
        super().finish()

    def log_message(self, *_words: object) -> None:
        """Say nothing."""

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        registry = self.server.registry
        _, _, asked = self.path.rpartition("/")
        if self.path == "/v2/":
            self._answer(b"{}", "application/json")
        elif "/manifests/" in self.path:
            lie = b" " if registry.lies == "manifest" else b""
            self._answer(registry.manifest + lie, _KIND)
        elif asked not in registry.blobs:
            self.send_error(404)
        elif registry.blobs[asked] is registry.layer and self.command == "GET":
            self._send_layer()
        else:
            self._answer(registry.blobs[asked], "application/octet-stream")

    def _answer(self, data: bytes, kind: str) -> None:
        self._head(
            200, len(data), **{"Content-Type": kind, "Docker-Content-Digest": digest_of(data)}
        )
        if self.command == "GET":
            self.wfile.write(data)

    def _head(self, status: int, size: int, **fields: str) -> None:
        self.send_response(status)
        self.send_header("Docker-Distribution-Api-Version", "registry/2.0")
        self.send_header("Content-Length", str(size))
        for name, value in fields.items():
            self.send_header(name, value)
        self.end_headers()

    def _send_layer(self) -> None:
        """Send it at the rate of the moment, from where somebody goes on who has a part."""
        registry = self.server.registry
        data = registry.layer
        if registry.lies == "layer":
            data = data[:-1] + bytes([data[-1] ^ 1])
        begin = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        at, whole = int(begin[1]) if begin else 0, len(data)
        if begin:
            self._head(206, whole - at, **{"Content-Range": f"bytes {at}-{whole - 1}/{whole}"})
        else:
            self._head(200, whole)
        registry.sending += 1
        try:
            if registry.rate == 0:
                self._gone(None)
                registry.broken += 1
                return
            while at < whole:
                step = whole if registry.rate is None else max(1, int(registry.rate * _STEP_S))
                if registry.rate is not None and self._gone(_STEP_S):
                    registry.broken += 1
                    return
                self.wfile.write(data[at : at + step])
                at += step
            registry.sent_at = time.clock_gettime(time.CLOCK_BOOTTIME)
        finally:
            registry.sending -= 1
            self.close_connection = True

    def _gone(self, within_s: float | None) -> bool:
        """Wait so long for the other side to leave; it has nothing to say while it is sent to."""
        return bool(select.select([self.connection], [], [], within_s)[0])
