"""What people and programs send by mistake or on purpose, and the one right answer to each."""

from __future__ import annotations

import asyncio
import gzip
import hmac
from collections.abc import AsyncIterator

import pytest

from phalanx_manager.http import auth, bodies
from phalanx_manager.http.routes import ROUTES
from tests.support.manager_api import PATIENCE_S, SPEC, Scene, problem

JSON = "application/json"


def _spec(**fields: object) -> dict[str, object]:
    return SPEC | fields


BODIES: dict[str, tuple[bytes, int, str]] = {
    "empty": (b"", 400, "body_required"),
    "blank": (b"  \n", 400, "body_required"),
    "not JSON": (b"{", 400, "invalid_json"),
    "two values": (b"{} {}", 400, "invalid_json"),
    "NaN": (b'{"resources": {"cpu": NaN}}', 400, "invalid_json"),
    "Infinity": (b'{"grace_s": Infinity}', 400, "invalid_json"),
    "a number out of range": (b'{"grace_s": 1e999}', 400, "invalid_field"),
    "a number of 5000 digits": (b'{"size": ' + b"9" * 5000 + b"}", 400, "invalid_json"),
    "a doubled key": (b'{"size": 1, "size": 2}', 400, "duplicate_key"),
    "a doubled key inside": (b'{"env": {"A": "1", "A": "2"}}', 400, "duplicate_key"),
    "a list": (b"[]", 400, "object_expected"),
    "a text": (b'"x"', 400, "object_expected"),
    "null": (b"null", 400, "object_expected"),
    "10000 deep": (b'{"env": ' + b"[" * 10_000 + b"]" * 10_000 + b"}", 400, "too_deep"),
    "10000 deep, not closed": (b"[" * 10_000, 400, "too_deep"),
    "too large": (b'{"image": "' + b"x" * (1 << 20) + b'"}', 413, "body_too_large"),
    "not UTF-8": (b'{"image": "\xff"}', 400, "invalid_json"),
    "half of a surrogate pair": (b'{"image": "\\ud800"}', 400, "invalid_json"),
    "a raw control character": (b'{"image": "a\nb"}', 400, "invalid_json"),
}


@pytest.mark.parametrize("kind", BODIES)
async def test_a_body_that_is_no_json_object_is_refused(api: Scene, kind: str) -> None:
    body, status, code = BODIES[kind]
    response = await api.post("/v1/sessions", body)
    assert (status, code) == (response.status, (await problem(response)).code)


