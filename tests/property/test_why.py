"""Whatever agents tell of containers, why has an answer that can be told."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from phalanx_manager.core import why
from phalanx_manager.core.model import SessionRow
from phalanx_wire.lifecycle import KernelState
from phalanx_wire.look import Look, Process, Reach, Socket
from tests.support.house import NOW, row, with_kernel, with_session

PORTS = st.sampled_from([12345, 2200, 22, 40000, -1])
ADDRESSES = st.sampled_from(["10.213.0.40", "10.213.0.41", "127.0.0.1", "::1", "10.213.0.9", "?"])
TEXTS = st.text(max_size=300)
RANKS = st.sampled_from(["0", "1", "2", "-1", "99999999999", "x", ""])
VARIABLES = st.dictionaries(
    st.sampled_from(["RANK", "WORLD_SIZE", "MASTER_PORT", "MASTER_ADDR"]), RANKS
)
AMOUNTS = st.floats(-1, 1e6) | st.sampled_from([float("nan"), float("inf")])
PROCESSES = st.builds(
    Process,
    pid=st.integers(-1, 9),
    parent=st.integers(-1, 9),
    command=TEXTS,
    state=st.sampled_from([*"RSDTtZXI", ""]),
    threads=st.integers(),
    cpu_s=AMOUNTS,
    age_s=AMOUNTS,
    cores=AMOUNTS,
    waits=TEXTS,
    ours=st.booleans(),
    variables=VARIABLES,
)
SOCKETS = st.builds(
    Socket,
    state=st.sampled_from(["listen", "connecting", "connected"]),
    local=ADDRESSES,
    local_port=PORTS,
    remote=ADDRESSES,
    remote_port=PORTS,
    pid=st.integers(-1, 9),
)
REACHES = st.builds(
    Reach, rank=st.integers(-2, 4), answer=st.sampled_from(["open", "silent", "no route"])
)
LOOKS = st.builds(
    Look,
    processes=st.lists(PROCESSES, max_size=4).map(tuple),
    sockets=st.lists(SOCKETS, max_size=4).map(tuple),
    reach=st.lists(REACHES, max_size=2).map(tuple),
)
ROWS = st.builds(
    lambda ended, kind, run_on: _row(ended=ended, kind=kind, run_on=run_on),
    st.booleans(),
    st.sampled_from(["batch", "interactive"]),
    st.sampled_from(["all", "main"]),
)


def _row(*, ended: bool, kind: str, run_on: str) -> SessionRow:
    command = ("true",) if kind == "batch" else ()
    run_on = run_on if kind == "batch" else "all"
    one = row("abb", KernelState.RUNNING, kind=kind, run_on=run_on, command=command)
    if ended:
        one = with_kernel(one, 2, state=KernelState.EXITED, ended_as=KernelState.EXITED)
    return with_session(one, state="running", started_at=NOW)


@settings(max_examples=150)
@given(ROWS, st.dictionaries(st.integers(0, 2), LOOKS), st.dictionaries(st.integers(0, 2), TEXTS))
def test_there_is_always_an_answer_about_ranks_that_exist(
    one: SessionRow, looks: dict[int, Look], missing: dict[int, str]
) -> None:
    scene = why.scene(one, looks, missing)
    found = why.findings(scene, {}, NOW)
    why.stuck(scene)

    assert found
    assert {0, 1, 2} >= {rank for each in found for rank in each.ranks}
    texts = [each.text for each in found if each.code != "not-seen"]
    assert [] == [text for text in texts if len(text) > 1000 or not text.isprintable()]
