"""The grammar of a request: every field that can be judged by itself."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from phalanx_manager.core import after, warning
from phalanx_manager.core.model import Limits, Refusal
from phalanx_wire import names
from phalanx_wire.spec import Mount, RoleSpec, SessionSpec, SlurmJob

MAX_COMMAND_ITEMS: Final = 4_096
MAX_COMMAND_BYTES: Final = 128 << 10
MAX_ENV_ITEMS: Final = 1_024
MAX_ENV_VALUE_BYTES: Final = 100_000
MAX_ENV_BYTES: Final = 256 << 10
MAX_MOUNTS: Final = 64
MAX_PATH: Final = 4_095
MAX_ATTEMPTS: Final = 1_000
MIN_LOST_S: Final = 40.0
MAX_LOST_S: Final = 86_400.0
MAX_HOLD_S: Final = 7 * 86_400.0

_PART = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_IMAGE: Final = re.compile(
    rf"(?:[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?(?::[0-9]{{1,5}})?/)?{_PART}(?:/{_PART})*"
    r"(?::[A-Za-z0-9_][A-Za-z0-9_.-]{0,127})?(?:@sha256:[a-f0-9]{64})?"
)
_COUNTS: Final = ("tasks", "tasks_per_node", "cpus_per_task")
MAX_COUNT: Final = 1_000_000
_UPLOAD: Final = re.compile(r"sha256:[a-f0-9]{64}")
_ACCOUNT: Final = r"(?:[a-z_][a-z0-9_-]{0,31}|[0-9]{1,10})"
_USER: Final = re.compile(rf"(?P<user>{_ACCOUNT})(?::(?P<group>{_ACCOUNT}))?")
_MAX_ACCOUNT: Final = 2**32 - 2

_OUR_PLACES: Final = ("/proc", "/sys", "/dev", names.BUNDLE_MOUNT, names.MATERIAL_MOUNT)
_OUR_FILES: Final = ("/", "/etc", "/etc/hosts", "/etc/hostname", "/etc/resolv.conf", "/run", "/opt")


def session_mistakes(spec: SessionSpec, limits: Limits) -> Iterator[Refusal]:
    """Yield what is wrong with the fields of a session, in the order of the document."""
    if spec.name is not None and not names.is_session_name(spec.name):
        yield _refusal(
            "name",
            f"{cut(spec.name)} is no session name",
            "name",
            "use 1 to 63 lowercase letters, digits and inner hyphens",
        )
    if not names.is_session_name(spec.cluster):
        yield _refusal("cluster", f"{cut(spec.cluster)} is no cluster name", "cluster")
    if spec.network == "host" and not spec.egress:
        yield _refusal(
            "egress",
            "on the host's network nothing keeps a session from the outside",
            "egress",
            "leave out egress, or use the private network",
        )
    port = names.MASTER_PORT if spec.master_port is None else spec.master_port
    if not 1024 <= port <= 65535 or port == names.SSH_PORT:
        yield _refusal(
            "master_port",
            f"{port} is no port for the master",
            "master_port",
            f"use 1024 to 65535, but not {names.SSH_PORT}, which is ssh's",
        )
    yield from _time_mistakes(spec, limits)
    if spec.slurm is not None:
        yield from _job_mistakes(spec.slurm)
    if spec.upload is not None and not _UPLOAD.fullmatch(spec.upload):
        yield _refusal(
            "upload",
            f"{cut(spec.upload)} is no digest of an upload",
            "upload",
            "send the archive with PUT /v1/uploads and give its sha256:...",
        )
    yield from part_mistakes(
        RoleSpec(
            name="main",
            image=spec.image,
            command=spec.command,
            env=spec.env,
            workdir=spec.workdir,
            user=spec.user,
            mounts=spec.mounts,
        ),
        "",
    )


def part_mistakes(part: RoleSpec, path: str) -> Iterator[Refusal]:
    """Yield what is wrong with the fields that a session and a role have both.

    `path` comes before the field's name, e.g. `roles[1].`.
    """
    if part.image is not None and (len(part.image) > 512 or not _IMAGE.fullmatch(part.image)):
        yield _refusal(
            "image",
            f"{cut(part.image)} is no image reference",
            f"{path}image",
            "write it as registry:port/name:tag, lowercase, or name@sha256:...",
        )
    if part.command:
        yield from _command_mistakes(part.command, f"{path}command")
    yield from _env_mistakes(part.env, f"{path}env")
    if part.workdir is not None and not _is_plain_path(part.workdir):
        yield _refusal(
            "workdir",
            f"{cut(part.workdir)} is no absolute path without . and ..",
            f"{path}workdir",
        )
    if part.user is not None and not _is_user(part.user):
        yield _refusal(
            "user",
            f"{cut(part.user)} is no user",
            f"{path}user",
            "give a name or a number, maybe with a group: 1000:1000",
        )
    if part.mounts:
        yield from _mount_mistakes(part.mounts, f"{path}mounts")


def cut(text: str) -> str:
    """Quote a user's text for a sentence: at most 80 characters, control characters escaped."""
    return repr(text if len(text) <= 80 else text[:79] + "…")


