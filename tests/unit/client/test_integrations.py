"""What other people's programs are told of sessions, without these programs."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any, get_args

import msgspec
import pytest

from phalanx_client.integrations import oumi_jobs, phalanx_lightning
from phalanx_wire.api import SessionState, SessionView
from phalanx_wire.spec import Resources
from tests.unit.client.fake_manager import session

ROOT = Path(__file__).parents[3]


def job(**fields: Any) -> SimpleNamespace:
    """A job as Oumi would hand it over."""
    resources = dict.fromkeys(
        ("region", "accelerators", "cpus", "memory", "image_id_map", *oumi_jobs.IGNORED)
    )
    resources |= {"image_id": "docker:my/torch:2", **fields.pop("resources", {})}
    plain: dict[str, Any] = {
        "name": "sft",
        "user": None,
        "num_nodes": 1,
        "envs": {},
        "file_mounts": {},
        "storage_mounts": {},
        "setup": None,
        "run": "oumi train",
    }
    return SimpleNamespace(**plain | fields, resources=SimpleNamespace(**resources))


def a_session(**fields: Any) -> SessionView:
    """A session as the manager tells it."""
    return msgspec.convert(msgspec.to_builtins(session()) | fields, SessionView)


def test_an_oumi_job_is_a_session_with_a_container_for_each_node() -> None:
    asked = job(
        num_nodes=4,
        envs={"EPOCHS": 3},
        setup="pip install x",
        user="1000",
        resources={"accelerators": "A100:8", "cpus": "4+", "memory": "64+", "region": "lab"},
    )

    spec = oumi_jobs.spec_of(asked, "First_Cluster", "abc123", priority=5)

    assert ("first-cluster-abc123", "batch", 4, "torchrun", "my/torch:2", "1000", "lab", 5) == (
        spec.name, spec.kind, spec.size, spec.env_profile, spec.image, spec.user, spec.cluster,
        spec.priority,
    )  # fmt: skip
    assert ("pip install x", "oumi train") == spec.command[-2:]
    assert Resources(cpu=4.0, mem="64G", gpu="A100:8") == spec.resources
    assert {
        "EPOCHS": "3",
        "SKYPILOT_NUM_NODES": "4",
        "SKYPILOT_NUM_GPUS_PER_NODE": "8",
        "OUMI_CLUSTER": "First_Cluster",
        "OUMI_JOB": "sft",
    } == spec.env


@pytest.mark.parametrize(
    ("fields", "word"),
    [
        ({"file_mounts": {"~/.netrc": "~/.netrc"}}, "working_dir"),
        ({"storage_mounts": {"/data": "s3://x"}}, "storage"),
        ({"run": ""}, "run"),
        ({"resources": {"image_id": None}}, "image_id"),
        ({"resources": {"cpus": "many"}}, "cpus"),
        ({"resources": {"memory": "4x"}}, "memory"),
    ],
)
def test_what_an_oumi_job_cannot_have_is_refused_by_name(fields: Any, word: str) -> None:
    with pytest.raises(ValueError, match=word):
        oumi_jobs.spec_of(job(**fields), "c", "m")


def test_what_means_nothing_here_is_told_and_ignored() -> None:
    asked = job(resources={"disk_size": 100, "use_spot": True})

    assert ["resources.use_spot", "resources.disk_size"] == [
        text.split()[0] for text in oumi_jobs.notices(asked)
    ]
    assert Resources() == oumi_jobs.spec_of(asked, "c", "m").resources


def test_an_image_may_be_named_by_the_region() -> None:
    wish = {"image_id": None, "image_id_map": {"lab": "docker:python:3.12"}, "region": "lab"}

    assert "python:3.12" == oumi_jobs.spec_of(job(resources=wish), "c", "m").image


def test_any_cluster_name_makes_a_session_name() -> None:
    assert ["oumi-m", "a-b-m"] == [
        oumi_jobs.spec_of(job(), name, "m").name for name in ("___", "A_b!")
    ]


def test_every_state_of_a_session_is_one_of_oumis() -> None:
    names = {state: oumi_jobs.state_of(a_session(state=state)) for state in get_args(SessionState)}

    assert {
        "pending": "PENDING", "scheduled": "PENDING", "preparing": "PENDING",
        "starting": "PENDING", "running": "RUNNING", "stopping": "RUNNING",
        "succeeded": "SUCCEEDED", "failed": "FAILED", "timeout": "FAILED",
        "cancelled": "CANCELLED",
    } == names  # fmt: skip
    assert {"SUCCEEDED", "FAILED", "CANCELLED"} == {
        names[state]
        for state in get_args(SessionState)
        if oumi_jobs.is_done(a_session(state=state))
    }


def test_clusters_are_what_sessions_say_they_belong_to() -> None:
    views = [
        a_session(spec={"env": env})
        for env in ({"OUMI_CLUSTER": "b"}, {}, {"OUMI_CLUSTER": "a"}, {"OUMI_CLUSTER": "b"})
    ]

    assert ["b", "a"] == oumi_jobs.clusters_of(views)


def test_a_nodes_script_runs_setup_first_and_stops_at_its_failure() -> None:
    env = {
        "PATH": os.environ["PATH"],
        "BACKENDAI_CLUSTER_LOCAL_RANK": "1",
        "BACKENDAI_CLUSTER_HOSTS": "main1,sub1",
    }
    said = 'echo "$SKYPILOT_NODE_RANK $SKYPILOT_NODE_IPS"'

    def run(*parts: str) -> tuple[int, str]:
        spec = oumi_jobs.spec_of(job(setup=parts[0], run=parts[1]), "c", "m")
        done = subprocess.run(
            spec.command, env=env, capture_output=True, text=True, check=False, timeout=30
        )
        return done.returncode, done.stdout

    assert (0, "first\n1 main1\nsub1\n") == run("echo first", said)
    assert (3, "") == run("exit 3", said)
    assert (4, "first\n") == run("echo first", "exit 4")


SESSION = {
    "PHALANX_SESSION_ID": "abc",
    "BACKENDAI_CLUSTER_SIZE": "4",
    "BACKENDAI_CLUSTER_LOCAL_RANK": "3",
    "MASTER_ADDR": "main1",
    "MASTER_PORT": "12345",
    "LOCAL_RANK": "1",
    "LOCAL_WORLD_SIZE": "2",
    "RANK": "3",
    "WORLD_SIZE": "4",
}
STAND_IN = """
import sys, types, abc, json, os
for name in ("lightning", "lightning.fabric", "lightning.fabric.plugins",
             "lightning.fabric.plugins.environments"):
    sys.modules[name] = types.ModuleType(name)
