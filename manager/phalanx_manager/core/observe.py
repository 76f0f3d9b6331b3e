"""From what an agent reports to the steps that the database takes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final

from phalanx_manager.core.explain import kernel_event
from phalanx_manager.core.goals import network_wanted
from phalanx_manager.core.model import Kernel, NetworkRow, SessionRow, Snapshot
from phalanx_wire.control import KernelReport, NetworkReport, Observed
from phalanx_wire.ids import AgentId, SessionId, split_kernel_id
from phalanx_wire.lifecycle import ENDED, KernelState, Owner, merge, path

_LONGEST_SAID: Final = 16_384
_MOST_WARNINGS: Final = 100


@dataclass(frozen=True, slots=True)
class KernelChange:
    """A kernel as seen, the states it goes through (maybe none), and what it is in the end.

    Attributes:
        seen: the state that this was decided on; another one in the database drops it.
        after: the whole kernel; `after.state` is the last of `steps`, or `seen`.
        texts: the sentence of the event for each step.
    """

    seen: KernelState
    steps: tuple[KernelState, ...]
    owner: Owner
    after: Kernel
    texts: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class NetworkChange:
    """A session's network is made, failed or gone."""

    session: SessionId
    attempt: int
    after: NetworkRow


@dataclass(frozen=True, slots=True)
class Changes:
    """What a report changes.

    Attributes:
        illegal: sentences about reports that no table allows; they change nothing.
    """

    kernels: tuple[KernelChange, ...] = ()
    networks: tuple[NetworkChange, ...] = ()
    illegal: tuple[str, ...] = ()


def changes(
    snapshot: Snapshot,
    agent: AgentId,
    observed: Observed,
    removals: Mapping[str, int],
    now: datetime,
) -> Changes:
    """Compare a report with what is known.

    `removals` tells by name of a network since which revision of the goals its owner has been
    told to remove it: an older report says nothing about that.
    """
    kernels: list[KernelChange] = []
    illegal: list[str] = []
    for report in observed.kernels:
        known = _known(snapshot, report, agent)
        if known is None:
            continue
        found = _kernel_change(known, report, now)
        if isinstance(found, str):
            illegal.append(found)
        elif found is not None:
            kernels.append(found)
    networks = tuple(_network_changes(snapshot, agent, observed, removals))
    return Changes(tuple(kernels), networks, tuple(illegal))


def moved(kernel: Kernel, steps: Sequence[KernelState], now: datetime) -> Kernel:
    """Give a kernel the last of its steps, and the first ended one as its end."""
    ended_as = kernel.ended_as or next(
        (s for s in steps if s in ENDED and s is not KernelState.REMOVED), None
    )
    return replace(kernel, state=steps[-1], state_at=now, ended_as=ended_as)


def _known(snapshot: Snapshot, report: KernelReport, agent: AgentId) -> Kernel | None:
    try:
        session, attempt, rank = split_kernel_id(report.kernel)
    except ValueError:
        return None
    row = snapshot.attempt(session, attempt)
    if row is None or rank >= len(row.kernels):
        return None
    kernel = row.kernels[rank]
    return kernel if kernel.agent == agent else None


def _kernel_change(known: Kernel, report: KernelReport, now: datetime) -> KernelChange | str | None:
    """Find the change, None when there is none, or a sentence when the report cannot be."""
    if merge(known.state, report.state) is not report.state:
        return _explained(known, report)  # late: we know better, but maybe not why
    steps = path(known.state, report.state, Owner.AGENT)
    if steps is None:
        return (
            f"kernel {known.id} is reported {report.state.name}, "
            f"which cannot follow {known.state.name}"
        )
    after = replace(
        known,
        detail=_said(report.detail) or ("" if steps else known.detail),
        host_key=report.host_key or known.host_key,
        user_key=report.user_key or known.user_key,
        container_id=report.container_id or known.container_id,
        warnings=tuple(map(_said, report.warnings[:_MOST_WARNINGS])) or known.warnings,
        folders=report.folders or known.folders,
    )
    if known.ended_as is None and report.state in ENDED:
        after = replace(
            after, cause=report.cause, message=_said(report.message), exit_code=report.exit_code
        )
    if steps:
        after = moved(after, steps, now)
    if after == known:
        return None
    texts = tuple(kernel_event(after, step) for step in steps)
    return KernelChange(known.state, steps, Owner.AGENT, after, texts)


def _said(text: str) -> str:
    """Cut a sentence that no person would read to its end: it is kept, and told again and again."""
    return text if len(text) <= _LONGEST_SAID else f"{text[:_LONGEST_SAID]}…"


def _explained(known: Kernel, report: KernelReport) -> KernelChange | None:
    """Take from an agent that is back that it had ended by itself what was given up for lost."""
    given_up = known.state is KernelState.LOST and known.cause == "lost"
    if not given_up or report.cause != "fenced":
        return None
    after = replace(
        known, cause=report.cause, message=_said(report.message), exit_code=report.exit_code
    )
    return KernelChange(known.state, (), Owner.AGENT, after)


def _network_changes(
    snapshot: Snapshot, agent: AgentId, observed: Observed, removals: Mapping[str, int]
) -> Iterator[NetworkChange]:
    reports = {report.name: report for report in observed.networks}
    for row in snapshot.rows():
        network = row.session.network
        if network is None or network.owner != agent or network.released:
            continue
        report = reports.get(network.name)
        after = _network_after(row, network, report)
        told = removals.get(network.name)
        if told is not None and observed.revision >= told and _is_gone(report):
            after = replace(network, released=True, problem="")
        if after != network:
            yield NetworkChange(row.session.id, row.session.attempt, after)


def _network_after(
    row: SessionRow, network: NetworkRow, report: NetworkReport | None
) -> NetworkRow:
    if report is None:
        return network
    wanted = network_wanted(row.kernels)
    return replace(
        network,
        engine_id=(report.engine_id if wanted else "") or network.engine_id,
        problem=report.problem,
        failed=network.failed or (wanted and report.final and not report.engine_id),
    )


def _is_gone(report: NetworkReport | None) -> bool:
    return report is None or (not report.engine_id and not report.problem)
