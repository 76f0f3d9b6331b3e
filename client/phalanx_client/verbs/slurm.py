"""`phalanx slurm install`, `uninstall`: SLURM's programs on this machine."""

from __future__ import annotations

import os

from phalanx_client import output
from phalanx_client.arguments import Parser
from phalanx_client.call import Call, Verb
from phalanx_client.failure import OK


def declare(parser: Parser) -> None:
    """What is to be done, and where."""
    parser.add_argument("what", choices=("install", "uninstall"))
    parser.add_argument("--prefix", required=True, metavar="DIR", help="programs go to DIR/bin")
    parser.add_argument("--image", default="", help="of jobs that name no --container-image")
    parser.add_argument(
        "--shared", action="append", default=[], metavar="DIR",
        help="a folder that this machine and all hosts have at the same path",
    )  # fmt: skip


async def run(call: Call) -> int:
    """Write or remove the launchers."""
    from phalanx_client.slurm import launchers  # noqa: PLC0415 - it needs SLURM's words

    given = call.options
    if given.what == "uninstall":
        gone = launchers.uninstall(given.prefix)
        output.note("\n".join(f"removed {path}" for path in gone) or "nothing of ours is there")
        return OK
    written = launchers.install(given.prefix, given.image, given.shared, given.url or "")
    if call.quiet:
        output.names(written)
        return OK
    output.say("\n".join(written))
    folder = os.path.join(os.path.abspath(given.prefix), "bin")
    output.note(f"to use them: export PATH={folder}:$PATH")
    return OK


VERBS = {
    "slurm": Verb(
        "slurm install|uninstall --prefix DIR [--image IMAGE] [--shared DIR ...]", declare, run
    )
}
