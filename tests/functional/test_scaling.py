"""Multiplying in place against plain NumPy, in every layout, type and way to give the factor."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from gradguard.functional import scale_, stored_part

DTYPES = [torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.complex64, torch.complex128]
HALF = (torch.float16, torch.bfloat16)
# Half types: the product is rounded once, the factor is not. Others: factor, product, and the terms of a complex one.
EPS = {dtype: (0.51 if dtype in HALF else 2) * torch.finfo(dtype).eps for dtype in DTYPES}
EPS |= dict.fromkeys((torch.float64, torch.complex128), 1e-12)  # two values of one sparse entry may cancel
META = torch.device("meta")


def tensors(seed: int = 0) -> list[Tensor]:
    """One of every type and layout."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    rows = torch.sparse_coo_tensor([[0, 2, 2]], normal(3, 2), (4, 2), check_invariants=True)
    return [
        *((normal(3, 4) + (1j * normal(3, 4) if dtype.is_complex else 0)).to(dtype) for dtype in DTYPES),
        normal(4, 3).t(),
        normal(6, 4)[::2, 1:3],
        normal(1)[0],
        normal(2, 1)[:0],
        rows,
        rows.coalesce(),
    ]


def numpy_of(tensor: Tensor) -> np.ndarray:
    dense = tensor.to_dense() if tensor.layout is not torch.strided else tensor
    return (dense.to(torch.complex128) if dense.is_complex() else dense.double()).numpy().copy()


class Elsewhere(Tensor):
    """A tensor that must not be read, though it lies on the CPU."""

    is_cpu = False  # type: ignore[assignment]


FACTORS: dict[str, Callable[[list[float]], tuple[object, list[float]]]] = {
    "a float": lambda c: (c[0], [c[0]] * len(c)),
    "a scalar tensor": lambda c: (torch.tensor(c[0], dtype=torch.float64), [c[0]] * len(c)),
    "a float32 scalar": lambda c: (torch.tensor(c[0]), [float(np.float32(c[0]))] * len(c)),
    "one each": lambda c: (torch.tensor(c, dtype=torch.float64), c),
    "a scalar elsewhere": lambda c: (torch.tensor(c[0], dtype=torch.float64).as_subclass(Elsewhere), [c[0]] * len(c)),
    "one each elsewhere": lambda c: (torch.tensor(c, dtype=torch.float64).as_subclass(Elsewhere), c),
}


@pytest.mark.parametrize("way", FACTORS)
@given(each=st.lists(st.floats(1e-3, 1e3), min_size=12, max_size=12), seed=st.integers(0, 50))
@settings(max_examples=15)
def test_every_tensor_is_multiplied_by_its_factor(way: str, each: list[float], seed: int) -> None:
    factor, factors = FACTORS[way](each)
    found = tensors(seed)
    before, places = [numpy_of(t) for t in found], [stored_part(t).data_ptr() for t in found]
    scale_(found, factor)
    for t, raw, factor in zip(found, before, factors, strict=True):
        np.testing.assert_allclose(
            numpy_of(t), raw * factor, rtol=EPS[t.dtype], atol=6e-8 if t.dtype is torch.float16 else 0
        )
    assert [stored_part(t).data_ptr() for t in found] == places


def test_the_types_and_layouts_stay() -> None:
    found = tensors()
    scale_(found, torch.rand(len(found), dtype=torch.float64))
    for t, as_before in zip(found, tensors(), strict=True):
        assert (t.dtype, t.layout, t.shape, t.stride() if t.layout is torch.strided else 0) == (
            as_before.dtype,
            as_before.layout,
            as_before.shape,
            as_before.stride() if as_before.layout is torch.strided else 0,
        )


def test_a_factor_of_one_touches_nothing_and_the_others_are_multiplied_all_the_same() -> None:
    found = [torch.ones(2), torch.ones(2), torch.ones(2)]
    versions = [t._version for t in found]
    scale_(found, 1.0)
    scale_(found, torch.ones(3))
    scale_(found, torch.ones(()))
    assert [t._version for t in found] == versions
    scale_(found, torch.tensor([1.0, 0.5, 1.0]))
    assert [t.tolist() for t in found] == [[1, 1], [0.5, 0.5], [1, 1]]
    assert [t._version for t in found] == [versions[0], versions[1] + 1, versions[2]]


