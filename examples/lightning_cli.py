"""LightningCLI: the callback in YAML (lightning_cli.yaml). Needs `pip install "jsonargparse[signatures]"`."""

import sys
from pathlib import Path

import torch
from pytorch_lightning import LightningModule
from pytorch_lightning.cli import LightningCLI
from torch import nn


class Sums(LightningModule):
    def __init__(self, hidden: int = 16):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(8, hidden), nn.Tanh(), nn.Linear(hidden, 1))

    def training_step(self, batch, batch_idx):
        return (self.net(batch) - batch.sum(1, keepdim=True)).square().mean()

    def train_dataloader(self):
        return torch.utils.data.DataLoader(torch.randn(3200, 8), batch_size=16)

    def configure_optimizers(self):
        return torch.optim.AdamW(self.parameters(), lr=1e-2)


if __name__ == "__main__":
    arguments = sys.argv[1:] or ["fit", "--config", str(Path(__file__).with_suffix(".yaml"))]
    LightningCLI(Sums, seed_everything_default=0, args=arguments)
