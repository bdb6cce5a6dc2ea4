"""What the recurrent weights alone do to a state, gate by gate.

Shape legend: H = hidden, P = width of h (H, or the size of the projection).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from gradguard.probe.recurrent_layers import Direction, directions_of, recurrent_modules

WHO = "recurrent_spectrum"


class RecurrentSpectrum(NamedTuple):
    """Of one layer in one direction.

    Attributes:
        name: "l0", "l0_reverse"; of a ``Stack`` "layers.0.l0".
        radius: of each gate's block, the largest absolute eigenvalue.
        norm: of each gate's block, the largest singular value.
    """

    name: str
    radius: dict[str, float]
    norm: dict[str, float]


def recurrent_spectrum(module: nn.Module) -> tuple[RecurrentSpectrum, ...]:
    r"""Take spectral radius and spectral norm of every gate's block of the recurrent weights.

    .. math:: \rho(W) = \max_k |\lambda_k(W)|, \qquad \lVert W \rVert_2 = \max_{\lVert v \rVert = 1} \lVert W v \rVert

    The radius is the rate of many steps of a linear recurrence, the norm the most that a single step can do. Blocks are
    those that the cell has: of MUT1 there is none for z. With a projection, W is the block times the projection,
    [H, H]. Of an IndRNN, W is the diagonal of u within its bound, and both are its largest :math:`|u|`.

    Not a verdict on a gated or normalised cell: what goes through its gates and its c, and what norms make of W, is
    only in the Jacobian of a state on its way, see :func:`lyapunov_spectrum`. ``gradguard.init.describe`` has the same
    of a whole model, with remarks.

    Args:
        module: ``torch.nn.RNN``, ``GRU`` or ``LSTM``, or a module of ``gradguard.nn``. Weights are those of
            evaluation: parametrized ones as computed, a DTensor whole, half precision as it is.

    Returns:
        For each layer and direction, in the order of the module's states, its numbers by the names of the gates.

    Raises:
        TypeError: no module, or one that was scripted or compiled.
        ValueError: it is not recurrent, or a cell; weights on the meta device, or with NaN or Inf.

    Source: Pascanu, Mikolov and Bengio 2013, "On the difficulty of training recurrent neural networks", arXiv
    1211.5063, section 2. Host sync: two a gate and some a layer. Mutates: nothing.

    >>> rnn = nn.RNN(3, 2)
    >>> _ = rnn.weight_hh_l0.data.copy_(torch.tensor([[0.5, 2.0], [0.0, 0.5]]))
    >>> [found] = recurrent_spectrum(rnn)
    >>> found.name, found.radius, round(found.norm["h"], 4)
    ('l0', {'h': 0.5}, 2.118)
    """
    found = []
    with torch.no_grad():
        for prefix, layers in recurrent_modules(WHO, module):
            for direction in directions_of(WHO, layers):
                blocks = _blocks(direction)
                radii = {gate: float(torch.linalg.eigvals(block).abs().max()) for gate, block in blocks.items()}
                norms = {gate: float(torch.linalg.matrix_norm(block, 2)) for gate, block in blocks.items()}
                found.append(RecurrentSpectrum(prefix + direction.name, radii, norms))
    return tuple(found)


def _blocks(direction: Direction) -> dict[str, Tensor]:
    """Give each gate's block as a matrix, [H, H]."""
    weight, gates = direction.params["weight_hh"], direction.recurrence.gates.within("weight_hh")
    if weight.dim() == 1:
        return {gates[0]: weight.diag()}
    blocks = dict(zip(gates, weight.chunk(len(gates)), strict=True))
    projection = direction.params.get("weight_hr")
    return blocks if projection is None else {gate: block @ projection for gate, block in blocks.items()}
