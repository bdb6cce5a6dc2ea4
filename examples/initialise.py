"""Two initialisers, and what they are for: adding up two marked numbers among a hundred. CPU, 15 s."""

import torch
from torch import nn

from gradguard import init

T = 100
for name in ("torch's default", "chrono_ and orthogonal_"):
    torch.manual_seed(0)
    lstm, head = nn.LSTM(2, 32), nn.Linear(32, 1)
    if name != "torch's default":
        print(init.describe(lstm))  # what looks wrong?
        print(init.chrono_(lstm, t_max=T) + init.orthogonal_(lstm))  # what was changed
    parameters = [*lstm.parameters(), *head.parameters()]
    optimizer = torch.optim.Adam(parameters, lr=1e-2)
    for _ in range(600):
        marks = torch.zeros(T, 32)
        for start in (0, T // 2):  # one in each half
            marks.scatter_(0, torch.randint(start, start + T // 2, (1, 32)), 1.0)
        numbers = torch.rand(T, 32)
        answer = head(lstm(torch.stack([numbers, marks], 2))[0][-1])[:, 0]
        loss = (answer - (numbers * marks).sum(0)).square().mean()
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
    print(f"{name}: {6 * loss.item():.2f} of the loss of one who remembers nothing")
