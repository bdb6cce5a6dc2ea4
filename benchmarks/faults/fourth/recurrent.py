"""Fourth programs with a recurrent network: units of measurement, states handed on by hand, starts and rates."""

from __future__ import annotations

from functools import partial
from typing import Any

from torch import nn

from benchmarks.faults.data import digits
from benchmarks.faults.fourth import recurrent_data as drawn
from benchmarks.faults.fourth import recurrent_models as models
from benchmarks.faults.planting import cosine
from benchmarks.faults.program import Program
from benchmarks.faults.second.recurrent_ways import track
from gradguard.detect import Symptom

S = Symptom
_P = partial(Program, through_time=True, steps=400)
_LSTM, _GRU = partial(nn.LSTM, batch_first=True), partial(nn.GRU, batch_first=True)
_RNN = partial(nn.RNN, batch_first=True)
_ADAM, _MORE, _LESS, _SGD = (0.005, 0.01), (0.01, 0.02), (0.002, 0.004), (0.1, 0.2)


def _words(count: int, size: int = 16) -> dict[str, Any]:
    return {"front": partial(nn.Embedding, count, size), "inputs": size}


def _daily(step: int) -> float:
    """Let the rate fall by a tenth at each epoch."""
    return 0.9 ** (step // 56)


def _burst(step: int) -> float:
    """Give a cosine's rates, and a mistyped one for five steps."""
    return 100.0 if 330 <= step < 335 else cosine(400)(step)


_WEATHER = partial(track, body=_GRU, loop={"schedule": cosine(400)})
_METERS = partial(track, body=partial(_LSTM, num_layers=2))
_STATIONS = partial(track, body=_LSTM, loop={"optimizer": "adamw"})
_DELAYED = partial(track, split=drawn.delayed, width=32)
_AGREEMENT = partial(track, split=drawn.agreement, width=32, **_words(24))
_REMEMBERING = partial(_AGREEMENT, body=_LSTM, fill=models.remembering)
_STRIPS = partial(track, body=partial(models.Dropped, nn.RNN), width=32, loop={"optimizer": "rmsprop"})
_LEVELS = partial(track, split=drawn.levels)
_PATHS = partial(track, split=drawn.paths, width=32)
_INTENTS = partial(track, split=drawn.intents, body=_LSTM, reading="packed", loop={"optimizer": "adamw"}, **_words(60))
_MOMENTUM = {"optimizer": "momentum"}
_KEYWORDS = partial(track, split=drawn.keywords, body=partial(_GRU, num_layers=2), loop=_MOMENTUM)
_LOG = partial(track, split=drawn.log_lines, body=_LSTM, width=40, reading="every", **_words(40))
_DEMAND = partial(track, split=drawn.demand, body=_GRU, inputs=1, loop={"on_batch": models.closed(200, 10)})
_BEATS = partial(track, body=_RNN, reading="mean", width=32)
_ACTIVITIES = partial(track, split=drawn.activities, body=_GRU, width=32)
_TAGGED = partial(track, split=drawn.tagged, body=lambda i, w: _LSTM(i, w // 2, bidirectional=True), reading="every",
                  **_words(48))  # fmt: skip

# fmt: off
HEALTHY = (
    _P("gru-weather", partial(_WEATHER, split=drawn.weather), _ADAM),
    _P("lstm-meters", partial(_METERS, split=drawn.meters), _ADAM, steps=350),
    _P("lstm-stations", partial(_STATIONS, split=drawn.stations), _ADAM, steps=300,
       about="three values in ten are missing, and zero, with a mask"),
    _P("relu-delayed-leaky", partial(_DELAYED, body=models.Leaky), _ADAM, steps=350,
       about="neurons that lose a tenth of their state at each of thirty moments, of which the first five count"),
    _P("lstm-agreement", _REMEMBERING, _ADAM, steps=450,
       about="the first of 44 words counts, and forget gates are open, by the logarithm of that: a plateau first"),
    _P("rnn-digits-strips", partial(_STRIPS, split=partial(digits, "rows")), _LESS, steps=300),
    _P("relu-levels", partial(_LEVELS, body=models.Decaying), _LESS, steps=350,
       about="states that grow, and decay by the time between events"),
    _P("relu-paths", partial(_PATHS, body=models.TwoBack), (0.001, 0.002), steps=350,
       about="units without a bound, an identity over 25 steps: large norms, which stay"),
    _P("lstm-intents", _INTENTS, _ADAM, steps=300),
    _P("gru-keywords-sgd", _KEYWORDS, _SGD, steps=320, about="two layers, momentum"),
    _P("lstm-log-lines", partial(_LOG, loop={"schedule": _daily}), _ADAM,
       about="times of day can't be foretold: the loss rests well above 0"),
    _P("gru-demand", partial(_DEMAND, front=models.Logarithm), _ADAM, steps=350),
    _P("rnn-heart-beats", partial(_BEATS, split=drawn.beats), _ADAM),
    _P("gru-activities", partial(_ACTIVITIES, loop={"schedule": cosine(400), "on_gradients": models.clipped}), _ADAM),
    _P("gru-dates", models.translate, _ADAM, steps=300),
    _P("lstm-kinds-of-words", _TAGGED, _ADAM, steps=300),
    _P("lstm-copying", partial(track, split=drawn.copies, body=_LSTM, width=48, reading="every", **_words(6)), _MORE,
       steps=500, about="most of the targets are blanks: a loss that is small before anything is remembered"),
)

FAULTY = (
    _P("gru-weather-raw", partial(_WEATHER, split=partial(drawn.weather, scaled=False)), _ADAM, S.SATURATED_GATES,
       "gru-weather", about="kelvins and pascals as they are measured"),
    _P("lstm-meters-readings", partial(_METERS, split=partial(drawn.meters, readings=True)), _ADAM, S.SATURATED_GATES,
       "lstm-meters", steps=350, about="what the meter reads, in millions, in place of what was used since"),
    _P("relu-delayed-swapped", partial(_DELAYED, body=partial(models.Leaky, kept=0.1, added=0.9)), _ADAM,
       S.VANISHING_TIME, "relu-delayed-leaky", steps=350, about="alpha and 1 - alpha swapped: a tenth is kept"),
    _P("rnn-agreement", partial(_AGREEMENT, body=_RNN), _ADAM, S.VANISHING_TIME, "lstm-agreement",
       steps=450, about="a plain nn.RNN where the LSTM was"),
    _P("rnn-digits-strips-by-pixel", partial(_STRIPS, split=partial(digits, "pixels")), _LESS, S.VANISHING_TIME,
       "rnn-digits-strips", steps=300, about="view(-1, 64, 1): a pixel at a step in place of a row"),
    _P("relu-levels-growing", partial(_LEVELS, body=partial(models.Decaying, sign=1.0)), _LESS, S.EXPLODING_TIME,
       "relu-levels", steps=350, about="the sign in the exponent of the decay: states grow between events"),
    _P("relu-paths-summed", partial(_PATHS, body=partial(models.TwoBack, share=1.0)), (0.001, 0.002), S.EXPLODING_TIME,
       "relu-paths", steps=350, about="the sum of the last two states, not their mean: Fibonacci's growth"),
    _P("relu-paths-residual", partial(_PATHS, body=partial(models.TwoBack, adds=True)), (0.001, 0.002),
       S.EXPLODING_TIME, "relu-paths", steps=350,
       about="a path around the cell, whose weights are an identity already: states double"),
    _P("lstm-intents-zeros", partial(_INTENTS, fill=models.zeros), _ADAM, S.POOR_INITIALISATION, "lstm-intents",
       steps=300, about="all parameters start at zero"),
    _P("gru-keywords-tiny", partial(_KEYWORDS, fill=models.tiny), _SGD, S.POOR_INITIALISATION, "gru-keywords-sgd",
       steps=320, about="normal_(std=1e-4) for all weights, and zeros for biases"),
    _P("gru-weather-fast", partial(_WEATHER, split=drawn.weather), (0.5, 1.0), S.UPDATE_TOO_LARGE, "gru-weather",
       about="learning rate times 100"),
    _P("gru-keywords-not-zeroed", partial(_KEYWORDS, loop={**_MOMENTUM, "forgets": True}), _SGD, S.UPDATE_TOO_LARGE,
       "gru-keywords-sgd", steps=320,
       about="zero_grad() is never called: gradients add up over the run"),
    _P("gru-demand-log-of-none", partial(_DEMAND, front=partial(models.Logarithm, 0.0)), _ADAM, S.NON_FINITE,
       "gru-demand", steps=350, onset=200, about="log in place of log1p, and a day on which nothing was sold"),
    _P("lstm-agreement-never-thawed", partial(_REMEMBERING, params=models.frozen), _ADAM, S.NO_GRADIENT,
       "lstm-agreement", steps=450, about="body and embedding frozen while the head warms up, and never thawed"),
    _P("gru-activities-burst", partial(_ACTIVITIES, loop={"schedule": _burst, "on_gradients": models.clipped}), _ADAM,
       S.LOSS_SPIKE, "gru-activities", onset=330, about="five steps at a hundred times the rate, late in a cosine"),
    _P("lstm-log-lines-decayed", partial(_LOG, loop={"schedule": lambda step: 0.9 ** step}), _ADAM, S.SLOW_CONVERGENCE,
       "lstm-log-lines", about="ExponentialLR told of each batch, not of each epoch: the rate is gone at once"),
    _P("rnn-heart-beats-counts", partial(_BEATS, split=partial(drawn.beats, counts=True)), _ADAM, S.SATURATED_UNITS,
       "rnn-heart-beats", about="counts of the converter about 2,048, before units of tanh"),
)
# fmt: on

PROGRAMS: tuple[Program, ...] = (*HEALTHY, *FAULTY)
