"""A folder that goes along with sessions: packed once, sealed for the hosts that it is sent to."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, BinaryIO, Final, Self

from msgspec.structs import replace

from phalanx_client import archive
from phalanx_client.failure import TRY_AGAIN, UNAVAILABLE, Failure, Refused
from phalanx_wire import sealed
from phalanx_wire.api import SessionView
from phalanx_wire.spec import SessionSpec

if TYPE_CHECKING:
    from phalanx_client.session import Client

_NOT_FOR_ALL: Final = "upload_not_sealed_for_all"


def wanted(environ: Mapping[str, str]) -> bool:
    """Whether uploads are sealed where nobody says it by an option: `PHALANX_SEAL=no` is not."""
    return environ.get("PHALANX_SEAL", "").lower() not in ("no", "0", "false")


class Folder:
    """A folder to send along with sessions; leaving its context closes its archive.

    Raises:
        Failure: there is no such folder, or something in it can't travel.
    """

    def __init__(self, client: Client, path: str, *, seal: bool) -> None:
        self._client = client
        self._seal = seal
        self._packed, self._length = archive.pack_upload(path)
        self._digest = ""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._packed.close()

    async def submit(self, spec: SessionSpec, key: str) -> SessionView:
        """Ask for a session that has the folder; it is sent for the first one, and again where it
        was sealed too early for a host that has joined since.

        Raises:
            Refused: with the manager's reason.
            Failure: there is no host yet to seal it for.
        """
        if not self._digest:
            self._digest = await self._send(spec)
        try:
            return await self._client.submit(replace(spec, upload=self._digest), key)
        except Refused as refused:
            if not self._seal or refused.problem.code != _NOT_FOR_ALL:
                raise
        self._digest = await self._send(spec)
        return await self._client.submit(replace(spec, upload=self._digest), key)

    async def _send(self, spec: SessionSpec) -> str:
        self._packed.seek(0)
        if not self._seal:
            return (await self._client.upload(self._packed, self._length)).digest
        keys = await self._keys(spec)
        made, length = _sealed(self._packed, keys)
        with made:
            return (await self._client.upload(made, length)).digest

    async def _keys(self, spec: SessionSpec) -> Collection[bytes]:
        """The keys of all hosts of a session's cluster."""
        cluster = spec.cluster
        found = [node for node in (await self._client.nodes()).nodes if node.cluster == cluster]
        if not found:
            # Refused here, in the manager's words, where there is no such cluster or it ends.
            await self._client.dry_run(spec)
            raise Failure(
                f"an upload is sealed for the hosts that may read it, and cluster {cluster} has "
                "none yet; wait until `phalanx nodes` shows one (`phalanx cluster create --wait` "
                "does), or send it as it is, so that the manager can read it: --no-seal",
                TRY_AGAIN,
            )
        if len(found) > sealed.MAX_RECIPIENTS:
            raise Failure(
                f"an upload is sealed for {sealed.MAX_RECIPIENTS} hosts at most, and cluster "
                f"{cluster} has {len(found)}; send it as it is: --no-seal"
            )
        try:
            return [sealed.key_bytes(node.public_key) for node in found]
        except ValueError as error:
            raise Failure(
                f"the manager tells no key of a host ({error}), so nothing can be sealed; upgrade "
                "it, or send the upload as it is: --no-seal",
                UNAVAILABLE,
            ) from error


def _sealed(packed: BinaryIO, keys: Collection[bytes]) -> tuple[BinaryIO, int]:
    """An archive that only the owners of some keys can open, in an unnamed file, and its length."""
    from phalanx_wire import seal  # noqa: PLC0415 - slow, and only needed here

    try:
        return archive.unnamed(
            lambda target: seal.seal(packed, target, keys, os.urandom), "the sealed archive"
        )
    except ValueError as error:
        raise Failure(f"the manager tells a host's key that is none: {error}") from error
