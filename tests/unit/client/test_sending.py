"""Folders that are sent along: sealed for the hosts of the session's cluster alone."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from phalanx_client import connection
from phalanx_client.failure import Failure, Refused
from phalanx_wire import seal, sealed
from phalanx_wire.api import DryRun, NodeList, UploadCreated
from phalanx_wire.spec import SessionSpec
from tests.unit.client.conftest import Cli
from tests.unit.client.fake_manager import TOKEN, FakeManager, fails, session
from tests.unit.client.test_queue_and_nodes import node

SPEC = SessionSpec(image="alpine", command=("id",))
SECRETS = [bytes([n]) * 32 for n in (1, 2, 3)]
KEYS = [
    sealed.key_text(X25519PrivateKey.from_private_bytes(secret).public_key().public_bytes_raw())
    for secret in SECRETS
]
HOSTS = (
    node(name="a", public_key=KEYS[0], state="lost"),
    node(name="b", public_key=KEYS[1], cluster="lab"),
    node(name="c", public_key=KEYS[2], state="drained"),
)
LATE = ("upload_not_sealed_for_all", "the upload is not sealed for c of cluster default")


@pytest.fixture
def folder(tmp_path: Path) -> str:
    """A folder with one file."""
    (tmp_path / "sent").mkdir()
    (tmp_path / "sent" / "train.py").write_text("the secret recipe")
    return str(tmp_path / "sent")


def prepare(manager: FakeManager, hosts: tuple[object, ...] = HOSTS) -> None:
    """Prepare a manager that takes everything."""
    manager.on("GET", "/v1/nodes", NodeList(hosts))  # type: ignore[arg-type]
    manager.on("PUT", "/v1/uploads", UploadCreated("sha256:one", 1), UploadCreated("sha256:two", 1))
    manager.on("POST", "/v1/sessions", session())


def uploads(manager: FakeManager) -> list[bytes]:
    return [one.body for one in manager.asked("PUT", "/v1/uploads")]


def asked(manager: FakeManager) -> list[str | None]:
    """The uploads that sessions have named."""
    heard = manager.asked("POST", "/v1/sessions")
    return [msgspec.json.decode(one.body, type=SessionSpec).upload for one in heard]


def names(tar: bytes) -> list[str]:
    with tarfile.open(fileobj=io.BytesIO(tar)) as archive:
        return archive.getnames()


def test_a_folder_is_sealed_for_all_hosts_of_the_sessions_cluster_and_no_other(
    manager: FakeManager, folder: str
) -> None:
    prepare(manager)

    with connection.connect_blocking(manager.url, TOKEN) as client:
        client.run(SPEC, upload=folder)

    (sent,) = uploads(manager)
    assert {KEYS[0], KEYS[2]} == sealed.read_header(io.BytesIO(sent)).recipients
    assert b"secret" not in sent
    for secret in (SECRETS[0], SECRETS[2]):
        with seal.opened(io.BytesIO(sent), secret) as opened:
            assert ["train.py"] == names(opened.read())
    assert ["sha256:one"] == asked(manager)


async def test_a_folder_is_sent_as_it_is_where_its_user_says_so(
    manager: FakeManager, folder: str
) -> None:
    prepare(manager)

    async with connection.connect(manager.url, TOKEN) as client:
        await client.run(SPEC, upload=folder, seal=False)

    assert ["train.py"] == names(uploads(manager)[0])
    assert [] == manager.asked("GET", "/v1/nodes")


@pytest.mark.parametrize(("said", "is_sealed"), [("no", False), ("0", False), ("", True)])
def test_the_environment_says_it_for_all_programs(
    cli: Cli, manager: FakeManager, folder: str, monkeypatch: pytest.MonkeyPatch, said: str,
    *, is_sealed: bool,
) -> None:  # fmt: skip
    prepare(manager)
    monkeypatch.setenv("PHALANX_SEAL", said)

    assert 0 == cli("run", "--detach", "-i", "x", "--upload", folder, "true").code

    assert is_sealed == sealed.is_sealed(uploads(manager)[0])


def test_a_host_that_joins_meanwhile_has_it_sealed_anew_once(
    manager: FakeManager, folder: str
) -> None:
    prepare(manager)
    manager.on("GET", "/v1/nodes", NodeList(HOSTS[:1]), NodeList(HOSTS))
    manager.on("POST", "/v1/sessions", fails(409, *LATE), session())

    with connection.connect_blocking(manager.url, TOKEN) as client:
        client.run(SPEC, upload=folder)

    found = [sealed.read_header(io.BytesIO(sent)).recipients for sent in uploads(manager)]
    assert [{KEYS[0]}, {KEYS[0], KEYS[2]}] == found
    assert ["sha256:one", "sha256:two"] == asked(manager)


@pytest.mark.parametrize("code", [LATE[0], "upload_unknown"])
def test_what_sealing_anew_does_not_help_is_refused(
    manager: FakeManager, folder: str, code: str
) -> None:
    prepare(manager)
    manager.on("POST", "/v1/sessions", fails(409, code, "no"))

    with (
        connection.connect_blocking(manager.url, TOKEN) as client,
        pytest.raises(Refused) as refused,
    ):
        client.run(SPEC, upload=folder)

    assert code == refused.value.problem.code
    assert (2 if code == LATE[0] else 1) == len(uploads(manager))


def test_a_cluster_without_a_host_has_two_ways_out(
    cli: Cli, manager: FakeManager, folder: str
) -> None:
    prepare(manager, HOSTS[1:2])
    manager.on("POST", "/v1/sessions", DryRun(SPEC, None, "no host"), session())

    outcome = cli("run", "--detach", "-i", "x", "--upload", folder, "true")

    assert 75 == outcome.code
    assert "cluster default has none yet" in outcome.err
    assert "phalanx cluster create --wait" in outcome.err
    assert "--no-seal" in outcome.err
    assert [] == uploads(manager)
    assert 0 == cli("run", "--detach", "-i", "x", "--upload", folder, "--no-seal", "true").code


@pytest.mark.parametrize("key", ["", "0" * 40, "no key at all"])
def test_a_key_that_is_none_is_a_reason(manager: FakeManager, folder: str, key: str) -> None:
    prepare(manager, (node(public_key=key),))

    with (
        connection.connect_blocking(manager.url, TOKEN) as client,
        pytest.raises(Failure, match="key"),
    ):
        client.run(SPEC, upload=folder)

    assert [] == uploads(manager)


def test_more_hosts_than_can_be_sealed_for_are_a_reason(
    manager: FakeManager, folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sealed, "MAX_RECIPIENTS", 1)
    prepare(manager)

    with (
        connection.connect_blocking(manager.url, TOKEN) as client,
        pytest.raises(Failure, match="for 1 hosts at most, and cluster default has 2"),
    ):
        client.run(SPEC, upload=folder)
