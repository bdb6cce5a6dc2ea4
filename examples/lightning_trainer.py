"""A Trainer: one callback. It measures, says what it finds, prints a summary, and changes nothing in the training."""

import torch
from pytorch_lightning import LightningModule, Trainer
from sklearn.datasets import load_digits
from torch import nn

from gradguard.lightning import GradGuard


class Digits(LightningModule):
    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))

    def training_step(self, batch, batch_idx):
        return nn.functional.cross_entropy(self.net(batch[0]), batch[1])

    def configure_optimizers(self):
        return torch.optim.AdamW(self.parameters(), lr=1e-3)


pixels, labels = load_digits(return_X_y=True)
data = torch.utils.data.TensorDataset(torch.tensor(pixels).float() / 16, torch.tensor(labels))
guard = GradGuard()
trainer = Trainer(max_epochs=5, callbacks=[guard])  # logs and the run record go where the Trainer's logger writes
trainer.fit(Digits(), torch.utils.data.DataLoader(data, batch_size=32, shuffle=True))

print("largest norm:", round(float(guard.guard.history["grad_norm/total"].high.max()), 2))
