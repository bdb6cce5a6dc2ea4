"""Data, networks and the loop of two players, for the adversarial programs of the second generation.

Shape legend: N = examples, F = features, C = classes.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import cache, partial
from itertools import pairwise
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm
from torch.optim import Adam, Optimizer

from benchmarks.faults.adversarial import BCE, Game, distance
from benchmarks.faults.data import digits
from benchmarks.faults.program import Loop, Record

HELD_OUT = 400
BRISK = partial(Adam, betas=(0.5, 0.99))


class Real(NamedTuple):
    """Data, [N, F] or images, and what they are conditioned on, [N, C]; of no columns where on nothing."""

    x: Tensor
    c: Tensor


def _drawn() -> torch.Generator:
    return torch.Generator().manual_seed(8)


@cache
def blobs(classes: int = 6) -> Real:
    """Stretched clouds in the plane, one for each class, where a class is one-hot."""
    g = _drawn()
    c = torch.randint(classes, (2400,), generator=g)
    turn = 2 * torch.pi * c / classes
    along = 0.35 * torch.randn(2400, generator=g)
    across = 0.06 * torch.randn(2400, generator=g)
    x = torch.stack([turn.cos(), turn.sin()], 1) * (1.4 + along)[:, None]
    x = x + across[:, None] * torch.stack([-turn.sin(), turn.cos()], 1)
    return Real(x, nn.functional.one_hot(c, classes).float())


@cache
def roll() -> Real:
    """A spiral line in the plane."""
    g = _drawn()
    t = 1.5 * torch.pi * (1 + 2 * torch.rand(2400, generator=g))
    x = torch.stack([t * t.cos(), t * t.sin()], 1) / 7 + 0.05 * torch.randn(2400, 2, generator=g)
    return Real(x, torch.zeros(2400, 0))


@cache
def people() -> Real:
    """Height, weight and age, which hang together; standardised."""
    g = _drawn()
    group = torch.randint(2, (2400,), generator=g) * 2 - 1.0
    tall = 0.8 * group + 0.5 * torch.randn(2400, generator=g)
    heavy = 0.7 * tall.square() + 0.4 * torch.randn(2400, generator=g)
    old = 0.6 * heavy - 0.5 * tall + 0.4 * torch.randn(2400, generator=g)
    x = torch.stack([tall, heavy, old], 1)
    return Real((x - x.mean(0)) / x.std(0), torch.zeros(2400, 0))


@cache
def images() -> Real:
    """The handwritten digits 0 to 3 of all, [N, 1, 8, 8], in [-1, 1]."""
    split = digits("image")
    x = torch.cat([split.x, split.x_test])
    x = x[torch.cat([split.y, split.y_test]) < 4]
    return Real(x.repeat(2, 1, 1, 1), torch.zeros(2 * len(x), 0))


def perceptron(*widths: int, between: Callable[[], nn.Module] = nn.ReLU) -> nn.Sequential:
    """Build linear layers with something between them."""
    pairs = pairwise(widths)
    made = [module for a, b in pairs for module in (nn.Linear(a, b), between())]
    return nn.Sequential(*made[:-1])


def conditional() -> tuple[nn.Sequential, nn.Sequential]:
    """Take the class beside the noise and beside the sample; four layers each."""
    leaky = partial(nn.LeakyReLU, 0.1)
    return perceptron(3 + 6, 48, 48, 48, 2), perceptron(2 + 6, 48, 48, 48, 1, between=leaky)


def spectral() -> tuple[nn.Sequential, nn.Sequential]:
    """A generator with layer norms; a discriminator of spectral norm 1 in each layer."""
    forge = nn.Sequential(
        *(nn.Linear(3, 64), nn.LayerNorm(64), nn.GELU()), *(nn.Linear(64, 64), nn.LayerNorm(64), nn.GELU())
    )
    judge = nn.Sequential(
        *(spectral_norm(nn.Linear(2, 64)), nn.ReLU(), spectral_norm(nn.Linear(64, 64)), nn.ReLU(), nn.Linear(64, 1))
    )
    return forge.append(nn.Linear(64, 2)), judge


def tanhs() -> tuple[nn.Sequential, nn.Sequential]:
    """A generator of SiLU, and a discriminator of tanh units."""
    return perceptron(3, 40, 40, 3, between=nn.SiLU), perceptron(3, 40, 40, 1, between=nn.Tanh)


def convolved() -> tuple[nn.Sequential, nn.Sequential]:
    """DCGAN made small: batch norms in the generator, a tanh at its end, strided convolutions against it."""
    forge = nn.Sequential(
        *(nn.Unflatten(1, (10, 1, 1)), nn.ConvTranspose2d(10, 24, 4, bias=False), nn.BatchNorm2d(24), nn.ReLU()),
        *(nn.ConvTranspose2d(24, 12, 4, stride=2, padding=1, bias=False), nn.BatchNorm2d(12), nn.ReLU()),
        *(nn.Conv2d(12, 1, 3, padding=1), nn.Tanh()),
    )
    judge = nn.Sequential(
        *(nn.Conv2d(1, 12, 4, stride=2, padding=1), nn.LeakyReLU(0.2)),
        *(nn.Conv2d(12, 24, 4, stride=2, padding=1), nn.LeakyReLU(0.2), nn.Flatten(), nn.Linear(96, 1)),
    )
    return forge, judge


def smoothed(real: Tensor, fake: Tensor) -> Tensor:
    """Binary cross entropy where data are only 0.9 real."""
    near = nn.functional.softplus
    return (0.9 * near(-real) + 0.1 * near(real) + near(fake)).mean()


def duel(
    lr: float,
    *,
    players: Callable[[], tuple[nn.Sequential, nn.Sequential]],
    real: Callable[[], Real],
    noise: int = 3,
    game: Game = BCE,
    optimizer: Callable[..., Optimizer] = BRISK,
    batch: int = 48,
    rounds: int = 1,
    factors: tuple[float, float] = (1.0, 1.0),
    average: float = 0.0,
    seen: Callable[[Tensor], Tensor] = lambda x: x,
    init: Callable[[nn.Sequential, nn.Sequential], Any] | None = None,
) -> Loop:
    """Let a generator and a discriminator play.

    Args:
        lr: of both.
        players: build generator and discriminator.
        real: the data.
        noise: width of it.
        game: what they minimise.
        optimizer: of each.
        batch: examples of a batch.
        rounds: steps of the discriminator for one of the generator.
        factors: of the learning rates of generator and discriminator.
        average: share of itself that a running mean of the generator keeps at a step; the mean is what is scored.
        seen: what the discriminator gets of a sample or of data.
        init: changes the weights of both.
    """
    data, (forge, judge) = real(), players()
    if init:
        with torch.no_grad():
            init(forge, judge)
    kept = len(data.x) - HELD_OUT
    forge_steps = optimizer(forge.parameters(), lr=lr * factors[0])
    judge_steps = optimizer(judge.parameters(), lr=lr * factors[1])
    scored = copy.deepcopy(forge).requires_grad_(False) if average else forge
    fixed = torch.randn(HELD_OUT, noise, generator=_drawn())

    def judged(x: Tensor, c: Tensor) -> Tensor:
        x = seen(x)
        out: Tensor = judge(torch.cat([x, c], 1) if c.shape[1] else x)
        return out

    def forged(c: Tensor) -> Tensor:
        out: Tensor = forge(torch.cat([torch.randn(batch, noise), c], 1))
        return out

    def step(number: int, record: Record) -> None:
        for _ in range(rounds):
            at = torch.randint(kept, (batch,))
            x, c = data.x[at], data.c[at]
            with torch.no_grad():
                fake = forged(c)
            loss = game.judge(judged(x, c), judged(fake, c))
            judge_steps.zero_grad()
            record(loss, "discriminator")
            loss.backward()
            judge_steps.step()
        c = data.c[torch.randint(kept, (batch,))]
        loss = game.forge(judged(forged(c), c))
        forge_steps.zero_grad()
        record(loss, "generator")
        loss.backward()
        forge_steps.step()
        if average:
            for mean, now in zip(scored.parameters(), forge.parameters(), strict=True):
                mean.data.lerp_(now.data, 1 - average)

    @torch.no_grad()
    def score(part: slice) -> float:
        x, c = data.x[part], data.c[part]
        mode = scored.training
        fake = scored.eval()(torch.cat([fixed, c], 1))
        scored.train(mode)
        if not fake.isfinite().all():
            return 0.0
        truth, found = (torch.cat([part.flatten(1), 2 * c], 1) for part in (x, fake))
        return max(0.0, 1 - distance(found, truth) / distance(truth.mean(0, keepdim=True), truth))

    return Loop(
        {"generator": forge, "discriminator": judge},
        {"generator": forge_steps, "discriminator": judge_steps},
        step,
        lambda: score(slice(kept, None)),
        lambda: score(slice(HELD_OUT)),
    )
