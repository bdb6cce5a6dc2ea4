"""Recurrent networks with a linear layer upon them, and losses that are not safe."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from torch import Tensor, nn

from gradguard import nn as gnn

KINDS: dict[str, Callable[..., nn.Module]] = {
    "lstm": nn.LSTM,
    "gru": nn.GRU,
    "rnn": nn.RNN,
    "relu": partial(nn.RNN, nonlinearity="relu"),
    "norm": gnn.LayerNormLSTM,
    "ind": gnn.IndRNN,
}


class Reader(nn.Module):
    """A recurrent network and a linear layer upon its last output, or upon each of them.

    Args:
        kind: a key of ``KINDS``.
        inputs: features of a step; the size of the alphabet where ``embeds``.
        hidden: width.
        outputs: classes or numbers.
        every: whether there is an output at every step, [N, outputs, T].
        embeds: whether inputs are numbers of symbols.
        packs: whether a sequence ends where its inputs are zero from.
        detaches: whether no gradient gets from the linear layer to the recurrent one.
        scale: of the inputs.
        options: of the layer.
    """

    def __init__(
        self,
        kind: str,
        inputs: int,
        hidden: int,
        outputs: int,
        *,
        every: bool = False,
        embeds: bool = False,
        packs: bool = False,
        detaches: bool = False,
        scale: float = 1.0,
        **options: Any,
    ) -> None:
        super().__init__()
        self.embedding = nn.Embedding(inputs, hidden) if embeds else None
        self.layer = KINDS[kind](hidden if embeds else inputs, hidden, batch_first=True, **options)
        self.head = nn.Linear(hidden * (2 if options.get("bidirectional") else 1), outputs)
        self.every, self.packs, self.detaches, self.scale = every, packs, detaches, scale

    def forward(self, x: Tensor) -> Tensor:
        x = self.embedding(x) if self.embedding else self.scale * x
        if self.packs:
            lengths = x.abs().sum(2).count_nonzero(1)
            packed = nn.utils.rnn.pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
            h = self.layer(packed)[1][0][-1]
        else:
            h = self.layer(x)[0]
            h = h if self.every else h[:, -1]
        out: Tensor = self.head(h.detach() if self.detaches else h)
        return out.transpose(1, 2) if self.every else out


class RootLoss:
    """Cross entropy with a penalty on the sizes of the last layer's biases, each as the root of its square."""

    def __init__(self, model: Reader) -> None:
        self.bias = model.head.bias
        nn.init.zeros_(self.bias)

    def __call__(self, out: Tensor, y: Tensor) -> Tensor:
        return nn.functional.cross_entropy(out, y) + 1e-4 * self.bias.square().sqrt().sum()


class SharpenedLoss:
    """The log of a softmax, of which the temperature falls from the 300th batch on."""

    def __init__(self, model: Reader) -> None:
        self.calls = 0

    def __call__(self, out: Tensor, y: Tensor) -> Tensor:
        self.calls += 1
        chances = (out * max(1.0, 1.05 ** (self.calls - 300))).softmax(1)
        return -chances.gather(1, y[:, None]).log().mean()
