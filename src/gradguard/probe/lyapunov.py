"""How fast small changes of a recurrent state grow or fade: Lyapunov exponents.

Shape legend: T = time, N = rows of all steps, B = batch, I = input, L = layers times directions, S = width of a state,
D = width of all states together, K = exponents.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import linear
from torch.nn.utils.rnn import PackedSequence

from gradguard.arguments import whole_number
from gradguard.probe.growth import Plan, Step, growth, random_directions
from gradguard.probe.recurrent_layers import (
    Direction,
    check_finite,
    directions_of,
    recurrent_modules,
    states_before,
    weight_of,
    whole,
    wide,
)

if TYPE_CHECKING:
    from gradguard.nn.sequence import Form

WHO = "lyapunov_spectrum"


class LyapunovSpectrum(NamedTuple):
    """Of one layer in one direction. All float64, on the CPU.

    Attributes:
        name: "l0", "l0_reverse"; of a ``Stack`` "layers.0.l0".
        exponents: [K], natural logarithm per step, the mean over the sequences; -inf where a direction dies out.
        spread: [K], standard deviation over the sequences: 0 of a single one, inf where only some are -inf.
        each: [B, K], of every sequence, in the order in which they were given.
    """

    name: str
    exponents: Tensor
    spread: Tensor
    each: Tensor


def lyapunov_spectrum(
    module: nn.Module,
    inputs: Tensor | PackedSequence,
    k: int,
    *,
    hx: Any = None,
    warmup: int | None = None,
    every: int = 1,
) -> tuple[LyapunovSpectrum, ...]:
    r"""Take the leading Lyapunov exponents of a recurrent module's states, as given inputs drive them.

    .. math:: \frac{\partial s_t}{\partial s_{t-1}} Q_{t-1} = Q_t R_t, \qquad
        \lambda_i = \frac{1}{T - w} \sum_{t = w + 1}^{T} \ln |(R_t)_{ii}|

    where s is the whole state, h and c together where a cell has a c: an LSTM's memory is in its c, and with c held
    fixed all that it keeps would seem to be lost. A gradient that goes back n steps changes by about
    :math:`e^{n \lambda_1}`: it keeps its size where the first exponent is near 0, vanishes where all are far below,
    and explodes where one is above. The sum of the first j exponents is the rate at which a volume of j dimensions
    grows; over many steps they come in descending order. What one layer does in one direction changes nothing in the
    layers below it or in the other direction, so that all of them together have the exponents that each has alone.

    Not for every training step: it takes T steps in Python, with k directions each, and far longer than a forward
    pass. Not for a few steps: what few Jacobians do depends on the directions to begin with, which are drawn at random,
    the same ones each time. And it is about the states' own dynamics, whatever a loss sends back into them.

    Args:
        module: ``torch.nn.RNN``, ``GRU`` or ``LSTM``, or a module of ``gradguard.nn``, in any mode: it is looked at as
            in evaluation, without dropout, with the expectation of zoneout, and with the statistics that batch norms
            followed. ``clip_grad_state``, which changes gradients and no states, is left out.
        inputs: a sequence as the module takes it, [T, B, I] or [B, T, I], [T, I], or packed; of any floating dtype.
        k: how many exponents; at most D, the width of all states of a layer together: 2 H of an LSTM.
        hx: states before the first step, as the module takes them; zeros if None.
        warmup: how many steps of each sequence pass, while states and directions settle, before any is counted; None
            for a fifth of each. Where a direction dies in them, all begin anew after them.
        every: steps between two QR decompositions, at most. More than 1 is faster; but where directions line up
            meanwhile to the last digit of float64, those behind the first become -inf.

    Returns:
        One for each layer and direction, in the order of the module's states. It is computed in float64, on the
        weights' device, or on the CPU where that has none (mps). What adds less to a volume in a step than rounding
        does, as behind a closed ReLU or weights without full rank, has died out: -inf.

    Raises:
        TypeError: no module, or one that was scripted or compiled; inputs or states that are no floating tensors.
        ValueError: a module that is not recurrent, or a cell; k above D; inputs or states of a wrong shape, or without
            a step that counts; NaN or Inf in weights, inputs, or states on their way; weights on the meta device; a
            BatchNormLSTM that was not trained.

    Source: Benettin et al. 1980, Meccanica 15, for QR; Engelken, Wolf and Abbott 2023, arXiv 2006.02427, and Vogt et
    al. 2022, arXiv 2006.14123, for recurrent networks. Host sync: some a layer and direction; on a GPU those of
    ``torch.linalg.qr`` besides. Mutates: nothing; none of torch's random generators is used.

    >>> rnn = nn.RNN(1, 2, bias=False)
    >>> _ = rnn.weight_hh_l0.data.copy_(torch.tensor([[0.5, 1.0], [0.0, 0.25]]))
    >>> [found] = lyapunov_spectrum(rnn, torch.zeros(100, 1), 2)  # at h = 0 tanh is the identity
    >>> found.name, found.exponents  # the logarithms of the eigenvalues, 0.5 and 0.25
    ('l0', tensor([-0.6931, -1.3863], dtype=torch.float64))
    """
    from gradguard.nn.sequence import rows_of

    k, every = whole_number(WHO, "k", k), whole_number(WHO, "every", every)
    found: list[LyapunovSpectrum] = []
    with torch.inference_mode(False), torch.no_grad():
        parts = [(prefix, each, directions_of(WHO, each)) for prefix, each in recurrent_modules(WHO, module)]
        _check_inputs(parts[0][1], inputs)
        rows, form = rows_of(inputs, batch_first=bool(module.batch_first))
        check_finite(WHO, "the input", rows)
        plan, rows = _plan(form, warmup, every), wide(whole(rows)).to(parts[0][2][0].device)
        given = _for_each(hx, len(parts)) if parts[0][0] else [hx]
        before = [states_before(WHO, *part[1:], own, form) for part, own in zip(parts, given, strict=True)]
        for states, (prefix, _, directions) in zip(before, parts, strict=True):
            if k > (width := sum(state.shape[2] for state in states)):
                name = prefix + directions[0].name
                raise ValueError(f"{WHO} needs k <= {width}, the width of the state of {name}, got {k}.")
        for i, (states, (prefix, each, directions)) in enumerate(zip(before, parts, strict=True)):
            into = rows
            spectra, rows = _layers(each, directions, into, states, form, k, plan)
            found += [spectrum._replace(name=prefix + spectrum.name) for spectrum in spectra]
            rows = _above(module, i, into, rows) if prefix else rows
    return tuple(found)


def _layers(
    module: Any, directions: list[Direction], rows: Tensor, states: Sequence[Tensor], form: Form, k: int, plan: Plan
) -> tuple[list[LyapunovSpectrum], Tensor]:
    """Go through the layers of a module: their spectra, and the last one's output, [N, S]."""
    ways, spectra = 2 if module.bidirectional else 1, []
    for layer in range(module.num_layers):
        outputs = []
        for i in range(layer * ways, (layer + 1) * ways):
            name, turning = directions[i].name, form.turning(len(rows), rows.device) if directions[i].reverse else None
            xs = (rows if turning is None else rows.index_select(0, turning)).split(plan.sizes)
            start = random_directions(sum(state.shape[2] for state in states), k, rows.device)
            rates, out = growth(_step(directions[i], len(xs)), xs, [state[i] for state in states], start, plan)
            if bool((rates.isnan() | rates.isposinf()).any()):  # as of a state that is not finite
                raise ValueError(
                    f"{WHO} needs states and their growth within float64, but {name} leaves it. Take fewer steps"
                    f"{', or every=1' if plan.every > 1 else ''}."
                )
            outputs.append(out if turning is None else out.index_select(0, turning))
            spectra.append(_spectrum(name, rates, form))
        out = torch.cat(outputs, dim=1)
        if getattr(module, "settings", None) and module.settings.residual:
            name = module._residuals[layer]
            out = out + (linear(rows, wide(weight_of(module, name))) if name else rows)
        rows = out
    return spectra, rows


