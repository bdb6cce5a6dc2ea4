"""Clipping the norm of all gradients together."""

from __future__ import annotations

from typing import Any, Literal, Union, final

from gradguard.arguments import number
from gradguard.clip.base import AbstractClipper
from gradguard.clip.binding import Binding
from gradguard.clip.factors import AbstractFactors, OneFactor
from gradguard.functional import Measurement, limit_factor, measure
from gradguard.functional.number import scalar


@final
class NormClip(AbstractClipper):
    r"""Clips the total norm of the gradients: the safe default, where a good limit is known.

    .. math:: g \leftarrow g \cdot \min\Big(1, \frac{\ell}{\|g\|_p + \varepsilon}\Big)

    The same as ``torch.nn.utils.clip_grad_norm_``, but that a finite gradient whose norm leaves the float32 range is
    scaled rather than set to zero, and that one which is not finite is left as it is.

    Not where the right limit is unknown, or changes over the run: :class:`ZClip`.

    Args:
        max_norm: the limit, > 0.
        norm_type: p > 0, or ``inf`` for the largest entry.
        eps: added to the norm, >= 0.

    Raises:
        ValueError: an argument out of range.

    Source: Pascanu, Mikolov & Bengio 2013, "On the difficulty of training recurrent neural networks", algorithm 1.
    Host sync: none. Mutates: the gradients, in ``clip_``.

    >>> import torch
    >>> weight = torch.nn.Parameter(torch.zeros(2))
    >>> weight.grad = torch.tensor([3.0, 4.0])
    >>> NormClip(1.0).clip_([weight]).norm, weight.grad
    (tensor(5.), tensor([0.6000, 0.8000]))
    """

    def __init__(
        self,
        max_norm: float,
        *,
        norm_type: Union[float, Literal["inf"]] = 2.0,  # noqa: UP007  # LightningCLI reads it on every Python
        eps: float = 1e-6,
    ) -> None:
        super().__init__()
        self.max_norm = number("NormClip", "max_norm", max_norm, above=0)
        self.norm_type = number("NormClip", "norm_type", float("inf") if norm_type == "inf" else norm_type, above=0)
        self.eps = number("NormClip", "eps", eps, least=0)

    def bind(self, binding: Binding) -> Any:
        """Nothing is learnt."""
        return ()

    def measured(self, binding: Binding, state: Any) -> Measurement:
        """Measure in the order that is clipped."""
        return measure(binding.params, names=binding.names, norm_type=self.norm_type, safe=True)

    def rule(self, measurement: Measurement, state: Any) -> tuple[AbstractFactors, Any]:
        """Limit the total norm."""
        total = scalar(measurement.of_order(self.norm_type).total)
        factor = limit_factor(total, self.max_norm, eps=self.eps)
        return OneFactor(measurement, factor, self.max_norm), state
