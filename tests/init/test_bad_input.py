"""Mistakes raise, say what to do, and leave every weight as it was."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from gradguard import init
from gradguard import nn as gnn
from tests.init.modules import Tagger, is_as_before, values

X = torch.randn(4, 3, 3)
ALL: dict[str, Callable[[nn.Module], Any]] = {
    "forget_gate_": init.forget_gate_,
    "chrono_": lambda m: init.chrono_(m, 9),
    "uniform_gate_": init.uniform_gate_,
    "orthogonal_": init.orthogonal_,
    "xavier_": init.xavier_,
    "kaiming_": init.kaiming_,
    "identity_": init.identity_,
    "spectral_radius_": lambda m: init.spectral_radius_(m, 0.9),
    "lsuv_": lambda m: init.lsuv_(m, X),
    "for_activations_": lambda m: init.for_activations_(m, X),
    "zero_residual_": lambda m: init.zero_residual_(m, X),
    "describe": init.describe,
}


class Mixed(nn.Module):
    """One good LSTM, one that something is wrong with."""

    def __init__(self, bad: nn.Module) -> None:
        super().__init__()
        self.good, self.bad = nn.LSTM(3, 4), bad


def poisoned() -> nn.Module:
    module = nn.RNN(3, 4)
    with torch.no_grad():
        module.weight_hh_l0.fill_(torch.nan)
    return module


def zeros() -> nn.Module:
    module = nn.RNN(3, 4)
    with torch.no_grad():
        module.weight_hh_l0.zero_()
    return module


def test_the_list_is_complete() -> None:
    assert set(ALL) == {name for name in vars(init) if name.endswith("_") and not name.startswith("_")} | {"describe"}


@pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")
@pytest.mark.parametrize("name", ALL)
def test_scripted_compiled_and_no_modules(name: str) -> None:
    with pytest.raises(TypeError, match=f"{name} needs a torch.nn.Module, got Tensor"):
        ALL[name](torch.ones(2))  # type: ignore[arg-type]
    with pytest.raises(
        TypeError, match=f"{name} needs a module that is not compiled. Initialise it before torch.compile"
    ):
        ALL[name](nn.Sequential(torch.compile(nn.LSTM(3, 4))))
    scripted = torch.jit.trace(nn.Linear(3, 3), X)
    with pytest.raises(TypeError, match=f"{name} can't look into a scripted module"):
        ALL[name](nn.Sequential(scripted))
    with pytest.raises(ValueError, match=f"{name} needs shapes: weight of a LazyLinear has none"):
        ALL[name](nn.Sequential(nn.LSTM(3, 4), nn.LazyLinear(3)))


@pytest.mark.parametrize("name", [name for name in ALL if name not in ("lsuv_", "for_activations_", "zero_residual_")])
def test_a_model_without_recurrent_layers(name: str) -> None:
    if name == "describe":
        with pytest.raises(ValueError, match="describe needs a Linear, Conv or recurrent layer; this ReLU has none"):
            init.describe(nn.ReLU())
        return
    with pytest.raises(
        ValueError, match=f"{name} needs an RNN, GRU or LSTM.* this Linear has none. .*for_activations_"
    ):
        ALL[name](nn.Linear(3, 3))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: init.forget_gate_(nn.GRU(3, 4)), "needs a forget gate: .*chrono_ and uniform_gate_. Found only: GRU"),
        (lambda: init.chrono_(nn.RNN(3, 4), 9), "needs a gate that keeps the state: .*Found only: RNN"),
        (lambda: init.uniform_gate_(nn.RNNCell(3, 4)), "needs a gate that keeps the state: .*Found only: RNNCell"),
        (lambda: init.uniform_gate_(nn.GRU(3, 1)), "needs hidden_size >= 2, got 1"),
        (lambda: init.forget_gate_(nn.LSTM(3, 4), float("nan")), "needs value a number, got nan"),
        (lambda: init.forget_gate_(nn.LSTM(3, 4), float("inf")), "needs value to be finite"),
        (lambda: init.chrono_(nn.LSTM(3, 4), 2.9), r"chrono_ needs t_max >= 3, got 2.9"),
        (lambda: init.chrono_(nn.LSTM(3, 4), float("inf")), "chrono_ needs t_max >= 3, got inf"),
        (lambda: init.orthogonal_(nn.LSTM(3, 4), 0), "orthogonal_ needs gain > 0, got 0"),
        (lambda: init.xavier_(nn.LSTM(3, 4), -1.0), "xavier_ needs gain > 0, got -1.0"),
        (lambda: init.kaiming_(nn.LSTM(3, 4), float("inf")), "kaiming_ needs gain to be finite"),
        (lambda: init.orthogonal_(nn.LSTM(3, 4), weights="all"), "weights to be one of 'input', 'recurrent', 'both'"),
        (lambda: init.xavier_(nn.LSTM(3, 4), weights=["input"]), "weights to be one of 'input', 'recurrent', 'both'"),
        (lambda: init.orthogonal_(nn.LSTM(3, 4, dtype=torch.complex64)), "needs real weights, got complex ones"),
        (lambda: init.xavier_(nn.LSTM(3, 4), distribution="x"), "distribution to be one of 'uniform', 'normal'"),
        (lambda: init.kaiming_(nn.LSTM(3, 4), mode="x"), "mode to be one of 'fan_in', 'fan_out', got 'x'"),
        (lambda: init.identity_(nn.RNN(3, 4), 0.0), "identity_ needs scale > 0"),
        (lambda: init.identity_(nn.RNN(3, 4), input_std=0.0), "identity_ needs input_std > 0"),
        (
            lambda: init.identity_(nn.LSTM(3, 4, proj_size=2)),
            r"identity_ needs square .*is \(4, 2\): with a projection",
        ),
        (lambda: init.spectral_radius_(nn.LSTM(3, 4, proj_size=2), 0.9), "spectral_radius_ needs square recurrent"),
        (lambda: init.spectral_radius_(nn.RNN(3, 4), 0.0), "spectral_radius_ needs value > 0"),
        (lambda: init.lsuv_(Tagger(), X, std=0.0), "lsuv_ needs std > 0"),
        (lambda: init.lsuv_(Tagger(), X, tolerance=0.0), "lsuv_ needs tolerance > 0"),
        (lambda: init.lsuv_(Tagger(), X, max_iterations=0), "lsuv_ needs max_iterations to be an integer >= 1"),
        (lambda: init.lsuv_(nn.ReLU(), X), "lsuv_ needs a Linear, Conv or recurrent layer that runs"),
        (lambda: init.for_activations_(nn.ReLU(), X), "for_activations_ needs a Linear or Conv that runs"),
        (lambda: init.for_activations_(Tagger(), X, distribution="x"), "distribution to be 'normal' or 'uniform'"),
        (
            lambda: init.zero_residual_(Tagger(), X),
            r"zero_residual_ needs residual branches, x \+ f\(x\), and found none",
        ),
    ],
)
def test_arguments(call: Callable[[], Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()


def test_a_seed_is_no_generator() -> None:
    for name in ("orthogonal_", "xavier_", "kaiming_", "identity_", "uniform_gate_"):
        with pytest.raises(TypeError, match=f"{name} needs generator to be a torch.Generator, got 3. .*manual_seed"):
            getattr(init, name)(nn.LSTM(3, 4), generator=3)


@pytest.mark.parametrize(
    ("bad", "call", "message"),
    [
        (nn.LSTM(3, 4, bias=False), init.forget_gate_, r"needs biases, but the LSTM \(bad\) was made with bias=False"),
        (gnn.LSTMCell(3, 4, bias=False), ALL["chrono_"], r"needs biases, but the LSTMCell \(bad\)"),
        (nn.LSTM(3, 1), init.uniform_gate_, "needs hidden_size >= 2"),
        (nn.LSTM(3, 4, proj_size=2), init.identity_, "needs square recurrent weights, but a block of bad.weight_hh_l0"),
        (poisoned(), ALL["spectral_radius_"], "can't scale bad.weight_hh_l0: its spectral radius is nan"),
        (zeros(), ALL["spectral_radius_"], "can't scale bad.weight_hh_l0: its spectral radius is 0.0"),
    ],
)
def test_what_fails_in_one_layer_changes_no_other(
    bad: nn.Module, call: Callable[[nn.Module], Any], message: str
) -> None:
    model = Mixed(bad)
    before = {name: value for name, value in values(model).items() if value.isfinite().all()}
    with pytest.raises(ValueError, match=message):
        call(model)
    assert all(torch.equal(model.state_dict()[name], value) for name, value in before.items())


@pytest.mark.parametrize("name", ["lsuv_", "for_activations_", "zero_residual_", "describe"])
def test_a_model_that_fails_on_the_example(name: str) -> None:
    model = Tagger()
    before, state = values(model), torch.get_rng_state()
    with pytest.raises(ValueError, match=f"{name} ran the model on the example input, and it failed: .*shapes"):
        getattr(init, name)(model, torch.ones(4, 3, 7))
    assert is_as_before(model, before)
    assert torch.equal(torch.get_rng_state(), state)
    assert model.training
    assert not model.embed._forward_hooks
    assert model.rnn.dropout == 0.5


def test_lsuv_of_what_does_not_vary_says_where_and_puts_all_back() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 4), nn.Threshold(1e9, 0.0), nn.Linear(4, 2))
    before = values(model)
    with pytest.raises(
        ValueError, match=r"lsuv_ can't scale 4.weight: .* deviation of what it gives is 0.0. Is the input"
    ):
        init.lsuv_(model, X)
    assert is_as_before(model, before)


def test_zero_residual_that_does_not_become_zero_is_put_back() -> None:
    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(3, 3)
            self.linear.register_forward_hook(lambda module, args, output: output + 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x + self.linear(x)

    model = nn.Sequential(Block())
    before = values(model)
    with pytest.raises(
        ValueError, match=r"zero_residual_ set 0.linear to 0, and the branch still gives something else"
    ):
        init.zero_residual_(model, X)
    assert is_as_before(model, before)