SPECS: dict[str, tuple[dict[str, object], str]] = {
    "unknown field": (_spec(imgae="x"), "imgae"),
    "unknown field inside": (_spec(resources={"cpus": 1}), "resources.cpus"),
    "privileged": (_spec(privileged=True), "privileged"),
    "size 0": (_spec(size=0), "size"),
    "size -1": (_spec(size=-1), "size"),
    "size 1.5": (_spec(size=1.5), "size"),
    "size a text": (_spec(size="4"), "size"),
    "size true": (_spec(size=True), "size"),
    "size 1e9": (_spec(size=10**9), "size"),
    "size 2**63": (_spec(size=2**63), "size"),
    "name empty": (_spec(name=""), "name"),
    "name of 64": (_spec(name="a" * 64), "name"),
    "name with a slash": (_spec(name="a/b"), "name"),
    "name of dots": (_spec(name=".."), "name"),
    "name with NUL": (_spec(name="a\0b"), "name"),
    "name with a line feed": (_spec(name="a\nb"), "name"),
    "name in capitals": (_spec(name="A"), "name"),
    "name with a leading hyphen": (_spec(name="-a"), "name"),
    "name that turns right to left": (_spec(name="a\u202eb"), "name"),
    "name with a leading dot": (_spec(name=".a"), "name"),
    "name with a blank": (_spec(name="a b"), "name"),
    "name in pictures": (_spec(name="\N{OTTER}"), "name"),
    "another host name": (_spec(hostname="main1"), "hostname"),
    "an alias": (_spec(aliases=["sub1"]), "aliases"),
    "labels of ours": (_spec(labels={"io.phalanx.session": "x"}), "labels"),
    "capabilities": (_spec(cap_add=["SYS_ADMIN"]), "cap_add"),
    "devices": (_spec(devices=["/dev/kmsg"]), "devices"),
    "the host's processes": (_spec(pid="host"), "pid"),
    "a start in the past": (_spec(begin="1970-01-01T00:00:00Z"), "begin"),
    "mode unknown": (_spec(mode="many"), "mode"),
    "command a text": (_spec(command="rm -rf /"), "command"),
    "command with NUL": (_spec(command=["a\0"]), "command[0]"),
    "image empty": (_spec(image=""), "image"),
    "image with a blank": (_spec(image="a b"), "image"),
    "role main twice": (_spec(size=None, roles=[{"name": "main", "replicas": 2}]), "roles"),
    "role in capitals": (_spec(size=None, roles=[{"name": "Main"}]), "roles"),
    "replicas a text": (
        _spec(size=None, roles=[{"name": "main"}, {"name": "sub", "replicas": "2"}]),
        "roles[1].replicas",
    ),
    "cpu 0": (_spec(resources={"cpu": 0}), "resources.cpu"),
    "mem in nonsense": (_spec(resources={"mem": "4 apples"}), "resources.mem"),
    "mem too little": (_spec(resources={"mem": 3}), "resources.mem"),
    "gpu negative": (_spec(resources={"gpu": -1}), "resources.gpu"),
    "shm over mem": (_spec(resources={"mem": "1G", "shm": "2G"}), "resources.shm"),
    "env key": (_spec(env={"A=B": "1"}), "env"),
    "env value": (_spec(env={"A": 1}), "env"),
    "env of ours": (_spec(env={"PHALANX_ATTEMPT": "1"}), "env"),
    "workdir relative": (_spec(workdir="here"), "workdir"),
    "mount relative": (_spec(mounts=[{"source": "data", "target": "/d"}]), "mounts"),
    "port 0": (_spec(master_port=0), "master_port"),
    "port -1": (_spec(master_port=-1), "master_port"),
    "port 22": (_spec(master_port=22), "master_port"),
    "port 70000": (_spec(master_port=70_000), "master_port"),
    "port with a command": (_spec(master_port="80; x"), "master_port"),
    "time limit": (_spec(time_limit_s=-1), "time_limit_s"),
    "a time limit in words": (_spec(time_limit_s="forever"), "time_limit_s"),
    "priority": (_spec(priority=10**9), "priority"),
    "to wait for itself": (_spec(name="me", after="afterok:me"), "after"),
    "upload": (_spec(upload="sha256:" + "0" * 64), "upload"),
}


@pytest.mark.parametrize("kind", SPECS)
async def test_a_wrong_spec_is_refused_with_the_path_of_the_mistake(api: Scene, kind: str) -> None:
    spec, field = SPECS[kind]
    response = await api.post("/v1/sessions", spec)
    found = await problem(response)
    assert 400 <= response.status < 500
    assert found.field.startswith(field), found
    assert not any(ord(character) < 32 or character == "\u202e" for character in found.title)
    assert [] == api.changed


async def test_a_misspelled_field_is_answered_with_the_right_one(api: Scene) -> None:
    found = await problem(await api.post("/v1/sessions", _spec(imgae="x")))
    assert ("unknown_field", "did you mean image?") == (found.code, found.hint)


async def test_what_no_agent_could_ever_hold_is_refused_with_numbers(api: Scene) -> None:
    response = await api.post("/v1/sessions", _spec(resources={"cpu": 100}))
    assert (422, "never_satisfiable") == (response.status, (await problem(response)).code)


