"""Networks of the fifth transformers.

Shape legend: N = examples, T = tokens, F = features, W = width, C = classes.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from benchmarks.faults.fifth.attention_data import LETTERS, MASK, NODES, SIGNALS, SORTED, SYMBOLS, WORDS
from benchmarks.faults.fourth.attention_models import sines, stack


class Sorter(nn.Module):
    """A small GPT that writes sorted rows; ``saves`` computes tokens and layers anew in the backward pass."""

    def __init__(self, width: int = 32, *, saves: bool = False) -> None:
        super().__init__()
        length = 2 * SORTED - 1
        self.table, self.place = nn.Embedding(SYMBOLS, width), nn.Parameter(0.02 * torch.randn(length, width))
        self.body, self.norm = stack(width, 1, heads=4, wide=4), nn.LayerNorm(width)
        self.head, self.saves = nn.Linear(width, SYMBOLS, bias=False), saves
        self.register_buffer("later", torch.ones(length, length, dtype=torch.bool).triu(1))

    def features(self, x: Tensor) -> Tensor:
        """Give what the tokens became."""
        out: Tensor = self.norm(self.body(self.table(x) + self.place, mask=self.later))
        return out

    def forward(self, x: Tensor) -> Tensor:
        """Give logits of what comes next in the sorted part, [N, C, T]."""
        h = checkpoint(self.features, x, use_reentrant=True) if self.saves else self.features(x)
        out: Tensor = self.head(h[:, 1 - SORTED - 1 :]).mT
        return out


def usual(part: nn.Module, *, by_attribute: bool = False) -> None:
    """Set weights as GPT-2 does; ``by_attribute`` takes all that has a weight for a norm."""
    if hasattr(part, "weight") if by_attribute else isinstance(part, nn.LayerNorm | Root):
        nn.init.ones_(part.get_parameter("weight"))
        if getattr(part, "bias", None) is not None:
            nn.init.zeros_(part.get_parameter("bias"))
    elif isinstance(part, nn.Linear | nn.Embedding):
        nn.init.normal_(part.weight, std=0.02)


class Tabular(nn.Module):
    """A token for each number of a table, and one of its own that is read: Gorishniy et al., 2021."""

    def __init__(self, inputs: int, outputs: int, width: int = 24) -> None:
        super().__init__()
        bound = 1 / math.sqrt(width)
        self.weight = nn.Parameter(torch.empty(inputs, width).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(inputs, width).uniform_(-bound, bound))
        self.own = nn.Parameter(torch.empty(1, width).uniform_(-bound, bound))
        self.body = stack(width, 1, dropout=0.1, act="relu")
        self.head = nn.Sequential(nn.LayerNorm(width), nn.ReLU(), nn.Linear(width, outputs))

    def forward(self, x: Tensor) -> Tensor:
        """Give logits."""
        h = torch.cat([self.own.expand(len(x), 1, -1), x[..., None] * self.weight + self.bias], 1)
        out: Tensor = self.head(self.body(h)[:, 0])
        return out


class Bags(nn.Module):
    """Gated attention over the instances of a bag: Ilse et al., 2018."""

    def __init__(self, inputs: int = 64, width: int = 48) -> None:
        super().__init__()
        self.instance = nn.Sequential(nn.Linear(inputs, 24), nn.Tanh(), nn.Linear(24, width), nn.Tanh())
        self.value, self.gate = (
            nn.Sequential(nn.Linear(width, 24), nn.Tanh()),
            nn.Sequential(nn.Linear(width, 24), nn.Sigmoid()),
        )
        self.liked, self.head = nn.Linear(24, 1), nn.Linear(width, 2)

    def forward(self, x: Tensor) -> Tensor:
        """Give logits of bags."""
        h = self.instance(x)
        share = self.liked(self.value(h) * self.gate(h)).softmax(1)
        out: Tensor = self.head((share * h).sum(1))
        return out


class Graph(nn.Module):
    """Attention along the links of graphs: Velickovic et al., 2018; ``loops`` lets each node see itself, too."""

    def __init__(self, width: int = 32, *, loops: bool = True) -> None:
        super().__init__()
        self.embed, self.loops = nn.Linear(SIGNALS, width), loops
        self.score, self.value = nn.ModuleList([nn.Linear(width, 1), nn.Linear(width, 1)]), nn.Linear(width, width)
        self.change = nn.Sequential(nn.Linear(2 * width, 48), nn.ELU(), nn.Linear(48, SIGNALS))

    def forward(self, x: Tensor) -> Tensor:
        """Give logits of nodes, [N, C, T]."""
        h, linked = self.embed(x[..., :SIGNALS]), x[..., SIGNALS:] > 0
        if self.loops:
            linked = linked | torch.eye(NODES, dtype=torch.bool)
        score = F.leaky_relu(self.score[0](h) + self.score[1](h).mT, 0.2)
        share = score.masked_fill(~linked, -math.inf).softmax(2)
        out: Tensor = self.change(torch.cat([h, share @ self.value(h)], 2)).mT
        return out


class Masked(nn.Module):
    """A small BERT, whose head begins at some biases."""

    def __init__(self, biases: Tensor, width: int = 32) -> None:
        super().__init__()
        self.table, self.body, self.norm = nn.Embedding(WORDS + 1, width), stack(width, 1), nn.LayerNorm(width)
        nn.init.normal_(self.table.weight, std=0.3)
        self.head = nn.Linear(width, WORDS)
        with torch.no_grad():
            self.head.bias.copy_(biases)
        self.register_buffer("place", 0.3 * sines(9, width))
        self.hidden = torch.zeros(())

    def forward(self, x: Tensor) -> Tensor:
        """Give logits of all words, [N, C, T]."""
        self.hidden = (x == MASK).float()
        out: Tensor = self.head(self.norm(self.body(self.table(x) + self.place))).mT
        return out


class Root(nn.Module):
    """Divide by the root of the mean square: Zhang and Sennrich, 2019."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        """Scale."""
        return self.weight * x * torch.rsqrt(x.square().mean(-1, keepdim=True) + 1e-6)


def turned(x: Tensor) -> Tensor:
    """Turn pairs of features by the place of their token: Su et al., 2021."""
    half = x.shape[-1] // 2
    angle = torch.arange(x.shape[-2])[:, None] * 100.0 ** (-torch.arange(half) / half)
    a, b = x.chunk(2, -1)
    return torch.cat([a * angle.cos() - b * angle.sin(), a * angle.sin() + b * angle.cos()], -1)


class LlamaLayer(nn.Module):
    """Attention with turned queries and keys, and a gated pair of layers; no biases."""

    def __init__(self, width: int, heads: int = 2) -> None:
        super().__init__()
        self.heads, self.norms = heads, nn.ModuleList(Root(width) for _ in range(2))
        self.qkv, self.out = nn.Linear(width, 3 * width, bias=False), nn.Linear(width, width, bias=False)
        self.up, self.down = nn.Linear(width, 4 * width, bias=False), nn.Linear(2 * width, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Change the tokens."""
        q, k, v = self.qkv(self.norms[0](x)).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        found = F.scaled_dot_product_attention(turned(q), turned(k), v, is_causal=True)
        x = x + self.out(found.transpose(1, 2).flatten(2))
        gate, up = self.up(self.norms[1](x)).chunk(2, 2)
        out: Tensor = x + self.down(F.silu(gate) * up)
        return out


class Llama(nn.Module):
    """A language model as they are now."""

    def __init__(self, width: int = 32, layers: int = 2) -> None:
        super().__init__()
        self.table, self.norm, self.head = nn.Embedding(LETTERS, width), Root(width), nn.Linear(width, LETTERS)
        self.body = nn.Sequential(*(LlamaLayer(width) for _ in range(layers)))

    def forward(self, x: Tensor) -> Tensor:
        """Give logits of the next letters, [N, C, T]."""
        out: Tensor = self.head(self.norm(self.body(self.table(x)))).mT
        return out


class Stem(nn.Module):
    """A convolution over time that makes a token of every two measurements."""

    def __init__(self, inputs: int, width: int) -> None:
        super().__init__()
        self.mix = nn.Conv1d(inputs, width, 3, stride=2, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Give tokens."""
        out: Tensor = self.mix(x.mT).mT
        return out
