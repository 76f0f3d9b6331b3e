"""From what SLURM's programs are asked for to the session that it means."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from msgspec.structs import replace as with_fields

from phalanx_slurm import patterns
from phalanx_slurm.request import Export, JobRequest, Room, unwarned
from phalanx_slurm.script import Script
from phalanx_slurm.wrong import WrongError
from phalanx_wire.spec import (
    Mount,
    Resources,
    RoleSpec,
    SessionSpec,
    SlurmJob,
    SlurmPart,
    Spread,
)

SCRIPT_NAME: Final = "slurm_script"
_LOCAL: Final = """
    PATH HOME SHELL USER LOGNAME PWD OLDPWD SHLVL TERM TERMINFO TERMCAP COLUMNS LINES MAIL TMPDIR
    TMP TEMP HOSTNAME HOST HOSTTYPE OSTYPE MACHTYPE DISPLAY WAYLAND_DISPLAY XAUTHORITY EDITOR
    VISUAL PAGER LS_COLORS LESSOPEN LESSCLOSE SUDO_USER SUDO_UID SUDO_GID SUDO_COMMAND
    INVOCATION_ID JOURNAL_STREAM NOTIFY_SOCKET BASH_ENV ENV _
"""
LOCAL: Final = frozenset(_LOCAL.split())
"""Variables that are about the machine and the terminal where they are, and stay there."""
LOCAL_PREFIXES: Final = (
    "LD_", "DYLD_", "SSH_", "GPG_", "DBUS_", "XDG_", "GNOME_", "KDE_", "PHALANX_", "BACKENDAI_",
    "SLURM_", "SLURMD_", "SBATCH_", "SALLOC_", "SQUEUE_", "SINFO_", "SACCT_", "DOCKER_",
)  # fmt: skip
_PROGRAMS: Final = "/opt/phalanx/slurm:/opt/phalanx/bin"
MOST_ENV_BYTES: Final = 200_000


@dataclass(frozen=True, slots=True)
class Site:
    """Where it is asked for, and what the operator says about hosts.

    Attributes:
        cwd: absolute, without links.
        user: (name, uid, gid).
        environ: of the asker.
        shared: folders that all hosts have at the same path.
        read_only: those of them in which jobs only read.
        image: what jobs without one run in; empty is none.
        spread: how containers are laid out over hosts.
        umask: of the asker.
        tail: what makes names of sessions different, e.g. `k3xw`.
    """

    cwd: str
    user: tuple[str, int, int]
    host: str
    environ: Mapping[str, str]
    shared: tuple[str, ...] = ()
    read_only: tuple[str, ...] = ()
    image: str = ""
    spread: Spread = "one-per-node"
    umask: int = 0o022
    tail: str = ""

    def is_shared(self, path: str) -> bool:
        """Tell whether hosts have this path, too."""
        return any(path == top or path.startswith(f"{top}/") for top in self.shared)

    def is_written(self, path: str) -> bool:
        """Tell whether what a job writes there is seen here."""
        closed = any(path == top or path.startswith(f"{top}/") for top in self.read_only)
        return self.is_shared(path) and not closed


@dataclass(frozen=True, slots=True)
class Asked:
    """A session to submit.

    Attributes:
        upload: the folder to send along, as hosts don't have it; empty is none.
        files: whether the job's output goes to files that the asker will see.
    """

    spec: SessionSpec
    upload: str
    files: bool


def batch(
    wish: JobRequest,
    script: Script,
    arguments: Sequence[str],
    site: Site,
    *,
    path: str = "",
    task: int | None = None,
) -> Asked:
    """Make the session of a batch script that lies at `path`, or of one task of an array.

    Raises:
        WrongError: there is no image to run it in, or its variables are too many.
    """
    name = wish.name or SCRIPT_NAME
    folder = folder_of(wish, site)
    known = {"u": site.user[0], "x": name} | ({} if task is None else {"a": str(task)})
    out, err = _outputs(wish, folder)
    files = site.is_written(_place(out, folder))
    lines = list(_launcher(wish, site))
    if files:
        lines.append(_redirection(wish, patterns.shell_word(out, known), out == err))
        if err != out:
            lines[-1] += f" 2{_arrow(wish)}{patterns.shell_word(err, known)}"
    words = " ".join(shlex.quote(word) for word in script.interpreter)
    lines.append(f'exec {words} "$script" "$@"')
    spec = session(wish, site)
    spec = with_fields(
        spec,
        kind="batch",
        run_on="main",
        command=("/bin/sh", "-c", "\n".join(lines), SCRIPT_NAME, _as_run(script), *arguments),
        workdir=wish.container.workdir or (folder if site.is_shared(folder) else None),
        slurm=with_fields(
            _slurm(wish, site, name, task),
            stdout=out if files else "",
            stderr=err if files else "",
            script=path,
        ),
        env=variables(wish.export, wish.container.env, site.environ),
    )
    return Asked(spec, upload_of(wish, site), files)


def session(wish: JobRequest, site: Site) -> SessionSpec:
    """Make what batch and interactive jobs have alike.

    Raises:
        WrongError: there is no image.
    """
    image = wish.container.image or site.image
    if not image:
        raise WrongError(
            "no image is known to run the job in; name one by --container-image=IMAGE, by "
            "PHALANX_SLURM_IMAGE, or for everybody: phalanx slurm install --image IMAGE"
        )
    rooms = (wish.room, *(part.room for part in wish.more))
    nodes = sum(room.nodes for room in rooms)
    account = f"{site.user[1]}:{site.user[2]}" if site.shared and site.user[1] else None
    return SessionSpec(
        name=session_name(wish.name or SCRIPT_NAME, site.tail),
        size=nodes,
        roles=_roles(rooms),
        mode="multi-node" if nodes > 1 else "auto",
        spread=site.spread if nodes > 1 else None,
        image=image,
        env_profile="slurm",
        user=account,
        mounts=_mounts(wish, site),
        resources=resources(wish.room),
        cluster=wish.partition or "default",
        priority=wish.priority,
        time_limit_s=wish.time_limit_s,
        requeue=bool(wish.requeue),
        hold=wish.hold,
        warn_signal=None if unwarned(wish) else wish.warn_signal,
        slurm=_slurm(wish, site, wish.name or "interactive", None),
    )


def _roles(rooms: Sequence[Room]) -> tuple[RoleSpec, ...] | None:
    """Give each part of a job a role of its own where they ask for different containers."""
    if len({resources(room) for room in rooms}) == 1:
        return None
    roles = [RoleSpec(name="main", resources=resources(rooms[0]))]
    if rooms[0].nodes > 1:
        others = rooms[0].nodes - 1
        roles.append(RoleSpec(name="sub", replicas=others, resources=resources(rooms[0])))
    for number, room in enumerate(rooms[1:], 1):
        roles.append(RoleSpec(_role_name(number), room.nodes, resources=resources(room)))
    return tuple(roles)


def _role_name(part: int) -> str:
    """Name the role of a further part; names of roles end with a letter."""
    letters = ""
    while part:
        part, letter = divmod(part - 1, 26)
        letters = chr(ord("a") + letter) + letters
    return f"part-{letters}"


def session_name(job: str, tail: str) -> str:
    """Make a session's name out of a job's, which may be anything and need not be unique."""
    plain = "".join(letter if letter.isalnum() and letter.isascii() else "-" for letter in job)
    words = [word for word in plain.lower().split("-") if word]
    return "-".join(filter(None, ("-".join(words)[:40].strip("-"), tail)))


def resources(room: Room) -> Resources:
    """Spell what a container gets."""
    gpu: int | str | None = f"{room.gpu_model}:{room.gpus}" if room.gpu_model else room.gpus
    return Resources(
        cpu=float(room.cpus), mem=room.mem_bytes or None, gpu=gpu if room.gpus else None
    )


def with_all_memory(wish: JobRequest, most_bytes: int) -> JobRequest:
    """Give what asks for all memory of a host (`--mem=0`) that much."""

    def filled(room: Room) -> Room:
        return room if room.mem_bytes != 0 else replace(room, mem_bytes=most_bytes)

    more = tuple(replace(part, room=filled(part.room)) for part in wish.more)
    return replace(wish, room=filled(wish.room), more=more)


def folder_of(wish: JobRequest, site: Site) -> str:
    """Where the job begins, on the asker's machine."""
    if not wish.chdir:
        return site.cwd
    return wish.chdir if wish.chdir.startswith("/") else f"{site.cwd}/{wish.chdir}"


