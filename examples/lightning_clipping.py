"""Clipping in a Trainer: the encoder at a fixed norm, the rest by what is usual. CPU, 5 s."""

import torch
from pytorch_lightning import LightningModule, Trainer
from torch import nn

from gradguard.clip import NormClip, PerModule, ZClip
from gradguard.lightning import GradientClipping
from gradguard.recover import Skip


class Tagger(LightningModule):
    def __init__(self):
        super().__init__()
        self.encoder, self.head = nn.LSTM(8, 32, batch_first=True), nn.Linear(32, 1)

    def training_step(self, batch, batch_idx):
        target = batch.sum(2, keepdim=True).cumsum(1)
        return nn.functional.mse_loss(self.head(self.encoder(batch)[0]), target)

    def configure_optimizers(self):
        return torch.optim.AdamW(self.parameters(), lr=1e-2)


if __name__ == "__main__":
    torch.manual_seed(0)
    clip = PerModule({"encoder": NormClip(0.5), "*": ZClip()})
    clipping = GradientClipping(clip, recover=Skip(budget=5))
    options = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    trainer = Trainer(max_epochs=1, callbacks=[clipping], **options)
    trainer.fit(Tagger(), torch.utils.data.DataLoader(torch.randn(3200, 12, 8), batch_size=16))
    print(clipping.guard.summary())
    print("encoder scaled down to at least:", clipping.guard.history["clip/coefficient/encoder"].low.min().item())
