"""How open the gates of a recurrent module are, unit by unit.

Shape legend: N = rows of all steps, G = gates, H = hidden, K = bins.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from gradguard.detect import GateStatistics
from gradguard.probe.calls import CallOfTorch
from gradguard.probe.hearing import Ear, alone, is_recurrent

BINS = 20
CANDIDATES = frozenset({"g", "n", "h"})  # between -1 and 1, by a tanh; the gates proper lie between 0 and 1
# Where the slope is less than a tenth of its largest: 0.025 of a sigmoid, 0.1 of a tanh.
SHUT_SIGMOID, OPEN_SIGMOID = 0.02565835097474307, 0.9743416490252569
OPEN_TANH = 0.9486832980505138


def gates(
    module: nn.Module, input: Any, hx: Any = None, output: Any = None
) -> Mapping[str, tuple[GateStatistics, ...]]:
    """Say how open the gates of a recurrent module were in a call, without running the model again.

    Args:
        module: ``nn.LSTM``, ``nn.GRU``, ``nn.RNN`` (fused as it is) or one of ``gradguard.nn``.
        input: what it was given, in any of its forms.
        hx: the states that it was given, or None.
        output: what came out, the first of what it returned: a module of torch's then need not run its last layer
            again. Of what dropout drew inside, a module of torch's wants to be in evaluation.

    Returns:
        For each layer and direction (``l0``, ``l0_reverse`` ...) a :class:`GateStatistics` for each gate, on the CPU.
        Of a plain tanh network, ``h``; of one with ReLU, nothing.

    Raises:
        TypeError: a module without recurrence.
        ValueError: no step, or dropout between layers in training.

    Host sync: one for each layer and direction. Mutates: nothing; random numbers are as they were.

    >>> lstm = nn.LSTM(4, 8)
    >>> x = torch.randn(5, 3, 4)
    >>> output, _ = lstm(x)
    >>> [found.gate for found in gates(lstm, x, output=output)["l0"]]
    ['i', 'f', 'g', 'o']
    """
    if not is_recurrent(module):
        raise TypeError(
            f"gates needs a recurrent module (nn.LSTM, nn.GRU, nn.RNN or one of gradguard.nn), got "
            f"{type(module).__name__}. Pass the layer itself, such as model.lstm."
        )
    from gradguard.init.draft import Saved
    from gradguard.probe.recall import recall_ours, recall_torch

    with torch.no_grad():
        if isinstance(module, nn.RNNBase):
            if module.training and module.dropout and module.num_layers > 1:
                raise ValueError(
                    "gates needs to know the dropout between the layers that the call drew, and can't. Call "
                    "module.eval() for it, or see what probe.through_time says of a training step."
                )
            made = () if output is None else (output,)
            saved = Saved([module], parameters=False)  # a parametrization may take a step at each look
            weights = {name: getattr(module, name) for names in module._all_weights for name in names}
            layers = recall_torch(CallOfTorch(module, (input, hx), made, None, weights=weights)).layers
            saved.restore()
        else:
            layers = recall_ours(_called(module, input, hx))
        if not len(layers[0].kernel.layer.x):
            raise ValueError("gates needs a sequence with a step, got none.")
        return {
            one.name: statistics_of(*_summed_up(one))
            for one in layers
            if is_gated(one.kernel.layer.recurrence.gates.names, module)
        }


def _summed_up(one: Any) -> tuple[tuple[str, ...], Tensor]:
    names = one.kernel.layer.recurrence.gates.names
    return names, values_of(one.kernel.gates(one.outcome), names).cpu().double()


def _called(module: Any, input: Any, hx: Any) -> Any:
    """Call one of ours, and leave no trace of it."""
    from gradguard.init.draft import Saved

    ear, saved = Ear(module), Saved([module], parameters=False)
    devices = list({p.device for p in module.parameters() if p.device.type == "cuda"})
    with alone():
        ear.on(wants_gradients=False)
    try:
        with torch.random.fork_rng(devices), alone():
            module(input, hx)
    finally:
        ear.off()
        saved.restore()
    return ear.calls[0]


def is_gated(names: Sequence[str], module: Any) -> bool:
    """Whether there is anything to saturate: not in a plain network with ReLU."""
    settings = getattr(module, "recurrence", module)
    return len(names) > 1 or getattr(settings, "nonlinearity", "tanh") == "tanh"


def values_of(opened_NGH: Tensor, names: Sequence[str], most: int | None = None, batch: int = 1) -> Tensor:
    """Sum up the gates on their device, [G, 4 * H + 20], from all rows or from about ``most`` of them.

    Host sync: none.
    """
    step = 1 if most is None else max(1, len(opened_NGH) // most)
    while math.gcd(step, batch) > 1:  # rows lie step by step: all sequences are to have a share
        step += 1
    values = opened_NGH[::step]
    if not len(values):
        return values.new_full((len(names), 4 * values.shape[2] + BINS), torch.nan)
    tanh = torch.tensor([name in CANDIDATES for name in names], device="cpu").to(values.device, non_blocking=True)[
        :, None
    ]
    low, high = torch.where(tanh, -OPEN_TANH, SHUT_SIGMOID), torch.where(tanh, OPEN_TANH, OPEN_SIGMOID)
    spread, mean = torch.std_mean(values, dim=0, correction=0)
    shut, open_ = ((values < low).to(mean.dtype).mean(0), (values > high).to(mean.dtype).mean(0))
    at = torch.where(tanh, (values + 1) / 2, values).mul(BINS).to(torch.int64).clamp_(0, BINS - 1)
    at = (at + BINS * torch.arange(len(names), device=values.device)[:, None]).flatten()
    counts = torch.zeros(len(names) * BINS, dtype=mean.dtype, device=values.device)
    counts = counts.index_add(0, at, torch.ones((), dtype=mean.dtype, device=values.device).expand(len(at)))
    share = counts.view(len(names), BINS) / max(1, values.shape[0] * values.shape[2])
    return torch.cat([mean, spread, *(of + 0 * mean.mean(1, keepdim=True) for of in (shut, open_, share))], dim=1)


def statistics_of(names: Sequence[str], values: Tensor) -> tuple[GateStatistics, ...]:
    """Sort what :func:`values_of` gave, once it is on the host."""
    width = (values.shape[1] - BINS) // 4
    each = (row.split([width] * 4 + [BINS]) for row in values)
    return tuple(GateStatistics(name, *parts) for name, parts in zip(names, each, strict=True))
