from __future__ import annotations

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
