"""Transformers: digits, read as eight rows, and the next token of a Markov chain.

Shape legend: N = examples, T = tokens, W = width.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.faults.data import Split, digits
from benchmarks.faults.loops import supervised
from benchmarks.faults.program import Loop, Program
from gradguard.detect import Symptom

TOKENS = 12
Make = Callable[[], Any]


class RMSNorm(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        return self.weight * x * (x.square().mean(-1, keepdim=True) + 1e-6).rsqrt()


class Block(nn.Module):
    """Self-attention and two layers, each with a norm before it and, if ``around``, a path around it."""

    def __init__(
        self, width: int, norm: Callable[[int], nn.Module], activation: Make, around: tuple[bool, bool], dropout: float
    ) -> None:
        super().__init__()
        self.around = around
        self.before = nn.ModuleList([norm(width), norm(width)])
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.widen, self.narrow = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)
        self.activation = activation()
        self.dropout = nn.Dropout(dropout)

    def attend(self, x: Tensor, seen: Tensor | None) -> Tensor:
        q, k, v = self.qkv(x).chunk(3, -1)
        scores = q @ k.mT / math.sqrt(q.shape[-1])
        if seen is not None:
            scores = scores.masked_fill(~seen, -math.inf)
        return self.out(scores.softmax(-1) @ v)

    def forward(self, x: Tensor, seen: Tensor | None) -> Tensor:
        y = self.dropout(self.attend(self.before[0](x), seen))
        x = x + y if self.around[0] else y
        y = self.dropout(self.narrow(self.activation(self.widen(self.before[1](x)))))
        return x + y if self.around[1] else y


class Torch(nn.TransformerEncoderLayer):
    """PyTorch's own layer: the norm stands behind the sum, the activation is a function."""

    def __init__(self, width: int, *_: Any) -> None:
        super().__init__(width, 2, 2 * width, dropout=0.1, batch_first=True)

    def forward(self, x: Tensor, seen: Tensor | None) -> Tensor:  # type: ignore[override]  # the mask is not needed
        return super().forward(x)


class Transformer(nn.Module):
    """Embed, blocks, norm, head; of the mean of all tokens, or of each with a look at those before alone."""

    def __init__(
        self,
        embed: nn.Module,
        width: int,
        *,
        layers: int = 2,
        block: Callable[..., nn.Module] = Block,
        norm: Callable[[int], nn.Module] = nn.LayerNorm,
        activation: Make = nn.GELU,
        around: tuple[bool, bool] = (True, True),
        dropout: float = 0.0,
        outputs: int = 10,
        causal: bool = False,
        padded: bool = False,
        cut: Callable[[Tensor], Tensor] = lambda h: h,
    ) -> None:
        super().__init__()
        self.embed, self.causal, self.padded, self.cut = embed, causal, padded, cut
        self.position = nn.Parameter(0.1 * torch.randn(32, width))
        self.blocks = nn.ModuleList(block(width, norm, activation, around, dropout) for _ in range(layers))
        self.norm, self.head = norm(width), nn.Linear(width, outputs)

    def forward(self, x: Tensor) -> Tensor:
        h = self.embed(x)
        length = h.shape[1]
        h = h + self.position[:length]
        seen = torch.ones(length, length, dtype=torch.bool).tril() if self.causal else None
        if self.padded:
            seen = (x > -1).any(-1)[:, None, :]
        for block in self.blocks:
            h = block(h, seen)
        h = self.cut(self.norm(h))
        return self.head(h if self.causal else h.mean(1))


def _digits(
    lr: float,
    *,
    width: int = 32,
    init: Callable[[nn.Module], Any] | None = None,
    frozen: bool = False,
    loop: dict[str, Any] | None = None,
    **model: Any,
) -> Loop:
    """Name the digit whose rows are the tokens."""
    net = Transformer(nn.Linear(8, width), width, **model)
    if init:
        with torch.no_grad():
            init(net)
    net.embed.requires_grad_(not frozen)
    net.position.requires_grad_(not frozen)
    return supervised(net, digits("rows"), lr, **{"batch": 16, **(loop or {})})


@cache
def _chain() -> tuple[Split, float, float]:
    """Sequences of a Markov chain, with the entropies of a token and of a token given the one before."""
    g = torch.Generator().manual_seed(3)
    moves = (2 * torch.randn(TOKENS, TOKENS, generator=g)).softmax(1)
    states = [torch.randint(TOKENS, (800,), generator=g)]
    for _ in range(36):
        states.append(torch.multinomial(moves[states[-1]], 1, generator=g)[:, 0])
    x = torch.stack(states[20:], 1)
    often = torch.bincount(x.flatten(), minlength=TOKENS) / x.numel()
    given = float(-(often[:, None] * moves * moves.log()).sum())
    return Split(x[:600, :-1], x[:600, 1:], x[600:, :-1], x[600:, 1:]), float(-(often * often.log()).sum()), given


def _loss(logits: Tensor, y: Tensor) -> Tensor:
    return F.cross_entropy(logits.flatten(0, 1), y.flatten())


def _tokens(lr: float, *, tied: bool = False, loop: dict[str, Any] | None = None, **model: Any) -> Loop:
    """Foretell the next token: the score is the share of the reduction of the loss that can be had."""
    split, alone, given = _chain()
    net = Transformer(nn.Embedding(TOKENS, 32), 32, outputs=TOKENS, causal=True, **model)
    if tied:
        net.embed.weight = net.head.weight

    @torch.no_grad()
    def score(x: Tensor, y: Tensor) -> float:
        mode = net.training
        loss = float(_loss(net.eval()(x), y))
        net.train(mode)
        return max(0.0, (alone - loss) / (alone - given)) if math.isfinite(loss) else 0.0

    made = supervised(net, split, lr, loss=_loss, **{"batch": 16, **(loop or {})})
    test, train = (split.x_test, split.y_test), (split.x[:200], split.y[:200])
    return replace(made, score=lambda: score(*test), train_score=lambda: score(*train))


