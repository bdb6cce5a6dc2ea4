"""Newer programs with a recurrent network: pasts that count and pasts that don't, and how users lose them."""

from __future__ import annotations

from functools import partial

from torch import nn

from benchmarks.faults.planting import cosine
from benchmarks.faults.program import Program
from benchmarks.faults.recurrent_data import recall
from benchmarks.faults.second import recurrent_tasks as tasks
from benchmarks.faults.second.recurrent_nets import Across, Residual, gate, identity, opened, recurrent
from benchmarks.faults.second.recurrent_ways import (
    averaged,
    emptied,
    in_cents,
    longer,
    smoothed,
    summed,
    track,
    translate,
    tuned,
    whole,
    write,
)
from gradguard import nn as gnn
from gradguard.detect import Symptom
from gradguard.init import chrono_, forget_gate_, orthogonal_

_P = partial(Program, through_time=True, steps=400)
_LOW, _HIGH = (0.003, 0.006), (0.01, 0.02)
_MOMENTUM = {"optimizer": "momentum"}
_LSTM, _RNN = partial(nn.LSTM, batch_first=True), partial(nn.RNN, batch_first=True)
_RELU, _GRU = partial(_RNN, nonlinearity="relu"), partial(gnn.GRU, batch_first=True)
_JANET = partial(gnn.JANET, batch_first=True)
_IND = partial(gnn.IndRNN, batch_first=True, num_layers=2)


def _norms(inputs: int, width: int) -> nn.Module:
    return Residual([gnn.LayerNormGRU(width, width, batch_first=True) for _ in range(2)], width)


def _frozen(model: nn.Module) -> None:
    orthogonal_(model, gain=0.9)
    model.get_submodule("body").requires_grad_(requires_grad=False)


_LETTERS = partial(nn.Embedding, tasks.LETTERS + 1, 12, padding_idx=0)
_SYMBOLS = partial(nn.Embedding, 20, 16, padding_idx=0)

_NAMES = partial(track, split=partial(tasks.names, 60), body=_LSTM, front=_LETTERS, inputs=12, reading="packed")
_NAMES_RELU = partial(_NAMES, body=_RELU, fill=identity(1.0))
_MARKED = partial(track, split=partial(tasks.marked, 40), body=_RELU, width=32, fill=identity(1.0))
_MARKED_LONG = partial(track, split=partial(tasks.marked, 70), body=_LSTM, fill=partial(chrono_, t_max=70))
_MARKED_GRU = partial(track, split=partial(tasks.marked, 50), body=_GRU, fill=partial(chrono_, t_max=50))
_MARKED_IND = partial(track, split=partial(tasks.marked, 40), body=partial(_IND, length=40))
_PRICES = partial(track, split=partial(tasks.prices, 40), body=_LSTM, loop=_MOMENTUM)
_SWITCHES = partial(track, split=partial(tasks.switches, 40), body=partial(_JANET, forget_bias=2.0), reading="every")
_TEXTS = partial(tasks.spotted, 60)
_SPOTTED = partial(track, split=_TEXTS, body=_LSTM, front=_SYMBOLS, inputs=16, loop={"on_batch": emptied(230)})
_ECHO = partial(track, split=partial(tasks.echo, 30), body=_LSTM, reading="every", width=32, loop=_MOMENTUM)
_WHOLE = {"on_batch": whole(tasks.orbits(20)), "optimizer": "sgd", "loss": nn.functional.smooth_l1_loss}
_ORBITS = partial(track, split=partial(tasks.orbits, 20), body=_RNN, width=16, loop=_WHOLE)
_RESERVOIR = partial(track, split=partial(tasks.prices, 30), body=_RNN, width=64, fill=_frozen)
_GROWING = partial(
    track, split=partial(recall, 40), body=_LSTM, fill=forget_gate_, loop={"on_batch": longer(5, 40, 500)}
)
_TONES = partial(
    track,
    split=partial(tasks.tones, 64),
    front=partial(Across, 1, 24, 8),
    inputs=24,
    body=_norms,
    loop={"optimizer": "adamw", "loss": smoothed, "schedule": cosine(200, 50)},
)
_TUNED = partial(tuned, split=partial(tasks.order, 24), before=partial(tasks.order, 12), body=_GRU)
_AVERAGED = partial(averaged, split=partial(tasks.prices, 15), body=_GRU)

