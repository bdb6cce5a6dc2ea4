"""Biases of gates, read by what each row does to the states: exact totals, and distributions."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from gradguard import init
from gradguard import nn as gnn
from tests.init.modules import GATED, GRUS, LSTMS, RECURRENT
from tests.init.oracle import gate_rows, suffixes, total


@pytest.mark.parametrize("make", RECURRENT.values(), ids=RECURRENT)
def test_the_oracle_finds_every_row_once_and_the_same_ones_in_weights(make) -> None:
    module = make()
    for layer, suffix in enumerate(suffixes(module)):
        rows = gate_rows(module, layer)
        seen = sorted(row for found in rows.values() for row in found)
        assert len(set(seen)) == len(seen)
        if not getattr(module, "proj_size", 0):  # which hides the output gates of some units
            assert seen == list(range(len(getattr(module, f"bias_ih{suffix}"))))
        if "Norm" in type(module).__name__:  # a norm spreads what one row of a weight does over all
            continue
        for knob in ("bias_hh", "weight_hh", "weight_ih")[: 3 if suffix.startswith("_l0") or not suffix else 2]:
            other = gate_rows(module, layer, knob)
            assert all(other[gate] == rows[gate] for gate in rows.keys() - {"n"})


@pytest.mark.parametrize("value", [1.0, -2.0])
@pytest.mark.parametrize("make", LSTMS.values(), ids=LSTMS)
def test_the_forget_gate_gets_exactly_the_value_and_nothing_else_changes(make, value: float) -> None:
    module, untouched = make(), make()
    untouched.load_state_dict(module.state_dict())
    changes = init.forget_gate_(module, value)
    assert len(changes) == len(suffixes(module))
    for layer, change in enumerate(changes):
        assert change.before == pytest.approx(total(untouched, layer, "f").mean().item(), rel=1e-6)
        assert change.after == value
        assert torch.equal(total(module, layer, "f"), torch.full((4,), value, dtype=torch.float64))
        for gate in ("i", "g"):
            assert torch.equal(total(module, layer, gate), total(untouched, layer, gate))
    for name, param in module.named_parameters():
        if not name.startswith("bias_"):
            assert torch.equal(param, untouched.get_parameter(name))


@pytest.mark.parametrize("make", GATED.values(), ids=GATED)
def test_chrono_lets_units_keep_for_times_up_to_t_max(make) -> None:
    module = make()
    changes = init.chrono_(module, 50, generator=torch.Generator().manual_seed(1))
    keep = "f" if make in LSTMS.values() else "z"
    for layer in range(len(suffixes(module))):
        kept = total(module, layer, keep)
        times = 1 / (1 - kept.sigmoid())  # steps until a unit has forgotten, were its gate to stay
        assert bool((times >= 2 - 1e-5).all())
        assert bool((times <= 50 + 1e-3).all())
        assert len(times.unique()) == len(times)
        if keep == "f":
            assert torch.equal(total(module, layer, "i"), -kept)
    gates = {change.name[-2] for change in changes}
    assert gates == ({"f", "i"} if keep == "f" else {"z"})


@pytest.mark.parametrize("make", GATED.values(), ids=GATED)
def test_uniform_gates_open_between_one_unit_and_all_but_one(make) -> None:
    module = make()
    init.uniform_gate_(module, generator=torch.Generator().manual_seed(1))
    keep = "f" if make in LSTMS.values() else "z"
    for layer in range(len(suffixes(module))):
        opened = total(module, layer, keep).sigmoid()
        assert bool((opened >= 0.25 - 1e-6).all())
        assert bool((opened <= 0.75 + 1e-6).all())
        assert len(opened.unique()) == len(opened)


def within(sample: Tensor, low: float, high: float) -> None:
    """A million draws from U[low, high]: mean, variance and range, within 4 standard errors."""
    n, width = sample.numel(), high - low
    assert n >= 1_000_000
    assert low - 1e-3 * width <= sample.min()
    assert sample.max() <= high + 1e-3 * width
    assert abs(sample.mean() - (low + high) / 2) < 4 * width / math.sqrt(12 * n)
    kurtosis = 1.8
    assert abs(sample.var() / (width**2 / 12) - 1) < 4 * math.sqrt((kurtosis - 1) / n)


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU])
def test_a_million_draws_have_the_papers_distribution(kind: type[nn.Module]) -> None:
    cells = kind(1, 250, num_layers=2).double()
    keep = "f" if kind is nn.LSTM else "z"
    rows = [gate_rows(cells, layer)[keep] for layer in range(2)]

    def drawn(function) -> Tensor:
        found = []
        for _ in range(2000):
            function(cells)
            found += [(cells.bias_ih_l0 + cells.bias_hh_l0)[rows[0]], (cells.bias_ih_l1 + cells.bias_hh_l1)[rows[1]]]
        return torch.cat(found).detach()

    generator = torch.Generator().manual_seed(0)
    within(drawn(lambda m: init.chrono_(m, 1000, generator=generator)).exp(), 1.0, 999.0)
    within(drawn(lambda m: init.uniform_gate_(m, generator=generator)).sigmoid(), 1 / 250, 249 / 250)


@pytest.mark.parametrize("name", ["forget_gate_", "chrono_", "uniform_gate_"])
def test_twice_is_once_and_a_seed_says_it_all(name: str) -> None:
    def run(module: nn.Module) -> nn.Module:
        seeded = {} if name == "forget_gate_" else {"generator": torch.Generator().manual_seed(3)}
        getattr(init, name)(module, **({"t_max": 20} if name == "chrono_" else {}), **seeded)
        return module

    module = nn.LSTM(3, 4, num_layers=2)
    state = torch.get_rng_state()
    once = {key: value.clone() for key, value in run(module).state_dict().items()}
    assert torch.equal(torch.get_rng_state(), state)
    twice = run(module).state_dict()
    assert all(torch.equal(twice[key], value) for key, value in once.items())


def test_every_module_of_a_model_is_reached_and_named_as_the_model_names_it() -> None:
    model = nn.ModuleDict({"a": nn.LSTM(3, 4), "b": nn.ModuleList([gnn.LSTMCell(3, 4), nn.Linear(2, 2)])})
    assert [change.name for change in init.forget_gate_(model)] == ["a.bias_l0[f]", "b.0.bias[f]"]
    wrapped = nn.DataParallel(model)
    assert [change.name for change in init.chrono_(wrapped, 9)][:2] == ["a.bias_l0[f]", "a.bias_l0[i]"]
    shared = nn.ModuleList([model["a"], model["a"]])
    assert len(init.forget_gate_(shared)) == 1


def test_gru_and_lstm_side_by_side_only_the_lstm_has_a_forget_gate() -> None:
    model = nn.ModuleList([nn.GRU(3, 4), nn.LSTM(3, 4)])
    assert len(init.forget_gate_(model)) == 1
    assert len(init.uniform_gate_(model)) == 2
    assert all(path.removeprefix("gnn.").startswith(("GRU", "LayerNormGRU")) for path in GRUS)
