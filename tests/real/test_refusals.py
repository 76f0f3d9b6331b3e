"""Every wrong request is answered with its stable code and leaves nothing behind."""

from __future__ import annotations

import io
import json
import socket
import tarfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.real.ground import BASE, Ground, assert_same_traces, settled_traces

pytestmark = pytest.mark.real

GOOD: dict[str, Any] = {"image": BASE, "command": ["true"], "resources": {"mem": "64M"}}
SESSIONS = "/v1/sessions"


@dataclass(frozen=True)
class Bad:
    """A wrong request and its answer."""

    what: str
    body: Any
    status: int
    code: str
    where: str | None = None
    method: str = "POST"
    path: str = SESSIONS
    headers: Mapping[str, str] = field(default_factory=dict)


def spec(**changes: Any) -> dict[str, Any]:
    """A right request with something wrong in it."""
    return {**GOOD, **changes}


def bad(what: str, status: int, code: str, where: str | None = None, **changes: Any) -> Bad:
    """A request for a session that is refused."""
    return Bad(what, spec(**changes), status, code, where)


def roles(*names: str, **more: Any) -> list[dict[str, Any]]:
    """Roles of one replica, the last with more fields."""
    return [{"name": name} for name in names[:-1]] + [{"name": names[-1], **more}]


def raw(text: str | bytes, status: int, code: str, what: str, **headers: str) -> Bad:
    """A body as it stands."""
    body = text if isinstance(text, bytes) else text.encode()
    return Bad(what, body, status, code, headers=headers)


def mount(source: str, target: str) -> list[dict[str, str]]:
    return [{"source": source, "target": target}]


