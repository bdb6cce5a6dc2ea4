"""Networks of the second transformers.

Shape legend: N = examples, T = tokens, W = width.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Sum = Callable[[Tensor, Tensor], Tensor]


class Layer(nn.Module):
    """Self-attention and two linear layers, each with a norm before it and added by ``sums``."""

    def __init__(self, width: int, heads: int, sums: Sum, *, norm: bool) -> None:
        super().__init__()
        self.sums = sums
        self.attention = nn.MultiheadAttention(width, heads, batch_first=True)
        self.widen, self.narrow = nn.Linear(width, 3 * width), nn.Linear(3 * width, width)
        self.norms = nn.ModuleList(nn.LayerNorm(width) if norm else nn.Identity() for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        """Mix the tokens, then change each of them."""
        y = self.norms[0](x)
        h = self.sums(x, self.attention(y, y, y, need_weights=False)[0])
        y = self.narrow(F.gelu(self.widen(self.norms[1](h))))
        return self.sums(h, y)


class Encoder(nn.Module):
    """Embed, layers, and a head on the mean of all tokens."""

    def __init__(
        self,
        embed: nn.Module,
        outputs: int,
        *,
        width: int = 24,
        layers: int = 2,
        heads: int = 3,
        sums: Sum = torch.add,
        norm: bool = True,
        last: bool = True,
    ) -> None:
        super().__init__()
        self.embed = embed
        self.place = nn.Parameter(0.2 * torch.randn(16, width))
        self.layers = nn.ModuleList(Layer(width, heads, sums, norm=norm) for _ in range(layers))
        self.last, self.head = nn.LayerNorm(width) if last else nn.Identity(), nn.Linear(width, outputs)

    def forward(self, x: Tensor) -> Tensor:
        """Give logits."""
        h = self.embed(x)
        h = h + self.place[: h.shape[1]]
        for layer in self.layers:
            h = layer(h)
        return self.head(self.last(h).mean(1))


class Stem(nn.Module):
    """Two layers that make tokens of numbers; what the hidden units give is kept for a penalty."""

    def __init__(self, inputs: int, width: int) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(inputs, 3 * width), nn.Linear(3 * width, width)
        self.act, self.kept = nn.ReLU(), torch.zeros(())

    def forward(self, x: Tensor) -> Tensor:
        """Give tokens."""
        self.kept = self.act(self.first(x))
        return self.second(self.kept)


class Pooler(nn.Module):
    """What reads documents: a layer of PyTorch's, a mean, a tanh as in BERT, a head."""

    def __init__(self, words: int, outputs: int, width: int = 24) -> None:
        super().__init__()
        self.embed, self.scale = nn.Embedding(words, width), math.sqrt(width)
        self.layer = nn.TransformerEncoderLayer(width, 2, 48, 0.1, "gelu", batch_first=True, norm_first=True)
        self.pooler, self.act, self.head = nn.Linear(width, width), nn.Tanh(), nn.Linear(width, outputs)

    def forward(self, x: Tensor) -> Tensor:
        """Give logits."""
        h = self.layer(self.scale * self.embed(x))
        return self.head(self.act(self.pooler(h.mean(1))))


class Writer(nn.Module):
    """Layers of PyTorch's with norms behind them, which see what came before: logits [N, characters, T]."""

    def __init__(self, letters: int, width: int = 32, layers: int = 2, *, tied: bool = False) -> None:
        super().__init__()
        self.embed, self.place = nn.Embedding(letters, width), nn.Parameter(0.1 * torch.randn(24, width))
        nn.init.normal_(self.embed.weight, std=0.3)
        layer = nn.TransformerEncoderLayer(width, 4, 64, 0.0, batch_first=True)
        self.layers, self.head = nn.TransformerEncoder(layer, layers), nn.Linear(width, letters)
        self.register_buffer("hidden", torch.ones(24, 24, dtype=torch.bool).triu(1))
        if tied:
            self.head.weight = self.embed.weight

    def forward(self, x: Tensor) -> Tensor:
        """Foretell."""
        return self.head(self.layers(self.embed(x) + self.place, mask=self.hidden)).mT


class Glance(nn.Module):
    """One query looks at all tokens; or, if it is ``hard``, at the one alone that it likes best."""

    def __init__(self, inputs: int, outputs: int, width: int = 24, *, hard: bool = False) -> None:
        super().__init__()
        self.embed, self.hard = nn.Linear(inputs, width), hard
        self.query, self.key, self.value = (
            nn.Parameter(torch.randn(width)),
            nn.Linear(inputs, width),
            nn.Linear(width, width),
        )
        self.widen, self.head = nn.Linear(width, 2 * width), nn.Linear(2 * width, outputs)

    def forward(self, x: Tensor) -> Tensor:
        """Give logits."""
        h = self.embed(x)
        liked = self.key(x) @ self.query / math.sqrt(len(self.query))
        share = F.one_hot(liked.argmax(1), liked.shape[1]).float() if self.hard else liked.softmax(1)
        return self.head(F.gelu(self.widen((share[:, None] @ self.value(h))[:, 0])))


class Inducing(nn.Module):
    """A set transformer: a few points of its own look at the set, the set looks at them, a mean, a head."""

    def __init__(self, inputs: int, outputs: int, width: int = 24) -> None:
        super().__init__()
        self.embed, self.own = nn.Linear(inputs, width), nn.Parameter(0.5 * torch.randn(4, width))
        self.read, self.write = (nn.MultiheadAttention(width, 2, batch_first=True) for _ in range(2))
        self.change, self.head = (
            nn.Sequential(nn.Linear(width, 48), nn.ELU(), nn.Linear(48, width)),
            nn.Linear(width, outputs),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Give predictions."""
        h = self.embed(x).tanh()
        seen = self.read(self.own.expand(len(x), -1, -1), h, h, need_weights=False)[0]
        h = h + self.write(h, seen, seen, need_weights=False)[0]
        return self.head((h + self.change(h)).mean(1))


class Cosine(nn.Module):
    """A head that compares directions, times a number."""

    def __init__(self, width: int, outputs: int, scale: float) -> None:
        super().__init__()
        self.classes, self.scale = nn.Parameter(torch.randn(outputs, width)), scale

    def forward(self, x: Tensor) -> Tensor:
        """Give logits."""
        return self.scale * F.normalize(x, dim=1) @ F.normalize(self.classes, dim=1).T


class Experts(nn.Module):
    """A layer in which each token goes to the one of four experts that it likes best."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm, self.gate = nn.LayerNorm(width), nn.Linear(width, 4)
        self.experts = nn.ModuleList(
            nn.Sequential(nn.Linear(width, 32), nn.GELU(), nn.Linear(32, width)) for _ in range(4)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Add to what comes in."""
        y = self.norm(x)
        share, choice = self.gate(y).softmax(-1).max(-1, keepdim=True)
        for number, expert in enumerate(self.experts):
            x = x + torch.where(choice == number, share * expert(y), 0.0)
        return x


class LowRank(nn.Module):
    """A frozen layer and two thin ones beside it, the second of which begins at 0."""

    def __init__(self, layer: nn.Linear, rank: int = 4) -> None:
        super().__init__()
        self.layer, self.down = layer.requires_grad_(False), nn.Linear(layer.in_features, rank, bias=False)
        self.up = nn.Linear(rank, layer.out_features, bias=False)
        nn.init.zeros_(self.up.weight)

    def forward(self, x: Tensor) -> Tensor:
        """Give what it gave, and what was learnt since."""
        return self.layer(x) + self.up(self.down(x))
