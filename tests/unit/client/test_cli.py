"""The command line as a whole: help, errors, forms of output, listing."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import msgspec
import pytest
import yaml
from aiohttp import web

from phalanx_client.__main__ import PROGRAMS, VERBS
from phalanx_wire.api import SessionList
from tests.unit.client.conftest import Cli
from tests.unit.client.fake_manager import (
    ID,
    TOKEN,
    FakeManager,
    fails,
    session,
)

SESSIONS = "/v1/sessions"


def test_every_verb_has_help(cli: Cli) -> None:
    for verb in VERBS:
        outcome = cli(verb, "--help")
        assert 0 == outcome.code, verb
        assert f"usage: phalanx {verb}" in outcome.out
        assert VERBS[verb][1] in outcome.out


def test_the_list_of_verbs_names_all(cli: Cli) -> None:
    text = cli("--help").out

    assert [] == [verb for verb in (*VERBS, *PROGRAMS) if f"\n  {verb} " not in text]


def test_help_imports_neither_parser_nor_shapes() -> None:
    code = (
        "import sys; sys.argv = ['phalanx', '--help']\n"
        "from phalanx_client.__main__ import main; main()\n"
        "print([name for name in ('argparse', 'asyncio', 'msgspec') if name in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert "[]" == out.stdout.splitlines()[-1]


def test_a_plain_verb_needs_no_event_loop(manager: FakeManager) -> None:
    manager.on("GET", SESSIONS, SessionList(()))
    code = (
        f"import sys; sys.argv = ['phalanx', '--url', '{manager.url}', 'ps']\n"
        "from phalanx_client.__main__ import main; main()\n"
        "print([name for name in ('asyncio', 'aiohttp', 'yaml') if name in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert "[]" == out.stdout.splitlines()[-1]


def test_ps_lists_sessions_with_the_token(cli: Cli, manager: FakeManager) -> None:
    manager.on("GET", SESSIONS, SessionList((session(),)))

    outcome = cli("ps")

    assert (0, "") == (outcome.code, outcome.err)
    assert "demo  aaaabbbbcccc  running  2" in outcome.out
    assert f"Bearer {TOKEN}" == manager.heard[0].headers["Authorization"]


def test_ps_asks_for_states(cli: Cli, manager: FakeManager) -> None:
    manager.on("GET", SESSIONS, SessionList(()))

    cli("ps", "--state", "failed", "-n", "3")

    assert {"state": "failed", "all": "1", "limit": "3"} == manager.heard[0].query


@pytest.mark.parametrize(("argv", "expected"), [(("-q",), f"{ID}\n"), (("-o", "name"), "demo\n")])
def test_ps_prints_what_scripts_want(
    cli: Cli, manager: FakeManager, argv: tuple[str, ...], expected: str
) -> None:
    manager.on("GET", SESSIONS, SessionList((session(),)))

    assert expected == cli("ps", *argv).out


def test_json_and_yaml_are_the_apis_own_shape(cli: Cli, manager: FakeManager) -> None:
    manager.on("GET", f"{SESSIONS}/demo", session())
    expected = json.loads(msgspec.json.encode(session()))

    assert expected == json.loads(cli("show", "demo", "-o", "json").out)
    assert expected == yaml.safe_load(cli("-o", "yaml", "show", "demo").out)


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (400, 65),
        (401, 77),
        (403, 77),
        (404, 66),
        (409, 65),
        (422, 65),
        (429, 75),
        (500, 69),
        (503, 75),
    ],
)
def test_a_refusal_is_its_sentence_and_an_exit_code(
    cli: Cli, manager: FakeManager, status: int, code: int
) -> None:
    manager.on("GET", f"{SESSIONS}/demo", fails(status, "c", "what happened", hint="what to do"))

    outcome = cli("show", "demo")

    assert (code, "", "phalanx: what happened\n  what to do\n") == (
        outcome.code, outcome.out, outcome.err,
    )  # fmt: skip


def test_the_path_of_a_mistake_is_shown(cli: Cli, manager: FakeManager) -> None:
    manager.on("POST", SESSIONS, fails(400, "bad", "it is too large", field="roles[1].replicas"))

    outcome = cli("run", "-i", "x", "--", "true")

    assert (65, "phalanx: roles[1].replicas: it is too large\n") == (outcome.code, outcome.err)


def test_an_answer_that_is_no_problem_document_is_a_sentence(
    cli: Cli, manager: FakeManager
) -> None:
    async def proxy(_request: web.Request) -> web.Response:
        return web.Response(status=502, text="<html>bad gateway</html>")

    manager.on("GET", SESSIONS, proxy)

    outcome = cli("ps")

    assert 69 == outcome.code
    assert "the manager, or something before it: answered 502" in outcome.err


def test_an_answer_of_another_version_is_a_sentence(cli: Cli, manager: FakeManager) -> None:
    manager.on("GET", SESSIONS, {"sessions": [{"id": 7}]})

    outcome = cli("ps")

    assert 69 == outcome.code
    assert "Do client and manager have the same version?" in outcome.err


def test_a_manager_that_is_not_there_is_69_at_once(cli: Cli) -> None:
    outcome = cli("--url", "http://127.0.0.1:9", "ps")

    assert 69 == outcome.code
    assert "http://127.0.0.1:9: can't be reached (connection refused)" in outcome.err


def test_a_name_that_can_not_exist_is_a_sentence(cli: Cli) -> None:
    outcome = cli("--url", "http://a..b:1", "ps")

    assert 69 == outcome.code
    assert "http://a..b:1: can't be reached" in outcome.err


def test_a_terminal_that_knows_few_characters_gets_them_spelt(manager: FakeManager) -> None:
    manager.on("GET", SESSIONS, SessionList((session(reason="日本 " * 30),)))
    done = subprocess.run(
        [sys.executable, "-m", "phalanx_client", "--url", manager.url, "ps"],
        env={**os.environ, "PYTHONIOENCODING": "ascii"},
        capture_output=True,
        check=False,
    )

    assert (0, b"") == (done.returncode, done.stderr)
    assert b"\\u65e5" in done.stdout


@pytest.mark.parametrize(
    "argv",
    [
        (),
        ("pss",),
        ("ps", "--nope"),
        ("ps", "--limit=-1"),
        ("run", "-N", "many", "--", "x"),
        ("logs",),
        ("logs", "demo", "--rank", "x"),
        ("show", "a/b/c"),
        ("cp", "a", "b"),
        ("cp", "a:/x", "b:/y"),
        ("exec", "demo"),
        ("exec", "demo", "--all"),
        ("exec", "demo", "--all", "-i", "--", "x"),
        ("token", "create"),
        ("token", "revoke"),
        ("wait", "demo", "--timeout", "soon"),
    ],
)
def test_bad_usage_is_64_and_one_sentence(cli: Cli, argv: tuple[str, ...]) -> None:
    outcome = cli(*argv)

    assert (64, "") == (outcome.code, outcome.out)
    assert "Traceback" not in outcome.err


def test_a_misspelt_verb_gets_a_proposal(cli: Cli) -> None:
    assert "did you mean 'logs'?" in cli("log").err


def test_a_bug_is_a_sentence_and_with_debug_a_trace(
    cli: Cli, manager: FakeManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> object:
        raise ZeroDivisionError("oops")

    monkeypatch.setattr("phalanx_client.session.Client.sessions", broken)

    assert "this is a bug in phalanx: ZeroDivisionError: oops" in cli("ps").err
    monkeypatch.setenv("PHALANX_DEBUG", "1")
    assert "Traceback" in cli("ps").err


@pytest.mark.parametrize(
    "words",
    [
        ["show", "\udcff"],
        ["exec", "\udcff", "id"],
        ["run", "--detach", "-i", "x", "echo", "\udcff"],
        ["token", "create", "\udcff"],
    ],
    ids=lambda words: words[0],
)
def test_what_is_not_in_utf_8_is_told(cli: Cli, words: list[str]) -> None:
    outcome = cli(*words)

    assert 64 == outcome.code
    assert "\\udcff" in outcome.err
    assert "is not in UTF-8" in outcome.err


# ---------------------------------------------------------------- run
