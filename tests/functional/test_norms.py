"""Norms against the float64 oracle, over shapes, dtypes and layouts as they come."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gradguard.functional import norms, total_norm, unit_norms
from gradguard.functional.norms import LARGE, ROW
from tests import reference

TOLERANCE = {torch.float64: 1e-12, torch.complex128: 1e-12}
DTYPES = [torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.complex64, torch.complex128]
NORM_TYPES = [0.5, 1.0, 2.0, 3.0, 64.0, math.inf]


def numpy_of(tensor: torch.Tensor) -> np.ndarray:
    dense = tensor.to_dense() if tensor.layout is not torch.strided else tensor
    return (dense.to(torch.complex128) if dense.is_complex() else dense.double()).numpy()


@st.composite
def tensors(draw: st.DrawFn) -> torch.Tensor:
    shape = draw(st.lists(st.integers(0, 9), min_size=0, max_size=4))
    dtype = draw(st.sampled_from(DTYPES))
    scale = 10.0 ** draw(st.integers(-4, 4))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**32)))
    tensor = (torch.randn(shape, generator=generator, dtype=torch.float64) * scale).to(dtype)
    kind = draw(st.sampled_from(["dense", "transposed", "strided", "sparse", "constant"]))
    if kind == "sparse" and tensor.ndim == 2 and tensor.numel() and dtype not in (torch.float16, torch.bfloat16):
        rows = torch.randint(0, len(tensor), (1, 3), generator=generator)  # may hold duplicates
        return torch.sparse_coo_tensor(rows, tensor[rows[0]], tensor.shape, check_invariants=True)
    if kind == "transposed" and tensor.ndim >= 2:
        return tensor.transpose(0, -1)
    if kind == "strided" and tensor.ndim:
        return tensor.repeat_interleave(2, dim=-1)[..., ::2]
    return torch.full_like(tensor, 0.1) if kind == "constant" else tensor


@given(st.lists(tensors(), min_size=1, max_size=6), st.sampled_from(NORM_TYPES))
def test_norms_equal_the_oracle_for_any_mix_of_tensors(drawn: list[torch.Tensor], p: float) -> None:
    found = norms(drawn, p)
    loosest = max(TOLERANCE.get(t.dtype, 1e-6) for t in drawn)
    for tensor, value in zip(drawn, found.tolist(), strict=True):
        assert value == pytest.approx(reference.norm(numpy_of(tensor), p), rel=TOLERANCE.get(tensor.dtype, 1e-6))
    whole = np.concatenate([np.abs(numpy_of(t)).ravel() for t in drawn])
    assert total_norm(found, p).item() == pytest.approx(reference.norm(whole, p), rel=loosest)
    double = any(t.dtype in TOLERANCE for t in drawn)
    assert found.dtype == (torch.float64 if double else torch.float32)


@pytest.mark.parametrize(
    "numel", [LARGE - 1, LARGE, LARGE + 1, 10_000, 7 * ROW + 513, 50_257, 1_000_000, 1_000_003, 30_000_000]
)
@pytest.mark.parametrize("fill", ["normal", "constant"])
def test_large_tensors_keep_six_digits_where_one_reduction_would_lose_them(numel: int, fill: str) -> None:
    tensor = torch.randn(numel) if fill == "normal" else torch.full((numel,), 0.1)
    exact = torch.linalg.vector_norm(tensor, dtype=torch.float64).item()
    assert norms([tensor]).item() == pytest.approx(exact, rel=1e-6)


@pytest.mark.parametrize("layout", ["channels_last", "transposed", "strided", "half"])
@pytest.mark.parametrize("p", [1.0, 2.0, math.inf])
def test_large_tensors_of_every_memory_layout(layout: str, p: float) -> None:
    tensor = {
        "channels_last": torch.randn(8, 16, 9, 9).to(memory_format=torch.channels_last),
        "transposed": torch.randn(130, 70).t(),
        "strided": torch.randn(100, 200)[:, ::2],
        "half": torch.randn(100, 100).half(),
    }[layout]
    assert norms([tensor], p).item() == pytest.approx(reference.norm(numpy_of(tensor), p), rel=1e-6)


def test_half_types_do_not_overflow() -> None:
    found = norms([torch.full((1000,), 3000.0, dtype=torch.float16)])
    assert found.item() == pytest.approx(3000 * math.sqrt(1000), rel=1e-6)


@pytest.mark.parametrize(
    ("value", "dtype"),
    [
        (3e19, torch.float32),
        (3e38, torch.float32),
        (3e38, torch.bfloat16),
        (1e300, torch.float64),
        (1e-30, torch.float32),
    ],
)
@pytest.mark.parametrize("p", [1.0, 2.0, 40.0, math.inf])
def test_exact_norms_survive_what_overflows_or_underflows_when_squared(
    value: float, dtype: torch.dtype, p: float
) -> None:
    tensor = torch.full((50,), value, dtype=dtype)
    assert norms([tensor], p, exact=True).item() == pytest.approx(reference.norm(numpy_of(tensor), p), rel=1e-12)


def test_fast_norm_of_a_finite_gradient_whose_square_overflows_is_inf_never_a_wrong_number() -> None:
    assert norms([torch.full((2,), 3e19)]).item() == math.inf


@pytest.mark.parametrize("exact", [False, True])
@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_nan_and_inf_show_in_the_norm_of_their_own_tensor_only(bad: float, exact: bool) -> None:
    poisoned = torch.ones(4 * ROW)
    poisoned[2 * ROW] = bad
    assert norms([torch.ones(4), poisoned, torch.zeros(3)], exact=exact).isfinite().tolist() == [True, False, True]


@pytest.mark.parametrize("p", [1.0, 2.0])
def test_conjugated_views_and_negated_ones_count_as_they_are(p: float) -> None:
    z = torch.tensor([[3 + 4j, 0], [1j, 2]])
    expected = reference.norm(z.numpy(), p)
    assert norms([z.conj(), z.mH, z.conj().imag, z], p).tolist() == pytest.approx(
        [expected, expected, reference.norm(z.imag.numpy(), p), expected], rel=1e-6
    )


def test_total_of_huge_but_finite_parts_does_not_overflow() -> None:
    assert total_norm(torch.full((4,), 1e30)).item() == pytest.approx(2e30, rel=1e-6)


def test_nothing_has_norm_zero() -> None:
    assert norms([]).shape == (0,)
    assert total_norm(norms([])).item() == 0
    assert norms([torch.zeros(0), torch.zeros(3)]).tolist() == [0, 0]


@pytest.mark.parametrize("p", [1.0, 2.0, math.inf])
@pytest.mark.parametrize("dim", [0, 1])
def test_unit_norms_equal_the_oracle_for_every_slice(p: float, dim: int) -> None:
    weight = torch.randn(5, 3, 2, 2, dtype=torch.float64)
    expected = [reference.norm(part.numpy(), p) for part in weight.unbind(dim)]
    assert unit_norms(weight, p, dim=dim).tolist() == pytest.approx(expected, rel=1e-12)


def test_a_vector_is_one_unit_and_sparse_and_complex_count_as_they_are() -> None:
    assert unit_norms(torch.tensor([3.0, 4.0])).tolist() == [5]
    assert unit_norms(torch.tensor([[3 + 4j]])).tolist() == [5]
    rows = torch.sparse_coo_tensor([[1, 1]], torch.tensor([[3.0, 0.0], [0.0, 4.0]]), (3, 2), check_invariants=True)
    assert unit_norms(rows).tolist() == [0, 5, 0]


@pytest.mark.parametrize("p", [0.0, -1.0, math.nan])
def test_a_norm_needs_a_positive_order(p: float) -> None:
    with pytest.raises(ValueError, match="norms needs norm_type > 0 or inf, got"):
        norms([torch.ones(2)], p)
    with pytest.raises(ValueError, match="unit_norms needs norm_type > 0 or inf, got"):
        unit_norms(torch.ones(2), p)
