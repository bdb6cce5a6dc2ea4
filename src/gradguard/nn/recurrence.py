"""What the frame, the doors and the kernels need to know of a cell."""

from __future__ import annotations

import ast
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from functools import partial
from typing import ClassVar

from torch import Tensor, nn

from gradguard.arguments import number
from gradguard.functional.recurrence.parts import wide as wide
from gradguard.gates import Gates


@dataclass(frozen=True, kw_only=True)
class AbstractRecurrence(ABC):
    """A cell: its parameters, its states and one step. Subclasses are frozen dataclasses of the cell's settings.

    A setting that only new weights depend on has ``metadata={"initial": True}``.

    Args:
        zoneout: which share of each state stays as it was.
        clip_grad_state: bound of the gradient that goes from a step to the h before it.

    Attributes:
        name: in the table of kernels.
        gates: the blocks of its weights, for initialisers.
        drops_h: whether variational dropout is on the h that enters the products, too.
        lacks: options of the family that the cell does not have, and why.
        spec: name and settings in one line, which is all that an operator in a graph knows of it.
    """

    zoneout: float | tuple[float, ...] = 0.0
    clip_grad_state: float | None = None
    spec: str = field(init=False, repr=False, compare=False)

    name: ClassVar[str]
    gates: ClassVar[Gates]
    drops_h: ClassVar[bool] = True
    lacks: ClassVar[Mapping[str, str]] = {}
    named: ClassVar[dict[str, type[AbstractRecurrence]]] = {}

    def __init_subclass__(cls) -> None:
        """Note the class by its name."""
        super().__init_subclass__()
        if "name" in vars(cls):
            AbstractRecurrence.named[cls.name] = cls

    def __post_init__(self) -> None:
        """Write the spec now: while a graph is captured, a number in it would be taken for a variable."""
        settings = [f for f in fields(self) if f.init and not f.metadata.get("initial")]
        for f in settings:
            if f.type == "float":
                object.__setattr__(self, f.name, number(self.name, f.name, getattr(self, f.name)))
        values = [(f.name, value) for f in settings if (value := getattr(self, f.name)) != f.default]
        written = (f"{name}={value!r}".replace(" ", "") for name, value in values)
        object.__setattr__(self, "spec", " ".join([self.name, *written]))

    @staticmethod
    def from_spec(spec: str) -> AbstractRecurrence:
        """Read a spec. What concerns new weights alone is not in it."""
        name, *settings = spec.split(" ")
        pairs = (setting.split("=") for setting in settings)
        return AbstractRecurrence.named[name](**{key: ast.literal_eval(value) for key, value in pairs})

    @property
    def rates(self) -> tuple[float, ...]:
        """The zoneout of each state."""
        states = len(self.widths(1, 0))
        return self.zoneout if isinstance(self.zoneout, tuple) else (self.zoneout,) * states

    @abstractmethod
    def shapes(self, input_size: int, hidden_size: int, proj_size: int, *, bias: bool) -> dict[str, tuple[int, ...]]:
        """Names and shapes of the parameters of one layer in one direction, in the order of ``nn.LSTM``.

        Raises:
            ValueError: the cell has no such option.
        """

    @abstractmethod
    def widths(self, hidden_size: int, proj_size: int) -> tuple[int, ...]:
        """Width of each state; that of the output comes first."""

    @abstractmethod
    def step(self, x: Tensor, *states: Tensor, **params: Tensor) -> tuple[Tensor, ...]:
        """Take one step in plain differentiable torch: the new states.

        A ``drop_h``, [B, P], among the parameters multiplies the h that enters the products.
        """

    def begin(self, params: Mapping[str, Tensor], seen: list[Tensor]) -> Callable[..., tuple[Tensor, ...]]:
        """Give the function that takes the steps of one pass, :meth:`step` for all but those that count them.

        What a pass gives beside the states is appended to ``seen``, row by row.
        """
        return partial(self.step, **params)

    def extras(self, steps: int, hidden_size: int) -> list[tuple[int, ...]]:
        """Shapes of what a pass gives beside the states, without a gradient; in the wide dtype."""
        return []

    def effective(self, params: dict[str, Tensor]) -> dict[str, Tensor]:
        """Give the parameters that a pass computes with, from those that are stored."""
        return params

    def fill_(self, name: str, param: Tensor, hidden_size: int) -> None:
        """Fill a new parameter: weights and biases as ``nn.LSTM`` does, the gain of a norm with 1, its shift with 0."""
        if name.startswith("gain_"):
            nn.init.ones_(param)
        elif name == "bias_c":
            nn.init.zeros_(param)
        else:
            bound = 1 / math.sqrt(hidden_size)
            nn.init.uniform_(param, -bound, bound)

    def described(self) -> list[str]:
        """Settings that are not the default, as they were written; those of the family last."""
        own = sorted((f for f in fields(self) if f.init), key=lambda f: f.kw_only is True)
        values = {f.name: (getattr(self, f.name), f.default) for f in own}
        return [f"{name}={value!r}" for name, (value, usual) in values.items() if value != usual]
