"""Gradient health as torchmetrics: values that add up over batches, epochs and ranks.

``torchmetrics.MeanMetric`` and ``MaxMetric`` ask at every update whether there is a NaN, and the host waits for the
answer. These mask on the device, and wait only for arguments that lie on another one: move the metric there. Give a
``MetricCollection`` keywords, each takes what it knows: ``collection.update(norms=..., overflow=..., ratios=...)``.

All take the arguments of ``torchmetrics.Metric``; updates take any real dtype and shape, also empty, and keep nothing.
State and results stay float64, whatever ``.to(dtype)``, ``set_dtype`` or ``precision="bf16-true"`` casts around them.
"""

from __future__ import annotations

import math
from abc import ABC
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, final

import torch
from torch import Tensor, nn
from torchmetrics import Metric

NONE_YET = -math.inf  # of a maximum: an idle rank must neither win nor, as NaN would, spoil it


class _DeviceMetric(Metric, ABC):
    """What all of them share: a state that keeps its dtype, and never a stale result."""

    is_differentiable = False
    full_state_update = False
    # Name to initial value and reduction over ranks. No two classes share a name: a MetricCollection takes metrics
    # whose states have equal names and values for one, and after a first step without incident many counts are equal.
    states: ClassVar[Mapping[str, tuple[float | list[float], str | Callable[[Tensor], Tensor]]]]

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        for name, (initial, reduction) in self.states.items():
            dtype = torch.int64 if isinstance(initial, int) else torch.float64
            self.add_state(name, torch.tensor(initial, dtype=dtype), dist_reduce_fx=reduction)

    def _apply(self, fn: Callable[[Tensor], Tensor], exclude_state: Sequence[str] = "") -> nn.Module:
        # torchmetrics turns `.half()` away, but `.to(torch.float16)` would round the sums: only the device may change.
        def move(state: Tensor) -> Tensor:
            try:
                moved = fn(state)
            except TypeError:  # mps has no float64
                return fn(state.float())
            return moved if moved.dtype == state.dtype else state.to(moved.device)

        return super()._apply(move, exclude_state)

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        before = self.metric_state
        super()._load_from_state_dict(*args, **kwargs)
        for name, state in before.items():  # torchmetrics goes to the checkpoint's device: each update would wait
            setattr(self, name, getattr(self, name).to(state))
        self._computed = None  # torchmetrics would go on returning the result from before; likewise below

    def merge_state(self, incoming_state: dict[str, Any] | Metric) -> None:
        """Add what another metric of this class has seen, as something that came earlier. Host sync: none."""
        super().merge_state(incoming_state)
        self._computed = None

    def _vector(self, values: Tensor | float) -> Tensor:
        """Bring values to the state's device and dtype, in a row, without their graph."""
        state: Tensor = getattr(self, next(iter(self.states)))
        if hasattr(values, "full_tensor"):  # what clip_grad_norm_ returns under FSDP2
            values = values.full_tensor()
        return torch.as_tensor(values, dtype=state.dtype, device=state.device).detach().reshape(-1)


class _MeanMetric(_DeviceMetric, ABC):
    """Sum over count, its two states; NaN where nothing counts."""

    def _add(self, values: Tensor, counts: Tensor) -> None:
        for name, more in zip(self.states, (torch.where(counts, values, 0), counts), strict=True):
            so_far = getattr(self, name).reshape(1)  # one by one: the sum is the same however many come at a time
            setattr(self, name, torch.cat([so_far, more.to(so_far)]).cumsum(0)[-1].clone())

    def compute(self) -> Tensor:
        """Give the mean, float64. Host sync: none."""
        return torch.div(*(getattr(self, name) for name in self.states))


@final
class GradNormMean(_MeanMetric):
    """Mean of the finite total gradient norms, NaN where there is none. It hides a rare explosion: log the maximum too.

    >>> metric = GradNormMean()
    >>> metric.update(torch.tensor([1.0, 3.0, torch.nan]))
    >>> metric.compute()
    tensor(2., dtype=torch.float64)
    """

    states: ClassVar = {"norm_sum": (0.0, "sum"), "norm_count": (0.0, "sum")}

    def update(self, norms: Tensor | float) -> None:
        """Take the total norms of one or more steps. Host sync: none."""
        values = self._vector(norms)
        self._add(values, values.isfinite())


@final
class GradNormMax(_DeviceMetric):
    """Largest of the finite total gradient norms, NaN where there is none.

    >>> GradNormMax()(torch.tensor([1.0, 3.0, torch.inf]))
    tensor(3., dtype=torch.float64)
    """

    states: ClassVar = {"norm_max": (NONE_YET, "max")}
    norm_max: Tensor

    def update(self, norms: Tensor | float) -> None:
        """Take the total norms of one or more steps. Host sync: none."""
        values = self._vector(norms)
        finite = torch.where(values.isfinite(), values, NONE_YET)
        self.norm_max = torch.cat([self.norm_max.reshape(1), finite]).amax()

    def compute(self) -> Tensor:
        """Give the maximum, float64. Host sync: none."""
        return self.norm_max.masked_fill(self.norm_max == NONE_YET, math.nan)


def _most_steps(rows: Tensor) -> Tensor:
    """Of [ranks, 2], the row whose first entry is largest."""
    return rows.index_select(0, rows[:, 0].argmax().reshape(1))[0]


