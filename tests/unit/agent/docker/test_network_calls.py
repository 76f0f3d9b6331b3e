"""Networks that an engine makes, attaches for the first time, and takes back, as it fails to."""

from __future__ import annotations

import asyncio

import msgspec
import pytest

from phalanx_agent.core.recipe import Image
from phalanx_agent.docker.engine import DockerEngine
from phalanx_agent.docker.port import Unavailable
from phalanx_wire import names
from tests.support.engine_stage import SESSION, SUBNET, Wanted, network
from tests.support.scripted_engine import Script, says, waits

IMAGE = Image("sha256:" + "a" * 64)
NETWORK = "b" * 64
OVERLAY, OTHER_OVERLAY = "o" * 25, "p" * 25
ONE, TWO = "1" * 64, "2" * 64
START, START_TWO = f"POST containers/{ONE}/start", f"POST containers/{TWO}/start"
ATTACH_FAILED = says(500, "Could not attach to network x: context deadline exceeded")


async def created(script: Script, docker: DockerEngine, container_id: str = ONE) -> str:
    """A container on an overlay that this host has never attached."""
    script.on("POST containers/create", says(201, {"Id": container_id}))
    return await docker.create_container(Wanted(IMAGE, OVERLAY).recipe())


# -------------------------------------------------------------------- first attach


async def test_a_first_attach_that_fails_is_tried_again_with_the_same_container(
    script: Script, docker: DockerEngine
) -> None:
    made = await created(script, docker)
    script.on(START, ATTACH_FAILED, ATTACH_FAILED, says(204))

    await docker.start(made)

    assert 3 == script.count(START)


async def test_a_first_attach_is_given_up_after_four_tries(
    script: Script, docker: DockerEngine
) -> None:
    made = await created(script, docker)
    script.on(START, ATTACH_FAILED)

    with pytest.raises(Unavailable):
        await docker.start(made)

    assert 4 == script.count(START)


async def test_a_start_that_can_never_be_is_not_tried_again(
    script: Script, docker: DockerEngine
) -> None:
    made = await created(script, docker)
    script.on(START, says(400, "exec: /no/such/program: no such file or directory"))

    with pytest.raises(Unavailable):
        await docker.start(made)

    assert 1 == script.count(START)


@pytest.mark.parametrize(("second", "at_once"), [(OTHER_OVERLAY, 0), (OVERLAY, 1)])
async def test_networks_are_first_attached_one_by_one_and_the_containers_of_one_together(
    script: Script, docker: DockerEngine, second: str, at_once: int
) -> None:
    bell = asyncio.Event()
    script.on("POST containers/create", says(201, {"Id": ONE}), says(201, {"Id": TWO}))
    one = await docker.create_container(Wanted(IMAGE, OVERLAY).recipe())
    two = await docker.create_container(Wanted(IMAGE, second).recipe("sub1"))
    script.on(START, waits(bell, says(204)))
    script.on(f"POST containers/{TWO}/start", says(204))

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(docker.start(one))
        tasks.create_task(docker.start(two))
        async with asyncio.timeout(10):
            while script.count(START) < 1 or script.count(START_TWO) < at_once:  # noqa: ASYNC110
                await asyncio.sleep(0)
        for _ in range(100):
            await asyncio.sleep(0)
        together = script.count(START_TWO)
        bell.set()

    assert (at_once, 1) == (together, script.count(START_TWO))


# -------------------------------------------------------------------- networks


@pytest.mark.parametrize("first", ["an overlay's first attach", "another bridge"])
async def test_the_engine_sets_up_one_network_at_a_time(
    script: Script, docker: DockerEngine, first: str
) -> None:
    bell = asyncio.Event()
    container_id = await created(script, docker)
    script.on(START, waits(bell, says(204)))
    script.on("GET networks", says(200, []))
    script.on("POST networks/create", waits(bell, says(201, {"Id": NETWORK})))
    script.on(f"GET networks/{NETWORK}", says(200, {"IPAM": {"Config": [{"Subnet": SUBNET}]}}))
    other = msgspec.structs.replace(network(), name="phx-other")
    started = START if first.startswith("an overlay") else "POST networks/create"

    async with asyncio.TaskGroup() as tasks:
        if started == START:
            tasks.create_task(docker.start(container_id))
        else:
            tasks.create_task(docker.create_network(SESSION, 1, other))
        async with asyncio.timeout(10):
            while not script.count(started):  # noqa: ASYNC110
                await asyncio.sleep(0)
        tasks.create_task(docker.create_network(SESSION, 1, network()))
        for _ in range(100):
            await asyncio.sleep(0)
        meanwhile = script.count(START) + script.count("POST networks/create")
        bell.set()

    assert (1, 2) == (meanwhile, script.count(START) + script.count("POST networks/create"))


