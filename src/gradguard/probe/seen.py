"""What layers and activations showed in one step, summed up on the device over all calls, and read at once.

Shape legend: U = units of a layer.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, final

import torch
from torch import Tensor

from gradguard.detect import Activations, Signal, Units
from gradguard.probe.slopes import Slope

SAMPLE = 1 << 16  # entries of an output that are compared with one another: evenly spaced ones, of all units
LEAST = 32  # entries of each unit among them, where there are as many
_SCALED = ("grad", "pull")  # of the loss, and so by its scale
SATURATED = 0.95  # share of its entries at which a saturated unit is flat


@final
class SignalSum:
    """Norms of a layer's output and of the gradient by it, over the calls of a step."""

    def __init__(self, *, embeds: bool = False) -> None:
        self.embeds = embeds
        self.norms: dict[str, Tensor] = {}
        self.count = self.grad_count = 0
        self.is_over = False

    def add(self, output: Tensor, axis: int) -> None:
        """Add a call. Host sync: none."""
        output = output.detach()
        self.count += output.numel()
        some = _some(output, axis)
        wide = some.float() if some.dtype in (torch.float16, torch.bfloat16) else some
        parts = {"output": output} if some is output else {"output": output, "compared": some}
        if some.shape[axis] > 1:
            parts["distinct"] = wide - wide.mean(axis, keepdim=True)
        if some.numel() > some.shape[axis]:
            varied = wide - wide.mean([i for i in range(some.ndim) if i != axis], keepdim=True)
            parts["varied"] = varied
            if some.shape[axis] > 1:
                parts["apart"] = varied - varied.mean(axis, keepdim=True)
        norms = dict(zip(parts, _norms(list(parts.values())), strict=True))
        for name, norm in ({"compared": norms["output"]} | norms).items():
            self._join(name, norm)

    def heed(self, output: Tensor, kept: Kept, safely: Callable[..., Any]) -> None:
        """Add the gradients that will come to this call, by way of ``safely``; and what of its output is kept."""
        is_first = True

        def arrived(grad: Any) -> None:
            nonlocal is_first
            # Of a gradient penalty, what is taken for its own derivative is not the loss's.
            if self.is_over or torch.is_grad_enabled() or not is_plain(grad):
                return
            safely(self._join_gradient, grad.detach(), kept, is_first)
            is_first = False

        output.register_hook(arrived)

    def _join_gradient(self, grad: Tensor, kept: Kept, is_first: bool) -> None:
        self._join("grad", *_norms([grad]))
        self.grad_count += grad.numel() if is_first else 0
        if (pull := kept.pull(grad)) is not None:
            before = self.norms.get("pull")
            self.norms["pull"] = pull if before is None else before + pull

    def _join(self, name: str, norm: Tensor) -> None:
        before = self.norms.get(name)
        self.norms[name] = norm if before is None else torch.hypot(before, norm)


@final
class Kept:
    """Some of a layer's output, kept until the next layer is called: so at last of the one that was called last."""

    def __init__(self, output: Tensor, axis: int) -> None:
        self.axis = axis
        self.values: Tensor | None = _some(output.detach(), axis).clone()

    def drop(self) -> None:
        """Let go of it."""
        self.values = None

    def pull(self, grad: Tensor) -> Tensor | None:
        """Give the product of the output and the gradient by it, summed up over all of its entries."""
        some = _some(grad, self.axis)
        if self.values is None or some.shape != self.values.shape:
            return None
        dtype = torch.float64 if some.dtype is torch.float64 else torch.float32
        return (some.to(dtype) * self.values.to(dtype)).sum() * (grad.numel() / some.numel())


@final
class UnitSum:
    """On how many entries each unit of an activation is not flat, over the calls of a step."""

    def __init__(self, slope: Slope, *, is_output: bool = False) -> None:
        self.slope, self.is_output, self.entries = slope, is_output, 0
        self.live: Tensor | None = None  # [U]

    def add(self, values: Tensor, others: tuple[int, ...], slope: Slope) -> None:
        """Add a call: values whose axes but that of the units are ``others``. Host sync: none."""
        entries = math.prod(values.shape[i] for i in others)
        flat = None
        for limit, compare in ((slope.low, torch.le), (slope.high, torch.ge)):
            if limit is not None:
                part = compare(values, limit).sum(others, dtype=torch.int32)
                flat = part if flat is None else flat + part
        if flat is None:
            (units,) = (n for i, n in enumerate(values.shape) if i not in others)
            flat = values.new_zeros(units, dtype=torch.int32)
        live = entries - flat
        self.live = live if self.live is None else self.live + live
        self.entries += entries