# fmt: off
_HEALTHY = (
    _P("lstm-names-packed", _NAMES, _HIGH, about="a plain one: letters of names, packed"),
    _P("relu-names-packed", _NAMES_RELU, (0.005, 0.01), about="recurrent weights that are an identity: no bound"),
    _P("relu-marked", _MARKED, (0.001, 0.002), steps=500,
       about="forty steps without a bound or a gate; a plateau first"),
    _P("lstm-marked-long", _MARKED_LONG, _HIGH, steps=500, about="nothing is learnt until 70 steps are bridged"),
    _P("gru-marked", _MARKED_GRU, _HIGH, about="the gates that keep are nearly open, as fifty steps need it"),
    _P("ind-marked", _MARKED_IND, _LOW, about="two layers with recurrent weights at their bound"),
    _P("lstm-prices", _PRICES, (0.03, 0.06), about="forty steps, of which two count: the gradient fades, as it should"),
    _P("rnn-prices-long", partial(_PRICES, split=partial(tasks.prices, 80), body=_RNN, width=16, loop={}), _LOW,
       about="a gradient that is nothing after eighty steps, and a past that tells nothing"),
    _P("gru-prices-averaged", _AVERAGED, (0.005, 0.01),
       about="judged by a running mean of the weights; the loss rests at the noise"),
    _P("rnn-reservoir", _RESERVOIR, _HIGH, about="recurrent weights frozen on purpose: the last layer alone learns"),
    _P("janet-switches", _SWITCHES, (0.005, 0.01), about="gates at their ends, by turns: a memory of two bits"),
    _P("lstm-mirrored", translate, (0.005, 0.01), steps=500,
       about="all that gets to the encoder comes through one state"),
    _P("lstm-spotted", partial(_SPOTTED, reading="mean"), (0.005, 0.01), steps=350,
       about="a mean over sixty steps: the last state may forget the first; one text in a batch is empty"),
    _P("lstm-spotted-attention", partial(_SPOTTED, reading="attention", loop={}), (0.005, 0.01), steps=300,
       about="attention on a few of sixty steps: gradients of the others are tiny"),
    _P("lstm-text-carried", write, (0.005, 0.01), steps=600,
       about="states handed on without a gradient, tied weights, and a loss that rests at the entropy"),
    _P("lstm-echo-sgd", _ECHO, (0.5, 1.0), steps=500,
       about="a learning rate that looks huge; a tenth of the targets is noise"),
    _P("rnn-orbits-whole", _ORBITS, (0.2, 0.3), about="whole batches, plain descent, a loss that falls by 1,000"),
    _P("lstm-recall-curriculum", _GROWING, (0.005, 0.01), steps=600,
       about="sequences that grow from 5 to 40 steps: the loss rises at times"),
    _P("norm-tones", _TONES, _LOW, steps=200,
       about="norms, paths around, a long warm-up, and smoothed labels: a high loss"),
    _P("gru-order-tuned", _TUNED, _HIGH, steps=250,
       about="a body that was trained before, at a hundredth of the rate: it hardly moves"),
)

