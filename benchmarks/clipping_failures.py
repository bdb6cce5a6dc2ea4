"""Known defects of clippers and of rules that skip: one small deterministic scenario each, for the peer and for ours.

Both go through the same function, which measures and judges; only what is measured there stands in the table. Longer
than other files, so that scenarios and table can be read side by side.
"""

from __future__ import annotations

import copy
import io
import logging
import math
import os
import pickle
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from benchmarks import clipping_peers as peers
from benchmarks.clipping_peers import Make, Train, adamw, called, fused, loop, moments, sgd, stepped, zclip
from benchmarks.timing import table
from gradguard import Guard
from gradguard.clip import AGC, AdaGC, AutoClip, GradientStabilizer, NormClip, ValueClip, ZClip
from gradguard.recover import Skip

Outcome = tuple[str, bool]  # what was measured, and whether that is a failure
Named = tuple[str, Any]  # a contender and what to call it
NAN, INF = math.nan, math.inf


class Row(NamedTuple):
    """One line of the table: the same scenario for the peer and for ours."""

    defect: str
    scenario: Callable[[Any], Outcome]
    peer: Named
    ours: Named


# Gradients of one step


def given(*gradients: Any, dtype: torch.dtype = torch.float32) -> nn.ParameterList:
    """Parameters that are zero, with these gradients."""
    target = nn.ParameterList()
    for entries in gradients:
        gradient = torch.as_tensor(entries)
        gradient = gradient if gradient.is_complex() else gradient.to(dtype)
        target.append(nn.Parameter(torch.zeros_like(gradient)))
        target[-1].grad = gradient.clone()
    return target


def shown(target: Iterable[nn.Parameter]) -> str:
    return " ".join("[" + ", ".join(f"{x:.3g}" for x in p.grad.flatten().tolist()) + "]" for p in target)


def left_alone(*gradients: Any) -> Callable[[Make], Outcome]:
    """Where no norm exists, finite gradients must stay what they are, and the bad one in sight."""

    def scenario(make: Make) -> Outcome:
        target, before = given(*gradients), given(*gradients)
        make(target)()
        same = all(
            torch.equal(p.grad.nan_to_num(7.0), b.grad.nan_to_num(7.0)) for p, b in zip(target, before, strict=True)
        )
        return f"{shown(before)} becomes {shown(target)}", not same

    return scenario


def norm_becomes_one(*gradients: Any, dtype: torch.dtype = torch.float32) -> Callable[[Make], Outcome]:
    def scenario(make: Make) -> Outcome:
        target = given(*gradients, dtype=dtype)
        make(target)()
        length = peers.norm(p.grad for p in target).item()
        return f"norm becomes {length:.3g}", not 0.99 < length < 1.01

    return scenario


def twice_the_same(make: Make) -> Outcome:
    (param,) = given([3.0, 4.0])
    make([param, param])()
    return f"[3, 4] becomes {shown([param])}", not 0.99 < param.grad.norm() < 1.01


def no_limit(make: Make) -> Outcome:
    target = given([1.0, 2.0])
    try:
        make(target)()
    except ValueError:
        return "ValueError", False
    return f"[1, 2] becomes {shown(target)}", not target[0].grad.sum() > 0


def sparse(make: Make) -> Outcome:
    module = nn.Embedding(4, 2, sparse=True)
    (10 * module(torch.tensor([1, 1]))).sum().backward()
    try:
        make(module)()
    except (NotImplementedError, RuntimeError) as error:
        return type(error).__name__, True
    largest = module.weight.grad.coalesce().values().abs().max()
    return f"largest entry 20 becomes {largest:.3g}", not largest <= 1


def complex_entry(make: Make) -> Outcome:
    target = given([3 + 4j, 0])
    try:
        make(target)()
    except (NotImplementedError, RuntimeError) as error:
        return type(error).__name__, True
    return f"modulus 5 becomes {target[0].grad.abs().max():.3g}", not target[0].grad.abs().max() < 1.001


def used_up_generator(make: Make) -> Outcome:
    model = nn.Linear(2, 2, bias=False)
    clip = make(model.parameters())
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        (after,) = list(feed_on(model, clip, [100.0, 100.0]))[1:]
    said = ", with a warning" if caught else ", nothing said"
    return f"second call: norm 100 becomes {after:.3g}{said}", after > 99 and not caught


def no_gradient(make: Make) -> Outcome:
    try:
        make(nn.Linear(2, 2))()
    except RuntimeError as error:
        return f"RuntimeError: {str(error)[:40]} ...", True
    return "nothing happens", False


