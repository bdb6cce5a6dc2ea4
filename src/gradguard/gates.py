"""What the blocks of a recurrent layer's weights are: which gate each of them computes, and what the gate does."""

from __future__ import annotations

from typing import NamedTuple

from torch import nn


class Gates(NamedTuple):
    """The gates of a recurrent cell.

    Attributes:
        names: of the blocks of ``hidden_size`` rows in ``weight_ih``, ``weight_hh`` and the biases, in their order.
        keep: the gate that keeps the state where it is open; None if none does.
        write: the gate that lets new content in where it is open.
        of_input: those that ``weight_ih`` has blocks of; None for all.
        of_hidden: those that ``weight_hh`` has blocks of; None for all.
    """

    names: tuple[str, ...]
    keep: str | None = None
    write: str | None = None
    of_input: tuple[str, ...] | None = None
    of_hidden: tuple[str, ...] | None = None

    def within(self, short: str) -> tuple[str, ...]:
        """Names of the blocks of a parameter, in their order."""
        names = {"weight_ih": self.of_input, "weight_hh": self.of_hidden}.get(short)
        return self.names if names is None else names


RNN = Gates(("h",))
LSTM = Gates(("i", "f", "g", "o"), keep="f", write="i")
COUPLED_LSTM = Gates(("f", "g", "o"), keep="f")  # what f forgets is let in
JANET = Gates(("f", "g"), keep="f")
GRU = Gates(("r", "z", "n"), keep="z")  # torch's z keeps the state; in the paper it writes
MUT1 = Gates(("r", "z", "n"), write="z", of_input=("r", "z"), of_hidden=("r", "n"))
MUT2 = Gates(("r", "z", "n"), write="z", of_input=("z", "n"))
MUT3 = Gates(("r", "z", "n"), write="z")


def gates_of(module: nn.Module) -> Gates | None:
    """Give the gates of a recurrent module or cell; None for any other module.

    Ours say so themselves, in their ``recurrence``.

    >>> gates_of(nn.GRUCell(1, 1)).keep
    'z'
    """
    if isinstance(module, nn.LSTM | nn.LSTMCell):
        return LSTM
    if isinstance(module, nn.GRU | nn.GRUCell):
        return GRU
    if isinstance(module, nn.RNN | nn.RNNCell):
        return RNN
    found = getattr(getattr(module, "recurrence", None), "gates", None)
    return found if isinstance(found, Gates) else None
