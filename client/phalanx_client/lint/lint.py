"""Looks at one file: a program, a batch script, or a session."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from phalanx_client.lint import python, rules, shell
from phalanx_client.lint.found import Finding, Job, Read, Setting, Start
from phalanx_slurm.wrong import WrongError
from phalanx_wire import names

SPAWNS = frozenset({"node", "torchrun"})
"""Profiles under which a container is a node and not a rank."""


def of_python(file: str, text: str, size: int | None) -> list[Finding]:
    """Look at a program alone; `size` is how many containers will run it."""
    try:
        program = python.read(text)
    except (SyntaxError, ValueError, RecursionError) as error:
        line = getattr(error, "lineno", None) or 0
        return [Finding(file, line, "syntax", f"this is no Python: {error}", "")]
    job = Job(file, size=size, port=names.MASTER_PORT)
    return _unique(rules.of_program(file, program, job, None, launched=False))


def of_script(file: str, text: str, read: Read) -> list[Finding]:
    """Look at a batch script, and at what it starts."""
    try:
        job = shell.job(file, text)
    except WrongError as error:
        return [Finding(file, 0, "sbatch", " ".join(str(error).split()), "")]
    found = (one for start in shell.starts(text) for one in rules.judge(job, start, read))
    return _unique(found)


def of_session(file: str, spec: Mapping[str, Any], read: Read) -> list[Finding]:
    """Look at a session's file."""
    size = spec.get("size", 1)
    size = size if isinstance(size, int) else None
    nodes = size if spec.get("env_profile") in SPAWNS else None
    port = spec.get("master_port")
    job = Job(
        file,
        nodes=nodes,
        size=None if nodes is not None else size,
        port=port if isinstance(port, int) else names.MASTER_PORT,
    )
    env = spec.get("env")
    settings = {
        str(name): Setting(str(value), 0)
        for name, value in (env.items() if isinstance(env, dict) else ())
    }
    found: list[Finding] = []
    for part in (spec, *(one for one in spec.get("roles") or () if isinstance(one, dict))):
        command = part.get("command")
        words = tuple(map(str, command)) if isinstance(command, list | tuple) else ()
        if words or part is spec:
            found += rules.judge(job, Start(words or ("",), 0, settings=settings), read)
    return _unique(iter(found))


def _unique(found: Iterator[Finding]) -> list[Finding]:
    """Each once, in the order of the files' lines."""
    return sorted(dict.fromkeys(found), key=lambda one: (one.file, one.line, one.code))
