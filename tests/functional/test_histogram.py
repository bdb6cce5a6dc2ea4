"""Histograms against ``numpy.histogram``."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from gradguard.functional import Histograms, histograms

FINITE = st.floats(-(2.0**100), 2.0**100, width=32)
ANY = st.one_of(FINITE, st.sampled_from([float("nan"), float("inf"), float("-inf")]))


def one(found: Histograms, row: int = 0) -> Histograms:
    return Histograms(*(field[row] for field in found))


@given(hnp.arrays(np.float32, hnp.array_shapes(max_dims=3, min_side=0, max_side=9), elements=ANY), st.integers(1, 70))
def test_any_tensor(x: np.ndarray, bins: int) -> None:
    counts, low, high, total, squares = one(histograms([torch.from_numpy(x.copy())], bins))
    finite = x[np.isfinite(x)].astype(np.float64)
    assert counts.shape == (bins,)
    assert counts.sum() == len(finite)
    if not len(finite):
        assert low == high == total == squares == 0
        return
    assert (low, high) == (finite.min(), finite.max())
    scale = np.abs(finite).max()
    assert total.item() == pytest.approx(finite.sum(), rel=1e-5, abs=1e-5 * scale * len(finite))
    if 1e-18 < scale < 1e18:  # the squares are float32's
        assert squares.item() == pytest.approx((finite**2).sum(), rel=1e-5)
    if low < high:
        # An entry within rounding of an edge may lie on either side of it: no cumulated count is further off.
        edges = np.linspace(low.item(), high.item(), bins + 1)
        slack = 4e-7 * bins * max(abs(low.item()), abs(high.item()), high.item() - low.item())
        until = counts.cumsum(0).numpy()[:-1]
        assert (until >= [(finite < edge - slack).sum() for edge in edges[1:-1]]).all()
        assert (until <= [(finite < edge + slack).sum() for edge in edges[1:-1]]).all()


@pytest.mark.parametrize("bins", [1, 2, 7, 64, 512])
def test_random_entries_fall_where_numpy_puts_them(bins: int) -> None:
    x = torch.randn(3, 1000)
    found = histograms([x, x[0] * 1e-6, x.double() * 1e6, x.bfloat16()], bins)
    for row, values in enumerate((x, x[0] * 1e-6, x.double() * 1e6, x.bfloat16().float())):
        counts, edges = np.histogram(values.numpy().astype(np.float64), bins)
        got = one(found, row)
        assert np.abs(got.counts.numpy().cumsum() - counts.cumsum()).max() <= 1  # one may lie on an edge
        np.testing.assert_allclose([got.lows, got.highs], edges[[0, -1]], rtol=1e-6)


def test_the_largest_entry_lies_in_the_last_bin_and_equal_entries_in_one() -> None:
    counts = histograms([torch.tensor([0.0, 1.0, 2.0, 3.0, 4.0]), torch.full((5,), 3.0), torch.zeros(2)], 4).counts
    assert counts.tolist() == [[1, 1, 1, 2], [5, 0, 0, 0], [2, 0, 0, 0]]


def test_counts_stay_exact_beyond_what_float32_can_count_to() -> None:
    many = 2**24 + 5  # adding 1 to 2^24 changes nothing in float32: an embedding's zeros are easily that many
    x = torch.zeros(1).expand(many)
    assert histograms([x], 2).counts.double().sum().item() == pytest.approx(many, abs=2)


def test_complex_by_absolute_value_sparse_by_stored_entries() -> None:
    z = torch.tensor([3 + 4j, 0j, 1j])
    sparse = torch.tensor([[0.0, 2.0, 0.0, 0.0], [1.0, 0.0, 0.0, 4.0]]).to_sparse()
    found = histograms([z, sparse], 5)
    assert one(found).counts.tolist() == [1, 1, 0, 0, 1]
    assert (one(found).highs, one(found, 1).highs) == (5, 4)
    assert one(found, 1).counts.sum() == 3


def test_duplicates_of_a_sparse_gradient_are_summed() -> None:
    places, values = torch.tensor([[0, 0, 1]]), torch.tensor([1.0, 2.0, 7.0])
    sparse = torch.sparse_coo_tensor(places, values, (4,), check_invariants=True)
    found = one(histograms([sparse], 2))
    assert (found.lows, found.highs, found.sums) == (3, 7, 10)


def test_nothing_is_changed_and_no_graph_is_kept() -> None:
    x = torch.tensor([1.0, float("nan"), 3.0], requires_grad=True)
    found = histograms([x], 3)
    assert not any(field.requires_grad for field in found)
    assert str(x.tolist()) == "[1.0, nan, 3.0]"
    assert [field.dtype for field in found] == [torch.float32] * 5


@pytest.mark.parametrize(("tensors", "bins"), [([], 64), ([torch.ones(2)], 0)])
def test_what_cannot_be_counted_is_refused(tensors: list[torch.Tensor], bins: int) -> None:
    with pytest.raises(ValueError, match="at least one tensor and bins >= 1, got"):
        histograms(tensors, bins)
