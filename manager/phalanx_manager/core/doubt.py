"""What an agent says of its host, judged before anything is built on it: its addresses go into
the firewalls of all hosts, its capacity into the scheduler's sums, its kernels' codes into the
database, their keys to all hosts of a session.
"""

from __future__ import annotations

from ipaddress import ip_address, ip_network
from typing import Final

from phalanx_manager.core.check import MAX_MOUNTS, MAX_PATH, cut
from phalanx_wire.control import HostNetwork, Observed
from phalanx_wire.slots import Slots

_MOST: Final = Slots(cpu_milli=100_000_000, mem_bytes=1 << 50, gpu=1024, pids=1 << 32)
"""A hundred thousand cores, a pebibyte: more than any host has for years to come."""

_LONGEST_WORD: Final = 128
_LONGEST_LINE: Final = 1024
"""Of public keys, which all hosts of a session are told, and which become lines of ssh's files."""

_LONGEST_SAID: Final = 16_384
"""Of sentences: they are told to whoever waits for this host, again and again."""

_MOST_ADDRESSES: Final = 1024
"""Each is a rule in every host's firewall."""

_LAST_PORT: Final = 65_535
_CODES: Final = range(-(1 << 31), 1 << 32)
"""Of a process, signed or not."""


def doubt(report: Observed) -> str:
    """Say what cannot be true of any host, as a sentence; empty when there is nothing."""
    return _of_capacity(report) or _of_network(report) or _of_kernels(report) or _of_texts(report)


def _of_capacity(report: Observed) -> str:
    has = report.capacity
    if not Slots().fits(has) or not has.fits(_MOST):
        return (
            f"no host has {has.cpu_milli} thousandths of a core, {has.mem_bytes} bytes, "
            f"{has.gpu} devices and {has.pids} processes"
        )
    if len(report.gpus) != has.gpu:
        return f"it counts {has.gpu} devices and names {len(report.gpus)}"
    ids = [gpu.id for gpu in report.gpus]
    if len(set(ids)) != len(ids):
        return "two of its devices have the same id"
    words = [*ids, *(gpu.model for gpu in report.gpus)]
    odd = next((word for word in words if not _is_word(word)), None)
    return "" if odd is None else f"{cut(odd)} is no id or model of a device"


def _of_network(report: Observed) -> str:
    if len(report.addresses) > _MOST_ADDRESSES:
        return f"it has {len(report.addresses)} addresses"
    told = (report.address,) if report.address else ()
    for address in (*told, *report.addresses):
        if not _is_address(address):
            return f"{cut(address)} is no address"
    for subnet in report.subnets:
        if not _is_network(subnet):
            return f"{cut(subnet)} is no network"
    offer = report.host_network
    return "" if offer is None else _of_host_network(offer, report.address)


def _of_host_network(offer: HostNetwork, address: str) -> str:
    if not address:
        return "it offers its network and has no address"
    if len(offer.interface) > _LONGEST_WORD:
        return f"{cut(offer.interface)} is no interface"
    if not 0 < offer.first_port <= offer.last_port <= _LAST_PORT:
        return f"ports {offer.first_port} to {offer.last_port} are none to offer"
    return ""


def _of_kernels(report: Observed) -> str:
    for kernel in report.kernels:
        code = kernel.exit_code
        if code is not None and code not in _CODES:
            return f"{code} is no exit code"
        for line in (kernel.host_key, kernel.user_key, kernel.container_id):
            if len(line) > _LONGEST_LINE or not line.isprintable():
                return f"{cut(line)} is no public key or id of a container"
        if len(kernel.cause) > _LONGEST_WORD:
            return f"{cut(kernel.cause)} is no cause of an end"
        if len(kernel.folders) > MAX_MOUNTS or any(
            len(text) > MAX_PATH for pair in kernel.folders.items() for text in pair
        ):
            return f"{kernel.kernel[:80]} has no such folders"
    return ""


def _of_texts(report: Observed) -> str:
    """Judge how long what is told to others is: names are in goals of other hosts."""
    engine, swarm, networks = report.engine, report.swarm, report.networks
    told = (engine.version, engine.api, swarm.state, swarm.swarm_id, swarm.node_id, swarm.address)
    tokens = (swarm.worker_token, swarm.manager_token)
    for name in (report.boot_id, *told, *tokens, *(network.engine_id for network in networks)):
        if len(name) > _LONGEST_LINE:
            return f"what it calls its engine, its swarm or a network has {len(name)} characters"
    problems = (engine.problem, swarm.problem, *(network.problem for network in networks))
    for sentence in (*problems, *report.warnings):
        if len(sentence) > _LONGEST_SAID:
            return f"one of its sentences has {len(sentence)} characters"
    return ""


def _is_word(text: str) -> bool:
    return 0 < len(text) <= _LONGEST_WORD and text.isprintable()


def _is_address(text: str) -> bool:
    try:
        return str(ip_address(text)) == text
    except ValueError:
        return False


def _is_network(text: str) -> bool:
    try:
        ip_network(text, strict=False)
    except ValueError:
        return False
    return True
