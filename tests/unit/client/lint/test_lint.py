"""What `phalanx lint` finds, and what it lets pass."""

from __future__ import annotations

import textwrap

import pytest

from phalanx_client.lint import lint

TRAIN = "import lightning as L\nL.Trainer(devices=2, num_nodes=2)\n"
HEAD = "#!/bin/bash\n#SBATCH --nodes=2\n#SBATCH --ntasks-per-node=2\n"


def script(body: str, program: str = TRAIN, head: str = HEAD) -> list[tuple[str, int, str]]:
    """What is found in a batch script with `train.py` beside it."""
    files = {"train.py": program}
    found = lint.of_script("job.sh", head + textwrap.dedent(body), files.get)
    return [(one.file, one.line, one.code) for one in found]


@pytest.mark.parametrize(
    ("body", "program", "head", "found"),
    [
        ("srun python train.py\n", TRAIN, HEAD, []),
        ("srun -u --label \\\n  python3 train.py --lr 1\n", TRAIN, HEAD, []),
        ("python train.py\n", TRAIN, HEAD, [("job.sh", 4, "no-srun")]),
        ("cd x && python train.py | tee log\n", TRAIN, HEAD, [("job.sh", 4, "no-srun")]),
        (
            "srun python train.py\n",
            TRAIN.replace("devices=2", "devices=8"),
            HEAD,
            [("train.py", 2, "ntasks-devices")],
        ),
        (
            "srun python train.py\n",
            TRAIN,
            "#!/bin/sh\n#SBATCH -N 2\n",
            [("train.py", 2, "ntasks-devices")],
        ),
        (
            "srun python train.py\n",
            TRAIN.replace("num_nodes=2", "num_nodes=4"),
            HEAD,
            [("train.py", 2, "nodes")],
        ),
        ("srun python train.py\n", "Trainer(devices=2)\n", HEAD, [("train.py", 1, "nodes")]),
        ("srun python train.py\n", "D = 2\nTrainer(devices=D, num_nodes=D)\n", HEAD, []),
        ("srun python train.py\n", "Trainer(devices='auto', num_nodes=a.n)\n", HEAD, []),
        ("srun python train.py\n", "Trainer(**options)\n", HEAD, []),
        (
            "srun python train.py\n",
            TRAIN,
            "#!/bin/sh\n#SBATCH -N 2\n#SBATCH --ntasks 4\n",
            [],
        ),
        (
            "export MASTER_ADDR=localhost\nsrun python train.py\n",
            TRAIN,
            HEAD,
            [("job.sh", 4, "master-localhost")],
        ),
        ("MASTER_ADDR=$(hostname) srun python train.py\n", TRAIN, HEAD, []),
        (
            "GLOO_SOCKET_IFNAME=^lo srun python train.py\n",
            TRAIN,
            HEAD,
            [("job.sh", 4, "interface-name")],
        ),
        ("export NCCL_SOCKET_IFNAME=^lo\nsrun python train.py\n", TRAIN, HEAD, []),
        (
            "srun torchrun --nnodes=3 --nproc_per_node 2 train.py\n",
            "",
            "#!/bin/sh\n#SBATCH -N 2\n",
            [("job.sh", 3, "nodes")],
        ),
        (
            "srun torchrun --nnodes $SLURM_NNODES --node_rank 0 train.py\n",
            "",
            "#!/bin/sh\n#SBATCH -N 2\n",
            [("job.sh", 3, "node-rank")],
        ),
        (
            "srun torchrun --standalone train.py\n",
            "",
            HEAD,
            [("job.sh", 4, "master-localhost"), ("job.sh", 4, "torchrun-tasks")],
        ),
        (
            "LOCAL_RANK=0 srun torchrun --nnodes 2 train.py\n",
            "",
            "#!/bin/sh\n#SBATCH -N 2\n",
            [("job.sh", 3, "local-rank")],
        ),
        (
            "srun python train.py\n",
            'import os\nos.environ["MASTER_ADDR"] = "127.0.0.1"\n',
            HEAD,
            [("train.py", 2, "master-localhost")],
        ),
        (
            "srun python train.py\n",
            'd.init_process_group("gloo", init_method="tcp://localhost:29500")\n',
            HEAD,
            [("train.py", 1, "loopback")],
        ),
        (
            "python other.py\nsrun python train.py\n",
            "n = 8\nd.init_process_group(world_size=n)\n",
            "#!/bin/sh\n#SBATCH -N 2 --ntasks-per-node=2\n",
            [("train.py", 2, "world-size")],
        ),
        (
            "srun python train.py\n",
            "d.init_process_group(world_size=8)\n",
            "#!/bin/sh\n#SBATCH -N 2 -n 8\n",
            [],
        ),
        ("srun python train.py\n", "this is no python", HEAD, []),
        ("srun python other.py\n", TRAIN, HEAD, []),
        ("true\n", TRAIN, "#!/bin/sh\n#SBATCH --nodse=2\n", [("job.sh", 0, "sbatch")]),
    ],
)
def test_a_batch_script_and_its_program_are_compared(
    body: str, program: str, head: str, found: list[tuple[str, int, str]]
) -> None:
    assert found == script(body, program, head)


