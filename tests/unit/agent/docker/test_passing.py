"""Which refusals of engines pass by themselves."""

from __future__ import annotations

import pytest

from phalanx_agent.docker.passing import passes


@pytest.mark.parametrize(
    "words",
    [
        "Pool overlaps with other one on this address space.",
        "invalid pool request: Pool overlaps with other one on this address space.",
        "cannot create network 7a1b (phx1): conflicts with network 9c2d (phx2): same bridge name.",
        "endpoint with name phx-a-1 already exists in network phx-b.",
        "Address already in use.",
        "network 4qmyq2ksvtaxtvsbqlqq9mxxd not found.",
        "Could not attach to network phx-b: rpc error: code = NotFound.",
        "error while removing network: network phx-b id 7a1b has active endpoints.",
        "rpc error: code = Unknown desc = The swarm does not have a leader.",
        "This node is not a swarm manager.",
    ],
)
def test_what_is_on_its_way_passes(words: str) -> None:
    assert passes(words)


@pytest.mark.parametrize(
    "words",
    [
        "No such image: nowhere:1.",
        "invalid subnet 10.0.0.1/24: it should be 10.0.0.0/24.",
        'OCI runtime create failed: exec: "nothing": executable file not found in $PATH.',
        "driver failed programming external connectivity: port is already allocated.",
        "No such container: 7a1b.",
    ],
)
def test_what_is_wrong_does_not(words: str) -> None:
    assert not passes(words)
