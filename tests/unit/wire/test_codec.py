from __future__ import annotations

import zlib

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from phalanx_wire import codec
from phalanx_wire.codec import MAX_MESSAGE_BYTES, decode, encode
from phalanx_wire.control import Goals, Hello, Observed
from phalanx_wire.ids import AgentId
from phalanx_wire.stream import STDOUT, Data, Open, UploadCall


def test_a_message_reads_back() -> None:
    for message in (Hello(1, "0", AgentId("a"), "i"), Open(3, UploadCall("d")), Goals(1)):
        assert message == decode(encode(message))


def test_a_large_message_of_many_alike_is_small_on_the_wire() -> None:
    goals = Goals(1, guarded=tuple(f"10.0.{n // 256}.{n % 256}" for n in range(60_000)))
    data = encode(goals)
    assert len(data) < 400_000
    assert goals == decode(data)


def test_a_chunk_of_data_is_never_packed() -> None:
    chunk = Data(1, STDOUT, bytes(64 << 10))
    assert len(encode(chunk)) > 64 << 10


def test_a_packed_message_cannot_grow_without_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(codec, "MAX_PLAIN_BYTES", 1 << 20)
    with pytest.raises(msgspec.DecodeError, match="over"):
        decode(zlib.compress(bytes(50 << 20)))


def test_a_packed_message_that_is_cut_off_is_refused() -> None:
    data = encode(Goals(1, guarded=("10.0.0.1",) * 60_000))
    with pytest.raises(msgspec.DecodeError):
        decode(data[:-5])


def test_a_message_that_is_too_large_is_refused_unread() -> None:
    with pytest.raises(msgspec.DecodeError, match="over"):
        decode(bytes(MAX_MESSAGE_BYTES + 1))


@given(st.binary(max_size=200))
def test_nonsense_is_one_kind_of_error(data: bytes) -> None:
    for wrong in (data, b"\x78" + data, b"\x78\x01" + data):
        with pytest.raises(msgspec.MsgspecError):
            decode(wrong)


def test_deep_nesting_is_one_kind_of_error() -> None:
    with pytest.raises(msgspec.MsgspecError):
        decode(b"\x91" * 100_000)


def test_unknown_fields_are_refused() -> None:
    with pytest.raises(msgspec.ValidationError):
        decode(msgspec.msgpack.encode({"type": Observed.__name__, "extra": 1}))
