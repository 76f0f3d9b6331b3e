"""What a manager does not start with is told in one sentence, and left as it is."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from phalanx_manager.config import ManagerConfig
from phalanx_manager.serve import serve
from phalanx_manager.store.port import Unavailable


def torn_token(folder: Path) -> None:
    (folder / "admin.token").touch()


def half_a_token(folder: Path) -> None:
    (folder / "admin.token").write_text("phx_abc\n")


def file_for_uploads(folder: Path) -> None:
    (folder / "uploads").touch()


def folder_in_uploads(folder: Path) -> None:
    (folder / "uploads" / "incoming" / "x").mkdir(parents=True)


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (torn_token, "admin.token: holds no token; put it back, or remove the file"),
        (half_a_token, "admin.token: holds no token"),
        (file_for_uploads, "uploads/incoming: cannot be used: Not a directory; mend or remove it"),
        (folder_in_uploads, "uploads/incoming/x: cannot be used: Is a directory"),
    ],
)
async def test_what_cannot_be_used_is_told_in_a_sentence(
    tmp_path: Path, make: Callable[[Path], None], told: str
) -> None:
    make(tmp_path)
    with pytest.raises(Unavailable, match=told) as caught:
        await serve(ManagerConfig(data_dir=tmp_path, admin_token_file=tmp_path / "admin.token"))

    assert "\n" not in str(caught.value)