def upload_of(wish: JobRequest, site: Site) -> str:
    """Which folder has to be sent, as hosts don't have it; a home as a whole never is."""
    folder = folder_of(wish, site)
    at_home = folder in ("/", site.environ.get("HOME", ""))
    return "" if site.is_shared(folder) or at_home else folder


def variables(export: Export, also: Sequence[str], environ: Mapping[str, str]) -> dict[str, str]:
    """Pick what of the asker's variables the job gets.

    Raises:
        WrongError: they are too many.
    """
    chosen = {
        key: value
        for key, value in environ.items()
        if _is_plain(key)
        and (key in export.names or key in also or (export.everything and not _is_local(key)))
    } | dict(export.values)
    total = sum(len(key) + len(value.encode("utf-8", "replace")) for key, value in chosen.items())
    if total > MOST_ENV_BYTES:
        raise WrongError(
            f"{total} bytes of variables are too many; choose some: --export=A,B, or none: "
            "--export=NONE"
        )
    return chosen


def with_array(asked: Asked, wish: JobRequest, first: int | None) -> Asked:
    """Tell a task of an array which array it is of; None is that it is the first one."""
    spec, array = asked.spec, wish.array
    if spec.slurm is None or array is None:
        return asked
    slurm = with_fields(
        spec.slurm,
        array_job=first,
        array_first=array.tasks[0],
        array_last=array.tasks[-1],
        array_step=array.step,
        array_count=len(array.tasks),
    )
    name = f"{spec.name}-{spec.slurm.array_task}"
    return replace(asked, spec=with_fields(spec, name=name, slurm=slurm))