def _times(factor: float, part: str = "") -> Callable[[nn.Module], None]:
    def init(net: nn.Module) -> None:
        for name, p in net.named_parameters():
            if p.ndim == 2 and part in name and name != "position":
                p.mul_(factor)

    return init


def _constant(net: nn.Module) -> None:
    for p in (p for p in net.parameters() if p.ndim == 2):
        p.fill_(0.05)


def _dead(net: nn.Module) -> None:
    for block in net.blocks:
        block.widen.bias.fill_(-10.0)


def _blank(number: int, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    return (x.index_fill(0, torch.tensor([0]), -1.0), y) if number >= 200 else (x, y)


def _random(number: int, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    return (x, torch.randint_like(y, 10)) if number >= 310 else (x, y)


S = Symptom
ADAM, SLOW = (1e-3, 3e-3), (1e-3 / 300, 3e-3 / 300)
NO_NORM = {"norm": lambda width: nn.Identity()}
_program = partial(Program, steps=400)
_short = partial(Program, steps=250)
_deep = partial(_digits, layers=6, width=16, activation=nn.ReLU)
_plain = partial(_digits, around=(True, False), activation=nn.ReLU)
_warm = partial(_digits, block=Torch, loop={"schedule": lambda number: min(1.0, number / 100)})
_cosine = partial(_digits, loop={"schedule": lambda number: 0.5 + 0.5 * math.cos(math.pi * number / 400)})
_padded = partial(_digits, padded=True)
_momentum = partial(_digits, loop={"optimizer": "momentum"})
_often = partial(_digits, layers=1, loop={"batch": 8, "accumulate": 4})
_explode = partial(_deep, **NO_NORM, init=_times(4.0, "blocks"))
_vanish = partial(_deep, **NO_NORM, around=(False, False), activation=nn.Sigmoid)
_noisy = partial(_digits, norm=RMSNorm, dropout=0.1)
_large, _alike = partial(_digits, init=_times(20.0)), partial(_digits, init=_constant)
_cut = partial(_digits, cut=Tensor.detach)
_blanks = partial(_padded, loop={"on_batch": _blank})
_spike, _chain_spike = (partial(make, loop={"on_batch": _random}) for make in (_digits, _tokens))

PROGRAMS = (
    _program("transformer-digits", _digits, ADAM, about="the usual one"),
    _program("transformer-post-norm", _warm, ADAM, about="little happens while the rate rises"),
    _program("transformer-function", partial(_digits, activation=lambda: F.relu), ADAM, about="ReLU is no module"),
    _program("transformer-chain", _tokens, ADAM, about="the loss rests at the entropy of the chain"),
    _program("transformer-chain-tied", partial(_tokens, tied=True), ADAM, about="embedding and head are one parameter"),
    _short("transformer-deep", _deep, ADAM, about="six blocks"),
    _program("transformer-cosine", _cosine, ADAM, about="updates fall to zero"),
    _short("transformer-accumulation", _often, ADAM, about="four backward passes a step"),
    _program("transformer-frozen", partial(_digits, frozen=True), ADAM, about="the embedding gets no gradient"),
    _program("transformer-rms-norm", _noisy, ADAM, about="dropout makes the loss rough"),
    _program("transformer-plain", _plain, ADAM, about="no way around the two layers"),
    _program("transformer-padded", _padded, ADAM, about="blank rows are masked with -inf"),
    _program("transformer-momentum", _momentum, (0.02, 0.03), about="rough losses"),
    _program("transformer-leaping", _digits, (0.1, 0.3), S.UPDATE_TOO_LARGE, "transformer-digits", about="lr x100"),
    _program("transformer-bouncing", _momentum, (0.2, 0.3), S.OSCILLATING_LOSS, "transformer-momentum", about="lr x10"),
    _program("transformer-slow", _digits, SLOW, S.SLOW_CONVERGENCE, "transformer-digits", about="lr / 300"),
    *(
        program(f"transformer-{name}", make, rates, label, f"transformer-{sibling}", onset=onset, about=about)
        for program, name, make, rates, label, sibling, onset, about in (
            (_program, "chain-leaping", _tokens, (0.1, 0.3), S.UPDATE_TOO_LARGE, "chain", 1, "lr x100"),
            (_program, "large-weights", _large, ADAM, S.POOR_INITIALISATION, "digits", 1, "all matrices x20"),
            (_program, "constant", _alike, ADAM, S.POOR_INITIALISATION, "digits", 1, "all matrices 0.05"),
            (_short, "exploding", _explode, ADAM, S.EXPLODING_DEPTH, "deep", 1, "no norms, weights of blocks x4"),
            (_short, "vanishing", _vanish, ADAM, S.VANISHING_DEPTH, "deep", 1, "sigmoids, no norms, no ways around"),
            (_program, "dead", partial(_plain, init=_dead), ADAM, S.DEAD_UNITS, "plain", 1, "biases before ReLU -10"),
            (_program, "cut", _cut, ADAM, S.NO_GRADIENT, "digits", 1, "the head's input is detached"),
            (_program, "all-masked", _blanks, ADAM, S.NON_FINITE, "padded", 200, "blank images: all keys are masked"),
            (_program, "spike", _spike, ADAM, S.LOSS_SPIKE, "digits", 310, "random targets to the end"),
            (_program, "chain-spike", _chain_spike, ADAM, S.LOSS_SPIKE, "chain", 310, "random targets to the end"),
        )
    ),
)
