"""Autoencoders of digits: the score is the share of the variance of held-out images that comes back.

Shape legend: N = examples, F = features.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache, partial
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.faults.data import Split, digits
from benchmarks.faults.loops import supervised
from benchmarks.faults.program import Loop, Program
from gradguard.detect import Symptom

SIZES = (64, 48, 16, 48, 64)


@cache
def _images(form: str, unit: bool, scale: float) -> Split:
    """Digits as targets, in [0, 1] or [-1, 1], and, times the scale, as inputs."""
    train, test = ((x + 1) / 2 if unit else x for x in (digits(form).x, digits(form).x_test))
    return Split(scale * train, train, scale * test, test)


class Tied(nn.Module):
    """The decoder's weights are the encoder's, transposed."""

    def __init__(self, code: int) -> None:
        super().__init__()
        self.encode = nn.Linear(64, code)
        self.bias = nn.Parameter(torch.zeros(64))

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(self.encode(x).tanh(), self.encode.weight.T, self.bias)


class Variational(nn.Module):
    """Gives the image, and the mean and logarithm of the variance of the code: [N, F + 2 codes]."""

    def __init__(self, code: int) -> None:
        super().__init__()
        self.encode = nn.Sequential(nn.Linear(64, 48), nn.ReLU(), nn.Linear(48, 2 * code))
        self.decode = nn.Sequential(nn.Linear(code, 48), nn.ReLU(), nn.Linear(48, 64))

    def forward(self, x: Tensor) -> Tensor:
        mean, log_variance = self.encode(x).chunk(2, 1)
        drawn = mean + (log_variance / 2).exp() * torch.randn_like(mean) if self.training else mean
        return torch.cat([self.decode(drawn), mean, log_variance], 1)

    @staticmethod
    def loss(out: Tensor, y: Tensor) -> Tensor:
        """Evidence lower bound: Kingma & Welling, 2014, with a light weight on the divergence."""
        image, mean, log_variance = out[:, :64], *out[:, 64:].chunk(2, 1)
        divergence = (mean.square() + log_variance.exp() - log_variance - 1).sum(1).mean() / 2
        return (image - y).square().sum(1).mean() + 0.05 * divergence


class Sparse(nn.Module):
    """A wide code whose units are on only where they are so many standard deviations above their mean."""

    def __init__(self, code: int, above: float) -> None:
        super().__init__()
        self.encode = nn.Sequential(nn.Linear(64, code), nn.BatchNorm1d(code, affine=False))
        self.above, self.activation, self.decode = above, nn.ReLU(), nn.Linear(code, 64)

    def forward(self, x: Tensor) -> Tensor:
        return self.decode(self.activation(self.encode(x) - self.above))


class Residual(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.inner = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, width))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.inner(x)


def _stack(
    sizes: tuple[int, ...] = SIZES, activation: Callable[[], nn.Module] = nn.ReLU, norm: bool = False, end: Any = None
) -> nn.Sequential:
    layers: list[nn.Module] = []
    for into, out in pairwise(sizes[:-1]):
        layers += [nn.Linear(into, out), *([nn.BatchNorm1d(out)] if norm else []), activation()]
    return nn.Sequential(*layers, nn.Linear(*sizes[-2:]), *([end()] if end else []))


def _jumping() -> nn.Sequential:
    down, up = (nn.Linear(64, 32), Residual(32), Residual(32), nn.Linear(32, 12)), (nn.Linear(12, 32), Residual(32))
    return nn.Sequential(*down, *up, nn.Linear(32, 64))


def _convolutional() -> nn.Sequential:
    def halve(into: int) -> nn.Conv2d:
        return nn.Conv2d(into, 8, 3, stride=2, padding=1)

    def double(out: int) -> nn.ConvTranspose2d:
        return nn.ConvTranspose2d(8, out, 4, stride=2, padding=1)

    return nn.Sequential(halve(1), nn.ReLU(), halve(8), nn.ReLU(), double(8), nn.ReLU(), double(1))


def _image(net: nn.Module, x: Tensor) -> Tensor:
    return net(x)[:, :64]


def _made(
    lr: float,
    *,
    model: Callable[[], nn.Module] = _stack,
    form: str = "flat",
    unit: bool = True,
    scale: float = 1.0,
    loss: Callable[[Tensor, Tensor], Tensor] = F.mse_loss,
    init: Callable[[nn.Module], Any] | None = None,
    batch: int = 32,
    **loop: Any,
) -> Loop:
    net = model()
    if init:
        with torch.no_grad():
            init(net)
    return supervised(net, _images(form, unit, scale), lr, batch=batch, loss=loss, predict=_image, **loop)


def _matrices(change: Callable[[Tensor], Any], net: nn.Module) -> None:
    for p in net.parameters():
        if p.ndim > 1:
            change(p)


def _times(factor: float, net: nn.Module) -> None:
    _matrices(lambda p: p.mul_(factor), net)


def _constant(net: nn.Module) -> None:
    _matrices(lambda p: p.fill_(0.1), net)


def _biases(value: float, net: nn.Module) -> None:
    """Of all layers but the last."""
    for p in [p for p in net.parameters() if p.ndim == 1][:-1]:
        p.fill_(value)


def _noisy(number: int, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    return x + 0.2 * torch.randn_like(x), y


def _missing(number: int, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    return (x.index_fill(1, torch.tensor([9]), torch.nan), y) if number == 200 else (x, y)


def _logarithms(out: Tensor, y: Tensor) -> Tensor:
    """Cross entropy as it stands in books."""
    return -(y * out.log() + (1 - y) * (1 - out).log()).mean()


S = Symptom
ADAM, SLOW = (2e-3, 5e-3), (2e-3 / 300, 5e-3 / 300)
DEEP = (64, 56, 48, 40, 32, 20, 32, 40, 48, 56, 64)
_tanh = partial(_made, model=partial(_stack, activation=nn.Tanh), unit=False)
_sigmoid = partial(_made, model=partial(_stack, end=nn.Sigmoid), loss=F.binary_cross_entropy)
_denoising = partial(_made, on_batch=_noisy)
_tied = partial(_made, model=partial(Tied, 16))
_variational = partial(_made, model=partial(Variational, 8), loss=Variational.loss)
_sparse, _thin = (partial(_made, model=partial(Sparse, 96, above)) for above in (1.2, 10.0))
_conv = partial(_made, model=_convolutional, form="image")
_deep = partial(_made, model=partial(_stack, DEEP, norm=True))
_residual = partial(_made, model=_jumping)
_annealed = partial(_made, schedule=lambda number: 0.5 + 0.5 * math.cos(math.pi * number / 500))
_dropout = partial(_made, model=lambda: nn.Sequential(nn.Dropout(0.1), *_stack()))
_often = partial(_made, batch=8, accumulate=4)
_momentum = partial(_made, model=partial(_stack, norm=True), unit=False, optimizer="momentum")
_biased = partial(_tanh, init=partial(_biases, 10.0))
_raw = partial(_sigmoid, loss=_logarithms, scale=1000.0)
_vanish = partial(_made, model=partial(_stack, DEEP, nn.Sigmoid))
_explode = partial(_made, model=partial(_stack, DEEP), init=partial(_times, 8.0))
_program = partial(Program, steps=500)
_short = partial(Program, steps=400)

PROGRAMS = (
    _program("autoencoder-dense", _made, ADAM, about="the usual one"),
    _program("autoencoder-tanh", _tanh, ADAM, about="bounded units, pixels between -1 and 1"),
    _program("autoencoder-sigmoid", _sigmoid, ADAM, about="most outputs are near 0 or 1; the loss rests far above 0"),
    _program("autoencoder-denoising", _denoising, ADAM, about="noise at the input: the loss rests early"),
    _program("autoencoder-tied", _tied, ADAM, about="a matrix is used twice"),
    _program("autoencoder-variational", _variational, ADAM, about="noise in the middle; some codes go unused"),
    _short("autoencoder-convolutional", _conv, ADAM, about="the usual one, of images"),
    _short("autoencoder-deep", _deep, ADAM, about="ten layers, with batch normalisation"),
    _short("autoencoder-residual", _residual, ADAM, about="the ways around carry most of it"),
    _program("autoencoder-sparse", _sparse, ADAM, about="each unit is off at nine inputs in ten, none at all"),
    _program("autoencoder-annealed", _annealed, ADAM, about="the learning rate falls to zero"),
    _program("autoencoder-dropout", _dropout, ADAM, about="a tenth of the pixels is dropped: rough losses"),
    _short("autoencoder-accumulation", _often, ADAM, about="four backward passes a step"),
    _program("autoencoder-momentum", _momentum, (0.2, 0.3), about="high learning rates, which normalisation bears"),
    _program("autoencoder-bouncing", _momentum, (3.0, 4.5), S.OSCILLATING_LOSS, "autoencoder-momentum", about="lr x15"),
    _program("autoencoder-slow", _made, SLOW, S.SLOW_CONVERGENCE, "autoencoder-dense", about="lr / 300"),
    _program("autoencoder-leaping", _made, (0.4, 1.0), S.UPDATE_TOO_LARGE, "autoencoder-dense", about="lr x200"),
    *(
        program(f"autoencoder-{name}", make, ADAM, label, f"autoencoder-{sibling}", onset=onset, about=about)
        for program, name, make, label, sibling, onset, about in (
            (_program, "saturated", partial(_tanh, init=partial(_times, 20.0)), S.SATURATED_UNITS, "tanh", 1, "x20"),
            (_program, "biased", _biased, S.SATURATED_UNITS, "tanh", 1, "biases 10"),
            (_program, "loud", partial(_tanh, scale=100.0), S.SATURATED_UNITS, "tanh", 1, "inputs x100"),
            (_program, "dead", partial(_made, init=partial(_biases, -8.0)), S.DEAD_UNITS, "dense", 1, "biases -8"),
            (_program, "thin", _thin, S.DEAD_UNITS, "sparse", 1, "units are on at ten standard deviations"),
            (_short, "vanishing", _vanish, S.VANISHING_DEPTH, "deep", 1, "sigmoids without norms"),
            (_short, "exploding", _explode, S.EXPLODING_DEPTH, "deep", 1, "no norms, weights x8"),
            (_program, "constant", partial(_made, init=_constant), S.POOR_INITIALISATION, "dense", 1, "weights 0.1"),
            (_program, "tiny", partial(_tanh, init=partial(_times, 1e-3)), S.POOR_INITIALISATION, "tanh", 1, "x0.001"),
            (_program, "logarithm", _raw, S.NON_FINITE, "sigmoid", 1, "log without eps, inputs x1000"),
            (_program, "missing", partial(_made, on_batch=_missing), S.NON_FINITE, "dense", 200, "a pixel is NaN once"),
        )
    ),
)
