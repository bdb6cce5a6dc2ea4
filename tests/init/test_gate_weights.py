"""Blocks of recurrent weights, found by what each row does to the states: orthogonality, moments, eigenvalues."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from gradguard import init
from gradguard import nn as gnn
from tests.init.modules import RECURRENT
from tests.init.oracle import gate_rows, suffixes


def blocks(module: nn.Module, short: str) -> list[np.ndarray]:
    """Every gate's block of every layer, by the rows that drive the gate."""
    found = []
    for layer, suffix in enumerate(suffixes(module)):
        weight = getattr(module, short + suffix).detach().double().numpy()
        rows = gate_rows(module, layer)
        if getattr(module, "proj_size", 0):  # hides output gates; they are the rows that are left
            others = {row for gate, found_rows in rows.items() if gate != "o" for row in found_rows}
            rows["o"] = [row for row in range(len(weight)) if row not in others]
        found += [weight[each] for each in rows.values()]
    return found


def is_orthogonal(block: np.ndarray, gain: float) -> bool:
    short = block if block.shape[0] <= block.shape[1] else block.T
    return bool(np.abs(short @ short.T - gain**2 * np.eye(len(short))).max() < 1e-5)


@pytest.mark.parametrize("make", RECURRENT.values(), ids=RECURRENT)
def test_every_gates_block_is_orthogonal_and_nothing_else_changes(make) -> None:
    module = make()
    before = {name: param.clone() for name, param in module.named_parameters()}
    assert not any(is_orthogonal(block, 1.5) for block in blocks(module, "weight_hh"))
    changes = init.orthogonal_(module, 1.5)
    assert all(is_orthogonal(block, 1.5) for block in blocks(module, "weight_hh"))
    for name, param in module.named_parameters():
        if name.startswith("weight_hr"):
            assert is_orthogonal(param.detach().double().numpy(), 1.5)
        assert torch.equal(param, before[name]) != name.startswith(("weight_hh", "weight_hr"))
    assert all(abs(change.after - 1.0) < 1e-5 < change.before - 1.0 for change in changes)
    init.orthogonal_(module, weights="both")
    assert all(is_orthogonal(block, 1.0) for block in blocks(module, "weight_ih") + blocks(module, "weight_hh"))


def moments(sample: np.ndarray, std: float, kurtosis: float) -> None:
    """Mean and variance lie within 4 standard errors."""
    n = sample.size
    assert n >= 1_000_000
    assert abs(sample.mean()) < 4 * std / math.sqrt(n)
    assert abs(sample.var() / std**2 - 1) < 4 * math.sqrt((kurtosis - 1) / n)


UNIFORM, NORMAL = 1.8, 3.0


@pytest.mark.parametrize(
    ("name", "options", "std", "kurtosis"),
    [
        ("xavier_", {}, math.sqrt(2 / (30 + 40)), UNIFORM),
        ("xavier_", {"distribution": "normal", "gain": 3.0}, 3 * math.sqrt(2 / (30 + 40)), NORMAL),
        ("xavier_", {"weights": "recurrent"}, math.sqrt(2 / (40 + 40)), UNIFORM),
        ("kaiming_", {}, math.sqrt(2 / 30), NORMAL),
        ("kaiming_", {"mode": "fan_out", "gain": 1.0}, math.sqrt(1 / 40), NORMAL),
        ("kaiming_", {"distribution": "uniform", "weights": "recurrent"}, math.sqrt(2 / 40), UNIFORM),
    ],
)
def test_a_million_draws_have_the_formulas_moments_in_every_gate(name, options, std, kurtosis) -> None:
    module = nn.LSTM(30, 40)
    short = "weight_hh_l0" if options.get("weights") == "recurrent" else "weight_ih_l0"
    rows, generator = gate_rows(module, 0), torch.Generator().manual_seed(0)
    samples: dict[str, list[Tensor]] = {gate: [] for gate in rows}
    for _ in range(850):
        getattr(init, name)(module, **options, generator=generator)
        for gate, each in rows.items():
            samples[gate].append(getattr(module, short).detach()[each].clone())
    for drawn in samples.values():
        moments(torch.stack(drawn).double().numpy(), std, kurtosis)


