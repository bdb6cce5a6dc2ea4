"""Biases of the gates that decide how long a cell remembers.

torch's cells have two biases, which add up. What is set here is the sum: all of it goes into ``bias_ih``, and the same
block of ``bias_hh`` becomes 0, so that the sum is exact, and the same after a second call.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Generator, Tensor, nn

from gradguard.arguments import number
from gradguard.init.changes import Change, Changes
from gradguard.init.draft import Draft
from gradguard.init.drawing import checked_generator, draw_
from gradguard.init.layers import Layer, layers_of

Fill = Callable[[Tensor], object]
_BIASES = ("bias_ih", "bias_hh")


@torch.no_grad()
def forget_gate_(model: nn.Module, value: float = 1.0) -> Changes:
    r"""Open the forget gates of all LSTMs in a model.

    .. math:: b_{ih}^f + b_{hh}^f = \mathrm{value}

    A gate of torch's begins half closed (:math:`\sigma(0) = 0.5`): after 10 steps, a thousandth of the cell is left,
    and of its gradient, too. Leave it alone where a model was tuned with another value.

    Args:
        model: an LSTM or its cell, of torch or of gradguard, or a model with such in it: all layers and directions.
        value: of the sum of the two biases; any number. 1 keeps 73 % of the cell at each step, 2 keeps 88 %.

    Returns:
        The sum's mean over the units of each gate, before and after.

    Raises:
        ValueError: no module in it has a forget gate, or one has no bias; nothing is changed.
        TypeError: no module, or one that was scripted or compiled.

    Source: Gers, Schmidhuber and Cummins 2000; Jozefowicz et al. 2015, section 2. Host sync: two a gate. Mutates: the
    biases of forget gates.

    >>> lstm = nn.LSTM(4, 8)
    >>> forget_gate_(lstm, 1.0)[0].after
    1.0
    >>> (lstm.bias_ih_l0 + lstm.bias_hh_l0)[8:16].unique()
    tensor([1.], grad_fn=<Unique2Backward0>)
    """
    value = number("forget_gate_", "value", value)
    if value in (float("inf"), -float("inf")):
        raise ValueError(f"forget_gate_ needs value to be finite, got {value}.")

    def gates(layer: Layer) -> dict[str, float]:
        return {"f": 1.0} if "f" in layer.gates.names else {}

    wanted = "a forget gate: an LSTM has one, a GRU's update gate is set by chrono_ and uniform_gate_"
    return _set("forget_gate_", model, gates, wanted, lambda bias: bias.fill_(value))


@torch.no_grad()
def chrono_(model: nn.Module, t_max: float, *, generator: Generator | None = None) -> Changes:
    r"""Spread how long the units of a gated cell remember over the lengths up to ``t_max``.

    .. math:: b^f &\sim \log \mathcal{U}[1, T_{max} - 1] \\ b^i &= -b^f

    f keeps, i writes. Of a GRU it is torch's z that keeps: :math:`h_t = (1 - z_t) n_t + z_t h_{t-1}`, whose bias gets
    the sign of the forget gate (the paper's update gate is :math:`1 - z`); the z of MUT1 to MUT3 only writes. The other
    gates are left alone. For tasks whose dependencies are long and of known length; elsewhere ``forget_gate_`` is the
    safer start.

    Args:
        model: an LSTM, a GRU or a cell of theirs, of torch or of gradguard, or a model with such in it.
        t_max: longest time, in steps, over which something must be remembered; >= 3.
        generator: to draw from; None for torch's own.

    Returns:
        The mean over the units of each gate's sum of biases, before and after.

    Raises:
        ValueError: ``t_max`` < 3, which leaves nothing to draw from; no module has such a gate, or one has no bias.
        TypeError: no module, or one that was scripted or compiled.

    Source: Tallec and Ollivier 2018, "Can recurrent neural networks warp time?", arXiv 1804.11188, equations 15 and 16.
    Host sync: two a gate. Mutates: the biases of these gates.

    >>> lstm = nn.LSTM(4, 1000)
    >>> found = chrono_(lstm, t_max=100)
    >>> total = (lstm.bias_ih_l0 + lstm.bias_hh_l0).reshape(4, 1000)
    >>> times = total[1].exp() + 1
    >>> bool(times.min() >= 2 - 1e-5 and times.max() <= 100 + 1e-3), torch.equal(total[0], -total[1])
    (True, True)
    """
    longest = number("chrono_", "t_max", t_max)
    if longest < 3 or longest == float("inf"):
        raise ValueError(f"chrono_ needs t_max >= 3, got {t_max!r}: the biases are drawn from log U[1, t_max - 1].")
    checked_generator("chrono_", generator)

    def draw(bias: Tensor) -> None:
        draw_(bias, generator, lambda fresh: fresh.uniform_(1.0, longest - 1.0, generator=generator).log_())

    def gates(layer: Layer) -> dict[str, float]:
        pairs = ((layer.gates.keep, 1.0), (layer.gates.write, -1.0))
        return {gate: sign for gate, sign in pairs if gate is not None}

    return _set("chrono_", model, gates, "a gate that keeps the state: an LSTM and a GRU have one", draw)


@torch.no_grad()
def uniform_gate_(model: nn.Module, *, generator: Generator | None = None) -> Changes:
    r"""Spread how open the gates that keep the state are, evenly over (0, 1).

    .. math:: \sigma(b) = u, \quad u \sim \mathcal{U}[1 / H, 1 - 1 / H]

    As :func:`chrono_` it gives each unit a time scale of its own, without a length to be known. The other gates are
    left alone: the paper ties the input gate to the forget gate.

    Args:
        model: an LSTM, a GRU or a cell of theirs, of torch or of gradguard, or a model with such in it; H >= 2.
        generator: to draw from; None for torch's own.

    Returns:
        The mean over the units of each gate's sum of biases, before and after.

    Raises:
        ValueError: no module has such a gate, or one has no bias or a single unit.
        TypeError: no module, or one that was scripted or compiled.

    Source: Gu et al. 2020, "Improving the gating mechanism of recurrent neural networks", arXiv 1910.09890, equation
    12. Host sync: two a gate. Mutates: the biases of these gates.

    >>> gru = nn.GRU(4, 100)
    >>> found = uniform_gate_(gru)
    >>> opened = (gru.bias_ih_l0 + gru.bias_hh_l0)[100:200].sigmoid()
    >>> bool((opened >= 0.01 - 1e-6).all() and (opened <= 0.99 + 1e-6).all())
    True
    """
    checked_generator("uniform_gate_", generator)

    def draw(bias: Tensor) -> None:
        if len(bias) < 2:
            raise ValueError("uniform_gate_ needs hidden_size >= 2, got 1: there is nothing between 1/H and 1 - 1/H.")
        low = 1.0 / len(bias)
        draw_(bias, generator, lambda fresh: fresh.uniform_(low, 1.0 - low, generator=generator).logit_())

    def gates(layer: Layer) -> dict[str, float]:
        if layer.gates.keep is not None:
            return {layer.gates.keep: 1.0}
        return {} if layer.gates.write is None else {layer.gates.write: -1.0}

    return _set("uniform_gate_", model, gates, "a gate that keeps the state: an LSTM and a GRU have one", draw)


def bias_total(layer: Layer, draft: Draft, gate: str) -> Tensor:
    """Add up the biases of a gate: [H]."""
    return torch.stack([layer.block(draft, short, gate) for short in _BIASES if layer.has(short)]).sum(0)


def _set(
    who: str,
    model: nn.Module,
    gates: Callable[[Layer], dict[str, float]],
    wanted: str,
    fill_: Fill,
) -> Changes:
    """Set the sums of biases of some gates of every layer: what ``fill_`` gives, times each gate's sign."""
    draft, changes = Draft(who), []
    layers = layers_of(who, model)
    gated = [layer for layer in layers if gates(layer)]
    if layers and not gated:
        kinds = ", ".join(sorted({type(layer.module).__name__ for layer in layers}))
        raise ValueError(f"{who} needs {wanted}. Found only: {kinds}.")
    for layer in gated:
        shorts = [short for short in _BIASES if layer.has(short)]
        if not shorts:
            kind = type(layer.module).__name__
            where = f" ({layer.path})" if layer.path else ""
            raise ValueError(f"{who} needs biases, but the {kind}{where} was made with bias=False.")
        drawn: Tensor | None = None
        for gate, sign in gates(layer).items():
            before = bias_total(layer, draft, gate).mean().item()
            block = layer.block(draft, shorts[0], gate)
            if drawn is None:
                fill_(block)
                drawn = block.clone()
            block.copy_(drawn * sign)
            for short in shorts[1:]:
                layer.block(draft, short, gate).zero_()
            after = bias_total(layer, draft, gate).mean().item()
            changes.append(Change(layer.name("bias", gate), "mean bias total", before, after))
    draft.write()
    return Changes(changes)
