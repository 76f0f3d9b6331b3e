"""`srun` in a container: a step of the own session."""

from __future__ import annotations

import msgspec

from phalanx_manager.core.cluster_env import rank_env
from phalanx_manager.core.model import Kernel, Refusal, SessionRow
from phalanx_manager.rpc.steps import Steps
from phalanx_slurm import srun_options
from phalanx_slurm.wrong import WrongError
from phalanx_wire.mux import Stream
from phalanx_wire.step import StepSpec
from phalanx_wire.stream import BEGUN, STDERR, AskCall


async def serve(
    call: AskCall, stream: Stream, row: SessionRow, kernel: Kernel, steps: Steps
) -> None:
    """Run the step that a container has asked for, to its end.

    Raises:
        StreamClosed: the asker is gone.
    """
    try:
        spec = wish(call, row, kernel)
    except WrongError as error:
        await _refuse(stream, str(error))
        return
    await stream.write(BEGUN, bytes([spec.tty]))
    code = await steps.run(row, spec, stream, asked_in=kernel.rank)
    if isinstance(code, Refusal):
        await _refuse(stream, code.title + (f"; {code.hint}" if code.hint else ""))
    elif stream.closed is None:
        await stream.close(exit_code=code)


def wish(call: AskCall, row: SessionRow, kernel: Kernel) -> StepSpec:
    """Read the command line.

    Raises:
        WrongError: what is wrong with it.
    """
    own = {var.name: var.value for var in rank_env(row.session, row.kernels, kernel.rank)}
    around = srun_options.Surroundings(call.environ, own, call.cwd)
    spec = srun_options.read(call.argv[1:], around)
    if spec.tty and not call.tty:
        raise WrongError("--pty: srun has no terminal here")
    return msgspec.structs.replace(spec, rows=call.rows, columns=call.columns)


async def _refuse(stream: Stream, why: str) -> None:
    await stream.write(STDERR, f"srun: error: {why}\n".encode())
    await stream.close(exit_code=1)
