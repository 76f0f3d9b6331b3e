from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest
import zmq

from phalanx_manager.rpc.failure import Unavailable
from phalanx_manager.rpc.keys import load_or_make, make_pair


def test_the_managers_key_is_made_once_and_kept_private(tmp_path: Path) -> None:
    path = tmp_path / "manager.key"
    made = load_or_make(path)
    assert made == load_or_make(path)
    assert made.public == zmq.curve_public(made.secret.encode()).decode()
    assert 0o600 == stat.S_IMODE(path.stat().st_mode)


def test_a_secret_key_is_not_printed() -> None:
    pair = make_pair()
    assert pair.secret not in repr(pair)


def test_a_key_that_others_can_read_is_refused_with_the_cure(tmp_path: Path) -> None:
    path = tmp_path / "manager.key"
    load_or_make(path)
    os.chmod(path, 0o644)
    with pytest.raises(Unavailable, match="chmod 600"):
        load_or_make(path)


@pytest.mark.parametrize("text", [b"", b"short", b"x" * 41, b"\xff" * 40, b"~" * 40, b"\n" * 50])
def test_a_file_that_holds_no_key_is_refused(tmp_path: Path, text: bytes) -> None:
    path = tmp_path / "manager.key"
    path.write_bytes(text)
    os.chmod(path, 0o600)
    with pytest.raises(Unavailable, match="not a CURVE secret key"):
        load_or_make(path)


def test_a_folder_that_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="No such file"):
        load_or_make(tmp_path / "nowhere" / "manager.key")


def test_a_folder_in_place_of_the_file_is_said(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="directory"):
        load_or_make(tmp_path)
