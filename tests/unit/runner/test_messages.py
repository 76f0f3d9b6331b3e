from __future__ import annotations

import json
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from phalanx_runner import messages
from phalanx_runner.conf import RunnerConf
from phalanx_runner.messages import (
    LINE_LIMIT,
    Exited,
    Hello,
    Malformed,
    MeshFailed,
    RunnerError,
    Stamp,
    parse,
)


def test_an_event_is_read_with_its_stamp() -> None:
    line = b'{"ev":"exited","seq":7,"t":12,"code":137,"signal":9,"oom_kills":1}\n'

    assert Exited(Stamp(7, 12), 137, 9, oom_kills=1) == parse(line)


def test_a_runner_of_a_version_that_counted_no_oom_kills_is_understood() -> None:
    line = b'{"ev":"exited","seq":7,"t":12,"code":137,"signal":9}\n'

    assert Exited(Stamp(7, 12), 137, 9, oom_kills=0) == parse(line)


def test_a_member_that_is_not_known_is_left_to_newer_agents() -> None:
    line = b'{"ev":"hello","proto":1,"kernel":"k","last_seq":3,"colour":"red"}'

    assert Hello(1, "k", 3) == parse(line)


def test_unreached_peers_are_a_tuple_of_names() -> None:
    line = b'{"ev":"mesh-failed","seq":1,"t":1,"peers":["sub1","sub2"],"ms":60000}'

    assert MeshFailed(Stamp(1, 1), ("sub1", "sub2"), 60000) == parse(line)


def test_an_errors_details_are_texts_and_numbers() -> None:
    event = parse(b'{"ev":"error","seq":1,"t":1,"what":"exec","errno":2,"text":"No such file"}')

    assert isinstance(event, RunnerError)
    assert {"errno": 2, "text": "No such file"} == dict(event.detail)


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"\xff\xfe",
        b"null",
        b"[]",
        b'{"ev":"exited"',
        b'{"ev":"reboot","seq":1,"t":1}',
        b'{"ev":["exited"],"seq":1,"t":1}',
        b'{"ev":"exited","seq":0,"t":1,"code":0,"signal":0}',
        b'{"ev":"exited","seq":1,"t":1,"code":-1,"signal":0}',
        b'{"ev":"exited","seq":1,"t":1,"code":0.5,"signal":0}',
        b'{"ev":"exited","seq":true,"t":1,"code":0,"signal":0}',
        b'{"ev":"exited","seq":1,"t":1,"code":1e400,"signal":0}',
        b'{"ev":"exited","seq":99999999999999999999999,"t":1,"code":0,"signal":0}',
        b'{"ev":"sshlog","seq":1,"t":1,"msg":"a\\u001b[31mred"}',
        b'{"ev":"sshlog","seq":1,"t":1,"msg":"' + b"x" * 2000 + b'"}',
        b'{"ev":"mesh-failed","seq":1,"t":1,"peers":"sub1","ms":1}',
        b'{"ev":"error","seq":1,"t":1,"what":"exec","detail":{"a":1}}',
        b"[" * 4000,
        b" " * (LINE_LIMIT + 1),
    ],
)
def test_a_line_that_is_no_event_is_malformed(line: bytes) -> None:
    assert isinstance(parse(line), Malformed)


@given(st.binary(max_size=200))
def test_no_bytes_can_make_the_reader_fail(line: bytes) -> None:
    parse(line)


@settings(suppress_health_check=[HealthCheck.too_slow])  # the machine may be busy
@given(
    st.dictionaries(
        st.sampled_from(["ev", "seq", "t", "code", "signal", "what", "peers", "more", "ms", "msg"]),
        st.one_of(
            st.integers(),
            st.text(alphabet='ab"\\\x1bé', max_size=5),
            st.none(),
            st.floats(),
            st.lists(st.sampled_from(["a", 1, None]), max_size=3),
            st.sampled_from(["exited", "error", "mesh-failed", "sshlog"]),
        ),
    )
)
def test_no_object_can_make_the_reader_fail(members: dict[str, object]) -> None:
    parse(json.dumps(members).encode())


def test_commands_are_lines_of_json() -> None:
    assert b'{"op":"stop","signal":15,"grace_ms":10000}\n' == messages.stop(15, 10_000)
    assert b'{"op":"signal","signal":10}\n' == messages.signal(10)


def test_a_conf_is_written_one_setting_a_line() -> None:
    conf = RunnerConf("k1", peers=("main1", "sub1:2201"), master_port=12345)

    lines = conf.render().splitlines()

    assert "kernel=k1" == lines[0]
    assert {"peers=main1,sub1:2201", "master_port=12345", "ssh_port=2200"} <= set(lines)


def test_a_container_without_a_master_port_has_no_such_line() -> None:
    assert "master_port" not in RunnerConf("k1").render()


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("kernel", ""),
        ("kernel", "k" * 129),
        ("kernel", 'k"'),
        ("address", "10.0.0.1\nssh_port=22"),
        ("interface", "eth0\0"),
        ("ssh_port", 0),
        ("ssh_port", 65536),
        ("ssh_limit", 1025),
        ("master_port", 65536),
        ("mesh_timeout_s", 0),
        ("linger_s", -1),
        ("grace_s", 86401),
        ("peers", ("a", "", "b")),
        ("peers", ("a,b",)),
        ("peers", ("a" * 254,)),
        ("peers", ("a:0",)),
        ("peers", ("a:x",)),
        ("peers", ("a",) * 1025),
    ],
)
def test_a_setting_that_a_runner_does_not_take_is_refused_by_name(
    setting: str, value: object
) -> None:
    conf = replace(RunnerConf("k1"), **{setting: value})  # type: ignore[arg-type]

    with pytest.raises(ValueError, match=rf"^{setting}="):
        conf.render()
