"""Third programs with a recurrent network: readings, sampling rates, units and rates that users get wrong."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from benchmarks.faults.data import changed
from benchmarks.faults.planting import cosine, staircase
from benchmarks.faults.program import Program
from benchmarks.faults.second.recurrent_nets import recurrent
from benchmarks.faults.second.recurrent_ways import track
from benchmarks.faults.third import recurrent_parts as parts
from gradguard.detect import Symptom
from gradguard.init import forget_gate_

_P = partial(Program, through_time=True, steps=400)
_LSTM, _GRU = partial(nn.LSTM, batch_first=True), partial(nn.GRU, batch_first=True)
_RNN = partial(nn.RNN, batch_first=True)
_RELU = partial(_RNN, nonlinearity="relu")


def _keeping(bias: float) -> Callable[[nn.Module], None]:
    """Let forget gates have a bias, and input gates its negative."""

    @torch.no_grad()
    def fill(model: nn.Module) -> None:
        for name, param in model.named_parameters():
            if "bias_ih" in name:
                shut, keep, _, _ = param.chunk(4)
                shut.fill_(-bias)
                keep.fill_(bias)

    return fill


@torch.no_grad()
def _by_inputs(model: nn.Module) -> None:
    """Draw all weights of the body by how many inputs it has, be they of the inputs or of the state."""
    first = next(p for name, p in model.named_parameters() if "weight_ih" in name)
    for name, param in model.named_parameters():
        if "body.weight" in name:
            param.normal_(std=1 / math.sqrt(first.shape[1]))


@torch.no_grad()
def _alike(model: nn.Module) -> None:
    """Set all parameters to one number."""
    for param in model.parameters():
        param.fill_(0.05)


def _add_identity(weight: Tensor) -> Tensor:
    return weight.add_(torch.eye(len(weight)))


def _identity(weight: Tensor) -> Tensor:
    return nn.init.eye_(weight)


def _flat(step: int, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Let a sensor be off in one window of each batch from the 200th on."""
    return (torch.cat([torch.full_like(x[:1], 3.0), x[1:]]), y) if step >= 200 else (x, y)


