"""What a killed engine has noted of a network that it was removing."""

from __future__ import annotations

import fcntl
import json
from pathlib import Path
from typing import Any

from phalanx_lab import engine_store

WISH = json.dumps([{"PreferredPool": "10.213.13.0/26", "SubPool": "", "Gateway": ""}])
GIVEN = json.dumps([{"PoolID": "LocalDefault/10.213.13.0/26"}])
NONE = "[]"


def note(name: str, **more: Any) -> bytes:
    """A network's, as an engine writes it."""
    told = {"addrSpace": "LocalDefault", "inDelete": False, "ipamV4Config": WISH, "name": name}
    return json.dumps({**told, **more}, separators=(",", ":")).encode()


TORN = note("torn", inDelete=True)
FINE = (
    note("in-use", ipamV4Info=GIVEN),
    note("on-its-way-out", inDelete=True, ipamV4Info=GIVEN),
    note("no-pool", inDelete=True, ipamV4Config=NONE),
)


def database(tmp_path: Path, *notes: bytes) -> Path:
    """Notes between other pages."""
    file = tmp_path / "local-kv.db"
    file.write_bytes(b"\x00\x81 page ".join((b"", *notes, b"\xff" * 100)))
    return file


def test_a_network_that_was_being_removed_asks_for_no_pool_any_more(tmp_path: Path) -> None:
    file = database(tmp_path, FINE[0], TORN, *FINE[1:])
    before = file.read_bytes()
    names = engine_store.mend(str(file))
    after = file.read_bytes()
    at = before.index(TORN)

    assert ["torn"] == names
    assert (before[:at], before[at + len(TORN) :]) == (after[:at], after[at + len(TORN) :])
    assert {**json.loads(TORN), "ipamV4Config": NONE} == json.loads(after[at : at + len(TORN)])


def test_what_is_mended_or_well_stays_as_it_is(tmp_path: Path) -> None:
    file = database(tmp_path, *FINE, TORN[:-40], b'{"addrSpace":')
    before = file.read_bytes()

    assert ([], before) == (engine_store.mend(str(file)), file.read_bytes())


def test_a_database_that_an_engine_holds_is_left_alone(tmp_path: Path) -> None:
    file = database(tmp_path, TORN)
    with file.open("rb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)

        assert ([], []) == (engine_store.mend(str(file)), engine_store.mend(str(tmp_path / "none")))
