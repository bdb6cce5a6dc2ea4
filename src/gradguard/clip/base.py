"""The family of clippers: what each of them promises, and what they share."""

from __future__ import annotations

import math
import warnings
from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping
from typing import Any, ClassVar, NamedTuple, TypeVar

import torch
from torch import Tensor

from gradguard.clip.binding import Binding, Params, binding_of
from gradguard.clip.factors import AbstractFactors, OneFactor
from gradguard.clip.patterns import check_patterns
from gradguard.clip.settings import written
from gradguard.clip.state import filled, numbers_of, on_device
from gradguard.errors import GradGuardWarning
from gradguard.functional import Measurement, measure
from gradguard.functional.number import Number

Self = TypeVar("Self", bound="AbstractRescaler")


class ClipResult(NamedTuple):
    """What ``clip_`` did; scalars on the device of the gradients.

    Attributes:
        norm: total norm before.
        coefficient: total norm after over total norm before.
        clipped: whether any gradient was changed, bool.
        finite: whether all gradients were finite, bool.
    """

    norm: Tensor
    coefficient: Tensor
    clipped: Tensor
    finite: Tensor


class AbstractRescaler(ABC):
    """Multiplies gradients by positive factors, in place, between ``backward()`` and ``step()``.

    Every one of them: leaves parameters alone; takes no non-finite observation into a statistic; hides no NaN and skips
    no step (:class:`gradguard.recover.Skip` does); survives gradients that are zero, missing, sparse, complex or
    sharded, mixed dtypes and devices, tied and duplicate parameters; needs no host read; goes on from its
    ``state_dict()`` bit for bit. An adaptive one begins anew after a lasting change of level. Subclasses are final, and
    ``tests/contracts/test_clippers.py`` holds each of them to this.

    ``bind`` and ``coefficients`` leave the clipper as it is; ``clip_`` is both, and keeps the state inside.

    Attributes:
        per_tensor: whether the state has one entry for each parameter, so that they must have names.
    """

    per_tensor: ClassVar[bool] = False

    def __init__(self) -> None:
        self._bound: Binding | None = None
        self._state: Any = None
        self._saved: Mapping[str, Any] = {}  # of a checkpoint, until the parameters are known

    @abstractmethod
    def bind(self, binding: Binding) -> Any:
        """Give the state before the first step, for these parameters. Host sync: none."""

    @abstractmethod
    def rule(self, measurement: Measurement, state: Any) -> tuple[AbstractFactors, Any]:
        """Decide about a step in which some parameter has a gradient. Host sync: none. Mutates: nothing."""

    def coefficients(self, measurement: Measurement, state: Any) -> tuple[AbstractFactors, Any]:
        """Decide about the gradients of one step; without any gradient there is nothing to observe.

        Args:
            measurement: of the parameters that the state was bound to, in the same order.
            state: as ``bind`` or the step before gave it.

        Returns:
            What to do with the gradients, and the state for the next step.

        Host sync: none. Mutates: nothing.
        """
        if measurement.empty:
            return OneFactor(measurement, 1.0, math.inf), state
        return self.rule(measurement, on_device(state, measurement.norms.device))

    @property
    def patterns(self) -> tuple[str, ...]:
        """Patterns that are meant to match some parameter's name."""
        return ()

    def measured(self, binding: Binding, state: Any) -> Measurement:
        """Measure the gradients as they are, where nobody else has. Host sync: none."""
        return measure(binding.params, names=binding.names, safe=True)

    def changes(self, state: Any) -> Number:
        """Say how often the level has changed so far, for good; how many parameters' levels, where each has its own."""
        return 0.0

    def parts(self, state: Any) -> tuple[str, ...]:
        """Name the parts that a clipper of clippers has."""
        return ()

    @property
    def level_changes(self) -> Number:
        """How often the level of what is attached has changed so far."""
        return self.changes(self._state)

    @property
    def part_names(self) -> tuple[str, ...]:
        """Names of the parts of what is attached."""
        return self.parts(self._state)

    def fresh(self: Self) -> Self:
        """Give a clipper with the same settings that has seen nothing: an optimizer's own."""
        twin = object.__new__(type(self))
        vars(twin).update(vars(self))  # not by copy(), which would leave the parameters behind and name modules
        AbstractRescaler.__init__(twin)
        return twin

    def attach(self, binding: Binding) -> None:
        """Work on these parameters from now on; what is known of those that stay is kept."""
        if self._bound is not None and self._bound.is_same(binding):
            return
        if self._bound is None:
            self._state = self._loaded(self._saved, binding)
        else:
            self._state = self.resumed(self.state_dict(), binding, self.bind(binding))
        self._bound, self._saved = binding, {}

    def decide(self, measurement: Measurement) -> AbstractFactors:
        """Decide about one step of the parameters that are attached, and remember it. Host sync: none."""
        factors, self._state = self.coefficients(measurement, self._state)
        return factors

    def decide_again(self, measurement: Measurement) -> AbstractFactors:
        """Decide about another evaluation within the same step: nothing is remembered. Host sync: none."""
        return self.coefficients(measurement, self._state)[0]

    @torch.no_grad()
    def clip_(self, params: Params) -> ClipResult:
        """Clip the gradients of ``params``, in place: after ``backward()``, before ``optimizer.step()``.

        Under a ``GradScaler``, unscale first. In a loop that :class:`gradguard.Guard` watches, give the clipper to it.

        Args:
            params: a module, its ``named_parameters()``, or bare parameters. One that comes twice is clipped once.

        Returns:
            Scalars on the device of the gradients.

        Raises:
            ValueError: a pattern that matches no name, or bare parameters where names are needed.
            TypeError: something that is no parameter.

        Host sync: none. Mutates: the gradients.
        """
        binding, named = binding_of(params, self._bound)
        if not named and (self.per_tensor or self.patterns):
            raise ValueError(
                f"{type(self).__name__} goes by the names of the parameters, got bare ones. "
                "Pass the model, or model.named_parameters()."
            )
        if self._bound is None:
            check_patterns(self.patterns, binding.names, type(self).__name__)
        self.attach(binding)
        if not binding.params:
            _warn(
                "clip_ got no parameter to clip. A generator such as model.parameters() is used up after one pass: "
                "pass the model."
            )
            return ClipResult(torch.zeros(()), torch.ones(()), torch.tensor(False), torch.tensor(True))
        measurement = self.measured(binding, self._state)
        factors = self.decide(measurement)
        factors.apply_()
        return ClipResult(measurement.total, factors.coefficient(), factors.changed(), measurement.finite)

    def state_dict(self) -> dict[str, Any]:
        """Give what was learnt, in plain containers and tensors. Host sync: none."""
        if self._bound is None:
            return dict(self._saved)
        return {"kind": type(self).__name__, **self.saved(self._state, self._bound)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from another one's ``state_dict()``; parameters that it does not know begin anew, with a warning."""
        if self._bound is None:
            self._saved = state
        else:
            self._state = self._loaded(state, self._bound)

    def _loaded(self, saved: Mapping[str, Any], binding: Binding) -> Any:
        fresh = self.bind(binding)
        if not saved:
            return fresh
        if self.per_tensor and (names := saved.get("names")):
            added, removed = set(binding.names).difference(names), set(names).difference(binding.names)
            if added or removed:
                _warn(
                    f"{type(self).__name__} goes on from a state of other parameters: {_some(added)} begin anew, "
                    f"{_some(removed)} are left out."
                )
        return self.resumed(saved, binding, fresh)

    def __getstate__(self) -> dict[str, Any]:
        """Leave the parameters behind: a copy is for others of the same names."""
        return {**vars(self), "_bound": None, "_state": None, "_saved": self.state_dict()}

    def saved(self, state: Any, binding: Binding) -> dict[str, Any]:
        """Give a state in plain containers and tensors."""
        names = list(binding.names) if self.per_tensor else []
        return {"names": names, "numbers": numbers_of(state)}

    def resumed(self, saved: Mapping[str, Any], binding: Binding, fresh: Any) -> Any:
        """Give the state that was saved, for the parameters that there are now."""
        kind = type(self).__name__
        if saved.get("kind") != kind:
            _warn(f"{kind} begins anew: the saved state is that of {saved.get('kind', 'no clipper')}.")
            return fresh
        try:
            return self.restored(saved, binding, fresh)
        except (ValueError, KeyError) as error:
            _warn(f"{kind} begins anew, the saved state does not fit: {error}")
            return fresh

    def restored(self, saved: Mapping[str, Any], binding: Binding, fresh: Any) -> Any:
        """Fill a fresh state with what was saved.

        Raises:
            ValueError, KeyError: the settings are others.
        """
        return filled(saved["numbers"], fresh, saved["names"], binding.names if self.per_tensor else ())

    def __repr__(self) -> str:
        return written(self)


class AbstractClipper(AbstractRescaler, ABC):
    """A rescaler whose factors lie in (0, 1]: it makes no gradient larger."""


def _some(names: Collection[str]) -> str:
    first = ", ".join(sorted(names)[:3])
    return "none" if not names else f"{len(names)} ({first}{', ...' if len(names) > 3 else ''})"


def _warn(message: str) -> None:
    warnings.warn(message, GradGuardWarning, stacklevel=4)
