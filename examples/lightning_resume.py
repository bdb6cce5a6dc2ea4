"""Resume: the callback's state lies in the checkpoint, so that history, findings and the run record go on."""

import torch
from pytorch_lightning import LightningModule, Trainer
from torch import nn

from gradguard.lightning import GradGuard
from gradguard.record import read


class Sums(LightningModule):
    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(8, 16), nn.Tanh(), nn.Linear(16, 1))

    def training_step(self, batch, batch_idx):
        return (self.net(batch) - batch.sum(1, keepdim=True)).square().mean()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.01)


def fit(epochs, ckpt_path=None):
    trainer = Trainer(max_epochs=epochs, callbacks=[GradGuard(run_dir="runs/sums", summary=False)])
    trainer.fit(Sums(), torch.utils.data.DataLoader(torch.randn(1600, 8), batch_size=16), ckpt_path=ckpt_path)
    return trainer.checkpoint_callback.best_model_path


first = fit(epochs=2)
print("in the record:", len(read("runs/sums").history["loss"].steps), "steps")
fit(epochs=5, ckpt_path=first)  # without the checkpoint, runs/sums would be refused: it holds another run
run = read("runs/sums")
print("in the record:", len(run.history["loss"].steps), "steps,", run.manifest.status, "on", run.manifest.device)