# ---------------------------------------------------------------- inside


def _launcher(wish: JobRequest, site: Site) -> Iterator[str]:
    """Put the script into a file, as its interpreter wants it, and set the scene."""
    yield 'folder="${TMPDIR:-/tmp}"; [ -w "$folder" ] || folder=/dev/shm'
    yield 'folder="$folder/job$SLURM_JOB_ID"; umask 077; mkdir -p "$folder"'
    yield f'script="$folder/{SCRIPT_NAME}"; printf %s "$1" > "$script" || exit 1; shift'
    yield f"umask {site.umask:04o}"
    own = [part for part in site.environ.get("PATH", "").split(":") if site.is_shared(part)]
    if own and wish.export.everything:
        yield f'export PATH={shlex.quote(":".join(own))}:"$PATH"'
    if wish.input:
        yield f"exec < {shlex.quote(wish.input)}"


def _as_run(script: Script) -> str:
    """Spell the script for its file. A login shell's profile sets `PATH` anew, and would lose our
    programs: the first line, which is a comment to the shell, brings them back.
    """
    _, _, rest = script.text.partition("\n")
    flags = script.interpreter[1:]
    if not any(flag == "--login" or re.fullmatch(r"-[a-z]*l[a-z]*", flag) for flag in flags):
        return script.text
    return f"PATH={_PROGRAMS}:$PATH\n{rest}"


def _outputs(wish: JobRequest, folder: str) -> tuple[str, str]:
    usual = patterns.DEFAULT if wish.array is None else patterns.DEFAULT_OF_ARRAY
    out = _none(wish.output) or usual
    return _place(out, folder), _place(_none(wish.error) or out, folder)


def _none(name: str) -> str:
    return "/dev/null" if name == "none" else name


def _place(name: str, folder: str) -> str:
    return name if name.startswith("/") else f"{folder.rstrip('/')}/{name}"


def _arrow(wish: JobRequest) -> str:
    return ">>" if wish.open_mode == "append" else ">"


def _redirection(wish: JobRequest, out: str, both: bool) -> str:  # noqa: FBT001
    return f"exec {_arrow(wish)}{out}" + (" 2>&1" if both else "")


def _slurm(wish: JobRequest, site: Site, name: str, task: int | None) -> SlurmJob:
    room = wish.room
    parts = ((name, room), *((part.name, part.room) for part in wish.more))
    return SlurmJob(
        name=name,
        tasks=room.tasks,
        tasks_per_node=room.tasks_per_node,
        cpus_per_task=room.cpus_per_task,
        partition=wish.partition,
        account=wish.account,
        submit_dir=site.cwd,
        submit_host=site.host,
        submit_user=site.user[0],
        array_task=task,
        parts=tuple(_part(*one) for one in parts) if len(parts) > 1 else (),
    )


def _part(name: str, room: Room) -> SlurmPart:
    return SlurmPart(room.nodes, name, room.tasks, room.tasks_per_node, room.cpus_per_task)


def _mounts(wish: JobRequest, site: Site) -> tuple[Mount, ...]:
    own = [Mount(source, target, read_only) for source, target, read_only in wish.container.mounts]
    taken = {mount.target for mount in own}
    return (
        *(Mount(top, top, top in site.read_only) for top in site.shared if top not in taken),
        *own,
    )


def _is_plain(key: str) -> bool:
    return key.isidentifier() and key.isascii()


def _is_local(key: str) -> bool:
    return key in LOCAL or key.startswith(LOCAL_PREFIXES)
