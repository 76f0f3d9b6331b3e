from __future__ import annotations

from pathlib import Path

import pytest

from phalanx_lab import fitness, wish


def test_a_folder_to_mount_is_kept_by_its_absolute_path_and_its_right(tmp_path: Path) -> None:
    assert wish.check_mount(f"{tmp_path}/../{tmp_path.name}:rw") == f"{tmp_path}:rw"
    assert wish.check_mount(str(tmp_path)) == str(tmp_path)


def test_a_mount_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="is no folder"):
        wish.check_mount("/nonexistent:rw")


def test_all_missing_programs_are_named_at_once_with_the_packages_that_bring_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")

    (miss,) = fitness.missing_tools(engines=True)

    assert miss.startswith("containerd, dockerd, hostname, ip, iptables")
    assert miss.endswith(
        "apt-get install -y containerd docker.io hostname iproute2 iptables mount procps runc "
        "util-linux"
    )


def test_engines_from_another_debian_need_no_docker_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")

    (miss,) = fitness.missing_tools(engines=False)

    assert "docker" not in miss
