"""Unit-wise clipping against the paper's equation, for every kind of layer whose units lie elsewhere."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from gradguard.clip import AGC, Binding
from gradguard.functional import measure
from tests.clip import oracle

LAYERS: dict[str, tuple[Callable[[], nn.Module], str, int]] = {
    "linear": (lambda: nn.Linear(5, 3), "rows", 1),
    "bilinear": (lambda: nn.Bilinear(2, 3, 4), "rows", 1),
    "conv 1d": (lambda: nn.Conv1d(4, 6, 3), "rows", 1),
    "conv 2d, groups": (lambda: nn.Conv2d(4, 6, 3, groups=2), "rows", 1),
    "conv 3d": (lambda: nn.Conv3d(2, 3, 2), "rows", 1),
    "conv transpose 1d": (lambda: nn.ConvTranspose1d(4, 6, 3), "transposed", 1),
    "conv transpose 1d, groups": (lambda: nn.ConvTranspose1d(4, 6, 3, groups=2), "transposed", 2),
    "conv transpose 2d, groups": (lambda: nn.ConvTranspose2d(6, 9, (2, 3), groups=3), "transposed", 3),
    "conv transpose 3d": (lambda: nn.ConvTranspose3d(4, 6, 2), "transposed", 1),
    "depthwise conv transpose": (lambda: nn.ConvTranspose2d(4, 4, 3, groups=4), "transposed", 4),
    "embedding": (lambda: nn.Embedding(7, 3), "rows", 1),
    "lstm": (lambda: nn.LSTM(3, 4, num_layers=2, bidirectional=True, proj_size=2), "rows", 1),
    "attention": (lambda: nn.MultiheadAttention(4, 2), "rows", 1),
    "layer norm": (lambda: nn.LayerNorm(5), "rows", 1),
}


def filled(layer: nn.Module, seed: int) -> nn.Module:
    """Weights and gradients whose units are of very different size, some of them zero."""
    rng = np.random.default_rng(seed)
    for param in layer.parameters():
        for tensor, scale in ((param.data, 0.5), (None, 0.02)):
            values = scale * rng.normal(size=param.shape)
            values = values * np.exp(rng.normal(size=param.shape[:1] + (1,) * (param.ndim - 1)))
            if param.ndim > 1:
                values[rng.integers(len(values))] = 0
            if tensor is None:
                param.grad = torch.from_numpy(values).to(param)
            else:
                tensor.copy_(torch.from_numpy(values))
    return layer


@pytest.mark.parametrize("kind", LAYERS)
def test_each_unit_of_each_layer_is_clipped_as_the_paper_says(kind: str) -> None:
    make, units, groups = LAYERS[kind]
    moved = []
    for seed in range(4):
        layer = filled(make().double(), seed)
        raw = {name: param.grad.numpy().copy() for name, param in layer.named_parameters()}
        AGC(0.03, exclude=(), vectors=True).clip_(layer)
        for name, param in layer.named_parameters():
            where = units if name == "weight" else "rows"
            expected = oracle.agc(raw[name], param.detach().numpy(), 0.03, 1e-3, where, groups)
            np.testing.assert_allclose(param.grad.numpy(), expected, rtol=1e-12, atol=0, err_msg=f"{name}, {seed}")
            moved.append((expected != raw[name]).mean())
    assert max(moved) > 0
    assert min(moved) < 1


def test_units_on_the_wrong_axis_would_give_other_gradients() -> None:
    """The layers above tell the axes apart."""
    for kind in ("linear", "conv transpose 1d", "conv transpose 2d, groups"):
        make, units, groups = LAYERS[kind]
        layer = filled(make().double(), 0)
        weight, grad = layer.weight.detach().numpy(), layer.weight.grad.numpy()
        right = oracle.agc(grad, weight, 0.03, 1e-3, units, groups)
        wrong = oracle.agc(grad, weight, 0.03, 1e-3, *(("rows", 1) if units == "transposed" else ("transposed", 1)))
        assert not np.allclose(right, wrong)


def test_names_without_modules_are_not_taken_for_another_layer() -> None:
    """``clip_(model.named_parameters())`` clips what ``clip_(model)`` does, or says that it can't know."""
    by_model, by_names = (filled(nn.Sequential(nn.ConvTranspose1d(4, 6, 3)).double(), 0) for _ in range(2))
    AGC(0.03, exclude=()).clip_(by_model)
    try:
        AGC(0.03, exclude=()).clip_(by_names.named_parameters())
    except ValueError:
        return
    torch.testing.assert_close(by_names[0].weight.grad, by_model[0].weight.grad, rtol=1e-12, atol=0)


def clipped(weight: list[list[float]], grad: list[list[float]], clipping: float = 0.01) -> Tensor:
    param = nn.Parameter(torch.tensor(weight, dtype=torch.float64))
    param.grad = torch.tensor(grad, dtype=torch.float64)
    AGC(clipping, exclude=()).clip_([param])
    return param.grad


def test_the_papers_numbers() -> None:
    assert clipped([[3.0, 4.0]], [[0.0, 2.0]]).norm() == pytest.approx(0.05, rel=1e-12)
    assert clipped([[0.0, 0.0]], [[0.0, 2.0]]).norm() == pytest.approx(1e-5, rel=1e-12)  # a unit at zero learns
    assert clipped([[3.0, 4.0]], [[0.03, 0.03]]).tolist() == [[0.03, 0.03]]


def test_a_vector_is_one_unit() -> None:
    bias = nn.Parameter(torch.tensor([3.0, 4.0], dtype=torch.float64))
    bias.grad = torch.tensor([40.0, 30.0], dtype=torch.float64)
    AGC(exclude=(), vectors=True).clip_([bias])
    torch.testing.assert_close(bias.grad, torch.tensor([0.04, 0.03], dtype=torch.float64), rtol=1e-12, atol=0)


def test_half_weights_and_gradients_whose_squares_leave_their_range() -> None:
    weight = nn.Parameter(torch.full((2, 400), 300.0, dtype=torch.float16))
    weight.grad = torch.full((2, 400), 600.0, dtype=torch.float16)
    AGC(0.5, exclude=()).clip_([weight])
    assert weight.grad.tolist() == [[150.0] * 400] * 2


def test_its_threshold_is_the_norm_beyond_which_something_is_clipped_at_the_latest() -> None:
    layer = filled(nn.Linear(5, 3).double(), 1)
    params = (layer.weight, layer.bias)
    clipper = AGC(0.03, exclude=(), vectors=True)
    factors, _ = clipper.coefficients(measure(params), clipper.bind(Binding(("w", "b"), params, (layer, layer))))
    limits = [
        0.03 * max(oracle.norm(row), 1e-3) for row in [*layer.weight.detach().numpy(), layer.bias.detach().numpy()]
    ]
    assert float(factors.threshold) == pytest.approx(math.hypot(*limits), rel=1e-12)


def test_the_same_names_may_be_those_of_another_layer() -> None:
    first, other, alone = (
        filled(nn.Sequential(make()).double(), 0)
        for make in (lambda: nn.Conv1d(6, 4, 3), *[lambda: nn.ConvTranspose1d(4, 6, 3)] * 2)
    )
    clipper = AGC(0.03, exclude=())
    clipper.clip_(first)
    clipper.clip_(other)
    AGC(0.03, exclude=()).clip_(alone)
    assert torch.equal(other[0].weight.grad, alone[0].weight.grad)
