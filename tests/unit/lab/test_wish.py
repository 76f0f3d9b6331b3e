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


def test_hosts_are_named_and_hidden_ones_have_an_address_of_their_own() -> None:
    plan = wish.wish("lab", 2, nat=("host2",), bare=("host2",))

    assert ((2,), (1,)) == (plan.nat, plan.agents)
    assert ("10.98.2.1", "10.99.0.2") == (plan.address(2), plan.outer_address(2))
    assert "10.99.0.1" == plan.address(1) == plan.outer_address(1)


@pytest.mark.parametrize("name", ["host3", "host0", "2", "hostile", ""])
def test_a_host_that_the_lab_does_not_have_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="the hosts are host1 to host2"):
        wish.wish("lab", 2, nat=(name,))
