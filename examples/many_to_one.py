"""Many to one: a digit is read row by row, and the last state says which one it is. CPU, 8 s."""

import torch
from sklearn.datasets import load_digits
from torch import nn

from gradguard import nn as gnn

torch.manual_seed(0)
digits = load_digits()
images, labels = torch.tensor(digits.images).float() / 16, torch.tensor(digits.target)
order = torch.randperm(len(images))
known, unseen = order[:1400], order[1400:]


class Reader(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.rows = gnn.LayerNormLSTM(8, 64, batch_first=True)
        self.head = nn.Linear(64, 10)

    def forward(self, images):
        _, (h, _) = self.rows(images)  # [B, 8 rows, 8 pixels]
        return self.head(h[-1])


model = Reader()
optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
for _ in range(10):
    for batch in known[torch.randperm(len(known))].split(50):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(images[batch]), labels[batch]).backward()
        optimizer.step()

right = (model(images[unseen]).argmax(1) == labels[unseen]).float().mean()
print(f"unseen digits read right: {right:.1%} of {len(unseen)}")
