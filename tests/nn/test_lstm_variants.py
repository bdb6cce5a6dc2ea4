"""What the docs of PeepholeLSTM, CoupledLSTM and JANET say of them, in numbers."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from gradguard import nn as gnn
from tests.contracts.recurrent import Kind

VARIANTS: dict[str, Kind] = {"PeepholeLSTM": gnn.PeepholeLSTM, "CoupledLSTM": gnn.CoupledLSTM, "JANET": gnn.JANET}


def test_with_peepholes_of_0_it_is_torchs_lstm() -> None:
    theirs, ours = nn.LSTM(3, 4, 2, bidirectional=True), gnn.PeepholeLSTM(3, 4, 2, bidirectional=True)
    missing = ours.load_state_dict(theirs.state_dict(), strict=False)
    assert missing.unexpected_keys == []
    assert [name.split("_l")[0] for name in missing.missing_keys] == ["weight_c"] * 4
    with torch.no_grad():
        for name in missing.missing_keys:
            ours.get_parameter(name).zero_()
    x = torch.randn(5, 2, 3)
    (a, (h, c)), (b, (h_ours, c_ours)) = theirs(x), ours(x)
    for found, right in ((b, a), (h_ours, h), (c_ours, c)):
        torch.testing.assert_close(found, right, rtol=0, atol=1e-6)


def test_peepholes_show_the_gates_a_cell_that_h_hides() -> None:
    """With a shut output gate h is 0, and only through the peephole does the forget gate know of c."""
    module = gnn.PeepholeLSTM(1, 1, dtype=torch.float64)
    with torch.no_grad():
        for param in module.parameters():
            param.zero_()
        module.bias_ih_l0[3] = -1000.0
        module.weight_c_l0[1] = 2.0
    c = torch.tensor([[[1.5]]], dtype=torch.float64)
    output, (_, after) = module(torch.zeros(1, 1, 1, dtype=torch.float64), (torch.zeros_like(c), c))
    assert output.item() == 0.0
    assert after.item() == pytest.approx(1.5 / (1 + math.exp(-3.0)), rel=1e-14)


def test_a_coupled_cell_is_a_mean_of_what_came_in() -> None:
    """With f and g fixed, after t steps f^t is left of the cell, and 1 - f^t of it is g."""
    module, f, g, steps = gnn.CoupledLSTM(1, 1, dtype=torch.float64), 0.75, 0.5, 6
    with torch.no_grad():
        for param in module.parameters():
            param.zero_()
        module.bias_ih_l0.copy_(torch.tensor([math.log(f / (1 - f)), math.atanh(g), 0.0], dtype=torch.float64))
        h = torch.zeros(1, 1, 1, dtype=torch.float64)
        _, (_, c) = module(torch.ones(steps, 1, 1, dtype=torch.float64), (h, torch.full_like(h, -2.0)))
    assert c.item() == pytest.approx(-2.0 * f**steps + g * (1 - f**steps), rel=1e-13)


@given(scale=st.floats(0.1, 50), first=st.floats(-3, 3), seed=st.integers(0, 2**31))
def test_a_coupled_cell_never_grows(scale: float, first: float, seed: int) -> None:
    torch.manual_seed(seed)
    module = gnn.CoupledLSTM(2, 3, dtype=torch.float64)
    with torch.no_grad():
        for param in module.parameters():
            param.mul_(scale)
        states = torch.zeros(1, 4, 3, dtype=torch.float64), torch.full((1, 4, 3), first, dtype=torch.float64)
        _, _, every = module(scale * torch.randn(30, 4, 2, dtype=torch.float64), states, return_states=True)
    assert every.c[0].abs().max() <= max(1.0, abs(first)) * (1 + 1e-12)


@pytest.mark.parametrize("beta", [0.0, 1.0, 2.0])
def test_janet_grows_up_to_e_to_the_beta(beta: float) -> None:
    module = gnn.JANET(1, 1, beta=beta, dtype=torch.float64)
    with torch.no_grad():
        for param in module.parameters():
            param.zero_()
        module.bias_ih_l0.copy_(torch.tensor([8.0, 1000.0]))
        _, h = module(torch.zeros(100_000, 1, 1, dtype=torch.float64))
    s = 8.0
    assert h.item() == pytest.approx((1 + math.exp(s)) / (1 + math.exp(s - beta)), rel=1e-9)
    assert h.item() <= math.exp(beta)


@pytest.mark.parametrize(
    ("beta", "error", "message"),
    [
        (math.inf, ValueError, "janet needs beta to be finite, got inf"),
        (math.nan, ValueError, "janet needs beta a number, got nan"),
        ("1", TypeError, "janet needs beta to be a number, got '1'"),
    ],
)
def test_a_beta_that_is_none(beta: Any, error: type[Exception], message: str) -> None:
    for kind in (gnn.JANET, gnn.JANETCell):
        with pytest.raises(error, match=message):
            kind(3, 4, beta=beta)


@pytest.mark.parametrize("kind", VARIANTS)
def test_new_forget_biases(kind: str) -> None:
    module = VARIANTS[kind](3, 4, forget_bias=0.75)
    hidden = dict(module.named_parameters()).get("bias_hh_l0", torch.zeros(()))
    start = 4 * module.recurrence.gates.names.index("f")
    total = (module.bias_ih_l0 + hidden).detach()
    assert total[start : start + 4].tolist() == [0.75] * 4
    assert bool((total != 0.75).sum() == len(total) - 4)
    with pytest.raises(ValueError, match=r"forget_bias=2\.0 needs bias=True"):
        VARIANTS[kind](3, 4, bias=False, forget_bias=2.0)
    with pytest.raises(TypeError, match="A forget gate needs forget_bias to be a number, got '1'"):
        VARIANTS[kind](3, 4, forget_bias="1")


@pytest.mark.parametrize("kernel", ["reference", "eager"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("kind", VARIANTS)
def test_gradients_in_half_types(kind: str, dtype: torch.dtype, kernel: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRADGUARD_KERNEL", kernel)
    right, x = VARIANTS[kind](3, 8), torch.randn(6, 2, 3).to(dtype)
    module = VARIANTS[kind](3, 8, dtype=dtype)
    module.load_state_dict(right.state_dict())
    right.load_state_dict(module.state_dict())
    right(x.float())[0].sum().backward()
    module(x)[0].sum().backward()
    for (name, a), b in zip(module.named_parameters(), right.parameters(), strict=True):
        assert a.grad.dtype == dtype
        torch.testing.assert_close(a.grad.float(), b.grad, rtol=5e-2, atol=0.1, msg=name)
