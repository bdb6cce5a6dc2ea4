"""What an IndRNN makes of gradients over many steps, its new weights, its arguments, and its weight decay."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from gradguard import nn as gnn

T = 20
BOUND = 2 ** (1 / T)


def made(**options: Any) -> gnn.IndRNN:
    return gnn.IndRNN(3, 8, 2, **{"length": T, "dtype": torch.float64} | options)


def test_a_gradient_through_t_steps_is_u_to_the_t() -> None:
    """Where no ReLU is cut off, the layer is linear."""
    steps = 2000
    module = gnn.IndRNN(1, 6, bias=False, length=steps, dtype=torch.float64)
    with torch.no_grad():
        module.weight_ih_l0.zero_()
    h = torch.rand(1, 1, 6, dtype=torch.float64, requires_grad=True)
    output, _ = module(torch.zeros(steps, 1, 1, dtype=torch.float64), h)
    (found,) = torch.autograd.grad(output[-1].sum(), h)
    torch.testing.assert_close(found[0, 0], module.weight_hh_l0.detach() ** steps, rtol=1e-9, atol=0)
    assert bool((found <= 2 + 1e-9).all())
    assert bool((found >= 0.5 - 1e-9).all()), "the last layer has a long memory"


def test_new_weights() -> None:
    module = gnn.IndRNN(4, 4000, 2, bidirectional=True, length=T)
    for suffix in ("l0", "l0_reverse"):
        u = module.get_parameter(f"weight_hh_{suffix}")
        assert 0 <= u.min() < 0.01
        assert BOUND - 0.01 < u.max() <= BOUND
        assert u.mean().item() == pytest.approx(BOUND / 2, abs=0.03)
    for suffix in ("l1", "l1_reverse"):
        u = module.get_parameter(f"weight_hh_{suffix}")
        assert 1 / BOUND <= u.min() < 1 / BOUND + 1e-3
        assert BOUND - 1e-3 < u.max() <= BOUND
    assert gnn.IndRNN(4, 4000, length=T, long_memory=False).weight_hh_l0.min() < 0.01
    for gamma in (0.5, 1.0):
        u = gnn.IndRNN(4, 4000, length=T, gamma=gamma).weight_hh_l0
        assert u.min().item() == pytest.approx((gamma / 4) ** (1 / T), abs=1e-3)
        assert u.max().item() == pytest.approx(gamma ** (1 / T), abs=1e-3)
    assert module.weight_ih_l0.abs().max() <= 4000**-0.5


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"length": None}, TypeError, r"IndRNN needs length, the number of steps .* by gamma \*\* \(1 / length\)"),
        ({"length": 0}, ValueError, "IndRNN needs length to be an integer >= 1, got 0"),
        ({"length": 2.5}, ValueError, "IndRNN needs length to be an integer >= 1, got 2.5"),
        ({"gamma": 0}, ValueError, "IndRNN needs gamma > 0, got 0"),
        ({"gamma": "2"}, TypeError, "IndRNN needs gamma to be a number, got '2'"),
        ({"long_memory": 1}, TypeError, "IndRNN needs long_memory to be a bool, got 1"),
        ({"nonlinearity": "gelu"}, ValueError, "Unknown nonlinearity 'gelu'. An IndRNN needs 'relu' or 'tanh'"),
    ],
)
def test_bad_arguments(options: dict[str, Any], error: type[Exception], message: str) -> None:
    for kind in (gnn.IndRNN, gnn.IndRNNCell):
        with pytest.raises(error, match=message):
            kind(3, 8, **{"length": T} | options)


def test_options_that_a_vector_has_not() -> None:
    with pytest.raises(ValueError, match="IndRNN has no weight_dropout: its recurrent weight is a vector"):
        made(weight_dropout=0.1)
    assert repr(made(gamma=3.0)) == "IndRNN(3, 8, num_layers=2, length=20, gamma=3.0)"


def test_weight_decay_leaves_vectors_alone() -> None:
    module = gnn.IndRNN(3, 8, 2, length=T, residual=True)
    matrices, others = module.weight_decay_groups(0.01)
    assert (matrices["weight_decay"], others["weight_decay"]) == (0.01, 0.0)
    names = {id(param): name for name, param in module.named_parameters()}
    assert [names[id(p)] for p in matrices["params"]] == ["weight_ih_l0", "weight_res_l0", "weight_ih_l1"]
    assert len(matrices["params"]) + len(others["params"]) == len(names)
    decayed = torch.optim.AdamW(gnn.LayerNormLSTM(3, 4).weight_decay_groups(0.01))
    assert [len(group["params"]) for group in decayed.param_groups] == [2, 6]
    normed = nn.utils.parametrizations.weight_norm(gnn.GRU(3, 4), "weight_hh_l0")
    assert [len(group["params"]) for group in normed.weight_decay_groups(0.01)] == [3, 2]
    with pytest.raises(ValueError, match="GRU needs weight_decay >= 0, got -1"):
        normed.weight_decay_groups(-1)


@pytest.mark.parametrize("options", [{"variational_dropout": 0.3}, {"zoneout": 0.3}, {"residual": True}])
def test_no_option_goes_round_the_bound(options: dict[str, Any]) -> None:
    """Over 784 steps a factor of 1 / (1 - 0.3) would be 10 to the 121."""
    rnn = gnn.IndRNN(4, 8, length=784, **options)
    h = torch.zeros(1, 2, 8, requires_grad=True)
    output, last = rnn(torch.rand(784, 2, 4), h)
    assert output.isfinite().all()
    (grad,) = torch.autograd.grad(last.sum(), h)
    assert grad.abs().max() <= 2.001


def test_a_length_of_another_integer_type_is_read_back() -> None:
    rnn = gnn.IndRNN(4, 8, length=torch.tensor([5, 7]).max())
    assert "length=7" in rnn.recurrence.spec
