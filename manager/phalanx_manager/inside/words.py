"""`phalanx` as containers have it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import msgspec

from phalanx_manager.core import why
from phalanx_manager.http import views
from phalanx_manager.inside import ending
from phalanx_manager.inside.question import USAGE, Answer, Handler, Question, WrongQuestion
from phalanx_manager.rpc import looks

HELP: Final = """\
usage: phalanx VERB

In a container, without a token, about its own session:
  phalanx requeue         stop, and go back to the queue as the next attempt
  phalanx stop            stop for good
  phalanx show [-o json]  the session and its containers
  phalanx why             why it is as it is
  phalanx-solo COMMAND    run a command without the other ranks
All else is asked from outside.
"""


async def phalanx(question: Question) -> Answer:
    """Answer `phalanx VERB`."""
    verb, *rest = question.words or ("",)
    if verb in ("", "help", "-h", "--help"):
        return Answer(HELP, 0 if verb else USAGE)
    handler = _VERBS.get(verb)
    if handler is None:
        known = ", ".join(_VERBS)
        raise WrongQuestion(USAGE, f"{verb[:80]} does not work in a container; these do: {known}")
    question.check_own([word for word in rest if not word.startswith("-") and word != "json"])
    wrong = [word for word in rest if word.startswith("-") and (verb, word) != ("show", "-o")]
    if wrong:
        raise WrongQuestion(USAGE, f"{verb} has no option {wrong[0][:80]} in a container")
    return await handler(question)


async def _requeue(question: Question) -> Answer:
    await ending.requeue(question)
    session = question.row.session
    return Answer(
        f"session {session.name} goes back to the queue as attempt {session.attempt + 1}\n"
    )


async def _stop(question: Question) -> Answer:
    await ending.end(question)
    return Answer(f"session {question.row.session.name} is stopped\n")


async def _show(question: Question) -> Answer:
    view = views.session(question.row)
    if "json" in question.words:
        return Answer(msgspec.json.format(msgspec.json.encode(view), indent=2).decode() + "\n")
    lines = [f"{view.name} is {view.state}, attempt {view.attempt}, id {view.id}"]
    lines += [view.reason] if view.reason else []
    lines += [
        f"{'*' if one.rank == question.kernel.rank else ' '} {one.rank} {one.host_name} "
        f"{one.address or '-'} on {one.agent or '-'}: {one.state}"
        for one in view.kernels
    ]
    return Answer("\n".join(lines) + "\n")


async def _why(question: Question) -> Answer:
    scene = await looks.see(question.link, question.row)
    agents = {record.name: record for record in await question.store.agents()}
    found = why.findings(scene, agents, question.clock.now())
    lines = [f"{one.text}{f' ({one.hint})' if one.hint else ''}" for one in found]
    return Answer("".join(f"{line}\n" for line in lines))


_VERBS: Final[Mapping[str, Handler]] = {
    "requeue": _requeue,
    "stop": _stop,
    "show": _show,
    "why": _why,
}