def _step(direction: Direction, steps: int) -> Step:
    """A step as in evaluation: zoneout is the mean of what it may be."""
    take = direction.recurrence.begin(direction.at(WHO, steps), [])

    def step(x: Tensor, *states: Tensor) -> tuple[Tensor, ...]:
        each = zip(take(x, *states), states, direction.recurrence.rates, strict=True)
        return tuple(new if rate == 0 else torch.lerp(new, old, rate) for new, old, rate in each)

    return step


def _spectrum(name: str, rates: Tensor, form: Form) -> LyapunovSpectrum:
    if form.packed is not None and form.packed.unsorted_indices is not None:
        rates = rates.index_select(0, form.packed.unsorted_indices.to(rates.device))
    each = rates.cpu()
    dead = each.isneginf()
    spread = torch.where(dead.any(0), torch.inf, torch.where(dead, 0.0, each).std(0, correction=0))
    return LyapunovSpectrum(name, each.mean(0), torch.where(dead.all(0), 0.0, spread), each)


def _above(stack: Any, i: int, rows: Tensor, out: Tensor) -> Tensor:
    """What the next layer of a ``Stack`` is given."""
    out = _evaluated(stack.norms[i], out) if i < len(stack.norms) else out
    return out + _evaluated(stack.shortcuts[i], rows) if stack.residual else out