@pytest.mark.parametrize("factor", [0.5, torch.tensor(0.5), torch.tensor([0.5, 0.25])])
def test_nan_and_inf_stay_what_they_are(factor: Tensor | float) -> None:
    found = [torch.tensor([math.nan, math.inf, -math.inf]), torch.tensor([math.inf, 8.0, 0.0])]
    scale_(found, factor)
    assert str(found[0].tolist()) == "[nan, inf, -inf]"
    last = 0.25 if isinstance(factor, Tensor) and factor.ndim else 0.5
    assert found[1].tolist() == [math.inf, 8 * last, 0]


@pytest.mark.parametrize("way", [float, torch.tensor, lambda c: torch.tensor([c])])
@pytest.mark.parametrize("factor", [1e-5, 1e-7, 1e-8, 3e-9])
def test_half_types_are_multiplied_by_a_factor_that_is_no_half(way: Callable[[float], object], factor: float) -> None:
    for value, dtype in ((60_000.0, torch.float16), (3e38, torch.bfloat16)):
        found = [torch.tensor([value], dtype=dtype)]
        expected = found[0].item() * factor
        scale_(found, way(factor))
        assert found[0].item() == pytest.approx(expected, rel=0.51 * torch.finfo(dtype).eps, abs=3e-8)


@pytest.mark.parametrize(
    "way", [float, lambda c: torch.tensor(c, dtype=torch.float64), lambda c: torch.tensor([c], dtype=torch.float64)]
)
@pytest.mark.parametrize("factor", [1e-37, 1e-39, 1e-44, 3e-46])
def test_float32_is_multiplied_by_a_factor_that_is_no_float32(way: Callable[[float], object], factor: float) -> None:
    found = [torch.tensor([3e38])]
    expected = found[0].item() * factor
    scale_(found, way(factor))
    assert found[0].item() == pytest.approx(expected, rel=1e-6, abs=0)


@pytest.mark.parametrize("n", [0, 1])
def test_no_factor_on_a_device_sets_anything_to_zero(n: int) -> None:
    found = [torch.tensor([3e38]), torch.tensor([1e300], dtype=torch.float64)]
    factor = torch.full([2] * n, 1e-60, dtype=torch.float64).as_subclass(Elsewhere)
    scale_(found, factor)
    assert all(t > 0 for t in found)


def test_no_tensor_is_no_trouble_and_a_factor_for_each_is_needed() -> None:
    scale_([], 0.5)
    scale_([], torch.zeros(0))
    with pytest.raises(ValueError, match="zip"):
        scale_([torch.ones(1)], torch.ones(2))


def test_parameters_that_require_a_gradient_are_multiplied_in_place_without_a_graph() -> None:
    weight = torch.ones(2, requires_grad=True)
    scale_([weight], 0.5)
    scale_([weight], torch.tensor([0.5]))
    assert weight.tolist() == [0.25, 0.25]
    assert weight.grad_fn is None


@pytest.mark.parametrize("n", [0, 1])
def test_a_factor_on_a_device_is_not_read(n: int) -> None:
    found = [torch.empty(2, dtype=dtype, device=META) for dtype in DTYPES]
    scale_(found, torch.empty([len(found)] * n, dtype=torch.float64, device=META))
    assert [t.dtype for t in found] == DTYPES
    with pytest.raises(RuntimeError, match="meta"):
        scale_([torch.ones(2)], torch.empty((), device=META))  # but there is nothing to multiply a CPU tensor by


def test_the_stored_part_is_what_a_change_in_place_changes() -> None:
    dense, sparse = torch.ones(3), torch.sparse_coo_tensor([[1, 1]], torch.ones(2), (3,), check_invariants=True)
    assert stored_part(dense) is dense
    stored_part(sparse).mul_(3)
    assert sparse.to_dense().tolist() == [0, 6, 0]