SHAPES = [
    raw(b"", 400, "body_required", "an empty body"),
    raw("{", 400, "invalid_json", "half a document"),
    raw('{"size": NaN}', 400, "invalid_json", "a number that JSON does not have"),
    raw('{"size": 1, "size": 2}', 400, "duplicate_key", "a key twice"),
    raw("[]", 400, "object_expected", "a list"),
    raw("null", 400, "object_expected", "null"),
    raw(b'{"name": "\xff"}', 400, "invalid_json", "what is not UTF-8"),
    raw('{"name": "\\ud800"}', 400, "invalid_json", "half a character"),
    raw("[" * 100_000, 400, "too_deep", "brackets without end"),
    raw(b" " * ((1 << 20) + 1), 413, "body_too_large", "a body over the limit"),
    Bad("text", b"hello", 415, "unsupported_media_type", headers={"Content-Type": "text/plain"}),
    bad("an unknown field", 400, "unknown_field", imagee="x"),
    bad("an unknown field below", 400, "unknown_field", resources={"ram": 1}),
    bad("a text for a number", 400, "invalid_field", "size", size="4"),
    bad("a fraction for a number", 400, "invalid_field", "size", size=1.5),
    bad("true for a number", 400, "invalid_field", "size", size=True),
    bad("a line for a command", 400, "invalid_field", "command", command="rm -rf $(pwd)"),
    bad("a number in a command", 400, "invalid_field", "command[1]", command=["sleep", 1]),
    bad("a number for a variable", 400, "invalid_field", env={"A": 1}),
    bad("a mode of its own", 400, "invalid_field", "mode", mode="cloud"),
    bad("null for an image's list", 400, "invalid_field", "roles[0].replicas",
        roles=[{"name": "main", "replicas": None}]),
]  # fmt: skip
SIZES = [
    bad("no container", 400, "size", "size", size=0),
    bad("ten thousand and one", 400, "size", "size", size=10_001),
    bad("ten thousand, which nobody can hold", 422, "never_satisfiable", size=10_000),
    bad("less than none", 400, "size", "size", size=-1),
    bad("beyond all numbers", 400, "size", "size", size=2**63),
    bad("another size than the roles", 400, "size", "size", size=3, roles=roles("main", "sub")),
    bad("a role twice", 400, "role_duplicate", "roles[2].name", roles=roles("main", "a", "a")),
    bad("no main", 400, "role_main", roles=roles("worker")),
    bad("two mains", 400, "role_main", roles=[{"name": "main", "replicas": 2}]),
    bad("a role called a,b", 400, "role_name", "roles[1].name", roles=roles("main", "a,b")),
    bad("a role that ends in a digit", 400, "role_name", roles=roles("main", "sub1")),
    bad("a role of none", 400, "replicas", roles=roles("main", "sub", replicas=0)),
]
NAMES = [
    bad("an empty name", 400, "name", "name", name=""),
    bad("a name of 65 letters", 400, "name", "name", name="a" * 65),
    bad("a name with a line end", 400, "name", "name", name="a\nb"),
    bad("a name that reads backwards", 400, "name", "name", name="\u202eab"),
    bad("a name with a path in it", 400, "name", "name", name="../../etc"),
    bad("a cluster that is not there", 422, "cluster_unknown", "cluster", cluster="nowhere"),
    bad("a cluster that cannot be", 400, "cluster", "cluster", cluster="A b"),
    bad("an image with a blank", 400, "image", "image", image="a b"),
    bad("an image in capitals", 400, "image", "image", image="UPPER"),
    bad("an image by URL", 400, "image", "image", image="http://example.com/x"),
    bad("an image and a command", 400, "image", "image", image="x;rm"),
    Bad("no image", {"command": ["true"]}, 400, "image_required", "image"),
    bad("a user of -1", 400, "user", "user", user="-1"),
    bad("a user beyond all numbers", 400, "user", "user", user=str(2**32)),
    bad("a folder above", 400, "workdir", "workdir", workdir="/a/../../b"),
    bad("a relative folder", 400, "workdir", "workdir", workdir="tmp"),
]
VALUES = [
    bad("a variable of ours", 403, "reserved_env", env={"PHALANX_SESSION_ID": "x"}),
    bad("another variable of ours", 403, "reserved_env", env={"BACKENDAI_CLUSTER_SIZE": "9"}),
    bad("a variable with = in it", 400, "env_key", env={"A=B": "x"}),
    bad("a variable with - in it", 400, "env_key", env={"A-B": "x"}),
    bad("a variable whose name has NUL in it", 400, "env_key", env={"A\0": "x"}),
    bad("a variable with NUL in it", 400, "env_value", env={"A": "x\0y"}),
    bad("a huge variable", 400, "env_value", env={"A": "x" * 129_000}),
    bad("ten thousand variables", 400, "env", env={f"V{i}": "" for i in range(10_000)}),
    bad("an empty first word", 400, "command", "command[0]", command=[""]),
    bad("a word with NUL in it", 400, "command", "command[1]", command=["echo", "\0"]),
    bad("five thousand words", 400, "command", "command", command=["x"] * 5_000),
    bad("a mount of /..", 400, "mount_path", mounts=mount("/data/../etc", "/x")),
    bad("a relative mount", 400, "mount_path", mounts=mount("data", "/x")),
    bad("a mount over our files", 403, "mount_not_allowed", mounts=mount("/x", "/run/phalanx")),
    bad("a mount over everything", 403, "mount_not_allowed", mounts=mount("/x", "/")),
    bad("two mounts in one place", 400, "mount_duplicate", mounts=mount("/x", "/y") * 2),
    bad("memory in nonsense", 400, "mem", resources={"mem": "4 parsecs"}),
    bad("memory of 3 bytes", 400, "mem", resources={"mem": 3}),
    bad("no cpu", 400, "cpu", resources={"cpu": 0}),
    bad("less than no cpu", 400, "cpu", resources={"cpu": -1}),
    bad("more shared memory than memory", 400, "shm", resources={"mem": "64M", "shm": "65M"}),
    bad("half a device", 400, "gpu", resources={"gpu": "0.5"}),
    bad("a device that nobody has", 422, "never_satisfiable", resources={"gpu": "h900:1"}),
    bad("more memory than any host has", 422, "never_satisfiable", resources={"mem": "900G"}),
    bad("one process", 400, "pids", resources={"pids": 1}),
    bad("port 22", 400, "master_port", "master_port", master_port=22),
    bad("port 65536", 400, "master_port", "master_port", master_port=65_536),
    bad("no time at all", 400, "time_limit", time_limit_s=0),
    bad("a grace in the past", 400, "grace", grace_s=-1),
    bad("a priority above all", 400, "priority", priority=10**6),
    bad("the host's network, kept in", 400, "egress", "egress", network="host", egress=False),
    bad("an upload by path", 400, "upload", "upload", upload="../../etc/passwd"),
    bad("an upload that never came", 422, "upload_unknown", "upload", upload=f"sha256:{'0' * 64}"),
    bad("a command to idle", 400, "interactive_command", kind="interactive"),
]
PLACES = [
    Bad("an unknown path", None, 404, "no_such_path", method="GET", path="/v1/nothing"),
    Bad("a wrong method", {}, 405, "method_not_allowed", method="DELETE", path="/v1/nodes"),
    Bad("an unknown session", None, 404, "not_found", method="GET", path=f"{SESSIONS}/nobody"),
    Bad("a path for a session", None, 404, "not_found", method="GET",
        path=f"{SESSIONS}/..%2f..%2fetc"),
    Bad("NUL for a session", None, 404, "not_found", method="GET", path=f"{SESSIONS}/%00"),
    Bad("a stop of nobody", {}, 404, "not_found", path=f"{SESSIONS}/nobody/stop"),
    Bad("a list of none", None, 400, "invalid_parameter", method="GET", path=f"{SESSIONS}?limit=0"),
    Bad("a state with SQL", None, 400, "invalid_parameter", method="GET",
        path=f"{SESSIONS}?state=running%27%3B%20drop%20table"),
    Bad("an empty key", GOOD, 400, "bad_idempotency_key", headers={"Idempotency-Key": ""}),
    Bad("a key of 300", GOOD, 400, "bad_idempotency_key", headers={"Idempotency-Key": "k" * 300}),
    Bad("an unknown scope", {"name": "x", "scope": "root"}, 400, "invalid_field",
        path="/v1/tokens"),
    Bad("a token for the past", {"name": "x", "ttl_s": -1}, 400, "invalid_field",
        path="/v1/tokens"),
    Bad("an agent with a path for a name", {"name": "../x"}, 400, "invalid_field",
        path="/v1/agent-tokens"),
]  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def nothing_stays(ground: Ground) -> Iterator[None]:
    """After all refusals together no session may be there, and nothing may be left behind."""
    sessions, before = ground.sessions(), settled_traces(ground)
    yield
    assert sessions == ground.sessions()
    assert_same_traces(before, ground)


