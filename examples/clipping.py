"""Poisoned batches on your own loop: ZClip cuts the spikes off, Skip leaves the NaN out. CPU, 3 s."""

import torch
from torch import nn

from gradguard import Guard
from gradguard.clip import ZClip
from gradguard.recover import Skip


def train(**treatment) -> tuple[nn.Module, Guard]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(16, 64), nn.BatchNorm1d(64), nn.ReLU(), nn.Linear(64, 1))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.02, momentum=0.9)
    guard = Guard(model, optimizer, **treatment)
    for step in range(400):
        x = torch.randn(32, 16)
        y = x.sum(1, keepdim=True)
        if step % 40 == 39:
            y = y * 1000  # a broken target
        if step == 200:
            x[0] = torch.nan
        optimizer.zero_grad()
        nn.functional.mse_loss(model(x), y).backward()
        optimizer.step()
    return model.eval(), guard


x = torch.randn(1000, 16, generator=torch.Generator().manual_seed(1))
for treatment in ({}, {"clip": ZClip(), "recover": Skip(budget=3)}):
    model, guard = train(**treatment)
    loss = nn.functional.mse_loss(model(x), x.sum(1, keepdim=True))
    print(guard.summary().split("try first")[0])
    print(f"loss on clean data: {loss.item():.3g}", end="\n\n")
