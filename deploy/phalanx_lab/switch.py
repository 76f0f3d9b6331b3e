"""The lab's network: one namespace per host, joined by a bridge in a namespace of its own.

No interface ever appears in the machine's own namespace, so its firewall never sees a frame.
"""

from __future__ import annotations

import ipaddress
import json
import os

from phalanx_lab.machine import run
from phalanx_lab.plan import MANAGER, SWITCH, Plan

NETNS = "/run/netns"
SLOW_RATE = "2mbit"
SLOW_WAIT = "400ms"


def path(netns: str) -> str:
    """The file that names a network namespace."""
    return f"{NETNS}/{netns}"


def build(plan: Plan) -> None:
    """Make the switch and plug every host and the manager into it."""
    switch = plan.netns(SWITCH)
    run(["ip", "netns", "add", switch])
    _configure(
        switch,
        "link add sw type bridge",
        "link set lo up",
        "link set sw up",
        f"address add {plan.gateway}/24 dev sw",
    )
    run(["nsenter", f"--net={path(switch)}", "sysctl", "-q", "-w", "net.ipv4.ip_forward=1"])
    for host in plan.hosts:
        if host in plan.nat:
            _plug(plan, f"n{host}", plan.outer_address(host), port=f"h{host}")
            _hide(plan, host)
        else:
            _plug(plan, f"h{host}", plan.address(host))
    if not plan.engines_only:
        _plug(plan, MANAGER, plan.manager_address)


def _plug(plan: Plan, part: str, address: str, port: str = "") -> None:
    """Make a namespace with `eth0` on the switch; the switch's end has the name of the port, or
    of the part.
    """
    netns, switch, port = plan.netns(part), plan.netns(SWITCH), port or part
    run(["ip", "netns", "add", netns])
    peer = ["peer", "name", "eth0", "netns", netns]
    run(["ip", "link", "add", port, "netns", switch, "type", "veth", *peer])
    _configure(switch, f"link set {port} master sw", f"link set {port} up")
    _configure(
        netns,
        "link set lo up",
        "link set eth0 up",
        f"address add {address}/24 dev eth0",
        f"route add default via {plan.gateway}",
    )


def _hide(plan: Plan, host: int) -> None:
    """Put a host behind a router on the switch: out by the router's address, in by no way."""
    router, netns, inner = plan.netns(f"n{host}"), plan.netns(f"h{host}"), plan.inner_gateway(host)
    run(["ip", "netns", "add", netns])
    peer = ["peer", "name", "eth0", "netns", netns]
    run(["ip", "link", "add", "in", "netns", router, "type", "veth", *peer])
    _configure(router, "link set in up", f"address add {inner}/24 dev in")
    _configure(
        netns,
        "link set lo up",
        "link set eth0 up",
        f"address add {plan.address(host)}/24 dev eth0",
        f"route add default via {inner}",
    )
    inside = ["nsenter", f"--net={path(router)}"]
    run([*inside, "sysctl", "-q", "-w", "net.ipv4.ip_forward=1"])
    masked = ["POSTROUTING", "-o", "eth0", "-j", "MASQUERADE"]
    run([*inside, "iptables", "-w", "-t", "nat", "-A", *masked])
    fresh = ["-m", "conntrack", "--ctstate", "NEW", "-j", "DROP"]
    run([*inside, "iptables", "-w", "-A", "FORWARD", "-i", "eth0", *fresh])
    # The switch's uplink may lead to somebody who answers for every address; nobody routes these.
    _configure(plan.netns(SWITCH), f"route add blackhole {plan.address(host)}/32")


def _configure(netns: str, *lines: str) -> None:
    run(["ip", "-n", netns, "-batch", "-"], stdin="\n".join(lines) + "\n")


def masquerade(plan: Plan) -> None:
    """Let hosts out through the switch's user-mode uplink.

    Only what leaves by the uplink is rewritten: frames between hosts pass this firewall too.
    """
    inside = ["nsenter", f"--net={path(plan.netns(SWITCH))}"]
    rule = ["-A", "POSTROUTING", "-o", "tap0", "-j", "MASQUERADE"]
    run([*inside, "iptables", "-w", "-t", "nat", *rule])


def cut(plan: Plan, part: str) -> None:
    """Unplug a host, or the manager, at the switch."""
    run(["ip", "-n", plan.netns(SWITCH), "link", "set", part, "down"])


def cut_between(plan: Plan, one: str, other: str) -> None:
    """Let nothing pass between two addresses any more; others do not notice."""
    for rule in _both_ways(one, other):
        _forward(plan, "-I", rule)


def slow(plan: Plan, part: str) -> None:
    """Make a link narrow in both directions; what does not fit waits, then is lost."""
    shape = ["root", "tbf", "rate", SLOW_RATE, "burst", "16kb", "latency", SLOW_WAIT]
    for netns, device in ((plan.netns(SWITCH), part), (plan.netns(part), "eth0")):
        run(["tc", "-n", netns, "qdisc", "replace", "dev", device, *shape])


def heal(plan: Plan, part: str) -> None:
    """Plug it in again, as wide as it was."""
    run(["ip", "-n", plan.netns(SWITCH), "link", "set", part, "up"])
    for netns, device in ((plan.netns(SWITCH), part), (plan.netns(part), "eth0")):
        if " tbf " in run(["tc", "-n", netns, "qdisc", "show", "dev", device]):
            run(["tc", "-n", netns, "qdisc", "del", "dev", device, "root"])


def heal_between(plan: Plan, one: str, other: str) -> None:
    """Let two addresses reach each other again."""
    rules = _forward(plan, "-S", [])
    for rule in _both_ways(one, other):
        while " ".join(rule) in rules:
            _forward(plan, "-D", rule)
            rules = _forward(plan, "-S", [])


def _both_ways(one: str, other: str) -> list[list[str]]:
    pairs = ((one, other), (other, one))
    return [["-s", f"{source}/32", "-d", f"{to}/32", "-j", "DROP"] for source, to in pairs]


def _forward(plan: Plan, verb: str, rule: list[str]) -> str:
    inside = ["nsenter", f"--net={path(plan.netns(SWITCH))}"]
    return run([*inside, "iptables", "-w", verb, "FORWARD", *rule])


def namespaces(lab: str) -> list[str]:
    """Network namespaces of a lab, by their names."""
    try:
        return sorted(name for name in os.listdir(NETNS) if name.startswith(f"phx{lab}-"))
    except FileNotFoundError:
        return []


def machine_routes() -> list[ipaddress.IPv4Network]:
    """Networks that the machine itself reaches other than by its default route."""
    told: list[dict[str, str]] = json.loads(run(["ip", "-4", "-j", "route"]) or "[]")
    return [
        ipaddress.IPv4Network(route["dst"], strict=False)
        for route in told
        if route.get("dst", "default") != "default"
    ]


def machine_has_default_route() -> bool:
    """Whether the machine itself has a way out."""
    return bool(run(["ip", "-4", "route", "show", "default"]).strip())
