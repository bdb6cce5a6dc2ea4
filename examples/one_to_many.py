"""One to many: digits drawn row by row from nothing but a label; trained as layers, drawn with a cell. CPU, 11 s."""

import torch
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from torch import nn

from gradguard import nn as gnn

torch.manual_seed(0)
digits = load_digits()
images, labels = torch.tensor(digits.images).float() / 16, torch.tensor(digits.target)
begin, layers, head = nn.Embedding(10, 256), gnn.LSTM(8, 128, batch_first=True), nn.Linear(128, 8)
parameters = [*begin.parameters(), *layers.parameters(), *head.parameters()]
optimizer = torch.optim.Adam(parameters, lr=3e-3)

for _ in range(20):
    for batch in torch.randperm(len(images)).split(64):
        rows = images[batch]
        before = torch.cat([torch.zeros(len(batch), 1, 8), rows[:, :-1]], 1)  # teacher forcing: the true row before
        states = tuple(s[None].contiguous() for s in begin(labels[batch]).chunk(2, 1))  # the label is h and c
        optimizer.zero_grad()
        nn.functional.mse_loss(head(layers(before, states)[0]).sigmoid(), rows).backward()
        optimizer.step()

cell = gnn.LSTMCell(8, 128)
cell.load_state_dict({name.removesuffix("_l0"): weight for name, weight in layers.state_dict().items()})
wanted = torch.arange(10).repeat(10)
with torch.no_grad():
    states, drawn = begin(wanted).chunk(2, 1), [torch.zeros(len(wanted), 8)]
    for _ in range(8):  # what was drawn is what comes next, with a little noise, so that no two are alike
        states = cell((drawn[-1] + 0.1 * torch.randn(len(wanted), 8)).clamp(0, 1), states)
        drawn.append(head(states[0]).sigmoid())

judge = LogisticRegression(max_iter=2000).fit(digits.data / 16, digits.target)
wrong = (judge.predict(torch.stack(drawn[1:], 1).flatten(1).numpy()) != wanted.numpy()).sum()
print(f"drawn digits that a classifier of real ones misreads: {wrong} of {len(wanted)}")
