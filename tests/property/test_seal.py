"""Sealed archives: they open as they were sealed, for whom they were, or they do not open."""

from __future__ import annotations

import io
import os
from collections.abc import Callable

import pytest
import zmq
import zmq.utils.z85
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from phalanx_wire import seal, sealed
from phalanx_wire.sealed import BrokenSealError

KEYS = [X25519PrivateKey.from_private_bytes(bytes([n + 1]) * 32) for n in range(3)]
SECRETS = [key.private_bytes_raw() for key in KEYS]
PUBLIC = [key.public_key().public_bytes_raw() for key in KEYS]
PIECE = seal.PIECE_BYTES
HEADER = 45 + 2 * 80

sizes = st.one_of(
    st.integers(0, 200),
    st.integers(PIECE - 2, PIECE + 2),
    st.integers(2 * PIECE - 2, 2 * PIECE + 2),
    st.integers(0, 5 * PIECE),
)


def sealed_for(data: bytes, *recipients: bytes) -> bytes:
    into = io.BytesIO()
    seal.seal(io.BytesIO(data), into, recipients, os.urandom)
    return into.getvalue()


def read(data: bytes, secret: bytes) -> bytes:
    with seal.opened(io.BytesIO(data), secret) as file:
        return file.read()


def content(size: int) -> bytes:
    return (b"0123456789abcdef!" * (size // 17 + 1))[:size]


@given(sizes)
def test_each_recipient_reads_what_was_sealed(size: int) -> None:
    data = content(size)
    made = sealed_for(data, *PUBLIC[:2])

    assert [data, data] == [read(made, secret) for secret in SECRETS[:2]]
    assert HEADER + size + 16 * max(1, -(-size // PIECE)) == len(made)


@given(sizes, st.lists(st.tuples(st.integers(0, 5 * PIECE), st.integers(0, 2 * PIECE)), max_size=8))
def test_it_can_be_read_from_anywhere(size: int, reads: list[tuple[int, int]]) -> None:
    data = content(size)
    with seal.opened(io.BytesIO(sealed_for(data, PUBLIC[0])), SECRETS[0]) as file:
        assert size == file.seek(0, os.SEEK_END)
        for at, count in reads:
            assert at == file.seek(at)
            assert data[at : at + count] == file.read(count)


def test_nobody_else_opens_it() -> None:
    with pytest.raises(BrokenSealError, match="not sealed for this host's key"):
        read(sealed_for(b"data", *PUBLIC[:2]), SECRETS[2])


def test_nothing_of_the_content_is_in_it_and_no_two_are_alike() -> None:
    data = content(2 * PIECE)
    one, two = sealed_for(data, PUBLIC[0]), sealed_for(data, PUBLIC[0])

    assert -1 == one.find(data[:17])
    assert one[125:] != two[125:]


@given(st.data(), st.sampled_from([0, 1, 100, PIECE, PIECE + 1, 2 * PIECE]))
def test_no_bit_of_it_can_be_changed(data: st.DataObject, size: int) -> None:
    made = bytearray(sealed_for(content(size), *PUBLIC[:2]))
    bit = data.draw(st.integers(0, 8 * len(made) - 1))
    made[bit // 8] ^= 1 << bit % 8

    with pytest.raises(BrokenSealError):
        read(bytes(made), SECRETS[0])


def test_no_bit_of_its_header_can_be_changed() -> None:
    made = sealed_for(b"data", *PUBLIC[:2])
    for bit in range(8 * HEADER):
        changed = bytearray(made)
        changed[bit // 8] ^= 1 << bit % 8
        with pytest.raises(BrokenSealError):
            read(bytes(changed), SECRETS[0])


@given(st.data(), st.sampled_from([0, 1, PIECE, 2 * PIECE, 2 * PIECE + 5]))
def test_it_cannot_be_cut_off_or_made_longer(data: st.DataObject, size: int) -> None:
    made = sealed_for(content(size), PUBLIC[0])
    length = data.draw(st.integers(0, len(made) - 1))

    for changed in (made[:length], made + bytes(1), made + made[125:]):
        with pytest.raises(BrokenSealError):
            read(changed, SECRETS[0])


def test_it_cannot_be_cut_off_between_pieces() -> None:
    made = sealed_for(content(3 * PIECE), PUBLIC[0])

    for pieces in (1, 2):
        with pytest.raises(BrokenSealError):
            read(made[: 125 + pieces * (PIECE + 16)], SECRETS[0])


def test_pieces_cannot_change_places_or_come_from_another_archive() -> None:
    made = sealed_for(content(3 * PIECE), PUBLIC[0])
    other = sealed_for(content(3 * PIECE), PUBLIC[0])
    first, second = slice(125, 125 + PIECE + 16), slice(125 + PIECE + 16, 125 + 2 * (PIECE + 16))
    swapped = made[:125] + made[second] + made[first] + made[second.stop :]
    mixed = made[:125] + other[125:]

    for changed in (swapped, mixed):
        with pytest.raises(BrokenSealError):
            read(changed, SECRETS[0])


def test_a_recipient_cannot_be_added_by_who_passes_it_on() -> None:
    made = sealed_for(b"data", PUBLIC[0])
    header = sealed.read_header(io.BytesIO(made))
    wrapped = {**header.wrapped, PUBLIC[1]: bytes(48)}
    changed = sealed.Header(header.sender, wrapped).spell() + made[125:]

    for secret in SECRETS[:2]:
        with pytest.raises(BrokenSealError):
            read(changed, secret)


def _with(at: int, value: bytes) -> Callable[[bytes], bytes]:
    return lambda made: made[:at] + value + made[at + len(value) :]


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda _: b"", "cut off"),
        (lambda made: made[:44], "cut off"),
        (lambda made: made[:46], "cut off"),
        (_with(0, b"PK"), "no sealed archive"),
        (_with(8, b"\x02"), "form 2"),
        (_with(9, bytes(4)), "0 recipients"),
        (_with(9, b"\xff\xff\xff\xff"), "4294967295 recipients"),
        (_with(45 + 80, PUBLIC[0]), "twice"),
        (_with(13, bytes(32)), "changed"),
        (lambda made: made[:HEADER], "cut off"),
        (lambda made: made[: HEADER + 15], "cut off"),
    ],
)
def test_a_hostile_header_is_a_reason(change: Callable[[bytes], bytes], why: str) -> None:
    with pytest.raises(BrokenSealError, match=why):
        read(change(sealed_for(b"data", *PUBLIC[:2])), SECRETS[0])


@given(st.binary(max_size=400), st.sampled_from([b"", sealed.MAGIC + b"\x01"]))
def test_any_bytes_are_a_header_or_a_reason(data: bytes, start: bytes) -> None:
    try:
        header = sealed.read_header(io.BytesIO(start + data))
    except BrokenSealError:
        return
    assert (start + data).startswith(header.spell())


def test_its_recipients_can_be_read_by_everybody_as_curve_spells_keys() -> None:
    public, secret = zmq.curve_keypair()
    own = zmq.utils.z85.decode(public)
    made = sealed_for(b"data", own, PUBLIC[0])

    assert own == sealed.key_bytes(public.decode())
    assert {public.decode(), sealed.key_text(PUBLIC[0])} == (
        sealed.read_header(io.BytesIO(made)).recipients
    )
    assert b"data" == read(made, zmq.utils.z85.decode(secret))


@pytest.mark.parametrize("text", ["", "a" * 39, "a" * 41, "#" * 40, "~" * 40, "é" * 40, "0" * 45])
def test_what_is_no_key_is_none(text: str) -> None:
    with pytest.raises(ValueError, match="is no key"):
        sealed.key_bytes(text)


def test_a_key_that_shares_a_secret_with_everybody_is_refused() -> None:
    with pytest.raises(ValueError, match="shared key"):
        sealed_for(b"data", bytes(32))
