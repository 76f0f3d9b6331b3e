"""Oumi's own launcher and command line, with real jobs; they are in `make long`."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from phalanx_client.integrations import oumi_jobs
from tests.real import oumi_venv
from tests.real.ground import BASE, PROGRAMS, Ground

pytestmark = [pytest.mark.real, pytest.mark.long, pytest.mark.timeout(900)]

CLOUD = ("--cloud", "phalanx")
JOB = """\
name: small
num_nodes: 2
working_dir: {folder}
resources:
  cloud: local
  image_id: docker:{image}
  cpus: 0.5+
  memory: 0.25
  disk_size: 100
envs:
  WORD: given
setup: echo "setup on $BACKENDAI_CLUSTER_HOST"
run: |
  {run}
"""


@pytest.fixture(scope="module")
def calls(ground: Ground, tmp_path_factory: pytest.TempPathFactory) -> Iterator[oumi_venv.Calls]:
    """Oumi with our cloud."""
    file = tmp_path_factory.mktemp("oumi") / "requirements.txt"
    cloud = Path(oumi_jobs.__file__).with_name("phalanx_oumi.py")
    file.write_text(f"{cloud}\n")
    calls = oumi_venv.Calls(ground.env, str(file))
    calls("oumi", "launch", "which")
    yield calls
    calls.close()


class Oumi:
    """`oumi launch` as a user runs it: every call is a process of its own."""

    def __init__(self, ground: Ground, calls: oumi_venv.Calls, folder: Path) -> None:
        self.ground = ground
        self.run = calls
        self.folder = folder

    def __call__(self, verb: str, *arguments: str) -> str:
        return self.run("oumi", "launch", verb, *arguments)

    def job(self, run: str) -> tuple[str, ...]:
        """Options that name a job which runs this on two nodes; the cloud is told besides."""
        file = self.folder / "job.yaml"
        file.write_text(JOB.format(folder=self.folder, image=BASE, run=run))
        return ("-c", str(file), "--resources.cloud", "phalanx")


@pytest.fixture
def oumi(calls: oumi_venv.Calls, clean: Ground, script: Path) -> Oumi:
    return Oumi(clean, calls, script)


def job_id(said: str) -> str:
    found = re.search(r"Job (\S+) queued on cluster", said)
    assert found, said
    return found[1]


def test_oumis_command_line_runs_jobs_and_every_process_knows_of_them(oumi: Oumi) -> None:
    (oumi.folder / "word.txt").write_text("from the working folder\n")
    good = oumi.job('cat word.txt; echo "$WORD on node $SKYPILOT_NODE_RANK"')
    first = oumi("up", "--cluster", "first_cluster", *good)
    again = oumi("logs", "--cluster", "first_cluster", *CLOUD)
    bad = oumi("up", "--cluster", "first_cluster", *oumi.job("exit 7"))
    shown = oumi("status", *CLOUD, "--cluster", "first_cluster")

    for said in (first, again):
        for line in (
            "[0 main1] setup on main1", "[1 sub1] setup on sub1",
            "[0 main1] from the working folder", "[1 sub1] from the working folder",
            "[0 main1] given on node 0", "[1 sub1] given on node 1",
        ):  # fmt: skip
            assert line in said, said
    assert f"Job {job_id(first)} finished with status SUCCEEDED" in first
    assert "Found an existing cluster: first_cluster" in bad
    assert f"Job {job_id(bad)} finished with status FAILED" in bad
    assert "exit code 7" in bad
    assert re.search(rf"{job_id(first)}\W+SUCCEEDED", shown), shown
    assert re.search(rf"{job_id(bad)}\W+FAILED", shown), shown


def test_a_detached_job_is_cancelled_by_another_process_down_to_its_last_container(
    oumi: Oumi,
) -> None:
    forever = oumi.job("sleep 1234")
    one, two = (
        job_id(oumi("up", "--cluster", "second_cluster", "--detach", *forever)) for _ in range(2)
    )
    oumi.ground.await_state(one, "running")
    oumi("cancel", *CLOUD, "--cluster", "second_cluster", "--id", one)
    after_cancel = {job: oumi.ground.show(job)["state"] for job in (one, two)}
    left = [name for name in containers(oumi.ground) if one in name]
    oumi("down", *CLOUD, "--cluster", "second_cluster")
    after_down = {job: oumi.ground.show(job)["state"] for job in (one, two)}

    assert "cancelled" == after_cancel[one]
    assert after_cancel[two] not in ("cancelled", "failed", "succeeded")
    assert [] == left
    assert {one: "cancelled", two: "cancelled"} == after_down
    assert [] == [name for name in containers(oumi.ground) if two in name]


def test_oumis_page_on_clusters_of_ones_own_works_from_python(oumi: Oumi) -> None:
    said = oumi.run(str(PROGRAMS / "oumi_seed.py"), BASE)
    told = [json.loads(line) for line in said.splitlines() if line.startswith("{")]

    assert "phalanx" in told[0]["clouds"]
    assert [
        {
            "names": ["first_cluster", "second_cluster"],
            "jobs": ["test", "test"],
            "done": [False, False],
        },
        {"cancelled": "CANCELLED", "done": True},
    ] == told[1:3]
    assert {"first_cluster", "second_cluster"} == {one["down"] for one in told[3:]}
    assert all("CANCELLED" == one["jobs"][0] for one in told[3:])


def containers(ground: Ground) -> list[str]:
    """The names of all containers of all hosts."""
    listings = [
        ground.docker(host, "ps", "-a", "--format", "{{.Names}}") for host in ground.lab.hosts
    ]
    return [name for listing in listings for name in listing.ok().splitlines()]