def norm_of_mixed(make: Make) -> Outcome:
    target = nn.ParameterList([nn.Parameter(torch.zeros(1, dtype=torch.float16)), nn.Parameter(torch.zeros(1))])
    target[0].grad, target[1].grad = torch.ones(1, dtype=torch.float16), torch.tensor([1e5])
    result = make(target)()
    length = float(getattr(result, "norm", result))
    return f"norm of 1e5 measured as {length:.6g}", not 0.99e5 < length < 1.01e5


def by_entry(make: Make) -> Outcome:
    target = given([4.0, 0.5])
    make(target)()
    return f"[4, 0.5] becomes {shown(target)}", target[0].grad[1] != 0.5


# Units of AGC


def other_units(template: nn.Module, big: Any) -> Callable[[Make], Outcome]:
    """A single unit's gradient is large: the other units keep theirs."""

    def scenario(make: Make) -> Outcome:
        module = copy.deepcopy(template)
        nn.init.ones_(module.weight)
        module.weight.grad = torch.full_like(module.weight, 1e-4)
        module.weight.grad[big] = 100.0
        others = torch.ones_like(module.weight, dtype=torch.bool)
        others[big] = False
        try:
            make(module)()
        except ValueError as error:
            return f"ValueError: {error}", True
        kept = (module.weight.grad[others] / 1e-4).min()
        return f"the other units' gradients x {kept:.3g}", not kept > 0.999

    return scenario


def zero_weight(make: Make) -> Outcome:
    target = given([1.0, 1.0])
    make(target)()
    return f"[1, 1] becomes {shown(target)}", not target[0].grad.min() > 0


def only_head_is_spared(make: Make) -> Outcome:
    model = nn.Sequential()
    model.body, model.fc = nn.Linear(2, 2), nn.Linear(2, 2, bias=False)
    for p in model.parameters():
        p.grad = torch.full_like(p, 100.0)
    make(model)()
    kept = {name: (p.grad / 100).max() for name, p in model.named_parameters()}
    text = ", ".join(f"{name} x {value:.2g}" for name, value in kept.items())
    return text, not (kept["fc.weight"] == 1 and kept["body.weight"] < 0.5 and kept["body.bias"] < 0.5)


def one_unit(make: Make) -> Outcome:
    """Only one tap of a filter has a large gradient: all of the filter is one unit and is scaled as such."""
    module = nn.Conv1d(1, 1, 3, bias=False)
    nn.init.ones_(module.weight)
    module.weight.grad = torch.tensor([[[100.0, 0.01, 0.01]]])
    make(module)()
    first, second = (module.weight.grad.flatten() / torch.tensor([100.0, 0.01, 0.01]))[:2]
    return f"one filter's taps x {first:.2g} and x {second:.2g}", not 0.99 < first / second < 1.01


