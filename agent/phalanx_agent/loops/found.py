"""From the engine's facts to what the core reasons about."""

from __future__ import annotations

from phalanx_agent.core.seen import Absent, Container, Created, Ended, Running
from phalanx_agent.docker.port import ContainerFacts, Unavailable

_ALIVE = ("running", "paused", "restarting")
_OVER = ("exited", "dead", "removing")
_CODES = range(256)
_TRIES_OF_AN_ENGINE_ERROR = 3
_TRIES_OF_WHAT_PASSES = 7
"""With the pauses between them, thirteen seconds."""


def container_of(facts: ContainerFacts | None) -> Container:
    """Say in which situation a container is; one that is being removed is still there.

    What was started counts as running until the engine tells an end that can be true: of what has
    ended nothing is asked any more, and its code is the session's.
    """
    if facts is None:
        return Absent()
    if facts.status in _ALIVE:
        return Running(facts.id, facts.started_at)
    if facts.status == "created" or not facts.started_at:
        return Created(facts.id, facts.error)
    if facts.status not in _OVER or facts.exit_code not in _CODES:
        return Running(facts.id, facts.started_at)
    return Ended(facts.id, facts.exit_code, facts.oom_killed, facts.started_at, facts.finished_at)


def is_final(error: Unavailable, tries: int) -> bool:
    """Tell whether trying once more is in vain: the engine has judged the request, or has failed
    at it several times.
    """
    if error.kind != "answered":
        return False
    if error.passing:
        return tries >= _TRIES_OF_WHAT_PASSES
    return error.status < 500 or tries >= _TRIES_OF_AN_ENGINE_ERROR  # 500: HTTP's line between them
