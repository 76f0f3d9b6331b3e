"""Train with a cluster environment of one's own; print who this rank is as JSON.

Arguments: devices (containers of a host), nodes (hosts).
"""

from __future__ import annotations

import sys

import documented_cluster
import line
from lightning import Trainer
from my_cluster import MyClusterEnvironment

try:
    documented_cluster.MyClusterEnvironment()
    refusal = "none"
except TypeError as error:
    refusal = str(error)

line.train(
    Trainer,
    refusal=refusal,
    devices=int(sys.argv[1]),
    num_nodes=int(sys.argv[2]),
    plugins=[MyClusterEnvironment()],
)