def _refusal(code: str, title: str, field: str, hint: str = "") -> Refusal:
    return Refusal(code, 400, title, field, hint)


def _job_mistakes(job: SlurmJob) -> Iterator[Refusal]:
    """Yield what is wrong with the numbers of a job, which are counted and divided by."""
    for index, part in enumerate((job, *job.parts)):
        path = f"slurm.parts[{index - 1}]." if index else "slurm."
        for field in _COUNTS:
            value = getattr(part, field)
            if value is not None and not 1 <= value <= MAX_COUNT:
                yield _refusal(
                    "slurm", f"{value} {field} are out of bounds", path + field, f"1 to {MAX_COUNT}"
                )


def _time_mistakes(spec: SessionSpec, limits: Limits) -> Iterator[Refusal]:
    limit = spec.time_limit_s
    if limit is not None and not 0 < limit <= limits.max_time_s:  # NaN compares false
        yield _refusal(
            "time_limit",
            f"a time limit of {limit} s is out of bounds",
            "time_limit_s",
            f"use more than 0 and at most {limits.max_time_s:.0f} s",
        )
    if not 0 <= spec.grace_s <= limits.max_grace_s:
        yield _refusal(
            "grace",
            f"a grace of {spec.grace_s} s is out of bounds",
            "grace_s",
            f"use 0 to {limits.max_grace_s:.0f} s",
        )
    if abs(spec.priority) > limits.max_priority:
        yield _refusal(
            "priority",
            f"priority {spec.priority} is out of bounds",
            "priority",
            f"use {-limits.max_priority} to {limits.max_priority}",
        )
    yield from _attempt_mistakes(spec)


def _attempt_mistakes(spec: SessionSpec) -> Iterator[Refusal]:
    if not 1 <= spec.max_attempts <= MAX_ATTEMPTS:
        yield _refusal(
            "max_attempts",
            f"{spec.max_attempts} attempts are out of bounds",
            "max_attempts",
            f"use 1 to {MAX_ATTEMPTS}",
        )
    lost = spec.lost_after_s
    if lost is not None and not MIN_LOST_S <= lost <= MAX_LOST_S:  # NaN compares false
        yield _refusal(
            "lost_after",
            f"giving up a silent host after {lost} s is out of bounds",
            "lost_after_s",
            f"use {MIN_LOST_S:.0f} to {MAX_LOST_S:.0f} s; a network often heals in less",
        )
    hold_s = spec.hold_on_failure_s
    if hold_s is not None and not 0 < hold_s <= MAX_HOLD_S:  # NaN compares false
        yield _refusal(
            "hold_on_failure",
            f"keeping containers for {hold_s} s is out of bounds",
            "hold_on_failure_s",
            f"use more than 0 and at most {MAX_HOLD_S:.0f} s",
        )
    if spec.after is not None and after.parse(spec.after) is None:
        yield _refusal(
            "after",
            f"{cut(spec.after)} is no list of sessions to wait for",
            "after",
            f"write it as afterok:ID,afterany:ID,afternotok:ID, at most {after.MAX_AFTER}",
        )
    if spec.warn_signal is None:
        return
    wish = warning.parse(spec.warn_signal)
    if wish is None:
        yield _refusal(
            "warn_signal",
            f"{cut(spec.warn_signal)} is no signal with its time",
            "warn_signal",
            "write it as USR1@90: the signal, and how many seconds before the time limit",
        )
    elif spec.time_limit_s is None or not 0 < wish.before_s < spec.time_limit_s:
        yield _refusal(
            "warn_signal",
            f"{cut(spec.warn_signal)} is no moment between the start and the time limit",
            "warn_signal",
            "give a time limit that is longer than that",
        )


