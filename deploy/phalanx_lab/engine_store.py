"""An engine's own database of networks, which a killed one may leave so that no next one starts.

An engine of version 20.10 that is killed in the midst of removing a network may leave that one
noted as being removed, with the pool that was asked for it and without the one it had been given.
Each engine that starts then panics on it (moby/moby#45057). Here the wish for a pool is taken out
of such a note, and the next engine removes what is left of the network.
"""

from __future__ import annotations

import fcntl
import json
import re

_RECORD = re.compile(rb'\{"addrSpace":')
_WISH = re.compile(rb'"ipamV4Config":"(?:[^"\\]|\\.)*"')
_NO_WISH = b'"ipamV4Config":"[]"'
_LONGEST = 1 << 16  # bytes of a network's note


def mend(path: str) -> list[str]:
    """Mend the notes of networks that were being removed; their names.

    The file is a tree of pages without checksums, and a note keeps its length, so that nothing else
    moves. A file that an engine holds, or none, is left alone.
    """
    try:
        with open(path, "r+b") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            content = bytearray(file.read())
            names = [
                name
                for at in _RECORD.finditer(bytes(content))
                if (name := _mend(content, at.start()))
            ]
            if names:
                file.seek(0)
                file.write(content)
            return names
    except (FileNotFoundError, BlockingIOError):
        return []


def _mend(content: bytearray, at: int) -> str:
    """Mend one note in its place; the network's name, empty when it is fine as it is."""
    text = content[at : at + _LONGEST].decode("latin-1")  # a character for each byte
    try:
        note, length = json.JSONDecoder().raw_decode(text)
    except ValueError:  # the rest of an older one, in a page that is not used any more
        return ""
    wish = _WISH.search(content, at, at + length)
    torn = note.get("inDelete") and not note.get("ipamV4Info")
    if not torn or wish is None or wish[0] == _NO_WISH:
        return ""
    content[wish.start() : wish.end()] = _NO_WISH.ljust(len(wish[0]))
    return str(note["name"])