QUERIES = [
    ("/v1/sessions?limit=0", "limit"),
    ("/v1/sessions?limit=1000000000", "limit"),
    ("/v1/sessions?limit=ten", "limit"),
    ("/v1/sessions?limit=1&limit=2", "limit"),
    ("/v1/sessions?offset=-1", "offset"),
    ("/v1/sessions?state=Running%27;%20drop%20table", "state"),
    ("/v1/sessions?all=yes", "all"),
    ("/v1/sessions/demo/wait?until=paused", "until"),
    ("/v1/sessions/demo/wait?timeout_s=-1", "timeout_s"),
    ("/v1/sessions/demo/wait?timeout_s=nan", "timeout_s"),
    ("/v1/sessions/demo/wait?timeout_s=1e9", "timeout_s"),
    ("/v1/sessions/demo/logs?tail=-1", "tail"),
    ("/v1/sessions/demo/logs?since=abc", "since"),
    ("/v1/sessions/demo/logs?since=5y", "since"),
    ("/v1/sessions/demo/logs?rank=1-", "rank"),
    ("/v1/sessions/demo/logs?rank=a", "rank"),
    ("/v1/sessions/demo/logs?rank=" + "1," * 3000 + "1", "rank"),
    ("/v1/sessions/demo/logs?follow=2", "follow"),
    ("/v1/sessions/demo/events?after=x", "after"),
    ("/v1/sessions/demo/archive", "path"),
    ("/v1/sessions/demo/archive?path=etc", "path"),
    ("/v1/sessions/demo/archive?path=/a%00b", "path"),
    ("/v1/sessions/demo/archive?path=/etc&rank=-1", "rank"),
    ("/v1/sessions/demo/exec?command=ls", "command"),
    ("/v1/sessions/demo/exec?command=[]", "command"),
    ('/v1/sessions/demo/exec?command=[""]', "command"),
    ('/v1/sessions/demo/exec?command=["a%5Cu0000"]', "command"),
    ('/v1/sessions/demo/exec?command=["%5Cud800"]', "command"),
    ("/v1/sessions/demo/exec?command=[1]", "command"),
    ("/v1/sessions/demo/exec?rows=0", "rows"),
    ("/v1/sessions/demo/exec", "command"),
]


@pytest.mark.parametrize(("url", "field"), QUERIES)
async def test_a_wrong_parameter_is_refused_by_name(api: Scene, url: str, field: str) -> None:
    await api.submit()
    response = await api.get(url)
    assert (400, field) == (response.status, (await problem(response)).field)


async def test_an_unknown_parameter_is_answered_with_the_right_one(api: Scene) -> None:
    found = await problem(await api.get("/v1/sessions?limt=1"))
    assert ("unknown_parameter", "did you mean limit?") == (found.code, found.hint)


REFS = ["A", "..", "%2e%2e%2f", "%00", "x" * 4096, "a b", "'; drop table", "demo-", "nobody", "é"]


@pytest.mark.parametrize("ref", REFS)
async def test_a_session_that_cannot_be_is_not_found(api: Scene, ref: str) -> None:
    response = await api.get(f"/v1/sessions/{ref}")
    assert 404 == response.status
    assert "\0" not in (await problem(response)).title


@pytest.mark.parametrize("ranks", ["5", "1-9", "1-0", "0,7"])
async def test_a_rank_that_is_not_there_is_not_found(api: Scene, ranks: str) -> None:
    await api.submit()
    response = await api.get(f"/v1/sessions/demo/logs?rank={ranks}")
    assert (404, "no_such_rank") == (response.status, (await problem(response)).code)


