"""Images that come from a registry: slowly, in part, not at all, or not as they should be."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from phalanx_lab import engine
from tests.bench.probe import in_network_of
from tests.real.audit import names_in
from tests.real.failing import ENDED
from tests.real.ground import ACROSS, Ground, await_true, ranks
from tests.support.registry import Registry, digest_of

pytestmark = pytest.mark.real

PORT = 5000
IMAGE = f"127.0.0.1:{PORT}/pulled"
"""Every host finds its own registry there, and asks no other."""
SLOW = 20_000.0
"""Bytes per second, at which the image takes a minute."""
ALL = ("-N", "3", *ACROSS)
PULLS = f"pulling image {IMAGE}, "
BROKE_OFF = f"pulling image {IMAGE}: it broke off, and the engine tries again"
HUNDREDTH = 0.01
"""How exactly /proc/uptime tells the time, in seconds."""


def listeners(ground: Ground) -> list[socket.socket]:
    """Listen on each host's loopback."""
    listen = partial(socket.create_server, ("127.0.0.1", PORT))
    return [in_network_of(ground.lab.pid(f"engine-{h.index}"), listen) for h in ground.lab.hosts]


def stored(ground: Ground) -> dict[str, tuple[str, ...]]:
    """What engines keep of images, and of those that they are getting."""
    found = {}
    for host in ground.lab.hosts:
        images = engine.ask(host.engine_socket, "GET", "/images/json?all=1")[1]
        found[f"{host.name} images"] = tuple(sorted(one["Id"] for one in images))
        folder = f"{ground.lab.plan.host_state(host.index)}/engine"
        for place in ("tmp", "overlay2", "image/overlay2/layerdb/tmp"):
            found[f"{host.name} {place}"] = names_in(f"{folder}/{place}")
    return found


def removed(ground: Ground, before: dict[str, tuple[str, ...]]) -> bool:
    """Remove what images there are more; False while the container of an ended session uses one."""
    codes = []
    for host in ground.lab.hosts:
        place = f"{host.name} images"
        more = {*stored(ground)[place]} - {*before[place]}
        codes += [ground.docker(host, "rmi", "-f", image).code for image in more]
    return not any(codes)


@pytest.fixture
def registry(clean: Ground, tmp_path: Path) -> Iterator[Registry]:
    """A registry on each host's loopback; in the end no engine has anything of its image."""
    sessions, before = clean.sessions(), stored(clean)
    made = Registry(tmp_path)
    made.serve(listeners(clean))
    try:
        yield made
    finally:
        made.die()
        for session in clean.sessions() - sessions:  # of a test that failed; they hold the image
            clean.phalanx("stop", "--grace", "1s", session)
        await_true("the image is removed", lambda: removed(clean, before))
    await_true("nothing of it is left", lambda: before == stored(clean), 10)


def said_of(ground: Ground, session: str) -> str:
    """Why a session does not run yet."""
    return str(ground.http("GET", f"/v1/sessions/{session}").ok()["reason"])


def pulling(ground: Ground, registry: Registry, *options: str) -> str:
    """A session that waits for its image, of which a part has come slowly; its name."""
    registry.rate = SLOW
    name = ground.detached("-i", IMAGE, *options)
    await_true("it tells of its pull", lambda: PULLS in said_of(ground, name))
    return name


def test_an_image_that_no_host_has_is_pulled_and_runs(clean: Ground, registry: Registry) -> None:
    ran = clean.run("-q", "--no-prefix", "-i", IMAGE, "--", "echo", "here")

    assert "here\n" == ran.ok()


