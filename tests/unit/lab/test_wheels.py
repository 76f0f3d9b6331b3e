from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from phalanx_lab import wheels


@pytest.mark.parametrize(
    ("metadata", "cpu"),
    [
        ({"version": "2.13.0+cpu", "requires_dist": ["filelock"]}, True),
        ({"version": "2.13.0", "requires_dist": ["filelock", "sympy"]}, True),
        ({"version": "2.13.0", "requires_dist": ["nvidia-cublas-cu13==13.0.0"]}, False),
        ({"version": "2.13.0", "requires_dist": ["cuda-toolkit[cublas]"]}, False),
        ({"version": "2.13.0+cu130", "requires_dist": ["filelock"]}, False),
    ],
)  # fmt: skip
def test_only_a_build_without_cuda_is_taken(metadata: dict[str, Any], cpu: object) -> None:
    assert cpu == wheels.is_cpu_build(metadata)


def test_commands_of_packages_are_run_by_the_images_python_and_others_stay(tmp_path: Path) -> None:
    (tmp_path / "ray").write_bytes(b"#!/venv/bin/python3.12\nimport ray\n")
    (tmp_path / "ds_ssh").write_bytes(b"#!/bin/bash\nssh\n")
    (tmp_path / "ninja").write_bytes(b"\x7fELF\xff")

    wheels.run_by_the_images_python(str(tmp_path))

    assert {
        "ray": b"#!/usr/bin/python3\nimport ray\n",
        "ds_ssh": b"#!/bin/bash\nssh\n",
        "ninja": b"\x7fELF\xff",
    } == {file.name: file.read_bytes() for file in tmp_path.iterdir()}
