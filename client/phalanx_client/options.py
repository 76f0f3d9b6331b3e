"""The options of `run` and `create`, and the session that they describe."""

from __future__ import annotations

import argparse
import os
import shlex
from collections.abc import Mapping, Sequence
from typing import Any, get_args

import msgspec

from phalanx_client import arguments
from phalanx_client.arguments import Parser, checked
from phalanx_client.failure import BAD_INPUT, NOT_FOUND, USAGE, Failure
from phalanx_wire.spec import Mode, NetworkKind, OnFailure, Profile, RunOn, SessionSpec, Spread

RESOURCES = ("cpu", "mem", "gpu", "shm", "pids")


def add(parser: Parser) -> None:
    """Declare the options; nothing has a default here: what is not said is left to the manager."""
    say = parser.add_argument
    say("-f", "--file", metavar="FILE", help="a session in YAML or JSON; options win over it")
    say("-J", "--name", help="its name")
    say("-N", "--size", type=checked(arguments.count), metavar="N", help="number of containers")
    say("--mode", choices=get_args(Mode), help="on one host, or over several")
    say("--spread", choices=get_args(Spread), help="how containers lie on hosts")
    say("--role", action="append", metavar="NAME=COUNT[,key=value...]",
        help="a kind of container; keys: image command cpu mem gpu shm pids workdir user env.X; "
        "main=1 is added before them if it is missing")  # fmt: skip
    say("-i", "--image", help="what to run")
    say("-c", "--cpus", type=float, metavar="CORES", help="cores of each container")
    say("-m", "--mem", metavar="AMOUNT", help="memory of each container, e.g. 4G")
    say("-g", "--gpus", metavar="[MODEL:]COUNT", help="devices of each container")
    say("--shm", metavar="AMOUNT", help="size of /dev/shm")
    say("--pids", type=checked(arguments.count), metavar="N", help="limit of processes and threads")
    say("-t", "--time", type=checked(arguments.seconds), metavar="TIME",
        help="ends it after so long of running: 90s, 30m, 2h, 1:30:00")  # fmt: skip
    say("--signal", metavar="SIG@SECONDS",
        help="sent to all ranks' commands so long before the time limit: USR1@90")  # fmt: skip
    say("--hold-on-failure", type=checked(arguments.seconds), metavar="TIME",
        help="after a failure keep its containers, stopped, for so long")  # fmt: skip
    say("--hold", action="store_true", help="keep it in the queue until: phalanx release")
    say("--after", metavar="afterok:ID,...",
        help="wait for the end of other sessions: afterok, afternotok or afterany")  # fmt: skip
    say("--requeue", action="store_true",
        help="back to the queue after the time limit, a lost host, a restarted engine")  # fmt: skip
    say("--max-attempts", type=checked(arguments.count), metavar="N",
        help="how often it may fail by itself, each time as a whole gang")  # fmt: skip
    say("--lost-after", type=checked(arguments.seconds), metavar="TIME",
        help="a host is given up after so long of silence")  # fmt: skip
    say("--grace", type=checked(arguments.seconds), metavar="TIME", help="between TERM and KILL")
    say("-p", "--priority", type=int, metavar="N", help="higher starts first")
    say("-e", "--env", action="append", metavar="KEY[=VALUE]",
        help="a variable; without a value that of this shell")  # fmt: skip
    say("--env-file", action="append", metavar="FILE", help="variables, KEY=VALUE a line")
    say("--env-profile", choices=get_args(Profile), help="what the rendezvous variables are for")
    say("-v", "--mount", action="append", metavar="SRC:DST[:ro|rw]", help="a host's folder, ro")
    say("-w", "--workdir", metavar="DIR", help="where the command starts")
    say("-u", "--user", help="name or number in the container")
    say("--upload", metavar="DIR", help="copy a folder of this machine to /workspace")
    say("--no-seal", action="store_true",
        help="with --upload: the manager can read it, and hosts that join later, too")  # fmt: skip
    say("--run-on", choices=get_args(RunOn), help="who runs the command")
    say("--master-port", type=checked(arguments.count), metavar="PORT")
    say("--cluster", metavar="NAME", help="the pool of hosts to run on")
    say("--no-egress", action="store_true", help="the private network only")
    say("--network", choices=get_args(NetworkKind), help="one of its own, or the hosts'")
    say("--on-failure", choices=get_args(OnFailure), help="what one rank's failure does")
    say("--dry-run", action="store_true", help="say where it would go now, start nothing")
    say("--detach", action="store_true", help="return as soon as it is accepted")


