"""Players, towers and a trunk with heads: data and loops of the sixth generation.

Shape legend: N = examples, F = features.
"""

from __future__ import annotations

import math
from functools import cache

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import SGD, Adam

from benchmarks.faults import data
from benchmarks.faults.loops import score_of
from benchmarks.faults.program import Loop, Record
from benchmarks.faults.second.adversarial_games import Real, perceptron


@cache
def patterns(*, divided: bool = True) -> Real:
    """Gratings of any turn and shift, in [-1, 1], or as bytes: [N, 36]."""
    g = torch.Generator().manual_seed(221)
    at = torch.linspace(-1, 1, 6)
    down, across = torch.meshgrid(at, at, indexing="ij")
    turn, shift = math.pi * torch.rand(2400, 1, 1, generator=g), 2 * math.pi * torch.rand(2400, 1, 1, generator=g)
    x = 0.9 * (2.5 * (across * turn.cos() + down * turn.sin()) + shift).sin().flatten(1)
    return Real(x if divided else 127.5 * (x + 1), torch.zeros(2400, 0))


@cache
def returns() -> Real:
    """What four shares gain on a day: they go together, and on some days they leap; standardised: [N, 4]."""
    g = torch.Generator().manual_seed(222)
    market, own = torch.randn(2400, 1, generator=g), torch.randn(2400, 4, generator=g)
    restless = (0.5 * torch.randn(2400, 1, generator=g)).exp()
    x = restless * (market * torch.tensor([1.2, 0.9, 0.6, -0.5]) + 0.5 * own)
    return Real((x - x.mean(0)) / x.std(0), torch.zeros(2400, 0))


def painters() -> tuple[nn.Sequential, nn.Sequential]:
    """Batch norms and a tanh at the end of the generator, leaky units against it."""
    forge = nn.Sequential(
        *(nn.Linear(8, 64), nn.BatchNorm1d(64), nn.ReLU(), nn.Linear(64, 64), nn.BatchNorm1d(64), nn.ReLU()),
        *(nn.Linear(64, 36), nn.Tanh()),
    )
    return forge, perceptron(36, 64, 64, 1, between=nn.LeakyReLU)


def traders() -> tuple[nn.Sequential, nn.Sequential]:
    """Three layers each."""
    return perceptron(6, 48, 48, 4, between=nn.ELU), perceptron(4, 48, 48, 1, between=nn.LeakyReLU)


@cache
def _taste() -> tuple[Tensor, Tensor, Tensor]:
    """Readers, books, and how each reader likes each book: [200, 12], [100, 10], [200, 100]."""
    g = torch.Generator().manual_seed(223)
    readers, books = torch.randn(200, 12, generator=g), torch.randn(100, 10, generator=g)
    a, b = torch.randn(12, 4, generator=g) / math.sqrt(12), torch.randn(10, 4, generator=g) / math.sqrt(10)
    likes = 1.5 * (1.5 * readers @ a).tanh() @ (1.5 * books @ b).tanh().T
    return readers, books, likes / likes.std() + 0.1 * torch.randn(200, 100, generator=g)


def matching(lr: float, *, twice: bool = False, size: int = 8, batch: int = 128) -> Loop:
    """Let a tower of readers and one of books say who likes what.

    Args:
        lr: of both.
        twice: whether the gradients of the books' tower are set to zero twice, and those of the readers' never.
        size: of what they say.
        batch: pairs of a batch.
    """
    readers, books, likes = _taste()
    nets = {"readers": perceptron(12, 48, size), "books": perceptron(10, 48, size)}
    optimizers = {name: SGD(net.parameters(), lr=lr, momentum=0.9) for name, net in nets.items()}

    def of(who: Tensor, what: Tensor) -> Tensor:
        codes = F.normalize(nets["readers"](readers[who]), dim=1), F.normalize(nets["books"](books[what]), dim=1)
        return 4 * (codes[0] * codes[1]).sum(1, keepdim=True)

    def step(number: int, record: Record) -> None:
        who, what = torch.randint(160, (batch,)), torch.randint(100, (batch,))
        loss = F.mse_loss(of(who, what)[:, 0], likes[who, what])
        optimizers["books" if twice else "readers"].zero_grad()
        optimizers["books"].zero_grad()
        for name in optimizers:
            record(loss, name)
        loss.backward()
        for optimizer in optimizers.values():
            optimizer.step()

    def score(first: int, last: int) -> float:
        pairs = torch.cartesian_prod(torch.arange(first, last), torch.arange(100))
        goal = likes[pairs[:, 0], pairs[:, 1]][:, None]
        return score_of(lambda: of(pairs[:, 0], pairs[:, 1]), [*nets.values()], goal)

    return Loop(nets, optimizers, step, lambda: score(160, 200), lambda: score(0, 40))


def trunk(lr: float, *, thaws: bool = True, width: int = 6, batch: int = 64) -> Loop:
    """Tell digits, and whether they are odd: at each other step the heads alone learn, and the trunk is frozen.

    Args:
        lr: of both optimizers.
        thaws: whether the trunk gets its gradients back afterwards.
        width: of what the trunk gives.
        batch: digits of a batch.
    """
    split = data.digits()
    body = nn.Sequential(*perceptron(64, 48, width), nn.Tanh())
    heads = nn.ModuleDict({"digit": perceptron(width, 48, 10), "odd": perceptron(width, 24, 2)})
    optimizers = {"trunk": Adam(body.parameters(), lr=lr), "heads": Adam(heads.parameters(), lr=lr)}

    def step(number: int, record: Record) -> None:
        alone = number % 2 == 1
        if alone or thaws:
            body.requires_grad_(not alone)
        at = torch.randint(len(split.x), (batch,))
        code, y = body(split.x[at]), split.y[at]
        loss = F.cross_entropy(heads["digit"](code), y) + 0.3 * F.cross_entropy(heads["odd"](code), y % 2)
        for optimizer in optimizers.values():
            optimizer.zero_grad()
        record(loss, "heads")
        if not alone:
            record(loss, "trunk")
        loss.backward()
        optimizers["heads"].step()
        if not alone:
            optimizers["trunk"].step()

    def score(x: Tensor, y: Tensor) -> float:
        return score_of(lambda: heads["digit"](body(x)), [body, heads], y)

    return Loop(
        {"trunk": body, "heads": heads},
        optimizers,
        step,
        lambda: score(split.x_test, split.y_test),
        lambda: score(split.x[:512], split.y[:512]),
    )
