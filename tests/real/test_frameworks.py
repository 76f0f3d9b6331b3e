"""Real frameworks find each other with nothing but what a session gives them."""

from __future__ import annotations

import ipaddress
from pathlib import Path

import pytest

from phalanx_lab import recipes
from tests.real.ground import ACROSS, PROGRAMS, Ground, documents

pytestmark = pytest.mark.real

ANYBODY = ("0", "12345:12345")  # root, and somebody of whom no image has heard
A_NAME_SERVERS_SILENCE_S = 9.0  # a look-up that nobody answers takes ten
ROOMY = ("-c", "1", "-m", "1G", "--upload", str(PROGRAMS))


@pytest.fixture(scope="module")
def mpi(ground: Ground) -> str:
    """The reference of an image with Open MPI, on all engines."""
    return ground.lab.load("mpi")


@pytest.fixture(scope="module")
def packages() -> tuple[str, ...]:
    """Options that give a session PyTorch and TensorFlow, out of a folder on every host."""
    folder = recipes.site_ml(print)
    return ("-v", f"{folder}:/site:ro", "-e", "PYTHONPATH=/site")


def test_torch_adds_up_over_two_engines_with_nothing_but_our_environment(
    clean: Ground, packages: tuple[str, ...]
) -> None:
    told = clean.run(
        "-N", "3", "--mode", "multi-node", *packages, *ROOMY, "--", "python3", "ddp.py"
    ).ok()  # fmt: skip

    found = documents(told)
    assert [(0, 3, 6.0), (1, 3, 6.0), (2, 3, 6.0)] == [
        (one["rank"], one["world"], one["sum"]) for one in found
    ]
    assert [True] * 3 == [one["equal"] for one in found]
    assert all(one["joined_s"] < 5 for one in found)
    assert_all_inside(found)


def test_torch_joins_at_once_where_no_name_server_answers(
    clean: Ground, packages: tuple[str, ...]
) -> None:
    told = clean.run(
        "-N", "2", *ACROSS, "--no-egress", *packages, *ROOMY, "--", "python3", "ddp.py"
    ).ok()  # fmt: skip

    found = documents(told)
    assert [(0, 3.0), (1, 3.0)] == [(one["rank"], one["sum"]) for one in found]
    assert all(one["joined_s"] < A_NAME_SERVERS_SILENCE_S for one in found)
    assert_all_inside(found)


@pytest.mark.parametrize("user", ANYBODY)
def test_torchrun_needs_no_argument_under_its_profile(
    clean: Ground, packages: tuple[str, ...], user: str
) -> None:
    told = clean.run(
        "-N", "2", *ACROSS, *packages, *ROOMY, "-u", user, "--env-profile", "torchrun",
        "--", "python3", "-m", "torch.distributed.run", "ddp.py",
    ).ok()  # fmt: skip

    found = documents(told)
    assert [(0, 2, 3.0), (1, 2, 3.0)] == sorted(
        (one["rank"], one["world"], one["sum"]) for one in found
    )
    assert_all_inside(found)


def test_lightning_takes_its_place_from_our_environment(
    clean: Ground, packages: tuple[str, ...]
) -> None:
    two_fit = f"{clean.lab.plan.mem * 4 // 10}"

    told = clean.run(
        "-N", "4", "--mode", "multi-node", "--spread", "pack", *packages, *ROOMY, "-m", two_fit,
        "--", "python3", "lit.py", "2", "2",
    ).ok()  # fmt: skip

    found = documents(told)
    assert [(0, 0, 0, 4), (1, 1, 0, 4), (2, 0, 1, 4), (3, 1, 1, 4)] == [
        (one["rank"], one["local"], one["node"], one["world"]) for one in found
    ]
    assert all(found[0]["weight"] == one["weight"] for one in found)


@pytest.mark.parametrize("user", ANYBODY)
def test_mpirun_from_main_reaches_all_containers_without_a_flag(
    clean: Ground, mpi: str, user: str
) -> None:
    told = clean.run(
        "-N", "3", *ACROSS, "-i", mpi, *ROOMY, "-u", user, "--run-on", "main",
        "--", "mpirun", "python3", "mpi_sum.py",
    ).ok()  # fmt: skip

    assert [{"size": 3, "sum": 6, "hosts": ["main1", "sub1", "sub2"]}] == documents(told)


def test_a_batch_of_32_megabytes_fits_between_a_data_loader_and_its_workers(
    clean: Ground, packages: tuple[str, ...], script: Path
) -> None:
    (script / "load.py").write_text(
        "import torch\n"
        "from torch.utils.data import DataLoader, Dataset\n"
        "class Big(Dataset):\n"
        "    def __len__(self): return 8\n"
        "    def __getitem__(self, _): return torch.ones(4 << 20)\n"
        "if __name__ == '__main__':\n"
        "    print(sum(x.shape[0] for x in DataLoader(Big(), batch_size=2, num_workers=2)))\n"
    )

    told = clean.run(
        *packages, "-c", "1", "-m", "1G", "--upload", str(script), "--no-prefix",
        "--", "python3", "load.py",
    ).ok()  # fmt: skip

    assert "8" == told.strip()


def assert_all_inside(found: list[dict[str, object]]) -> None:
    """Everybody these ranks were connected to is in the session's own network."""
    for one in found:
        subnet = ipaddress.ip_network(str(one["subnet"]))
        peers = one["peers"]
        assert isinstance(peers, list)
        assert peers
        assert [] == [peer for peer in peers if ipaddress.ip_address(peer) not in subnet]
