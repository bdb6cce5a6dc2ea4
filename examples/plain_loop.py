"""One line in a plain loop: which layers of a deep sigmoid network get no gradient. CPU, 2 s."""

import torch
from torch import nn

from gradguard import Guard

torch.manual_seed(0)
layers = [layer for _ in range(10) for layer in (nn.Linear(16, 16), nn.Sigmoid())]
model = nn.Sequential(*layers, nn.Linear(16, 1))
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

guard = Guard(model, optimizer)
for _ in range(200):
    x = torch.randn(32, 16)
    optimizer.zero_grad()
    loss = (model(x) - x.mean(1, keepdim=True)).square().mean()
    guard.record_loss(loss)
    loss.backward()
    optimizer.step()

for finding in guard.diagnose():
    print(finding)
