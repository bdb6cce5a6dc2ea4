"""A forward pass that went wrong is taken back: every buffer is bit for bit what it was after the last good step."""

from __future__ import annotations

import copy
import math

import pytest
import torch

from gradguard.recover import BufferShadow
from tests.recover.models import MODELS, batch, buffers, same


@pytest.mark.parametrize("bad", [math.nan, math.inf, 1e6])
@pytest.mark.parametrize("kind", MODELS)
def test_a_bad_batch_is_taken_back_bit_for_bit_and_the_run_goes_on_as_without_it(kind: str, bad: float) -> None:
    torch.manual_seed(0)
    model = MODELS[kind]()
    twin = copy.deepcopy(model)
    shadow = BufferShadow([model])
    for step in range(8):
        if step in (0, 3, 4, 6):
            before = buffers(model)
            model(torch.full((5, 3), bad, requires_grad=True))
            assert not same(buffers(model), before), "the batch changed nothing, so that nothing was tested"
            shadow.restore()
            assert same(buffers(model), before)
        model(batch(step))
        shadow.take()
        twin(batch(step))
        assert same(buffers(model), buffers(twin))


@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize("bad", [True, False])
def test_whether_the_step_was_bad_may_be_told_by_a_tensor(kind: str, bad: bool) -> None:
    torch.manual_seed(0)
    model = MODELS[kind]()
    shadow = BufferShadow([model])
    for step in range(3):
        model(batch(step))
        shadow.take(torch.tensor(False))
    before = buffers(model)
    model(100 * batch(9))
    after = buffers(model)
    shadow.take(torch.tensor(bad))
    if "grown" in kind:  # a buffer of another size can't be put back without a look at whether it has to be
        return
    assert same(buffers(model), before if bad else after)
    model(100 * batch(10))
    shadow.restore()
    assert same(buffers(model), before if bad else after)
