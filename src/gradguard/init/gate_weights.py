"""Weights of recurrent layers, one gate's block at a time.

The rows of ``weight_ih`` and ``weight_hh`` are the gates', one under another. What is drawn for the whole stack is right
for none of them: an orthogonal (4H, H) matrix has blocks whose singular values lie anywhere between 0 and 1, and
Xavier's formula takes 4H outputs for H.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, Literal, TypeVar

import torch
from torch import Generator, Tensor, nn

from gradguard.init.changes import Change, Changes
from gradguard.init.draft import Draft
from gradguard.init.drawing import checked_generator, draw_, positive
from gradguard.init.layers import WEIGHTS, Layer, Which, layers_of

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

    Source: Saxe, McClelland and Ganguli 2014, arXiv 1312.6120, section 3. Host sync: two a gate. Mutates: these weights.

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


@torch.no_grad()
def identity_(
    model: nn.Module, scale: float = 1.0, *, input_std: float = 0.001, generator: Generator | None = None
) -> Changes:
    r"""Make every gate's block of the recurrent weight a multiple of the identity.

    .. math:: W_{hh} = \mathrm{scale} \cdot I

    In an RNN, biases become 0 and :math:`W_{ih} \sim \mathcal{N}(0, \mathrm{input\_std}^2)` besides, which with a ReLU is
    the paper's IRNN. Of a GRU and an LSTM nothing else is changed. An IRNN is touchy: it wants a small learning rate, and
    gradients that are clipped.

    Args:
        model: an RNN, GRU, LSTM or a cell of theirs, of torch or of gradguard, or a model with such in it.
        scale: > 0; below 1 it forgets, as the paper has it for speech (0.01).
        input_std: of an RNN's input weights; > 0.
        generator: to draw from; None for torch's own.

    Returns:
        The spectral radius of each recurrent block, and the standard deviation of an RNN's input weights, before and
        after.

    Raises:
        ValueError: an argument out of range; a projection, whose recurrent weights are not square; no recurrent layer.
        TypeError: no module, or one that was scripted or compiled.

    Source: Le, Jaitly and Hinton 2015, arXiv 1504.00941, section 3. Host sync: two a gate. Mutates: these weights and
    biases.

    >>> rnn = nn.RNN(4, 3, nonlinearity="relu")
    >>> _ = identity_(rnn)
    >>> rnn.weight_hh_l0
    Parameter containing:
    tensor([[1., 0., 0.],
            [0., 1., 0.],
            [0., 0., 1.]], requires_grad=True)
    """
    scale, std = positive("identity_", "scale", scale), positive("identity_", "input_std", input_std)
    checked_generator("identity_", generator)
    draft, changes = Draft("identity_"), []
    for layer in layers_of("identity_", model):
        for name, block in _square_blocks("identity_", layer, draft):
            before = radius(block)
            block.copy_(torch.eye(len(block)) * scale)
            changes.append(Change(name, "spectral radius", before, radius(block)))
        if len(layer.gates.names) > 1:
            continue
        for name, block in layer.blocks(draft, "input"):
            before = deviation(block)
            draw_(block, generator, lambda fresh: fresh.normal_(0.0, std, generator=generator))
            changes.append(Change(name, "std", before, deviation(block)))
        for short in ("bias_ih", "bias_hh"):
            if layer.has(short):
                draft(layer.module, short + layer.suffix).zero_()
    draft.write()
    return Changes(changes)


@torch.no_grad()
def spectral_radius_(model: nn.Module, value: float) -> Changes:
    r"""Scale every gate's block of the recurrent weights, so that its largest eigenvalue has this size.

    .. math:: W \leftarrow W \cdot \frac{\mathrm{value}}{\max_k |\lambda_k(W)|}

    Below 1 an RNN forgets its initial state, which is what a reservoir needs; how fast, the radius says. It bounds no
    single step: a matrix may let a vector grow a while and still have a small radius (see ``orthogonal_``).

    Args:
        model: an RNN, GRU, LSTM or a cell of theirs, of torch or of gradguard, or a model with such in it.
        value: the radius; > 0.

    Returns:
        The spectral radius of each block, before and after.

    Raises:
        ValueError: ``value`` is not > 0; a block whose eigenvalues are all 0, or not finite; a projection, whose
            recurrent weights are not square; no recurrent layer.
        TypeError: no module, or one that was scripted or compiled.

    Source: Jaeger 2001, "The echo state approach". Host sync: two a gate. Mutates: these weights.

    >>> rnn = nn.RNN(4, 8)
    >>> [round(change.after, 4) for change in spectral_radius_(rnn, 0.9)]
    [0.9]
    """
    wanted = positive("spectral_radius_", "value", value)
    draft, changes = Draft("spectral_radius_"), []
    for layer in layers_of("spectral_radius_", model):
        for name, block in _square_blocks("spectral_radius_", layer, draft):
            before = radius(block)
            if not 0 < before < math.inf:
                raise ValueError(f"spectral_radius_ can't scale {name}: its spectral radius is {before}.")
            block.mul_(wanted / before)
            changes.append(Change(name, "spectral radius", before, radius(block)))
    draft.write()
    return Changes(changes)


def condition(block: Tensor) -> float:
    """Largest singular value over the smallest; NaN of what is not finite."""
    if not bool(block.isfinite().all()):
        return math.nan
    values = torch.linalg.svdvals(block.double())
    return (values.max() / values.min()).item() if values.numel() else math.nan


def radius(block: Tensor) -> float:
    """Largest absolute eigenvalue; NaN of what is not finite."""
    if not bool(block.isfinite().all()):
        return math.nan
    return torch.linalg.eigvals(block.double()).abs().max().item()


def deviation(block: Tensor) -> float:
    """Standard deviation of all entries."""
    return block.double().std(correction=0).item()


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
            before = measured(block)
            fill_(block)
            changes.append(Change(name, statistic, before, measured(block)))
    draft.write()
    return Changes(changes)


def _square_blocks(who: str, layer: Layer, draft: Draft) -> list[tuple[str, Tensor]]:
    found = list(layer.blocks(draft, "recurrent"))
    for name, block in found:
        if block.shape[0] != block.shape[-1]:
            raise ValueError(
                f"{who} needs square recurrent weights, but a block of {name} is {tuple(block.shape)}: "
                "with a projection (proj_size) there is no identity and no eigenvalue. Take orthogonal_."
            )
    return found


def _one_of(who: str, name: str, value: str, choices: Mapping[Any, Choice]) -> Choice:
    if value not in choices:
        raise ValueError(f"{who} needs {name} to be one of {', '.join(map(repr, choices))}, got {value!r}.")
    return choices[value]
