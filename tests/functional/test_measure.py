"""One pass over the gradients: missing, tied, scaled and non-finite ones."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from gradguard.functional import count_non_finite, first_non_finite, in_memory_order, measure, norms


def parameter(grad: object) -> nn.Parameter:
    param = nn.Parameter(torch.zeros(2))
    param.grad = None if grad is None else torch.tensor(grad)
    return param


def test_missing_gradients_count_as_zero_and_are_listed() -> None:
    found = measure([parameter([3.0, 0.0]), parameter(None), parameter([0.0, 4.0])], names=["a", "b", "c"])
    assert found.norms.tolist() == [3, 0, 4]
    assert found.missing == (1,)
    assert found.total == 5
    assert found.finite


def test_no_gradient_at_all_is_a_finite_zero() -> None:
    found = measure([parameter(None), parameter(None)])
    assert found.norms.tolist() == [0, 0]
    assert found.missing == (0, 1)
    assert found.total == 0
    assert found.finite
    assert measure([nn.Parameter(torch.empty(2, device="meta"))]).norms.device.type == "meta"


def test_the_loss_scale_is_divided_out() -> None:
    found = measure([parameter([3.0, 4.0])], scale=torch.tensor(2.0))
    assert found.total == 2.5


def test_the_first_bad_parameter_is_named() -> None:
    found = measure([parameter([1.0, 1.0]), parameter([math.nan, 1.0]), parameter([math.inf, 1.0])])
    assert not found.finite
    assert found.first_non_finite() == "1"
    assert measure([parameter([1.0, 1.0])]).first_non_finite() is None


def test_exact_tells_an_overflowing_square_from_inf() -> None:
    params = [parameter([3e19, 4e19]), parameter([1.0, 0.0])]
    assert not measure(params).finite
    assert measure(params, exact=True).finite
    assert measure(params, exact=True).norms[0].item() == pytest.approx(5e19, rel=1e-7)


def test_measuring_changes_nothing() -> None:
    param = parameter([3.0, 4.0])
    before = param.grad.clone()
    measure([param], scale=torch.tensor(8.0))
    assert torch.equal(param.grad, before)


@pytest.mark.filterwarnings("ignore:Sparse CSR tensor support is in beta")
def test_counts_by_tensor_and_first_name() -> None:
    sparse = torch.sparse_coo_tensor([[0, 0]], torch.tensor([math.inf, -math.inf]), (3,), check_invariants=True)
    assert count_non_finite([torch.tensor([1.0, math.nan, math.inf]), torch.zeros(2), sparse]).tolist() == [2, 0, 1]
    rows = torch.tensor([[1.0, math.nan], [0.0, math.inf]]).to_sparse_csr()
    assert count_non_finite([rows]).tolist() == [2]
    assert norms([torch.tensor([[3.0, 0.0], [0.0, 4.0]]).to_sparse_csr()]).tolist() == [5]
    assert count_non_finite([]).shape == (0,)
    with pytest.raises(ValueError, match="first_non_finite needs one value for each of 2 names"):
        first_non_finite(["a", "b"], torch.zeros(3))


def test_names_and_parameters_have_to_match() -> None:
    with pytest.raises(ValueError, match="measure needs one name for each of 1 parameters, got 2"):
        measure([parameter(None)], names=["a", "b"])


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_memory_order_is_a_view_of_dense_tensors(memory_format: torch.memory_format) -> None:
    tensor = torch.arange(24.0).reshape(1, 2, 3, 4).to(memory_format=memory_format)
    flat = in_memory_order(tensor)
    assert flat.data_ptr() == tensor.data_ptr()
    assert sorted(flat.tolist()) == list(range(24))
    assert flat.is_contiguous()