def _renumbered(step: int, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Number the classes in another order from the 230th batch on."""
    return (x, (y + 1) % 4) if step >= 230 else (x, y)


def _clipped(step: int, model: nn.Module) -> Tensor:
    return nn.utils.clip_grad_norm_(model.parameters(), 5.0)


_WORDS = {"front": partial(nn.Embedding, 25, 16), "inputs": 16}
_TITLES = partial(track, split=partial(parts.titles, 50), width=32, body=parts.Ends, **_WORDS, loop={"batch": 24})
_STROKES = partial(
    track, split=partial(parts.strokes, 1), body=_LSTM, width=20, fill=forget_gate_, loop={"optimizer": "adamw"}
)
_DECAYING = {"optimizer": "adamw", "schedule": staircase(200, 300, factor=0.3), "batch": 40}
_ENDINGS = partial(
    track, split=partial(parts.endings, 50), body=_RNN, front=partial(nn.Embedding, 16, 12), inputs=12, loop=_DECAYING
)
_ORTHOGONAL = recurrent(nn.init.orthogonal_)
_BALANCES = partial(track, split=partial(parts.balances, 15), body=_RELU, fill=_ORTHOGONAL)
_DOSES = partial(
    track, split=partial(parts.doses, 40), body=_RELU, width=28, fill=recurrent(_identity), loop={"batch": 48}
)
_GAINS = partial(track, split=partial(parts.gains, 40), body=_LSTM, fill=_keeping(math.log(39)), loop={"batch": 24})
_BRACKETS = partial(
    track,
    split=partial(parts.brackets, 16),
    body=lambda inputs, width: parts.Stack(7, width, math.sqrt(width)),
    reading="every",
    loop={"optimizer": "nesterov", "batch": 16},
)
_SPELL = partial(parts.spell, optimizer="adamw", loss=partial(cross_entropy, label_smoothing=0.1))
_COLUMNS = partial(track, split=parts.columns, body=_GRU, loop={"optimizer": "sgd", "batch": 16})
_BEATS = partial(
    track,
    split=partial(parts.beats, 30),
    body=_GRU,
    width=16,
    front=partial(parts.Standardised, min=1e-3),
    inputs=1,
    reading="mean",
    loop={"on_batch": _flat, "schedule": cosine(300, 60)},
)
_WALKS = partial(track, split=partial(parts.walks, 12), body=parts.Cells, loop={"batch": 16, "accumulate": 2})


def _reversed() -> Any:
    return changed(parts.endings(50), lambda x: x.flip(1))


# fmt: off
_HEALTHY = (
    _P("lstm-titles-both-ways", _TITLES, (0.005, 0.01), steps=300,
       about="three of fifty words count: hardly any gradient comes to the others"),
    _P("lstm-strokes", _STROKES, (0.01, 0.02), about="a plain one: twelve steps, of which the first two count"),
    _P("rnn-endings", _ENDINGS, (0.005, 0.01), steps=350,
       about="the last three of fifty steps count: a gradient that fades, as it may; the rate falls twice"),
    _P("relu-balances", _BALANCES, (0.002, 0.004), about="a sum of products, in units without a bound"),
    _P("relu-doses", _DOSES, (0.001, 0.002), about="an identity of forty steps: states grow, and gradients with them"),
    _P("lstm-gains", _GAINS, (0.01, 0.02), steps=450,
       about="input gates nearly shut and forget gates open, as they should be; a plateau at what the last tells"),
    _P("gru-brackets", _BRACKETS, (0.2, 0.3), steps=300,
       about="large embeddings, by the root of the width, and rates of momentum that look large"),
    _P("lstm-spelling", _SPELL, (0.005, 0.01), about="smoothed labels: the loss rests high"),
    _P("gru-columns-sgd", _COLUMNS, (0.5, 1.0), steps=500,
       about="plain descent at rates that look huge; 133 examples, learnt by heart"),
    _P("gru-beats", _BEATS, (0.005, 0.01), steps=300,
       about="a long warm-up, a rate that ends at 0; a flat window in each batch from the 200th on"),
    _P("gru-walks-by-hand", _WALKS, (0.003, 0.006), steps=300, about="classes that overlap: a noisy loss, rather high"),
)

_FAULTY = (
    _P("lstm-titles-last-word", partial(_TITLES, body=lambda i, w: _LSTM(i, w // 2, bidirectional=True)), (0.005, 0.01),
       Symptom.VANISHING_TIME, "lstm-titles-both-ways", steps=300,
       about="output[:, -1] of both directions: the backward one has seen one word there, the forward one forgot"),
    _P("lstm-strokes-finely", partial(_STROKES, split=partial(parts.strokes, 8)), (0.01, 0.02),
       Symptom.VANISHING_TIME, "lstm-strokes", about="as it is sampled: 96 steps in place of 12"),
    _P("rnn-endings-reversed", partial(_ENDINGS, split=_reversed), (0.005, 0.01), Symptom.VANISHING_TIME, "rnn-endings",
       steps=350, about="inputs turned around, as for translation: the ending is fifty steps away"),
    _P("relu-balances-fan-in", partial(_BALANCES, fill=_by_inputs), (0.002, 0.004), Symptom.EXPLODING_TIME,
       "relu-balances", about="recurrent weights drawn by the two inputs, not by the width"),
    _P("relu-doses-added-identity", partial(_DOSES, fill=recurrent(_add_identity)), (0.001, 0.002),
       Symptom.EXPLODING_TIME, "relu-doses", about="the identity is added to torch's own weights"),
    _P("lstm-gains-no-logarithm", partial(_GAINS, fill=_keeping(39.0)), (0.01, 0.02), Symptom.SATURATED_GATES,
       "lstm-gains", steps=450, about="biases of the time, where its logarithm was meant: nothing comes in"),
    _P("gru-beats-clamped", partial(_BEATS, front=partial(parts.Standardised, max=1e-3)), (0.005, 0.01),
       Symptom.SATURATED_GATES, "gru-beats", steps=300,
       about="clamp(max=0.001) where min was meant: all windows are divided by 0.001"),
    _P("lstm-spelling-alike", partial(_SPELL, fill=_alike), (0.005, 0.01), Symptom.POOR_INITIALISATION, "lstm-spelling",
       about="constant_(p, 0.05) for all parameters: units stay alike"),
    _P("gru-brackets-adam", partial(_BRACKETS, loop={"optimizer": "adam", "batch": 16}), (0.2, 0.3),
       Symptom.UPDATE_TOO_LARGE, "gru-brackets", steps=300, about="Adam takes over the rate of plain momentum"),
    _P("gru-beats-flat", partial(_BEATS, front=partial(parts.Standardised)), (0.005, 0.01), Symptom.NON_FINITE,
       "gru-beats", steps=300, onset=200, about="nothing is added to the spread that a flat window is divided by"),
    _P("gru-walks-renumbered", partial(_WALKS, loop={"batch": 16, "accumulate": 2, "on_batch": _renumbered}),
       (0.003, 0.006), Symptom.LOSS_SPIKE, "gru-walks-by-hand", steps=300, onset=230,
       about="the second file numbers the classes in another order"),
)
# fmt: on

PROGRAMS: tuple[Program, ...] = (*_HEALTHY, *_FAULTY)