def importable(module: str) -> Outcome:
    """In a process of its own, where nothing was put right for it."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", f"import {module}"], env=environment, capture_output=True, text=True)
    said = done.stderr.strip().splitlines()[-1].split(" (")[0] if done.returncode else "imports"
    return f"Python {sys.version_info.major}.{sys.version_info.minor}: {said}", done.returncode != 0


# What is learnt from the norms


def steady(n: int, level: float = 1.0) -> list[float]:
    """Norms that move by 10 % around a level."""
    return [level * (1 + 0.1 * math.sin(i)) for i in range(n)]


def feed_on(model: nn.Linear, clip: Callable[[], Any], norms: Iterable[float | None]) -> Iterator[float]:
    for value in norms:
        model.weight.grad = None if value is None else torch.full_like(model.weight, value / 2)
        clip()
        yield NAN if model.weight.grad is None else model.weight.grad.double().norm().item()


def feed(make: Make, norms: Iterable[float | None], dtype: torch.dtype = torch.float32) -> list[float]:
    """Give gradients of these norms to a contender; None is a call without any gradient. Give the norms after it."""
    model = nn.Linear(2, 2, bias=False, dtype=dtype)
    return list(feed_on(model, make(model), norms))


def owner(clip: Any) -> Any:
    """Give the object that keeps what a contender has learnt."""
    return (clip.func if isinstance(clip, partial) else clip).__self__


def poisoned(value: float, at: int) -> Callable[[Make], Outcome]:
    def scenario(make: Make) -> Outcome:
        *after, spike = feed(make, [*steady(at), value, *steady(350 - at), 1000.0])[at + 1 :]
        lost = sum(not x > 0.1 for x in after)
        return f"{lost} of {len(after)} clean steps lost; a spike of 1,000 becomes {spike:.3g}", lost > 0 or spike > 10

    return scenario


def constant_norms(make: Make) -> Outcome:
    after = feed(make, [1.0] * 150 + [1.0001])[-1]
    return f"norm 1.0001 after 150 of 1 becomes {after:.6f}", not after > 1.00009


def level_shift(before: int) -> Callable[[Make], Outcome]:
    """The level rises tenfold for good: within 200 steps most of the gradient must come through again."""

    def scenario(make: Make) -> Outcome:
        norms = steady(before) + steady(2500, 10.0)
        through = [a / b for a, b in zip(feed(make, norms), norms, strict=True)][before:]
        free = next((i for i in range(len(through)) if min(through[i : i + 20]) > 0.8), None)
        when = "not within 2,500" if free is None else f"after {free:,}"
        return f"x {through[200]:.2g} at step 200, free {when} steps", free is None or free > 200

    return scenario


def empty_calls(make: Make) -> Outcome:
    norms = steady(150)
    plain, after = feed(make, [*norms, 3.0])[-1], feed(make, [*norms, *[None] * 20, 3.0])[-1]
    return f"norm 3 becomes {plain:.3g}, and {after:.3g} after 20 calls without any gradient", plain != after


def lost_of(what: str, norms: Sequence[float], first: int = 0) -> Callable[[Make], Outcome]:
    """Count what is lost from the step ``first`` on: gradients that become NaN, or zero where they were not."""

    def scenario(make: Make) -> Outcome:
        pairs = list(zip(norms, feed(make, norms), strict=True))[first:]
        lost = sum(math.isnan(after) or (after == 0 and before > 0) for before, after in pairs)
        return f"{what}: {lost} of {len(pairs)} become zero or NaN", lost > 0

    return scenario


def first_norm(make: Make) -> Outcome:
    (after,) = feed(make, [10.0])
    return f"warm-up, limit 1: norm 10 becomes {after:.3g}", not 0.99 < after < 1.01


def slow_growth(make: Make) -> Outcome:
    after = feed(make, [1.0] * 150 + [1.04] * 1000 + [10.0], torch.bfloat16)[-1]
    return f"norms grow from 1 to 1.04: a spike is cut to {after / 1.05:.2f} x 1.05", not after > 1.07


def element_spike(make: Make) -> Outcome:
    after = feed(make, [*steady(150), 1e4])[-1]
    return f"norm 10,000 becomes {after:.3g}", not after < 200


def memory(make: Make) -> Outcome:
    sizes, model = [], nn.Linear(2, 2, bias=False)
    clip = make(model)
    for _ in range(2):
        list(feed_on(model, clip, steady(2000)))
        sizes.append(len(pickle.dumps(owner(clip))))
    return f"{sizes[0]:,} bytes after 2,000 steps, {sizes[1]:,} after 4,000", sizes[1] > sizes[0] + 500


def resumed(make: Make) -> Outcome:
    """Cut in warm-up and later; compare the norms and the weights with those of a run that was not cut."""
    differ = 0
    for cut in (12, 150):
        rest = [*steady(20), 5.0, *steady(20), 50.0, *steady(40)]
        model, again = nn.Linear(2, 2, bias=False), nn.Linear(2, 2, bias=False)
        clip, other = make(model), make(again)
        list(feed_on(model, clip, steady(cut)))
        again.load_state_dict(model.state_dict())
        if not hasattr(owner(clip), "state_dict"):
            return f"no state_dict; {differ_after(clip, other, model, again, rest)} of {len(rest)} steps differ", True
        file = io.BytesIO()
        torch.save(owner(clip).state_dict(), file)
        file.seek(0)
        owner(other).load_state_dict(torch.load(file, weights_only=True))
        differ += differ_after(clip, other, model, again, rest)
    return f"{differ} of {2 * len(rest)} steps after a resume differ", differ > 0


def differ_after(clip: Any, other: Any, model: nn.Linear, again: nn.Linear, norms: Sequence[float]) -> int:
    count = 0
    for a, b in zip(feed_on(model, clip, norms), feed_on(again, other, norms), strict=True):
        count += a != b or not torch.equal(model.weight, again.weight)
    return count


def reordered(make: Make) -> Outcome:
    """Two parameters, of norms 1 and 100; the model that goes on has them in the other order."""

    def grads(model: nn.ParameterDict, a: float, b: float) -> nn.ParameterDict:
        model["a"].grad, model["b"].grad = torch.tensor([a]), torch.tensor([b])
        return model

    models = [nn.ParameterDict([(n, torch.zeros(1)) for n in names]) for names in ("ab", "ba")]
    clips = [make(model) for model in models]
    for value in steady(150, 0.5):
        grads(models[0], value, 100 * value)
        clips[0]()
    owner(clips[1]).load_state_dict(owner(clips[0]).state_dict())
    grads(models[1], 0.5, 50.0)
    clips[1]()
    a, b = (models[1][name].grad.item() for name in "ab")
    return f"norms 0.5 and 50, as ever, become {a:.2g} and {b:.2g}", not (a > 0.4 and b > 40)


def host_reads(make: Make) -> Outcome:
    """On a device without data, where a number can't be read and a read therefore raises."""
    model = nn.Linear(2, 2, bias=False, device="meta")
    clip = make(model)
    for _ in range(50):
        model.weight.grad = torch.ones(2, 2, device="meta")
        try:
            clip()
        except (NotImplementedError, RuntimeError) as error:
            return f"reads: {str(error).splitlines()[0][:60]}", True
    return "reads nothing", False


