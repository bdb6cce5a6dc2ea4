"""Programs with a recurrent network: long memories and short ones, and what keeps a gradient from coming back."""

from __future__ import annotations

from functools import partial

from benchmarks.faults.data import digits
from benchmarks.faults.program import Program
from benchmarks.faults.recurrent_data import adding, lately, padded, recall, tags, votes
from benchmarks.faults.recurrent_loops import bumped, clipped, fading, gate, read, write
from benchmarks.faults.recurrent_models import RootLoss, SharpenedLoss
from gradguard.detect import Symptom
from gradguard.init import chrono_, forget_gate_, orthogonal_

_P = partial(Program, through_time=True, steps=500)
_LOW, _USUAL, _HIGH = (0.001, 0.003), (0.003, 0.01), (0.01, 0.02)

_ROTATED = {gain: partial(orthogonal_, gain=gain) for gain in (0.1, 0.7, 1.0, 2.0, 3.0, 4.0)}
_LONG_LIVED = partial(chrono_, t_max=50)
_KEEPING = partial(forget_gate_, value=2.0)

_GRU, _RNN, _RELU = partial(read, kind="gru"), partial(read, kind="rnn"), partial(read, kind="relu")
_GENTLE = partial(read, loop={"optimizer": "momentum"})
_RECALL = partial(read, split=partial(recall, 20), fill=_KEEPING)
_LONG = partial(read, split=partial(recall, 50), fill=_LONG_LIVED)
_PLAIN = partial(_RNN, split=partial(recall, 25), fill=_ROTATED[1.0])
_ADDING = partial(read, split=partial(adding, 30), fill=forget_gate_)
_VOTES = partial(_GRU, split=votes)
_TAGS = partial(read, split=tags, every=True, embeds=True, bidirectional=True)
_PIXELS = partial(read, split=partial(digits, "pixels"), hidden=32, fill=forget_gate_)
_PIXELS_RELU = partial(_PIXELS, kind="relu", fill=_ROTATED[1.0])
_LENGTHS = partial(read, split=partial(padded, 24), packs=True, fill=_KEEPING)
_LAYERS = partial(read, num_layers=2, dropout=0.3, loop={"schedule": fading(500)})
_CLIPPED = partial(_VOTES, batch=16, loop={"accumulate": 2, "on_gradients": clipped})
_BRIGHT = bumped(lambda x, y: (1000 * x, y))
_MOVED = bumped(lambda x, y: (x, y.roll(1, 1)))

_HEALTHY = (
    _P("lstm-digits", read, _USUAL, about="a plain one: its forget gates start half shut, which eight steps bear"),
    _P("lstm-digits-sgd", _GENTLE, (0.1, 0.3), about="a learning rate that looks large, of plain momentum"),
    _P("lstm-layers", _LAYERS, _USUAL, about="two layers with dropout, and a learning rate that ends at 0"),
    _P("gru-digits", _GRU, _LOW, about="a plain one"),
    _P("rnn-digits", _RNN, _USUAL, about="torch's own weights, of radius 0.6: enough for eight steps"),
    _P("relu-digits", partial(_RELU, fill=_ROTATED[1.0]), _USUAL, about="units without a bound"),
    _P(
        "norm-digits",
        partial(read, kind="norm"),
        _USUAL,
        steps=250,
        about="norms make gradients larger than weights say",
    ),
    _P(
        "ind-digits",
        partial(read, kind="ind", length=8),
        _USUAL,
        about="recurrent weights at their bound from the start",
    ),
    _P("lstm-pixels", _PIXELS, (0.005, 0.02), steps=400, about="64 steps, learnt slowly, with a gradient that fades"),
    _P("relu-pixels", _PIXELS_RELU, (0.0005, 0.002), steps=400, about="64 steps without a bound; the loss jumps"),
    _P("lstm-recall", _RECALL, _HIGH, about="nothing is learnt for a hundred steps"),
    _P("lstm-recall-long", _LONG, (0.005, 0.01), about="forget gates are open and input gates shut, by chrono"),
    _P("rnn-recall", _PLAIN, _LOW, about="the first of 25 steps alone counts"),
    _P("lstm-adding", _ADDING, _HIGH, about="a long plateau at the variance"),
    _P("gru-votes", _VOTES, _USUAL, about="every step counts alike; ties are decided by a hair"),
    _P("gru-votes-clipped", _CLIPPED, _USUAL, steps=300, about="two batches a step, each clipped at 1 by the loop"),
    _P("lstm-tags", _TAGS, _USUAL, about="both directions, a loss at each step, no more than the neighbours needed"),
    _P("lstm-text", write, (0.01, 0.03), about="the loss rests at the chain's entropy, far from 0"),
    _P("lstm-lengths", _LENGTHS, _HIGH, steps=250, about="packed: 8 to 24 steps"),
    _P(
        "lstm-lately",
        partial(read, split=partial(lately, 60)),
        (0.005, 0.01),
        about="60 steps, of which the last 5 count",
    ),
)

