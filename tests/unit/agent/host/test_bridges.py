"""Which bridges on a host are of a session's network, and have nothing attached."""

from __future__ import annotations

import json

import pytest

from phalanx_agent.host.bridges import Bridge, without_ports
from phalanx_wire import names
from phalanx_wire.ids import SessionId

OURS = names.bridge_name(SessionId("qr27nxe3abcd"), 1)
BRIDGE = {"ifname": OURS, "ifindex": 9, "linkinfo": {"info_kind": "bridge"}}


@pytest.mark.parametrize(
    ("links", "found"),
    [
        ((BRIDGE,), {Bridge(OURS, 9)}),
        (({**BRIDGE, "ifname": names.bridge_name(SessionId("abcdefghijkl"), 9999)},),
         {Bridge("phxabcdefgh9999", 9)}),
        ((BRIDGE, {"ifname": "veth0a6c273", "ifindex": 10, "master": OURS}), set()),
        (({**BRIDGE, "linkinfo": {"info_kind": "veth"}},), set()),
        (({"ifname": OURS, "ifindex": 9},), set()),
        (({**BRIDGE, "ifname": "phxegress"}, {**BRIDGE, "ifname": "br-0a6c273aaaaa"}), set()),
        (({**BRIDGE, "ifname": "docker0"},), set()),
        ((), set()),
    ],
)  # fmt: skip
def test_bridges_of_sessions_with_nothing_attached_are_found(
    links: tuple[dict[str, object], ...], found: set[Bridge]
) -> None:
    assert found == without_ports(json.dumps(links))


def test_no_listing_is_no_bridge() -> None:
    assert frozenset() == without_ports("")
