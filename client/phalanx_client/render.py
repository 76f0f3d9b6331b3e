"""Views to text; pure. Every cell is escaped: names and reasons come from elsewhere."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import datetime

from phalanx_client.ansi import escape
from phalanx_wire.api import (
    DryRun,
    EnvView,
    EventView,
    NodeView,
    RankEnv,
    SessionView,
    TokenView,
    WhyView,
)
from phalanx_wire.slots import spell_bytes

GAP = "  "
NARROW_REASON = 60


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Columns as wide as their widest cell; the last one is not padded."""
    lines = [list(head), *([escape(cell) for cell in row] for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    return "\n".join(
        GAP.join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )


def facts(pairs: Iterable[tuple[str, str]]) -> str:
    """`key  value` lines; pairs without a value are left out."""
    kept = [(key, value) for key, value in pairs if value]
    width = max((len(key) for key, _ in kept), default=0)
    return "\n".join(f"{key.ljust(width)}  {escape(value)}" for key, value in kept)


def span(seconds: float) -> str:
    """A length of time in its two largest units: `42s`, `3m10s`, `2h5m`, `4d1h`."""
    left = max(0, int(seconds))
    sizes = (("d", 86400), ("h", 3600), ("m", 60), ("s", 1))
    parts = []
    for unit, size in sizes:
        amount, left = divmod(left, size)
        parts.append((amount, unit))
    while len(parts) > 1 and parts[0][0] == 0:
        parts.pop(0)
    return "".join(f"{amount}{unit}" for amount, unit in parts[:2] if amount) or "0s"


def moment(at: datetime | None) -> str:
    """A time to the second, in UTC."""
    return at.strftime("%Y-%m-%d %H:%M:%SZ") if at is not None else ""


def amount(value: float) -> str:
    """A number without a needless fraction."""
    return f"{value:.3f}".rstrip("0").rstrip(".")


def sessions(views: Sequence[SessionView], now: datetime, *, wide: bool) -> str:
    """`phalanx ps`."""
    head = ["NAME", "ID", "STATE", "SIZE", "AGENTS", "AGE"]
    head += ["KIND", "MODE", "CLUSTER", "EXIT", "STARTED", "REASON"] if wide else ["REASON"]
    return table(head, [_session_row(view, now, wide=wide) for view in views])


def _session_row(view: SessionView, now: datetime, *, wide: bool) -> list[str]:
    reason = view.reason or ""
    row = [
        view.name,
        view.id,
        view.state,
        str(len(view.kernels)),
        _agents(view) or "-",
        span((now - view.created_at).total_seconds()),
    ]
    if not wide:
        short = reason[: NARROW_REASON - 1] + "…" if len(reason) > NARROW_REASON else reason
        return [*row, short]
    code = "" if view.exit_code is None else str(view.exit_code)
    return [*row, view.kind, view.mode, view.cluster, code, moment(view.started_at), reason]


def _agents(view: SessionView) -> str:
    found = Counter(kernel.agent for kernel in view.kernels if kernel.agent is not None)
    return ",".join(f"{agent}:{count}" if count > 1 else agent for agent, count in found.items())


def session(view: SessionView, now: datetime) -> str:
    """`phalanx show`."""
    spec = view.spec
    ended = view.ended_at or now
    upper = facts(
        [
            ("name", view.name),
            ("id", view.id),
            ("state", view.state),
            ("reason", view.reason or ""),
            ("exit code", "" if view.exit_code is None else str(view.exit_code)),
            ("kind", f"{view.kind}, {view.mode}"),
            ("image", spec.image or ""),
            ("command", " ".join(spec.command)),
            ("cluster", view.cluster),
            ("attempt", str(view.attempt) if view.attempt > 1 else ""),
            ("created", moment(view.created_at)),
            ("started", moment(view.started_at)),
            ("ended", moment(view.ended_at)),
            ("ran", span((ended - view.started_at).total_seconds()) if view.started_at else ""),
        ]
    )
    rows = [
        [
            str(kernel.rank),
            kernel.host_name,
            kernel.agent or "-",
            kernel.address or "-",
            kernel.state,
            "" if kernel.exit_code is None else str(kernel.exit_code),
            kernel.reason or "",
        ]
        for kernel in view.kernels
    ]
    lower = table(["RANK", "HOST", "AGENT", "ADDRESS", "STATE", "EXIT", "REASON"], rows)
    warnings = "".join(f"\nwarning: {escape(text)}" for text in view.warnings)
    return f"{upper}{warnings}\n\n{lower}"


def dry_run(plan: DryRun) -> str:
    """`phalanx run --dry-run`."""
    if plan.placement is None:
        return f"it would wait: {escape(plan.reason or 'nothing says why')}"
    names = [
        f"{role.name}{number + 1}"
        for role in plan.spec.roles or ()
        for number in range(role.replicas)
    ]
    names += [""] * (len(plan.placement) - len(names))
    rows = [[str(rank), names[rank], agent] for rank, agent in enumerate(plan.placement)]
    return table(["RANK", "HOST", "AGENT"], rows)


def env(view: EnvView) -> str:
    """`phalanx env`: what all ranks share once, then what differs."""
    shared = _shared(view.ranks)
    blocks = [f"profile {view.profile}"]
    if shared:
        blocks.append("all ranks\n" + _variables(shared, RankEnv(0, "", ()), view))
    for rank in view.ranks:
        own = [name for name in (var.name for var in rank.variables) if name not in shared]
        if own:
            blocks.append(f"rank {rank.rank} ({rank.host_name})\n" + _variables(own, rank, view))
    return "\n\n".join(blocks)


def _shared(ranks: Sequence[RankEnv]) -> list[str]:
    """Names whose variable is the same in every rank; empty for a single rank."""
    if len(ranks) < 2:
        return []
    counts = Counter(variable for rank in ranks for variable in rank.variables)
    return [variable.name for variable in ranks[0].variables if counts[variable] == len(ranks)]


def _variables(names: Sequence[str], rank: RankEnv, view: EnvView) -> str:
    by_name = {variable.name: variable for variable in rank.variables or view.ranks[0].variables}
    rows = [
        [f"  {name}={by_name[name].value}", by_name[name].source, by_name[name].read_by]
        for name in names
    ]
    return table(["  VARIABLE", "FROM", "READ BY"], rows)


def event(view: EventView, *, wide: bool) -> str:
    """One line of `phalanx events`."""
    where = f" {view.session}" if wide and view.session else ""
    kind = f" {view.kind:22}" if wide else ""
    return escape(f"{moment(view.at)}{where}{kind}  {view.text}")


_REMEDY = {
    "container": "look: docker logs NAME; end: docker rm -f NAME",
    "network": "docker network rm NAME",
}
"""By the kind of a stray, what to do on its node."""


def nodes(views: Sequence[NodeView], now: datetime, *, wide: bool) -> str:
    """`phalanx nodes`: used of capacity."""
    head = ["NAME", "STATE", "CPU", "MEMORY", "GPU", "SESSIONS"]
    head += ["ADDRESS", "ENGINE", "SWARM", "CLUSTER", "SEEN", "REASON"] if wide else ["REASON"]
    text = table(head, [_node_row(view, now, wide=wide) for view in views])
    if not wide:
        return text
    notes = [f"{view.name}: warning: {escape(w)}" for view in views for w in view.warnings]
    notes += [f"{v.name}: host network: ports {v.host_ports}" for v in views if v.host_ports]
    notes += [f"{v.name}: key: {escape(v.public_key)}" for v in views if v.public_key]
    notes += [f"{view.name}: stray: {escape(stray)}" for view in views for stray in view.strays]
    return "\n".join([text, *notes])


def strays(views: Sequence[NodeView]) -> str:
    """`phalanx nodes --strays`: what no session claims, and what to do with it."""
    rows = [
        [view.name, *escape(stray).split(" ", 1), _REMEDY.get(stray.split(" ", 1)[0], "")]
        for view in views
        for stray in view.strays
    ]
    if not rows:
        return "no strays: everything with our label belongs to a session"
    return table(["NODE", "KIND", "NAME", "IF IT IS NOBODY'S"], rows)


def _node_row(view: NodeView, now: datetime, *, wide: bool) -> list[str]:
    models = f" {','.join(view.gpu_models)}" if view.gpu_models else ""
    row = [
        view.name,
        view.state,
        f"{amount(view.used.cpu)}/{amount(view.capacity.cpu)}",
        f"{spell_bytes(view.used.mem_bytes)}/{spell_bytes(view.capacity.mem_bytes)}",
        f"{view.used.gpu}/{view.capacity.gpu}{models}",
        ",".join(dict.fromkeys(holder.session_name for holder in view.holders)) or "-",
    ]
    reason = view.reason or ""
    if not wide:
        return [*row, reason]
    seen = span((now - view.last_seen_at).total_seconds()) if view.last_seen_at else "never"
    return [*row, view.address, view.engine, view.swarm, view.cluster, seen, reason]


def tokens(views: Sequence[TokenView]) -> str:
    """`phalanx token ls`."""
    rows = [
        [
            view.id,
            view.kind,
            view.name,
            view.scope,
            moment(view.created_at),
            moment(view.expires_at) or "never",
            view.used_by or "",
            "revoked" if view.revoked else "",
        ]
        for view in views
    ]
    return table(["ID", "KIND", "NAME", "SCOPE", "CREATED", "EXPIRES", "USED BY", ""], rows)


def why(view: WhyView) -> str:
    """`phalanx why`: each reason, and under it what to do."""
    attempt = f", attempt {view.attempt}" if view.attempt > 1 else ""
    lines = [f"{escape(view.name)}: {view.state}{attempt}"]
    for number, finding in enumerate(view.findings, 1):
        sure = "" if finding.certain else "likely: "
        head = f"{number}. " if len(view.findings) > 1 else ""
        lines.append(f"{head}{sure}{escape(finding.text)}")
        if finding.hint:
            lines.append(f"   {escape(finding.hint)}")
    return "\n".join(lines)