def _evaluated(part: nn.Module, rows: Tensor) -> Tensor:
    """Run a copy of what stands between layers, in float64."""
    still = copy.deepcopy(part).eval()
    held = {name: whole(value) for name, value in (*still.named_parameters(), *still.named_buffers())}
    held = {name: wide(value) if value.is_floating_point() else value for name, value in held.items()}
    return torch.func.functional_call(still, held, rows)  # type: ignore[no-any-return]  # torch's own says Any


def _plan(form: Form, warmup: int | None, every: int) -> Plan:
    sizes = [form.batch] * form.steps if form.batch_sizes is None else form.batch_sizes.tolist()
    if not sizes or not form.batch:
        raise ValueError(f"{WHO} needs a sequence with a step, got {len(sizes)} steps of {form.batch} sequences.")
    lengths = (torch.tensor(sizes).unsqueeze(1) > torch.arange(form.batch)).sum(0).tolist()
    if warmup is None:
        return Plan(sizes, lengths, [length // 5 for length in lengths], every)
    if whole_number(WHO, "warmup", warmup, least=0) >= min(lengths):
        raise ValueError(f"{WHO} needs warmup < {min(lengths)}, the steps of the shortest sequence, got {warmup}.")
    return Plan(sizes, lengths, [int(warmup)] * len(lengths), every)


def _check_inputs(module: Any, inputs: Any) -> None:
    data = inputs.data if isinstance(inputs, PackedSequence) else inputs
    if not isinstance(data, Tensor) or not data.is_floating_point():
        got = f"one of {data.dtype}" if isinstance(data, Tensor) else type(inputs).__name__
        raise TypeError(f"{WHO} needs inputs to be a tensor of a floating dtype or a PackedSequence, got {got}.")
    if data is inputs and data.dim() not in (2, 3):
        raise ValueError(f"{WHO} needs inputs of 2 or 3 dimensions, got the shape {tuple(data.shape)}.")
    if data.shape[-1] != module.input_size:
        raise ValueError(f"{WHO} needs inputs of the width input_size = {module.input_size}, got {data.shape[-1]}.")


def _for_each(hx: Any, count: int) -> list[Any]:
    if hx is not None and (isinstance(hx, Tensor) or len(hx) != count):
        raise ValueError(f"{WHO} needs hx of a Stack to be a list of one, or None, for each of {count} layers.")
    return [None] * count if hx is None else list(hx)
