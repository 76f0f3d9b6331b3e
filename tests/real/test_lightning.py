"""Lightning in sessions: an environment of one's own, ours, and going on after a requeue."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path
from typing import Any

import pytest

from phalanx_client.integrations import phalanx_lightning
from phalanx_lab import recipes
from tests.real.ground import (
    ACROSS,
    PROGRAMS,
    Ground,
    await_true,
    documents,
    fresh_name,
    ranks,
)

pytestmark = [pytest.mark.real, pytest.mark.timeout(600)]

WITHIN_S = 240.0
"""A session's time; four processes that import PyTorch at once take a minute of a busy machine."""
WARNED_AFTER_S = 20
BEFORE_RUNNING = ("pending", "scheduled", "preparing", "starting")
ENDED = 409
ABSTRACT = "abstract methods detect, set_global_rank, set_world_size"
SCRIPTS = (
    "line.py",
    "documented_cluster.py",
    "my_cluster.py",
    "custom_cluster.py",
    "spawning.py",
    "resuming.py",
)


@pytest.fixture(scope="module")
def training(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, ...]:
    """Options that give a session Lightning and its programs, with our file beside them."""
    folder = tmp_path_factory.mktemp("lightning")
    for name in SCRIPTS:
        shutil.copy(PROGRAMS / name, folder)
    shutil.copy(phalanx_lightning.__file__, folder)
    site = recipes.site_ml(print)
    return (
        "-v", f"{site}:/site:ro", "-e", "PYTHONPATH=/site",
        "-c", "1", "-m", "1G", "--upload", str(folder),
    )  # fmt: skip


def two_by_two(ground: Ground) -> tuple[str, ...]:
    """Options for four containers on two hosts."""
    two_fit = f"{ground.lab.plan.mem * 4 // 10}"
    return ("-N", "4", "--mode", "multi-node", "--spread", "pack", "-m", two_fit)


def test_the_class_of_lightnings_documentation_works_once_todays_methods_are_added(
    clean: Ground, training: tuple[str, ...]
) -> None:
    told = clean.run(
        *training, *two_by_two(clean), "--", "python3", "custom_cluster.py", "2", "2",
        timeout=WITHIN_S,
    )  # fmt: skip

    found = sorted(documents(told.ok()), key=by_rank)
    assert [(0, 0, 0, 4), (1, 1, 0, 4), (2, 0, 1, 4), (3, 1, 1, 4)] == places(found)
    assert_trained_together(found)
    assert all(ABSTRACT in one["refusal"].replace("'", "") for one in found)


def test_with_our_environment_a_container_is_a_node(
    clean: Ground, training: tuple[str, ...]
) -> None:
    told = clean.run(
        *training, *two_by_two(clean), "--", "python3", "spawning.py", "1", "4", "lightning",
        timeout=WITHIN_S,
    )  # fmt: skip

    found = sorted(documents(told.ok()), key=by_rank)
    assert [(0, 0, 0, 4), (1, 0, 1, 4), (2, 0, 2, 4), (3, 0, 3, 4)] == places(found)
    assert_trained_together(found)


def test_lightning_starts_the_other_processes_of_each_container(
    clean: Ground, training: tuple[str, ...]
) -> None:
    told = clean.run(
        "-N", "2", *ACROSS, *training,
        "--", "python3", "spawning.py", "2", "2", "pytorch_lightning",
        timeout=WITHIN_S,
    )  # fmt: skip

    found = sorted(documents(told.ok()), key=by_rank)
    assert [(0, 0, 0, 4), (1, 1, 0, 4), (2, 0, 1, 4), (3, 1, 1, 4)] == places(found)
    assert_trained_together(found)


def test_lightning_starts_two_processes_in_a_session_of_one_container(
    clean: Ground, training: tuple[str, ...]
) -> None:
    told = clean.run(
        *training, "--", "python3", "spawning.py", "2", "1", "lightning", timeout=WITHIN_S
    )

    found = sorted(documents(told.ok()), key=by_rank)
    assert [(0, 0, 0, 2), (1, 1, 0, 2)] == places(found)
    assert_trained_together(found)


@pytest.mark.long
def test_a_warned_training_goes_on_in_the_next_attempt_where_it_was(
    clean: Ground, training: tuple[str, ...]
) -> None:
    name = fresh_name()
    shared = Path(clean.lab.plan.state, "share", name)
    os.makedirs(shared)
    clean.run(
        "--detach", "-N", "2", *ACROSS, *training, "-v", f"{shared}:/shared:rw", "-J", name,
        "-t", "10m", "--signal", f"USR1@{600 - WARNED_AFTER_S}", "--grace", "2s",
        "--", "python3", "resuming.py", "/shared",
    ).ok()  # fmt: skip
    for attempt in (1, 2):
        unwarned_until_it_trains(clean, name, attempt)
    code = clean.phalanx("wait", name, timeout=WITHIN_S).code
    events = clean.phalanx("events", name).ok()
    first, second = (
        ranks(clean.phalanx("logs", name, "--attempt", attempt).ok()) for attempt in "12"
    )

    assert 0 == code, events
    assert {0: ["attempt 1 from 0"], 1: ["attempt 1 from 0"]} == first
    step = int(second[0][0].removeprefix("attempt 2 from "))
    assert step > 0
    assert {rank: [f"attempt 2 from {step}", f"ended at {step + 5}"] for rank in (0, 1)} == second
    assert "USR1 sent" in events
    assert "requeued by itself, in main1" in events
    assert [] == list(shared.iterdir())


def unwarned_until_it_trains(ground: Ground, name: str, attempt: int) -> None:
    """Put off an attempt's time limit, and with it the warning, until both ranks train: how long
    the import of PyTorch takes is the machine's affair.
    """

    def runs() -> bool:
        view = ground.http("GET", f"/v1/sessions/{name}").ok()
        return attempt == view["attempt"] and view["state"] not in BEFORE_RUNNING

    await_true(f"attempt {attempt} runs", runs, WITHIN_S)
    due = time.monotonic() + WARNED_AFTER_S

    def trains() -> bool:
        nonlocal due
        said = ground.phalanx("logs", name, "--attempt", str(attempt)).out
        if said.count(f"attempt {attempt} from ") == 2:
            return True
        if due - time.monotonic() > WARNED_AFTER_S / 2:
            return False
        due += WARNED_AFTER_S
        more = {"seconds": WARNED_AFTER_S}
        return ground.http("POST", f"/v1/sessions/{name}/extend", more).status == ENDED

    await_true(f"attempt {attempt} trains", trains, WITHIN_S)


def by_rank(one: dict[str, Any]) -> int:
    return int(one["rank"])


def places(found: list[dict[str, Any]]) -> list[tuple[int, int, int, int]]:
    """Rank, place in the node, node, and how many there are."""
    return [(one["rank"], one["local"], one["node"], one["world"]) for one in found]


def assert_trained_together(found: list[dict[str, Any]]) -> None:
    """All have the same gradients, though each saw other data, and the same weights."""
    assert all(found[0]["gradients"] == one["gradients"] != [0.0, 0.0] for one in found)
    assert all(found[0]["weight"] == one["weight"] for one in found)
