"""Modules of cells with h and c, whose h a projection may make smaller: the arguments of ``torch.nn.LSTM``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from gradguard.nn.base import AbstractRecurrent
from gradguard.nn.cell import AbstractCell
from gradguard.nn.forgetting import AbstractForgettingRecurrence

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from gradguard.nn.options import Options


class AbstractProjected(AbstractRecurrent):
    """Layers of a cell whose only setting is the forget bias; ``kind`` says which."""

    kind: ClassVar[type[AbstractForgettingRecurrence]]

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        proj_size: int = 0,
        device: Any = None,
        dtype: Any = None,
        *,
        forget_bias: float | None = 1.0,
        **options: Unpack[Options],
    ) -> None:
        super().__init__(
            self.kind(forget_bias),
            input_size,
            hidden_size,
            num_layers,
            bias,
            batch_first,
            dropout,
            bidirectional,
            proj_size,
            device,
            dtype,
            options,
        )


class AbstractProjectedCell(AbstractCell):
    """One step of a cell whose only setting is the forget bias; ``kind`` says which."""

    kind: ClassVar[type[AbstractForgettingRecurrence]]

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        device: Any = None,
        dtype: Any = None,
        *,
        forget_bias: float | None = 1.0,
    ) -> None:
        super().__init__(self.kind(forget_bias), input_size, hidden_size, bias, device, dtype)
