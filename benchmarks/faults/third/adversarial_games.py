"""Data, networks and the loop of two players, for the adversarial programs of the third generation.

Shape legend: N = examples, F = features, T = time.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Adam, Optimizer

from benchmarks.faults.adversarial import distance
from benchmarks.faults.program import Loop, Record

HELD_OUT = 500
BRISK = partial(Adam, betas=(0.5, 0.9))
Players = tuple[nn.Sequential, nn.Sequential]


def _drawn() -> torch.Generator:
    return torch.Generator().manual_seed(21)


@cache
def waves() -> Tensor:
    """Noisy sines of one or two periods, of any phase, [N, 1, 16]."""
    g = _drawn()
    often = 1 + torch.randint(2, (2500, 1), generator=g)
    phase, height = torch.rand(2500, 1, generator=g), 0.8 + 0.4 * torch.rand(2500, 1, generator=g)
    x = height * (2 * torch.pi * (often * torch.arange(16) / 16 + phase)).sin()
    return (x + 0.05 * torch.randn(2500, 16, generator=g))[:, None]


@cache
def moons() -> Tensor:
    """Two half circles that reach into each other, [N, 2]."""
    g = _drawn()
    angle, upper = torch.pi * torch.rand(2500, generator=g), torch.rand(2500, generator=g) < 0.5
    x = torch.where(upper, angle.cos(), 1 - angle.cos()), torch.where(upper, angle.sin(), 0.5 - angle.sin())
    found = torch.stack(x, 1) + 0.06 * torch.randn(2500, 2, generator=g)
    return (found - found.mean(0)) / found.std(0)


@cache
def board() -> Tensor:
    """The dark fields of a board of four by four, [N, 2]."""
    g = _drawn()
    row, half = torch.randint(4, (2500,), generator=g), torch.randint(2, (2500,), generator=g)
    fields = torch.stack([row, 2 * half + row % 2], 1)
    return fields + torch.rand(2500, 2, generator=g) - 2.0


def strided() -> Players:
    """Convolve over time: the generator with batch norms, the discriminator by strides."""
    forge = nn.Sequential(
        *(nn.Linear(6, 96), nn.Unflatten(1, (24, 4)), nn.Upsample(scale_factor=2), nn.Conv1d(24, 16, 3, padding=1)),
        *(nn.BatchNorm1d(16), nn.ReLU(), nn.Upsample(scale_factor=2), nn.Conv1d(16, 1, 3, padding=1)),
    )
    judge = nn.Sequential(
        *(nn.Conv1d(1, 16, 4, stride=2, padding=1), nn.LeakyReLU(0.2), nn.Conv1d(16, 32, 4, stride=2, padding=1)),
        *(nn.LeakyReLU(0.2), nn.Flatten(), nn.Linear(128, 1)),
    )
    return forge, judge


class Added(nn.Module):
    """Two layers whose output is added to the input."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, width))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = x + self.body(x)
        return out


def residual() -> Players:
    """Residual blocks in both."""
    forge = nn.Sequential(nn.Linear(6, 40), Added(40), Added(40), nn.ReLU(), nn.Linear(40, 2))
    return forge, nn.Sequential(nn.Linear(2, 56), Added(56), nn.ReLU(), nn.Linear(56, 1))


def wide() -> Players:
    """One hidden layer more in the discriminator, of other units than the generator's."""
    forge = nn.Sequential(nn.Linear(6, 64), nn.ELU(), nn.Linear(64, 64), nn.ELU(), nn.Linear(64, 2))
    leaky = partial(nn.LeakyReLU, 0.3)
    judge = nn.Sequential(
        *(nn.Linear(2, 80), leaky(), nn.Linear(80, 80), leaky(), nn.Linear(80, 40), leaky(), nn.Linear(40, 1))
    )
    return forge, judge


def relative(ours: Tensor, theirs: Tensor) -> Tensor:
    """Ask for more of ours than of theirs: Jolicoeur-Martineau, 2018."""
    return F.softplus(theirs - ours).mean()


def play(
    lr: float,
    *,
    players: Callable[[], Players],
    real: Callable[[], Tensor],
    optimizer: Callable[..., Optimizer] = BRISK,
    batch: int = 64,
    penalty: float = 0.0,
    blur: Callable[[int], float] = lambda step: 0.0,
    schedule: Callable[[int], float] = lambda step: 1.0,
    init: Callable[[nn.Module], Any] | None = None,
    copies: bool = False,
) -> Loop:
    """Let a generator and a discriminator play.

    Args:
        lr: of both.
        players: build generator and discriminator.
        real: the data.
        optimizer: of each.
        batch: examples of a batch.
        penalty: weight of the discriminator's squared gradient at data, at every fourth step.
        blur: standard deviation of the noise upon what the discriminator sees, at a step.
        schedule: factor of the learning rates at a step.
        init: changes each module.
        copies: whether the generator is copied after its optimizer was built.
    """
    data, (forge, judge) = real(), players()
    if init:
        forge.apply(init)
        judge.apply(init)
    forge_steps, judge_steps = optimizer(forge.parameters(), lr=lr), optimizer(judge.parameters(), lr=lr)
    groups = [*forge_steps.param_groups, *judge_steps.param_groups]
    rates = [group["lr"] for group in groups]
    if copies:
        forge = copy.deepcopy(forge)
    kept = len(data) - HELD_OUT
    fixed = torch.randn(HELD_OUT, 6, generator=_drawn())

    def step(number: int, record: Record) -> None:
        for group, rate in zip(groups, rates, strict=True):
            group["lr"] = rate * schedule(number)

        def seen(x: Tensor) -> Tensor:
            out: Tensor = judge(x + blur(number) * torch.randn_like(x))
            return out

        x = data[torch.randint(kept, (batch,))]
        with torch.no_grad():
            fake = forge(torch.randn(batch, 6))
        loss = relative(seen(x), seen(fake))
        if penalty and number % 4 == 0:
            x.requires_grad_()
            (slope,) = torch.autograd.grad(judge(x).sum(), x, create_graph=True)
            loss = loss + 4 * penalty * slope.flatten(1).square().sum(1).mean()
        judge_steps.zero_grad()
        record(loss, "discriminator")
        loss.backward()
        judge_steps.step()
        loss = relative(seen(forge(torch.randn(batch, 6))), seen(x.detach()))
        forge.zero_grad()
        record(loss, "generator")
        loss.backward()
        forge_steps.step()

    @torch.no_grad()
    def score(truth: Tensor) -> float:
        mode = forge.training
        found = forge.eval()(fixed).flatten(1)
        forge.train(mode)
        if not found.isfinite().all():
            return 0.0
        return max(0.0, 1 - distance(found, truth) / distance(truth.mean(0, keepdim=True), truth))

    return Loop(
        {"generator": forge, "discriminator": judge},
        {"generator": forge_steps, "discriminator": judge_steps},
        step,
        lambda: score(data[kept:].flatten(1)),
        lambda: score(data[:HELD_OUT].flatten(1)),
    )
