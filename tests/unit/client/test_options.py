from __future__ import annotations

from pathlib import Path

import pytest

from phalanx_client import options
from phalanx_client.arguments import Parser
from phalanx_client.failure import Failure
from phalanx_wire.spec import Mount, Resources, RoleSpec, SessionSpec


def spec(*argv: str, command: tuple[str, ...] = (), **environ: str) -> SessionSpec:
    parser = Parser("run", "")
    options.add(parser)
    return options.spec(parser.parse_args(argv), command, environ)


def test_what_is_not_said_is_left_to_the_manager() -> None:
    assert SessionSpec() == spec()


def test_every_option_reaches_its_field() -> None:
    argv = """-J demo -N 4 --mode multi-node --spread pack -i my/torch -c 1.5 -m 4G -g h200:2
        --shm 2G --pids 100 -t 2h --grace 5s -p 7 -e A=1 --env-profile torchrun -v /d:/data:rw
        -w /w -u 1000 --run-on main --master-port 1234 --cluster lab --no-egress
        --on-failure continue --requeue --max-attempts 3
        --signal USR1@90 --lost-after 10m --after afterok:x
        --hold-on-failure 1h"""

    assert SessionSpec(
        name="demo",
        size=4,
        mode="multi-node",
        spread="pack",
        image="my/torch",
        command=("python", "-c", "x"),
        env={"A": "1"},
        env_profile="torchrun",
        workdir="/w",
        user="1000",
        mounts=(Mount("/d", "/data", read_only=False),),
        resources=Resources(cpu=1.5, mem="4G", gpu="h200:2", shm="2G", pids=100),
        run_on="main",
        master_port=1234,
        cluster="lab",
        egress=False,
        on_failure="continue",
        priority=7,
        time_limit_s=7200,
        grace_s=5,
        requeue=True,
        max_attempts=3,
        warn_signal="USR1@90",
        lost_after_s=600,
        after="afterok:x",
        hold_on_failure_s=3600,
    ) == spec(*argv.split(), command=("python", "-c", "x"))


def test_options_win_over_the_file_and_mappings_are_laid_over_it(tmp_path: Path) -> None:
    file = tmp_path / "s.yaml"
    file.write_text(
        "name: a\nsize: 2\nimage: x\nenv: {A: file, B: file}\nresources: {cpu: 1, mem: 1G}\n"
    )

    found = spec("-f", str(file), "-N", "3", "-e", "A=option", "-m", "2G")

    assert (
        SessionSpec(
            name="a",
            size=3,
            image="x",
            env={"A": "option", "B": "file"},
            resources=Resources(cpu=1, mem="2G"),
        )
        == found
    )


def test_a_json_file_is_read_too(tmp_path: Path) -> None:
    file = tmp_path / "s.json"
    file.write_text('{"image": "x", "command": ["a", "b"]}')

    assert SessionSpec(image="x", command=("a", "b")) == spec("-f", str(file))


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("size: many", r"Expected `int.*`, got `str` - at `\$.size`"),
        ("sise: 4", "unknown field `sise`"),
        ("[1]", "must hold a mapping"),
        ("a: [", "is not YAML"),
        ("env: 7", "env must be a mapping"),
        ("roles: [{name: main}, {name: sub, replicas: x}]", r"roles\[1\].replicas"),
    ],
)
def test_a_mistake_in_the_file_is_named(tmp_path: Path, text: str, sentence: str) -> None:
    file = tmp_path / "s.yaml"
    file.write_text(text)

    with pytest.raises(Failure, match=sentence) as caught:
        spec("-f", str(file), "-e", "A=1")

    assert 65 == caught.value.exit_code


def test_a_missing_file_is_not_found() -> None:
    with pytest.raises(Failure, match="no/such can't be read") as caught:
        spec("-f", "no/such")

    assert 66 == caught.value.exit_code


def test_a_role_has_a_count_and_keys() -> None:
    found = spec(
        "--role", "main=1",
        "--role", "ps=2,image=b,command='python ps.py, x',cpu=2,mem=1G,gpu=1,env.A=1,env.B=2,"
        "user=0",
    )  # fmt: skip

    assert (
        RoleSpec("main", 1),
        RoleSpec(
            "ps",
            2,
            image="b",
            command=("python", "ps.py,", "x"),
            env={"A": "1", "B": "2"},
            user="0",
            resources=Resources(cpu=2.0, mem="1G", gpu=1),
        ),
    ) == found.roles


def test_main_comes_before_the_roles_that_do_not_name_it() -> None:
    assert (RoleSpec("main"), RoleSpec("sub", 3)) == spec("--role", "sub=3").roles


@pytest.mark.parametrize(
    "text", ["", "sub", "sub=", "=2", "sub=x", "sub=1,x", "sub=1,a=b", "a=1,'"]
)
def test_what_is_no_role_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(Failure, match="--role") as caught:
        spec("--role", text)

    assert 64 == caught.value.exit_code


@pytest.mark.parametrize("text", ["", "/a", ":/a", "/a:/b:xx", "/a:/b:ro:rw"])
def test_what_is_no_mount_is_refused(text: str) -> None:
    with pytest.raises(Failure, match="SRC:DST"):
        spec("-v", text)


def test_a_mount_is_read_only_unless_said_otherwise() -> None:
    assert (Mount("/a", "/b"), Mount("/c", "/d"), Mount("/e", "/f", read_only=False)) == spec(
        "-v", "/a:/b", "-v", "/c:/d:ro", "-v", "/e:/f:rw"
    ).mounts


def test_variables_come_from_files_texts_and_this_shell(tmp_path: Path) -> None:
    file = tmp_path / "env"
    file.write_text("# note\nA=1\n\nB=x=y\n")

    found = spec("--env-file", str(file), "-e", "A=2", "-e", "C", C="shell")

    assert {"A": "2", "B": "x=y", "C": "shell"} == found.env


def test_a_variable_that_this_shell_does_not_have_is_refused() -> None:
    with pytest.raises(Failure, match="has no variable NOPE"):
        spec("-e", "NOPE")


def test_the_hosts_network_is_asked_for_by_name() -> None:
    assert SessionSpec(network="host") == spec("--network", "host")
