"""The smallest thing that Lightning can train, and what each rank found, as a line of JSON."""

from __future__ import annotations

import json
import sys
from typing import Any

import torch
from torch.utils.data import DataLoader, TensorDataset

if sys.argv[-1] == "pytorch_lightning":  # the same library under its older name
    from pytorch_lightning import LightningModule
else:
    from lightning import LightningModule

QUIET = {
    "accelerator": "cpu",
    "strategy": "ddp",
    "logger": False,
    "enable_checkpointing": False,
    "enable_progress_bar": False,
    "enable_model_summary": False,
}


class Line(LightningModule):
    """Two weights, and the gradients that the last step left."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(2, 1)
        self.gradients: list[float] = []

    def training_step(self, batch: list[torch.Tensor], _number: int) -> torch.Tensor:
        return self.layer(batch[0]).square().mean()

    def on_after_backward(self) -> None:
        self.gradients = self.layer.weight.grad.flatten().tolist()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def data(batches: int) -> DataLoader:
    """Random rows; each rank gets its own part of them."""
    return DataLoader(TensorDataset(torch.randn(batches, 2)), batch_size=1)


def train(trainer_class: type[Any], refusal: str = "", **settings: Any) -> None:
    """Train two steps, and print what was found in one piece: others print to the same stream."""
    trainer = trainer_class(max_steps=2, **QUIET, **settings)
    model = Line()
    trainer.fit(model, data(16))
    found = {
        "rank": trainer.global_rank,
        "local": trainer.local_rank,
        "node": trainer.node_rank,
        "world": trainer.world_size,
        "gradients": model.gradients,
        "weight": model.layer.weight.flatten().tolist(),
        "refusal": refusal,
    }
    sys.stdout.write(json.dumps(found) + "\n")
    sys.stdout.flush()