def two_optimizers(make: Callable[..., Callable[[Any], Any]]) -> Outcome:
    """Generator and discriminator step in turn, with norms of 1 and 100; then the generator has a spike of 20."""
    model = nn.ModuleDict({name: nn.Linear(2, 2, bias=False) for name in ("g", "d")})
    optimizers = [torch.optim.SGD(part.parameters(), lr=0.0) for part in model.values()]
    step = make(model, *optimizers)
    for value in [*steady(200), 20.0]:
        for part, other, optimizer, level in zip(
            model.values(), [*model.values()][::-1], optimizers, (1, 100), strict=True
        ):
            part.weight.grad, other.weight.grad = torch.full((2, 2), level * value / 2), None
            step(optimizer)
            if level == 1:
                after = part.weight.grad.norm()
    return f"the generator's spike of 20 becomes {after:.3g}", not after < 5


def guarded_pair(model: nn.Module, *optimizers: Any) -> Callable[[Any], Any]:
    Guard(model, list(optimizers), clip=ZClip())
    return lambda optimizer: optimizer.step()


def overflow_statistics(make: Make) -> Outcome:
    """fp16 with a real GradScaler, whose first scales overflow; then a spike."""
    torch.manual_seed(0)
    model, scaler = nn.Linear(4, 4), torch.amp.GradScaler("cpu", init_scale=2.0**24)
    optimizer, clip, overflows = torch.optim.SGD(model.parameters(), lr=0.0), make(model), 0
    for i in range(220):
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.float16):
            loss = 0.01 * model(torch.full((4, 4), 1 + 0.1 * math.sin(i))).float().square().mean()
        scaler.scale(loss * (20 if i >= 200 else 1)).backward()
        scaler.unscale_(optimizer)
        before = peers.norm(p.grad for p in model.parameters())
        clip()
        scaler.step(optimizer)
        scaler.update()
        overflows += not before.isfinite()
        if i >= 200 and before.isfinite():
            break
    kept = peers.norm(p.grad for p in model.parameters()) / before
    return f"after {overflows} overflows a spike of 20 x the norm is cut to {20 * kept:.3g} x", not kept < 0.25


# Steps that should be skipped


def guarded(optimizer: Callable[..., torch.optim.Optimizer] = adamw, **settings: Any) -> Train:
    """Our loop: the guard on the optimizer's hooks, nothing else. ``clip`` and ``recover`` are its arguments."""
    scale, micro_batches = settings.pop("scale", 0.0), settings.pop("micro_batches", 1)

    def guard(model: nn.Module, over: torch.optim.Optimizer, scaler: Any) -> None:
        Guard(model, over, scaler=scaler, **copy.deepcopy(settings))

    return loop(optimizer=optimizer, guard=guard, scale=scale, micro_batches=micro_batches)


class GuardedSGD:
    """An optimizer that a guard watches, as a contender whose gradients are given."""

    def __init__(self, target: nn.Module, **settings: Any) -> None:
        optimizer = torch.optim.SGD(target.parameters(), lr=0.1)
        guard = Guard(target, optimizer, **copy.deepcopy(settings))
        self.step_, self.state_dict, self.load_state_dict = optimizer.step, guard.state_dict, guard.load_state_dict

    def step(self) -> None:
        self.step_()


def weights(model: nn.Module) -> Tensor:
    return nn.utils.parameters_to_vector(model.parameters()).detach().clone()