def _command_mistakes(command: tuple[str, ...], path: str) -> Iterator[Refusal]:
    if not command[0]:
        yield _refusal("command", "the first word of the command is empty", f"{path}[0]")
    if len(command) > MAX_COMMAND_ITEMS:
        yield _refusal(
            "command",
            f"a command of {len(command)} words is too long",
            path,
            f"use at most {MAX_COMMAND_ITEMS}, or put it into a file",
        )
    for index, word in enumerate(command):
        if "\0" in word:
            yield _refusal("command", "a word contains a NUL character", f"{path}[{index}]")
    total = sum(_size(word) + 1 for word in command)
    if total > MAX_COMMAND_BYTES:
        yield _refusal(
            "command",
            f"a command of {total} bytes is too long",
            path,
            f"use at most {MAX_COMMAND_BYTES}, or put it into a file",
        )


def _env_mistakes(env: dict[str, str], path: str) -> Iterator[Refusal]:
    if len(env) > MAX_ENV_ITEMS:
        yield _refusal(
            "env", f"{len(env)} variables are too many", path, f"use at most {MAX_ENV_ITEMS}"
        )
    for key, value in env.items():
        if not names.is_env_key(key):
            yield _refusal(
                "env_key",
                f"{cut(key)} is no name of a variable",
                path,
                "use letters, digits and underscores, not starting with a digit",
            )
        elif key.startswith(names.OWN_ENV_PREFIXES):
            yield Refusal(
                "reserved_env",
                403,
                f"{cut(key)} is set by phalanx only",
                f"{path}.{key}",
                "give the variable another name",
            )
        elif "\0" in value:
            yield _refusal("env_value", f"{key} contains a NUL character", f"{path}.{key}")
        elif _size(value) > MAX_ENV_VALUE_BYTES:
            yield _refusal(
                "env_value",
                f"{key} has {_size(value)} bytes",
                f"{path}.{key}",
                f"use at most {MAX_ENV_VALUE_BYTES}, or a file",
            )
    total = sum(_size(key) + _size(value) + 2 for key, value in env.items())
    if total > MAX_ENV_BYTES:
        yield _refusal(
            "env", f"{total} bytes of variables are too many", path, f"use at most {MAX_ENV_BYTES}"
        )


def _mount_mistakes(mounts: tuple[Mount, ...], path: str) -> Iterator[Refusal]:
    if len(mounts) > MAX_MOUNTS:
        yield _refusal(
            "mounts", f"{len(mounts)} mounts are too many", path, f"use at most {MAX_MOUNTS}"
        )
    targets: set[str] = set()
    for index, mount in enumerate(mounts):
        for field, text in (("source", mount.source), ("target", mount.target)):
            if not _is_plain_path(text) or ":" in text:
                yield _refusal(
                    "mount_path",
                    f"{cut(text)} is no absolute path without ., .. and colons",
                    f"{path}[{index}].{field}",
                )
        if _is_ours(mount.target):
            yield Refusal(
                "mount_not_allowed",
                403,
                f"nothing can be mounted at {cut(mount.target)}",
                f"{path}[{index}].target",
                "choose a folder of your own, e.g. /data",
            )
        if mount.target in targets:
            yield _refusal(
                "mount_duplicate",
                f"two mounts have the target {cut(mount.target)}",
                f"{path}[{index}].target",
            )
        targets.add(mount.target)


def _is_plain_path(text: str) -> bool:
    if not text.startswith("/") or len(text) > MAX_PATH or not text.isprintable():
        return False
    return text == "/" or all(part not in ("", ".", "..") for part in text[1:].split("/"))


def _is_ours(target: str) -> bool:
    return target in _OUR_FILES or any(
        target == place or target.startswith(f"{place}/") for place in _OUR_PLACES
    )


def _is_user(text: str) -> bool:
    match = _USER.fullmatch(text)
    return match is not None and all(
        part is None or not part.isdigit() or int(part) <= _MAX_ACCOUNT for part in match.groups()
    )


def _size(text: str) -> int:
    return len(text.encode("utf-8", "surrogatepass"))
