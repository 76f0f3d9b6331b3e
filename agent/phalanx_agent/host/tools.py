"""The machine's own programs, run to their end."""

from __future__ import annotations

import asyncio
from typing import Final

_WITHIN_S: Final = 20.0


class ToolFailed(Exception):  # noqa: N818 - a state of the machine
    """A program is not there, failed, or did not end in time; the text says which and why."""


async def run(*command: str, stdin: str | None = None) -> str:
    """Run a program; its output.

    Raises:
        ToolFailed: it could not do it.
    """
    try:
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.DEVNULL if stdin is None else asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
    except FileNotFoundError as error:
        raise ToolFailed(f"{command[0]} is not installed") from error
    except OSError as error:  # no descriptors, processes or memory left
        raise ToolFailed(f"{command[0]} could not be run: {error.strerror}") from error
    try:
        async with asyncio.timeout(_WITHIN_S):
            said, complaint = await process.communicate(stdin.encode() if stdin else None)
    except TimeoutError as error:
        raise ToolFailed(f"{command[0]} did not end within {_WITHIN_S:.0f} s") from error
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode != 0:
        hint = " ".join(complaint.decode(errors="replace").split())[:300]
        raise ToolFailed(f"{command[0]} failed with {process.returncode}: {hint}")
    return said.decode(errors="replace")


async def succeeds(*command: str) -> bool:
    """Run a program that answers by its exit code."""
    try:
        await run(*command)
    except ToolFailed:
        return False
    return True