def test_a_slow_pull_is_told_holds_up_nobody_and_is_broken_off_by_a_stop(
    clean: Ground, registry: Registry
) -> None:
    name = pulling(clean, registry, *ALL)
    why, shown = clean.phalanx("why", name).ok(), clean.show(name)
    second = pulling(clean, registry, *ALL)
    clean.run(*ALL, "--", "true").ok()
    clean.phalanx("stop", second).ok()
    meanwhile = clean.show(name)["state"], registry.sending, registry.broken
    clean.phalanx("stop", name, timeout=5).ok()
    await_true("the pulls are broken off", lambda: registry.broken == 3, 5)

    assert f"rank 0 (main1) on agent {shown['kernels'][0]['agent']} is being prepared" in why
    assert all(PULLS in text for text in (why, *(one["reason"] for one in shown["kernels"])))
    assert ("preparing", 3, 0) == meanwhile
    assert "cancelled" == clean.await_state(name, "cancelled", within=5)["state"]
    assert 0 == registry.sending


def test_a_stop_does_not_wait_for_a_pull_that_has_stalled(
    clean: Ground, registry: Registry
) -> None:
    registry.rate = 0
    name = clean.detached("-i", IMAGE)
    await_true("the layer is asked for", lambda: registry.sending == 1)
    clean.phalanx("stop", name, timeout=5).ok()

    assert "cancelled" == clean.await_state(name, *ENDED, within=5)["state"]


def test_a_pull_whose_registry_was_killed_half_way_goes_on_when_it_is_back(
    clean: Ground, registry: Registry
) -> None:
    name = pulling(clean, registry)
    registry.die()
    await_true("it tells of the break", lambda: BROKE_OFF in said_of(clean, name), 5)
    registry.rate = None
    registry.serve(listeners(clean))

    assert "succeeded" == clean.await_state(name, *ENDED)["state"]


@pytest.mark.parametrize("lie", ["layer", "manifest"])
def test_an_image_that_is_not_what_its_digest_says_is_refused(
    clean: Ground, registry: Registry, lie: str
) -> None:
    registry.lies = lie
    digests = {"layer": registry.layer, "manifest": registry.manifest}
    ref = f"{IMAGE}@{digest_of(registry.manifest)}"

    said = clean.run("-i", ref, "--", "true").failed(125)

    assert f"could not be started: image {ref}: pulling it failed: " in said
    assert f"{lie} verification failed for digest {digest_of(digests[lie])}" in said
    assert "on agent host" in said


def test_no_rank_begins_before_the_slowest_host_has_its_image(
    clean: Ground, registry: Registry
) -> None:
    has_it = clean.lab.hosts[0]
    clean.docker(has_it, "pull", IMAGE).ok()
    name = pulling(clean, registry, *ALL, "--", "cat", "/proc/uptime")

    def states() -> dict[str, str]:
        return {one["agent"]: one["state"] for one in clean.show(name)["kernels"]}

    others = {host.name: "preparing" for host in clean.lab.hosts[1:]}
    await_true("one is ready", lambda: states() == {has_it.name: "created", **others})
    early, later = clean.phalanx("logs", name).out, states()
    registry.rate = None
    clean.phalanx("wait", name).ok()
    begun = ranks(clean.phalanx("logs", name).ok())

    assert ("", {has_it.name: "created", **others}) == (early, later)
    assert [0, 1, 2] == sorted(begun)
    first = min(float(line.split()[0]) for lines in begun.values() for line in lines)
    assert first + HUNDREDTH > registry.sent_at > 0


@pytest.mark.long
def test_a_registry_that_is_gone_for_good_fails_the_session_and_is_named(
    clean: Ground, registry: Registry
) -> None:
    name = pulling(clean, registry)
    registry.die()

    view = clean.await_state(name, *ENDED, within=110)

    assert "failed" == view["state"]
    assert f"image {IMAGE}: pulling it failed: " in view["reason"]
    assert f"127.0.0.1:{PORT}: connect: connection refused" in view["reason"]


@pytest.mark.long
@pytest.mark.timeout(240)
def test_a_pull_that_has_stalled_is_begun_anew(clean: Ground, registry: Registry) -> None:
    registry.rate = 0
    name = clean.detached("-i", IMAGE)
    await_true("the layer is asked for", lambda: registry.sending == 1)
    registry.rate = None

    assert "succeeded" == clean.await_state(name, *ENDED, within=180)["state"]
    assert registry.sent_at > 0
