"""Recurrent modules on one another, with shortcuts and norms between them.

Shape legend: N = rows of all steps, W = width of what goes from one layer to the next.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any, final

from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from gradguard.nn.sequence import SequenceLike
from gradguard.nn.weight_decay import weight_decay_groups


@final
class Stack(nn.Module):
    r"""Run recurrent modules on one another, of any kinds: many layers, trained through shortcuts.

    .. math:: y_k = \mathrm{norm}_k(\mathrm{layer}_k(y_{k-1})) \quad\text{or}\quad
        y_k = S_k y_{k-1} + \mathrm{norm}_k(\mathrm{layer}_k(y_{k-1}))

    with ``residual``, where :math:`S_k` is the identity, or a learned matrix where widths differ. The last layer has no
    norm, and the others' stand before the sum, so that nothing but these matrices stands in the way of a gradient. Not
    for a few layers of one kind without norms: ``num_layers`` and the option ``residual`` do that in one module.

    Args:
        layers: modules of ``gradguard.nn``, or ``torch.nn.LSTM``, ``GRU``, ``RNN``, or what is called like them. All
            have the same ``batch_first``; each takes the width that the one below gives.
        residual: whether each layer's input is added to what comes out of it.
        norm: makes a norm of W features, such as ``nn.LayerNorm`` or ``nn.BatchNorm1d``; it is given rows [N, W], of
            packed sequences those that exist, so that no padding gets into statistics. None for no norms. They get
            the dtype and device of their layer.

    Raises:
        ValueError: no layers; widths that do not fit; layers that differ in ``batch_first``.
        TypeError: a layer that is no recurrent module.

    Source: He et al. 2016, arXiv 1512.03385, for the shortcuts; Li et al. 2019, arXiv 1910.06251, for deep IndRNNs.
    Host sync: none. Mutates: nothing but what the layers and norms do, such as running statistics.

    >>> import torch
    >>> from gradguard.nn import IndRNN
    >>> sizes = [3] + 20 * [64]  # of 21 layers' inputs; the last one remembers until the end
    >>> layers = [IndRNN(size, 64, length=784, long_memory=k == 20) for k, size in enumerate(sizes)]
    >>> output, states = Stack(layers, residual=True, norm=nn.LayerNorm)(torch.randn(10, 2, 3))
    >>> output.shape, len(states)
    (torch.Size([10, 2, 64]), 21)
    """

    def __init__(
        self,
        layers: Sequence[nn.Module],
        *,
        residual: bool = False,
        norm: Callable[[int], nn.Module] | None = None,
    ) -> None:
        super().__init__()
        if not isinstance(residual, bool):
            raise TypeError(f"Stack needs residual to be a bool, got {residual!r}.")
        if norm is not None and not callable(norm):
            raise TypeError(f"Stack needs norm to be what makes a norm of a width, such as nn.LayerNorm, got {norm!r}.")
        self.layers = nn.ModuleList(layers)
        widths = _checked(list(self.layers))
        self.residual, self.batch_first = residual, self.layers[0].batch_first
        self.norms, self.shortcuts = nn.ModuleList(), nn.ModuleList()
        for layer, (given, made) in zip(self.layers, widths, strict=True):
            like = next(layer.parameters())
            if norm is not None and len(self.norms) < len(widths) - 1:
                self.norms.append(norm(made).to(like))
            if residual:
                fits = given == made
                shortcut = nn.Identity() if fits else nn.Linear(given, made, False, like.device, like.dtype)
                self.shortcuts.append(shortcut)

    def forward(self, input: SequenceLike, hx: Any = None) -> tuple[SequenceLike, list[Any]]:
        """Run all layers over a sequence.

        Args:
            input: in a form that the first layer takes.
            hx: for each layer its states before the first step, or None for zeros; None for zeros in all.

        Returns:
            The last layer's output, in the form of the input; and for each layer its states after the last step, which
            go in again as ``hx``.

        Raises:
            ValueError: ``hx`` is not one for each layer.
        """
        count = len(self.layers)
        if hx is not None and (isinstance(hx, Tensor) or len(hx) != count):
            found = "one tensor" if isinstance(hx, Tensor) else f"{len(hx)} of them"
            raise ValueError(f"Stack needs hx to be a list of one state, or None, for each of {count} layers: {found}.")
        before, after = [None] * count if hx is None else hx, []
        for k, layer in enumerate(self.layers):
            output, last = layer(input, before[k])
            after.append(last)
            rows, width = _rows(output), output_width(layer)
            if k < len(self.norms):
                rows = self.norms[k](rows.reshape(-1, width)).view(rows.shape)
            if self.residual:
                rows = rows + self.shortcuts[k](_rows(input))
            input = _like(output, rows)
        return input, after

    def weight_decay_groups(self, weight_decay: float) -> list[dict[str, Any]]:
        """Sort the parameters for an optimizer: see :meth:`AbstractRecurrent.weight_decay_groups`."""
        return weight_decay_groups(self, weight_decay)

    def extra_repr(self) -> str:
        """Say whether there are shortcuts."""
        return "residual=True" if self.residual else ""


def output_width(layer: Any) -> int:
    """How wide the output of a recurrent module is."""
    width: int = getattr(layer, "proj_size", 0) or layer.hidden_size
    return 2 * width if getattr(layer, "bidirectional", False) else width


def _checked(layers: list[Any]) -> list[tuple[int, int]]:
    """Give the widths of each layer's input and output."""
    if not layers:
        raise ValueError("Stack needs at least one layer, got none.")
    for k, layer in enumerate(layers):
        if not all(hasattr(layer, name) for name in ("input_size", "hidden_size", "batch_first")):
            raise TypeError(
                f"Stack needs layers with input_size, hidden_size and batch_first, as torch.nn.LSTM has them: layer "
                f"{k} is a {type(layer).__name__}."
            )
    first = [k for k, layer in enumerate(layers) if layer.batch_first]
    if 0 < len(first) < len(layers):
        raise ValueError(
            f"Stack needs layers that agree on batch_first: it is True in layers {first} and False in the others."
        )
    widths = [(layer.input_size, output_width(layer)) for layer in layers]
    for k, ((_, made), (given, _)) in enumerate(pairwise(widths), start=1):
        if given != made:
            raise ValueError(f"Stack: layer {k} needs input_size {made}, the width of the layer below, got {given}.")
    return widths


def _rows(sequence: SequenceLike) -> Tensor:
    return sequence.data if isinstance(sequence, PackedSequence) else sequence


def _like(sequence: SequenceLike, rows: Tensor) -> SequenceLike:
    if isinstance(sequence, PackedSequence):
        return PackedSequence(rows, sequence.batch_sizes, sequence.sorted_indices, sequence.unsorted_indices)
    return rows
