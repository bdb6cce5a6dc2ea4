"""Networks of the sixth transformers, and what is done to them before they are trained.

Shape legend: N = examples, T = tokens, F = features, W = width, C = classes.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim.lr_scheduler import ReduceLROnPlateau

from benchmarks.faults.data import digits
from benchmarks.faults.fourth.attention_models import Words, sines, stack
from benchmarks.faults.sixth.attention_data import DATES, FRAMES, GOODS, ISO, MACHINES, SPEAKERS


class Voices(nn.Module):
    """Mean and deviation of what frames became, and a head; ``least`` is added below the root: Snyder et al., 2018."""

    def __init__(self, width: int = 24, *, least: float = 1e-4) -> None:
        super().__init__()
        self.first, self.body, self.norm = nn.Linear(8, width), stack(width, 1, dropout=0.1), nn.LayerNorm(width)
        self.head, self.least = nn.Sequential(nn.Linear(2 * width, 32), nn.ReLU(), nn.Linear(32, SPEAKERS)), least
        self.register_buffer("place", 0.5 * sines(FRAMES, width))

    def forward(self, x: Tensor) -> Tensor:
        """Give logits."""
        there = x[..., 8:]
        h = self.norm(self.body(self.first(x[..., :8]) + self.place, src_key_padding_mask=there[..., 0] == 0))
        many = there.sum(1)
        mean = (h * there).sum(1) / many
        spread = ((h - mean[:, None]).square() * there).sum(1) / many
        out: Tensor = self.head(torch.cat([mean, (spread + self.least).sqrt()], 1))
        return out


class Stem(nn.Module):
    """Two convolutions with tanh units over the samples, [N, T, F] to [N, T / 2, W]."""

    def __init__(self, inputs: int, width: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            *(nn.Conv1d(inputs, width, 3, padding=1), nn.Tanh()),
            *(nn.Conv1d(width, width, 3, stride=2, padding=1), nn.Tanh()),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Give tokens."""
        out: Tensor = self.body(x.mT).mT
        return out


def motor(width: int = 24) -> nn.Module:
    """Build a stem, a layer of attention over half as many tokens, and a head on their mean."""
    return nn.Sequential(Stem(2, width), stack(width, 1), nn.LayerNorm(width), Mean(), nn.Linear(width, MACHINES))


class Mean(nn.Module):
    """The mean over tokens."""

    def forward(self, x: Tensor) -> Tensor:
        """Give [N, W]."""
        return x.mean(1)


class Prefix(nn.Module):
    """A decoder that reads five symbols, sees all of them at once, and writes four."""

    def __init__(self, width: int = 32, read: int = 5, written: int = 4) -> None:
        super().__init__()
        length = read + written
        self.table, self.place = Words(DATES, width), nn.Parameter(0.1 * torch.randn(length, width))
        self.body, self.norm, self.head = stack(width, 1, wide=4), nn.LayerNorm(width), nn.Linear(width, ISO)
        later = torch.ones(length, length, dtype=torch.bool).triu(1)
        later[:read, :read] = False
        self.register_buffer("later", later)
        self.written = written

    def forward(self, x: Tensor) -> Tensor:
        """Give logits of what is written, [N, C, T]."""
        h = self.norm(self.body(self.table(x) + self.place, mask=self.later))
        out: Tensor = self.head(h[:, -self.written :]).mT
        return out


class Next(nn.Module):
    """Self-attention over what came before, compared with a table of goods: Kang & McAuley, 2018."""

    def __init__(self, width: int = 32, length: int = 8) -> None:
        super().__init__()
        self.table, self.place = nn.Embedding(GOODS, width), nn.Parameter(0.02 * torch.randn(length, width))
        nn.init.normal_(self.table.weight, std=0.1)
        self.drop, self.body, self.norm = nn.Dropout(0.1), stack(width, 1, dropout=0.1), nn.LayerNorm(width)
        self.register_buffer("later", torch.ones(length, length, dtype=torch.bool).triu(1))

    def forward(self, x: Tensor) -> Tensor:
        """Give logits of the next goods, [N, C, T]."""
        h = self.body(self.drop(self.table(x) + self.place), mask=self.later)
        out: Tensor = (self.norm(h) @ self.table.weight.T).mT
        return out


class Plateau:
    """A factor of the rate, a tenth of it whenever the mean loss of eight steps no longer gets better."""

    def __init__(self, mode: str) -> None:
        at_one = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
        self.optimizer = at_one
        self.scheduler = ReduceLROnPlateau(at_one, mode, factor=0.1, patience=2, min_lr=0.01)  # type: ignore[arg-type]
        self.losses: list[float] = []

    def loss(self, output: Tensor, y: Tensor) -> Tensor:
        """Give the cross entropy, and remember it."""
        value = F.cross_entropy(output, y)
        self.losses.append(float(value.detach()))
        return value

    def __call__(self, step: int) -> float:
        """Give the factor."""
        if len(self.losses) == 8:
            self.scheduler.step(sum(self.losses) / 8)
            self.losses = []
        return float(self.optimizer.param_groups[0]["lr"])


class Rows(nn.Module):
    """Rows of a digit as tokens, a body and a head."""

    def __init__(self, outputs: int, width: int = 32) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(8, width), Placed(8, width), stack(width, 1), nn.LayerNorm(width), Mean())
        self.head = nn.Linear(width, outputs)

    def forward(self, x: Tensor) -> Tensor:
        """Give logits."""
        out: Tensor = self.head(self.body(x))
        return out


class Placed(nn.Module):
    """Add what tells places apart."""

    def __init__(self, length: int, width: int) -> None:
        super().__init__()
        self.register_buffer("place", 0.5 * sines(length, width))

    def forward(self, x: Tensor) -> Tensor:
        """Add."""
        return x + self.get_buffer("place")


def pretrained(steps: int = 60) -> nn.Module:
    """Learn whether digits are even, then freeze the body and put a head for all ten upon it."""
    net, of = Rows(2), digits("rows")
    optimizer = torch.optim.AdamW(net.parameters(), lr=2e-3)
    for _ in range(steps):
        at = torch.randint(len(of.x), (32,))
        optimizer.zero_grad()
        F.cross_entropy(net(of.x[at]), of.y[at] % 2).backward()
        optimizer.step()
    net.zero_grad()
    net.body.requires_grad_(False)
    net.head = nn.Linear(net.head.in_features, 10)
    return net


@torch.no_grad()
def from_bytes(model: nn.Module, *, scaled: bool = True) -> None:
    """Keep each matrix as whole numbers from -127 to 127 and read it back; ``scaled`` multiplies by its scale."""
    for p in model.parameters():
        if p.dim() > 1:
            scale = p.abs().max() / 127
            p.copy_((p / scale).round() * (scale if scaled else 1.0))
