"""Train with Phalanx's own Lightning environment; print who each process is as JSON.

Arguments: devices (of a container), nodes (containers), and which library.
"""

from __future__ import annotations

import sys

import line
from phalanx_lightning import PhalanxEnvironment

if sys.argv[3] == "pytorch_lightning":
    from pytorch_lightning import Trainer
else:
    from lightning import Trainer

line.train(
    Trainer,
    devices=int(sys.argv[1]),
    num_nodes=int(sys.argv[2]),
    plugins=[PhalanxEnvironment()],
)
