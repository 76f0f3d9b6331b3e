"""A session that comes past every point of failure, and what has to be done on its way."""

from __future__ import annotations

import io
import json
import os
import signal
import tarfile
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from phalanx_lab.lab import Host
from tests.real.failing import ENDED, ON_BOTH, PATIENCE_S, Armed, Site, containers, thawing
from tests.real.ground import Ground, await_true

CODE = 7
ENTRIES = 3
SCRIPT = """\
# {unique}
trap 'echo warned' USR1
echo "$PHALANX_SESSION_ID $PHALANX_ATTEMPT $RANK" >> /share/witness
until [ -e "/share/enough.$PHALANX_SESSION_ID" ]; do sleep 0.05; done
exit 7
"""


class Walk:
    """One session over two hosts, and all that is done to it and beside it."""

    def __init__(self, site: Site, number: int, armed: Armed) -> None:
        self.site = site
        self.number = number
        self.armed = armed
        self.calls = {point.call for points in armed.values() for point in points}

    def run(self) -> None:
        """Arm the points, live the session's life, and look that all went well."""
        site = self.site
        with thawing(site, self.armed):
            for component, points in self.armed.items():
                for point in points:
                    for folder in site.folders(component, point):
                        point.arm(folder)
                if any(point.call in AT_THE_START for point in points):
                    site.restart(component)
            try:
                session = self._live()
                self._enter_again()
                await_true("all is passed", lambda: not site.left(self.armed), PATIENCE_S)
            except BaseException as failure:
                failure.add_note(f"never passed: {'; '.join(site.left(self.armed)) or 'none'}")
                site.clear()
                raise
            finally:
                for component, points in self.armed.items():
                    for point in points:
                        for folder in site.folders(component, point):
                            point.disarm(folder)
        self._judge(session)

    def _live(self) -> str:
        site = self.site
        for kind, stimulus in BEFORE.items():
            if kind in self.calls:
                stimulus(self, "")
        session = site.submit(**self.spec())
        site.await_state(session, "running")
        done = set()
        for kind, stimulus in MEANWHILE.items():
            if kind in self.calls and stimulus not in done:
                stimulus(self, session)
                done.add(stimulus)
        (site.share / f"enough.{session}").touch()
        site.await_state(session, *ENDED)
        return session

    def _enter_again(self) -> None:
        """Whoever dies of another point in the midst of entering a swarm does not come past the
        points after it: the swarm is entered anew then.
        """
        for _try in range(ENTRIES):
            left = self.site.left(self.armed)
            if not any(call in point for call in ("docker.swarm_", "founder") for point in left):
                return
            leave_the_swarm(self, "")
            again = self.site.submit(**{**ON_BOTH, "command": ["true"]})
            self.site.await_state(again, *ENDED)

    def spec(self) -> dict[str, Any]:
        """What is asked for: more than half of each host."""
        packed = archive(self.number)
        stored = self.site.ask("PUT", "/v1/uploads", packed, Content_Type="application/x-tar")
        return {
            **ON_BOTH,
            "command": ["sh", "run.sh"],
            "egress": True,
            "upload": stored.ok()["digest"],
            "workdir": "/workspace",
            "user": "1000" if "docker.user_files" in self.calls else None,
            "mounts": [{"source": str(self.site.share), "target": "/share", "read_only": False}],
            "resources": {"cpu": 10, "mem": "256M"},
            "lost_after_s": 300,
            "time_limit_s": 90,
            "warn_signal": "USR1@89",
        }

    def _judge(self, session: str) -> None:
        view = self.site.view(session)
        codes = [kernel["exit_code"] for kernel in view["kernels"]]
        assert ("failed", [CODE, CODE]) == (view["state"], codes), json.dumps(view, indent=2)
        ran = {line: n for line, n in self.site.witnesses().items() if line.startswith(session)}
        assert {f"{session} 1 {rank}": 1 for rank in range(2)} == ran


def archive(number: int) -> bytes:
    """A tar archive that no host has yet."""
    text = SCRIPT.format(unique=f"{os.getpid()} {number}").encode()
    member = tarfile.TarInfo("run.sh")
    member.size = len(text)
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        tar.addfile(member, io.BytesIO(text))
    return packed.getvalue()


# ---------------------------------------------------------------- what brings calls about


def has_left(ground: Ground, host: Host) -> bool:
    """Leave; a busy engine may say that it could not."""
    said = ground.docker(host, "swarm", "leave", "--force").err
    return "not part of a swarm" in said


def leave_the_swarm(walk: Walk, _session: str) -> None:
    """The engines have to find together anew."""
    ground = walk.site.ground
    for host in ground.lab.hosts:
        await_true(f"{host.name}'s engine has left the swarm", partial(has_left, ground, host))
    for component in ("agent-1", "agent-2"):
        walk.site.restart(component)


def ask_for_a_missing_image(walk: Walk, _session: str) -> None:
    """It has to be pulled, and cannot be: again until both have tried, since one failure is enough
    to end it.
    """
    site = walk.site
    deadline = time.monotonic() + PATIENCE_S
    while any("docker.pull" in left for left in site.left(walk.armed)):
        assert time.monotonic() < deadline, "nobody pulls"
        missing = site.submit(**ON_BOTH, image="localhost:1/nowhere:1", command=["true"])
        view = site.await_state(missing, *ENDED)
        assert "failed" == view["state"]
        assert "nowhere" in view["reason"], view["reason"]


