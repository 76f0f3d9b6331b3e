"""Train as a job of SLURM, with nothing said about where.

Arguments: a folder for checkpoints, nodes, tasks on each. Options: `HUP` has Lightning requeue at
that signal, `stay` never, `ahead=N` lets rank N be a batch ahead of the others when the warning
comes. Each rank writes to `/shared`, or to the folder that `TOLD` names, where it is and at which
step it began. The first attempt's sixth batch takes for ever; another attempt ends with it.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import line
from lightning import Callback, Trainer
from lightning.pytorch.plugins.environments import SLURMEnvironment

RESTARTS = os.environ["SLURM_RESTART_COUNT"]
STEPS = 5
folder, nodes, devices, *options = sys.argv[1:]
plugins = []
if "HUP" in options:
    plugins = [SLURMEnvironment(requeue_signal=signal.SIGHUP)]
if "stay" in options:
    plugins = [SLURMEnvironment(auto_requeue=False)]


class Watch(Callback):
    """Tells where a rank is, and how far it comes."""

    def on_train_start(self, trainer: Trainer, *_: Any) -> None:
        self.began = trainer.global_step

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        if trainer.global_step < self.began + STEPS:
            return
        if RESTARTS != "0":
            trainer.should_stop = True
        elif trainer.global_step == self.began + STEPS:
            self._tell(trainer)
            if f"ahead={trainer.global_rank}" not in options:
                time.sleep(1000)

    def on_train_end(self, trainer: Trainer, *_: Any) -> None:
        self._tell(trainer)

    def _tell(self, trainer: Trainer) -> None:
        place = (trainer.global_rank, trainer.local_rank, trainer.node_rank, trainer.world_size)
        environment = type(trainer.strategy.cluster_environment).__name__
        text = json.dumps([place, environment, self.began])
        path = Path(os.environ.get("TOLD", "/shared"), f"told-{RESTARTS}-{trainer.global_rank}")
        path.with_suffix(".new").write_text(text)
        path.with_suffix(".new").rename(path)


trainer = Trainer(
    max_epochs=-1,
    num_nodes=int(nodes),
    devices=int(devices),
    default_root_dir=folder,
    callbacks=[Watch()],
    plugins=plugins,
    **line.QUIET,
)
trainer.fit(line.Line(), line.data(64))