@final
class GradNormLast(_DeviceMetric):
    """Total gradient norm of the last step as it was, NaN and Inf included; NaN before the first.

    The total norm is equal on all ranks of DDP and FSDP. Returned is, unchanged, that of the rank with most steps.

    >>> GradNormLast()(torch.tensor([1.0, 3.0, 2.0]))
    tensor(2., dtype=torch.float64)
    """

    # One tensor, since torchmetrics reduces each state alone and the two must come from the same rank.
    states: ClassVar = {"steps_and_last": ([0.0, math.nan], _most_steps)}
    steps_and_last: Tensor

    def update(self, norms: Tensor | float) -> None:
        """Take the total norms of one or more steps, in their order. Host sync: none."""
        values = self._vector(norms)
        if len(values):
            self.steps_and_last = torch.stack([self.steps_and_last[0] + len(values), values[-1]])

    def compute(self) -> Tensor:
        """Give the last norm, float64. Host sync: none."""
        return self.steps_and_last[1]

    def _reduce_states(self, incoming_state: dict[str, Any]) -> None:
        # Over time (`forward`, `merge_state`), other than over ranks, the later one stays however much came before.
        (before, earlier), (steps, last) = incoming_state["steps_and_last"], self.steps_and_last
        self.steps_and_last = torch.stack([before + steps, torch.where(steps > 0, last, earlier)])


@final
class NonFiniteShare(_MeanMetric):
    """Share of steps whose total gradient norm is NaN or Inf, in [0, 1]; NaN where no step counts.

    A step that the loss scaler skipped is routine in fp16 and doesn't count; see :class:`OverflowCount`.

    >>> NonFiniteShare()(torch.tensor([1.0, torch.inf, torch.inf]), overflow=torch.tensor([False, False, True]))
    tensor(0.5000, dtype=torch.float64)
    """

    higher_is_better = False
    states: ClassVar = {"nonfinite_steps": (0.0, "sum"), "judged_steps": (0.0, "sum")}

    def update(self, norms: Tensor | float, overflow: Tensor | bool | None = None) -> None:
        """Take the total norms of one or more steps.

        Args:
            norms: any shape.
            overflow: bool, the same shape: whether the loss scaler skipped that step. None: it skipped none.

        Raises:
            TypeError: ``overflow`` is not bool.
            ValueError: the shapes differ.

        Host sync: none. Mutates: the metric only.
        """
        nonfinite = ~self._vector(norms).isfinite()
        judged = torch.ones_like(nonfinite)
        if overflow is not None:
            need, got = (tuple(getattr(x, "shape", ())) for x in (norms, overflow))
            if got != need:
                raise ValueError(f"overflow must have the shape of norms, {need}, got {got}. Reshape either.")
            judged = ~_flags(overflow, judged)
        self._add(nonfinite, judged)


@final
class OverflowCount(_DeviceMetric):
    """Number of steps that the loss scaler skipped. Ranks skip together: the largest of their counts, not the sum.

    >>> OverflowCount()(torch.tensor([True, False, True]))
    tensor(2)
    """

    higher_is_better = False
    states: ClassVar = {"overflows": (0, "max")}
    overflows: Tensor

    def update(self, overflow: Tensor | bool) -> None:
        """Take one or more steps, bool: whether the scaler skipped them. Raises TypeError if not. Host sync: none."""
        self.overflows = self.overflows + _flags(overflow, self.overflows).sum()

    def compute(self) -> Tensor:
        """Give the count, int64. Host sync: none."""
        return self.overflows

    def _reduce_states(self, incoming_state: dict[str, Any]) -> None:
        # Over time (`forward`, `merge_state`), other than over ranks, counts add up.
        self.overflows = incoming_state["overflows"] + self.overflows


@final
class UpdateRatio(_MeanMetric):
    r"""Geometric mean of update norm over weight norm; NaN where nothing moved.

    .. math:: \exp\Big(\frac1n \sum_i \ln r_i\Big)

    Geometric, since "about 1e-3 is healthy" speaks of a log axis: one bias near zero with a ratio of 10 would take over
    an arithmetic mean. Left out is what has no logarithm: NaN (weight zero or unknown), Inf, and 0 (no gradient, or
    learning rate 0 at the start of a warm-up). So it is not for finding parameters that stand still.

    >>> UpdateRatio()(torch.tensor([1e-4, 1e-2, torch.nan], dtype=torch.float64))
    tensor(0.0010, dtype=torch.float64)
    """

    states: ClassVar = {"log_ratio_sum": (0.0, "sum"), "log_ratio_count": (0.0, "sum")}

    def update(self, ratios: Tensor | float) -> None:
        """Take the ratios of one or more parameters and steps. Host sync: none."""
        values = self._vector(ratios)
        self._add(values.log(), values.isfinite() & (values > 0))

    def compute(self) -> Tensor:
        """Give the mean, float64. Host sync: none."""
        return super().compute().exp()


def _flags(overflow: Tensor | bool, like: Tensor) -> Tensor:
    flags = torch.as_tensor(overflow, device=like.device)
    if flags.dtype is not torch.bool:
        raise TypeError(f"overflow must be bool, got {flags.dtype}. Pass found_inf.bool(), by keyword in a collection.")
    return flags.reshape(-1)
