"""Cells with norms: what the norms take out, group norms and what they refuse, half types, weights of torch's."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from gradguard import nn as gnn
from tests.contracts.recurrent import MODULES

X = torch.randn(6, 2, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(3))


def same_weights(module: nn.Module, like: nn.Module) -> nn.Module:
    module.load_state_dict(like.state_dict())
    return module


def test_one_group_is_a_layer_norm() -> None:
    for kwargs in ({"num_layers": 2, "bidirectional": True}, {"proj_size": 2}, {"bias": False}):
        right = gnn.LayerNormLSTM(3, 5, **kwargs, dtype=torch.float64)
        one = same_weights(gnn.GroupNormLSTM(3, 5, num_groups=1, **kwargs, dtype=torch.float64), right)
        torch.testing.assert_close(one(X)[0], right(X)[0], rtol=1e-12, atol=1e-12)


def test_each_gates_scale_is_taken_out_by_a_group_of_its_own() -> None:
    """What goes into one gate may be a thousand times as large: a norm over all gates would drown the others."""
    module = gnn.GroupNormLSTM(3, 5, eps=1e-12, dtype=torch.float64)
    loud = same_weights(gnn.GroupNormLSTM(3, 5, eps=1e-12, dtype=torch.float64), module)
    whole = same_weights(gnn.LayerNormLSTM(3, 5, eps=1e-12, dtype=torch.float64), module)
    with torch.no_grad():
        loud.weight_ih_l0[5:10] *= 1e3
        loud.weight_hh_l0[5:10] *= 1e3
    torch.testing.assert_close(loud(X)[0], module(X)[0], rtol=1e-6, atol=1e-8)
    assert not torch.allclose(whole(X)[0], same_weights(whole, loud)(X)[0], rtol=1e-2, atol=1e-2)


def test_an_rms_norm_leaves_the_mean_in_which_a_layer_norm_takes_out() -> None:
    def with_mean(module: nn.Module, shift: float) -> torch.Tensor:
        with torch.no_grad():
            module.weight_ih_l0 += shift
        return module(X)[0]

    for kind, same in ((gnn.LayerNormLSTM, True), (gnn.RMSNormLSTM, False)):
        module = kind(3, 5, dtype=torch.float64)
        assert torch.allclose(with_mean(module, 0.0), with_mean(module, 0.5), rtol=1e-8) == same


@pytest.mark.parametrize("kind", ["RMSNormLSTM", "GroupNormLSTM", "LayerNormGRU"])
def test_the_scale_of_weights_is_taken_out(kind: str) -> None:
    module = MODULES[kind](3, 5, eps=1e-12, dtype=torch.float64)
    before = module(X)[0]
    with torch.no_grad():
        module.weight_ih_l0.mul_(7.0)
        module.weight_hh_l0.mul_(0.3)
    torch.testing.assert_close(module(X)[0], before, rtol=1e-7, atol=1e-8)


@pytest.mark.parametrize("kind", ["RMSNormLSTM", "GroupNormLSTM", "LayerNormGRU"])
@pytest.mark.parametrize("kernel", ["reference", "eager"])
def test_in_half_types_results_are_near_those_in_float32(
    kind: str, kernel: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GRADGUARD_KERNEL", kernel)
    for dtype, error in ((torch.bfloat16, 0.1), (torch.float16, 1e-2)):
        module = MODULES[kind](3, 8, dtype=dtype)
        right = same_weights(MODULES[kind](3, 8), module)
        output, _ = module(X.to(dtype))
        expected, _ = right(X.to(dtype).float())
        output.sum().backward()
        expected.sum().backward()
        torch.testing.assert_close(output.float(), expected, rtol=error, atol=error)
        for (name, a), b in zip(module.named_parameters(), right.parameters(), strict=True):
            assert a.grad.dtype == dtype
            assert (a.grad.float() - b.grad).norm() <= error * b.grad.norm(), name


def test_a_gru_of_torchs_keeps_its_weights_and_gets_gains_of_1() -> None:
    theirs = nn.GRU(3, 4, num_layers=2, bidirectional=True, dtype=torch.float64)
    ours = gnn.LayerNormGRU.from_torch(theirs, eps=1e-3)
    assert ours.recurrence.eps == 1e-3
    for name, value in theirs.state_dict().items():
        assert ours.state_dict()[name].equal(value)
    gains = [param for name, param in ours.named_parameters() if name.startswith("gain")]
    assert len(gains) == 8
    assert all(bool((gain == 1).all()) for gain in gains)
    cell = gnn.LayerNormGRUCell.from_torch(nn.GRUCell(3, 4))
    assert cell.gain_hh.tolist() == [1.0] * 12


BAD: dict[str, tuple[Any, type[Exception], str]] = {
    "no divisor": (5, ValueError, r"num_groups to divide 4 \* hidden_size = 24, got 5. Choose one that does; 4,"),
    "none": (0, ValueError, r"A group norm needs num_groups > 0, got 0"),
    "half a group": (1.5, TypeError, r"A group norm needs num_groups to be an int, got 1.5"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_is_no_number_of_groups_is_refused(case: str) -> None:
    value, error, message = BAD[case]
    for kind in (gnn.GroupNormLSTM, gnn.GroupNormLSTMCell):
        with pytest.raises(error, match=message):
            kind(3, 6, num_groups=value)


@pytest.mark.parametrize("kind", [gnn.RMSNormLSTM, gnn.GroupNormLSTM, gnn.LayerNormGRU, gnn.LayerNormGRUCell])
def test_an_eps_of_0_is_refused(kind: Any) -> None:
    with pytest.raises(ValueError, match=r"A norm needs eps > 0, got 0"):
        kind(3, 6, eps=0)


@pytest.mark.parametrize("kind", ["LayerNormLSTM", "RMSNormLSTM", "GroupNormLSTM", "LayerNormGRU"])
def test_cells_equal_a_step_of_the_module(kind: str) -> None:
    module = MODULES[kind](3, 4, dtype=torch.float64)
    cell = getattr(gnn, f"{kind}Cell")(3, 4, dtype=torch.float64)
    cell.load_state_dict({name.removesuffix("_l0"): value for name, value in module.state_dict().items()})
    found, last = cell(X[0]), module(X[:1])[1]
    for a, b in zip(found if isinstance(found, tuple) else (found,), last, strict=False):
        torch.testing.assert_close(a, b if b.dim() == 2 else b[0], rtol=1e-12, atol=1e-12)