def spec(
    options: argparse.Namespace, command: Sequence[str], environ: Mapping[str, str]
) -> SessionSpec:
    """The session that the options describe, over that of `--file`.

    Raises:
        Failure: a text in them can't be read; the manager judges the meaning.
    """
    found: dict[str, Any] = session_file(options.file) if options.file else {}
    given = {
        "name": options.name,
        "size": options.size,
        "mode": options.mode,
        "spread": options.spread,
        "image": options.image,
        "env_profile": options.env_profile,
        "workdir": options.workdir,
        "user": options.user,
        "run_on": options.run_on,
        "master_port": options.master_port,
        "cluster": options.cluster,
        "network": options.network,
        "on_failure": options.on_failure,
        "priority": options.priority,
        "time_limit_s": options.time,
        "warn_signal": options.signal,
        "after": options.after,
        "hold_on_failure_s": options.hold_on_failure,
        "requeue": True if options.requeue else None,
        "hold": True if options.hold else None,
        "max_attempts": options.max_attempts,
        "lost_after_s": options.lost_after,
        "grace_s": options.grace,
        "egress": False if options.no_egress else None,
        "command": list(command) or None,
        "roles": roles(options.role) if options.role else None,
        "mounts": [mount(text) for text in options.mount] if options.mount else None,
    }
    found |= {key: value for key, value in given.items() if value is not None}
    resources = {
        key: value
        for key, value in zip(
            RESOURCES,
            (options.cpus, options.mem, gpus(options.gpus), options.shm, options.pids),
            strict=True,
        )
        if value is not None
    }
    if resources:
        found["resources"] = {**_mapping(found, "resources"), **resources}
    env = variables(options.env_file or (), options.env or (), environ)
    if env:
        found["env"] = {**_mapping(found, "env"), **env}
    return convert(found, options.file or "the options")


def _mapping(found: dict[str, Any], key: str) -> dict[str, Any]:
    inner = found.get(key) or {}
    if not isinstance(inner, dict):
        raise Failure(f"{key} must be a mapping", BAD_INPUT)
    return inner


def convert(found: dict[str, Any], source: str) -> SessionSpec:
    """The session that plain data means; a mistake is named by its path."""
    try:
        return msgspec.convert(found, SessionSpec)
    except msgspec.ValidationError as error:
        raise Failure(f"{source}: {error}", BAD_INPUT) from error


def session_file(path: str) -> dict[str, Any]:
    """Read a session's file: JSON is YAML too."""
    import yaml  # noqa: PLC0415 - slow, and only needed here

    try:
        with open(path, encoding="utf-8") as file:
            found = yaml.safe_load(file)
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise Failure(f"{path} can't be read: {reason}", NOT_FOUND) from error
    except (yaml.YAMLError, RecursionError) as error:
        raise Failure(f"{path} is not YAML: {' '.join(str(error).split())}", BAD_INPUT) from error
    if not isinstance(found, dict):
        raise Failure(f"{path} must hold a mapping of a session's fields", BAD_INPUT)
    return found


def roles(texts: Sequence[str]) -> list[dict[str, Any]]:
    """The roles in order; one container of role main comes first in every session."""
    found = [role(text) for text in texts]
    if all(entry["name"] != "main" for entry in found):
        found.insert(0, {"name": "main"})
    return found


