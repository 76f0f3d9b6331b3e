"""An engine's way of running, as it is asked for at the start."""

from __future__ import annotations

from pathlib import Path

import pytest

from phalanx_agent.docker.port import Folders
from tests.support.scripted_engine import says, scripted

OF_ENGINE = {"NCPU": 2, "MemTotal": 1 << 30}


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        (["name=seccomp,profile=default"], ""),
        (["name=seccomp,profile=default", "name=userns"], "userns-remap"),
        (["name=rootless"], "rootless"),
    ],
)
async def test_an_engine_in_which_containers_cannot_read_their_keys_gets_no_work(
    tmp_path: Path, options: list[str], problem: str
) -> None:
    async with scripted(tmp_path) as (script, docker):
        script.on("GET info", says(200, {**OF_ENGINE, "SecurityOptions": options}))
        script.on("GET networks/bridge", says(200, {"Created": "2026-01-01T00:00:00Z"}))
        facts = await docker.info()

    assert bool(problem) == bool(facts.problem)
    assert problem in facts.problem


@pytest.mark.parametrize(
    ("driver", "layers"), [("overlay2", "/srv/docker/overlay2"), ("overlayfs", ""), ("vfs", "")]
)
async def test_an_engine_tells_where_it_mounts_layers_when_it_mounts_them_itself(
    tmp_path: Path, driver: str, layers: str
) -> None:
    told = {**OF_ENGINE, "DockerRootDir": "/srv/docker", "Driver": driver}
    async with scripted(tmp_path) as (script, docker):
        script.on("GET info", says(200, told))
        script.on("GET networks/bridge", says(200, {"Created": "2026-01-01T00:00:00Z"}))
        await docker.info()

    assert (Folders(layers=layers), "/srv/docker") == (docker.folders(), docker.root)
