"""The runner's other names: the first ssh on PATH and the login shell of ssh sessions."""

from __future__ import annotations

from pathlib import Path

import pytest

from phalanx_runner import messages
from phalanx_runner.conf import RunnerConf
from phalanx_runner.messages import Ready
from tests.unit.runner.box import Boxes

CONF = RunnerConf("k1", peers=("main1", "sub1:2201"), linger_s=0)
TO_SESSION = [
    ["sub1"],
    ["main1", "hostname"],
    ["anybody@sub1", "-p", "2200"],
    ["-p", "2200", "-l", "me", "sub1"],
    ["-p2200", "-lme", "sub1"],
    ["-vxA", "-oX=bob@elsewhere", "bob@sub1"],
    ["-vo", "BatchMode=yes", "sub1"],
    ["ssh://sub1:2201"],
    ["ssh://me@sub1"],
    ["-x", "-oClearAllForwardings=yes", "-l", "me", "--", "sub1", "scp", "-t", "x"],
]
TO_ELSEWHERE = [
    ["elsewhere", "sub1"],
    ["-p", "sub1", "elsewhere"],
    ["-Jsub1", "elsewhere"],
    ["sub1.example.org"],
    ["sub"],
    ["me@sub1@elsewhere"],
]


def write_program(path: Path, says: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f'#!/bin/sh\necho {says} "$@"\n')
    path.chmod(0o755)


async def run(boxes: Boxes, *command: str, env: dict[str, str] | None = None) -> str:
    """The output of a command in a box, with its exit code as the last line."""
    async with boxes.open(CONF, *command, env=env) as box:
        await box.wait(Ready)
        box.send(messages.start())
        code = await box.code()
        return f"{await box.output()}{code}"


@pytest.fixture
def clients(boxes: Boxes) -> dict[str, str]:
    """A bundled client and one of the image, that tell who they are; returns the environment."""
    write_program(boxes.bundle / "libexec" / "ssh", "bundled")
    write_program(boxes.material / "image" / "ssh", "image")
    return {"PATH": "/opt/phalanx/first:/run/phalanx/image:/usr/sbin:/usr/bin:/sbin:/bin"}


@pytest.mark.parametrize("words", TO_SESSION, ids=" ".join)
async def test_a_container_of_the_session_is_reached_by_the_sessions_configuration(
    boxes: Boxes, clients: dict[str, str], words: list[str]
) -> None:
    said = await run(boxes, "/opt/phalanx/bin/ssh", *words, env=clients)

    assert f"bundled -F /run/phalanx/ssh/ssh_config {' '.join(words)}\n0" == said


@pytest.mark.parametrize("words", TO_ELSEWHERE, ids=" ".join)
async def test_any_other_host_is_reached_by_the_images_own_client(
    boxes: Boxes, clients: dict[str, str], words: list[str]
) -> None:
    said = await run(boxes, "/opt/phalanx/bin/ssh", *words, env=clients)

    assert f"image {' '.join(words)}\n0" == said


@pytest.mark.parametrize("words", [["-V"], ["-p"], []])
async def test_without_a_destination_the_bundled_client_answers(
    boxes: Boxes, clients: dict[str, str], words: list[str]
) -> None:
    said = await run(boxes, "/opt/phalanx/bin/ssh", *words, env=clients)

    assert said.startswith("bundled")


SHELL = "/opt/phalanx/bin/phalanx-shell"


async def test_the_shell_changes_neither_variables_nor_folder(boxes: Boxes) -> None:
    env = {"SHELL": "/bin/sh", "HOME": "/tmp", "ODD": "a b\"c'd$x\\n"}
    plain = await run(boxes, "/bin/sh", "-c", "pwd; env | sort", env=env)

    assert plain == await run(boxes, SHELL, "-c", "pwd; env | sort", env=env)


async def test_the_shell_never_chooses_itself(boxes: Boxes) -> None:
    assert "ok\n0" == await run(boxes, SHELL, "-c", "echo ok", env={"SHELL": SHELL})


async def test_the_command_gets_every_byte(boxes: Boxes) -> None:
    said = await run(boxes, SHELL, "-c", "printf '%s' 'a  b\"c\\d'; exit 3")

    assert 'a  b"c\\d3' == said
