"""Sealed uploads at the API: kept as they are, named only where every host can open them."""

from __future__ import annotations

import io
import os
from pathlib import Path

import msgspec
import pytest
from aiohttp import ClientResponse
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from phalanx_manager.core.seat import Wait, plan
from phalanx_wire import seal, sealed
from phalanx_wire.api import DryRun, NodeList, UploadCreated
from phalanx_wire.ids import AgentId
from phalanx_wire.slots import Slots
from tests.support.manager_api import POOL, SMALL, SPEC, Scene, add_agent, problem

CONTENT = b"what nobody between may read"
LARGE = Slots(128_000, 512 << 30, 0, 2_000_000)


def public(number: int) -> bytes:
    secret = X25519PrivateKey.from_private_bytes(bytes([number]) * 32)
    return secret.public_key().public_bytes_raw()


def made(*numbers: int) -> bytes:
    into = io.BytesIO()
    seal.seal(io.BytesIO(CONTENT), into, [public(number) for number in numbers], os.urandom)
    return into.getvalue()


async def join(api: Scene, name: str, number: int) -> str:
    """Let an agent join that has such a key."""
    key = sealed.key_text(public(number))
    await add_agent(api.store, name, api.clock.now(), LARGE, key)
    return key


async def leave(api: Scene, name: str) -> None:
    await api.store.forget(AgentId(name), "gone", api.clock.now())


async def put(api: Scene, data: bytes) -> ClientResponse:
    headers = api.as_("ada") | {"Content-Type": "application/octet-stream"}
    return await api.client.put("/v1/uploads", data=io.BytesIO(data), headers=headers)


async def kept(api: Scene, data: bytes) -> str:
    response = await put(api, data)
    assert 201 == response.status, await response.text()
    return msgspec.json.decode(await response.read(), type=UploadCreated).digest


@pytest.fixture
async def keys(api: Scene) -> dict[str, str]:
    """Two agents with real keys, and none other."""
    await leave(api, "gpu-1")
    return {"a": await join(api, "a", 1), "b": await join(api, "b", 2)}


async def test_a_user_is_told_the_keys_of_hosts(api: Scene, keys: dict[str, str]) -> None:
    for user in ("ada", "eve"):
        response = await api.get("/v1/nodes", user)
        found = msgspec.json.decode(await response.read(), type=NodeList)
        assert keys == {node.name: node.public_key for node in found.nodes}


async def test_it_is_kept_as_it_came_and_its_session_names_who_can_open_it(
    api: Scene, keys: dict[str, str], tmp_path: Path
) -> None:
    data = made(1, 2, 3)
    digest = await kept(api, data)
    view = await api.submit(upload=digest, sealed_for={"forged": "key"})

    assert keys == view.spec.sealed_for
    assert data == (tmp_path / "uploads" / digest.replace(":", "-")).read_bytes()
    assert CONTENT not in data


async def test_who_joins_later_is_not_given_its_session(api: Scene, keys: dict[str, str]) -> None:
    view = await api.submit(upload=await kept(api, made(1, 2)))
    await join(api, "c", 3)
    await leave(api, "a")
    assert "b" == (await api.place(view.id)).kernels[0].agent
    other = await api.submit(name="other", upload=await kept(api, made(2, 3)))
    assert keys["b"] == (other.spec.sealed_for or {})["b"]
    for name in ("b", "c"):
        await leave(api, name)
    await join(api, "d", 4)

    found = plan(await api.store.load(), await api.row(other.id), POOL, api.clock.now())

    assert isinstance(found, Wait)
    assert "b has left, c has left; d joined after it was submitted" in found.reason


async def test_it_is_refused_where_a_host_could_not_open_it(
    api: Scene, keys: dict[str, str]
) -> None:
    digest = await kept(api, made(2))
    for url in ("/v1/sessions", "/v1/sessions?dry_run=1"):
        response = await api.post(url, SPEC | {"upload": digest})
        found = await problem(response)
        assert (409, "upload_not_sealed_for_all", "upload") == (
            response.status, found.code, found.field,
        )  # fmt: skip
        assert "the upload is not sealed for a of cluster default" == found.title
        assert "--no-seal" in found.hint
    for name in ("a", "b"):
        await leave(api, name)
    empty = await problem(await api.post("/v1/sessions", SPEC | {"upload": digest}))
    assert "the upload is not sealed for anybody in cluster default" == empty.title


async def test_a_dry_run_goes_where_the_upload_can_be_opened(
    api: Scene, keys: dict[str, str]
) -> None:
    asked = SPEC | {"resources": SMALL, "upload": await kept(api, made(1, 2))}
    response = await api.post("/v1/sessions?dry_run=1", asked)
    found = msgspec.json.decode(await response.read(), type=DryRun)

    assert keys == found.spec.sealed_for
    assert set(found.placement or ()) <= {"a", "b"}


async def test_a_broken_header_is_refused_and_leaves_nothing(api: Scene, tmp_path: Path) -> None:
    for data in (made(1)[:100], sealed.MAGIC, sealed.MAGIC + b"\x09" + made(1)[9:]):
        response = await put(api, data)
        found = await problem(response)
        assert (400, "broken_seal") == (response.status, found.code)
        assert "the sealed archive cannot be read: it is " in found.title

    assert [] == [path for path in (tmp_path / "uploads").rglob("*") if path.is_file()]
