"""Modules of cells whose only state is h, which nothing projects: the arguments of ``torch.nn.GRU``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from gradguard.nn.base import AbstractRecurrent
from gradguard.nn.cell import AbstractCell
from gradguard.nn.recurrence import AbstractRecurrence

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from gradguard.nn.options import Options


class AbstractUnprojectedRecurrence(AbstractRecurrence):
    """A cell whose only state is h."""

    def widths(self, hidden_size: int, proj_size: int) -> tuple[int, ...]:
        """Of h."""
        return (hidden_size,)


class AbstractUnprojected(AbstractRecurrent):
    """Layers of a cell without settings; ``kind`` says which."""

    kind: ClassVar[type[AbstractRecurrence]]

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        device: Any = None,
        dtype: Any = None,
        **options: Unpack[Options],
    ) -> None:
        super().__init__(
            self.kind(),
            input_size,
            hidden_size,
            num_layers,
            bias,
            batch_first,
            dropout,
            bidirectional,
            device=device,
            dtype=dtype,
            options=options,
        )


class AbstractUnprojectedCell(AbstractCell):
    """One step of a cell without settings; ``kind`` says which."""

    kind: ClassVar[type[AbstractRecurrence]]

    def __init__(
        self, input_size: int, hidden_size: int, bias: bool = True, device: Any = None, dtype: Any = None
    ) -> None:
        super().__init__(self.kind(), input_size, hidden_size, bias, device, dtype)
