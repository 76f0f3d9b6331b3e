"""What no host can have, said by an agent that is broken or lies."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from phalanx_manager.core.doubt import doubt
from phalanx_wire.codec import decode
from phalanx_wire.control import (
    Engine,
    Gpu,
    HostNetwork,
    KernelReport,
    NetworkReport,
    Observed,
    SwarmReport,
)
from phalanx_wire.ids import KernelId
from phalanx_wire.lifecycle import KernelState
from phalanx_wire.slots import Slots

LONG = 1 << 20
GPUS = (Gpu("GPU-1", "h200"), Gpu("GPU-2", "h200"))
ENDED = KernelReport(KernelId("s.1.0"), KernelState.EXITED, exit_code=1 << 63)
GOOD = Observed(
    "boot", -1, Slots(64_000, 1 << 40, 2, 100_000), "10.0.0.1", Engine("27.0", "1.47"), GPUS,
    addresses=("10.0.0.1", "2001:db8::1"), subnets=("10.0.0.0/24", "0.0.0.0/0"),
    host_network=HostNetwork("eth0", 61_000, 61_999),
)  # fmt: skip


@pytest.mark.parametrize(
    "report",
    [
        GOOD,
        msgspec.structs.replace(GOOD, address="", host_network=None),
        Observed("boot", -1, Slots(), "", Engine()),
    ],
)
def test_what_a_host_can_have_is_believed(report: Observed) -> None:
    assert "" == doubt(report)


def kernel(**fields: Any) -> dict[str, Any]:
    return {"kernels": (KernelReport(KernelId("s.1.0"), KernelState.RUNNING, **fields),)}


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "a key of megabytes": (kernel(host_key="x" * (1 << 20)), "no public key"),
    "a key of two lines": (kernel(user_key="ssh-ed25519 A\n* ssh-ed25519 B"), "no public key"),
    "an id with NUL": (kernel(container_id="\0"), "no public key or id"),
    "less than nothing": ({"capacity": Slots(cpu_milli=-1)}, "-1 thousandths"),
    "no memory at all, and less": ({"capacity": Slots(1, -1)}, "-1 bytes"),
    "a billion devices": ({"capacity": Slots(gpu=10**9)}, "1000000000 devices"),
    "all the memory there is": ({"capacity": Slots(mem_bytes=1 << 63)}, "9223372036854775808"),
    "more devices than named": ({"capacity": Slots(gpu=3)}, "counts 3 devices and names 2"),
    "a device twice": ({"gpus": GPUS[:1] * 2}, "the same id"),
    "a device without an id": ({"gpus": (GPUS[0], Gpu("", "h200"))}, "'' is no id"),
    "a device with a line end": ({"gpus": (GPUS[0], Gpu("a\nb", "x"))}, r"'a\nb' is no id"),
    "an endless model": ({"gpus": (GPUS[0], Gpu("b", "x" * 200))}, "is no id or model"),
    "rules for a firewall": ({"addresses": ("10.0.0.1 -j ACCEPT\n-F",)}, "is no address"),
    "a name for an address": ({"address": "host1"}, "'host1' is no address"),
    "a network of 33 bits": ({"subnets": ("10.0.0.0/33",)}, "'10.0.0.0/33' is no network"),
    "a port above all": ({"host_network": HostNetwork("eth0", 61_000, 70_000)}, "none to offer"),
    "ports backwards": ({"host_network": HostNetwork("eth0", 9, 8)}, "none to offer"),
    "a network by megabytes": ({"networks": (NetworkReport("n", "x" * LONG),)}, "1048576 char"),
    "a swarm at megabytes": ({"swarm": SwarmReport(address="x" * LONG)}, "1048576 characters"),
    "a token of megabytes": ({"swarm": SwarmReport(worker_token="x" * LONG)}, "1048576 char"),
    "a sentence without end": ({"swarm": SwarmReport(problem="x" * LONG)}, "one of its sentences"),
    "a cause without end": (kernel(cause="x" * LONG), "is no cause"),
    "folders without end": (kernel(folders={str(n): "" for n in range(65)}), "no such folders"),
    "an interface without end": ({"host_network": HostNetwork("x" * LONG, 1, 2)}, "no interface"),
    "more addresses than rules": ({"addresses": ("10.0.0.1",) * 1025}, "it has 1025 addresses"),
    "a network without an address": ({"address": ""}, "has no address"),
    "a code of more bits than there are": ({"kernels": (ENDED,)}, "9223372036854775808 is no exit"),
}


@pytest.mark.parametrize("what", WRONG)
def test_what_no_host_can_have_is_doubted(what: str) -> None:
    changes, why = WRONG[what]

    assert why in doubt(msgspec.structs.replace(GOOD, **changes))


@pytest.mark.parametrize("value", [float("nan"), 1.5, "4", None, True])
def test_an_amount_that_is_no_whole_number_is_no_message(value: object) -> None:
    plain = msgspec.to_builtins(GOOD)
    plain["capacity"]["cpu_milli"] = value

    with pytest.raises(msgspec.MsgspecError):
        decode(msgspec.msgpack.encode(plain))
