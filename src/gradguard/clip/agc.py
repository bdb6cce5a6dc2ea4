"""Clipping each unit of a weight by how large it is itself."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from glob import escape
from typing import Any, NamedTuple, Optional, Union, final

from torch import nn

from gradguard.arguments import number
from gradguard.clip.base import AbstractClipper
from gradguard.clip.binding import Binding
from gradguard.clip.factors import AbstractFactors
from gradguard.clip.patterns import matches
from gradguard.clip.unit_factors import UnitFactors, UnitMeasurement, measure_units
from gradguard.clip.units import Units, units_of
from gradguard.errors import GradGuardWarning
from gradguard.functional import Measurement


class AGCState(NamedTuple):
    """Nothing is learnt: the units of each parameter, None for one that is left alone."""

    units: tuple[Optional[Units], ...]  # noqa: UP045


@final
class AGC(AbstractClipper):
    r"""Adaptive gradient clipping: no unit's gradient is longer than a share of the unit's own weights.

    .. math:: G_i \leftarrow G_i \cdot \min\Big(1, \lambda \frac{\max(\|W_i\|, \varepsilon)}{\|G_i\|}\Big)

    A unit is a row of a Linear, Conv, Embedding, ``in_proj`` or recurrent weight (one unit of one gate), an output
    channel of a ConvTranspose. Each unit is scaled by itself, so that the direction of the gradient changes.

    Made for convolutional networks without normalisation and large batches. **Not as a default**: in an independent
    comparison it took a ViT-B from 79.3 to 38.5 % (arXiv 2502.17055, table 2). Not with sign optimizers (Lion, SPAM),
    which drop what it does.

    Args:
        clipping: :math:`\lambda` > 0; the paper's grid goes from 0.01, for batches of 1,024 and more, to 0.16.
        eps: :math:`\varepsilon` > 0, the least norm a unit is taken to have: one that starts at zero learns.
        exclude: modules, or patterns over the names of parameters and modules, that are left alone. The output layer
            belongs here ("it is always better to not clip the final linear layer"); ``()`` says that none does. With
            None, nothing is left out, and a warning says so.
        vectors: whether vectors (biases, gains) are clipped, too, each as one unit. The paper does.

    Raises:
        ValueError: an argument out of range, or a sharded ConvTranspose with groups, once it is bound.
        TypeError: something in ``exclude`` that is neither a pattern nor a module.

    Source: Brock et al. 2021, "High-performance large-scale image recognition without normalization", section 4.
    Host sync: none (a sparse gradient is coalesced). Mutates: the gradients, in ``clip_``.

    >>> import torch
    >>> layer = torch.nn.Linear(2, 1, bias=False)
    >>> layer.weight.data = torch.tensor([[3.0, 4.0]])
    >>> layer.weight.grad = torch.tensor([[0.0, 2.0]])
    >>> _ = AGC(0.1, exclude=()).clip_(layer)
    >>> layer.weight.grad
    tensor([[0.0000, 0.5000]])
    """

    def __init__(
        self,
        clipping: float = 0.01,
        *,
        eps: float = 1e-3,
        exclude: Optional[Sequence[Union[str, nn.Module]]] = None,  # noqa: UP007, UP045  # LightningCLI reads it
        vectors: bool = False,
    ) -> None:
        super().__init__()
        self.clipping = number("AGC", "clipping", clipping, above=0)
        self.eps = number("AGC", "eps", eps, above=0)
        if math.isinf(clipping) or math.isinf(eps):
            raise ValueError(f"AGC needs finite clipping and eps, got {clipping!r} and {eps!r}.")
        if isinstance(exclude, str | nn.Module):
            exclude = [exclude]
        self.exclude = None if exclude is None else tuple(exclude)
        for one in self.exclude or ():
            if not isinstance(one, str | nn.Module):
                raise TypeError(f"AGC needs exclude to hold patterns or modules, got {one!r}.")
        self.vectors = bool(vectors)

    @property
    def patterns(self) -> tuple[str, ...]:
        """Those in ``exclude``."""
        return tuple(one for one in self.exclude or () if isinstance(one, str))

    def bind(self, binding: Binding) -> AGCState:
        """Find the units of every parameter."""
        if self.exclude is None:
            warnings.warn(
                "AGC clips every weight, the output layer too, which its authors advise against. Name that layer in "
                "exclude=[...], or write exclude=() to mean it.",
                GradGuardWarning,
                stacklevel=4,
            )
        left_alone = {
            id(p) for one in self.exclude or () if isinstance(one, nn.Module) for p in one.parameters(recurse=True)
        }
        units: list[Units | None] = []
        for name, param, owner in zip(*binding, strict=True):
            out = id(param) in left_alone or any(matches(pattern, name) for pattern in self.patterns)
            out = out or (param.ndim < 2 and not self.vectors)
            units.append(None if out else units_of(param, owner))
        return AGCState(tuple(units))

    def rule(self, measurement: Measurement, state: AGCState) -> tuple[AbstractFactors, AGCState]:
        """Limit the norm of each unit."""
        if not isinstance(measurement, UnitMeasurement):
            measurement = measure_units(measurement.params, measurement.names, state.units, measurement)
        return UnitFactors(measurement, self.clipping, self.eps), state

    def measured(self, binding: Binding, state: AGCState) -> Measurement:
        """Measure unit by unit: the norms of whole tensors come out of that."""
        return measure_units(binding.params, binding.names, state.units, None)

    def __deepcopy__(self, memo: dict[int, Any]) -> AGC:
        """Copy the settings and leave the modules that are excluded as they are, unless they are copied, too."""
        twin = self.fresh()
        twin._saved = self.state_dict()
        twin.exclude = None if self.exclude is None else tuple(memo.get(id(one), one) for one in self.exclude)
        return twin

    def __getstate__(self) -> dict[str, Any]:
        """Name what is excluded, once the names are known: a pickled module would be another one."""
        state, bound = super().__getstate__(), self._bound
        if bound is not None:
            inside = {id(p) for one in self.exclude or () if isinstance(one, nn.Module) for p in one.parameters()}
            names = [escape(name) for name, p in zip(bound.names, bound.params, strict=True) if id(p) in inside]
            state["exclude"] = None if self.exclude is None else (*self.patterns, *names)
        return state

    def __repr__(self) -> str:
        out = [one if isinstance(one, str) else type(one).__name__ for one in self.exclude or ()]
        exclude = "" if self.exclude is None else f", exclude={out}"
        return f"AGC({self.clipping}{exclude}{', vectors=True' if self.vectors else ''})"