async def test_a_network_that_gets_no_subnet_is_taken_back(
    script: Script, docker: DockerEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("phalanx_agent.docker.networks._SUBNET_WITHIN_S", 0.0)
    script.on("GET networks", says(200, []))
    script.on("POST networks/create", says(201, {"Id": OVERLAY}))
    script.on(f"GET networks/{OVERLAY}", says(200, {"IPAM": {"Config": None}}))
    script.on(f"DELETE networks/{OVERLAY}", says(204))

    with pytest.raises(Unavailable, match=SUBNET):
        await docker.create_network(SESSION, 1, network("overlay"))

    assert 1 == script.count(f"DELETE networks/{OVERLAY}")


async def test_a_network_found_made_is_looked_at_as_if_just_made(
    script: Script, docker: DockerEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("phalanx_agent.docker.networks._SUBNET_WITHIN_S", 0.0)
    wanted = network("overlay")
    found = {"Id": OVERLAY, "Name": wanted.name, "Labels": {names.LABEL_CLUSTER: docker.cluster}}
    script.on("GET networks", says(200, [found]))
    script.on(f"GET networks/{OVERLAY}", says(200, {"IPAM": {"Config": None}}))
    script.on(f"DELETE networks/{OVERLAY}", says(204))

    with pytest.raises(Unavailable, match=SUBNET):
        await docker.create_network(SESSION, 1, wanted)

    assert 0 == script.count("POST networks/create")


async def test_a_network_in_use_is_removed_when_it_is_free(
    script: Script, docker: DockerEngine
) -> None:
    in_use = says(403, "network has active endpoints")
    script.on(f"DELETE networks/{NETWORK}", in_use, in_use, says(204))

    await docker.remove_network(NETWORK)

    assert 3 == script.count(f"DELETE networks/{NETWORK}")


async def test_the_way_out_is_asked_for_once(script: Script, docker: DockerEngine) -> None:
    script.on("GET networks", says(200, []))
    script.on("POST networks/create", says(201, {"Id": NETWORK}))

    assert NETWORK == await docker.ensure_egress("10.212.0.0/20")
    assert NETWORK == await docker.ensure_egress("10.212.0.0/20")

    assert 1 == script.count("POST networks/create")
    options = script.bodies[-1]["Options"]
    assert "false" == options["com.docker.network.bridge.enable_icc"]


async def test_a_way_out_that_was_removed_by_hand_is_made_anew(
    script: Script, docker: DockerEngine
) -> None:
    state = {"Status": "running", "OOMKilled": False, "ExitCode": 0, "Pid": 1, "Error": ""}
    seen = {
        "Id": ONE,
        "Name": "/one",
        "HostConfig": {"NetworkMode": NETWORK},
        "State": {**state, "StartedAt": "", "FinishedAt": ""},
        "Config": {"Labels": {f"{names.LABEL}egress": "1"}},
    }
    script.on("GET networks", says(200, []))
    script.on("POST networks/create", says(201, {"Id": NETWORK}))
    script.on(f"GET containers/{ONE}/json", says(200, seen))
    script.on("POST networks/phx-egress/connect", says(404, "network phx-egress not found"))
    await docker.ensure_egress("10.212.0.0/20")
    with pytest.raises(Unavailable, match="phx-egress not found"):
        await docker.connect(ONE)
    await docker.ensure_egress("10.212.0.0/20")

    assert 2 == script.count("POST networks/create")


async def test_a_strangers_network_is_neither_used_as_the_way_out_nor_removed(
    script: Script, docker: DockerEngine
) -> None:
    theirs = {"Id": NETWORK, "Name": "phx-egress", "Labels": {}, "Options": {}, "Containers": {}}
    theirs["IPAM"] = {"Config": [{"Subnet": "10.212.0.0/20"}]}
    script.on("GET networks", says(200, [theirs]))
    script.on(f"GET networks/{NETWORK}", says(200, theirs))

    with pytest.raises(Unavailable, match="docker network rm phx-egress"):
        await docker.ensure_egress("10.212.0.0/20")

    assert 0 == script.count(f"DELETE networks/{NETWORK}")
