"""What can be said of images without building one."""

from __future__ import annotations

import json

import pytest

from phalanx_lab import hostile, recipes
from phalanx_lab.archive import Image


def test_an_image_says_in_the_engines_words_how_it_wants_to_be_run() -> None:
    image = Image("phalanx/hostile:latest", (), hostile.COMMAND, hostile.ENV, hostile.SETTINGS)

    told = json.loads(image.config)["config"]

    assert ["/bin/sh", "/entry"] == told["Entrypoint"]
    assert ["bash", "-c", hostile.WAIT] == told["Cmd"]
    assert ("worker", "/srv/app", "SIGRTMIN+3") == (
        told["User"],
        told["WorkingDir"],
        told["StopSignal"],
    )
    assert f"LD_PRELOAD={hostile.LIBRARY}" in told["Env"]


def test_an_unknown_recipe_names_what_there_is() -> None:
    with pytest.raises(ValueError, match="older, musl, hostile"):
        recipes.image("unheard-of", print)
