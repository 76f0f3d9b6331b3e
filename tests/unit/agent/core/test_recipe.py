from __future__ import annotations

import subprocess
from pathlib import Path

import msgspec
import pytest

from phalanx_agent.core import recipe
from phalanx_agent.core.recipe import Account, Bind, ContainerRecipe, Image, Place
from phalanx_wire.control import Assignment, Gang, Member, Network
from phalanx_wire.ids import AgentId, KernelId, SessionId
from phalanx_wire.lifecycle import KernelState
from phalanx_wire.slots import Slots

HERE = AgentId("host1")
SESSION = SessionId("aaaaaaaaaaaa")
GANG = Gang(
    SESSION,
    "demo",
    2,
    Network("phx-aaaaaaaaaaaa-2", "bridge", "10.213.0.0/26", HERE),
    egress=True,
    members=(
        Member(0, "main1", HERE, "10.213.0.62"),
        Member(1, "sub1", HERE, "10.213.0.61"),
    ),
)
ORDER = Assignment(
    kernel=KernelId("aaaaaaaaaaaa-2-1"),
    goal=KernelState.CREATED,
    host_name="sub1",
    image="alpine",
    command=("train", "--fast"),
    idle=False,
    env={"RANK": "1"},
    workdir="",
    user="",
    mounts=(),
    slots=Slots(1500, 2 << 30, 0, 4096),
    shm_bytes=1 << 30,
    gpus=("GPU-1",),
    upload="",
    grace_s=2.5,
    master_port=0,
)
IMAGE = Image(
    "sha256:1",
    env=("PATH=/img/bin", "LANG=C"),
    entrypoint=("/entry",),
    command=("serve",),
    workdir="/srv",
    user="",
)
ROOT = Account(0, 0, "root", "/root")
PLACE = Place("n" * 64, "/bundle", "/m", (Bind("/data", "/data"),))


def order(**changes: object) -> Assignment:
    return msgspec.structs.replace(ORDER, **changes)


def test_a_recipe_holds_all_that_a_container_is_made_of() -> None:
    made = recipe.container(ORDER, GANG, IMAGE, ROOT, PLACE)

    assert (
        ContainerRecipe(
            name="phx-aaaaaaaaaaaa-2-sub1",
            host_name="sub1",
            labels={
                "io.phalanx.session": "aaaaaaaaaaaa",
                "io.phalanx.attempt": "2",
                "io.phalanx.kernel": "aaaaaaaaaaaa-2-1",
                "io.phalanx.rank": "1",
                "io.phalanx.spec-hash": recipe.spec_hash(ORDER),
            },
            image="sha256:1",
            entrypoint=("/opt/phalanx/bin/phalanx-init",),
            command=("train", "--fast"),
            env=(
                "HOME=/root",
                "LOGNAME=root",
                "PATH=/opt/phalanx/first:/img/bin:/opt/phalanx/last",
                "RANK=1",
                "USER=root",
            ),
            workdir="/srv",
            user="",
            binds=(
                Bind("/bundle", "/opt/phalanx"),
                Bind("/m", "/run/phalanx"),
                Bind("/m/hosts", "/etc/hosts"),
                Bind("/m/ssh/dropin.conf", "/etc/ssh/ssh_config.d/00-phalanx.conf"),
                Bind("/m/hostfile", "/job/hostfile"),
                Bind("/data", "/data"),
            ),
            network_id="n" * 64,
            address="10.213.0.61",
            egress=True,
            cpu_milli=1500,
            mem_bytes=2 << 30,
            shm_bytes=1 << 30,
            pids=4128,
            gpus=("GPU-1",),
            stop_timeout_s=33,
        )
        == made
    )


def test_without_a_command_the_images_own_runs_with_its_entrypoint() -> None:
    assert ("/entry", "serve") == recipe.command(order(command=()), IMAGE)


def test_an_idle_container_has_no_command() -> None:
    assert () == recipe.command(order(command=("x",), idle=True), IMAGE)


def test_an_upload_is_the_working_directory_unless_another_is_named() -> None:
    upload = "sha256:" + "1" * 64

    assert "/workspace" == recipe.workdir(order(upload=upload), IMAGE)
    assert "/w" == recipe.workdir(order(upload=upload, workdir="/w"), IMAGE)


@pytest.mark.parametrize(
    ("account", "upload", "expected"),
    [
        (Account(1000, 1000, "ann", "/home/ann"), "", ("/home/ann", "ann")),
        (Account(1234, 0), "", ("/tmp", "uid1234")),
        (Account(1234, 0), "sha256:1", ("/workspace", "uid1234")),
        (Account(0, 0), "", ("/root", "uid0")),
    ],
)
def test_everybody_has_a_home_and_a_name(
    account: Account, upload: str, expected: tuple[str, str]
) -> None:
    env = dict(
        entry.partition("=")[::2]
        for entry in recipe.environment(order(upload=upload), IMAGE, account)
    )

    assert expected == (env["HOME"], env["USER"])
    assert env["LOGNAME"] == env["USER"]