class Seen(NamedTuple):
    """What a step showed, still on the device.

    Attributes:
        signals: of each layer: which norms there are, in their order, and what they are over.
        units: of each activation: layer, slope, number of entries of a unit, whether it is the model's output.
        packed: norms on a device in one tensor, and which ones.
        live: of each activation, [U].
    """

    signals: Mapping[str, SignalSum]
    units: Sequence[tuple[str, Slope, int, bool]]
    packed: Sequence[tuple[Sequence[tuple[str, str]], Tensor]]
    live: Sequence[Tensor]

    def tensors(self) -> list[Tensor]:
        """Everything that has to be read."""
        return [*(norms for _, norms in self.packed), *self.live]

    def read(self, numbers: Sequence[Tensor], step: int = 0) -> Activations:
        """Make it what detectors see, once it is on the host, in the order of ``tensors()``."""
        norms: dict[tuple[str, str], float] = {}
        for (keys, _), values in zip(self.packed, numbers, strict=False):
            norms |= dict(zip(keys, values.tolist(), strict=True))
        signals = []
        for layer, one in self.signals.items():
            output, grad, distinct, varied, apart, compared, pull = (
                norms.get((layer, name), math.nan)
                for name in ("output", "grad", "distinct", "varied", "apart", "compared", "pull")
            )
            signals.append(
                Signal(
                    layer,
                    output / math.sqrt(one.count),
                    grad / math.sqrt(one.grad_count) if one.grad_count else math.nan,
                    distinct / compared if compared else math.nan,
                    varied / compared if compared else math.nan,
                    apart / varied if varied else math.nan,
                    pull,
                    embeds=one.embeds,
                )
            )
        live = numbers[len(self.packed) :]
        return Activations(
            step,
            tuple(signals),
            tuple(_units(*of, counts) for of, counts in zip(self.units, live, strict=True)),
        )


def packed(signals: Mapping[str, SignalSum], units: Sequence[tuple[str, UnitSum]], scale: Tensor | None) -> Seen:
    """Bring sums into as few tensors as there are devices, gradients divided by the loss's scale. Host sync: none."""
    groups: dict[tuple[torch.device, torch.dtype, bool], list[tuple[str, str]]] = {}
    for layer, one in signals.items():
        for name, norm in one.norms.items():
            groups.setdefault((norm.device, norm.dtype, name in _SCALED), []).append((layer, name))
    found = []
    for (device, _, is_grad), keys in groups.items():
        norms = torch.stack([signals[layer].norms[name] for layer, name in keys])
        found.append((keys, norms / scale.to(device) if is_grad and scale is not None else norms))
    there = [(layer, one) for layer, one in units if one.live is not None]
    of = [(layer, one.slope, one.entries, one.is_output) for layer, one in there]
    return Seen(signals, of, found, [one.live for _, one in there if one.live is not None])


def is_plain(tensor: Any) -> bool:
    """Whether it is a dense tensor of real numbers of torch's own kind: no shard, no nested tensor."""
    return (
        type(tensor) in (Tensor, torch.nn.Parameter)
        and tensor.layout is torch.strided
        and tensor.is_floating_point()
        and tensor.numel() > 0
    )


def _units(layer: str, slope: Slope, entries: int, is_output: bool, live: Tensor) -> Units:
    none = torch.zeros(len(live), dtype=torch.bool)
    silent = live == 0 if slope.falls_silent else none
    saturated = live <= (1 - SATURATED) * entries if slope.is_bounded else none
    active = float(live.double().mean()) / entries
    return Units(layer, slope.name, silent, saturated, active, entries, is_output)


def _norms(tensors: list[Tensor]) -> tuple[Tensor, ...]:
    """Norms in float32 at least; what autocast would widen first is not."""
    dtype = torch.float64 if tensors[0].dtype is torch.float64 else torch.float32
    return torch._foreach_norm(tensors, 2.0, dtype=dtype)


def _some(x: Tensor, axis: int) -> Tensor:
    """View evenly spaced slices of what is large, along all axes but that of the units."""
    if x.numel() <= SAMPLE:
        return x
    steps, sizes = [1] * x.ndim, list(x.shape)
    while math.prod(sizes) > max(SAMPLE, LEAST * sizes[axis]):
        longest = max(range(x.ndim), key=lambda i: 0 if i == axis else sizes[i])
        steps[longest] *= 2
        sizes[longest] = -(-x.shape[longest] // steps[longest])
    return x[tuple(slice(None, None, step) for step in steps)]
