"""What a shadow of buffers notes, what it does not, and what that costs."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from gradguard.recover import BufferShadow
from tests.recover.models import LARGE, Averaging, batch, buffers, same

DTYPES = [torch.float32, torch.float64, torch.bfloat16, torch.complex64]


def holding(buffer: Tensor) -> nn.Module:
    module = nn.Module()
    module.register_buffer("held", buffer)
    return module


@pytest.fixture(params=["on the host", "on a device"])
def path(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Whether the norms of buffers may be read; where not, all is decided by tensors."""
    from gradguard.recover import shadow

    class Elsewhere(torch.Tensor):
        is_cpu = False

    if request.param == "on a device":
        measured = shadow.norms
        monkeypatch.setattr(shadow, "norms", lambda *args, **kw: measured(*args, **kw).as_subclass(Elsewhere))
    return str(request.param)


@pytest.mark.parametrize("entries", [4, LARGE])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_buffer_that_has_become_bad_is_not_noted(bad: float, dtype: torch.dtype, entries: int, path: str) -> None:
    """Of two optimizers' steps after one forward pass, the first may be good and the second one bad."""
    model = holding(torch.arange(entries).to(dtype))
    shadow = BufferShadow([model])
    for _ in range(2):
        model.held[1] = bad
        shadow.take()
        shadow.restore()
        assert torch.equal(model.held, torch.arange(entries).to(dtype))
    model.held.add_(1)
    shadow.take()
    model.held.fill_(bad)
    shadow.restore()
    assert torch.equal(model.held, (torch.arange(entries).to(dtype) + 1))


@pytest.mark.parametrize("entries", [4, LARGE])
@pytest.mark.parametrize("masked", [-math.inf, torch.finfo(torch.float32).min, 3e38])
def test_masks_are_buffers_like_any_other(masked: float, entries: int, path: str) -> None:
    model = holding(torch.zeros(entries))
    shadow = BufferShadow([model])
    if math.isinf(masked):  # one that has been so from the start
        model = holding(torch.full((entries,), masked))
        shadow = BufferShadow([model])
    for step in range(1, 4):
        model.held[:step] = 0.0
        model.held[step:] = masked
        shadow.take()
        noted = model.held.clone()
        model.held.fill_(math.nan)
        shadow.restore()
        assert torch.equal(model.held, noted)


def test_bytes_are_those_of_the_copies() -> None:
    model = nn.Sequential(nn.BatchNorm1d(3), Averaging("grown"))
    shadow = BufferShadow([model])
    assert shadow.bytes == (3 * 4 + 3 * 4 + 8) + (3 * 4 + 8 + 1)
    model(batch(0))
    shadow.take()
    assert shadow.bytes == (3 * 4 + 3 * 4 + 8) + (4 * 4 + 8 + 1)
    assert BufferShadow([nn.Linear(3, 3)]).bytes == BufferShadow([]).bytes == 0


def test_shared_buffers_are_kept_once_and_stay_shared() -> None:
    table = torch.zeros(4)
    model, other = nn.Sequential(holding(table), holding(table)), holding(table)
    shadow = BufferShadow([model, other, model])
    assert shadow.bytes == 16
    for value in (1.0, 2.0):
        table.fill_(value)
        shadow.take()
        table.fill_(math.nan)
        shadow.restore()
        assert table.tolist() == [value] * 4
        assert model[0].held is model[1].held is other.held is table


def test_buffers_that_come_and_go_are_no_trouble() -> None:
    model = nn.Sequential(nn.BatchNorm1d(3))
    shadow = BufferShadow([model])
    model.append(Averaging("in place"))
    model(batch(0))
    shadow.take()
    before = buffers(model)
    model(batch(1) * math.nan)
    shadow.restore()
    assert same(buffers(model), before)
    del model[0].running_mean
    model[0].running_mean = None
    shadow.take()
    shadow.restore()
    assert model[0].running_mean is None


def test_what_is_put_in_the_place_of_a_buffer_of_another_size_is_not_the_copy_itself() -> None:
    model = Averaging("grown")
    model(batch(0))
    shadow = BufferShadow([model])
    before = buffers(model)
    model(batch(1))
    shadow.restore()
    model.mean.fill_(math.nan)
    shadow.restore()
    assert same(buffers(model), before)


def test_a_buffer_that_a_bad_batch_has_made_is_taken_back_too() -> None:
    class Lazy(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("mean", None)

        def forward(self, x: Tensor) -> Tensor:
            self.mean = x.mean(0) if self.mean is None else 0.9 * self.mean + 0.1 * x.mean(0)
            return x - self.mean

    model = Lazy()
    shadow = BufferShadow([model])
    model(batch(0) * math.nan)
    shadow.restore()
    model(batch(1))
    assert model.mean.isfinite().all()


def test_nothing_is_read_on_the_host() -> None:
    model = nn.Sequential(nn.BatchNorm1d(3), holding(torch.zeros(LARGE))).to("meta")
    shadow = BufferShadow([model])
    for bad in (None, torch.empty((), dtype=torch.bool, device="meta")):
        model[0](torch.empty(4, 3, device="meta"))
        model[1].held.add_(1)
        shadow.take(bad)
        shadow.restore()
    assert shadow.bytes == 32 + 4 * LARGE


def test_parameters_are_left_alone() -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3))
    shadow = BufferShadow([model])
    with torch.no_grad():
        for param in model.parameters():
            param.fill_(5.0)
    shadow.restore()
    assert all((param == 5).all() for param in model.parameters())