class ClusterEnvironment(abc.ABC): pass
sys.modules["lightning.fabric.plugins.environments"].ClusterEnvironment = ClusterEnvironment
from phalanx_client.integrations.phalanx_lightning import PhalanxEnvironment
made = PhalanxEnvironment()
def told():
    return [made.creates_processes_externally, made.node_rank(), made.local_rank(),
            made.global_rank(), made.world_size(), isinstance(made, ClusterEnvironment)]
"""


def tell(script: str, env: dict[str, str]) -> str:
    """What a process of a container prints; a failure is its last line."""
    done = subprocess.run(
        [sys.executable, "-c", STAND_IN + script],
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT / "client"), **env},
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )
    return (done.stdout or done.stderr).strip().splitlines()[-1]


def test_a_container_is_a_lightning_node_whatever_its_place_on_its_host() -> None:
    assert "[false, 3, 0, 3, 4, true]" == tell("print(json.dumps(told()))", SESSION)


def test_a_process_that_lightning_has_started_knows_its_place() -> None:
    child = SESSION | {"PHALANX_LIGHTNING": "1"}
    script = "made.set_global_rank(7); made.set_world_size(8); print(json.dumps(told()))"
    follows = "made.set_global_rank(7); print(os.environ['RANK'])"

    assert "[true, 3, 1, 7, 8, true]" == tell(script, child)
    assert "7" == tell(follows, child)


def test_what_torchrun_has_started_is_left_as_it_is() -> None:
    elastic = SESSION | {
        "TORCHELASTIC_RUN_ID": "x",
        "GROUP_RANK": "1",
        "RANK": "5",
        "WORLD_SIZE": "6",
    }

    assert "[true, 1, 1, 5, 6, true]" == tell("print(json.dumps(told()))", elastic)


def test_settings_that_would_wait_for_ever_are_refused() -> None:
    refused = tell("made.validate_settings(2, 2)", SESSION)

    assert "num_nodes=4" in refused
    assert "this session has 4 containers" in refused


def test_containers_that_would_share_a_device_are_refused() -> None:
    cuda = "types.SimpleNamespace(device_count=lambda: 2)"
    torch = f"sys.modules['torch'] = types.SimpleNamespace(cuda={cuda}); "
    script = torch + "made.validate_settings(1, 4); print('fine')"

    assert "--env-profile node" in tell(script, SESSION)
    assert "fine" == tell(script, SESSION | {"CUDA_VISIBLE_DEVICES": "1"})
    assert "fine" == tell(script, SESSION | {"LOCAL_WORLD_SIZE": "1"})


def test_outside_of_a_session_there_is_no_such_environment() -> None:
    assert "in no container of a Phalanx session" in tell("", {})


def test_the_page_shows_the_class_that_is_tried_on_real_engines() -> None:
    program = (ROOT / "tests/real/programs/my_cluster.py").read_text()
    shown = program.split('"""', 2)[2].strip()

    assert shown in (ROOT / "docs/LIGHTNING.md").read_text()


def test_the_file_for_scripts_needs_nothing_else_of_ours() -> None:
    lines = Path(phalanx_lightning.__file__).read_text().splitlines()
    imports = [line.split()[1] for line in lines if line.startswith(("import ", "from "))]

    assert {name.split(".")[0] for name in imports} <= {*sys.stdlib_module_names}
