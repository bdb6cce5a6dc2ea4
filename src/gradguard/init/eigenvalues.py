"""Recurrent weights by their eigenvalues: the identity, and a spectral radius."""

from __future__ import annotations

import math

import torch
from torch import Generator, Tensor, nn

from gradguard.arguments import positive
from gradguard.init.changes import Change, Changes
from gradguard.init.draft import Draft, set_bias_
from gradguard.init.drawing import checked_generator, draw_
from gradguard.init.layers import Layer, layers_of
from gradguard.init.measures import deviation, radius


@torch.no_grad()
def identity_(
    model: nn.Module, scale: float = 1.0, *, input_std: float = 0.001, generator: Generator | None = None
) -> Changes:
    r"""Make every gate's block of the recurrent weight a multiple of the identity.

    .. math:: W_{hh} = \mathrm{scale} \cdot I

    In an RNN, biases become 0 and :math:`W_{ih} \sim \mathcal{N}(0, \mathrm{input\_std}^2)` besides, which with a ReLU
    is the paper's IRNN. Of a GRU and an LSTM nothing else is changed. An IRNN is touchy: it wants a small learning
    rate, and gradients that are clipped.

    Args:
        model: an RNN, GRU, LSTM or a cell of theirs, of torch or of gradguard, or a model with such in it.
        scale: > 0; below 1 it forgets, as the paper has it for speech (0.01).
        input_std: of an RNN's input weights; > 0.
        generator: to draw from; None for torch's own.

    Returns:
        The spectral radius of each recurrent block, and the standard deviation of an RNN's input weights, before and
        after; its biases.

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
    draft = Draft("identity_")
    changes: list[Change] = []
    for layer in layers_of("identity_", model):
        blocks = _square_blocks("identity_", layer, draft)
        for name, block in blocks:
            before = radius(block)
            block.copy_(torch.eye(len(block)) * scale)
            changes.append(Change(name, "spectral radius", before, radius(block)))
        if len(layer.gates.names) > 1 or not blocks:
            continue
        for name, block in layer.blocks(draft, "input"):
            before = deviation(block)
            draw_(block, generator, lambda fresh: fresh.normal_(0.0, std, generator=generator))
            changes.append(Change(name, "std", before, deviation(block)))
        for short in ("bias_ih", "bias_hh"):
            changes += set_bias_(draft, layer.module, layer.path, 0.0, short + layer.suffix)
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


def _square_blocks(who: str, layer: Layer, draft: Draft) -> list[tuple[str, Tensor]]:
    found = list(layer.blocks(draft, "recurrent"))
    for name, block in found:
        if block.shape[0] != block.shape[-1]:
            raise ValueError(
                f"{who} needs square recurrent weights, but a block of {name} is {tuple(block.shape)}: "
                "with a projection (proj_size) there is no identity and no eigenvalue. Take orthogonal_."
            )
    return found
