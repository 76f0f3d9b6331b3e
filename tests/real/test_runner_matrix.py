"""The runner in every kind of image, as every kind of user, however the container is hardened."""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import shlex
import socket
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from phalanx_lab import hostile
from phalanx_runner import bundle, messages
from phalanx_runner.ask import Asker, Door
from phalanx_runner.messages import Bye, Exited
from tests.real.crew import IMAGE_PATH, ODD, Kernel, Wish, crew, docker

pytestmark = pytest.mark.real

USERS = {"root": (0, 0), "1000": (1000, 1000), "12345": (12345, 0)}
LOCKED = ("--cap-drop", "ALL", "--security-opt", "no-new-privileges")
HARDENINGS = {"plain": (), "read-only": ("--read-only",), "locked": ("--read-only", *LOCKED)}
WAIT = ("sleep", "1000")
COMMANDS = {
    "base": WAIT,
    "older": WAIT,
    "musl": WAIT,
    "busybox": WAIT,
    "empty": ("/hold",),
    "hostile": (*hostile.ENTRYPOINT, *hostile.COMMAND),
}
CELLS = [f"{i}-{u}-{h}" for i, u, h in itertools.product(COMMANDS, USERS, HARDENINGS)]
PROGRAM = "/opt/phalanx/libexec/dropbear"
DIGEST = hashlib.sha256((bundle.locate() / "libexec" / "dropbear").read_bytes()).hexdigest()

LIST = "ls -l /dev/shm\\n"
MARK = "--mark--"

Outcome = BaseException | None


@pytest.fixture(scope="module")
def outcomes(runner_engine: str, tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Outcome]:
    """What came of each cell: all of them at once, on one engine."""
    return asyncio.run(_all_cells(runner_engine, tmp_path_factory.mktemp("matrix")))


@pytest.mark.parametrize("cell", CELLS)
def test_containers_reach_each_other_by_ssh_whatever_their_image(
    outcomes: Mapping[str, Outcome], cell: str
) -> None:
    outcome = outcomes[cell]

    if outcome is not None:
        raise outcome


def wish(cell: str) -> Wish:
    image, user, hardening = cell.split("-", 2)
    return Wish(
        cell,
        f"phalanx/{image}",
        COMMANDS[image],
        USERS[user],
        HARDENINGS[hardening],
        peers=gang(cell),
    )


def gang(cell: str) -> list[str]:
    """Cells of the same image and hardening, each with another user, from this one on."""
    image, user, hardening = cell.split("-", 2)
    users = list(USERS)
    first = users.index(user)
    return [f"{image}-{one}-{hardening}" for one in users[first:] + users[:first]]


async def _all_cells(engine: str, folder: Path) -> dict[str, Outcome]:
    wishes = [wish(cell) for cell in CELLS]
    async with crew(engine, folder, wishes) as kernels, answering(kernels.values()):
        told = await asyncio.gather(
            *(_check(kernels[cell], gang(cell)[1]) for cell in CELLS), return_exceptions=True
        )
        outcomes = dict(zip(CELLS, told, strict=True))
        for kernel in kernels.values():
            kernel.send(messages.stop(15, 2000))
        codes = await docker(engine, "wait", *(kernel.container for kernel in kernels.values()))
        for cell, code in zip(CELLS, codes.stdout.split(), strict=True):
            outcomes[cell] = outcomes[cell] or await _ended_with(kernels[cell], int(code))
    return outcomes


@asynccontextmanager
async def answering(kernels: Iterable[Kernel]) -> AsyncIterator[None]:
    """Answer what containers ask, each by what it has asked."""
    async with asyncio.TaskGroup() as tasks, AsyncExitStack() as doors:

        def come(door: Door, peer: socket.socket) -> None:
            tasks.create_task(answer(door, peer))

        for kernel in kernels:
            doors.enter_context(Door.open(kernel.folder, come))
        yield


async def answer(door: Door, peer: socket.socket) -> None:
    async with Asker.on(peer) as asker:
        question = await asker.question()
        door.read()
        await asker.output(f"{shlex.join(question.argv)}\n".encode())
        await asker.end(7)


