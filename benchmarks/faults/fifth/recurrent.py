"""Fifth programs with a recurrent network: cells in loops of one's own, units of data, order of calls, copied code."""

from __future__ import annotations

from functools import partial
from typing import Any

from torch import nn

from benchmarks.faults.fifth import recurrent_data as drawn
from benchmarks.faults.fifth import recurrent_models as models
from benchmarks.faults.planting import cosine
from benchmarks.faults.program import Program
from benchmarks.faults.second.recurrent_ways import track, whole
from gradguard.detect import Symptom

S = Symptom
_P = partial(Program, through_time=True, steps=350)
_LSTM, _GRU = partial(nn.LSTM, batch_first=True), partial(nn.GRU, batch_first=True)
_RNN = partial(nn.RNN, batch_first=True)
_ADAM, _LESS, _SGD, _LARGE = (0.005, 0.01), (0.002, 0.004), (0.05, 0.1), (5.0, 10.0)


def _words(count: int, size: int = 16) -> dict[str, Any]:
    return {"front": partial(nn.Embedding, count, size), "inputs": size}


_HEADING = partial(track, split=drawn.heading)
_VISITS = partial(track, body=models.Euler, width=32)
_ASKED = partial(track, split=drawn.asked, loop={"schedule": cosine(350)})
_DECAYS = partial(track, body=_LSTM, width=32, loop={"optimizer": "adamw"})
_BUOYS = partial(track, body=_GRU)
_TRAFFIC = partial(track, body=_RNN, width=32)
_COMPLAINTS = partial(track, split=drawn.complaints, body=lambda i, w: _LSTM(i, w // 2, bidirectional=True),
                      reading="mean", width=32, **_words(50))  # fmt: skip
_PENDULUM = partial(track, split=drawn.pendulum, body=_GRU, width=32, reading="every")
_MARKUP = partial(track, split=drawn.markup, body=_LSTM, width=48, reading="every", **_words(32, 24))
_CODES = partial(track, split=drawn.bright, width=32)
_SALES = partial(track, split=drawn.sales, body=_LSTM, width=32)
_TIDES = partial(track, split=drawn.tides, body=_RNN, width=16,
                 loop={"optimizer": "momentum", "on_batch": whole(drawn.tides())})  # fmt: skip
_MOMENTUM = {"optimizer": "momentum", "loss": nn.functional.smooth_l1_loss}

# fmt: off
HEALTHY = (
    _P("rnn-heading", partial(_HEADING, body=models.Sluggish), _ADAM),
    _P("relu-visits", partial(_VISITS, split=drawn.visits), _LESS,
       about="Euler's steps without a bound, as long as the days between visits"),
    _P("lstm-asked", partial(_ASKED, body=models.Stepped), _ADAM,
       about="the first step tells what is to be done with the last"),
    _P("lstm-decays", partial(_DECAYS, split=drawn.decays), _ADAM),
    _P("gru-buoys", partial(_BUOYS, split=drawn.buoys), _ADAM),
    _P("rnn-traffic", partial(_TRAFFIC, split=drawn.traffic), _ADAM),
    _P("lstm-complaints", partial(_COMPLAINTS, fill=models.prior(lambda n: (n / n.sum()).log())), _ADAM, steps=300),
    _P("gru-gestures-remounted", models.remounted, _ADAM, about="all but an adapter of 48 weights is frozen"),
    _P("gru-pendulum-sgd", partial(_PENDULUM, loop=_MOMENTUM), _SGD),
    _P("lstm-markup-sgd", partial(_MARKUP, loop={"optimizer": "sgd", "on_gradients": models.clipped(0.25)}), _LARGE,
       about="rates of 5 and 10, and gradients clipped at a quarter, as in torch's example of a language model"),
    _P("gru-digits-codes", partial(_CODES, body=models.Codes), _ADAM),
    _P("lstm-sales", partial(_SALES, loop={"loss": models.relative(1.0)}), _ADAM),
    _P("gru-romans", models.number, _ADAM),
    _P("rnn-tides-whole", _TIDES, (0.05, 0.1), steps=400, about="whole batches, momentum"),
)

FAULTY = (
    _P("rnn-heading-no-sigmoid", partial(_HEADING, body=partial(models.Sluggish, bound=False)), _ADAM,
       S.EXPLODING_TIME, "rnn-heading", about="the sigmoid of what is kept got lost: states double at each step"),
    _P("relu-visits-in-hours", partial(_VISITS, split=partial(drawn.visits, hours=True)), _LESS, S.EXPLODING_TIME,
       "relu-visits", about="time in hours, where the solver takes days: steps of two and more"),
    _P("lstm-asked-state-twice", partial(_ASKED, body=partial(models.Stepped, twice=True)), _ADAM, S.VANISHING_TIME,
       "lstm-asked", about="cell(x, (h, h)) in place of (h, c): the memory is written anew from the output"),
    _P("lstm-decays-int16", partial(_DECAYS, split=partial(drawn.decays, integers=True)), _ADAM, S.SATURATED_GATES,
       "lstm-decays", about="samples of 16 bits as they are, not divided by 32,768"),
    _P("gru-buoys-sentinel", partial(_BUOYS, split=partial(drawn.buoys, filled=False)), _ADAM, S.SATURATED_GATES,
       "gru-buoys", about="-9999, which means that a value is missing, is read as a value"),
    _P("rnn-traffic-raw", partial(_TRAFFIC, split=partial(drawn.traffic, raw=True)), _ADAM, S.SATURATED_UNITS,
       "rnn-traffic", about="bytes as they are counted, millions of them, before units of tanh"),
    _P("lstm-complaints-counts", partial(_COMPLAINTS, fill=models.prior(lambda n: n)), _ADAM, S.POOR_INITIALISATION,
       "lstm-complaints", steps=300, about="the last biases are numbers of examples, not logarithms of shares"),
    _P("gru-gestures-remounted-blank", partial(models.remounted, blank=True), _ADAM, S.POOR_INITIALISATION,
       "gru-gestures-remounted", about="both layers of the adapter begin at zero, and neither has a gradient"),
    _P("gru-pendulum-unscaled", partial(_PENDULUM, loop={**_MOMENTUM, "on_gradients": models.scaled_up}), _SGD,
       S.UPDATE_TOO_LARGE, "gru-pendulum-sgd",
       about="scaler.scale(loss).backward(), then optimizer.step(): gradients times 65,536"),
    _P("gru-digits-codes-times-batch", partial(_CODES, body=models.Codes), (0.16, 0.32), S.UPDATE_TOO_LARGE,
       "gru-digits-codes", about="a rate scaled by the batch of 32, where by its share of a usual batch was meant"),
    _P("gru-digits-codes-argmax", partial(_CODES, body=partial(models.Codes, hard=True)), _ADAM, S.NO_GRADIENT,
       "gru-digits-codes", about="argmax between the two networks: the first gets no gradient"),
    _P("lstm-sales-mape", partial(_SALES, loop={"loss": models.relative(0.0)}), _ADAM, S.NON_FINITE, "lstm-sales",
       about="the error as a share of what was sold, which is nothing on Sundays"),
    _P("gru-romans-mode", partial(models.number, mode="max"), _ADAM, S.SLOW_CONVERGENCE, "gru-romans",
       about="ReduceLROnPlateau of a loss with mode='max': the rate falls to a hundredth as the loss falls"),
    _P("rnn-tides-momentum", partial(_TIDES, params=models.heavy(0.999)), (0.05, 0.1), S.OSCILLATING_LOSS,
       "rnn-tides-whole", steps=400, about="a momentum of 0.999 in place of 0.9: swings that don't die away"),
)
# fmt: on

PROGRAMS: tuple[Program, ...] = (*HEALTHY, *FAULTY)