def wait_in_vain(walk: Walk, _session: str) -> None:
    """Another session finds no room, is held, let go, and stopped."""
    site = walk.site
    waiting = site.submit(command=["true"], resources={"cpu": 10, "mem": "256M"})
    await_true("it says why it waits", lambda: bool(site.view(waiting)["reason"]), PATIENCE_S)
    site.do(waiting, "hold")
    site.do(waiting, "release")
    site.stop(waiting)
    assert "cancelled" == site.await_state(waiting, *ENDED)["state"]


def extend(walk: Walk, session: str) -> None:
    """It may run for longer."""
    walk.site.do(session, "extend", {"seconds": 60})


def look_inside(walk: Walk, session: str) -> None:
    """Somebody runs a command in each container, again where the connection breaks."""

    def work() -> bool:
        return walk.site.ground.phalanx("exec", session, "--all", "--", "true").code == 0

    await_true("exec works everywhere", work, PATIENCE_S)


def leave_a_command(walk: Walk, session: str) -> None:
    """An agent dies beside a command, which the next one ends; again until both have tried."""
    site = walk.site
    deadline = time.monotonic() + PATIENCE_S
    while any("docker.end_exec" in left for left in site.left(walk.armed)):
        assert time.monotonic() < deadline, "nobody ends a command"
        for rank in range(2):
            words = ("exec", f"{session}/{rank}", "--", "sh", "-c", "echo on; exec sleep 1234")
            with site.ground.start(*words) as beside:
                assert beside.stdout is not None
                if beside.stdout.readline():
                    for component in ("agent-1", "agent-2"):
                        site.restart(component)
                beside.kill()


def fail_and_be_kept(walk: Walk, _session: str) -> None:
    """The containers of a session that has failed stay for a while."""
    site = walk.site
    kept = site.submit(command=["false"], resources={"cpu": 1}, hold_on_failure_s=1)
    assert "failed" == site.await_state(kept, *ENDED)["state"]


def send_a_signal(walk: Walk, session: str) -> None:
    """A signal goes down to the commands."""
    walk.site.do(session, "signal", {"signal": "USR1"})


def drain(walk: Walk, _session: str) -> None:
    """A host gets no work, and gets work again."""
    walk.site.ask("POST", "/v1/nodes/host1/drain", {"reason": "walk"}).ok()
    walk.site.ask("POST", "/v1/nodes/host1/undrain").ok()


def take_in_and_expel(walk: Walk, _session: str) -> None:
    """An agent joins by a token that is revoked then."""
    token = walk.site.take_in(f"guest{walk.number}")
    walk.site.ask("DELETE", f"/v1/tokens/{token}")


def make_and_remove_a_cluster(walk: Walk, _session: str) -> None:
    """A pool of one agent, which is not waited for at its end."""
    site, name = walk.site, f"pool{walk.number}"
    site.take_in(f"member{walk.number}", name)
    site.ask("DELETE", f"/v1/clusters/{name}?force=true").ok()
    await_true(
        "the cluster is gone",
        lambda: site.ask("GET", f"/v1/clusters/{name}").ok()["state"] == "deleted",
        PATIENCE_S,
    )


def forget(walk: Walk, _session: str) -> None:
    """One that has been away for long is not known any more."""
    site = walk.site
    gone = next(name for name, state in site.nodes().items() if state == "lost")
    site.ask("POST", f"/v1/nodes/{gone}/forget")
    await_true("it is forgotten", lambda: gone not in site.nodes(), PATIENCE_S)


def stop_the_stubborn(walk: Walk, _session: str) -> None:
    """Sessions whose runners do not hear are ended by their engines."""
    site = walk.site
    stubborn = site.submit(**ON_BOTH, command=["sleep", "1000"], resources={"cpu": 1})
    site.await_state(stubborn, "running")
    runners = [
        int(site.ground.docker(host, "inspect", "-f", "{{.State.Pid}}", container).ok())
        for host, container in containers(site.ground, stubborn)
    ]
    for pid in runners:
        os.kill(pid, signal.SIGSTOP)
    site.stop(stubborn)
    assert "cancelled" == site.await_state(stubborn, *ENDED)["state"]


Stimulus = Callable[[Walk, str], None]

AT_THE_START = frozenset(
    ("guard.keep", "docker.user_files", "docker.swarm_canary", "store.prune", "store.link")
)
"""Calls of a daemon's first moments."""

BEFORE: Mapping[str, Stimulus] = {
    "docker.swarm_init": leave_the_swarm,
    "docker.swarm_join": leave_the_swarm,
    "store.tell_founder": leave_the_swarm,
    "docker.pull": ask_for_a_missing_image,
}
MEANWHILE: Mapping[str, Stimulus] = {
    "docker.end_exec": leave_a_command,
    "docker.exec": look_inside,
    "docker.kill": stop_the_stubborn,
    "door.expel": take_in_and_expel,
    "door.open": send_a_signal,
    "store.add_cluster": make_and_remove_a_cluster,
    "store.add_event": take_in_and_expel,
    "store.add_token": take_in_and_expel,
    "store.cluster_left": make_and_remove_a_cluster,
    "store.drain": drain,
    "store.drop_cluster": make_and_remove_a_cluster,
    "store.extend": extend,
    "store.forget": forget,
    "store.hold": wait_in_vain,
    "store.let_go": fail_and_be_kept,
    "store.remove_cluster": make_and_remove_a_cluster,
    "store.revoke_token": take_in_and_expel,
    "store.say": wait_in_vain,
    "store.stop": wait_in_vain,
    "store.use_agent_token": take_in_and_expel,
}
"""What has to be done that a call is made; those that are not here come with every session."""
