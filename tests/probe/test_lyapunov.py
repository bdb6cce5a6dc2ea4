"""Exponents against products of Jacobians in NumPy, against closed forms, and what a look at a module must not do."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize, prune, weight_norm
from torch.nn.utils.rnn import pack_sequence

from gradguard import nn as gnn
from gradguard.probe import LyapunovSpectrum, lyapunov_spectrum
from gradguard.probe.growth import random_directions
from tests.contracts.recurrent import MODULES, as_hx, projected
from tests.nn.kinds import VARIANTS
from tests.probe import lyapunov_oracle as oracle

IN, H = 3, 4
TORCH: dict[str, tuple[str, Callable[..., nn.Module]]] = {
    "torch LSTM": ("LSTM", nn.LSTM),
    "torch GRU": ("GRU", nn.GRU),
    "torch RNN": ("RNN", nn.RNN),
    "torch RNN, ReLU": ("RNN, ReLU", partial(nn.RNN, nonlinearity="relu")),
}
KINDS = {name: (name, kind) for name, kind in (MODULES | VARIANTS).items()} | TORCH
STACKED = {"num_layers": 2, "bidirectional": True}
CASES: dict[str, dict[str, Any]] = {
    "one layer": {"lengths": (5, 5), "k": 3},
    "all at once, packed": {"lengths": (3, 6, 4), "k": 2, "warmup": 2, "proj_size": 2, **STACKED},
}
OPTIONS: dict[str, dict[str, Any]] = {
    "batch first": {"lengths": (4, 4), "batch_first": True, **STACKED},
    "unbatched": {"lengths": (5,), "batched": False, **STACKED},
    "packed, sorted": {"lengths": (6, 3), "sorted": True, **STACKED},
    "no biases": {"lengths": (5, 5), "bias": False},
    "zoneout": {"lengths": (5, 3), "zoneout": 0.3, "bidirectional": True},
    "zoneout of h and c": {"lengths": (5, 3), "zoneout": (0.2, 0.5)},
    "residual": {"lengths": (5, 5), "residual": True, **STACKED},
    "what acts in training": {"lengths": (5, 5), "variational_dropout": 0.5, "weight_dropout": 0.5, "dropout": 0.5}
    | STACKED,
    "clamped gradients": {"lengths": (5, 5), "clip_grad_state": 1e-3},
}


def made(kind: Callable[..., nn.Module], **options: Any) -> nn.Module:
    module = kind(IN, H, **{"dtype": torch.float64} | options)
    with torch.no_grad():
        for name, param in module.named_parameters():
            param.uniform_(-1.1, 1.1)  # within the bound of an IndRNN
            if getattr(module, "nonlinearity", "") == "relu":
                param.abs_().add_(3.0 if "bias" in name else 0.0)  # all are open: tests of their own close them
    return module


def compared(cell: str, kind: Callable[..., nn.Module], case: dict[str, Any]) -> None:
    options = dict(case)
    lengths, k, warmup = options.pop("lengths"), options.pop("k", 2), options.pop("warmup", 0)
    batched, is_sorted = options.pop("batched", True), options.pop("sorted", False)
    module = made(kind, **{name: v for name, v in options.items() if name != "proj_size" or projected(kind)})
    sequences = [torch.randn(n, IN, dtype=torch.float64) for n in lengths]
    count = module.num_layers * (2 if module.bidirectional else 1)
    two = isinstance(module, nn.LSTM) or (hasattr(module, "recurrence") and len(module.recurrence.rates) == 2)
    widths = (getattr(module, "proj_size", 0) or H, H)[: 2 if two else 1]
    states = [torch.randn(count, len(lengths), width, dtype=torch.float64) for width in widths]
    if len(set(lengths)) > 1:
        inputs: Any = pack_sequence(sequences, enforce_sorted=is_sorted)
    else:
        inputs = torch.stack(sequences, 0 if options.get("batch_first") else 1) if batched else sequences[0]
    found = lyapunov_spectrum(
        module, inputs, k, hx=as_hx(states if batched else (s[:, 0] for s in states)), warmup=warmup
    )
    zones = module.recurrence.rates if hasattr(module, "recurrence") else (0.0,) * len(widths)
    expected = [
        oracle.spectra(cell, module, x.numpy(), [s[:, i].numpy() for s in states], k, warmup, zones)
        for i, x in enumerate(sequences)
    ]
    assert [one.name for one in found] == list(expected[0])
    for name, exponents, spread, each in found:
        right = np.array([of_sequence[name] for of_sequence in expected])
        assert np.isfinite(right).all()
        np.testing.assert_allclose(each.numpy(), right, rtol=1e-6, atol=1e-7)
        np.testing.assert_allclose(exponents.numpy(), right.mean(0), rtol=1e-6, atol=1e-7)
        np.testing.assert_allclose(spread.numpy(), right.std(0), rtol=1e-6, atol=1e-7)
        assert {t.dtype for t in (exponents, spread, each)} == {torch.float64}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("name", KINDS)
def test_exponents_are_those_of_the_product_of_jacobians(name: str, case: str) -> None:
    compared(*KINDS[name], CASES[case])


@pytest.mark.parametrize("case", OPTIONS)
def test_with_every_form_and_option(case: str) -> None:
    compared("LSTM", gnn.LSTM, OPTIONS[case])


def test_all_exponents_add_up_to_the_volume() -> None:
    """With all directions it does not matter which ones one begins with: the sum is the mean of log |det J|."""
    module, x = made(nn.LSTM), torch.randn(20, IN, dtype=torch.float64)
    jacobians, _ = oracle.along(oracle.step_of("LSTM", module, "_l0"), x.numpy(), (np.zeros(H), np.zeros(H)))
    [found] = lyapunov_spectrum(module, x, 2 * H, warmup=0)
    volume = np.mean([np.linalg.slogdet(j)[1] for j in jacobians])
    assert found.exponents.sum().item() == pytest.approx(volume, rel=1e-9)


def test_the_leading_ones_do_not_depend_on_how_many_are_asked_for() -> None:
    module, x = made(gnn.GRU), torch.randn(30, IN, dtype=torch.float64)
    [two], [four] = (lyapunov_spectrum(module, x, k) for k in (2, 4))
    torch.testing.assert_close(two.exponents, four.exponents[:2])


def test_a_qr_less_often_gives_the_same() -> None:
    module = made(gnn.GRU, bidirectional=True)
    x = pack_sequence([torch.randn(n, IN, dtype=torch.float64) for n in (11, 30, 23)], enforce_sorted=False)
    often, seldom = (lyapunov_spectrum(module, x, 3, every=every) for every in (1, 4))
    for a, b in zip(often, seldom, strict=True):
        torch.testing.assert_close(a.each, b.each, rtol=1e-9, atol=1e-9)


def test_warmup_is_a_fifth_of_each_sequence() -> None:
    module, sequences = made(gnn.LSTM), [torch.randn(n, IN, dtype=torch.float64) for n in (10, 25)]
    [both] = lyapunov_spectrum(module, pack_sequence(sequences, enforce_sorted=False), 2)
    for i, (x, warmup) in enumerate(zip(sequences, (2, 5), strict=True)):
        [alone] = lyapunov_spectrum(module, x, 2, warmup=warmup)
        torch.testing.assert_close(both.each[i], alone.exponents)


def linear_rnn(weight: Tensor, **options: Any) -> nn.RNN:
    rnn = nn.RNN(1, len(weight), dtype=torch.float64, **{"bias": False} | options)
    rnn.weight_hh_l0.data.copy_(weight)
    return rnn


def test_of_a_linear_rnn_they_are_the_logarithms_of_the_eigenvalues() -> None:
    values = torch.tensor([0.95, -0.7, 0.5, -0.3], dtype=torch.float64)
    basis = torch.eye(4, dtype=torch.float64) + 0.4 * torch.randn(4, 4, dtype=torch.float64)
    rnn = linear_rnn(basis @ values.diag() @ basis.inverse())
    [found] = lyapunov_spectrum(rnn, torch.zeros(400, 1), 4, warmup=200)  # h stays 0, where tanh is the identity
    torch.testing.assert_close(found.exponents, values.abs().log(), rtol=1e-9, atol=1e-9)
    assert found.spread.tolist() == [0.0] * 4


def test_of_a_relu_rnn_that_is_open_too() -> None:
    rnn = linear_rnn(torch.tensor([[0.5, 0.3], [0.3, 0.5]]), nonlinearity="relu")
    rnn.weight_ih_l0.data.fill_(1.0)
    [found] = lyapunov_spectrum(rnn, torch.rand(200, 3, 1) + 0.1, 2)
    torch.testing.assert_close(found.exponents, torch.tensor([0.8, 0.2], dtype=torch.float64).log())


def test_an_orthogonal_weight_turns_and_scales() -> None:
    turn = torch.linalg.qr(torch.randn(5, 5, dtype=torch.float64))[0]
    [found] = lyapunov_spectrum(linear_rnn(1.1 * turn), torch.zeros(50, 1), 5)
    torch.testing.assert_close(found.exponents, torch.full((5,), math.log(1.1), dtype=torch.float64))


def test_directions_without_rank_are_lost_and_no_nan() -> None:
    thin = torch.randn(6, 2, dtype=torch.float64)
    [found] = lyapunov_spectrum(linear_rnn(0.2 * thin @ thin.T), torch.zeros(60, 2, 1), 4)
    assert found.exponents[:2].isfinite().all()
    assert found.exponents[2:].tolist() == [-math.inf] * 2
    assert found.spread[2:].tolist() == [0.0] * 2


def test_a_closed_relu_loses_all_in_its_sequence_alone() -> None:
    rnn = linear_rnn(0.5 * torch.eye(3), nonlinearity="relu")
    rnn.weight_ih_l0.data.fill_(1.0)
    x = torch.stack([torch.ones(10, 1), torch.cat([torch.ones(9, 1), -10 * torch.ones(1, 1)])], 1)
    [found] = lyapunov_spectrum(rnn, x, 3)
    torch.testing.assert_close(found.each[0], torch.full((3,), math.log(0.5), dtype=torch.float64))
    assert found.each[1].tolist() == found.exponents.tolist() == [-math.inf] * 3
    assert found.spread.tolist() == [math.inf] * 3


def test_units_that_close_at_different_steps_stay_lost() -> None:
    rnn = gnn.IndRNN(4, 4, length=100, dtype=torch.float64)
    rnn.weight_ih_l0.data.copy_(torch.eye(4))
    rnn.weight_hh_l0.data.copy_(torch.tensor([0.9, 0.8, 0.6, 0.7]))
    x = torch.ones(40, 4, dtype=torch.float64)
    x[10, 0] = x[25, 1] = -100.0
    [found] = lyapunov_spectrum(rnn, x, 4, warmup=0)
    jacobians, _ = oracle.along(oracle.step_of("IndRNN", rnn, "_l0"), x.numpy(), (np.zeros(4),))
    assert found.exponents[:2].tolist() == pytest.approx(oracle.exponents(jacobians, 2), rel=1e-9)
    assert found.exponents[2:].tolist() == [-math.inf] * 2


def test_what_closes_in_the_warmup_begins_anew() -> None:
    rnn = linear_rnn(torch.tensor([[0.5, 0.3], [0.3, 0.5]]), nonlinearity="relu")
    rnn.weight_ih_l0.data.fill_(1.0)
    x = torch.ones(60, 2, 1)
    x[0, 0] = 0.0
    [found] = lyapunov_spectrum(rnn, x, 2, warmup=0)
    assert found.each[0].tolist() == [-math.inf] * 2
    [found] = lyapunov_spectrum(rnn, x, 2, warmup=1)
    rest = oracle.exponents([rnn.weight_hh_l0.detach().numpy()] * 10, 2)
    torch.testing.assert_close(lyapunov_spectrum(rnn, x[:11], 2, warmup=1)[0].each[0], torch.from_numpy(rest))
    assert found.each[0].tolist() == pytest.approx([math.log(0.8), math.log(0.2)], abs=0.04)


def leading(step: oracle.Step, xs: np.ndarray, size: int, *, with_c: bool) -> float:
    """The first exponent of an LSTM by power iteration: of h and c together, or of h with c held fixed."""
    h, c, total = np.zeros(size), np.zeros(size), 0.0
    direction = random_directions(2 * size if with_c else size, 1, "cpu").numpy()[:, 0]
    for t, x in enumerate(xs):

        def next_state(s: np.ndarray, t: int = t, x: np.ndarray = x, c: np.ndarray = c) -> np.ndarray:
            return np.concatenate(step(t, x, (s[:size], s[size:]))) if with_c else step(t, x, (s, c))[0]

        direction = oracle.jacobian(next_state, np.concatenate([h, c]) if with_c else h) @ direction
        h, c = step(t, x, (h, c))
        total += math.log(np.linalg.norm(direction))
        direction /= np.linalg.norm(direction)
    return total / len(xs)


@pytest.mark.parametrize(("forget_bias", "expected"), [(0.0, -0.53), (1.0, -0.22), (3.0, -0.03), (6.0, 0.0)])
def test_the_memory_of_an_lstm_is_in_its_cell(forget_bias: float, expected: float) -> None:
    """With c held fixed, as some code has it, an open forget gate would look like one that is closed."""
    size = 16
    lstm, x = nn.LSTM(size, size, dtype=torch.float64), torch.randn(200, size, dtype=torch.float64)
    for bias, value in ((lstm.bias_ih_l0, forget_bias), (lstm.bias_hh_l0, 0.0)):
        bias.data[size : 2 * size] = value
    [found] = lyapunov_spectrum(lstm, x, 1, warmup=0)
    step = oracle.step_of("LSTM", lstm, "_l0")
    assert found.exponents.item() == pytest.approx(leading(step, x.numpy(), size, with_c=True), rel=1e-9)
    assert found.exponents.item() == pytest.approx(expected, abs=0.02)
    assert leading(step, x.numpy(), size, with_c=False) < -1.7


def test_a_stack_is_its_layers_one_after_another() -> None:
    layers = [made(gnn.LSTM, bidirectional=True), nn.GRU(2 * H, 2, 2, dtype=torch.float64)]
    stack = gnn.Stack([*layers, gnn.IndRNN(2, 3, length=9)], residual=True, norm=nn.BatchNorm1d)
    for norm in stack.norms:
        norm.running_mean.normal_()
    x = torch.randn(9, 2, IN, dtype=torch.float64)
    before = copy.deepcopy(stack.state_dict())
    h = torch.randn(2, 2, 2, dtype=torch.float64)
    found = lyapunov_spectrum(stack, x, 2, hx=[None, h, None])
    assert all(torch.equal(before[name], value) for name, value in stack.state_dict().items())
    assert [one.name for one in found] == [
        *("layers.0.l0", "layers.0.l0_reverse", "layers.1.l0", "layers.1.l1", "layers.2.l0")
    ]
    alone, stack = [], copy.deepcopy(stack).double().eval()
    for i, (layer, hx) in enumerate(zip(stack.layers, (None, h, None), strict=True)):
        alone += lyapunov_spectrum(layer, x, 2, hx=hx)
        out = layer(x, hx)[0].detach()
        if i < 2:
            out = stack.norms[i](out.flatten(0, 1)).view(out.shape).detach()
        x = out + stack.shortcuts[i](x).detach()
    for a, b in zip(found, alone, strict=True):
        torch.testing.assert_close(a.each, b.each, rtol=1e-6, atol=1e-6)


def same(a: tuple[LyapunovSpectrum, ...], b: tuple[LyapunovSpectrum, ...], rtol: float = 1e-10) -> None:
    assert len(a) == len(b)
    for one, other in zip(a, b, strict=True):
        torch.testing.assert_close(one.each, other.each, rtol=rtol, atol=rtol)


def options_of(kind: Callable[..., nn.Module]) -> dict[str, Any]:
    if kind in (nn.LSTM, nn.GRU):
        return {"dropout": 0.5, **STACKED}
    return {"dropout": 0.5, "variational_dropout": 0.3, "zoneout": 0.3, "weight_dropout": 0.3, **STACKED}


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, gnn.LSTM, MODULES["BatchNormLSTM"], gnn.MUT1])
def test_a_look_leaves_no_trace_and_needs_no_mode(kind: Callable[..., nn.Module]) -> None:
    module, x = made(kind, **options_of(kind)), torch.randn(8, 2, IN, dtype=torch.float64)
    parametrizations.spectral_norm(module, "weight_hh_l0")
    module.weight_ih_l0.requires_grad_(False)
    expected = lyapunov_spectrum(copy.deepcopy(module).eval(), x, 3)
    module.train()
    module.weight_hh_l1.grad = torch.ones_like(module.weight_hh_l1)
    state, rng, given = copy.deepcopy(module.state_dict()), torch.get_rng_state(), x.clone()
    modes = [part.training for part in module.modules()]
    wants = {name: p.requires_grad for name, p in module.named_parameters()}
    same(lyapunov_spectrum(module, x, 3), expected)
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        found = lyapunov_spectrum(module, x, 3)
    same(found, expected)
    assert not found[0].exponents.is_inference()
    assert torch.equal(torch.get_rng_state(), rng)
    assert all(torch.equal(state[name], value) for name, value in module.state_dict().items())
    assert state.keys() == module.state_dict().keys()
    assert [part.training for part in module.modules()] == modes
    assert {name: p.requires_grad for name, p in module.named_parameters()} == wants
    assert {name for name, p in module.named_parameters() if p.grad is not None} == {"weight_hh_l1"}
    assert torch.equal(x, given)
    assert torch.is_grad_enabled()


def test_a_vector_of_an_ind_rnn_that_left_its_bound_counts_as_far_as_the_bound() -> None:
    rnn = gnn.IndRNN(1, 2, length=10, nonlinearity="tanh")
    rnn.weight_hh_l0.data.copy_(torch.tensor([5.0, 0.5]))
    [found] = lyapunov_spectrum(rnn, torch.zeros(100, 1), 2)
    assert found.exponents[0].item() == pytest.approx(math.log(2) / 10, rel=1e-6)
    assert rnn.weight_hh_l0.tolist() == [5.0, 0.5]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_weights_of_any_dtype_are_taken_as_they_are(dtype: torch.dtype) -> None:
    module, x = made(gnn.LayerNormLSTM).to(dtype), torch.randn(8, 2, IN).to(dtype)
    same(lyapunov_spectrum(module, x, 3), lyapunov_spectrum(copy.deepcopy(module).double(), x, 3), rtol=1e-12)


class Halved(nn.Module):
    def forward(self, weight: Tensor) -> Tensor:
        return weight / 2


def halve_by_parametrization(module: nn.Module) -> None:
    parametrize.register_parametrization(module, "weight_hh_l0", Halved())


def halve_by_weight_norm(module: nn.Module) -> None:
    weight_norm(module, "weight_hh_l0")
    with torch.no_grad():
        module.weight_hh_l0_g.mul_(0.5)  # the attribute is still what it was


@pytest.mark.filterwarnings("ignore:.*weight_norm. is deprecated:FutureWarning")
@pytest.mark.parametrize("halve", [halve_by_parametrization, halve_by_weight_norm])
def test_weights_that_are_computed_are_those_of_the_next_pass(halve: Callable[[nn.Module], None]) -> None:
    module, x = made(gnn.GRU), torch.randn(8, 2, IN, dtype=torch.float64)
    plain = copy.deepcopy(module)
    plain.weight_hh_l0.data.mul_(0.5)
    halve(module)
    same(lyapunov_spectrum(module, x, 2), lyapunov_spectrum(plain, x, 2))


def test_weights_of_older_hooks_too() -> None:
    module, x = made(gnn.GRU), torch.randn(8, 2, IN, dtype=torch.float64)
    plain, normed = copy.deepcopy(module), copy.deepcopy(module)
    prune.l1_unstructured(module, "weight_hh_l0", 0.5)
    module.weight_hh_l0_orig.data.mul_(2)
    plain.weight_hh_l0.data.mul_(2).mul_(module.weight_hh_l0_mask)
    same(lyapunov_spectrum(module, x, 2), lyapunov_spectrum(plain, x, 2))
    plain.weight_hh_l0.data.copy_(normed.weight_hh_l0 / torch.linalg.matrix_norm(normed.weight_hh_l0, 2))
    nn.utils.spectral_norm(normed, "weight_hh_l0", n_power_iterations=300)
    normed(x)
    before = normed.weight_hh_l0_u.clone()
    same(lyapunov_spectrum(normed, x, 2), lyapunov_spectrum(plain, x, 2), rtol=1e-8)
    assert torch.equal(normed.weight_hh_l0_u, before)


@pytest.fixture
def alone() -> Iterator[None]:
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


@pytest.mark.filterwarnings("ignore")
def test_sharded_weights_are_taken_whole(alone: None) -> None:
    from torch.distributed.fsdp import fully_shard

    module, x = made(gnn.LSTM, **STACKED), torch.randn(6, 2, IN, dtype=torch.float64)
    expected = lyapunov_spectrum(module, x, 2)
    fully_shard(module, mesh=dist.init_device_mesh("cpu", (1,)))
    same(lyapunov_spectrum(module, x, 2), expected)


def poisoned() -> nn.Module:
    module = nn.GRU(IN, H)
    module.weight_hh_l0.data[0, 0] = math.nan
    return module


X = torch.ones(5, 2, IN)
COMPILED = torch.compile(nn.GRU(3, 3), backend="eager")
EXPLODING = linear_rnn(torch.tensor([[1e3]]), nonlinearity="relu")
BAD: dict[str, tuple[Callable[[], Any], type[Exception], str]] = {
    "Linear": (lambda: lyapunov_spectrum(nn.Linear(3, 3), X, 1), ValueError, "needs an RNN, GRU or LSTM.*got Linear"),
    "a model": (
        lambda: lyapunov_spectrum(nn.Sequential(nn.Linear(3, 3), nn.LSTM(3, 3)), X, 1),
        ValueError,
        r"It holds 1 \(LSTM\): give that",
    ),
    "a cell": (lambda: lyapunov_spectrum(nn.LSTMCell(3, 3), X, 1), ValueError, "got LSTMCell, which takes one step"),
    "a cell of ours": (lambda: lyapunov_spectrum(gnn.GRUCell(3, 3), X, 1), ValueError, "GRUCell, which takes one step"),
    "no module": (lambda: lyapunov_spectrum(3, X, 1), TypeError, "needs a recurrent torch.nn.Module, got int"),
    "compiled": (
        lambda: lyapunov_spectrum(COMPILED, X, 1),
        TypeError,
        "that is not compiled",
    ),
    "meta": (lambda: lyapunov_spectrum(nn.GRU(3, 3, device="meta"), X, 1), ValueError, "weight_ih_l0.*meta device"),
    "NaN in a weight": (lambda: lyapunov_spectrum(poisoned(), X, 1), ValueError, "weight_hh_l0 of this GRU holds NaN"),
    "NaN in inputs": (lambda: lyapunov_spectrum(nn.GRU(3, 3), X * math.nan, 1), ValueError, "the input holds NaN"),
    "NaN in hx": (
        lambda: lyapunov_spectrum(nn.GRU(3, 3), X, 1, hx=torch.full((1, 2, 3), math.nan)),
        ValueError,
        "hx holds NaN",
    ),
    "T = 0": (lambda: lyapunov_spectrum(nn.GRU(3, 3), X[:0], 1), ValueError, "needs a sequence with a step, got 0"),
    "B = 0": (lambda: lyapunov_spectrum(nn.GRU(3, 3), X[:, :0], 1), ValueError, "got 5 steps of 0 sequences"),
    "k = 0": (lambda: lyapunov_spectrum(nn.GRU(3, 3), X, 0), ValueError, "needs k to be an integer >= 1, got 0"),
    "k > H": (lambda: lyapunov_spectrum(nn.GRU(3, 3), X, 4), ValueError, "k <= 3, the width of the state of l0, got 4"),
    "k > 2 H": (lambda: lyapunov_spectrum(nn.LSTM(3, 3), X, 7), ValueError, "k <= 6, .* got 7"),
    "k > P + H": (lambda: lyapunov_spectrum(nn.LSTM(3, 3, proj_size=1), X, 5), ValueError, "k <= 4, .* got 5"),
    "k of a Stack": (
        lambda: lyapunov_spectrum(gnn.Stack([nn.LSTM(3, 3), nn.GRU(3, 3)]), X, 4),
        ValueError,
        "k <= 3, the width of the state of layers.1.l0, got 4",
    ),
    "warmup": (lambda: lyapunov_spectrum(nn.GRU(3, 3), X, 1, warmup=5), ValueError, "needs warmup < 5, .* got 5"),
    "warmup < 0": (lambda: lyapunov_spectrum(nn.GRU(3, 3), X, 1, warmup=-1), ValueError, "warmup .* >= 0, got -1"),
    "every": (lambda: lyapunov_spectrum(nn.GRU(3, 3), X, 1, every=0), ValueError, "every .* >= 1, got 0"),
    "integers": (lambda: lyapunov_spectrum(nn.GRU(3, 3), X.long(), 1), TypeError, "floating dtype.*got one of torch.i"),
    "a list": (lambda: lyapunov_spectrum(nn.GRU(3, 3), [X], 1), TypeError, "PackedSequence, got list"),
    "4-D": (lambda: lyapunov_spectrum(nn.GRU(3, 3), X[None], 1), ValueError, "2 or 3 dimensions, got the shape"),
    "width": (lambda: lyapunov_spectrum(nn.GRU(4, 3), X, 1), ValueError, "input_size = 4, got 3"),
    "hx of one": (lambda: lyapunov_spectrum(nn.LSTM(3, 3), X, 1, hx=torch.zeros(1, 2, 3)), ValueError, "hx of the sh"),
    "hx shape": (lambda: lyapunov_spectrum(nn.GRU(3, 3), X, 1, hx=torch.zeros(1, 3)), ValueError, r"got \(1, 3\)"),
    "hx type": (
        lambda: lyapunov_spectrum(nn.GRU(3, 3), X, 1, hx=[1.0]),
        TypeError,
        "for each of 1 states, got list",
    ),
    "hx of a stack": (
        lambda: lyapunov_spectrum(gnn.Stack([nn.GRU(3, 3)]), X, 1, hx=torch.zeros(1, 2, 3)),
        ValueError,
        "hx of a Stack to be a list",
    ),
    "Stack of others": (
        lambda: lyapunov_spectrum(gnn.Stack([Recurrent()]), X, 1),
        ValueError,
        "needs an RNN, GRU or LSTM.*got Recurrent",
    ),
    "untrained": (lambda: lyapunov_spectrum(gnn.BatchNormLSTM(3, 3), X, 1), ValueError, "train it on a batch first"),
    "overflow": (
        lambda: lyapunov_spectrum(EXPLODING, torch.zeros(200, 1), 1, hx=torch.ones(1, 1)),
        ValueError,
        "l0 leaves it. Take fewer steps[.]",
    ),
    "growth between two QRs": (
        lambda: lyapunov_spectrum(linear_rnn(torch.tensor([[1e3]])), torch.zeros(200, 1), 1, warmup=0, every=200),
        ValueError,
        "Take fewer steps, or every=1[.]",
    ),
}


class Recurrent(nn.Linear):
    input_size, hidden_size, batch_first = 3, 3, False

    def __init__(self) -> None:
        super().__init__(3, 3)


@pytest.mark.parametrize("case", BAD)
def test_bad_input(case: str) -> None:
    call, error, message = BAD[case]
    with pytest.raises(error, match=message):
        call()


@pytest.mark.filterwarnings("ignore:.*torch.jit.script. is deprecated:DeprecationWarning")
def test_a_scripted_module() -> None:
    with pytest.raises(TypeError, match="scripted"):
        lyapunov_spectrum(torch.jit.script(nn.GRU(3, 3)), X, 1)
