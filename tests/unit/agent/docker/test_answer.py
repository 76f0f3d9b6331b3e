"""Long answers, as HTTP has them, read over a real connection."""

from __future__ import annotations

import asyncio
import socket
from itertools import cycle

import pytest
from aiodocker.exceptions import DockerError
from hypothesis import given
from hypothesis import strategies as st

from phalanx_agent.docker.answer import PIECE_BYTES, Answer, get

CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
JSON = b'{"message": "no such container"}'


async def asked(answer: bytes, sizes: list[int]) -> bytes:
    """Read an answer that comes in pieces of such sizes, and then ends."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.setblocking(False)
        theirs.setblocking(False)
        async with asyncio.timeout(5), asyncio.TaskGroup() as tasks:
            tasks.create_task(_say(theirs, answer, sizes))
            return await _whole(await get(ours, "/v1.41/x"))


async def _say(theirs: socket.socket, answer: bytes, sizes: list[int]) -> None:
    loop = asyncio.get_running_loop()
    assert (await loop.sock_recv(theirs, 1 << 16)).startswith(b"GET /v1.41/x HTTP/1.1\r\n")
    for size in cycle(sizes):
        if not answer:
            break
        await loop.sock_sendall(theirs, answer[:size])
        answer = answer[size:]
        await asyncio.sleep(0)
    theirs.shutdown(socket.SHUT_WR)


async def _whole(answer: Answer) -> bytes:
    body = b""
    while piece := await answer.read():
        assert len(piece) <= PIECE_BYTES
        body += piece
    return body


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


@given(
    st.lists(st.binary(min_size=1, max_size=300), max_size=8),
    st.lists(st.integers(1, 400), min_size=1, max_size=8),
)
def test_a_body_is_the_same_wherever_its_chunks_are_cut(
    chunks: list[bytes], sizes: list[int]
) -> None:
    answer = CHUNKED + b"".join(map(chunk, chunks)) + b"0\r\n\r\n"

    assert b"".join(chunks) == asyncio.run(asked(answer, sizes))


@pytest.mark.parametrize(
    "head", [b"HTTP/1.1 200 OK\r\nContent-Length: 40000\r\n\r\n", b"HTTP/1.0 200 OK\r\n\r\n"]
)
async def test_a_body_may_have_a_length_or_end_with_its_connection(head: bytes) -> None:
    assert b"x" * 40_000 == await asked(head + b"x" * 40_000, [999])


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"HTTP/1.1 200",
        CHUNKED,
        CHUNKED + chunk(b"begun"),
        CHUNKED + b"5\r\nbeg",
        b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nbegun",
    ],
)
async def test_half_an_answer_is_not_taken_for_a_whole_one(answer: bytes) -> None:
    with pytest.raises(ExceptionGroup) as broken:
        await asked(answer, [7])

    assert broken.group_contains(ConnectionResetError)


@pytest.mark.parametrize(
    "answer",
    [
        b"no http at all\r\n\r\n",
        b"nothing\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nno field\r\n\r\n",
        b"x" * (40 << 10),
        CHUNKED + b"no size\r\n",
        CHUNKED + b"1" * 100,
        CHUNKED + b"-5\r\n",
    ],
)
async def test_nonsense_is_no_answer(answer: bytes) -> None:
    with pytest.raises(ExceptionGroup) as broken:
        await asked(answer, [999])

    assert broken.group_contains(ValueError)


@pytest.mark.parametrize("body", [JSON, b"no such container"])
async def test_a_refusal_has_its_words(body: bytes) -> None:
    with pytest.raises(ExceptionGroup) as refused:
        await asked(b"HTTP/1.1 404 Not Found\r\nContent-Length: %d\r\n\r\n" % len(body) + body, [9])

    (error,) = refused.value.exceptions
    assert isinstance(error, DockerError)
    assert (404, "no such container") == (error.status, error.message)