@pytest.mark.parametrize("key", ["", "x" * 256, "a b", "a\tb", "é"])
async def test_an_idempotency_key_is_short_and_printable(api: Scene, key: str) -> None:
    response = await api.post("/v1/sessions", SPEC, **{"Idempotency-Key": key})
    assert "bad_idempotency_key" == (await problem(response)).code


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"signal": "NOPE"}, "signal"),
        ({"signal": "0"}, "signal"),
        ({"signal": "65"}, "signal"),
        ({"signal": "-9"}, "signal"),
        ({"signal": 9}, "signal"),
        ({"signal": "9", "ranks": []}, "ranks"),
        ({"signal": "9", "ranks": [7]}, "ranks"),
        ({"signal": "9", "ranks": [0, 1, 2]}, "ranks"),
        ({}, ""),
    ],
)
async def test_a_wrong_signal_is_refused(api: Scene, body: object, field: str) -> None:
    await api.running()
    response = await api.post("/v1/sessions/demo/signal", body)
    assert response.status in {400, 404}
    assert field == (await problem(response)).field


@pytest.mark.parametrize("grace", [-1, 1e9, "soon"])
async def test_a_wrong_grace_is_refused(api: Scene, grace: object) -> None:
    await api.submit()
    response = await api.post("/v1/sessions/demo/stop", {"grace_s": grace})
    assert "grace_s" == (await problem(response)).field


# ---------------------------------------------------------------- below the shapes


@pytest.mark.parametrize("media", ["text/plain", "application/x-www-form-urlencoded", ""])
async def test_a_body_of_another_media_type_is_refused(api: Scene, media: str) -> None:
    headers = api.as_("ada") | {"Content-Type": media}
    response = await api.client.post("/v1/sessions", data=b"{}", headers=headers)
    assert (415, "unsupported_media_type") == (response.status, (await problem(response)).code)


async def test_a_compressed_body_is_refused_unread(api: Scene) -> None:
    bomb = gzip.compress(bytes(10 << 20))
    response = await api.post("/v1/sessions", bomb, **{"Content-Encoding": "gzip"})
    assert (415, "unsupported_encoding") == (response.status, (await problem(response)).code)


async def test_a_body_that_drips_is_cut_off(api: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bodies, "JSON_WAIT_S", 0.05)
    never = asyncio.Event()

    async def drip() -> AsyncIterator[bytes]:
        yield b"{"
        await never.wait()

    headers = api.as_("ada") | {"Content-Type": JSON}
    response = await api.client.post("/v1/sessions", data=drip(), headers=headers)
    assert (408, "body_too_slow") == (response.status, (await problem(response)).code)
    never.set()


async def test_a_chunked_body_is_bounded_too(api: Scene) -> None:
    async def pour() -> AsyncIterator[bytes]:
        for _piece in range(40):
            yield b" " * (64 << 10)

    headers = api.as_("ada") | {"Content-Type": JSON}
    response = await api.client.post("/v1/sessions", data=pour(), headers=headers)
    assert 413 == response.status