@pytest.mark.parametrize(
    ("text", "size", "found"),
    [
        (TRAIN, None, []),
        (TRAIN, 4, []),
        (TRAIN, 2, [(2, "world-size")]),
        ("Trainer(devices=8)\n", 1, []),
        ("Trainer(devices=[0, 1], num_nodes=2)\n", 1, [(1, "world-size")]),
        ("d.init_process_group(world_size=8)\n", 4, [(1, "world-size")]),
        ("d.init_process_group('gloo', world_size=4)\n", 4, []),
        ("d.init_process_group(world_size=8)\n", 1, []),
        ("s.bind(('127.0.0.1', 12345))\n", 2, [(1, "loopback")]),
        ("s.bind(('127.0.0.1', 12345))\n", 1, []),
        ("import os\nos.environ.setdefault('MASTER_PORT', '29500')\n", 2, [(2, "master-port")]),
        ("import os\nos.environ['MASTER_PORT'] = '12345'\n", 2, []),
        (
            "import os\nos.environ['LOCAL_RANK'] = '0'\nTrainer(devices=4)\n",
            1,
            [(2, "local-rank")],
        ),
        ("def f(:\n", 2, [(1, "syntax")]),
        ("x\0", 2, [(0, "syntax")]),
    ],
)
def test_a_program_is_looked_at_alone(
    text: str, size: int | None, found: list[tuple[int, str]]
) -> None:
    seen = lint.of_python("train.py", text, size)

    assert found == [(one.line, one.code) for one in seen]


@pytest.mark.parametrize(
    ("spec", "found"),
    [
        ({"size": 4, "command": ["python", "train.py"]}, []),
        ({"size": 3, "command": ["python", "train.py"]}, ["world-size"]),
        ({"size": 2, "env_profile": "torchrun", "command": ["torchrun", "train.py"]}, []),
        (
            {"size": 3, "env_profile": "torchrun", "command": ["torchrun", "train.py"]},
            ["nodes"],
        ),
        (
            {
                "size": 2,
                "env_profile": "torchrun",
                "command": ["torchrun", "--nnodes", "4", "x.py"],
            },
            ["nodes"],
        ),
        ({"size": 2, "command": ["torchrun", "--master_port=29500", "x.py"]}, ["master-port"]),
        (
            {"size": 2, "master_port": 29500, "command": ["torchrun", "--master_port=29500", "x"]},
            [],
        ),
        ({"size": 2, "env": {"GLOO_SOCKET_IFNAME": "^lo"}}, ["interface-name"]),
        ({"size": 2, "env": {"MASTER_ADDR": "localhost"}}, ["master-localhost"]),
        ({"env": {"MASTER_ADDR": "localhost"}}, []),
        ({"roles": [{"name": "main", "command": ["python", "nothing.py"]}], "size": "x"}, []),
    ],
)
def test_a_sessions_file_is_compared_with_its_program(
    spec: dict[str, object], found: list[str]
) -> None:
    files = {"train.py": TRAIN}

    assert found == [one.code for one in lint.of_session("job.yaml", spec, files.get)]
