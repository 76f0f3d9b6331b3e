"""Write docs/LIFECYCLE.md from the table: `python -m tests.house.lifecycle_page`."""

from __future__ import annotations

from pathlib import Path

from phalanx_wire.lifecycle import BARRIERS, ENDED, TRANSITIONS, KernelState, Owner

PAGE = Path(__file__).parents[2] / "docs" / "LIFECYCLE.md"

MEANING = {
    KernelState.PENDING: "Known to the manager, holds nothing.",
    KernelState.ASSIGNED: "Bound to an agent; slots, devices and an address are reserved.",
    KernelState.PREPARING: "The agent has it: image, network, keys, files.",
    KernelState.CREATED: "The container exists and waits for the gang.",
    KernelState.STARTING: "The container runs; its runner is coming up.",
    KernelState.READY: "The runner listens on its ssh port and waits for the gang.",
    KernelState.MESHED: "The runner has reached every peer by name and waits for the gang.",
    KernelState.RUNNING: "Released: the command runs, or the container idles for its user.",
    KernelState.STOPPING: "Told to stop; the grace period between TERM and KILL runs.",
    KernelState.EXITED: "Ended by itself; the exit code is the engine's.",
    KernelState.STOPPED: "Ended by us.",
    KernelState.REJECTED: "Never ran: no image, no mount, no address.",
    KernelState.LOST: "Its agent is gone, by the manager's verdict.",
    KernelState.REMOVED: "Nothing of it is left on its host; its slots are free.",
}


def page() -> str:
    """Spell the whole page."""
    lines = [
        "# The life of a kernel",
        "",
        "Generated from `wire/phalanx_wire/lifecycle.py` by",
        "`python -m tests.house.lifecycle_page`; a test fails when this page and the table differ.",
        "",
        "A kernel is one-shot. Its state only grows, so of two reports the larger one is the",
        "truth, however late or often they come. A retry is a new kernel, of the next attempt.",
        "",
        "| state | number | meaning | leaves to | by |",
        "| --- | --- | --- | --- | --- |",
    ]
    for state in KernelState:
        exits = [
            (after, owner) for (before, after), owner in TRANSITIONS.items() if before is state
        ]
        ways = ", ".join(after.name for after, _ in sorted(exits))
        owners = ", ".join(sorted({owner.value for _, owner in exits}))
        lines.append(
            f"| {state.name} | {state.value} | {MEANING[state]} | {ways or '-'} | {owners or '-'} |"
        )
    lines += [
        "",
        "## Barriers",
        "",
        "A gang (all kernels of one attempt) passes these together: all kernels get the next one",
        "as their goal once every kernel has reached the one before.",
        "",
        " → ".join(f"**{state.name}**" for state in BARRIERS),
        "",
        "So no container starts before all are created, no runner looks for its peers before all",
        "listen, and no rank's command starts before every rank has reached every other by name.",
        "",
        "## The way up, and the ways out",
        "",
        "```mermaid",
        "stateDiagram-v2",
        "    [*] --> PENDING",
    ]
    for (before, after), owner in TRANSITIONS.items():
        if after is not KernelState.LOST:
            lines.append(f"    {before.name} --> {after.name}: {owner.value}")
    lines += [
        "    REMOVED --> [*]",
        "```",
        "",
        f"Not drawn: the verdict LOST ({Owner.LIVENESS.value}), possible from every state in which",
        "an agent holds the kernel.",
        f"Ended states: {', '.join(state.name for state in sorted(ENDED))}.",
        "",
        "## Attempts",
        "",
        "An attempt has ended when all its kernels have. In the same transaction its session ends",
        "for good, or gets its next attempt: fresh kernels, PENDING, with ids of their own. So the",
        "same rank never runs twice at once: LOST is an end because an agent that is not heard",
        "ends its kernels before the verdict. The kernels of the attempt before go on to REMOVED",
        "by themselves and hold their slots until then.",
        "",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    PAGE.write_text(page())
