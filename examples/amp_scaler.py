"""fp16 with a GradScaler: norms are unscaled, overflows are counted and raise no alarm. CPU, 3 s."""

import torch
from torch import nn

from gradguard import Guard

torch.manual_seed(0)
model = nn.Sequential(nn.Linear(16, 64), nn.ReLU(), nn.Linear(64, 1))
optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
scaler = torch.amp.GradScaler("cpu", init_scale=2.0**22)  # "cuda" on a GPU

guard = Guard(model, optimizer, scaler=scaler)
for _ in range(200):
    x = torch.randn(32, 16)
    optimizer.zero_grad()
    with torch.autocast("cpu", torch.float16):
        output = model(x)
    loss = nn.functional.mse_loss(output.float(), x.mean(1, keepdim=True))
    guard.record_loss(loss)
    scaler.scale(loss).backward()
    scaler.step(optimizer)
    scaler.update()

print(guard.summary())
