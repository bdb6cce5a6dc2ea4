"""Many to many: a tagger of packed sentences, with torch's LSTM, and ours by one changed line. CPU, 15 s."""

import torch
from torch import nn
from torch.nn.utils.rnn import pack_sequence

from gradguard import nn as gnn


class Tagger(nn.Module):
    def __init__(self, recurrent: type[nn.Module]) -> None:
        super().__init__()
        self.embed = nn.Embedding(12, 32)
        self.lstm = recurrent(32, 64, num_layers=2, bidirectional=True)  # the one line: nn.LSTM or gnn.LayerNormLSTM
        self.head = nn.Linear(128, 2)

    def forward(self, words):
        packed = pack_sequence([self.embed(w) for w in words], enforce_sorted=False)
        return self.head(self.lstm(packed)[0].data)


def sentences(n: int):  # words 0 to 11; tags: whether 1 has come an odd number of times since the last 0
    words = [torch.randint(0, 12, (length,)) for length in torch.randint(5, 60, (n,)).tolist()]
    ones = [(w == 1).cumsum(0) for w in words]
    tags = [(one - torch.where(w == 0, one, 0).cummax(0).values) % 2 for w, one in zip(words, ones, strict=True)]
    return words, pack_sequence(tags, enforce_sorted=False).data


for recurrent in (nn.LSTM, gnn.LSTM, gnn.LayerNormLSTM):
    torch.manual_seed(0)
    model = Tagger(recurrent)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-2)
    for _ in range(60):
        words, tags = sentences(32)
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(words), tags).backward()
        optimizer.step()
    words, tags = sentences(500)
    right = (model(words).argmax(1) == tags).float().mean()
    print(f"{recurrent.__module__.split('.')[0]}.{recurrent.__name__}: {right:.1%} of the tags are right")
