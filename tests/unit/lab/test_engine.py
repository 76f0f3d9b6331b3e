from __future__ import annotations

import http.server
import os
import socketserver
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from phalanx_lab import engine, processes
from phalanx_lab.plan import Plan
from phalanx_lab.unavailable import Unavailable


def plan(folder: Path) -> Plan:
    return Plan(
        name="t",
        nodes=1,
        cpu=1,
        mem=2**30,
        subnet=0,
        state_root=str(folder / "state"),
        run_root=str(folder / "run"),
    )


def pidfile(folder: Path, pid: int) -> Path:
    path = Path(plan(folder).host_run(1)) / "docker.pid"
    path.parent.mkdir(parents=True)
    path.write_text(str(pid))
    return path


def test_the_pid_file_of_an_engine_that_is_gone_is_removed(tmp_path: Path) -> None:
    path = pidfile(tmp_path, 2**22 + 1)

    engine.clear_before_start(plan(tmp_path), 1)

    assert not path.exists()


def test_a_stranger_who_was_given_an_engines_old_pid_is_left_alone(tmp_path: Path) -> None:
    path = pidfile(tmp_path, os.getpid())

    engine.clear_before_start(plan(tmp_path), 1)

    assert processes.alive(os.getpid())
    assert not path.exists()


def test_an_engine_reads_no_file_of_the_machines_own(tmp_path: Path) -> None:
    command = engine.command(plan(tmp_path), 1)

    for option in ("config-file", "data-root", "exec-root", "pidfile", "host"):
        assert any(word.startswith(f"--{option}=") and str(tmp_path) in word for word in command), (
            option
        )


class Answers(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.reply(200, b'{"Id": "x"}')

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))  # else its sender meets a closed pipe
        self.reply(200, b'{"stream": "1"}\r\n{"error": "2"}\r\n')

    def reply(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def address_string(self) -> str:
        return "unix"

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - its own name
        """Say nothing."""


@pytest.fixture
def listening(tmp_path: Path) -> Iterator[str]:
    path = str(tmp_path / "docker.sock")
    with socketserver.UnixStreamServer(path, Answers) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield path
        server.shutdown()
        thread.join()


def test_an_engine_is_asked_over_its_socket(listening: str) -> None:
    assert engine.answers(listening)
    assert engine.ask(listening, "GET", "/x") == (200, {"Id": "x"})


def test_an_answer_of_several_documents_is_a_list(listening: str) -> None:
    assert engine.ask(listening, "POST", "/x", {}) == (200, [{"stream": "1"}, {"error": "2"}])


def test_an_engine_that_is_not_there_does_not_answer_and_says_so_when_asked() -> None:
    assert not engine.answers("/nonexistent.sock")
    with pytest.raises(Unavailable, match=r"/nonexistent\.sock: GET /x failed"):
        engine.ask("/nonexistent.sock", "GET", "/x")