def a_model(*further: nn.Module) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(2, 2), *further)


def after_bad_batch(value: float, good: int = 5) -> Callable[[Train], Outcome]:
    """Good steps, then a batch of ``value``: no weight may move at it, and what the loop itself does must not fail."""

    def scenario(train: Train) -> Outcome:
        model, x, note = a_model(), torch.ones(4, 2), ""
        step = train(model)
        for i in range(good):
            step(x * (1 + 0.1 * math.sin(i)))
        before = weights(model)
        try:
            step(x * value)
        except (AssertionError, RuntimeError) as error:
            note = f"; {type(error).__name__}"
        moved = (weights(model) - before).abs().max()
        return f"weights move by {moved:.3g}{note}", moved != 0 or "AssertionError" in note

    return scenario


def part_of_window(train: Train) -> Outcome:
    """The third of four micro-batches is NaN: no step may be made of the others alone."""
    model, x = a_model(), torch.ones(4, 2)
    step = train(model)
    step(x)
    before = weights(model)
    x[2] = NAN
    step(x)
    moved = (weights(model) - before).abs().max()
    return f"weights move by {moved:.3g}", moved != 0


def batch_norm(train: Train) -> Outcome:
    model = a_model(nn.BatchNorm1d(2))
    step = train(model)
    step(torch.randn(4, 2))
    step(torch.full((4, 2), NAN))
    lost = sum(int((~buffer.isfinite()).sum()) for buffer in model.buffers())
    return f"{lost} of 4 running statistics NaN", lost > 0


def endless(train: Train) -> Outcome:
    step = train(a_model())
    for i in range(50):
        try:
            step(torch.full((4, 2), NAN))
        except RuntimeError as error:
            return f"{type(error).__name__} at bad batch {i + 1}", False
    return "50 bad batches on end, no error", True


def several_bad(train: Train) -> Outcome:
    model = a_model()
    step = train(model)
    for _ in range(8):
        step(torch.full((4, 2), NAN))
    lost = int((~weights(model).isfinite()).sum())
    return f"after 8 bad batches {lost} of 6 weights NaN", lost > 0


def loss_scale(train: Train) -> Outcome:
    step = train(a_model())
    before = step(torch.ones(4, 2))
    after = step(torch.full((4, 2), INF))
    return f"loss scale {before:g} becomes {after:g} at an overflow", after != before / 2


def unit_step(train: Train) -> Outcome:
    """SGD with lr 1 and max_norm 1, a true norm of several hundred: the weights must move by 1."""
    model = a_model()
    step, before = train(model), weights(model)
    step(torch.full((4, 2), 20.0))
    moved = (weights(model) - before).norm()
    return f"weights move by {moved:.3g}", not 0.99 < moved < 1.01


def small_losses(train: Train) -> Outcome:
    """The loss goes from 0.001 to 0.004, which is noise: the training goes on."""
    model = nn.Linear(1, 1, bias=False)
    step = train(model)
    nn.init.ones_(model.weight)
    for i, loss in enumerate([1e-3] * 20 + [4e-3]):
        try:
            step(torch.full((4, 1), loss**0.5) / model.weight.item())
        except RuntimeError as error:
            return f"{type(error).__name__} at step {i + 1}", True
    return "trains on", False


def refused_after(make: Make) -> Outcome:
    """100 steps, a norm that is NaN, 300 steps again: how many of these move no weight?"""
    model, refused = nn.Linear(2, 2, bias=False), 0
    step = make(model)
    for i, value in enumerate([*steady(100), NAN, *steady(300)]):
        nn.init.ones_(model.weight)
        model.weight.grad = torch.full((2, 2), value / 2)
        step()
        refused += i > 100 and bool((model.weight == 1).all())
    return f"{refused} of 300 good steps skipped", refused > 0


class Far(nn.Module):
    """The distance to 1, so that the square of the output is a regression."""

    def forward(self, x: Tensor) -> Tensor:
        return x - 1