def role(text: str) -> dict[str, Any]:
    """Read `NAME=COUNT[,key=value...]`; a comma in a value is written in quotes: `'a,b'`."""
    head, *pairs = _fields(text)
    name, equals, number = head.partition("=")
    if not name or not equals or not number.isdecimal():
        raise Failure(f"--role {text!r}: it begins with NAME=COUNT, e.g. sub=3", USAGE)
    found: dict[str, Any] = {"name": name, "replicas": int(number)}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals:
            raise Failure(f"--role {text!r}: {pair!r} is not key=value", USAGE)
        _role_field(found, key, value, text)
    return found


def _role_field(found: dict[str, Any], key: str, value: str, text: str) -> None:
    resources = found.get("resources", {})
    match key:
        case "image" | "workdir" | "user":
            found[key] = value
        case "command":
            found[key] = shlex.split(value)
        case "mem" | "shm":
            found["resources"] = {**resources, key: value}
        case "gpu":
            found["resources"] = {**resources, key: gpus(value)}
        case "cpu" | "pids":
            found["resources"] = {**resources, key: _number(key, value, text)}
        case _ if key.startswith("env."):
            found["env"] = {**found.get("env", {}), key.removeprefix("env."): value}
        case _:
            raise Failure(
                f"--role {text!r}: no key {key!r}; there are image, command, cpu, mem, gpu, shm, "
                "pids, workdir, user and env.NAME",
                USAGE,
            )


def _fields(text: str) -> list[str]:
    """Split at commas outside of quotes; the quotes are taken away."""
    words = shlex.shlex(text, posix=True)
    words.whitespace, words.whitespace_split, words.commenters = ",", True, ""
    words.escape = ""
    try:
        found = list(words)
    except ValueError as error:
        raise Failure(f"--role {text!r}: a quote is not closed", USAGE) from error
    return found or [""]


def _number(key: str, value: str, text: str) -> float | int:
    try:
        return int(value) if key == "pids" else float(value)
    except ValueError as error:
        raise Failure(f"--role {text!r}: {key} must be a number", USAGE) from error


def gpus(text: str | None) -> int | str | None:
    """A count, or `model:count` as it is."""
    return int(text) if text is not None and text.isdecimal() else text


def mount(text: str) -> dict[str, Any]:
    """Read `SRC:DST[:ro|rw]`; the agent's own file says which sources are allowed."""
    source, *rest = text.split(":")
    if not source or len(rest) not in (1, 2) or (len(rest) == 2 and rest[1] not in ("ro", "rw")):
        raise Failure(f"--mount {text!r}: write SRC:DST, SRC:DST:ro or SRC:DST:rw", USAGE)
    return {"source": source, "target": rest[0], "read_only": rest[1:] != ["rw"]}


def variables(
    files: Sequence[str], texts: Sequence[str], environ: Mapping[str, str]
) -> dict[str, str]:
    """The variables of `--env-file`, then of `--env`; later ones win."""
    found: dict[str, str] = {}
    for path in files:
        try:
            with open(path, encoding="utf-8") as file:
                lines = [line.strip() for line in file]
        except (OSError, UnicodeDecodeError) as error:
            raise Failure(f"--env-file {path} can't be read: {error}", NOT_FOUND) from error
        for line in lines:
            if line and not line.startswith("#"):
                found |= _variable(line, environ)
    for text in texts:
        found |= _variable(text, environ)
    return found


def _variable(text: str, environ: Mapping[str, str]) -> dict[str, str]:
    key, equals, value = text.partition("=")
    if not key:
        raise Failure(f"--env {text!r}: write KEY=VALUE", USAGE)
    if equals:
        return {key: value}
    if key not in environ:
        raise Failure(f"--env {key}: this shell has no variable {key}; write {key}=VALUE", USAGE)
    return {key: environ[key]}


def check_upload(folder: str | None) -> None:
    """Refuse a missing folder before anything is sent."""
    if folder is not None and not os.path.isdir(folder):
        raise Failure(f"--upload {folder}: no such folder", NOT_FOUND)
