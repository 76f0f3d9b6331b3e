"""Which of an engine's layers are mounted while a container is made."""

from __future__ import annotations

import pytest

from phalanx_agent.host import mounts
from phalanx_agent.host.layers import Layer, mounted

FOLDER = "/var/lib/docker/overlay2"
FIRST, CONTAINERS = f"{'5' * 64}-init", "5" * 64


@pytest.mark.parametrize(
    ("place", "kind", "found"),
    [
        (f"{FOLDER}/{FIRST}/merged", "overlay", {Layer(FOLDER, FIRST, "77")}),
        (f"{FOLDER}/abcdefghijklmnopqrstuvwxy-init/merged", "overlay",
         {Layer(FOLDER, "abcdefghijklmnopqrstuvwxy-init", "77")}),
        (f"{FOLDER}/{CONTAINERS}/merged", "overlay", set()),
        (f"{FOLDER}/{FIRST}/merged", "ext4", set()),
        (f"/elsewhere/{FIRST}/merged", "overlay", set()),
        (f"{FOLDER}/l/{FIRST}/merged", "overlay", set()),
        ("/", "overlay", set()),
    ],
)  # fmt: skip
def test_first_layers_are_known_by_their_place_and_name(
    place: str, kind: str, found: set[Layer]
) -> None:
    table = f"8 1 0:4 / /proc rw - proc proc rw\n77 1 0:9 / {place} rw,relatime - {kind} {kind} rw"

    assert found == mounted(mounts.read(table), FOLDER)
