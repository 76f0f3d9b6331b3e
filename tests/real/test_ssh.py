"""ssh between containers needs no option, asks nothing, and lets nobody else in."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.real.ground import ACROSS, PROGRAMS, Ground

pytestmark = pytest.mark.real

HOSTS = ("main1", "sub1", "sub2")
VISIT = """
for host in main1 sub1 sub2; do
    ssh $host 'echo "$BACKENDAI_CLUSTER_HOST $RANK of $WORLD_SIZE, $(hostname)"'
done
"""
STORM = """
for one in $(seq 60); do ssh sub1 true || echo failed & done
wait
echo all 60 are back
"""
RAW = "/opt/phalanx/libexec/ssh"
GREETING = "hello  \"there\" 'all' $HOME `id` \\n\nand a second line"


@pytest.fixture(scope="module")
def trio(ground: Ground) -> Iterator[str]:
    """A session of three containers on three hosts."""
    wanted = ("-N", "3", *ACROSS, "-c", "2", "-e", f"GREETING={GREETING}")
    with ground.created(*wanted, "--upload", str(PROGRAMS)) as name:
        yield name


@pytest.mark.parametrize("start", HOSTS)
def test_every_container_reaches_every_other_by_name(clean: Ground, trio: str, start: str) -> None:
    told = clean.inside(f"{trio}/{start}", "sh", "-c", VISIT)

    expected = [f"{host} {rank} of 3, {host}" for rank, host in enumerate(HOSTS)]
    assert expected == told.ok().splitlines()
    assert "" == told.err


def test_a_login_has_the_containers_whole_environment(clean: Ground, trio: str) -> None:
    dump = "import json, os; print(json.dumps(dict(os.environ)))"

    there = clean.inside(f"{trio}/sub2", "python3", "-c", dump).ok()
    by_ssh = clean.inside(f"{trio}/main1", "ssh", "sub2", f'python3 -c "{dump}"').ok()

    of_the_shell = {"SHLVL", "PWD", "OLDPWD", "_", "TERM", "SHELL", "SSH_CONNECTION", "SSH_CLIENT"}
    expected, found = (
        {key: value for key, value in json.loads(text).items() if key not in of_the_shell}
        for text in (there, by_ssh)
    )
    assert expected == found
    assert GREETING == found["GREETING"]


def test_a_remote_command_gives_its_exit_code_and_its_streams(clean: Ground, trio: str) -> None:
    told = clean.inside(f"{trio}/main1", "ssh", "sub1", "echo out; echo err >&2; exit 37")

    assert (37, "out\n", "err\n") == (told.code, told.out, told.err)


def test_a_file_goes_by_scp_and_comes_back(clean: Ground, trio: str) -> None:
    round_trip = (
        "head -c 3000000 /dev/urandom >/tmp/one && scp -q /tmp/one sub1:/tmp/two && "
        "scp -q sub1:/tmp/two /tmp/three && cmp /tmp/one /tmp/three && rm /tmp/one /tmp/three"
    )

    told = clean.inside(f"{trio}/main1", "sh", "-c", round_trip)

    assert (0, "") == (told.code, told.err)


def test_sixty_logins_at_once_all_succeed(clean: Ground, trio: str) -> None:
    told = clean.inside(f"{trio}/main1", "sh", "-c", STORM, timeout=120)

    assert "all 60 are back\n" == told.ok()


def test_a_host_that_shows_another_key_than_its_own_is_refused(clean: Ground, trio: str) -> None:
    told = clean.inside(f"{trio}/main1", "ssh", "-o", "HostKeyAlias=sub1", "sub2", "true")

    assert "Host key verification failed" in told.failed(255)


def test_a_key_of_another_session_does_not_log_in(clean: Ground, trio: str) -> None:
    with clean.created() as other:
        key = clean.inside(f"{other}/main1", "cat", "/run/phalanx/ssh/id_ed25519").ok()
    place = f"{trio}/main1"
    clean.inside(
        place, "sh", "-c", f"umask 077; printf %s '{key}' >/tmp/stolen; echo >>/tmp/stolen"
    ).ok()
    login = (
        RAW, "-F", "none", "-i", "/tmp/stolen", "-o", "IdentitiesOnly=yes", "-o", "BatchMode=yes",
        "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "-p", "2200",
    )  # fmt: skip
    user = clean.inside(place, "id", "-un").ok().strip()

    stolen = clean.inside(place, *login, f"{user}@sub1", "true")
    own = clean.inside(
        place, *(word.replace("/tmp/stolen", "/run/phalanx/ssh/id_ed25519") for word in login),
        f"{user}@sub1", "true",
    )  # fmt: skip

    assert "Permission denied" in stolen.failed(255)
    assert 0 == own.code, own.err


def test_another_sessions_container_cannot_even_connect(clean: Ground, trio: str) -> None:
    addresses = [
        kernel["address"] for kernel in clean.http("GET", f"/v1/sessions/{trio}").ok()["kernels"]
    ]
    targets = [f"say:{address}:2200" for address in addresses]
    upload = ("--upload", str(PROGRAMS))

    own = clean.inside(f"{trio}/main1", "python3", "probe.py", *targets).ok()
    with clean.created("-N", "2", *ACROSS, *upload) as other:
        strangers = clean.inside(f"{other}/main1", "python3", "probe.py", *targets).ok()

    assert targets == own.split()
    assert "" == strangers


@pytest.mark.parametrize("uid", ["1000", "12345:12345"])
def test_it_works_for_any_user_that_the_image_has_never_heard_of(clean: Ground, uid: str) -> None:
    visit = "for host in main1 sub1; do ssh $host 'id -u; touch \"$HOME/mine\" && echo wrote'; done"

    told = clean.run(
        "-q", "-N", "2", "-u", uid, "--run-on", "main", "--no-prefix", "--", "sh", "-c", visit
    )

    number = uid.partition(":")[0]
    assert [number, "wrote"] * 2 == told.ok().splitlines()
    assert "" == told.err


def test_an_image_without_a_shell_of_its_own_is_reached_too(clean: Ground, script: Path) -> None:
    empty = clean.lab.load("empty")
    roles = script / "session.yaml"
    roles.write_text(
        f"kind: interactive\nroles:\n  - {{name: main}}\n  - {{name: bare, image: {empty}}}\n"
    )

    with clean.created("-f", str(roles)) as name:
        told = clean.inside(f"{name}/main1", "ssh", "bare1", "/hold --show hello")

    assert "hello" == told.ok().splitlines()[0]
