"""Train one step with Lightning's own idea of where it runs; print who this rank is as JSON.

Arguments: devices (containers of a host), nodes (hosts).
"""

from __future__ import annotations

import json
import sys

import torch
from lightning import LightningModule, Trainer
from torch.utils.data import DataLoader, TensorDataset


class Line(LightningModule):
    """The smallest thing that has a weight to train."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(2, 1)

    def training_step(self, batch: list[torch.Tensor], _number: int) -> torch.Tensor:
        return self.layer(batch[0]).square().mean()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


trainer = Trainer(
    accelerator="cpu",
    devices=int(sys.argv[1]),
    num_nodes=int(sys.argv[2]),
    strategy="ddp",
    max_steps=1,
    logger=False,
    enable_checkpointing=False,
    enable_progress_bar=False,
    enable_model_summary=False,
)
model = Line()
trainer.fit(model, DataLoader(TensorDataset(torch.randn(8, 2)), batch_size=1))
found = {
    "rank": trainer.global_rank,
    "local": trainer.local_rank,
    "node": trainer.node_rank,
    "world": trainer.world_size,
    "weight": model.layer.weight.flatten().tolist(),
}
print(json.dumps(found), flush=True)
