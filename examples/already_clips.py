"""A loop that clips hides its explosions from whoever looks at the step; measure() looks before. CPU, 2 s."""

import torch
from torch import nn

from gradguard import Guard


def train(measure_before_clipping: bool) -> Guard:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(16, 64), nn.ReLU(), nn.Linear(64, 1))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    guard = Guard(model, optimizer)
    for step in range(200):
        x = torch.randn(32, 16) * (100 if step == 150 else 1)  # one poisoned batch
        optimizer.zero_grad()
        nn.functional.mse_loss(model(x), x.sum(1, keepdim=True)).backward()
        if measure_before_clipping:
            guard.measure()
        nn.utils.clip_grad_norm_(model.parameters(), 0.5)
        optimizer.step()
    return guard


for measure_before_clipping in (False, True):
    guard = train(measure_before_clipping)
    print(guard.summary())
    print("largest norm seen:", guard.history["grad_norm/total"].high.max().item(), end="\n\n")
