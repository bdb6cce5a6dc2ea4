"""An IndRNN's recurrent weight is a vector: initialisers of matrices leave it alone, and describe knows what it is."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from gradguard import init
from gradguard import nn as gnn
from tests.init.modules import values


@pytest.fixture(params=["layers", "cell"])
def module(request: pytest.FixtureRequest) -> nn.Module:
    if request.param == "cell":
        return gnn.IndRNNCell(3, 4, length=9)
    return gnn.IndRNN(3, 4, 2, bidirectional=True, length=9)


@pytest.mark.parametrize("initialiser", ["orthogonal_", "identity_", "spectral_radius_", "xavier_", "kaiming_"])
def test_there_is_no_recurrent_matrix_to_set(module: nn.Module, initialiser: str) -> None:
    model, before = nn.Sequential(module, nn.RNN(3, 4)), values(module)
    options = {"xavier_": {"weights": "recurrent"}, "kaiming_": {"weights": "recurrent"}}.get(initialiser, {})
    given = (0.9,) if initialiser == "spectral_radius_" else ()
    changes = getattr(init, initialiser)(model, *given, **options)
    assert {change.name.split(".")[0] for change in changes} == {"1"}
    assert all(module.state_dict()[name].equal(value) for name, value in before.items())


def test_input_weights_are_set(module: nn.Module) -> None:
    before = values(module)
    init.orthogonal_(module, weights="both")
    for name, value in module.state_dict().items():
        assert value.equal(before[name]) != name.startswith("weight_ih"), name
    x = torch.randn(9, 2, 3)
    if isinstance(module, gnn.IndRNN):
        init.lsuv_(module, x)
        assert module(x)[0].isfinite().all()


def test_it_is_described_by_the_memories_of_its_units() -> None:
    module = gnn.IndRNN(3, 4, length=9)
    with torch.no_grad():
        module.weight_hh_l0.copy_(torch.tensor([0.5, -1.0, 0.25, 0.75]))
    found = init.describe(module)
    assert [row.name for row in found] == ["weight_ih_l0", "weight_hh_l0"]
    row = found[1]
    assert (row.shape, row.least, row.most, row.radius) == ((4,), 0.25, 1.0, 1.0)
    assert row.std == pytest.approx(module.weight_hh_l0.std(unbiased=False).item())
    assert row.bias_total == pytest.approx(module.bias_ih_l0.mean().item())
    assert row.remarks == ()
    assert "weight_hh_l0" in str(found)


def test_it_has_no_gates() -> None:
    with pytest.raises(ValueError, match="Found only: IndRNN"):
        init.forget_gate_(gnn.IndRNN(3, 4, length=9))
