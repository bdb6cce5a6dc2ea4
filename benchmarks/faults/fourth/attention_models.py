"""Networks of the fourth transformers, built of what PyTorch has where it has it.

Shape legend: N = examples, T = tokens, F = features, W = width, C = classes.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.faults.fourth.attention_data import LENGTH, SYMBOLS

Act = Callable[[Tensor], Tensor]


def stack(width: int, layers: int, *, heads: int = 2, wide: int = 2, act: str = "gelu", **more: Any) -> nn.Module:
    """Build PyTorch's encoder, with norms before the branches unless something else is said."""
    options = {"dropout": 0.0, "norm_first": True, **more}
    layer = nn.TransformerEncoderLayer(width, heads, wide * width, activation=act, batch_first=True, **options)
    return nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)


def sines(length: int, width: int) -> Tensor:
    """Give places as sines and cosines: Vaswani et al., 2017."""
    angle = torch.arange(length)[:, None] * 10_000 ** (-torch.arange(0, width, 2) / width)
    return torch.stack([angle.sin(), angle.cos()], 2).flatten(1)


class Encoder(nn.Module):
    """Embed, add places, encode; a head on each token, on the mean of them or on all of them at once."""

    def __init__(
        self, embed: nn.Module, body: nn.Module, outputs: int, *, width: int, place: Tensor | None, reads: str = "mean"
    ) -> None:
        super().__init__()
        self.embed, self.body, self.reads = embed, body, reads
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(place.numel() if place is not None and reads == "all" else width, outputs)
        self.register_buffer("place", place)

    def forward(self, x: Tensor) -> Tensor:
        """Give [N, C], or [N, C, T] of each token."""
        h = self.embed(x)
        h = self.norm(self.body(h if self.place is None else h + self.place))
        if self.reads != "each":
            h = h.flatten(1) if self.reads == "all" else h.mean(1)
        out: Tensor = self.head(h)
        return out.mT if self.reads == "each" else out


class Words(nn.Module):
    """Vectors of words, times the root of their width."""

    def __init__(self, words: int, width: int) -> None:
        super().__init__()
        self.table, self.scale = nn.Embedding(words, width), math.sqrt(width)
        nn.init.normal_(self.table.weight, std=width**-0.5)

    def forward(self, x: Tensor) -> Tensor:
        """Look up."""
        out: Tensor = self.scale * self.table(x)
        return out


class Vision(nn.Module):
    """A vision transformer with patches by a convolution; ``blind`` keeps no graph of its features."""

    def __init__(self, width: int = 32, *, blind: bool = False) -> None:
        super().__init__()
        self.patches, self.blind = nn.Conv2d(1, width, 2, stride=2), blind
        self.place = nn.Parameter(0.1 * torch.randn(16, width))
        self.body, self.norm, self.head = stack(width, 2, dropout=0.05), nn.LayerNorm(width), nn.Linear(width, 10)

    def features(self, x: Tensor) -> Tensor:
        """Give the mean of what the patches became."""
        out: Tensor = self.norm(self.body(self.patches(x).flatten(2).mT + self.place)).mean(1)
        return out

    def forward(self, x: Tensor) -> Tensor:
        """Give logits."""
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.blind):
            h = self.features(x)
        out: Tensor = self.head(h)
        return out


