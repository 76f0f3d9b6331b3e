"""One user asks for all that may be had of an output; others do not notice much of it."""

from __future__ import annotations

import contextlib
import resource
import selectors
import socket
import sys
import threading
import time
from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest

from tests.real.ground import ACROSS, BASE, SMALL, Done, Ground, call, fresh_name
from tests.real.test_trust import resident_kb

pytestmark = pytest.mark.real

FOLLOWERS = 1_000
PER_S = 400
TALK = "while :; do head -c 100000 /dev/urandom | base64; sleep 0.02; done"  # about 5 MB/s
SERVED_WITHIN_S = 20.0
GREW_AT_MOST_KB = {"manager": 400 << 10, "agent": 100 << 10}


@contextlib.contextmanager
def followers(ground: Ground, session: str) -> Iterator[list[bytes]]:
    """Many who follow a session: every other one reads, the others do not.

    Yields:
        The first line of each answer.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 4 * FOLLOWERS), hard))
    with contextlib.ExitStack() as stack:
        stack.callback(resource.setrlimit, resource.RLIMIT_NOFILE, (soft, hard))
        url = urlsplit(ground.lab.url)
        ask = (
            f"GET /v1/sessions/{session}/logs?follow=1&tail=0 HTTP/1.1\r\nHost: {url.netloc}\r\n"
            f"Authorization: Bearer {ground.lab.admin_token}\r\nAccept: text/event-stream\r\n\r\n"
        ).encode()
        ours = []
        for _one in range(FOLLOWERS):
            connection = socket.create_connection((url.hostname, url.port), timeout=60)
            ours.append(stack.enter_context(connection))
            connection.sendall(ask)
            time.sleep(1 / PER_S)
        answers = [one.recv(12) for one in ours]
        with reading(ours[::2]):
            yield answers


@contextlib.contextmanager
def reading(connections: list[socket.socket]) -> Iterator[None]:
    """Read and forget what comes."""
    over = threading.Event()

    def read() -> None:
        with selectors.DefaultSelector() as selector:
            for one in connections:
                selector.register(one, selectors.EVENT_READ, one)
            while not over.is_set():
                for key, _events in selector.select(0.2):
                    key.data.recv(1 << 16)

    thread = threading.Thread(target=read)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def test_a_thousand_followers_of_a_talkative_session_leave_others_served(clean: Ground) -> None:
    bob = {**clean.env, "PHALANX_TOKEN": clean.phalanx("token", "create", "bob", "-q").ok().strip()}

    def as_bob(*arguments: str) -> Done:
        return call(sys.executable, "-m", "phalanx_client", *arguments, env=bob)

    theirs = fresh_name()
    as_bob("create", *SMALL, "-i", BASE, "-J", theirs, "-N", "3", *ACROSS).ok()
    talker = clean.detached("-c", "1", "--", "sh", "-c", TALK)
    clean.await_state(talker, "running")
    (name,) = clean.containers(talker).values()
    daemons = {"manager": "manager", "agent": f"agent-{clean.host(name).index}"}
    (place,) = (one for one, host in clean.containers(theirs).items() if host == name)
    before = {kind: resident_kb(clean.lab.pid(daemon)) for kind, daemon in daemons.items()}

    with followers(clean, talker) as answers:
        took = []
        for _time in range(3):
            begun = time.monotonic()
            assert (
                "served" == as_bob("exec", f"{theirs}/{place}", "--", "echo", "served").ok().strip()
            )
            took.append(time.monotonic() - begun)
        grew = {
            kind: resident_kb(clean.lab.pid(daemon)) - before[kind]
            for kind, daemon in daemons.items()
        }
    clean.phalanx("stop", talker).ok()
    as_bob("stop", theirs).ok()
    clean.lab.fault("kill", "manager")  # a heap stays as large as it was: the next begins anew

    assert {b"HTTP/1.1 200"} == set(answers)
    assert max(took) < SERVED_WITHIN_S, took
    assert {} == {kind: kb for kind, kb in grew.items() if kb > GREW_AT_MOST_KB[kind]}
