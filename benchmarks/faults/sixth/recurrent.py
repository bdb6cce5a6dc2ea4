"""Sixth programs with a recurrent network: constants of time, wrong places in a loop, functions that look alike."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import nn

from benchmarks.faults.planting import cosine
from benchmarks.faults.program import Program
from benchmarks.faults.second.recurrent_ways import track
from benchmarks.faults.sixth import recurrent_data as drawn
from benchmarks.faults.sixth import recurrent_models as models
from gradguard.detect import Symptom

S = Symptom
_P = partial(Program, through_time=True, steps=350)
_LSTM, _GRU = partial(nn.LSTM, batch_first=True), partial(nn.GRU, batch_first=True)
_RNN = partial(nn.RNN, batch_first=True)
_ADAM, _LESS, _SGD = (0.005, 0.01), (0.002, 0.004), (0.05, 0.1)


def _words(count: int, size: int = 16) -> dict[str, Any]:
    return {"front": partial(nn.Embedding, count, size), "inputs": size}


_CUES = partial(track, split=drawn.cues, width=32)
_LOCKS = partial(track, split=drawn.locks, width=32)
_TANKS = partial(track, split=drawn.tanks)
_CALLS = partial(track, body=_LSTM, width=32, loop={"optimizer": "adamw"})
_TAXIS = partial(track, body=_RNN, width=32, loop={"schedule": cosine(350)})
_REVIEWS = partial(track, split=drawn.reviews, body=_GRU, width=32, inputs=16)
_PILOT = partial(track, split=drawn.pilot, body=_GRU, width=32, inputs=32, loop={"optimizer": "momentum"},
                 front=lambda: nn.Sequential(nn.Linear(3, 32), nn.Tanh()))  # fmt: skip
_CHORDS = partial(track, split=drawn.chords, body=_LSTM, width=40, reading="every", loop={"optimizer": "adamw"},
                  **_words(12))  # fmt: skip
_TYPING = partial(track, split=drawn.typing, body=_GRU, width=32, reading="mean")
_CLICKS = partial(track, split=drawn.clicks, body=_GRU, width=40, loop={"optimizer": "adamw", "batch": 48},
                  **_words(40, 24))  # fmt: skip

# fmt: off
HEALTHY = (
    _P("rnn-cues", partial(_CUES, body=models.Continuous), _LESS),
    _P("gru-locks", partial(_LOCKS, body=models.Stepped), _ADAM),
    _P("relu-tanks", partial(_TANKS, body=models.Levels), _LESS, about="units without a bound, an identity at first"),
    _P("lstm-calls", partial(_CALLS, split=drawn.calls), _ADAM),
    _P("rnn-taxis", partial(_TAXIS, split=drawn.taxis), _ADAM),
    _P("lstm-load", models.forecast, _ADAM, about="a likelihood, which falls below 0"),
    _P("gru-speakers", models.speaker, _ADAM),
    _P("gru-reviews", partial(_REVIEWS, front=partial(models.Skimming, 70, 16)), _ADAM),
    _P("gru-pilot-sgd", partial(_PILOT, fill=models.orthogonal(1.0)), _SGD),
    _P("lstm-chords", _CHORDS, _ADAM, about="the loss rests at the chain's entropy"),
    _P("gru-typing", _TYPING, _ADAM),
    _P("gru-clicks", _CLICKS, _ADAM),
)

FAULTY = (
    _P("rnn-cues-in-seconds", partial(_CUES, body=partial(models.Continuous, constant=0.02)), _LESS,
       S.VANISHING_TIME, "rnn-cues", about="a time constant of 0.02 s, and steps in ms: nothing is kept"),
    _P("gru-locks-squashed", partial(_LOCKS, body=partial(models.Stepped, within=True)), _ADAM,
       S.VANISHING_TIME, "gru-locks", about="the sigmoid of the output got into the loop, and each step goes through"),
    _P("relu-tanks-root-of-width", partial(_TANKS, body=partial(models.Levels, scales=True)), _LESS,
       S.EXPLODING_TIME, "relu-tanks", about="times the root of the width, as embeddings of transformers, each step"),
    _P("lstm-calls-power", partial(_CALLS, split=partial(drawn.calls, power=True)), _ADAM, S.SATURATED_GATES,
       "lstm-calls", about="power_to_db got lost: power of a thousand to a million"),
    _P("rnn-taxis-utm", partial(_TAXIS, split=partial(drawn.taxis, grid=True)), _ADAM, S.SATURATED_UNITS,
       "rnn-taxis", about="eastings and northings in metres as they are, before units of tanh"),
    _P("lstm-load-relu", partial(models.forecast, bound=torch.relu), _ADAM, S.NON_FINITE, "lstm-load",
       about="relu in place of softplus: deviations of 0, by which is divided"),
    _P("gru-speakers-one-frame", partial(models.speaker, least=0.0), _ADAM, S.NON_FINITE, "gru-speakers",
       about="the deviation of a single frame: slope of a root at 0"),
    _P("gru-reviews-threshold", partial(_REVIEWS, front=partial(models.Skimming, 70, 16, hard=True)), _ADAM,
       S.NO_GRADIENT, "gru-reviews", about="(gate > 0.5).float(): no gradient for the gate, nor for words shut out"),
    _P("gru-pilot-gain-of-head", partial(_PILOT, fill=models.orthogonal(0.01)), _SGD, S.POOR_INITIALISATION,
       "gru-pilot-sgd", about="the gain of 0.01 that PPO has for the last layer, for all layers"),
    _P("lstm-chords-rate-of-adadelta", _CHORDS, (1.0, 2.0), S.UPDATE_TOO_LARGE, "lstm-chords",
       about="AdamW took the place of Adadelta and its rate of 1"),
    _P("gru-typing-decay", partial(_TYPING, loop={"schedule": models.decayed(1.0)}), _ADAM, S.SLOW_CONVERGENCE,
       "gru-typing", about="decay=1.0 for each epoch in a library that decays at each batch: the rate is gone at once"),
    _P("gru-clicks-epsilon", partial(_CLICKS, params=models.epsilon(1.0)), _ADAM, S.UPDATE_TOO_SMALL,
       "gru-clicks", about="eps=1.0, as the documentation proposes for Inception"),
)
# fmt: on

PROGRAMS: tuple[Program, ...] = (*HEALTHY, *FAULTY)
