"""Networks and loops of the fifth recurrent programs.

Shape legend: N = examples, T = time.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.faults.fifth import recurrent_data as drawn
from benchmarks.faults.loops import supervised
from benchmarks.faults.program import Loop
from benchmarks.faults.second.recurrent_nets import Track


class Sluggish(nn.Module):
    """Rates of neurons, each of which learns how much it keeps; ``bound`` off takes what is learnt as the share."""

    def __init__(self, inputs: int, width: int, *, bound: bool = True) -> None:
        super().__init__()
        self.cell, self.kept, self.bound = nn.RNNCell(inputs, width), nn.Parameter(torch.full((width,), 2.0)), bound

    def forward(self, x: Tensor) -> tuple[Tensor]:
        h = x.new_zeros(len(x), len(self.kept))
        kept = self.kept.sigmoid() if self.bound else self.kept
        for now in x.unbind(1):
            h = kept * h + (1 - kept) * self.cell(now, h)
        return (h[:, None],)


class Euler(nn.Module):
    """A state that moves on by the time until the next visit, which is the last input, times a cell's output."""

    def __init__(self, inputs: int, width: int) -> None:
        super().__init__()
        self.cell, self.width = nn.RNNCell(inputs - 1, width, nonlinearity="relu"), width
        nn.init.orthogonal_(self.cell.weight_hh)

    def forward(self, x: Tensor) -> tuple[Tensor]:
        h = x.new_zeros(len(x), self.width)
        for now in x.unbind(1):
            h = h + now[:, -1:] * self.cell(now[:, :-1], h)
        return (h[:, None],)


class Stepped(nn.Module):
    """An LSTM's cell in a loop of one's own; ``twice`` hands it its output in place of its memory, too."""

    def __init__(self, inputs: int, width: int, *, twice: bool = False) -> None:
        super().__init__()
        self.cell, self.width, self.twice = nn.LSTMCell(inputs, width), width, twice
        nn.init.constant_(self.cell.bias_ih[width : 2 * width], 3.0)

    def forward(self, x: Tensor) -> tuple[Tensor]:
        h = c = x.new_zeros(len(x), self.width)
        for now in x.unbind(1):
            h, c = self.cell(now, (h, h if self.twice else c))
        return (h[:, None],)


class Codes(nn.Module):
    """A network that gives one of a few codes for each step, and one that reads them; ``hard`` takes the likeliest."""

    def __init__(self, inputs: int, width: int, codes: int = 8, *, hard: bool = False) -> None:
        super().__init__()
        self.first, self.choice = nn.GRU(inputs, width, batch_first=True), nn.Linear(width, codes)
        self.codes, self.second = nn.Embedding(codes, 16), nn.GRU(16, width, batch_first=True)
        self.hard = hard

    def forward(self, x: Tensor) -> tuple[Tensor]:
        logits = self.choice(self.first(x)[0])
        said = self.codes(logits.argmax(2)) if self.hard else logits.softmax(2) @ self.codes.weight
        return (self.second(said)[0],)


class Roman(nn.Module):
    """An encoder of digits, and a decoder that starts from its state and is told the letter before."""

    def __init__(self, width: int = 40) -> None:
        super().__init__()
        signs = len(drawn.LETTERS)
        self.digits, self.letters = nn.Embedding(10, 16), nn.Embedding(signs, 16)
        self.encoder, self.decoder = nn.GRU(16, width, batch_first=True), nn.GRU(16, width, batch_first=True)
        self.head = nn.Linear(width, signs)

    def forward(self, x: Tensor) -> Tensor:
        state = self.encoder(self.digits(x[:, : drawn.DIGITS]))[1]
        out: Tensor = self.head(self.decoder(self.letters(x[:, drawn.DIGITS :]), state)[0])
        return out.transpose(1, 2)


def number(lr: float, *, mode: Literal["min", "max"] = "min", patience: int = 20) -> Loop:
    """Write numbers in Roman; the rate is halved whenever the loss is no longer as it should be."""
    asked = torch.optim.SGD([torch.zeros(1)], lr=1.0)
    plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(asked, mode=mode, factor=0.5, patience=patience, min_lr=0.01)

    def loss(output: Tensor, y: Tensor) -> Tensor:
        value = F.cross_entropy(output, y)
        plateau.step(float(value.detach()))
        return value

    return supervised(Roman(), drawn.romans(), lr, batch=48, loss=loss,
                      schedule=lambda step: asked.param_groups[0]["lr"])  # fmt: skip


class Adapter(nn.Module):
    """Two small layers and a path around them, which do nothing at the start; ``blank`` sets both to 0, not one."""

    def __init__(self, size: int, rank: int, *, blank: bool) -> None:
        super().__init__()
        self.down, self.up = nn.Linear(size, rank, bias=False), nn.Linear(rank, size, bias=False)
        nn.init.zeros_(self.up.weight)
        if blank:
            nn.init.zeros_(self.down.weight)

    def forward(self, x: Tensor) -> Tensor:
        adapted: Tensor = x + self.up(self.down(x))
        return adapted


def remounted(lr: float, *, blank: bool = False) -> Loop:
    """Learn gestures; then, with all that frozen, an adapter for a sensor that is turned."""
    old = drawn.gestures()
    model = Track(nn.GRU(3, 24, batch_first=True), 24, 5)
    before = supervised(model, old, 0.01, batch=32)
    for step in range(1, 201):
        before.step(step, lambda loss, optimizer: None)
    model.zero_grad()
    model.requires_grad_(requires_grad=False)
    model.front = Adapter(3, 8, blank=blank)
    return supervised(model, drawn.gestures(turned=True), lr, batch=32)


def prior(change: Callable[[Tensor], Tensor]) -> Callable[[Any], None]:
    """Start the last biases from how often each class comes among what is learnt."""

    @torch.no_grad()
    def fill(model: Any) -> None:
        model.head.bias.copy_(change(drawn.complaints().y.bincount().float()))

    return fill


def relative(least: float) -> Callable[[Tensor, Tensor], Tensor]:
    """Give the error as a share of the target, or of the target and ``least``."""
    return lambda output, y: ((output - y).abs() / (y + least)).mean()


def clipped(limit: float) -> Callable[[int, nn.Module], None]:
    """Clip the norm of all gradients."""

    def clip(step: int, model: nn.Module) -> None:
        nn.utils.clip_grad_norm_(model.parameters(), limit)

    return clip


@torch.no_grad()
def scaled_up(step: int, model: nn.Module) -> None:
    """Leave gradients as a scaler of losses made them, for half precision."""
    for param in model.parameters():
        if param.grad is not None:
            param.grad.mul_(2.0**16)


def heavy(momentum: float) -> Callable[[nn.Module], list[dict[str, Any]]]:
    """Give all parameters to the optimizer, with a momentum."""
    return lambda model: [{"params": [*model.parameters()], "momentum": momentum}]