@pytest.mark.parametrize(
    "request_", [*SHAPES, *SIZES, *NAMES, *VALUES, *PLACES], ids=lambda one: one.what
)
def test_a_wrong_request_is_refused_with_its_code(ground: Ground, request_: Bad) -> None:
    answer = ground.http(request_.method, request_.path, request_.body, headers=request_.headers)
    problem = answer.json()

    assert (request_.status, request_.code) == (answer.status, problem["code"]), problem
    assert answer.kind.startswith("application/problem+json")
    assert request_.status == problem["status"]
    assert 0 < len(problem["title"]) < 600
    assert problem["title"].isprintable()
    if request_.where is not None:
        assert request_.where == problem.get("field")


@pytest.mark.parametrize("token", ["", "nonsense", "phx_" + "A" * 43, "phxjoin1.AAAA", "\xe4"])
def test_nobody_without_a_good_token_learns_anything(ground: Ground, token: str) -> None:
    answers = [
        ground.http("GET", path, token=token).body
        for path in (SESSIONS, "/v1/nodes", f"{SESSIONS}/nobody", "/v1/nothing-at-all")
    ]
    statuses = [json.loads(body)["status"] for body in answers]
    codes = {json.loads(body)["code"] for body in answers[:3]}

    assert [401] * 3 == statuses[:3]
    assert {"unauthorized"} == codes


def test_a_reader_may_look_but_not_touch(ground: Ground) -> None:
    made = ground.http("POST", "/v1/tokens", {"name": "eyes", "scope": "read-only"}).ok()
    token = made["token"]

    looks = ground.http("GET", SESSIONS, token=token)
    touches = ground.http("POST", SESSIONS, GOOD, token=token)
    grants = ground.http("POST", "/v1/tokens", {"name": "more", "scope": "admin"}, token=token)
    ground.http("DELETE", f"/v1/tokens/{made['id']}")
    after = ground.http("GET", SESSIONS, token=token)

    assert [200, 403, 403, 401] == [one.status for one in (looks, touches, grants, after)]


def test_another_users_session_is_not_there(clean: Ground) -> None:
    tokens = [
        clean.http("POST", "/v1/tokens", {"name": name, "scope": "user"}).ok()
        for name in ("ann", "ben")
    ]
    ann, ben = (token["token"] for token in tokens)
    session = clean.http("POST", SESSIONS, GOOD, token=ann).ok()["id"]

    answers = [
        clean.http(method, f"{SESSIONS}/{session}{rest}", body, token=ben)
        for method, rest, body in (
            ("GET", "", None), ("GET", "/env", None), ("GET", "/logs", None), ("POST", "/stop", {}),
        )
    ]  # fmt: skip
    own = clean.http("GET", f"{SESSIONS}/{session}", token=ann)
    listed = clean.http("GET", f"{SESSIONS}?all=1", token=ben).ok()["sessions"]
    clean.await_state(session, "succeeded")
    for token in tokens:
        clean.http("DELETE", f"/v1/tokens/{token['id']}")

    assert [404] * 4 == [answer.status for answer in answers]
    assert 200 == own.status
    assert [] == listed


def test_the_same_key_with_another_body_is_refused_and_with_the_same_is_the_same(
    clean: Ground,
) -> None:
    key = {"Idempotency-Key": "once-and-only-once"}

    first = clean.http("POST", SESSIONS, GOOD, headers=key)
    again = clean.http("POST", SESSIONS, GOOD, headers=key)
    other = clean.http("POST", SESSIONS, spec(command=["false"]), headers=key)
    clean.await_state(first.json()["id"], "succeeded")

    assert [201, 200, 409] == [one.status for one in (first, again, other)]
    assert first.json()["id"] == again.json()["id"]
    assert "idempotency_mismatch" == other.json()["code"]


