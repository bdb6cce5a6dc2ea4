"""Generative adversarial networks: two models, two optimizers, and losses that need not fall.

The score is 1 less the energy distance between samples and data, over that of the mean of the data.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Adam, Optimizer, RMSprop

from benchmarks.faults.data import digits
from benchmarks.faults.program import Loop, Program, Record
from gradguard.detect import Symptom

LATENT = 4
MILD = partial(Adam, betas=(0.5, 0.999))


@cache
def _real(form: str) -> Tensor:
    """Data, [N, F]: of variance about 1."""
    g = torch.Generator().manual_seed(4)
    pick = torch.randint(1000, (2000,), generator=g)
    if form == "digits":
        x = digits().x
        x = x - x.mean(0)
        x = x @ torch.linalg.svd(x, full_matrices=False).Vh[:6].T
        return x / x.std()
    if form == "mixture":
        return torch.tensor([-1.5, 0.0, 1.5])[pick % 3, None] + 0.2 * torch.randn(2000, 1, generator=g)
    if form == "grid":
        x = torch.stack([pick % 3 - 1, pick // 3 % 3 - 1], 1).float()
        return 1.2 * x + 0.1 * torch.randn(2000, 2, generator=g)
    angle = pick % 8 * (torch.pi / 4)
    return 1.5 * torch.stack([angle.cos(), angle.sin()], 1) + 0.1 * torch.randn(2000, 2, generator=g)


def distance(a: Tensor, b: Tensor) -> float:
    """Energy distance: Székely & Rizzo, Energy statistics, 2013."""
    return float(2 * torch.cdist(a, b).mean() - torch.cdist(a, a).mean() - torch.cdist(b, b).mean())


class Game(NamedTuple):
    """What the discriminator and the generator minimise, of what the discriminator says of data and of samples."""

    judge: Callable[[Tensor, Tensor], Tensor]
    forge: Callable[[Tensor], Tensor]


def _logged(eps: float) -> Game:
    """Probabilities, and their logarithms; without ``eps`` that of 0 is -inf."""
    return Game(
        lambda real, fake: -((real + eps).log() + (1 - fake + eps).log()).mean(),
        lambda fake: -(fake + eps).log().mean(),
    )


BCE = Game(lambda real, fake: (F.softplus(-real) + F.softplus(fake)).mean(), lambda fake: F.softplus(-fake).mean())
SQUARES = Game(lambda real, fake: ((real - 1).square() + fake.square()).mean(), lambda fake: (fake - 1).square().mean())
HINGE = Game(lambda real, fake: (F.relu(1 - real) + F.relu(1 + fake)).mean(), lambda fake: -fake.mean())
WASSERSTEIN = Game(lambda real, fake: (fake - real).mean(), lambda fake: -fake.mean())


def _penalty(judge: nn.Module, real: Tensor, fake: Tensor) -> Tensor:
    """Gradient penalty: Gulrajani et al., 2017."""
    mix = torch.lerp(real, fake, torch.rand(len(real), 1)).requires_grad_()
    (slope,) = torch.autograd.grad(judge(mix).sum(), mix, create_graph=True)
    return 2 * (slope.norm(dim=1) - 1).square().mean()


def _gan(
    lr: float,
    *,
    form: str = "ring",
    game: Game = BCE,
    optimizer: Callable[..., Optimizer] = MILD,
    width: int = 32,
    judge_end: Callable[[Tensor], Tensor] = lambda x: x,
    clip: float | None = None,
    penalty: bool = False,
    rounds: int = 1,
    factors: tuple[float, float] = (1.0, 1.0),
    init: Callable[[nn.Sequential, nn.Sequential], Any] | None = None,
    pass_on: Callable[[Tensor], Tensor] = lambda fake: fake,
) -> Loop:
    """Let a generator and a discriminator play.

    Args:
        lr: of both.
        form: of the data.
        game: what they minimise.
        optimizer: of each.
        width: hidden units.
        judge_end: what ends the discriminator.
        clip: bound of the discriminator's weights.
        penalty: whether its gradient is held at norm 1.
        rounds: its steps for one of the generator.
        factors: of the learning rates of generator and discriminator.
        init: changes their weights.
        pass_on: what becomes of a sample on its way to the discriminator, in the generator's step.
    """
    data = _real(form)
    features = data.shape[1]
    forge = nn.Sequential(
        nn.Linear(LATENT, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, features)
    )
    judge = nn.Sequential(
        nn.Linear(features, width), nn.LeakyReLU(0.2), nn.Linear(width, width), nn.LeakyReLU(0.2), nn.Linear(width, 1)
    )
    if init:
        with torch.no_grad():
            init(forge, judge)
    forge_steps = optimizer(forge.parameters(), lr=lr * factors[0])
    judge_steps = optimizer(judge.parameters(), lr=lr * factors[1])
    latent = torch.randn(500, LATENT, generator=torch.Generator().manual_seed(5))

    def step(number: int, record: Record) -> None:
        for _ in range(rounds):
            real = data[torch.randint(len(data) - 500, (32,))]
            with torch.no_grad():
                fake = forge(torch.randn(32, LATENT))
            loss = game.judge(judge_end(judge(real)), judge_end(judge(fake)))
            if penalty:
                loss = loss + _penalty(judge, real, fake)
            judge_steps.zero_grad()
            record(loss, "discriminator")
            loss.backward()
            judge_steps.step()
            if clip:
                for p in judge.parameters():
                    p.data.clamp_(-clip, clip)
        loss = game.forge(judge_end(judge(pass_on(forge(torch.randn(32, LATENT))))))
        forge_steps.zero_grad()
        record(loss, "generator")
        loss.backward()
        forge_steps.step()

    @torch.no_grad()
    def score(real: Tensor) -> float:
        fake = forge(latent)
        if not fake.isfinite().all():
            return 0.0
        return max(0.0, 1 - distance(fake, real) / distance(real.mean(0, keepdim=True), real))

    return Loop(
        {"generator": forge, "discriminator": judge},
        {"generator": forge_steps, "discriminator": judge_steps},
        step,
        lambda: score(data[-500:]),
        lambda: score(data[:500]),
    )


def _dead(forge: nn.Sequential, judge: nn.Sequential) -> None:
    forge[2].bias.fill_(-10.0)


def _constant(forge: nn.Sequential, judge: nn.Sequential) -> None:
    for p in [*forge.parameters(), *judge.parameters()]:
        p.fill_(0.1)


S = Symptom
FAST, RATES = (2e-3, 4e-3), (1e-3, 2e-3)
_grid = partial(_gan, form="grid", game=SQUARES)
_clipped = partial(_gan, game=WASSERSTEIN, optimizer=RMSprop, clip=0.1, rounds=2)
_penal = partial(_gan, game=WASSERSTEIN, penalty=True, factors=(1.0, 3.0))
_mixture = partial(_gan, form="mixture", game=_logged(1e-6), judge_end=torch.sigmoid)
_confident = partial(_mixture, game=_logged(0.0), factors=(1.0, 200.0))
_digits = partial(_gan, form="digits", game=SQUARES)
_short = partial(Program, steps=400)

PROGRAMS = (
    Program("gan-ring", _gan, FAST, about="neither loss falls"),
    Program("gan-hinge", partial(_gan, game=HINGE), FAST, about="many samples give no gradient"),
    Program("gan-grid", _grid, RATES, about="squares as losses"),
    _short("gan-clipped", _clipped, RATES, about="weights at their bound, losses of either sign, two steps for one"),
    Program("gan-mixture", _mixture, RATES, about="probabilities and their logarithms"),
    _short("gan-penalty", _penal, RATES, about="double backward, losses of either sign, two learning rates"),
    Program("gan-digits", _digits, RATES, about="the generator's loss rises"),
    Program("gan-detached", partial(_gan, pass_on=Tensor.detach), FAST, S.NO_GRADIENT, "gan-ring", about="detached"),
    Program("gan-leaping", partial(_gan, factors=(300.0, 1.0)), FAST, S.UPDATE_TOO_LARGE, "gan-ring", about="lr x300"),
    Program("gan-digits-leaping", partial(_digits, factors=(300.0, 1.0)), RATES, S.UPDATE_TOO_LARGE, "gan-digits"),
    Program(
        "gan-dead", partial(_grid, init=_dead), RATES, S.DEAD_UNITS, "gan-grid", about="the generator's biases -10"
    ),
    Program("gan-constant", partial(_gan, init=_constant), FAST, S.POOR_INITIALISATION, "gan-ring", about="all 0.1"),
    Program("gan-frozen", partial(_digits, factors=(1e-6, 1.0)), RATES, S.UPDATE_TOO_SMALL, "gan-digits", about="1e-9"),
    _short("gan-slow", _clipped, (1e-3 / 300, 2e-3 / 300), S.SLOW_CONVERGENCE, "gan-clipped", about="both lr / 300"),
    Program("gan-logarithm", _confident, RATES, S.NON_FINITE, "gan-mixture", about="no eps, a confident discriminator"),
)
