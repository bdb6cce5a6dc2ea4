"""Models upon tables, for the embedding programs of the sixth generation.

Shape legend: N = examples, W = width, C = classes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.faults.sixth import embedding_data as data


def _tables(sizes: Sequence[int], width: int, std: float) -> nn.ModuleList:
    tables = nn.ModuleList(nn.Embedding(n, width) for n in sizes)
    for table in tables:
        nn.init.normal_(table.get_parameter("weight"), std=std)
    return tables


def _looked_up(tables: nn.ModuleList, x: Tensor) -> list[Tensor]:
    return [table(x[:, i]) for i, table in enumerate(tables)]


class Swish(nn.Module):
    """An input times its sigmoid; ``whole`` off forgets the input."""

    def __init__(self, *, whole: bool) -> None:
        super().__init__()
        self.whole = whole

    def forward(self, x: Tensor) -> Tensor:
        """Apply."""
        return x * torch.sigmoid(x) if self.whole else torch.sigmoid(x)


class Tracks(nn.Module):
    """Eight layers upon the vectors of listener, track and hour, drawn as He et al. do."""

    def __init__(self, width: int = 8, wide: int = 32, depth: int = 8, *, whole: bool = True) -> None:
        super().__init__()
        self.tables = _tables(data.TRACKS, width, 0.5)
        parts: list[nn.Module] = []
        for i in range(depth):
            linear = nn.Linear(wide if i else 3 * width, wide)
            nn.init.kaiming_normal_(linear.weight, nonlinearity="relu")
            nn.init.zeros_(linear.bias)
            parts += [linear, Swish(whole=whole)]
        self.body = nn.Sequential(*parts, nn.Linear(wide, 2))

    def forward(self, x: Tensor) -> Tensor:
        """Give logits."""
        out: Tensor = self.body(torch.cat(_looked_up(self.tables, x), 1))
        return out


class Phrases(nn.Module):
    """The mean of vectors that were learnt elsewhere, and a network; ``told`` lets them be learnt further."""

    def __init__(self, width: int = 8, *, told: bool = True) -> None:
        super().__init__()
        vectors = 0.3 * torch.randn(data.PHRASES, width)
        self.table = nn.Embedding.from_pretrained(vectors, freeze=False) if told else (
            nn.Embedding.from_pretrained(vectors))  # fmt: skip
        self.body = nn.Sequential(nn.Linear(width, 32), nn.ReLU(), nn.Dropout(0.1), nn.Linear(32, data.TOPICS))

    def forward(self, x: Tensor) -> Tensor:
        """Give logits."""
        out: Tensor = self.body(self.table(x).mean(1))
        return out


class Rides(nn.Module):
    """Two layers upon vectors of places and hours."""

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.tables = _tables(data.RIDES, width, 0.3)
        self.body = nn.Sequential(nn.Linear(3 * width, 48), nn.ReLU(), nn.Linear(48, 48), nn.ReLU(), nn.Linear(48, 5))

    def forward(self, x: Tensor) -> Tensor:
        """Give logits."""
        out: Tensor = self.body(torch.cat(_looked_up(self.tables, x), 1))
        return out


class Shop(nn.Module):
    """What was looked at, compared with goods. Half of what it is compared with is drawn by how often it is bought.

    Args:
        bought: goods, by which that is counted.
        least: what is added to each count.
    """

    def __init__(self, bought: Tensor, least: float = 1.0, width: int = 16) -> None:
        super().__init__()
        self.seen, self.goods = _tables((data.SHOP, data.SHOP), width, 0.3)
        self.tower = nn.Sequential(nn.Linear(width, 32), nn.ReLU(), nn.Linear(32, width))
        counts = torch.bincount(bought, minlength=data.SHOP) + least
        self.register_buffer("often", counts / counts.sum())

    def forward(self, x: Tensor) -> Tensor:
        """Give logits of all goods."""
        out: Tensor = self.tower(self.seen(x).mean(1)) @ self.goods.get_parameter("weight").T
        return out

    def sampled(self, logits: Tensor, y: Tensor) -> Tensor:
        """Give the sampled softmax, corrected by how often goods are drawn: Bengio & Senecal, 2008."""
        often = self.get_buffer("often")
        drawn = torch.multinomial(often, 20 * len(y), replacement=True).unflatten(0, (len(y), 20))
        at = torch.cat([y[:, None], drawn], 1)
        corrected = logits.gather(1, at) - often[at].log()
        corrected[:, 1:] = corrected[:, 1:].masked_fill(drawn == y[:, None], -1e9)
        return F.cross_entropy(corrected, torch.zeros_like(y))


class Trips(nn.Module):
    """Products of all pairs of vectors beside the vectors, and a network of them: Naumov et al., 2019.

    Rows are drawn between plus and minus the root of 1 / n, of n rows; ``inverse`` off takes that of n.
    """

    def __init__(self, width: int = 8, *, inverse: bool = True) -> None:
        super().__init__()
        self.tables = nn.ModuleList(nn.Embedding(n, width) for n in data.TRIPS)
        for table, n in zip(self.tables, data.TRIPS, strict=True):
            bound = math.sqrt(1 / n if inverse else n)
            nn.init.uniform_(table.get_parameter("weight"), -bound, bound)
        self.body = nn.Sequential(nn.Linear(3 * width + 3, 48), nn.ReLU(), nn.Linear(48, 24), nn.ReLU(),
                                  nn.Linear(24, 1))  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        """Give prices."""
        a, b, c = _looked_up(self.tables, x)
        pairs = torch.stack([(a * b).sum(1), (a * c).sum(1), (b * c).sum(1)], 1)
        out: Tensor = self.body(torch.cat([a, b, c, pairs], 1))
        return out


class Lessons(nn.Module):
    """Products of vectors, and a number for each pupil and each lesson."""

    def __init__(self, width: int = 4) -> None:
        super().__init__()
        self.vectors, self.own = _tables(data.LESSONS, width, 0.3), _tables(data.LESSONS, 1, 0.01)

    def forward(self, x: Tensor) -> Tensor:
        """Give marks."""
        a, b = _looked_up(self.vectors, x)
        return (a * b).sum(1, keepdim=True) + sum(_looked_up(self.own, x))


class Over(nn.Module):
    """What is above a threshold, by how much."""

    def __init__(self, threshold: float) -> None:
        super().__init__()
        self.threshold, self.act = threshold, nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """Apply."""
        out: Tensor = self.act(x - self.threshold)
        return out


class Allergens(nn.Module):
    """The mean of vectors, and units that fire above a threshold only."""

    def __init__(self, threshold: float = 0.1, width: int = 16) -> None:
        super().__init__()
        self.bag = nn.EmbeddingBag(data.ALLERGENS, width, mode="mean")
        self.body = nn.Sequential(nn.Linear(width, 48), Over(threshold), nn.Linear(48, 4))

    def forward(self, x: Tensor) -> Tensor:
        """Give logits."""
        out: Tensor = self.body(self.bag(x))
        return out