def frozen(train: Train) -> Outcome:
    """Two factors A and B = 0, so that A's first gradient is zero: A must move between steps 300 and 600."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 2, bias=False), nn.Linear(2, 4, bias=False))
    nn.init.zeros_(model[1].weight)
    step, x = train(nn.Sequential(model, Far())), torch.randn(4, 4)
    for i in range(600):
        if i == 300:
            before = model[0].weight.detach().clone()
        step(x)
    moved = (model[0].weight - before).norm()
    return f"in 300 steps its weights move by {moved:.2g}", not moved > 1e-3


def reloads(make: Callable[[], Any]) -> Outcome:
    state = copy.deepcopy(make().state_dict())
    try:
        make().load_state_dict(state)
    except AttributeError as error:
        return f"AttributeError: {error}", True
    return "loads", False


# The table


def ours(clipper: Callable[..., Any], *args: Any, **kwargs: Any) -> Named:
    """Make a contender of a clipper of ours."""
    return clipper.__name__, lambda target: partial(clipper(*args, **kwargs).clip_, target)


def one_step() -> list[Row]:
    """Arithmetic, arguments, kinds of gradients."""
    clip = nn.utils.clip_grad_norm_
    torch_norm, negative, undefined = ((clip.__name__, called(clip, limit)) for limit in (1.0, -1.0, NAN))
    torch_value, package = ("clip_grad_value_", called(nn.utils.clip_grad_value_, 1.0)), ("zclip", zclip())
    timm, composer = ("timm AGC", called(peers.timm_agc().adaptive_clip_grad)), called(peers.composer_agc)
    our_norm, our_value, z = ours(NormClip, 1.0), ours(ValueClip, -1.0, 1.0), ours(ZClip)
    our_agc, vectors = ours(AGC, exclude=()), ours(AGC, exclude=(), vectors=True)
    fsdp = ("composer, FSDP", called(peers.composer_value, 1.0))
    huge, half = norm_becomes_one([3e19, 3e19]), norm_becomes_one(*[[6e4]] * 100, dtype=torch.float16)
    return [
        Row("an Inf among finite gradients", left_alone([INF, 1.0], [2.0]), torch_norm, our_norm),
        Row("an Inf among finite gradients", left_alone([INF, 0.5]), torch_value, our_value),
        Row("an Inf among finite gradients", left_alone([[INF, 1.0], [1e-6, 1e-6]]), timm, our_agc),
        Row("a NaN among finite gradients", left_alone([NAN, 1.0], [2.0]), torch_norm, our_norm),
        Row("finite, but the fp32 norm overflows", huge, torch_norm, our_norm),
        Row("finite, but the fp32 norm overflows", huge, package, ours(ZClip, max_norm=1.0)),
        Row("fp16: 100 tensors of 60,000", half, torch_norm, our_norm),
        Row("first parameter fp16, second fp32", norm_of_mixed, package, z),
        Row("max_norm = -1", no_limit, negative, ours(NormClip, -1.0)),
        Row("max_norm = NaN", no_limit, undefined, ours(NormClip, NAN)),
        Row("sparse gradient", sparse, torch_norm, our_norm),
        Row("sparse gradient", sparse, torch_value, our_value),
        Row("sparse gradient", sparse, timm, our_agc),
        Row("complex gradient", complex_entry, torch_value, our_value),
        Row("no gradient at all", no_gradient, torch_value, our_value),
        Row("a parameter twice in the list", twice_the_same, torch_norm, our_norm),
        Row("a generator that is used up", used_up_generator, timm, our_agc),
        Row("value clipping is of the entries", by_entry, fsdp, our_value),
        Row("AGC: weights that start at zero", zero_weight, ("composer AGC", composer), vectors),
    ]


def units_of_agc() -> list[Row]:
    """Which entries AGC takes for a unit, and which layers it leaves alone."""
    timm, agc = ("timm AGC", called(peers.timm_agc().adaptive_clip_grad)), ours(AGC, exclude=())
    nfnets, ignoring = (("nfnets-pytorch", peers.nfnets_agc(ignored)) for ignored in (None, ["fc"]))
    kozistr, last_two = ("pytorch-optimizer agc", peers.kozistr_agc), ("timm, [:-2]", peers.timm_without_head)
    linear, embedding, conv3d = nn.Linear(3, 2, bias=False), nn.Embedding(4, 3), nn.Conv3d(2, 2, 2, bias=False)
    transposed, grouped = nn.ConvTranspose2d(2, 3, 1), nn.ConvTranspose2d(4, 4, 1, groups=2)
    no_head = ours(AGC, exclude=("fc",), vectors=True)
    return [
        Row("AGC: a unit of Linear is a row", other_units(linear, 0), nfnets, agc),
        Row("AGC: a unit of Embedding is a row", other_units(embedding, 1), nfnets, agc),
        Row("AGC: a unit of Conv3d is an output channel", other_units(conv3d, 0), nfnets, agc),
        Row("AGC: a unit of Conv1d is an output channel", one_unit, kozistr, agc),
        Row("AGC: a unit of ConvTranspose is an output channel", other_units(transposed, (slice(None), 0)), timm, agc),
        Row("AGC: ConvTranspose with groups", other_units(grouped, (slice(2), 0)), timm, agc),
        Row("AGC: the head is left out", only_head_is_spared, ignoring, no_head),
        Row("AGC: the head is left out", only_head_is_spared, last_two, no_head),
        Row("can be imported", importable, ("nfnets-pytorch", "nfnets"), ("gradguard", "gradguard.clip")),
    ]


def learnt() -> list[Row]:
    """What a clipper makes of the norms that it has seen."""
    z, auto, each, stabilizer = ours(ZClip), ours(AutoClip), ours(AdaGC), ours(GradientStabilizer)
    package, callback = ("zclip", zclip(max_grad_norm=None)), ("zclip's callback", peers.zclip_callback)
    paper, quantile = ("AutoClip, published", stepped(peers.AutoClip)), ("autoclip", peers.autoclip("QuantileClip"))
    deviation, ring = ("autoclip StandardClip", peers.autoclip("StandardClip")), ("bitsandbytes", stepped(peers.Ring))
    rule, kozistr = ("AdaGC, published", stepped(peers.AdaGC)), "pytorch-optimizer"
    adagc, inside = (f"{kozistr} AdaGC", moments("AdaGC", weight_decay=0.0)), (f"{kozistr} AdaGC", peers.adagc_loop)
    slow = partial(torch.optim.AdamW, lr=1e-3, weight_decay=0.0)
    rule_loop, each_loop = (rule[0], loop(rule[1], slow)), ("AdaGC", guarded(slow, clip=AdaGC()))
    published = ("GradientStabilizer, published", stepped(peers.GradientStabilizer))
    one_nan, one_inf, first_steps = poisoned(NAN, 150), poisoned(INF, 10), lost_of("steady", steady(150))
    later = lost_of("a zero, and 20 after it", [*steady(150), 0.0, *steady(20)], 150)
    return [
        Row("one NaN", one_nan, package, z),
        Row("one NaN", one_nan, paper, auto),
        Row("one NaN", one_nan, quantile, auto),
        Row("one NaN", one_nan, rule, each),
        Row("one Inf in the warm-up", one_inf, package, z),
        Row("fp16 overflows of a GradScaler", overflow_statistics, package, z),
        Row("norms that do not vary", constant_norms, package, z),
        Row("ten times the level, for good", level_shift(150), package, z),
        Row("ten times the level, for good", level_shift(150), rule, each),
        Row("ten times the level, for good", level_shift(1000), paper, auto),
        Row("calls without any gradient", empty_calls, package, z),
        Row("the first steps", first_steps, ring, auto),
        Row("the first steps", first_steps, deviation, z),
        Row("gradients of zero at first", lost_of("5 zeros, then", [0.0] * 5 + steady(100), 5), paper, auto),
        Row("a gradient of zero later", later, published, stabilizer),
        Row("a gradient that is always zero", lost_of("zeros", [0.0] * 200), rule, each),
        Row("a gradient that is always zero", lost_of("zeros", [0.0] * 200), adagc, each),
        Row("a LoRA factor, whose first gradient is zero", frozen, rule_loop, each_loop),
        Row("a LoRA factor, whose first gradient is zero", frozen, inside, each_loop),
        Row("AdaGC divides by the norm in its warm-up", first_norm, adagc, each),
        Row("bf16 gradients", slow_growth, adagc, each),
        Row("a spike in every entry", element_spike, (f"{kozistr} SPAM", moments("SPAM")), z),
        Row("a spike in every entry", element_spike, (f"{kozistr} StableSPAM", moments("StableSPAM")), stabilizer),
        Row("memory", memory, paper, auto),
        Row("reads on the host", host_reads, package, z),
        Row("two optimizers", two_optimizers, callback, ("Guard", guarded_pair)),
        Row("going on from a checkpoint", resumed, package, z),
        Row("going on from a checkpoint", resumed, quantile, auto),
        Row("a checkpoint, parameters in another order", reordered, quantile, each),
    ]


def loops() -> list[Row]:
    """What happens to a step that should not be made, and under a GradScaler."""
    one, name, bad = called(nn.utils.clip_grad_norm_, 1.0), "clip_grad_norm_", "a NaN batch"
    skip, amp, limit = Skip(budget=10), {"scale": 1024.0}, NormClip(1.0)
    after_nan, by_hand, zeroed = after_bad_batch(NAN), called(peers.none_if_non_finite), called(peers.zero_non_finite)
    detection, lenient = peers.spike_loop(), peers.spike_loop(finite_only=False)
    skips, skips_amp = ("Guard", guarded(recover=skip)), ("Guard", guarded(recover=skip, **amp))
    window = ("Guard", guarded(sgd, recover=skip, micro_batches=4))
    sigma = ("OLMo-core SkipStep", lambda model: peers.SkipBySigma(model.parameters()).step)
    our_step, stateful = stepped(GuardedSGD, recover=skip), stepped(GuardedSGD, clip=ZClip(), recover=skip)
    clips, clips_amp = ("Guard", guarded(sgd, clip=limit)), ("Guard", guarded(sgd, clip=limit, **amp))
    clips_fused = ("Guard", guarded(fused, clip=limit, **amp))
    our_guard = ("Guard", lambda: GuardedSGD(nn.Linear(2, 2), clip=ZClip(), recover=skip))
    return [
        Row(bad, after_nan, (name, loop(one)), skips),
        Row(bad, after_nan, ("Lightning Trainer, gradient_clip_val", peers.lightning_trainer), skips),
        Row(bad, after_nan, ("NeMo skip_nan_grad, icefall", loop(zeroed)), skips),
        Row(bad, after_nan, ("Pascanu's RNN.py", loop(called(peers.shrink_recurrent))), skips),
        Row(bad, after_nan, ("SpikeDetection", detection), skips),
        Row(bad, after_nan, ("SpikeDetection(finite_only=False)", lenient), skips),
        Row(bad, after_bad_batch(NAN, 100), ("OLMo-core SkipStep", loop(optimizer=peers.SkipBySigma)), skips),
        Row("an Inf batch", after_bad_batch(INF), ("composer NaNMonitor", peers.nan_monitor), skips),
        Row("eight NaN batches", several_bad, ("optax apply_if_finite", loop(stepped(peers.ApplyIfFinite))), skips),
        Row("NaN batches without end", endless, ("p.grad = None", loop(by_hand)), skips),
        Row("NaN batches without end", endless, ("GradScaler", loop(**amp)), skips_amp),
        Row("a NaN batch, no unscale_()", after_nan, ("p.grad = None", loop(by_hand, **amp)), skips_amp),
        Row("an overflow is seen by the scaler", loss_scale, ("NeMo", loop(zeroed, **amp)), skips_amp),
        Row("BatchNorm after a skipped batch", batch_norm, ("p.grad = None", loop(by_hand)), skips),
        Row("a NaN micro-batch", part_of_window, ("NeMo", loop(zeroed, sgd, micro_batches=4)), window),
        Row("a NaN in the statistic", refused_after, sigma, ("Guard", our_step)),
        Row("going on from a checkpoint", resumed, sigma, ("Guard", stateful)),
        Row("loading a checkpoint", reloads, ("SpikeDetection", peers.spike_detection), our_guard),
        Row("a loss that is small", small_losses, ("SpikeDetection", detection), skips),
        Row("clipped before backward()", unit_step, (name, loop(one, sgd, early=True)), clips),
        Row("clipped without unscale_()", unit_step, (name, loop(one, sgd, **amp)), clips_amp),
        Row("the same, fused optimizer", unit_step, (name, loop(one, fused, **amp)), clips_fused),
    ]


def measured(scenario: Callable[[Any], Outcome], contender: Any) -> Outcome:
    """Run one scenario; an error that it does not expect is a failure, too."""
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            text, failed = scenario(contender)
            return text, bool(failed)
        except Exception as error:  # it belongs into the table
            return f"{type(error).__name__}: {str(error).splitlines()[0][:120]}", True


def run() -> None:
    """Print the table, and how many fail."""
    rows = [*one_step(), *units_of_agc(), *learnt(), *loops()]
    for name in ("pytorch_lightning", "lightning.pytorch", "lightning_fabric", "gradguard"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    lines, failed = [], [0, 0]
    for defect, scenario, (peer, theirs), (name, mine) in rows:
        (they_do, they_fail), (we_do, we_fail) = measured(scenario, theirs), measured(scenario, mine)
        failed = [failed[0] + they_fail, failed[1] + we_fail]
        verdicts = ["**yes**" if failure else "no" for failure in (they_fail, we_fail)]
        lines.append([defect, peer, they_do, f"{name}: {we_do}", *verdicts])
    print(f"\n## Known failures: of {len(lines)} scenarios the peers fail {failed[0]}, ours {failed[1]}\n")
    print(table(["defect", "peer", "what the peer does", "ours", "peer fails", "ours fails"], lines))
