"""Images with a will of their own, as whole sessions."""

from __future__ import annotations

from functools import partial

import pytest

from phalanx_lab import hostile
from phalanx_lab.lab import Host
from tests.real.ground import ACROSS, Ground, await_true, ranks
from tests.real.test_trust import where

pytestmark = pytest.mark.real


def test_an_image_runs_as_it_wants_to_and_is_reached_all_the_same(clean: Ground) -> None:
    image = clean.lab.load("hostile")
    name = clean.detached("-N", "2", *ACROSS, "-i", image, "-e", "SSHD_PORTS=22 2200")
    entered = "entered as 1000 in /srv/app"
    await_true(
        "both have entered",
        lambda: ranks(clean.phalanx("logs", name).out) == {0: [entered], 1: [entered]},
    )

    visit = clean.inside(f"{name}/main1", "ssh", "sub1", "hostname; pwd; id -un; env")
    host, container = where(clean, name)
    by_engine = clean.docker(host, "exec", container, "ssh", "sub1", "hostname")
    clean.docker(host, "stop", "-t", "20", container).ok()
    waited = clean.phalanx("wait", name)

    there, folder, user, *env = visit.ok().splitlines()
    assert ("sub1", "/srv/app", "worker") == (there, folder, user)
    assert {f"{key}={value}" for key, value in hostile.ENV.items()} <= set(env)
    assert "sub1\n" == by_engine.ok()
    assert 42 == waited.code


def test_an_image_that_would_start_an_init_system_is_refused_unless_it_gets_a_command(
    clean: Ground,
) -> None:
    image = "init:latest"
    change = 'CMD ["/sbin/init"]'
    clean.lab.load("busybox")
    for host in clean.lab.hosts:
        made = clean.docker(host, "create", "phalanx/busybox").ok().strip()
        clean.docker(host, "commit", "--change", change, made, image).ok()
        clean.docker(host, "rm", made).ok()
    try:
        refused = clean.run("-J", "refused", "-i", image)
        ran = clean.run("-q", "--no-prefix", "-i", image, "--", "echo", "ran")
    finally:
        for host in clean.lab.hosts:
            await_true(f"{host.name} is rid of {image}", partial(rid, clean, host, image))

    assert 0 != refused.code
    assert "The image starts /sbin/init" in clean.show("refused")["reason"]
    assert "ran\n" == ran.ok()


def rid(ground: Ground, host: Host, image: str) -> bool:
    """Remove an image; False while the container of an ended session, which goes soon, uses it."""
    return ground.docker(host, "rmi", image).code == 0
