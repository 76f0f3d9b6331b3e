"""The recipes of docs/FRAMEWORKS.md, as they stand there, over two hosts."""

from __future__ import annotations

import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from phalanx_lab import recipes
from tests.real import page
from tests.real.ground import BASE, Done, Ground, ranks
from tests.real.traffic import Traffic

pytestmark = [pytest.mark.real, pytest.mark.timeout(300)]

WITHIN_S = 240.0
"""A recipe's time; most of it is spent on imports, which take long on a busy machine."""

OURS = ("-c", "1", "-m", "1G", "--spread", "one-per-node")
PATH = "/more/bin:/usr/local/bin:/usr/bin:/bin"
WITH_MPI = {"my/mpi", "my/deepspeed"}  # and pdsh
BOTH = {("main1", "sub1")}


@pytest.fixture(scope="module")
def packages() -> tuple[str, ...]:
    """Options that give a session all frameworks, out of two folders on every host."""
    with ThreadPoolExecutor() as pool:
        ml, more = pool.map(lambda build: build(print), (recipes.site_ml, recipes.site_more))
    return (
        *("-v", f"{ml}:/site:ro", "-v", f"{more}:/more:ro"),
        *("-e", "PYTHONPATH=/site:/more", "-e", f"PATH={PATH}"),
    )


@pytest.fixture
def follow(clean: Ground, packages: tuple[str, ...], script: Path) -> Callable[..., str]:
    """Does what the page says in a section; its output."""

    def do(title: str, number: int = 0, *more: str, alone: bool = False) -> str:
        recipe = page.recipes()[title]
        recipe.write(script)
        verb, *words = recipe.commands[number][1:]
        image = words.index("-i") + 1
        words[image] = clean.lab.load("mpi") if words[image] in WITH_MPI else BASE
        words[words.index("--upload") + 1] = str(script)
        with Traffic(clean.lab) as seen:
            done: Done = clean.phalanx(verb, *packages, *OURS, *more, *words, timeout=WITHIN_S)
        told = done.ok()
        assert set() == seen.strangers
        assert (set() if alone else BOTH) == seen.pairs
        return told

    return do


def test_the_page_has_no_recipe_that_is_not_tried() -> None:
    plain = {"PyTorch", "Accelerate", "DeepSpeed", "Open MPI", "JAX", "TensorFlow"}
    tried = plain | {"Ray", "Dask"}

    assert tried == set(page.recipes())


@pytest.mark.parametrize("number", [0, 1], ids=["plain", "torchrun"])
def test_pytorch(follow: Callable[..., str], number: int) -> None:
    assert ["rank 0 of 2: 2", "rank 1 of 2: 2"] == said(follow("PyTorch", number))


@pytest.mark.long
def test_accelerate(follow: Callable[..., str]) -> None:
    assert ["rank 0 of 2: 2", "rank 1 of 2: 2"] == said(follow("Accelerate"))


def test_accelerate_in_one_container_of_several(follow: Callable[..., str]) -> None:
    assert ["rank 0 of 1: 1"] == said(follow("Accelerate", 1, alone=True))


@pytest.mark.long
def test_deepspeed(follow: Callable[..., str]) -> None:
    assert ["rank 0 of 2: 2", "rank 1 of 2: 2"] == said(follow("DeepSpeed"))


def test_open_mpi(follow: Callable[..., str]) -> None:
    assert ["3 ['main1', 'sub1']"] == ranks(follow("Open MPI"))[0]


@pytest.mark.parametrize("user", ["0", "1000"])
def test_open_mpi_with_two_processes_per_container(follow: Callable[..., str], user: str) -> None:
    told = follow("Open MPI", 1, "-u", user)

    assert ["10 ['main1', 'main1', 'sub1', 'sub1']"] == ranks(told)[0]


def test_jax(follow: Callable[..., str]) -> None:
    assert ["rank 0 of 2: 1", "rank 1 of 2: 1"] == said(follow("JAX"))


def test_tensorflow(follow: Callable[..., str]) -> None:
    told = ranks(follow("TensorFlow"))

    assert ["2 workers [2.0, 2.0, 2.0, 2.0]"] * 2 == [told[rank][-1] for rank in (0, 1)]


@pytest.mark.long
def test_ray(follow: Callable[..., str]) -> None:
    assert "2 nodes ['main1', 'sub1']" == ranks(follow("Ray"))[0][-1]


def test_dask(follow: Callable[..., str]) -> None:
    assert "2 workers ['main1', 'sub1']" in ranks(follow("Dask"))[0]


def said(told: str) -> list[str]:
    """What each rank said of its place in the world."""
    return sorted(re.findall(r"rank \d+ of \d+: \d+", told))
