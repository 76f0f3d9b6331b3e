from __future__ import annotations

import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from phalanx_manager.http import bodies, params
from phalanx_manager.http.problems import Refused, shown
from phalanx_wire.api import Problem
from phalanx_wire.spec import SessionSpec

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=12,
)
FIELDS = [field.encode_name for field in msgspec.structs.fields(SessionSpec)]


@given(st.binary(max_size=300))
def test_any_bytes_are_a_spec_or_refused(data: bytes) -> None:
    _parse(data)


@given(st.dictionaries(st.sampled_from(FIELDS), JSON, max_size=6))
def test_any_values_of_fields_are_a_spec_or_refused(value: dict[str, object]) -> None:
    _parse(json.dumps(value).encode())


def _parse(data: bytes) -> None:
    """Parse: a spec, or a refusal with a sentence and a client's status."""
    found: SessionSpec | Problem
    try:
        found = bodies.parse(data, SessionSpec)
    except Refused as refused:
        found = refused.problem
    if isinstance(found, Problem):
        assert 400 <= found.status < 500
        assert found.title
        msgspec.json.encode(found)


@given(st.text(max_size=200))
def test_what_is_shown_is_short_and_without_control_characters(text: str) -> None:
    found = shown(text)
    assert len(found) <= 600
    assert not any(ord(character) < 32 for character in found)


@pytest.mark.parametrize(
    "param",
    [
        params.flag("p", ""),
        params.whole("p", "", 0, 9),
        params.seconds("p", "", 9),
        params.choice("p", "", ("a",)),
        params.ranks("p", ""),
        params.moment("p", ""),
        params.words("p", ""),
        params.path("p", ""),
    ],
    ids=lambda param: type(param.read).__name__ + param.read.__qualname__,
)
@given(text=st.text(max_size=60))
def test_any_text_is_a_value_or_refused(param: params.Param, text: str) -> None:
    why = "a value"
    try:
        param.read(text)
    except ValueError as error:
        why = str(error)
    assert why
