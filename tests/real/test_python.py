"""The Python library against real engines: the notebook as it stands, and a program with a loop."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path

import pytest

import phalanx_client
from phalanx_client import Resources, SessionFailed, SessionSpec
from tests.real.ground import Ground

pytestmark = pytest.mark.real

NOTEBOOK = Path(__file__).parents[2] / "deploy" / "quickstart" / "notebook.ipynb"
SMALL = Resources(cpu=0.5, mem="64M")

# A notebook has an event loop of its own running while its cells run.
AS_A_NOTEBOOK = """
import ast, asyncio, json, sys

async def main():
    space = {}
    for cell in json.load(open(sys.argv[1]))["cells"]:
        if cell["cell_type"] == "code":
            *body, last = ast.parse("".join(cell["source"])).body
            shown = isinstance(last, ast.Expr)
            exec(compile(ast.Module(body if shown else [*body, last], []), "cell", "exec"), space)
            if shown:
                print(repr(eval(compile(ast.Expression(last.value), "cell", "eval"), space)))

asyncio.run(main())
"""


def test_the_notebook_runs_from_its_first_cell_to_its_last(clean: Ground) -> None:
    done = subprocess.run(
        [sys.executable, "-c", AS_A_NOTEBOOK, str(NOTEBOOK)],
        env=clean.env,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )

    assert 0 == done.returncode, done.stderr
    said = done.stdout.splitlines()
    assert "'rank 2 of 4\\n'" in said
    assert "'sub3\\n'" in said
    assert {"[0 main1] hello from main1", "[1 sub1] hello from sub1"} <= set(said)
    assert "succeeded" in said
    assert "'cancelled'" == said[-1]


async def test_a_program_with_a_loop_runs_many_sessions_at_once(clean: Ground) -> None:
    async with phalanx_client.connect(clean.lab.url, clean.lab.admin_token) as client:

        async def one(code: int) -> int:
            spec = SessionSpec(
                image="phalanx/base", command=("sh", "-c", f"exit {code}"), resources=SMALL
            )
            async with await client.run(spec) as session:
                try:
                    view = await session.result(60)
                except SessionFailed as failure:
                    view = failure.view
                return view.exit_code or 0

        assert [0, 4, 5] == list(await asyncio.gather(one(0), one(4), one(5)))


async def test_leaving_the_block_stops_the_session_and_waits_until_it_is_gone(
    clean: Ground,
) -> None:
    async with phalanx_client.connect(clean.lab.url, clean.lab.admin_token) as client:
        spec = SessionSpec(image="phalanx/base", kind="interactive", size=2, resources=SMALL)
        async with await client.run(spec) as session:
            await session.running(60)
            done = await session.exec(["cat"], rank=1, stdin=b"x" * 300_000)
            assert (0, 300_000) == (done.exit_code, len(done.stdout))
            refused = await session.exec(["sh", "-c", "echo no >&2; exit 9"])
            assert (9, b"no\n") == (refused.exit_code, refused.stderr)

        left = {host.name: clean.docker(host, "ps", "-aq").ok() for host in clean.lab.hosts}
        assert {host.name: "" for host in clean.lab.hosts} == left


def test_what_is_asked_of_an_ended_session_is_refused_with_the_managers_reason(
    clean: Ground,
) -> None:
    with phalanx_client.connect_blocking(clean.lab.url, clean.lab.admin_token) as client:
        spec = SessionSpec(image="phalanx/base", command=("true",), resources=SMALL)
        with client.run(spec) as session:
            session.result(60)
        with pytest.raises(phalanx_client.Refused) as refusal:
            session.exec(["true"])

    assert "not_running" == refusal.value.problem.code