_FAULTY = (
    _P(
        "rnn-recall-small-weights",
        partial(_PLAIN, fill=_ROTATED[0.1]),
        _LOW,
        Symptom.VANISHING_TIME,
        "rnn-recall",
        about="recurrent weights times 0.1",
    ),
    _P(
        "rnn-recall-long",
        partial(_LONG, kind="rnn", fill=None),
        (0.005, 0.01),
        Symptom.VANISHING_TIME,
        "lstm-recall-long",
        about="a tanh RNN of torch's weights in place of the LSTM",
    ),
    _P(
        "lstm-recall-forgets",
        partial(_LONG, fill=gate(1, -1.5)),
        (0.005, 0.01),
        Symptom.VANISHING_TIME,
        "lstm-recall-long",
        about="forget gates keep a fifth, by a bias of -1.5",
    ),
    _P(
        "rnn-adding",
        partial(_ADDING, kind="rnn", fill=_ROTATED[0.7]),
        _HIGH,
        Symptom.VANISHING_TIME,
        "lstm-adding",
        about="a tanh RNN, recurrent weights 0.7 times a rotation, in place of the LSTM",
    ),
    _P(
        "rnn-recall-large-weights",
        partial(_PLAIN, fill=_ROTATED[3.0]),
        _LOW,
        Symptom.EXPLODING_TIME,
        "rnn-recall",
        about="recurrent weights times 3: chaos",
    ),
    _P(
        "relu-pixels-large-weights",
        partial(_PIXELS_RELU, fill=_ROTATED[2.0]),
        (0.0005, 0.002),
        Symptom.EXPLODING_TIME,
        "relu-pixels",
        steps=400,
        about="recurrent weights times 2",
    ),
    _P(
        "relu-digits-large-weights",
        partial(_RELU, fill=_ROTATED[4.0]),
        _USUAL,
        Symptom.EXPLODING_TIME,
        "relu-digits",
        about="recurrent weights times 4, over eight steps",
    ),
    _P(
        "lstm-recall-shut",
        partial(_RECALL, fill=gate(1, -6)),
        _HIGH,
        Symptom.SATURATED_GATES,
        "lstm-recall",
        about="forget gates shut by a bias of -6",
    ),
    _P(
        "lstm-digits-shut",
        partial(_GENTLE, fill=gate(3, -8)),
        (0.1, 0.3),
        Symptom.SATURATED_GATES,
        "lstm-digits-sgd",
        about="output gates shut by a bias of -8",
    ),
    _P(
        "lstm-pixels-unscaled",
        partial(_PIXELS, scale=200.0),
        (0.005, 0.02),
        Symptom.SATURATED_GATES,
        "lstm-pixels",
        steps=400,
        about="inputs times 200",
    ),
    _P(
        "gru-digits-shut",
        partial(_GRU, fill=gate(1, 15.0)),
        _LOW,
        Symptom.SATURATED_GATES,
        "gru-digits",
        about="keeping gates wide open by a bias of 15, so that nothing comes in",
    ),
    _P("lstm-digits-fast", read, (0.3, 1.0), Symptom.UPDATE_TOO_LARGE, "lstm-digits", about="learning rate times 100"),
    _P("gru-votes-fast", _VOTES, (0.3, 1.0), Symptom.UPDATE_TOO_LARGE, "gru-votes", about="learning rate times 100"),
    _P(
        "lstm-text-slow",
        write,
        (0.01 / 300, 0.03 / 300),
        Symptom.SLOW_CONVERGENCE,
        "lstm-text",
        about="learning rate by 300",
    ),
    _P(
        "gru-digits-slow",
        _GRU,
        (0.001 / 300, 0.003 / 300),
        Symptom.SLOW_CONVERGENCE,
        "gru-digits",
        about="learning rate by 300",
    ),
    _P(
        "lstm-tags-root",
        partial(_TAGS, loss=RootLoss),
        _USUAL,
        Symptom.NON_FINITE,
        "lstm-tags",
        about="slope of a root at 0: biases that start there",
    ),
    _P(
        "rnn-digits-sharpened",
        partial(_RNN, loss=SharpenedLoss),
        _USUAL,
        Symptom.NON_FINITE,
        "rnn-digits",
        onset=300,
        about="log of a softmax that comes to 0 as the temperature falls",
    ),
    _P(
        "lstm-recall-detached",
        partial(_LONG, detaches=True),
        (0.005, 0.01),
        Symptom.NO_GRADIENT,
        "lstm-recall-long",
        about="the last state detached from the loss",
    ),
    _P(
        "lstm-tags-detached",
        partial(_TAGS, detaches=True),
        _USUAL,
        Symptom.NO_GRADIENT,
        "lstm-tags",
        about="all states detached from the loss",
    ),
    _P(
        "lstm-digits-bumped",
        partial(read, loop=_BRIGHT),
        _USUAL,
        Symptom.LOSS_SPIKE,
        "lstm-digits",
        onset=375,
        about="four batches of inputs times 1,000, at 200 times the learning rate",
    ),
    _P(
        "lstm-text-bumped",
        partial(write, loop=_MOVED),
        (0.01, 0.03),
        Symptom.LOSS_SPIKE,
        "lstm-text",
        onset=375,
        about="four batches with targets that are one step late, at 200 times the learning rate",
    ),
)

PROGRAMS: tuple[Program, ...] = (*_HEALTHY, *_FAULTY)