class Translator(nn.Module):
    """Encoder and decoder, with norms before the branches and at the ends of both."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.source, self.target = Words(SYMBOLS, width), Words(SYMBOLS + 1, width)
        layer = nn.TransformerDecoderLayer(width, 2, 2 * width, 0.0, batch_first=True, norm_first=True)
        self.reader, self.norm = stack(width, 1, act="relu"), nn.LayerNorm(width)
        self.writer = nn.TransformerDecoder(layer, 1, nn.LayerNorm(width))
        self.head = nn.Linear(width, SYMBOLS)
        self.register_buffer("place", sines(LENGTH, width))
        self.register_buffer("later", torch.ones(LENGTH, LENGTH, dtype=torch.bool).triu(1))

    def forward(self, x: Tensor) -> Tensor:
        """Give logits of the next symbols [N, C, T]."""
        source, target = self.source(x[:, :LENGTH]) + self.place, self.target(x[:, LENGTH:]) + self.place
        read = self.norm(self.reader(source))
        out: Tensor = self.head(self.writer(target, read, tgt_mask=self.later)).mT
        return out


class Unnormed(nn.Module):
    """Attention and two layers without norms, added by a number that begins at zero: Bachlechner et al., 2020.

    Args:
        width: of the tokens.
        carried: by how much is multiplied what comes in, at each of both additions.
    """

    def __init__(self, width: int, carried: float = 1.0) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(width, 2, batch_first=True)
        self.change = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))
        self.shares, self.carried = nn.Parameter(torch.zeros(2)), carried

    def forward(self, x: Tensor) -> Tensor:
        """Change the tokens."""
        x = self.carried * x + self.shares[0] * self.attention(x, x, x, need_weights=False)[0]
        out: Tensor = self.carried * x + self.shares[1] * self.change(x)
        return out


class Shapes(nn.Module):
    """A deep network for sets of points, without any norm."""

    def __init__(self, outputs: int, width: int = 24, layers: int = 5, *, carried: float = 1.0) -> None:
        super().__init__()
        self.embed, self.head = nn.Linear(2, width), nn.Linear(width, outputs)
        self.body = nn.Sequential(*(Unnormed(width, carried) for _ in range(layers)))

    def forward(self, x: Tensor) -> Tensor:
        """Give logits."""
        out: Tensor = self.head(self.body(self.embed(x)).mean(1))
        return out


def shifted(x: Tensor) -> Tensor:
    """Give what is always above zero."""
    return F.elu(x) + 1


class Linear(nn.Module):
    """Attention without a softmax, Katharopoulos et al., 2020, and two layers; with norms and paths around.

    Args:
        width: of the tokens.
        feature: what makes queries and keys positive.
    """

    def __init__(self, width: int, feature: Act = shifted, heads: int = 2) -> None:
        super().__init__()
        self.heads, self.feature = heads, feature
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.change = nn.Sequential(nn.Linear(width, 2 * width), nn.SiLU(), nn.Linear(2 * width, width))
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(2))

    def attend(self, x: Tensor) -> Tensor:
        """Sum up values first, then ask."""
        q, k, v = self.qkv(x).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        q, k = self.feature(q), self.feature(k)
        found = q @ (k.mT @ v) / (q @ k.sum(2)[..., None])
        out: Tensor = self.out(found.transpose(1, 2).flatten(2))
        return out

    def forward(self, x: Tensor) -> Tensor:
        """Change the tokens."""
        x = x + self.attend(self.norms[0](x))
        out: Tensor = x + self.change(self.norms[1](x))
        return out


class Pointer(nn.Module):
    """Additive attention that points at one of some offers: Vinyals et al., 2015."""

    def __init__(self, inputs: int, width: int = 48) -> None:
        super().__init__()
        self.wish, self.offer = nn.Linear(inputs, width), nn.Linear(inputs, width, bias=False)
        self.first = nn.Tanh()
        self.mix, self.second, self.liked = nn.Linear(width, width), nn.Tanh(), nn.Linear(width, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Give logits of the offers; the first token is the wish."""
        h = self.first(self.wish(x[:, :1]) + self.offer(x[:, 1:]))
        out: Tensor = self.liked(self.second(self.mix(h)))[..., 0]
        return out


class Writer(nn.Module):
    """A language model set up as GPT-2 is: small weights, smaller ones at the end of branches, a tied head."""

    def __init__(self, letters: int, width: int = 32, length: int = 16, layers: int = 2) -> None:
        super().__init__()
        self.table, self.place = nn.Embedding(letters, width), nn.Embedding(length, width)
        self.body, self.norm = stack(width, layers, wide=3), nn.LayerNorm(width)
        self.register_buffer("later", torch.ones(length, length, dtype=torch.bool).triu(1))
        for name, p in self.named_parameters():
            ends = name.endswith(("out_proj.weight", "linear2.weight"))
            if p.ndim == 2:
                nn.init.normal_(p, std=0.05 / math.sqrt(2 * layers) if ends else 0.05)

    def forward(self, x: Tensor) -> Tensor:
        """Give logits of the next characters [N, C, T]."""
        h = self.body(self.table(x) + self.place.weight, mask=self.later)
        out: Tensor = (self.norm(h) @ self.table.weight.T).mT
        return out