HEAD = b"POST /v1/sessions HTTP/1.1\r\nHost: x\r\n"
RAW: dict[str, bytes] = {
    "no request": b"NONSENSE\r\n\r\n",
    "a header of 65 KiB": HEAD + b"X: " + b"y" * (65 << 10) + b"\r\n\r\n",
    "a path of 65 KiB": b"GET /" + b"y" * (65 << 10) + b" HTTP/1.1\r\n\r\n",
    "two lengths": (HEAD + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
    "two different lengths": HEAD + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\n{}",
    "a length below nothing": HEAD + b"Content-Length: -1\r\n\r\n",
    "a chunk of no length": HEAD + b"Transfer-Encoding: chunked\r\n\r\nxyz\r\n",
    "a header with NUL": HEAD + b"X: a\0b\r\n\r\n",
}


@pytest.mark.parametrize("what", RAW)
async def test_what_is_hardly_http_is_answered_with_400_and_the_end(api: Scene, what: str) -> None:
    reader, writer = await asyncio.open_connection(api.client.host, api.client.port)
    async with asyncio.timeout(PATIENCE_S):
        writer.write(RAW[what])
        answer = await reader.read()  # to the end: the connection is closed
    writer.close()

    assert (b"HTTP", b"400") == (answer[:4], answer.split()[1])
    assert b"Traceback" not in answer


async def test_an_unknown_path_and_a_wrong_method_are_said(api: Scene) -> None:
    assert "no_such_path" == (await problem(await api.get("/v2/sessions"))).code
    response = await api.client.delete("/v1/sessions", headers=api.as_("ada"))
    assert "method_not_allowed" == (await problem(response)).code
    assert "GET, POST" == response.headers["Allow"]


@pytest.mark.parametrize("header", ["%%%", "abc!", "AA", "gA", "////", "x" * 61_000])
async def test_a_resume_point_that_we_did_not_make_is_refused(api: Scene, header: str) -> None:
    await api.submit()
    for url in ("logs", "events"):
        response = await api.get(
            f"/v1/sessions/demo/{url}",
            **{"Last-Event-ID": header, "Accept": "text/event-stream"},
        )
        assert "bad_resume_point" == (await problem(response)).code


# ---------------------------------------------------------------- who may


WRONG_TOKENS = (
    "", "Bearer", "Bearer x", "Basic YTpi", "Bearer phx_" + "A" * 43, "Bearer phx_" + "A" * 9000,
)  # fmt: skip


async def test_every_wrong_token_is_one_and_the_same_answer(api: Scene) -> None:
    expired = {"name": "later", "scope": "user", "ttl_s": 60}
    made = await (await api.post("/v1/tokens", expired, "root")).json()
    api.clock.passed_s += 61
    revoked = await api.client.delete("/v1/tokens/token-ada", headers=api.as_("root"))
    wrong = (*WRONG_TOKENS, f"Bearer {made['token']}", api.as_("ada")["Authorization"])

    asked: list[str] = []
    api.store._database._connection.set_trace_callback(asked.append)

    answers, costs = [], []
    for header in wrong:
        asked.clear()
        answers.append(await api.client.get("/v1/sessions", headers={"Authorization": header}))
        costs.append(len(asked))

    assert 204 == revoked.status
    assert [0, 0, 0, 0, 1, 0, 1, 1] == costs  # a well-formed one takes the same time
    assert {(401, "Bearer")} == {(one.status, one.headers["WWW-Authenticate"]) for one in answers}
    assert 1 == len({await one.read() for one in answers})
    found = await problem(answers[0])
    assert "the token is missing, wrong, expired or revoked" == found.title


async def test_a_token_is_good_when_the_comparison_in_constant_time_says_so(
    api: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    compared: list[tuple[object, object]] = []

    def differs(one: object, other: object) -> bool:
        compared.append((one, other))
        return False

    good = await api.get("/v1/sessions")
    monkeypatch.setattr(hmac, "compare_digest", differs)
    refused = await api.get("/v1/sessions")

    digest = auth.secret_hash(api.tokens["ada"])
    assert (200, 401) == (good.status, refused.status)
    assert [(digest, digest)] == compared


SCOPED = [
    (
        route.method,
        route.path.replace("{ref}", "demo").replace("{token}", "x").replace("{name}", "x"),
        route.scope,
    )
    for route in ROUTES
    if route.scope in {"user", "admin"}
]


@pytest.mark.parametrize(("method", "path", "scope"), SCOPED)
async def test_a_token_reaches_only_as_far_as_its_scope(
    api: Scene, method: str, path: str, scope: str
) -> None:
    users = ["eve", "ada"] if scope == "admin" else ["eve"]
    for user in users:
        response = await api.client.request(method, path, headers=api.as_(user))
        assert (403, "forbidden") == (response.status, (await problem(response)).code)


OPEN = {route.path for route in ROUTES if route.scope is None}


async def test_only_health_and_the_description_need_no_token(api: Scene) -> None:
    assert {"/healthz", "/readyz", "/metrics", "/v1/openapi.json"} == OPEN
    for path in sorted(OPEN):
        assert 200 == (await api.client.get(path)).status
