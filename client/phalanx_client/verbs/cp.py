"""`phalanx cp SRC DST`: one side is SESSION[/RANK]:/PATH."""

from __future__ import annotations

import io
import os
import posixpath
from collections.abc import Iterator
from contextlib import aclosing
from typing import TYPE_CHECKING

from phalanx_client import archive, output
from phalanx_client.arguments import Parser
from phalanx_client.blocking import iterate
from phalanx_client.call import Call, Verb
from phalanx_client.failure import NOT_FOUND, OK, USAGE, Broken, Failure, Refused
from phalanx_client.session import Client
from phalanx_client.target import Place, Target, find, parse_place

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer


def declare(parser: Parser) -> None:
    """Operands of `cp`."""
    parser.add_argument("source", metavar="SRC", help="a local path, or SESSION[/RANK]:/PATH")
    parser.add_argument("target", metavar="DST", help="the same; into it if it is a folder")


async def run(call: Call) -> int:
    """Copy one file or folder."""
    source, target = parse_place(call.options.source), parse_place(call.options.target)
    client = call.client()
    match source.target, target.target:
        case Target() as container, None:
            count = await _fetch(client, container, source.path, target.path)
        case None, Target() as container:
            count = await _send(client, source.path, container, target)
        case None, None:
            raise Failure("one side of cp must be SESSION[/RANK]:/PATH", USAGE)
        case _:
            raise Failure("cp goes from or to this machine, not between containers", USAGE)
    what = "1 file or folder" if count == 1 else f"{count} files and folders"
    output.note(f"copied {what}", quiet=call.quiet)
    return OK


async def _fetch(client: Client, container: Target, path: str, local: str) -> int:
    view, kernel = await find(client, container)
    async with client.read_archive(view.id, kernel.rank, path) as reply:
        await client.accepted(reply)
        pieces = io.BufferedReader(Pieces(iterate(reply.pieces())))
        try:
            return archive.unpack_copy(pieces, local, _name(path))
        except Broken as trouble:
            hint = "No file is half written here, but some may be missing; copy again."
            raise Broken(trouble.what, trouble.doing, hint) from trouble


def _name(path: str) -> str:
    """What a path of a container names; nothing at a root, or where it ends with a dot."""
    name = posixpath.basename(path.rstrip("/"))
    return "" if name in (".", "..") else name


class Pieces(io.RawIOBase):
    """A body that comes in pieces as a file to read from.

    The pieces are of a blocking transport, so taking the next one inside of a read is fine.
    """

    def __init__(self, pieces: Iterator[bytes]) -> None:
        super().__init__()
        self._pieces = pieces
        self._rest = b""

    def readable(self) -> bool:
        """It is."""
        return True

    def readinto(self, buffer: WriteableBuffer) -> int:
        """Some bytes; none at the end."""
        if not self._rest:
            self._rest = next(self._pieces, b"")
        view = memoryview(buffer).cast("B")
        count = min(len(view), len(self._rest))
        view[:count] = self._rest[:count]
        self._rest = self._rest[count:]
        return count


async def _send(client: Client, local: str, container: Target, place: Place) -> int:
    view, kernel = await find(client, container)
    path = place.path
    if path.endswith("/") or await _is_folder(client, view.id, kernel.rank, path):
        folder, name = path, os.path.basename(os.path.abspath(local))
    else:
        folder, name = posixpath.split(path)
    packed, length = archive.pack_copy(local, name)
    with packed:
        count = archive.count(packed)
        try:
            await client.write_archive(view.id, kernel.rank, folder or "/", packed, length)
        except Broken as trouble:
            hint = "A part may be in the container, a file of it half written; copy again."
            raise Broken(trouble.what, trouble.doing, hint) from trouble
    return count


async def _is_folder(client: Client, ref: str, rank: int, path: str) -> bool:
    """Whether a path of a container is a folder; the first block of its archive tells."""
    try:
        async with client.read_archive(ref, rank, path) as reply:
            await client.accepted(reply)
            head = b""
            async with aclosing(reply.pieces()) as pieces:
                async for piece in pieces:
                    head += piece
                    if len(head) >= 512:
                        break
            return archive.first_is_folder(head) is True
    except Refused as refused:
        if refused.exit_code == NOT_FOUND:
            return False
        raise


VERBS = {"cp": Verb("cp SRC DST", declare, run)}