def test_identity_makes_an_irnn_of_an_rnn() -> None:
    module = nn.RNN(400, 500, nonlinearity="relu")
    changes = init.identity_(module, 0.5, generator=torch.Generator().manual_seed(0))
    names = [f"{short}_l0" for short in ("weight_hh", "weight_ih", "bias_ih", "bias_hh")]
    assert [(change.name, change.after) for change in changes][::2] == [("weight_hh_l0", 0.5), ("bias_ih_l0", 0.0)]
    assert [change.name for change in changes] == names
    assert torch.equal(module.weight_hh_l0, 0.5 * torch.eye(500))
    assert not module.bias_ih_l0.any()
    assert not module.bias_hh_l0.any()
    sample = [module.weight_ih_l0.detach().double().numpy()]
    for seed in range(5):
        init.identity_(module, generator=torch.Generator().manual_seed(seed + 1))
        sample.append(module.weight_ih_l0.detach().double().numpy())
    moments(np.stack(sample), 0.001, NORMAL)


@pytest.mark.parametrize("kind", ["LSTM", "GRU", "gnn.LayerNormLSTM", "LSTMCell"])
def test_identity_of_gates_leaves_the_rest(kind: str) -> None:
    module = RECURRENT[kind]()
    before = {name: param.clone() for name, param in module.named_parameters()}
    init.identity_(module, 2.0)
    assert all((block == 2 * np.eye(4)).all() for block in blocks(module, "weight_hh"))
    rest = [name for name in before if not name.startswith("weight_hh")]
    assert all(torch.equal(module.get_parameter(name), before[name]) for name in rest)


@pytest.mark.parametrize("kind", ["RNN", "GRU", "LSTM", "gnn.LSTM", "RNNCell"])
def test_every_gates_spectral_radius_is_the_value_and_its_direction_stays(kind: str) -> None:
    module = RECURRENT[kind]()
    before = blocks(module, "weight_hh")
    for _ in range(2):
        changes = init.spectral_radius_(module, 0.7)
        for block, old in zip(blocks(module, "weight_hh"), before, strict=True):
            assert np.abs(np.linalg.eigvals(block)).max() == pytest.approx(0.7, rel=1e-5)
            assert np.allclose(block / np.abs(block).max(), old / np.abs(old).max(), atol=1e-5)
    assert all(change.before == pytest.approx(0.7, rel=1e-5) for change in changes)


def test_without_biases_and_in_half_precision() -> None:
    for module in (nn.LSTM(3, 8, bias=False), gnn.LSTM(3, 8, bias=False), nn.GRUCell(3, 8, bias=False)):
        init.orthogonal_(module)
        init.xavier_(module)
        init.identity_(module)
    module = nn.LSTM(64, 64).bfloat16()
    init.orthogonal_(module)
    block = module.weight_hh_l0.detach().double()[:64]
    assert (block @ block.T - torch.eye(64)).abs().max() < 0.02
    init.forget_gate_(module, 1.0)
    assert bool(((module.bias_ih_l0 + module.bias_hh_l0)[64:128] == 1).all())
    assert module.weight_hh_l0.dtype == torch.bfloat16


def test_a_printed_change_is_a_table_and_a_logged_one_has_plain_keys() -> None:
    changes = init.forget_gate_(nn.LSTM(2, 3)) + init.spectral_radius_(nn.RNN(2, 3), 0.5)
    lines = str(changes).splitlines()
    assert lines[0].split() == ["name", "statistic", "before", "after"]
    assert lines[1].startswith("bias_l0[f]    mean bias total")
    assert lines[1].endswith("  1")
    assert changes.numbers() == {
        "bias_l0.f/mean_bias_total": 1.0,
        "weight_hh_l0/spectral_radius": pytest.approx(0.5),
    }
    assert str(init.Changes()) == "nothing was changed"