@pytest.mark.parametrize(
    ("target", "there"), [("/jobs", True), ("/job", False), ("/job/data", False)]
)
def test_the_hostfile_lies_where_deepspeed_looks_unless_the_user_mounts_there(
    target: str, there: object
) -> None:
    place = Place("n" * 64, "/bundle", "/m", (Bind("/data", target),))
    made = recipe.container(ORDER, GANG, IMAGE, ROOT, place)

    assert there == (Bind("/m/hostfile", "/job/hostfile") in made.binds)


def test_a_uid_that_the_image_lacks_gets_an_entry_beside_the_images_own() -> None:
    stranger = Account(1234, 5, passwd="root:x:0:0:root:/root:/bin/sh")
    made = recipe.container(ORDER, GANG, IMAGE, stranger, PLACE)

    assert Bind("/m/passwd", "/etc/passwd") in made.binds
    assert """\
root:x:0:0:root:/root:/bin/sh
uid1234:x:1234:5::/tmp:/bin/sh
""" == recipe.passwd(ORDER, stranger)
    assert recipe.passwd(ORDER, ROOT) is None


def test_a_users_own_values_win_and_the_paths_ends_stay_ours() -> None:
    env = recipe.environment(order(env={"HOME": "/h", "PATH": "/mine"}), IMAGE, ROOT)

    assert "HOME=/h" in env
    assert "PATH=/opt/phalanx/first:/mine:/opt/phalanx/last" in env


def test_scripts_of_login_shells_find_slurms_programs_in_a_job(tmp_path: Path) -> None:
    file = tmp_path / recipe.BASH_ENV_FILE
    file.write_text(recipe.BASH_ENV)
    job = recipe.environment(order(env={"SLURM_JOB_ID": "7"}), IMAGE, ROOT)
    other = recipe.environment(ORDER, IMAGE, ROOT)
    said = [
        subprocess.run(
            ["bash", "-c", "echo $PATH"],
            env={"PATH": path, "BASH_ENV": str(file)},
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
        for path in ("/bin", "/mine:/opt/phalanx/slurm:/bin")
    ]

    assert "BASH_ENV=/run/phalanx/bash_env" in job
    assert [] == [entry for entry in other if entry.startswith("BASH_ENV=")]
    assert [
        "/opt/phalanx/first:/opt/phalanx/slurm:/bin:/opt/phalanx/last",
        "/mine:/opt/phalanx/slurm:/bin",
    ] == said


def test_what_the_image_sets_itself_is_left_to_it() -> None:
    env = recipe.environment(ORDER, Image("i", env=("HOME=/app",)), ROOT)

    assert [] == [entry for entry in env if entry.startswith("HOME=")]


def test_the_hash_is_the_same_at_every_goal_and_differs_for_another_spec() -> None:
    later = order(goal=KernelState.STOPPED, grace_s=99.0)

    assert recipe.spec_hash(ORDER) == recipe.spec_hash(later)
    assert recipe.spec_hash(ORDER) != recipe.spec_hash(order(image="other"))


def test_the_runner_is_told_who_it_is() -> None:
    assert """\
kernel=aaaaaaaaaaaa-2-1
ssh_port=2200
ssh_limit=1024
address=10.213.0.61
interface=eth0
peers=main1,sub1
mesh_timeout_s=180
linger_s=30
grace_s=3
""" == recipe.runner_conf(ORDER, GANG).render()


@pytest.mark.parametrize(("pids", "limit"), [(1, 16), (64, 16), (400, 100), (99999, 1024)])
def test_ssh_servers_are_at_most_a_quarter_of_the_processes(pids: int, limit: int) -> None:
    slots = msgspec.structs.replace(ORDER.slots, pids=pids)

    assert limit == recipe.runner_conf(order(slots=slots), GANG).ssh_limit


def test_on_the_hosts_network_a_container_has_no_address_and_its_peers_have_ports() -> None:
    network = Network("phx-aaaaaaaaaaaa-2", "host", "192.0.2.0/24", HERE, "host")
    members = (
        Member(0, "main1", HERE, "192.0.2.1", ssh_port=61000),
        Member(1, "sub1", HERE, "192.0.2.1", ssh_port=61002),
    )
    gang = msgspec.structs.replace(GANG, network=network, egress=False, members=members)
    place = Place("host", "/bundle", "/m")

    made = recipe.container(order(ports=(61002, 61003)), gang, IMAGE, ROOT, place)
    told = recipe.runner_conf(order(), gang).render().splitlines()

    assert ("host", "", False) == (made.network_id, made.address, made.egress)
    assert {"ssh_port=61002", "address=", "interface=", "peers=main1:61000,sub1"} <= set(told)


def test_only_main1_checks_the_master_port() -> None:
    assert "master_port=12345\n" in (recipe.runner_conf(order(master_port=12345), GANG).render())


def test_a_kernel_that_is_not_in_its_gang_is_a_contradiction() -> None:
    with pytest.raises(ValueError, match="not in the gang"):
        recipe.own_member(order(kernel=KernelId("aaaaaaaaaaaa-2-7")), GANG)
