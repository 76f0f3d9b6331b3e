"""Processes, cgroups and interfaces of a container that its engine does not know of."""

from __future__ import annotations

import contextlib
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from phalanx_agent.host import remains

OURS, ANOTHERS = "a" * 64, "b" * 64

HALF = {"ifname": "veth0a6c273", "ifindex": 302, "flags": ["BROADCAST"], "qdisc": "noop"}
TUNNEL = {**HALF, "ifname": "vx-001016-vlgw2", "ifindex": 303}
ITS_PEER = {**HALF, "ifname": "veth636408b", "ifindex": 301}
OTHERS = (
    {**HALF, "ifname": "veth1c4f5ba", "qdisc": "noqueue", "flags": ["UP"]},
    {**HALF, "ifname": "veth6d699b9", "master": "phxegress"},
    {**HALF, "ifname": "veth98d3822", "qdisc": "noqueue"},
    {**HALF, "ifname": "vethmine"},
    {**HALF, "ifname": "vx-mine"},
    {**TUNNEL, "qdisc": "noqueue", "flags": ["UP"]},
)
PROGRAM = """\
#!/bin/sh
case "$*" in
    *delete*) echo "$4" >> {folder}/deleted; {delete} ;;
    *) cat {folder}/links; {listed} ;;
esac
"""


@contextlib.contextmanager
def program(name: str, *words: str) -> Iterator[subprocess.Popen[bytes]]:
    """A process that is called so, until it is killed."""
    argv = [name, "-c", "read forever", name, *words]
    with subprocess.Popen(argv, executable="/bin/sh", stdin=subprocess.PIPE) as process:
        try:
            yield process
        finally:
            process.kill()


@pytest.fixture
def cgroups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A tree of cgroups, which are folders that go when nothing is below them."""
    monkeypatch.setattr(remains, "CGROUPS", tmp_path)
    for place in (
        f"memory/lab/{OURS}",
        f"memory/lab/{ANOTHERS}",
        f"system.slice/docker-{OURS}.scope",
    ):
        (tmp_path / place / "inner").mkdir(parents=True)
    return tmp_path


@pytest.fixture(autouse=True)
def links(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Links:
    """A host with these interfaces, instead of this machine."""
    folder = tmp_path_factory.mktemp("links")
    monkeypatch.setattr(remains, "IP", (str(folder / "ip"),))
    monkeypatch.setattr(remains, "HANDED_OVER_WITHIN_S", 0.0)
    host = Links(folder)
    host.are(*OTHERS)
    return host


class Links:
    """Interfaces of a host, which `ip` lists and deletes."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def are(self, *links: object, delete: str = "", listed: str = "") -> None:
        """Args: delete, listed: what the shell does besides, when it has deleted or listed them."""
        (self._folder / "links").write_text(json.dumps(links))
        program = self._folder / "ip"
        program.write_text(PROGRAM.format(folder=self._folder, delete=delete, listed=listed))
        program.chmod(0o755)

    def are_later(self, *links: object) -> str:
        """The shell's words for it."""
        (self._folder / "later").write_text(json.dumps(links))
        return f"cp {self._folder}/later {self._folder}/links"

    @property
    def deleted(self) -> list[str]:
        """Names, in order."""
        told = self._folder / "deleted"
        return told.read_text().split() if told.exists() else []


async def test_the_shim_of_a_container_is_ended_and_no_other_ones(cgroups: Path) -> None:
    with (
        program("/usr/bin/containerd-shim-runc-v2", "-id", OURS) as shim,
        program("runc", "create", OURS) as helper,
        program("/usr/bin/containerd-shim-runc-v2", "-id", ANOTHERS) as another,
        program("docker", "logs", OURS) as client,
    ):
        await remains.end(OURS)

        assert [-9, -9, None, None] == [
            shim.wait(10),
            helper.wait(10),
            another.poll(),
            client.poll(),
        ]


async def test_cgroups_of_a_container_are_removed_and_no_other_ones(cgroups: Path) -> None:
    await remains.end(OURS)

    left = sorted(str(place.relative_to(cgroups)) for place in cgroups.rglob("*"))
    assert [
        "memory",
        "memory/lab",
        f"memory/lab/{ANOTHERS}",
        f"memory/lab/{ANOTHERS}/inner",
        "system.slice",
    ] == left


async def test_what_does_not_end_is_named(cgroups: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remains, "WITHIN_S", 0.0)
    with (
        program("containerd-shim-runc-v2", "-id", OURS) as shim,
        pytest.raises(remains.RemainsStay, match=f"Process {shim.pid} of it does not end"),
    ):
        await remains.end(OURS)


async def test_a_pair_that_an_engine_has_not_handed_over_is_removed(
    cgroups: Path, links: Links
) -> None:
    links.are(HALF, ITS_PEER, *OTHERS, delete=links.are_later(*OTHERS))
    await remains.end(OURS)

    assert {"veth0a6c273", "veth636408b"} == set(links.deleted)


async def test_a_tunnels_end_that_an_engine_has_not_handed_over_is_removed(
    cgroups: Path, links: Links
) -> None:
    links.are(TUNNEL, *OTHERS, delete=links.are_later(*OTHERS))
    await remains.end(OURS)

    assert ["vx-001016-vlgw2"] == links.deleted


async def test_a_pair_that_is_handed_over_meanwhile_stays(cgroups: Path, links: Links) -> None:
    links.are(HALF, *OTHERS, listed=links.are_later(*OTHERS))
    await remains.end(OURS)

    assert [] == links.deleted


async def test_a_pair_that_cannot_be_removed_is_named(cgroups: Path, links: Links) -> None:
    links.are(HALF)
    with pytest.raises(remains.RemainsStay, match="ip link delete veth0a6c273"):
        await remains.end(OURS)
