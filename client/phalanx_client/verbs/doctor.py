"""`phalanx doctor`."""

from __future__ import annotations

from phalanx_client import fitness, machine, output, render
from phalanx_client.arguments import Parser
from phalanx_client.call import Call, Verb
from phalanx_client.failure import OK, UNAVAILABLE


def declare(parser: Parser) -> None:
    """Options of `doctor`."""
    parser.add_argument("--engine", default="unix:///var/run/docker.sock", metavar="unix:///PATH")
    parser.add_argument("--runtime-dir", default="/run/phalanx-agent", metavar="DIR")
    parser.add_argument("--state-dir", default="/var/lib/phalanx-agent", metavar="DIR")


async def run(call: Call) -> int:
    """Look at this machine; 0 when it is fit to be an agent."""
    given = call.options
    report = fitness.judge(machine.look(given.engine, given.runtime_dir, given.state_dir))
    shown = [one for one in report.findings if not call.quiet or one.verdict != "good"]
    if shown or call.form in ("json", "yaml"):
        call.show(report, lambda: _text(shown), [one.check for one in shown])
    if call.form in ("table", "wide"):
        verdict = "this machine is fit to be an agent"
        output.note(verdict if report.fit else "this machine is not fit to be an agent yet")
    return OK if report.fit else UNAVAILABLE


def _text(findings: list[fitness.Finding]) -> str:
    lines = render.table(
        ["CHECK", "", "FOUND"], [[one.check, one.verdict, one.text] for one in findings]
    ).splitlines()
    told = [lines[0]]
    for line, finding in zip(lines[1:], findings, strict=True):
        told.append(line)
        if finding.hint:
            told.append(f"    -> {finding.hint}")
    return "\n".join(told)


VERBS = {"doctor": Verb("doctor [--engine unix:///PATH]", declare, run)}
