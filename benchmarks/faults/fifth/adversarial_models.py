"""Two players, two towers, two halves of a network, two models of a world: data and loops of the fifth generation.

Shape legend: N = examples, F = features.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Adam, AdamW

from benchmarks.faults import data
from benchmarks.faults.loops import score_of
from benchmarks.faults.planting import layers
from benchmarks.faults.program import Loop, Record
from benchmarks.faults.second.adversarial_games import Real, perceptron


@cache
def stations() -> Real:
    """What weather stations measure, by season: temperature, damp, pressure, wind and sun, standardised: [N, F]."""
    g = torch.Generator().manual_seed(121)
    season, own = 2 * math.pi * torch.rand(2400, generator=g), torch.randn(2400, 5, generator=g)
    heat = 10 * season.sin() + 3 * own[:, 0]
    damp = -0.05 * heat + 0.8 * own[:, 1]
    force = (0.4 * own[:, 3] - 0.3 * season.sin()).exp()
    sun = (1.5 * season.sin() - damp + 0.5 * own[:, 4]).sigmoid()
    x = torch.stack([heat, damp, own[:, 2] - 0.5 * force, force, sun], 1)
    return Real((x - x.mean(0)) / x.std(0), torch.zeros(2400, 0))


@cache
def orbits() -> Real:
    """Places and paces of what goes around, on ellipses that are alike: [N, 4]."""
    g = torch.Generator().manual_seed(122)
    angle, size = 2 * math.pi * torch.rand(2400, generator=g), 1 + 0.15 * torch.randn(2400, generator=g)
    x = torch.stack([1.4 * angle.cos(), 0.9 * angle.sin(), -1.4 * angle.sin(), 0.9 * angle.cos()], 1)
    return Real(size[:, None] * x + 0.05 * torch.randn(2400, 4, generator=g), torch.zeros(2400, 0))


def weather() -> tuple[nn.Sequential, nn.Sequential]:
    """Two layers of ReLU, and leaky ones against them."""
    return perceptron(6, 64, 64, 5), perceptron(5, 64, 64, 1, between=nn.LeakyReLU)


def going() -> tuple[nn.Sequential, nn.Sequential]:
    """The same of other units."""
    return perceptron(4, 64, 64, 4, between=nn.SiLU), perceptron(4, 64, 64, 1, between=nn.SiLU)


def he(forge: nn.Module, judge: nn.Module, *, inverted: bool = False) -> None:
    """Draw weights with a deviation of sqrt(2 / inputs), or, ``inverted``, of sqrt(inputs / 2)."""
    for layer in (*layers(forge), *layers(judge)):
        deviation = math.sqrt(2 / layer.in_features)
        layer.weight.normal_(0.0, 1 / deviation if inverted else deviation)
        layer.bias.zero_()


def scheduled(lr: float, *, make: Callable[[float], Loop], factor: Callable[[float, int], float]) -> Loop:
    """Change the learning rates of all optimizers: by a factor that is told the rate itself and the step."""
    loop = make(lr)
    groups = [(group, group["lr"]) for optimizer in loop.optimizers.values() for group in optimizer.param_groups]

    def step(number: int, record: Record) -> None:
        for group, rate in groups:
            group["lr"] = rate * factor(rate, number)
        loop.step(number, record)

    return Loop(loop.models, loop.optimizers, step, loop.score, loop.train_score)


def falling(rate: float, step: int, last: int = 450) -> float:
    """Let it fall to a tenth: the factor that LambdaLR wants."""
    return 1 - 0.9 * step / last


def rate_itself(rate: float, step: int) -> float:
    """Give the learning rate, where LambdaLR wants a factor."""
    return rate * falling(rate, step)


def warm(rate: float, step: int, first: int = 200) -> float:
    """Let it rise for some steps."""
    return min(step / first, 1.0)


def warm_steps(rate: float, step: int, first: int = 200) -> float:
    """Let it rise, and forget to divide."""
    return float(min(step, first))


@cache
def _views() -> tuple[Tensor, Tensor]:
    """Tumours: means and worst values of ten measurements each, [N, 10] both, from 0.001 to 4,000."""
    of = data.cancer(scaled=False)
    x = torch.cat([of.x, of.x_test])
    return x[:, :10], x[:, 20:]


def towers(lr: float, *, scaled: bool = True, many: int = 48, size: int = 16) -> Loop:
    """Let two towers find the same code for two views of one thing: Radford et al., 2021; the score is of finding it.

    Args:
        lr: of both.
        scaled: whether the views are standardised.
        many: things of a batch.
        size: of the code.
    """
    views = _views()
    left, right = ((x - x[:400].mean(0)) / x[:400].std(0) if scaled else x for x in views)
    nets = {name: perceptron(10, 64, size, between=nn.Tanh) for name in ("means", "worst")}
    optimizers = {name: AdamW(net.parameters(), lr=lr, weight_decay=0.01) for name, net in nets.items()}

    def alike(at: Tensor) -> Tensor:
        codes = [F.normalize(nets[name](x[at]), dim=1) for name, x in (("means", left), ("worst", right))]
        return codes[0] @ codes[1].T / 0.1

    def step(number: int, record: Record) -> None:
        found, goal = alike(torch.randperm(400)[:many]), torch.arange(many)
        loss = (F.cross_entropy(found, goal) + F.cross_entropy(found.T, goal)) / 2
        for optimizer in optimizers.values():
            optimizer.zero_grad()
        for name in optimizers:
            record(loss, name)
        loss.backward()
        for optimizer in optimizers.values():
            optimizer.step()

    @torch.no_grad()
    def score(first: int) -> float:
        right = [
            (alike(torch.arange(at, at + 16)).argmax(1) == torch.arange(16)).double().mean()
            for at in range(first, first + 160, 16)
        ]
        return max(0.0, (float(torch.stack(right).mean()) - 1 / 16) * 16 / 15)

    return Loop(nets, optimizers, step, lambda: score(400), lambda: score(0))


def relay(lr: float, *, frozen: bool = False, blank: bool = False, code: int = 4, batch: int = 48) -> Loop:
    """Tell digits by an encoder and a decoder, which have an optimizer each.

    Args:
        lr: of both.
        frozen: whether the encoder runs without gradients.
        blank: whether the encoder's last layer and the weights of the decoder's first one begin at zero.
        code: width of what is handed on.
        batch: digits of a batch.
    """
    split = data.digits()
    encoder, decoder = perceptron(64, 64, code), perceptron(code, 64, 10)
    if blank:
        for weights in (*encoder[-1].parameters(), decoder[0].get_parameter("weight")):
            nn.init.zeros_(weights)
    optimizers = {"encoder": Adam(encoder.parameters(), lr=lr), "decoder": Adam(decoder.parameters(), lr=lr)}

    def step(number: int, record: Record) -> None:
        at = torch.randint(len(split.x), (batch,))
        with torch.set_grad_enabled(not frozen):
            handed = encoder(split.x[at])
        loss = F.cross_entropy(decoder(handed), split.y[at])
        for name, optimizer in optimizers.items():
            optimizer.zero_grad()
            record(loss, name)
        loss.backward()
        for optimizer in optimizers.values():
            optimizer.step()

    def score(x: Tensor, y: Tensor) -> float:
        return score_of(lambda: decoder(encoder(x)), [encoder, decoder], y)

    return Loop(
        {"encoder": encoder, "decoder": decoder},
        optimizers,
        step,
        lambda: score(split.x_test, split.y_test),
        lambda: score(split.x[:512], split.y[:512]),
    )


def _pushed(state: Tensor, push: Tensor) -> Tensor:
    """Move two joints, each with an angle and a pace, by two torques."""
    angle, pace = state.chunk(2, 1)
    pull = angle.sin() + 0.5 * (angle - angle.flip(1)).sin()
    pace = 0.95 * pace + 0.3 * (push - pull)
    return torch.cat([angle + 0.5 * pace, pace], 1)


def curious(lr: float, *, batch: int = 64) -> Loop:
    """Learn what a push leads to, and which push it was: Pathak et al., 2017.

    Args:
        lr: of both models.
        batch: pushes of a batch.
    """
    forward, inverse = perceptron(6, 64, 64, 4), perceptron(8, 64, 64, 2)
    models = {"forward": forward, "inverse": inverse}
    optimizers = {name: Adam(net.parameters(), lr=lr) for name, net in models.items()}
    g = torch.Generator().manual_seed(123)
    state, push = torch.randn(3000, 4, generator=g), 2 * torch.rand(3000, 2, generator=g) - 1
    then = _pushed(state, push) + 0.02 * torch.randn(3000, 4, generator=g)
    pairs = {
        "forward": (torch.cat([state, push], 1), (then - state) / (then - state).std(0)),
        "inverse": (torch.cat([state, then], 1), push / push.std(0)),
    }

    def step(number: int, record: Record) -> None:
        at = torch.randint(2500, (batch,))
        for name, (x, y) in pairs.items():
            loss = F.mse_loss(models[name](x[at]), y[at])
            optimizers[name].zero_grad()
            record(loss, name)
            loss.backward()
            optimizers[name].step()

    def score(part: slice) -> float:
        found = []
        for name, (x, y) in pairs.items():
            net, known, goal = models[name], x[part], y[part]
            found.append(score_of(lambda net=net, known=known: net(known), [net], goal))  # type: ignore[misc]
        return sum(found) / 2

    return Loop(models, optimizers, step, lambda: score(slice(2500, None)), lambda: score(slice(500)))
