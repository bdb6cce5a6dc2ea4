"""What describe says of weights: numbers against numpy, and what looks wrong where something is."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from gradguard import init
from gradguard import nn as gnn
from tests.init.modules import RECURRENT, Tagger, is_as_before, values
from tests.init.oracle import gate_rows, suffixes, total


def named(found: init.Description, name: str) -> init.Weights:
    return next(row for row in found if row.name == name)


@pytest.mark.parametrize("kind", ["LSTM", "gnn.LayerNormLSTM", "GRU", "RNN", "LSTMCell"])
def test_numbers_of_every_gates_block(kind: str) -> None:
    module = RECURRENT[kind]()
    before, found = values(module), init.describe(module)
    for layer, suffix in enumerate(suffixes(module)):
        rows = gate_rows(module, layer)
        for gate, each in rows.items():
            label = f"[{gate}]" if len(rows) > 1 else ""
            for short in ("weight_ih", "weight_hh"):
                block = getattr(module, short + suffix).detach().double().numpy()[each]
                row = named(found, short + suffix + label)
                values_of = np.linalg.svd(block, compute_uv=False)
                assert (row.least, row.most) == pytest.approx((values_of[-1], values_of[0]))
                assert row.std == pytest.approx(block.std())
                assert row.bias_total == pytest.approx(total(module, layer, gate).mean().item(), rel=1e-5)
                if short == "weight_hh":
                    assert row.radius == pytest.approx(np.abs(np.linalg.eigvals(block)).max())
    assert is_as_before(module, before)


def test_gains_against_what_follows() -> None:
    net = nn.Sequential(
        nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 64), nn.BatchNorm1d(64), nn.Tanh(), nn.Linear(64, 9)
    )
    x = torch.randn(8, 64)
    first, second, last = init.describe(net, x)
    rms = net[0].weight.detach().square().mean().sqrt().item()
    assert first.gain == pytest.approx(rms * 8.0)
    assert (first.follows.name, second.follows.name, last.follows.name) == ("relu", "tanh", "linear")
    assert first.remarks == (f"the signal shrinks to {first.gain / 2**0.5:.2g} of its size: for_activations_",)
    assert second.remarks == ()  # a norm makes up for it
    init.for_activations_(net, x)
    found = init.describe(net, x)
    assert found[0].gain == pytest.approx(2**0.5, rel=0.05)
    assert found.wrong == ()
    with torch.no_grad():
        net[0].weight.mul_(10)
    assert "the signal grows to" in init.describe(net, x)[0].remarks[0]
    assert init.describe(net)[0].follows is None


def lstm(bias: bool = True) -> nn.LSTM:
    return nn.LSTM(4, 32, bias=bias)


def both_one() -> nn.Module:
    module = lstm()
    with torch.no_grad():
        for bias in (module.bias_ih_l0, module.bias_hh_l0):
            bias[gate_rows(module, 0)["f"]] = 1.0
    return module


def filled(value: float) -> nn.Module:
    module = nn.RNN(4, 8)
    nn.init.constant_(module.weight_hh_l0, value)
    return module


def stacked() -> nn.Module:
    module = gnn.LSTM(4, 32)
    nn.init.orthogonal_(module.weight_hh_l0)
    return module


def scaled(value: float) -> nn.Module:
    module = nn.RNN(4, 32)
    init.spectral_radius_(module, value)
    return module


@pytest.mark.parametrize(
    ("make", "name", "remark"),
    [
        (lstm, "weight_ih_l0[f]", "the forget gate begins half closed: forget_gate_"),
        (lambda: lstm(False), "weight_ih_l0[f]", "the forget gate is half closed and has no bias to open it"),
        (both_one, "weight_ih_l0[f]", "1 in both biases adds up to 2: forget_gate_"),
        (stacked, "weight_hh_l0[f]", "orthogonal as a stack, not as a gate: orthogonal_"),
        (lambda: scaled(0.3), "weight_hh_l0", "the state fades to 0.3 a step: orthogonal_"),
        (lambda: scaled(2.0), "weight_hh_l0", "the state grows 2 times a step: spectral_radius_"),
        (lambda: filled(0.0), "weight_hh_l0", "all 0, as the end of a residual branch may be"),
        (lambda: filled(0.25), "weight_hh_l0", "all entries alike: the units can't become different"),
        (lambda: filled(torch.nan), "weight_hh_l0", "not finite"),
    ],
)
def test_what_looks_wrong(make, name: str, remark: str) -> None:
    found = init.describe(make())
    assert any(text.startswith(remark) for text in named(found, name).remarks)
    assert remark in str(found)


def test_spread_gates_are_no_closed_ones() -> None:
    for spread in (init.uniform_gate_, lambda m: init.chrono_(m, 100)):
        module = nn.LSTM(4, 32)
        spread(module)
        assert init.describe(module).wrong == ()


@pytest.mark.parametrize("make", [lambda: gnn.LSTM(4, 32), lambda: gnn.LayerNormLSTM(4, 32, num_layers=2), Tagger])
def test_after_the_initialisers_nothing_looks_wrong(make) -> None:
    module = make()
    init.orthogonal_(module)
    init.forget_gate_(module)
    x = torch.randn(3, 2, 3)
    if isinstance(module, Tagger):
        init.for_activations_(module, x)
    assert init.describe(module, x if isinstance(module, Tagger) else None).wrong == ()
