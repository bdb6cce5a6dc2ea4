"""Lightning Fabric: the wrapped model and optimizer go in as they are. CPU, 2 s."""

import torch
from lightning_fabric import Fabric
from torch import nn

from gradguard import Guard

fabric = Fabric(accelerator="cpu", precision="bf16-mixed")
fabric.seed_everything(0)
model = nn.Sequential(nn.Linear(16, 64), nn.ReLU(), nn.Linear(64, 1))
model, optimizer = fabric.setup(model, torch.optim.AdamW(model.parameters(), lr=1e-3))

with Guard(model, optimizer) as guard:
    for _ in range(200):
        x = torch.randn(32, 16)
        optimizer.zero_grad()
        loss = nn.functional.mse_loss(model(x).float(), x.mean(1, keepdim=True))
        guard.record_loss(loss)
        fabric.backward(loss)
        optimizer.step()

print(guard.summary())