@dataclass(frozen=True)
class Answer:
    """What a command in a cell came to; `said` is both of its streams."""

    code: int
    said: str


async def _check(cell: Kernel, peer: str) -> None:
    has_shell = cell.wish.image != "phalanx/empty"
    told = await (_asked_at_once if has_shell else _asked)(
        cell, questions(peer, has_shell=has_shell)
    )
    assert 127 == told["missing"].code, told["missing"]
    assert 255 == told["strange host key"].code
    assert "verification failed" in told["strange host key"].said
    assert [Answer(0, "")] * 2 == [told["there"], told["back"]]
    assert Answer(7, f"phalanx requeue {peer}\n") == told["asked"]
    assert str((bundle.locate() / "libexec" / "dropbear").stat().st_size) in told["listed"].said
    if has_shell:
        assert Answer(7, "") == told["chosen"]
        assert f"{DIGEST}  /dev/shm/back\n" == told["digest"].said
        assert "/dev/pts/" in told["terminal"].said
        the_environment_is_the_containers(cell, peer, told["environment"])


def questions(peer: str, *, has_shell: bool) -> dict[str, tuple[str, ...]]:
    """Commands by their names; only those for which an image needs a program can be left out."""
    everywhere = {
        "missing": ("ssh", peer, "/no/such/program"),
        "strange host key": ("ssh", "-o", "UserKnownHostsFile=/dev/null", peer, "true"),
        "asked": ("/opt/phalanx/bin/phalanx", "requeue", peer),
        "there": ("scp", "-q", PROGRAM, f"{peer}:/dev/shm/there"),
        "back": ("scp", "-q", f"{peer}:/dev/shm/there", "/dev/shm/back"),
        "listed": ("sftp", "-q", "-b", "/dev/stdin", peer),
    }
    with_programs = {
        "chosen": ("ssh", f"anybody@{peer}", "exit 7"),
        "digest": ("sha256sum", "/dev/shm/back"),
        "terminal": ("ssh", "-tt", peer, "tty"),
        "environment": ("ssh", peer, "env"),
    }
    return everywhere | with_programs if has_shell else everywhere


async def _asked(cell: Kernel, questions: dict[str, tuple[str, ...]]) -> dict[str, Answer]:
    """One by one."""
    told = {}
    for name, words in questions.items():
        done = await cell.runs(*words, given="ls -l /dev/shm\n")
        told[name] = Answer(done.returncode, done.stdout + done.stderr)
    return told


async def _asked_at_once(cell: Kernel, questions: dict[str, tuple[str, ...]]) -> dict[str, Answer]:
    """By one script: to enter a container takes longer than all that is asked there."""
    script = "".join(
        f"printf '{LIST}' | {shlex.join(words)} 2>&1; echo '{MARK}'$?'{MARK}'\n"
        for words in questions.values()
    )
    done = await cell.runs("sh", "-c", script)
    assert (0, "") == (done.returncode, done.stderr)
    parts = done.stdout.split(MARK)
    return {
        name: Answer(int(code), said.removeprefix("\n"))
        for name, said, code in zip(questions, parts[::2], parts[1::2], strict=False)
    }


def the_environment_is_the_containers(cell: Kernel, peer: str, told: Answer) -> None:
    expected = [
        "WORLD_SIZE=2",
        f"BACKENDAI_CLUSTER_HOST={peer}",
        f"ODD={ODD}",
        f"PATH=/opt/phalanx/first:{IMAGE_PATH}:/opt/phalanx/last",
    ]
    if cell.wish.image == "phalanx/hostile":
        expected += [f"LD_PRELOAD={hostile.LIBRARY}", f"PWD={hostile.WORKDIR}"]
    assert [] == [entry for entry in expected if f"{entry}\n" not in told.said], told.said
    assert "PHALANX" not in told.said


async def _ended_with(kernel: Kernel, code: int) -> Outcome:
    """What is wrong with a container's end, which it should have told as the engine does."""
    try:
        exited, bye = await kernel.wait(Exited), await kernel.wait(Bye)
        assert exited.code == bye.code == code
    except AssertionError as wrong:
        return wrong
    return None
