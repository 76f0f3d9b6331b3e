from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from phalanx_client import ansi, output


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (
            "plain \x1b[31mred\x1b[0m \x1b[38;5;9mx\x1b[m",
            "plain \x1b[31mred\x1b[0m \x1b[38;5;9mx\x1b[m",
        ),
        ("\x1b]0;title\x07after", "after"),
        ("\x1b]52;c;c2VjcmV0\x1b\\after", "after"),
        ("\x1b]8;;http://x\x07link\x1b]8;;\x07", "link"),
        ("\x1bP1$r0m\x1b\\after", "after"),
        ("\x1b[2J\x1b[H\x1b[?1049hafter", "after"),
        ("\x1b[6nafter", "after"),
        ("\x1bcafter", "after"),
        ("\x9b2Jafter\x9d0;x", "2Jafter0;x"),
        ("a\x07\x08\x00b\tc", "ab\tc"),
        ("10%\r20%\r100%\r", "100%"),
        ("\x1b]0;never ends", ""),
        ("tail\x1b", "tail"),
        ("naïve 日本", "naïve 日本"),
    ],
)
def test_only_text_and_colours_reach_a_terminal(line: str, expected: str) -> None:
    assert expected == ansi.colours_only(line)


@given(st.text())
def test_what_is_left_holds_no_escape_but_colours(line: str) -> None:
    left = ansi.colours_only("\x1b" + line)

    assert all(piece.partition("m")[0].startswith("[") for piece in left.split("\x1b")[1:])


def test_a_cell_shows_what_is_hidden_in_it() -> None:
    assert "a\\x1b[2J\\n\\u202eb" == ansi.escape("a\x1b[2J\n\u202eb")


def test_what_is_noted_beside_a_result_does_not_steer_the_terminal(
    capsys: pytest.CaptureFixture[str],
) -> None:
    output.note("two\nlines \x1b[2J")

    assert "two\nlines \\x1b[2J\n" == capsys.readouterr().err
