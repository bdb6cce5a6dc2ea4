"""Nothing is read on the host between flushes: on ``device="meta"`` every host read raises, and seeded ones do."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import nn

import gradguard.guard.track as track_module
from gradguard import Guard
from gradguard.clip import (
    AGC,
    AbstractRescaler,
    AdaGC,
    AutoClip,
    GradientStabilizer,
    MedianMad,
    NormBand,
    NormClip,
    PerModule,
    ValueClip,
    ZClip,
)
from gradguard.functional import (
    count_non_finite,
    measure,
    new_moments,
    new_quantile_window,
    norms,
    quantile,
    total_norm,
    unit_norms,
    update_moments,
    update_quantile_window,
)
from gradguard.probe import UpdateProbe
from gradguard.probe.movement import Movement
from gradguard.recover import Skip

META = torch.device("meta")


class Plain(torch.optim.Optimizer):
    """Gradient descent that does not mind what a GradScaler sets on it."""

    def __init__(self, params: Iterator[nn.Parameter]) -> None:
        super().__init__(params, {})

    @torch.no_grad()
    def step(self) -> None:
        for param in self.param_groups[0]["params"]:
            param.add_(param.grad, alpha=-0.1)


def guarded_steps(n: int = 20, *, fused_scaler: bool = False, **treatment: Any) -> Guard:
    model = nn.Sequential(nn.Linear(64, 128), nn.Tanh(), nn.Linear(128, 1), nn.LayerNorm(1)).to(META)
    optimizer = (
        Plain(model.parameters())
        if fused_scaler or treatment
        else torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    )
    optimizer._step_supports_amp_scaling = bool(treatment)
    guard = Guard(model, optimizer, every_n_steps=1000, **treatment)
    for _ in range(n):
        optimizer.zero_grad()
        loss = model(torch.empty(3, 64, device=META)).mean()
        guard.record_loss(loss)
        guard.record_loss(loss)
        loss.backward()
        if fused_scaler:  # what GradScaler sets on an optimizer that unscales by itself
            optimizer.grad_scale, optimizer.found_inf = torch.empty((), device=META), torch.empty((), device=META)
        else:
            guard.measure()
        optimizer.step()
    return guard


@pytest.mark.parametrize("fused_scaler", [False, True])
def test_a_guarded_loop_reads_nothing_between_flushes(fused_scaler: bool) -> None:
    guard = guarded_steps(fused_scaler=fused_scaler)
    assert guard.host_reads == 0
    with pytest.raises(NotImplementedError, match="meta tensor"):  # the flush is the one place that does
        guard.diagnose()


@pytest.mark.parametrize("fused_scaler", [False, True])
@pytest.mark.parametrize(
    "clip",
    [
        NormClip(1.0, norm_type=1),
        ValueClip(-1.0, 1.0),
        AGC(0.01, exclude=["2"], vectors=True),
        AutoClip(),
        ZClip(),
        ZClip(baseline=MedianMad()),
        AdaGC(),
        NormBand(0.1, 1.0),
        GradientStabilizer(),
        PerModule({"0": ZClip(), "*": AdaGC()}),
    ],
    ids=repr,
)
def test_nor_does_one_that_clips_and_skips(clip: AbstractRescaler, fused_scaler: bool) -> None:
    guard = guarded_steps(fused_scaler=fused_scaler, clip=clip, recover=Skip())
    assert guard.host_reads == 0


def test_the_functional_room_reads_nothing() -> None:
    grads = [torch.empty(3, 4, device=META), torch.empty(5000, dtype=torch.bfloat16, device=META)]
    parts = norms(grads)
    norms(grads, exact=True)
    total_norm(parts)
    unit_norms(grads[0])
    count_non_finite(grads)
    state = update_moments(new_moments(parts), parts, decay=0.9)
    window = update_quantile_window(new_quantile_window(parts, 5), parts)
    quantile(window, 0.5)
    param = nn.Parameter(grads[0])
    param.grad = grads[0]
    found = measure([param], scale=torch.empty((), device=META))
    assert {t.device for t in (*state, *window, found.total, found.finite)} == {META}


READS: dict[str, Callable[[torch.Tensor], object]] = {
    "item": lambda t: t.sum().item(),
    "bool": lambda t: bool(t.sum() > 0),
    "cpu": lambda t: t.cpu(),
    "tolist": lambda t: t.tolist(),
    "nonzero": lambda t: t.nonzero(),
    "format": lambda t: f"{t.sum():.3f}",
}
PLACES = ["measure", "measure", "probe", "probe", "loss", "loss"]


@pytest.mark.parametrize(("read", "place"), [*zip(READS, PLACES, strict=True), ("item", "after"), ("bool", "_compare")])
def test_a_seeded_host_read_is_caught(read: str, place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def seed(function: Callable[..., object], pick: Callable[[object], torch.Tensor]) -> Callable[..., object]:
        def with_read(*args: object, **kwargs: object) -> object:
            result = function(*args, **kwargs)
            READS[read](pick(result))
            return result

        return with_read

    if place == "measure":
        monkeypatch.setattr(track_module, "measure", seed(measure, lambda m: m.norms))
    elif place in ("after", "_compare"):
        monkeypatch.setattr(Movement, place, seed(getattr(Movement, place), lambda _: torch.empty(2, device=META)))
    elif place == "probe":
        monkeypatch.setattr(UpdateProbe, "finish", seed(UpdateProbe.finish, lambda u: u.ratios))
    else:
        original = Guard.record_loss

        def record_loss(self: Guard, loss: torch.Tensor) -> None:
            original(self, loss)
            READS[read](self._losses.sums[None][0])

        monkeypatch.setattr(Guard, "record_loss", record_loss)
    with pytest.raises((NotImplementedError, RuntimeError, TypeError), match=r"meta|__format__"):
        guarded_steps()
