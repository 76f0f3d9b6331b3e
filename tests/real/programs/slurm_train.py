"""Train as a job of SLURM, with nothing said about where; in the next attempt twenty steps more.

Arguments: a folder for checkpoints, nodes, tasks on each. Options: `HUP` has Lightning requeue at
that signal, `stay` never, `deaf=N` lets rank N miss the first attempt's warning. Each rank prints
where it is and at which step it began.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from typing import Any

import line
from lightning import Callback, Trainer
from lightning.pytorch.plugins.environments import SLURMEnvironment

FIRST = os.environ["SLURM_RESTART_COUNT"] == "0"
folder, nodes, devices, *options = sys.argv[1:]
plugins = []
if "HUP" in options:
    plugins = [SLURMEnvironment(requeue_signal=signal.SIGHUP)]
if "stay" in options:
    plugins = [SLURMEnvironment(auto_requeue=False)]


class Watch(Callback):
    """Says where a rank begins; lets the second attempt come to its end."""

    def on_train_start(self, trainer: Trainer, *_: Any) -> None:
        self.end = trainer.global_step + (1_000_000 if FIRST else 20)
        if FIRST and f"deaf={trainer.global_rank}" in options:
            signal.signal(signal.SIGUSR1, signal.SIG_IGN)
        place = (trainer.global_rank, trainer.local_rank, trainer.node_rank, trainer.world_size)
        environment = type(trainer.strategy.cluster_environment).__name__
        said = f"rank {place} by {environment} from {trainer.global_step}\n"
        sys.stdout.write(said)
        sys.stdout.flush()

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        time.sleep(0.05)
        trainer.should_stop = trainer.global_step >= self.end


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