_FAULTY = (
    _P("lstm-names-padded", partial(_NAMES, reading="last"), _HIGH, Symptom.VANISHING_TIME, "lstm-names-packed",
       about="read after fifty steps of padding, rather than packed"),
    _P("gru-marked-overwriting", partial(_MARKED_GRU, fill=gate(1, 3, -2.0)), _HIGH, Symptom.VANISHING_TIME,
       "gru-marked", about="the sign of the gate's bias: it keeps an eighth"),
    _P("ind-marked-forgetting", partial(_MARKED_IND, fill=recurrent(lambda u: u.fill_(0.5))), _LOW,
       Symptom.VANISHING_TIME, "ind-marked", about="all recurrent weights 0.5"),
    _P("relu-marked-halved", partial(_MARKED, fill=identity(0.5)), (0.001, 0.002), Symptom.VANISHING_TIME,
       "relu-marked", steps=500, about="half an identity"),
    _P("lstm-marked-default", partial(_MARKED_LONG, fill=None), _HIGH, Symptom.VANISHING_TIME, "lstm-marked-long",
       steps=500, about="torch's own biases, which keep a half, over seventy steps"),
    _P("relu-marked-normal", partial(_MARKED, fill=recurrent(lambda w: w.normal_(std=0.4))), (0.001, 0.002),
       Symptom.EXPLODING_TIME, "relu-marked", steps=500, about="recurrent weights of a normal distribution, by hand"),
    _P("ind-marked-unbound", partial(_MARKED_IND, body=partial(_IND, length=2)), _LOW,
       Symptom.EXPLODING_TIME, "ind-marked", about="the bound is that of sequences of two steps"),
    _P("relu-names-positive", partial(_NAMES_RELU, fill=recurrent(lambda w: w.uniform_())), (0.005, 0.01),
       Symptom.EXPLODING_TIME, "relu-names-packed", about="torch.rand for the recurrent weights: all above 0"),
    _P("lstm-prices-stamped", partial(_PRICES, split=partial(tasks.prices, 40, stamped=True)), (0.03, 0.06),
       Symptom.SATURATED_GATES, "lstm-prices", about="the time in seconds as it is, in millions"),
    _P("lstm-echo-opened", partial(_ECHO, fill=opened), (0.5, 1.0), Symptom.SATURATED_GATES, "lstm-echo-sgd", steps=500,
       about="all biases 5, where those of forget gates were meant: all gates open"),
    _P("janet-switches-stuck", partial(_SWITCHES, body=partial(_JANET, forget_bias=12.0)), (0.005, 0.01),
       Symptom.SATURATED_GATES, "janet-switches", about="a bias of 12: nothing is forgotten, and nothing comes in"),
    _P("lstm-names-ordinals", partial(_NAMES, split=partial(tasks.names, 60, ordinals=True), front=None, inputs=1),
       _HIGH, Symptom.SATURATED_GATES,
       "lstm-names-packed", about="ord() of each letter, 97 to 122, in place of an embedding"),
    _P("lstm-echo-summed", partial(_ECHO, loop={**_MOMENTUM, "loss": summed}), (0.5, 1.0),
       Symptom.UPDATE_TOO_LARGE, "lstm-echo-sgd", steps=500,
       about="losses added up rather than averaged: steps times 960"),
    _P("rnn-orbits-swinging", _ORBITS, (1.6, 2.4), Symptom.OSCILLATING_LOSS, "rnn-orbits-whole",
       about="learning rate times 8: each step of the whole batch overshoots, to and fro"),
    _P("lstm-text-warming", partial(write, warmup=60_000), (0.005, 0.01), Symptom.SLOW_CONVERGENCE, "lstm-text-carried",
       steps=600, about="a warm-up of 60,000 steps in a run of 600"),
    _P("lstm-mirrored-no-grad", partial(translate, encodes_without_gradient=True), (0.005, 0.01), Symptom.NO_GRADIENT,
       "lstm-mirrored", steps=500, about="the encoder runs below no_grad"),
    _P("lstm-spotted-divided", partial(_SPOTTED, reading="mean", unsafe=True), (0.005, 0.01), Symptom.NON_FINITE,
       "lstm-spotted", steps=350, onset=230, about="a mean over an empty text: nothing by nothing"),
    _P("lstm-prices-in-cents", partial(_PRICES, loop={**_MOMENTUM, "on_batch": in_cents(340, 345)}), (0.03, 0.06),
       Symptom.LOSS_SPIKE, "lstm-prices", onset=340, about="six batches with targets in another unit, times 100"),
)
# fmt: on

PROGRAMS: tuple[Program, ...] = (*_HEALTHY, *_FAULTY)
