"""A guard that clips: the same gradients as clipping by hand, in every loop, each optimizer with a state of its own."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from gradguard import Guard
from gradguard.clip import (
    AGC,
    AbstractRescaler,
    AdaGC,
    AutoClip,
    GradientStabilizer,
    NormBand,
    NormClip,
    PerModule,
    ValueClip,
    ZClip,
)
from tests.guard.loops import batches, float32_total, loss_of, mlp

CLIPPERS: dict[str, Callable[[], AbstractRescaler]] = {
    "NormClip": lambda: NormClip(0.5),
    "ValueClip": lambda: ValueClip(-0.1, 0.1),
    "AGC": lambda: AGC(0.05, exclude=["4"]),
    "AutoClip": lambda: AutoClip(50.0),
    "ZClip": lambda: ZClip(1.0, max_norm=2.0),
    "AdaGC": lambda: AdaGC(warmup=10),
    "NormBand": lambda: NormBand(0.8, 1.2),
    "GradientStabilizer": GradientStabilizer,
    "PerModule": lambda: PerModule({"0": NormClip(0.3), "*.weight": ZClip(1.0)}),
}
STEPS = 50


def data() -> list[tuple[torch.Tensor, torch.Tensor]]:
    return [(x * (30 if i in (20, 33) else 1), y) for i, (x, y) in enumerate(batches(STEPS))]


def by_hand(clipper: AbstractRescaler, make: Callable[[Any], torch.optim.Optimizer]) -> nn.Module:
    model = mlp()
    optimizer = make(model.parameters())
    for batch in data():
        optimizer.zero_grad()
        loss_of(model, batch).backward()
        clipper.clip_(model)
        optimizer.step()
    return model


def assert_same(model: nn.Module, other: nn.Module) -> None:
    for a, b in zip(model.parameters(), other.parameters(), strict=True):
        assert torch.equal(a, b)


def sgd(params: Any) -> torch.optim.Optimizer:
    return torch.optim.SGD(params, lr=0.05, momentum=0.9)


@pytest.mark.parametrize("name", CLIPPERS)
@pytest.mark.parametrize("loop", ["plain", "closure", "measured", "accumulation"])
def test_guard_clips_as_clip_does_by_hand(name: str, loop: str) -> None:
    torch.manual_seed(0)
    expected = by_hand(CLIPPERS[name](), sgd)
    torch.manual_seed(0)
    model = mlp()
    optimizer = sgd(model.parameters())
    guard = Guard(model, optimizer, clip=CLIPPERS[name](), every_n_steps=7)
    for batch in data():

        def closure(batch=batch) -> torch.Tensor:
            optimizer.zero_grad()
            loss = loss_of(model, batch)
            loss.backward()
            return loss

        if loop == "closure":
            optimizer.step(closure)
            continue
        if loop == "accumulation":  # two halves of one gradient
            optimizer.zero_grad()
            (loss_of(model, batch) / 2).backward()
            (loss_of(model, batch) / 2).backward()
        else:
            closure()
        if loop == "measured":
            guard.measure()
        optimizer.step()
    assert_same(model, expected)
    history = guard.history
    coefficient, before = history["clip/coefficient"].last, history["grad_norm/total"].last
    assert history["clip/coefficient"].steps.tolist() == list(range(1, STEPS + 1))
    torch.testing.assert_close(history["grad_norm/clipped"].last, before.double() * coefficient, rtol=1e-5, atol=1e-12)
    assert "steps clipped" in guard.summary()


def test_norm_clip_equals_torch_and_series_say_what_was_done() -> None:
    torch.manual_seed(0)
    model, twin = mlp(), None
    twin = copy.deepcopy(model)
    optimizer, other = sgd(model.parameters()), sgd(twin.parameters())
    guard = Guard(model, optimizer, clip=NormClip(0.5))
    norms = []
    for batch in data():
        for m, o in ((model, optimizer), (twin, other)):
            o.zero_grad()
            loss_of(m, batch).backward()
        norms.append(nn.utils.clip_grad_norm_(twin.parameters(), 0.5).item())
        optimizer.step()
        other.step()
    for a, b in zip(model.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-7)
    history = guard.history
    assert history["grad_norm/total"].last.tolist() == pytest.approx(norms, rel=1e-5)
    assert history["clip/threshold"].last.tolist() == [0.5] * STEPS
    expected = [min(1.0, 0.5 / (norm + 1e-6)) for norm in norms]
    assert history["clip/coefficient"].last.tolist() == pytest.approx(expected, rel=1e-5)
    clipped = sum(c < 1 for c in expected)
    assert clipped > 0
    assert f"NormClip: {clipped} steps clipped" in guard.summary()


def test_lbfgs_is_clipped_at_each_evaluation_and_learns_from_the_first() -> None:
    model = mlp()
    optimizer = torch.optim.LBFGS(model.parameters(), lr=0.1, max_iter=4)
    guard = Guard(model, optimizer, clip=PerModule({"0": AutoClip(50.0), "*": NormClip(0.2)}))
    seen: list[float] = []
    for batch in data()[:10]:

        def closure(batch=batch) -> torch.Tensor:
            if model[0].weight.grad is not None:
                seen.append(float(torch.cat([p.grad.flatten() for p in model[2:].parameters()]).norm()))
            optimizer.zero_grad()
            loss = loss_of(model, batch)
            loss.backward()
            return loss

        optimizer.step(closure)
    part = guard._tracks.named(None, "").treatment.clip._state["0"]
    assert part.state.window.seen == 10  # of some forty evaluations
    assert len(seen) > 25
    assert max(seen) == pytest.approx(0.2, rel=1e-4)


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("unscale_first", [False, True])
@pytest.mark.parametrize("name", CLIPPERS)
def test_under_a_scaler_the_weights_are_those_of_float32(name: str, fused: bool, unscale_first: bool) -> None:
    def trained(scaler: Any) -> nn.Module:
        torch.manual_seed(0)
        model = mlp()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.02, fused=fused)
        guard = Guard(model, optimizer, clip=CLIPPERS[name](), scaler=scaler)
        for batch in data()[:30]:
            optimizer.zero_grad()
            with torch.autocast("cpu", torch.float16, enabled=scaler is not None):
                loss = loss_of(model, batch)
            if scaler is None:
                loss.backward()
                optimizer.step()
                continue
            scaler.scale(loss).backward()
            if unscale_first:
                scaler.unscale_(optimizer)
            scaler.step(optimizer)
            scaler.update()
        guard.flush()
        assert guard._tracks.named(None, "").clipped > 0
        return model

    scaled = trained(torch.amp.GradScaler("cpu", init_scale=2.0**8))
    a, b = (nn.utils.parameters_to_vector(model.parameters()) for model in (scaled, trained(None)))
    assert (a - b).norm() <= 1e-3 * b.norm()


def test_an_overflow_enters_no_statistic() -> None:
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**24, growth_interval=3)
    guard = Guard(model, optimizer, clip=ZClip(max_norm=1.0), scaler=scaler, every_n_steps=7)
    seen = []
    for batch in batches(60):
        optimizer.zero_grad()
        total = float32_total(model, batch)
        with torch.autocast("cpu", torch.float16):
            loss = loss_of(model, batch)
        scaler.scale(loss).backward()
        before = model[0].weight.clone()
        scaler.step(optimizer)
        scaler.update()
        if not torch.equal(before, model[0].weight):
            seen.append(total)
    state = guard._tracks.named(None, "").treatment.clip._state.baseline
    assert len(seen) < 58
    assert state.seen == len(seen)
    assert guard.history["clip/coefficient"].steps.shape == (len(seen),)


def test_each_optimizer_has_its_own_clipper_and_a_dict_names_those_that_clip() -> None:
    models = {"a": mlp(), "b": mlp()}
    optimizers = {name: sgd(model.parameters()) for name, model in models.items()}
    shared = ZClip(max_norm=1.0)
    guard = Guard(models, optimizers, clip=shared)
    for batch in data()[:30]:
        for name, scale in (("a", 1.0), ("b", 100.0)):
            optimizers[name].zero_grad()
            (loss_of(models[name], batch) * scale).backward()
            optimizers[name].step()
    means = [track.treatment.clip._state.baseline.mean for track in guard._tracks]
    assert means[1] > 20 * means[0]
    assert shared._bound is None
    guard.close()
    guard = Guard(models, optimizers, clip={"b": NormClip(0.5)})
    for name in models:
        optimizers[name].zero_grad()
        loss_of(models[name], data()[20]).backward()
        optimizers[name].step()
    assert "b/clip/coefficient" in guard.history
    assert "a/clip/coefficient" not in guard.history


def test_measured_before_a_clip_of_ones_own_the_raw_norm_is_recorded_and_the_rest_is_clipped() -> None:
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    guard = Guard(model, optimizer, clip=NormClip(0.01))
    loss_of(model, data()[20]).backward()
    raw = guard.measure().total.item()
    nn.utils.clip_grad_norm_(model.parameters(), 0.1)
    optimizer.step()
    history = guard.history
    assert history["grad_norm/total"].last.item() == pytest.approx(raw)
    assert history["grad_norm/clipped"].last.item() == pytest.approx(0.01, rel=1e-3)
    assert history["clip/coefficient"].last.item() == pytest.approx(0.1, rel=1e-3)


def test_a_lasting_change_of_level_is_recorded() -> None:
    model = nn.Linear(4, 1, bias=False)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    guard = Guard(model, optimizer, clip=ZClip(), every_n_steps=10)
    for step in range(300):
        model.weight.grad = torch.full((1, 4), (1 + 0.05 * (step % 5)) * (10 if step >= 100 else 1))
        optimizer.step()
    anew = guard.history["clip/reanchored"]
    assert len(anew.steps) == 1
    assert 101 < anew.steps.item() <= 200
    assert guard.history["clip/coefficient"].last[210:].min() > 0.9
    assert f"began anew after a lasting change of level: at steps {anew.steps.item()}" in guard.summary()


def test_parameters_that_come_later_are_clipped_and_those_known_go_on() -> None:
    model = mlp()
    head = nn.Linear(4, 1)
    whole = nn.ModuleDict({"net": model, "head": head})
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    guard = Guard(whole, optimizer, clip=AdaGC(warmup=5))
    for step, (x, y) in enumerate(data()):
        if step == 25:
            optimizer.add_param_group({"params": head.parameters()})
        optimizer.zero_grad()
        nn.functional.mse_loss(model(x) + head(x), y).backward()
        optimizer.step()
    clip = guard._tracks.named(None, "").treatment.clip
    assert clip._bound.names[-2:] == ("head.weight", "head.bias")
    assert clip._state.seen.tolist() == [STEPS] * 6 + [25, 25]


def test_frozen_parameters_may_be_named_and_a_closed_guard_clips_no_more() -> None:
    model = mlp()
    model[0].requires_grad_(False)
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.01)
    with Guard(model, optimizer, clip=PerModule({"0": NormClip(1.0), "*": NormClip(1e-3)})):
        loss_of(model, data()[20]).backward()
        optimizer.step()
        assert model[2].weight.grad.norm() <= 1e-3
    optimizer.zero_grad()
    loss_of(model, data()[20]).backward()
    optimizer.step()
    assert model[2].weight.grad.norm() > 1e-3


def test_the_same_run_clipped_in_bf16_and_compiled() -> None:
    torch.manual_seed(0)
    model = mlp().to(torch.bfloat16)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    guard = Guard(torch.compile(model, backend="eager"), optimizer, clip=NormClip(0.1))
    for x, y in data()[:10]:
        optimizer.zero_grad()
        loss_of(model, (x.bfloat16(), y)).backward()
        optimizer.step()
        total = torch.cat([p.grad.float().flatten() for p in model.parameters()]).norm()
        assert total <= 0.1 * 1.01
    assert guard.history["clip/coefficient"].low.min() < 0.5


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"clip": 1.0}, TypeError, r"clipper from gradguard.clip, got 1.0. Write NormClip\(1.0\)."),
        ({"clip": ZClip}, TypeError, r"Write ZClip\(\)."),
        ({"clip": {"discriminator": ZClip()}}, ValueError, "name optimizers .optimizer., got 'discriminator'"),
        ({"clip": {"optimizer": "ZClip"}}, TypeError, "got 'ZClip'"),
        (
            {"clip": PerModule({"encodr.*": ZClip()})},
            ValueError,
            r"'encodr.\*' matches none of 6 parameters. The closest names are 0.weight",
        ),
        ({"clip": AGC(exclude=["head"])}, ValueError, "AGC: the pattern 'head' matches none"),
        ({"recover": True}, TypeError, "gradguard.recover.Skip or None, got True"),
    ],
)
def test_bad_input_is_said_before_the_first_step(options: dict[str, Any], error: type, message: str) -> None:
    model = mlp()
    with pytest.raises(error, match=message):
        Guard(model, torch.optim.SGD(model.parameters(), lr=0.1), **options)


def test_a_complex_parameter_and_unequal_bounds_are_refused_before_the_first_step() -> None:
    model = nn.Linear(2, 2, dtype=torch.complex64)
    with pytest.raises(ValueError, match="needs low = -high for weight"):
        Guard(model, torch.optim.SGD(model.parameters(), lr=0.1), clip=ValueClip(-1.0, 2.0))