def test_a_live_name_is_not_given_twice(clean: Ground) -> None:
    with clean.created() as name:
        again = clean.http("POST", SESSIONS, spec(name=name))
        said = clean.run("-J", name, "--", "true").failed(65)
    later = clean.http("POST", SESSIONS, spec(name=name))
    clean.await_state(later.json()["id"], "succeeded")

    assert (409, "name_taken") == (again.status, again.json()["code"])
    assert name in said


# ---------------------------------------------------------------- uploads


def member(name: str, kind: bytes = tarfile.REGTYPE, link: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, link
    return info


def archive(*members: tarfile.TarInfo) -> bytes:
    """A tar archive of empty things."""
    with io.BytesIO() as buffer:
        with tarfile.open(fileobj=buffer, mode="w") as tar:
            for one in members:
                tar.addfile(one)
        return buffer.getvalue()


ARCHIVES: dict[str, Callable[[], bytes]] = {
    "a name above": lambda: archive(member("../escape")),
    "a name deep above": lambda: archive(member("a/../../escape")),
    "an absolute name": lambda: archive(member("/etc/passwd")),
    "a device": lambda: archive(member("disk", tarfile.BLKTYPE)),
    "a pipe": lambda: archive(member("pipe", tarfile.FIFOTYPE)),
    "a link out": lambda: archive(member("way", tarfile.SYMTYPE, "../../etc")),
    "an absolute link": lambda: archive(member("way", tarfile.SYMTYPE, "/etc")),
    "a hard link out": lambda: archive(member("way", tarfile.LNKTYPE, "../../etc/shadow")),
    "a way through a link": lambda: archive(
        member("way", tarfile.SYMTYPE, "."), member("way/../../x")
    ),
    "no archive": lambda: b"hello" * 500,
    "half an archive": lambda: archive(member("a"))[:700],
}


@pytest.mark.parametrize("what", ARCHIVES)
def test_an_archive_that_reaches_out_is_refused(ground: Ground, what: str) -> None:
    headers = {"Content-Type": "application/x-tar"}

    answer = ground.http("PUT", "/v1/uploads", ARCHIVES[what](), headers=headers)

    assert (400, "unsafe_archive") == (answer.status, answer.json()["code"])


# ---------------------------------------------------------------- below HTTP, and by hand


@pytest.mark.parametrize(
    "head",
    [
        b"NONSENSE\r\n\r\n",
        b"GET /v1/sessions HTTP/1.1\r\nHost: x\r\nX: " + b"y" * (64 << 10) + b"\r\n\r\n",
        (
            b"POST /v1/sessions HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n"
            b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
        ),
    ],
    ids=["no request", "a header without end", "two lengths"],
)
def test_what_is_hardly_http_is_answered_with_400_or_cut(ground: Ground, head: bytes) -> None:
    place = urlsplit(ground.lab.url)
    with socket.create_connection((place.hostname, place.port), 20) as line:
        line.sendall(head)
        try:
            said = line.recv(65536)
        except ConnectionResetError:
            said = b""

    assert said == b"" or said.split()[1].startswith(b"4"), said
    assert 200 == ground.http("GET", "/healthz", token="").status


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("run", "--no-such-option"), 64),
        (("run", "-N"), 64),
        (("run", "-N", "many", "-i", BASE, "--", "true"), 64),
        (("no-such-verb",), 64),
        (("run", "-i", BASE, "-N", "0", "--", "true"), 65),
        (("run", "-i", BASE, "-e", "PHALANX_X=1", "--", "true"), 77),
        (("run", "-i", "a b", "--", "true"), 65),
        (("run", "-i", BASE, "-v", "relative:/x", "--", "true"), 65),
        (("run", "-f", "/nonexistent.yaml"), 66),
        (("run", "-i", BASE, "--upload", "/nonexistent", "--", "true"), 66),
        (("show", "nobody"), 66),
        (("logs", "nobody"), 66),
        (("exec", "nobody/0", "--", "true"), 66),
        (("stop", "nobody"), 66),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else str(value),
)
def test_the_command_line_says_what_is_wrong_in_a_sentence(
    ground: Ground, arguments: tuple[str, ...], code: int
) -> None:
    told = ground.phalanx(*arguments)

    told.failed(code)
    assert "" == told.out
    assert 0 < len(told.err.strip()) < 1500


def test_an_unknown_image_fails_the_session_and_is_named(clean: Ground) -> None:
    told = clean.run(
        "-N", "2", "-i", "127.0.0.1:1/nobody/has:this", "-J", "odd", "--", "echo", "ran"
    )

    assert 0 != told.code
    assert "" == told.out
    assert "127.0.0.1:1/nobody/has:this" in told.err
    assert "failed" == clean.show("odd")["state"]
