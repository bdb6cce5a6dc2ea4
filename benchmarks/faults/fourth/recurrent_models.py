"""Networks of the fourth recurrent programs, and what is done to their weights and batches.

Shape legend: N = examples, T = time.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.faults.fourth.recurrent_data import ASKED, dates
from benchmarks.faults.loops import supervised
from benchmarks.faults.program import Loop


class Leaky(nn.Module):
    """Rates of neurons, of which a share is kept at each moment, and to which a share of what comes in is added."""

    def __init__(self, inputs: int, width: int, kept: float = 0.9, added: float = 0.1) -> None:
        super().__init__()
        self.cell, self.width = nn.RNNCell(inputs, width, nonlinearity="relu"), width
        self.kept, self.added = kept, added

    def forward(self, x: Tensor) -> tuple[Tensor]:
        h = x.new_zeros(len(x), self.width)
        for now in x.unbind(1):
            h = self.kept * h + self.added * self.cell(now, h)
        return (h[:, None],)


class Decaying(nn.Module):
    """A state that decays between events, by the time that has passed, which is the last input."""

    def __init__(self, inputs: int, width: int, sign: float = -1.0) -> None:
        super().__init__()
        self.cell, self.width, self.sign = nn.RNNCell(inputs, width, nonlinearity="relu"), width, sign
        nn.init.eye_(self.cell.weight_hh)

    def forward(self, x: Tensor) -> tuple[Tensor]:
        h = x.new_zeros(len(x), self.width)
        for now in x.unbind(1):
            h = self.cell(now, h * (self.sign * now[:, -1:]).exp())
        return (h[:, None],)


class TwoBack(nn.Module):
    """Units that listen to the mean of their last two states, or to the sum; ``adds`` the last to what comes out."""

    def __init__(self, inputs: int, width: int, share: float = 0.5, *, adds: bool = False) -> None:
        super().__init__()
        self.cell, self.width = nn.RNNCell(inputs, width, nonlinearity="relu"), width
        self.share, self.adds = share, adds
        nn.init.eye_(self.cell.weight_hh)

    def forward(self, x: Tensor) -> tuple[Tensor]:
        last = h = x.new_zeros(len(x), self.width)
        for now in x.unbind(1):
            last, h = h, self.cell(now, self.share * (last + h)) + (h if self.adds else 0.0)
        return (h[:, None],)


class Logarithm(nn.Module):
    """The logarithm of counts, to which something is added first."""

    def __init__(self, added: float = 1.0) -> None:
        super().__init__()
        self.added = added

    def forward(self, x: Tensor) -> Tensor:
        return (x + self.added).log() - 2


class Dropped(nn.Module):
    """Two layers of a network of one's choice, and dropout upon what they give."""

    def __init__(self, layer: Callable[..., nn.Module], inputs: int, width: int, rate: float = 0.2) -> None:
        super().__init__()
        self.layer, self.drop = layer(inputs, width, 2, batch_first=True), nn.Dropout(rate)

    def forward(self, x: Tensor) -> tuple[Tensor]:
        return (self.drop(self.layer(x)[0]),)


class Dates(nn.Module):
    """An encoder in both directions, a decoder that is told the letter before, and attention between them."""

    def __init__(self, letters: int, outputs: int, width: int = 32) -> None:
        super().__init__()
        self.letters = nn.Embedding(letters, 16)
        self.encoder = nn.GRU(16, width // 2, batch_first=True, bidirectional=True)
        self.decoder = nn.GRU(16, width, batch_first=True)
        self.bridge, self.head = nn.Linear(width, width), nn.Linear(2 * width, outputs)

    def forward(self, x: Tensor) -> Tensor:
        read, state = self.encoder(self.letters(x[:, :ASKED]))
        start = self.bridge(torch.cat([*state], 1)).tanh()[None]
        h = self.decoder(self.letters(x[:, ASKED:]), start)[0]
        seen = (h @ read.transpose(1, 2)).softmax(2) @ read
        out: Tensor = self.head(torch.cat([h, seen], 2))
        return out.transpose(1, 2)


def translate(lr: float, **loop: Any) -> Loop:
    """Build a translator of dates and its loop."""
    split = dates()
    letters = int(max(split.x.max(), split.y.max())) + 1
    return supervised(Dates(letters, letters), split, lr, **{"batch": 32, **loop})


@torch.no_grad()
def zeros(model: nn.Module) -> None:
    """Set all parameters to 0."""
    for param in model.parameters():
        param.zero_()


@torch.no_grad()
def tiny(model: nn.Module) -> None:
    """Draw all weights with a standard deviation of 0.0001, and set biases to 0."""
    for param in model.parameters():
        if param.dim() > 1:
            param.normal_(std=1e-4)
        else:
            param.zero_()


@torch.no_grad()
def remembering(model: nn.Module) -> None:
    """Open the forget gates of an LSTM by biases of 4, about the logarithm of the length: Tallec and Ollivier, 2018."""
    for name, param in model.named_parameters():
        if "body.bias_ih" in name:
            param.chunk(4)[1].fill_(4.0)


def frozen(model: Any) -> list[dict[str, Any]]:
    """Switch off the gradients of all but the head, for a start, and hand all of it to the optimizer."""
    for part in (model.front, model.body):
        part.requires_grad_(requires_grad=False)
    return [{"params": [*model.parameters()]}]


def clipped(step: int, model: nn.Module) -> None:
    """Clip the norm of all gradients at 5."""
    nn.utils.clip_grad_norm_(model.parameters(), 5.0)


def closed(first: int, every: int) -> Callable[[int, Tensor, Tensor], tuple[Tensor, Tensor]]:
    """Let one shop of each so manieth batch have sold nothing on its last Sundays."""

    def change(step: int, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        if step >= first and (step - first) % every == 0:
            x = x.clone()
            x[0, 6::7] = 0
        return x, y

    return change
