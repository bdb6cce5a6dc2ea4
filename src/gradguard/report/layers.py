"""Gradient norms and update ratios by layer and step, from those of its parameters.

Shape legend: S = steps, N = parameters, L = layers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from gradguard.detect import Layout
from gradguard.record import Points, grad_norm_key


class LayerTable(NamedTuple):
    """One quantity of all layers over a run. All tensors are on the CPU.

    Attributes:
        layers: their names, in the order of the model.
        steps: int64, [S], rising; the last step of what each row stands for.
        values: float64, [S, L]; NaN where it is not known.
    """

    layers: tuple[str, ...]
    steps: Tensor
    values: Tensor


def grad_norms_by_layer(history: Mapping[str, Points], layout: Layout, prefix: str = "") -> LayerTable:
    r"""Give the gradient norm of each layer at each step that was kept: :math:`\sqrt{\sum_p \lVert g_p \rVert^2}`.

    Of guards with another ``norm_type`` p, the p-norm of the norms; the largest one for ``inf``.

    Args:
        history: ``guard.history``, or ``gradguard.record.read(folder).history``.
        layout: whose parameters these are, such as ``read(folder).layouts["optimizer"]``.
        prefix: what the optimizer's series begin with, such as ``generator/``; nothing where there is one optimizer.

    Host sync: none. Mutates: nothing.
    """
    keys = [f"{prefix}grad_norm/{grad_norm_key(name)}" for name in layout.names]
    steps, norms = _table(history, keys)
    p, layers = layout.norm_type, tuple(dict.fromkeys(layout.layers))
    columns = [norms[:, [i for i, of in enumerate(layout.layers) if of == layer]] for layer in layers]
    joined = [_norm(of, p) for of in columns]
    return LayerTable(layers, steps, torch.stack(joined, 1) if joined else norms[:, :0])


def update_ratios_by_layer(history: Mapping[str, Points], layout: Layout, prefix: str = "") -> LayerTable:
    r"""Give the norm of each layer's update over that of its weights, at the sampled steps.

    .. math:: \sqrt{\textstyle\sum_p (r_p w_p)^2 / \sum_p w_p^2}

    with the ratio :math:`r_p` and the norm :math:`w_p` of each parameter. One whose ratio is not known is left out.

    Args:
        history: as of :func:`grad_norms_by_layer`.
        layout: the same.
        prefix: the same.

    Host sync: none. Mutates: nothing.
    """
    steps, ratios = _table(history, [f"{prefix}update_ratio/{name}" for name in layout.names])
    known, norms = _table(history, [f"{prefix}weight_norm/{name}" for name in layout.names])
    at = torch.isin(steps, known)
    steps, ratios, norms = steps[at], ratios[at], norms[torch.isin(known, steps)]
    weights = torch.where(ratios.isnan(), 0.0, norms)
    moved = torch.where(ratios.isnan(), 0.0, ratios * norms)
    layers = tuple(dict.fromkeys(layout.layers))
    columns = []
    for layer in layers:
        of = [i for i, name in enumerate(layout.layers) if name == layer]
        columns.append(_norm(moved[:, of], 2.0) / _norm(weights[:, of], 2.0))  # 0 / 0 is NaN: nothing is known
    return LayerTable(layers, steps, torch.stack(columns, 1) if columns else ratios[:, :0])


def _norm(values: Tensor, p: float) -> Tensor:
    """Join norms [S, K] to that of all of them, [S]; what was not there yet is left out, later on a NaN is one."""
    was_there = (~values.isnan()).cummax(0).values
    there = torch.where(was_there, values, 0.0)
    joined = torch.linalg.vector_norm(there, p, dim=1) if values.shape[1] else there.sum(1)
    return torch.where(was_there.any(1), joined, torch.nan)


def _table(history: Mapping[str, Points], keys: Sequence[str]) -> tuple[Tensor, Tensor]:
    """Give the steps at which there is anything of some series, and their values there, [S, N]."""
    series = [history.get(key) for key in keys]
    there = [points.steps for points in series if points is not None and len(points.steps)]
    steps = torch.cat(there).unique() if there else torch.zeros(0, dtype=torch.int64, device="cpu")
    values = torch.full((len(steps), len(keys)), torch.nan, dtype=torch.float64, device="cpu")
    for column, points in enumerate(series):
        if points is not None and len(points.steps):
            values[torch.searchsorted(steps, points.steps), column] = points.last.double()
    return steps, values
