"""Resume: the callback's state lies in the checkpoint, so that history, findings and the run record go on."""

import tempfile

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


folder = tempfile.mkdtemp()


def fit(epochs, ckpt_path=None):
    trainer = Trainer(max_epochs=epochs, callbacks=[GradGuard(run_dir=folder, summary=False)])
    trainer.fit(Sums(), torch.utils.data.DataLoader(torch.randn(1600, 8), batch_size=16), ckpt_path=ckpt_path)
    return trainer.checkpoint_callback.best_model_path


first = fit(epochs=2)
print("the record reaches step", int(read(folder).history["loss"].steps[-1]))
fit(epochs=5, ckpt_path=first)  # without the checkpoint, the folder would be refused: it holds another run
run = read(folder)
print("the record reaches step", int(run.history["loss"].steps[-1]), "and is", run.manifest.status)
