"""How open the gates of every module were equals statistics in NumPy of the papers' formulas."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations

from gradguard import nn as gnn
from gradguard.probe import GateStatistics, gates
from gradguard.probe.gates import values_of
from tests.contracts.recurrent import IN_TRAINING
from tests.probe.calls import CASES, DRAWN_BY_TORCH, KINDS, OF_TORCH, OPTIONS, called, meant
from tests.probe.opened import Row, opened
from tests.probe.unrolled import Layer

DRAWN = {"dropout, packed": DRAWN_BY_TORCH["dropout, packed"]}
FIXED = {name: CASES[name] for name in ("both directions, packed", "unbatched", "batch first, no biases", "projected")}
OF_OURS = {name: OPTIONS[name] for name in ("zoneout", "zoneout in evaluation", "all of them")}
EVEN = {name: CASES[name] for name in ("dropout", "stacked, last output")}  # of which all have statistics to the end
TANH = {"g", "n", "h"}
OF_TORCHS = {nn.LSTM: "lstm", nn.GRU: "gru", nn.RNN: "rnn"}


def has_gates(kind: str) -> bool:
    return "ReLU" not in kind and kind != "IndRNN"


def pairs(fixed: bool) -> list[tuple[str, str]]:
    found = []
    for kind in filter(has_gates, KINDS):
        cases = FIXED if fixed else DRAWN if kind in OF_TORCH else OF_OURS
        if kind in IN_TRAINING:
            cases = {name: case for name, case in EVEN.items() if fixed == (name != "dropout")}
        elif fixed and kind not in (*OF_TORCH, "LSTM"):
            cases = {name: cases[name] for name in list(cases)[:2]}
        found += [(kind, name) for name, case in cases.items() if meant(kind, case)]
    return found


def values(module: Any, layer: Layer) -> np.ndarray:
    """The gates of a layer at all steps of all sequences, [N, G, H]."""
    settings = getattr(module, "recurrence", None)
    cell = OF_TORCHS[type(module)] if settings is None else settings.name
    params = {name: param.detach().numpy() for name, param in layer.params.items()}
    found = []
    for step in layer.steps:
        x, h, *states = (t.detach().numpy() for t in step.into)
        cells = [
            (states[1][i], step.fresh[1][i].detach().numpy()) if len(states) > 1 else (None, None)
            for i in range(len(x))
        ]
        rows = [Row(x[i], h[i], *cells[i]) for i in range(len(x))]
        found.append(opened(cell, settings, params, rows, step.number))
    return np.concatenate(found)


def same(found: Sequence[GateStatistics], names: Sequence[str], right: np.ndarray) -> None:
    assert [one.gate for one in found] == list(names)
    for i, one in enumerate(found):
        v, tanh = right[:, i], one.gate in TANH
        slope, most, middle = (1 - v * v, 1.0, 0.0) if tanh else (v * (1 - v), 0.25, 0.5)
        saturated = slope < 0.1 * most
        expected = {
            "mean": v.mean(0),
            "spread": np.sqrt(((v - v.mean(0)) ** 2).mean(0)),
            "shut": (saturated & (v < middle)).mean(0),
            "open": (saturated & (v > middle)).mean(0),
            "histogram": np.histogram(v, bins=20, range=(-1.0 if tanh else 0.0, 1.0))[0] / v.size,
        }
        for name, numbers in expected.items():
            assert getattr(one, name).dtype == torch.float64
            np.testing.assert_allclose(getattr(one, name).numpy(), numbers, rtol=1e-10, atol=1e-11, err_msg=name)
        assert one.saturated == pytest.approx(saturated.mean())


@pytest.mark.parametrize(("kind", "case"), pairs(fixed=False), ids=map(str, pairs(fixed=False)))
def test_the_gates_of_a_training_step_equal_the_formulas(kind: str, case: str) -> None:
    call = called(kind, (CASES | DRAWN_BY_TORCH | OPTIONS)[case])
    for profile, layer in zip(call.profiles, call.unrolled.layers, strict=True):
        same(profile.gates, layer.gates, values(call.heard.module, layer))
        cells = [step.carried[1].detach().abs() for step in layer.steps if len(step.carried) > 1]
        share = float((torch.cat(cells) > math.atanh(math.sqrt(0.9))).double().mean()) if cells else math.nan
        assert profile.saturated_cells == pytest.approx(share, nan_ok=True)


@pytest.mark.parametrize(("kind", "case"), pairs(fixed=True), ids=map(str, pairs(fixed=True)))
def test_the_gates_of_a_call_equal_the_formulas_in_every_form(kind: str, case: str) -> None:
    call = called(kind, (CASES | OPTIONS)[case])
    x, module = call.heard.input, call.heard.module
    for given in ((x, call.hx), (x, call.hx, call.output)):
        found = gates(module, *given)
        assert list(found) == [layer.name for layer in call.unrolled.layers]
        for layer in call.unrolled.layers:
            same(found[layer.name], layer.gates, values(module, layer))


def test_gates_saturate_at_both_ends() -> None:
    """With weights of 1 and inputs that drive the sums far out, by the thresholds of a tenth of the largest slope."""
    lstm = nn.LSTM(1, 1, bias=False, dtype=torch.float64)
    with torch.no_grad():
        lstm.weight_ih_l0.fill_(1.0)
        lstm.weight_hh_l0.zero_()
    edge = math.log((1 + math.sqrt(0.9)) / (1 - math.sqrt(0.9)))  # where a sigmoid's slope is a tenth of its largest
    x = torch.tensor([-edge - 1e-6, -edge + 1e-6, edge - 1e-6, edge + 1e-6], dtype=torch.float64)[:, None]
    i, _, g, _ = gates(lstm, x)["l0"]
    assert (i.shut.item(), i.open.item(), i.saturated) == (0.25, 0.25, 0.5)
    assert (g.shut.item(), g.open.item()) == (0.5, 0.5)  # the slope of a tanh falls twice as fast
    assert i.histogram.tolist() == [0.5] + 18 * [0.0] + [0.5]
    assert str(i) == "i: mean 0.500, spread 0.474, saturated 50.0% (shut 25.0%, open 25.0%)"


def test_the_output_saves_a_pass_and_is_believed() -> None:
    lstm, x = nn.LSTM(3, 4), torch.randn(5, 2, 3)
    output, _ = lstm(x)
    assert not torch.equal(gates(lstm, x, output=-output)["l0"][0].mean, gates(lstm, x)["l0"][0].mean)


def test_a_share_of_the_rows_is_summed_up_where_that_is_asked() -> None:
    rows = torch.rand(103, 2, 3, dtype=torch.float64)
    assert torch.equal(values_of(rows, ("i", "f"), most=10), values_of(rows[::10], ("i", "f")))


def test_a_network_with_relu_has_no_gates() -> None:
    assert gates(nn.RNN(3, 4, nonlinearity="relu"), torch.randn(5, 2, 3)) == {}
    assert gates(gnn.IndRNN(3, 4, length=5), torch.randn(5, 2, 3)) == {}


@pytest.mark.parametrize("kind", [nn.GRU, gnn.LSTM, gnn.BatchNormLSTM])
def test_nothing_is_changed(kind: Any) -> None:
    options = (
        {} if kind is nn.GRU else {"zoneout": 0.3, "variational_dropout": 0.3, "weight_dropout": 0.3, "dropout": 0.3}
    )
    module, x = kind(3, 4, 2, **options), torch.randn(5, 2, 3)
    parametrizations.spectral_norm(module, "weight_hh_l0")
    module(x)
    state, rng, attributes = copy.deepcopy(module.state_dict()), torch.get_rng_state(), set(vars(module))
    gates(module, x)
    assert torch.equal(torch.get_rng_state(), rng)
    assert all(torch.equal(state[name], value) for name, value in module.state_dict().items())
    assert set(vars(module)) == attributes
    assert module.training
    assert all(p.grad is None for p in module.parameters())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("kind", [nn.RNN, nn.LSTM, gnn.RNN, gnn.GRU])
def test_gates_of_narrow_modules_come_close(kind: Any, dtype: torch.dtype) -> None:
    module, x = kind(3, 4).to(dtype), torch.randn(5, 2, 3).to(dtype)
    right = gates(copy.deepcopy(module).double(), x.double())["l0"]
    for one, of in zip(gates(module, x)["l0"], right, strict=True):
        torch.testing.assert_close(one.mean, of.mean, rtol=0, atol=1e-6 if dtype == torch.float32 else 2e-2)


X = torch.randn(5, 2, 3)
BAD = {
    "Linear": (lambda: gates(nn.Linear(3, 4), X), TypeError, r"gates needs a recurrent module .* got Linear. Pass"),
    "a model": (lambda: gates(nn.Sequential(nn.LSTM(3, 4)), X), TypeError, "got Sequential. Pass the layer itself"),
    "a cell": (lambda: gates(nn.LSTMCell(3, 4), X[0]), TypeError, "got LSTMCell"),
    "dropout": (lambda: gates(nn.GRU(3, 4, 2, dropout=0.1), X), ValueError, "the dropout between .* module.eval()"),
    "T = 0": (lambda: gates(gnn.GRU(3, 4), X[:0]), ValueError, "needs a sequence with a step, got none"),
    "B = 0": (lambda: gates(nn.GRU(3, 4), X[:, :0]), ValueError, "needs a sequence with a step, got none"),
    "width": (lambda: gates(gnn.GRU(2, 4), X), RuntimeError, "Expected 2, got 3"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input(case: str) -> None:
    call, error, message = BAD[case]
    with pytest.raises(error, match=message):
        call()
