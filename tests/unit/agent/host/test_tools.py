"""Programs of the machine that cannot be run, or fail."""

from __future__ import annotations

import pytest

from phalanx_agent.host.tools import ToolFailed, run, succeeds
from tests.support.hunger import no_more_files


async def test_a_program_that_is_not_there_is_named() -> None:
    with pytest.raises(ToolFailed, match="no-such-program is not installed"):
        await run("no-such-program")


async def test_a_host_that_has_nothing_left_to_run_a_program_with_says_of_what() -> None:
    with no_more_files(), pytest.raises(ToolFailed, match="true could not be run: Too many open"):
        await run("true")


async def test_what_cannot_be_run_does_not_succeed() -> None:
    with no_more_files():
        starved = await succeeds("true")

    assert (False, True) == (starved, await succeeds("true"))
