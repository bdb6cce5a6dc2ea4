"""Weights of recurrent layers, one gate's block at a time.

The rows of ``weight_ih`` and ``weight_hh`` are the gates', one under another. What is drawn for the whole stack is
right for none of them: an orthogonal (4H, H) matrix has blocks whose singular values lie anywhere between 0 and 1,
and Xavier's formula takes 4H outputs for H.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, Literal, TypeVar

import torch
from torch import Generator, Tensor, nn

from gradguard.arguments import positive
from gradguard.init.changes import Change, Changes
from gradguard.init.draft import Draft
from gradguard.init.drawing import checked_generator, draw_
from gradguard.init.layers import WEIGHTS, Which, layers_of
from gradguard.init.measures import condition, deviation

Distribution = Literal["uniform", "normal"]
Choice = TypeVar("Choice")


@torch.no_grad()
def orthogonal_(
    model: nn.Module, gain: float = 1.0, *, weights: Which = "recurrent", generator: Generator | None = None
) -> Changes:
    r"""Make every gate's block an orthogonal matrix: what goes round in it neither grows nor shrinks.

    .. math:: W W^\top = \mathrm{gain}^2 I \quad\text{or}\quad W^\top W = \mathrm{gain}^2 I

    whichever is the smaller.

    Args:
        model: an RNN, GRU, LSTM or a cell of theirs, of torch or of gradguard, or a model with such in it.
        gain: singular values of the blocks; > 0.
        weights: ``"recurrent"`` for hidden-to-hidden matrices and projections, ``"input"``, or ``"both"``.
        generator: to draw from; None for torch's own.

    Returns:
        The condition number of each block, before and after.

    Raises:
        ValueError: ``gain`` is not > 0, or there is no recurrent layer; nothing is changed.
        TypeError: no module, or one that was scripted or compiled.

    Source: Saxe, McClelland and Ganguli 2014, arXiv 1312.6120, section 3. Host sync: two a gate. Mutates: these
    weights.

    >>> gru = nn.GRU(4, 8)
    >>> _ = orthogonal_(gru)
    >>> update = gru.weight_hh_l0[8:16]
    >>> bool((update @ update.T - torch.eye(8)).abs().max() < 1e-5)
    True
    """
    gain = positive("orthogonal_", "gain", gain)
    checked_generator("orthogonal_", generator)

    def fill_(block: Tensor) -> None:
        draw_(block, generator, lambda fresh: nn.init.orthogonal_(fresh, gain, generator=generator))

    return _fill("orthogonal_", model, weights, fill_, "condition number", condition)


@torch.no_grad()
def xavier_(
    model: nn.Module,
    gain: float = 1.0,
    *,
    weights: Which = "input",
    distribution: Distribution = "uniform",
    generator: Generator | None = None,
) -> Changes:
    r"""Draw every gate's block by Glorot's formula, with the block's own sizes.

    .. math:: \mathrm{std} = \mathrm{gain} \sqrt{\frac{2}{\mathrm{inputs} + H}}

    Args:
        model: an RNN, GRU, LSTM or a cell of theirs, of torch or of gradguard, or a model with such in it.
        gain: > 0; :func:`torch.nn.init.calculate_gain` knows those of activations.
        weights: ``"input"`` for input-to-hidden matrices, ``"recurrent"``, or ``"both"``.
        distribution: ``"uniform"`` or ``"normal"``.
        generator: to draw from; None for torch's own.

    Returns:
        The standard deviation of each block, before and after.

    Raises:
        ValueError: an argument out of range, or there is no recurrent layer; nothing is changed.
        TypeError: no module, or one that was scripted or compiled.

    Source: Glorot and Bengio 2010. Host sync: two a gate. Mutates: these weights.

    >>> lstm = nn.LSTM(300, 100)
    >>> abs(xavier_(lstm)[0].after - (2 / 400) ** 0.5) < 0.003
    True
    """
    gain = positive("xavier_", "gain", gain)
    checked_generator("xavier_", generator)
    draws: dict[Distribution, Callable[..., Tensor]] = {
        "uniform": nn.init.xavier_uniform_,
        "normal": nn.init.xavier_normal_,
    }
    draw = _one_of("xavier_", "distribution", distribution, draws)

    def fill_(block: Tensor) -> None:
        draw_(block, generator, lambda fresh: draw(fresh, gain, generator=generator))

    return _fill("xavier_", model, weights, fill_, "std", deviation)


@torch.no_grad()
def kaiming_(
    model: nn.Module,
    gain: float = math.sqrt(2.0),
    *,
    weights: Which = "input",
    mode: Literal["fan_in", "fan_out"] = "fan_in",
    distribution: Distribution = "normal",
    generator: Generator | None = None,
) -> Changes:
    r"""Draw every gate's block by He's formula, with the block's own sizes.

    .. math:: \mathrm{std} = \frac{\mathrm{gain}}{\sqrt{\mathrm{fan}}}

    with H as the fan out of a gate, not the 4H of the stack.

    Args:
        model: an RNN, GRU, LSTM or a cell of theirs, of torch or of gradguard, or a model with such in it.
        gain: > 0; sqrt(2) is that of a ReLU.
        weights: ``"input"`` for input-to-hidden matrices, ``"recurrent"``, or ``"both"``.
        mode: ``"fan_in"`` keeps the size of activations, ``"fan_out"`` that of gradients.
        distribution: ``"uniform"`` or ``"normal"``.
        generator: to draw from; None for torch's own.

    Returns:
        The standard deviation of each block, before and after.

    Raises:
        ValueError: an argument out of range, or there is no recurrent layer; nothing is changed.
        TypeError: no module, or one that was scripted or compiled.

    Source: He et al. 2015, "Delving deep into rectifiers", arXiv 1502.01852, section 2.2. Host sync: two a gate.
    Mutates: these weights.

    >>> rnn = nn.RNN(400, 100, nonlinearity="relu")
    >>> abs(kaiming_(rnn)[0].after - (2 / 400) ** 0.5) < 0.003
    True
    """
    gain = positive("kaiming_", "gain", gain)
    checked_generator("kaiming_", generator)
    fan = _one_of("kaiming_", "mode", mode, {"fan_in": 1, "fan_out": 0})
    uniform = _one_of("kaiming_", "distribution", distribution, {"uniform": True, "normal": False})

    def fill_(block: Tensor) -> None:
        std = gain / math.sqrt(block.shape[fan])
        bound = math.sqrt(3.0) * std
        if uniform:
            draw_(block, generator, lambda fresh: fresh.uniform_(-bound, bound, generator=generator))
        else:
            draw_(block, generator, lambda fresh: fresh.normal_(0.0, std, generator=generator))

    return _fill("kaiming_", model, weights, fill_, "std", deviation)


def _fill(
    who: str,
    model: nn.Module,
    weights: Which,
    fill_: Callable[[Tensor], None],
    statistic: str,
    measured: Callable[[Tensor], float],
) -> Changes:
    _one_of(who, "weights", weights, WEIGHTS)
    draft, changes = Draft(who), []
    for layer in layers_of(who, model):
        for name, block in layer.blocks(draft, weights):
            if not block.numel():
                continue
            before = measured(block)
            fill_(block)
            changes.append(Change(name, statistic, before, measured(block)))
    draft.write()
    return Changes(changes)


def _one_of(who: str, name: str, value: str, choices: Mapping[Any, Choice]) -> Choice:
    if not isinstance(value, str) or value not in choices:
        raise ValueError(f"{who} needs {name} to be one of {', '.join(map(repr, choices))}, got {value!r}.")
    return choices[value]
