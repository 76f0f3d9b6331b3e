"""Images that want to be more than a program."""

from __future__ import annotations

from dataclasses import replace

import pytest

from phalanx_agent.core import recipe
from phalanx_agent.core.refused import Refused
from tests.unit.agent.core.test_recipe import IMAGE, order


@pytest.mark.parametrize(
    "start", [("/sbin/init",), ("/lib/systemd/systemd", "--user"), ("/init", "serve")]
)
def test_an_image_that_would_start_an_init_system_is_refused_with_what_to_do(
    start: tuple[str, ...],
) -> None:
    image = replace(IMAGE, entrypoint=(), command=start)

    with pytest.raises(Refused, match=rf"starts {start[0]}, .*; give a command of your own"):
        recipe.command(order(command=()), image)


def test_an_image_without_a_command_is_refused_with_what_to_do() -> None:
    image = replace(IMAGE, entrypoint=(), command=())

    with pytest.raises(Refused, match="no command of its own; give one"):
        recipe.command(order(command=()), image)


def test_an_image_with_an_init_system_runs_a_command_of_the_users_and_idles() -> None:
    image = replace(IMAGE, entrypoint=("/sbin/init",), command=())

    assert ("true",) == recipe.command(order(command=("true",)), image)
    assert () == recipe.command(order(command=(), idle=True), image)
