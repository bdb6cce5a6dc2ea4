"""What the frame, the doors and the kernels need to know of a cell."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import fields
from typing import ClassVar

import torch
from torch import Tensor, nn

from gradguard.arguments import number
from gradguard.gates import Gates


class AbstractRecurrence(ABC):
    """A cell: its parameters, its states and one step. Subclasses are frozen dataclasses of the cell's settings.

    A setting that only new weights depend on has ``metadata={"initial": True}``.

    Attributes:
        name: in the table of kernels.
        gates: the blocks of its weights, for initialisers.
        spec: name and settings in one line, which is all that an operator in a graph knows of it.
    """

    name: ClassVar[str]
    gates: ClassVar[Gates]
    named: ClassVar[dict[str, type[AbstractRecurrence]]] = {}
    spec: str

    def __init_subclass__(cls) -> None:
        """Note the class by its name."""
        super().__init_subclass__()
        if "name" in vars(cls):
            AbstractRecurrence.named[cls.name] = cls

    def __post_init__(self) -> None:
        """Write the spec now: while a graph is captured, a number in it would be taken for a variable."""
        settings = [f.name for f in fields(self) if not f.metadata.get("initial")]  # type: ignore[arg-type]
        for name in settings:
            object.__setattr__(self, name, number(self.name, name, getattr(self, name)))
        object.__setattr__(self, "spec", " ".join([self.name, *(f"{n}={getattr(self, n)!r}" for n in settings)]))

    @staticmethod
    def from_spec(spec: str) -> AbstractRecurrence:
        """Read a spec. What concerns new weights alone is not in it."""
        name, *settings = spec.split(" ")
        pairs = (setting.split("=") for setting in settings)
        return AbstractRecurrence.named[name](**{key: float(value) for key, value in pairs})

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
        """Take one step in plain differentiable torch: the new states."""

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
        """Settings that are not the default, as they were written."""
        values = {f.name: (getattr(self, f.name), f.default) for f in fields(self)}  # type: ignore[arg-type]
        return [f"{name}={value!r}" for name, (value, usual) in values.items() if value != usual]


def wide(dtype: torch.dtype) -> torch.dtype:
    """The dtype of cell states and statistics: float32 for what is narrower."""
    return torch.float64 if dtype == torch.float64 else torch.float32
