"""Recurrent networks of the newer programs, and what is done to their weights at the start."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn


class Track(nn.Module):
    """Anything before a recurrent body, the body, and a linear layer upon what is read off it.

    Args:
        body: gives outputs [N, T, width] first.
        width: of the body's output.
        outputs: classes or numbers.
        reading: the last output; each, as [N, outputs, T]; that at the end of the padding's text; the mean over the
            text; or a mean weighted by attention.
        front: is put before the body.
        unsafe: whether the mean divides by the number of symbols as it is.
    """

    def __init__(
        self,
        body: nn.Module,
        width: int,
        outputs: int,
        *,
        reading: str = "last",
        front: nn.Module | None = None,
        unsafe: bool = False,
    ) -> None:
        super().__init__()
        self.front, self.body, self.head = front, body, nn.Linear(width, outputs)
        self.query = nn.Linear(width, 1) if reading == "attention" else None
        self.reading, self.unsafe = reading, unsafe

    def forward(self, x: Tensor) -> Tensor:
        mask = (x != 0).reshape(*x.shape[:2], -1).any(2)
        x = self.front(x) if self.front else x
        if self.reading == "packed":
            ends = mask.sum(1)
            packed = nn.utils.rnn.pack_padded_sequence(x, ends, batch_first=True, enforce_sorted=False)
            states = self.body(packed)[1]
            return self.head((states[0] if isinstance(states, tuple) else states)[-1])
        h = self.body(x)[0]
        if self.reading == "every":
            return self.head(h).transpose(1, 2)
        if self.reading == "mean":
            count = mask.sum(1, keepdim=True)
            h = (h * mask[..., None]).sum(1) / (count if self.unsafe else count.clamp(min=1))
        elif self.query:
            h = (self.query(h).softmax(1) * h).sum(1)
        else:
            h = h[:, -1]
        return self.head(h)


class Across(nn.Module):
    """A convolution over time, with a stride, of [N, T, F]."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.layer = nn.Conv1d(inputs, outputs, 5, stride)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x.transpose(1, 2)).relu().transpose(1, 2)


class Residual(nn.Module):
    """Recurrent layers, each with a norm before it and a path around it."""

    def __init__(self, layers: list[nn.Module], width: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in layers)

    def forward(self, x: Tensor) -> tuple[Tensor]:
        for layer, norm in zip(self.layers, self.norms, strict=True):
            x = x + layer(norm(x))[0]
        return (x,)


class Translator(nn.Module):
    """An encoder whose last states are where a decoder starts, which is told no more than how far it is."""

    def __init__(self, symbols: int, length: int, width: int, *, encodes_without_gradient: bool = False) -> None:
        super().__init__()
        self.symbols, self.places = nn.Embedding(symbols, 16), nn.Parameter(torch.randn(length, 16))
        self.encoder = nn.LSTM(16, width, batch_first=True)
        self.decoder = nn.LSTM(16, width, batch_first=True)
        self.head = nn.Linear(width, symbols)
        self.encodes_without_gradient = encodes_without_gradient

    def forward(self, x: Tensor) -> Tensor:
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.encodes_without_gradient):
            states = self.encoder(self.symbols(x))[1]
        out: Tensor = self.head(self.decoder(self.places.expand(len(x), -1, -1), states)[0])
        return out.transpose(1, 2)


class Writer(nn.Module):
    """A model of text that shares its embedding with its last layer, and is handed its states."""

    def __init__(self, symbols: int, width: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(symbols, width)
        self.body = nn.LSTM(width, width, batch_first=True)
        self.bias = nn.Parameter(torch.zeros(symbols))
        nn.init.normal_(self.embedding.weight, std=0.3)

    def forward(self, x: Tensor, states: Any = None) -> tuple[Tensor, Any]:
        h, states = self.body(self.embedding(x), states)
        return h @ self.embedding.weight.T + self.bias, states


def gate(number: int, gates: int, value: float) -> Callable[[nn.Module], None]:
    """Set the sums of the biases of one gate of so many."""

    @torch.no_grad()
    def fill(model: nn.Module) -> None:
        for name, bias in model.named_parameters():
            if "body" in name and "bias_" in name:
                bias.chunk(gates)[number].fill_(value if "ih" in name else 0.0)

    return fill


def recurrent(change: Callable[[Tensor], Any]) -> Callable[[nn.Module], None]:
    """Change the recurrent weights, and set the body's biases to 0."""

    @torch.no_grad()
    def fill(model: nn.Module) -> None:
        for name, param in model.named_parameters():
            if "weight_hh" in name:
                change(param)
            elif "body" in name and "bias_" in name:
                param.zero_()

    return fill


def identity(factor: float) -> Callable[[nn.Module], None]:
    """Let each unit keep a share of its state, and no unit listen to another."""
    return recurrent(lambda weight: nn.init.eye_(weight).mul_(factor))


@torch.no_grad()
def opened(model: nn.Module) -> None:
    """Set all biases of the body to 5, where those of the forget gates were meant."""
    for name, param in model.named_parameters():
        if "body.bias" in name:
            param.fill_(5.0)
