"""Questions as containers write them, and as they do not."""

from __future__ import annotations

import asyncio
import random
import socket

import pytest

from phalanx_runner import messages
from phalanx_runner.ask import Asker, Door, Malformed, Question, parse
from phalanx_runner.conf import RunnerConf
from phalanx_runner.messages import Ready
from tests.unit.runner.box import Boxes

WELL = b"1 3 1 30 100\0/work\0srun\0-n\0\0A=b=c\0=x\0none\0\xff=1\0EMPTY=\0"


def test_a_question_is_read_and_what_is_no_text_is_left_out() -> None:
    expected = Question(
        ("srun", "-n", ""), "/work", {"A": "b=c", "EMPTY": ""}, tty=True, rows=30, columns=100
    )

    assert expected == parse(WELL)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_mutated_question_is_read_or_refused_and_nothing_else(seed: int) -> None:
    dice = random.Random(seed)  # noqa: S311 - a game
    read = 0
    for _ in range(3000):
        content = bytearray(WELL)
        for _ in range(dice.randint(1, 6)):
            at = dice.randrange(len(content))
            match dice.randrange(3):
                case 0:
                    content[at] = dice.randrange(256)
                case 1:
                    del content[at : at + dice.randint(1, 8)]
                case _:
                    content[at:at] = dice.choice((b"\0", b"9" * 30, b"-1", b" ", WELL))
            if not content:
                break
        try:
            question = parse(bytes(content))
        except Malformed:
            continue
        read += 1
        assert question.argv
        assert 0 < question.rows <= 0xFFFF

    assert read > 300


async def test_a_command_asks_where_its_container_is_mounted_and_ends_with_the_answers_code(
    boxes: Boxes,
) -> None:
    asked: list[Question] = []
    boxes.material.mkdir()

    async def answer(door: Door, peer: socket.socket) -> None:
        async with Asker.on(peer) as asker:
            asked.append(await asker.question())
            door.read()
            await asker.output(b"well\n")
            await asker.end(7)

    async with asyncio.TaskGroup() as tasks:

        def come(door: Door, peer: socket.socket) -> None:
            tasks.create_task(answer(door, peer))

        with Door.open(boxes.material, come):
            conf = RunnerConf("k1", peers=("main1",), linger_s=0)
            command = ("/opt/phalanx/bin/scontrol", "requeue", "42")
            async with boxes.open(conf, *command, env={"A": "b"}) as box:
                await box.wait(Ready)
                box.send(messages.start())
                code = await box.code()
                said = await box.output()

    assert (7, "well\n") == (code, said)
    assert [("scontrol", "requeue", "42")] == [question.argv for question in asked]
    assert "b" == asked[0].environ["A"]
