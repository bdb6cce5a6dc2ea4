"""One clipper for these parameters, another for those."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple, final

import torch
from torch import Tensor

from gradguard.clip.base import AbstractRescaler
from gradguard.clip.binding import Binding
from gradguard.clip.factors import AbstractFactors
from gradguard.clip.patterns import matches
from gradguard.functional import Measurement
from gradguard.functional.number import Number, precise


class Part(NamedTuple):
    """The parameters of one pattern: their positions, the same as a tensor, and the state of their clipper."""

    positions: tuple[int, ...]
    where: Tensor
    state: Any


@final
class PerModule(AbstractRescaler):
    """Gives the parameters to several clippers by their names; each sees its own, and clips them together.

    Patterns have the wildcards of a shell and mean the names of parameters, and of modules with all that is in them:
    ``"encoder"`` and ``"encoder.*"`` are the same. The first pattern that matches wins; what matches none is left
    alone.

    Args:
        clippers: a clipper for each pattern, in order.

    Raises:
        ValueError: no clipper, or, once the names are known, a pattern that matches none of them.
        TypeError: something that is no clipper.

    Host sync: none. Mutates: the gradients, in ``clip_``.

    >>> from gradguard.clip import NormClip, ZClip
    >>> clipper = PerModule({"encoder.*": NormClip(1.0), "*": ZClip()})
    """

    per_tensor = True

    def __init__(self, clippers: Mapping[str, AbstractRescaler]) -> None:
        super().__init__()
        if not isinstance(clippers, Mapping) or not clippers:
            raise ValueError(f"PerModule needs a dict with a clipper for each pattern, got {clippers!r}.")
        for pattern, clipper in clippers.items():
            if not isinstance(clipper, AbstractRescaler):
                raise TypeError(f"PerModule needs a clipper for {pattern!r}, got {clipper!r}.")
            if isinstance(clipper, PerModule):
                raise TypeError(f"PerModule needs plain clippers, got another PerModule for {pattern!r}.")
        self.clippers = dict(clippers)

    @property
    def patterns(self) -> tuple[str, ...]:
        """The keys, and those of the clippers themselves."""
        return (*self.clippers, *(pattern for clipper in self.clippers.values() for pattern in clipper.patterns))

    def bind(self, binding: Binding) -> dict[str, Part]:
        """Share the parameters out."""
        members: dict[str, list[int]] = {pattern: [] for pattern in self.clippers}
        for i, name in enumerate(binding.names):
            first = next((pattern for pattern in self.clippers if matches(pattern, name)), None)
            if first is not None:
                members[first].append(i)
        device = binding.params[0].device if binding.params else torch.device("cpu")
        return {
            pattern: Part(
                tuple(positions),
                torch.tensor(positions, dtype=torch.int64, device=device),
                self.clippers[pattern].bind(_part_of(binding, positions)),
            )
            for pattern, positions in members.items()
            if positions
        }

    def changes(self, state: dict[str, Part]) -> Number:
        """Add up those of the clippers."""
        return sum(self.clippers[pattern].changes(part.state) for pattern, part in state.items())

    def parts(self, state: dict[str, Part]) -> tuple[str, ...]:
        """Name the patterns that have parameters."""
        return tuple(state)

    def fresh(self) -> PerModule:
        """Give one with fresh clippers."""
        return PerModule({pattern: clipper.fresh() for pattern, clipper in self.clippers.items()})

    def rule(self, measurement: Measurement, state: dict[str, Part]) -> tuple[AbstractFactors, dict[str, Part]]:
        """Ask each clipper about its own parameters."""
        factors, new = {}, {}
        for pattern, part in state.items():
            index = part.where.to(measurement.norms.device, non_blocking=True)
            own = measurement.part(part.positions, index)
            factors[pattern], after = self.clippers[pattern].coefficients(own, part.state)
            new[pattern] = Part(part.positions, index, after)
        return Grouped(measurement, factors, {pattern: part.where for pattern, part in new.items()}), new

    def saved(self, state: dict[str, Part], binding: Binding) -> dict[str, Any]:
        """Give the state of each clipper."""
        parts = {
            pattern: {
                "kind": type(self.clippers[pattern]).__name__,
                **self.clippers[pattern].saved(part.state, _part_of(binding, part.positions)),
            }
            for pattern, part in state.items()
        }
        return {"names": list(binding.names), "parts": parts}

    def restored(self, saved: Mapping[str, Any], binding: Binding, fresh: dict[str, Part]) -> dict[str, Part]:
        """Give each clipper the state that was saved under its pattern."""
        return {
            pattern: part._replace(
                state=self.clippers[pattern].resumed(
                    saved["parts"].get(pattern, {}), _part_of(binding, part.positions), part.state
                )
            )
            for pattern, part in fresh.items()
        }


def _part_of(binding: Binding, positions: Any) -> Binding:
    names, params, owners = (tuple(field[i] for i in positions) for field in binding)
    return Binding(names, params, owners)


@final
class Grouped(AbstractFactors):
    """The factors of several clippers; parameters that none of them has are left as they are.

    Attributes:
        parts: the factors of each, by pattern.
    """

    def __init__(
        self, measurement: Measurement, parts: Mapping[str, AbstractFactors], index: Mapping[str, Tensor]
    ) -> None:
        super().__init__(measurement, math.nan)  # it has one for each part
        self.parts, self._index = dict(parts), dict(index)

    def apply_(self) -> None:
        """Let each part multiply its own."""
        for factors in self.parts.values():
            factors.apply_()

    def of(self, position: int) -> Tensor:
        """Ask the part that the parameter is in."""
        param = self.measurement.params[position]
        for factors in self.parts.values():
            for i, own in enumerate(factors.measurement.params):
                if own is param:
                    return factors.of(i)
        return self.measurement.norms.new_ones(())

    def clipped_norms(self) -> Tensor:
        """Put those of the parts at their places."""
        after = self.measurement.norms.clone()
        for pattern, factors in self.parts.items():
            after[self._index[pattern]] = factors.clipped_norms().to(after.dtype)
        return after

    def report(self, changes: Number = 0.0) -> Tensor:
        """Give the numbers of all together, then those of each part, [1 + parts, 5]."""
        each = [super().report(changes), *(factors.report() for factors in self.parts.values())]
        like = precise(self.measurement.total)
        return torch.stack([torch.as_tensor(one, dtype=like.dtype, device=like.device) for one in each])

    def changed(self) -> Tensor:
        """Ask all of the parts."""
        return torch.stack([factors.changed().reshape(()) for factors in self.parts.values()]).any()
