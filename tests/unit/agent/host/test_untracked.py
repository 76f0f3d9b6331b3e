"""What a host says of its table of connections."""

from __future__ import annotations

from pathlib import Path

import pytest

from phalanx_agent.host.untracked import crowded


@pytest.mark.parametrize(("used", "told"), [(0, 0), (899, 0), (900, 1), (1000, 1)])
def test_a_table_that_is_nearly_full_is_said(tmp_path: Path, used: int, told: int) -> None:
    (tmp_path / "nf_conntrack_count").write_text(f"{used}\n")
    (tmp_path / "nf_conntrack_max").write_text("1000\n")

    said = crowded(tmp_path)

    assert [told, told] == [len(said), "(1000)" in "".join(said)]


def test_a_host_that_tracks_nothing_says_nothing(tmp_path: Path) -> None:
    assert () == crowded(tmp_path)
