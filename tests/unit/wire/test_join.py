from __future__ import annotations

import base64

import msgspec
import pytest

from phalanx_wire.join import PREFIX, JoinToken, is_address, parse, spell

KEY = "0123456789abcdefghijABCDEFGHIJ.-:+=^!/*?"
TOKEN = JoinToken(("tcp://10.0.0.1:7911", "tcp://[::1]:7911"), KEY, KEY[::-1])


def _spelled(*fields: object) -> str:
    return PREFIX + base64.urlsafe_b64encode(msgspec.msgpack.encode(fields)).decode().rstrip("=")


def test_a_token_reads_back_also_with_the_blanks_that_copying_leaves() -> None:
    line = spell(TOKEN)
    assert TOKEN == parse(f"  {line[:20]}\n{line[20:]}\n")


def test_a_token_shows_no_secret_when_printed() -> None:
    assert TOKEN.secret_key not in repr(TOKEN)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "x",
        PREFIX,
        PREFIX + "!",
        spell(TOKEN)[:-3],
        spell(TOKEN) + "A" * 5000,
        spell(TOKEN).removeprefix(PREFIX),
        _spelled([], KEY, KEY),
        _spelled(["ipc:///tmp/x"], KEY, KEY),
        _spelled(["tcp://10.0.0.1:99999"], KEY, KEY),
        _spelled(["tcp://10.0.0.1:7911"] * 17, KEY, KEY),
        _spelled(["tcp://10.0.0.1:7911"], KEY[:-1], KEY),
        _spelled(["tcp://10.0.0.1:7911"], KEY, "~" * 40),
        _spelled(["tcp://10.0.0.1:7911"], KEY),
        _spelled(1, 2, 3),
        PREFIX + "\N{SNOWMAN}",
    ],
)
def test_what_is_no_token_is_refused_with_a_sentence(text: str) -> None:
    with pytest.raises(ValueError, match="join token"):
        parse(text)


def test_addresses_are_of_hosts_and_ports() -> None:
    assert [True, True, False, False, False] == [
        is_address(text)
        for text in (
            "tcp://gpu-1.lab:7911",
            "tcp://[fe80::1]:1",
            "tcp://*:7911",
            "tcp://a:0",
            "tcp://a:70000",
        )
    ]
