"""Train until the session is warned, and in the next attempt five steps more.

Argument: a folder that all containers see. Each rank prints the step at which it began.
"""

from __future__ import annotations

import os
import sys
import time
from typing import Any

import line
from lightning import Callback, Trainer
from phalanx_lightning import PhalanxEnvironment, PhalanxRequeue

FIRST = os.environ["PHALANX_ATTEMPT"] == "1"


class Watch(Callback):
    """Says where a rank begins; lets the second attempt come to its end."""

    def on_train_start(self, trainer: Trainer, *_: Any) -> None:
        self.end = trainer.global_step + (1_000_000 if FIRST else 5)
        sys.stdout.write(f"attempt {os.environ['PHALANX_ATTEMPT']} from {trainer.global_step}\n")
        sys.stdout.flush()

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        time.sleep(0.05)
        trainer.should_stop = trainer.global_step >= self.end


requeue = PhalanxRequeue(sys.argv[1])
trainer = Trainer(
    max_epochs=-1,
    num_nodes=int(os.environ["BACKENDAI_CLUSTER_SIZE"]),
    devices=1,
    plugins=[PhalanxEnvironment()],
    callbacks=[requeue, Watch()],
    **line.QUIET,
)
trainer.fit(line.Line(), line.data(64), ckpt_path=requeue.ckpt_path)
sys.stdout.write(f"ended at {trainer.global_step}\n")
