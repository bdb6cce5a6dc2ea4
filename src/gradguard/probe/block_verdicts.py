"""A verdict on the gradient of each block of a function: along several directions, and beside the point if in doubt."""

from __future__ import annotations

import math
import statistics
from typing import NamedTuple

import torch
from torch import Tensor

from gradguard.probe.block_check import BlockCheck, Verdict
from gradguard.probe.directional import Reading, read
from gradguard.probe.scalar import Scalar

POINTS = 12  # at which rounding is looked at
NUDGE = 1e-2  # how far the point is moved where a kink may be at it, in parts of each block
NUDGES = 2
MORE = 3  # directions more, where all have met a kink
WIDEST = 0.1  # the largest step, in parts of a block
POOR = 1e-3  # doubt from which on the gradient's own direction is tried, too


class Plan(NamedTuple):
    """How blocks are checked.

    Attributes:
        directions: random ones, of each block.
        rtol: relative difference that counts as none.
        seed: of the directions.
        order: of the derivative, for the report.
    """

    directions: int
    rtol: float
    seed: int
    order: int = 1


def rounding(scalar: Scalar, at_0: float, seed: int) -> float:
    """Measure the rounding in a function: third differences at points so close that all else vanishes in them."""
    generator = torch.Generator().manual_seed(seed)
    along = {name: scalar.direction(name, generator) * scalar.size(name) for name in scalar.blocks}
    values = [scalar.value(along, 1e-7 * k) for k in range(-POINTS // 2, POINTS // 2)]
    third = [a - 3 * b + 3 * c - d for a, b, c, d in zip(values, values[1:], values[2:], values[3:], strict=False)]
    finite = [abs(one) for one in third if math.isfinite(one)]
    measured = statistics.median(finite) / 0.67 / math.sqrt(20) if finite else 0.0
    return max(measured, abs(at_0) * torch.finfo(torch.float64).eps / 2, 1e-300)


def verdicts(scalar: Scalar, plan: Plan, sigma: float = 0.0) -> list[BlockCheck]:
    """Check the blocks of a function.

    Args:
        scalar: the function.
        plan: how.
        sigma: rounding that is known already, such as the difference of two runs.
    """
    names = list(scalar.blocks)
    at_0, gradients = scalar.gradients()
    sigma = max(sigma, rounding(scalar, at_0, plan.seed))
    here = {name: _readings(scalar, name, gradients[name], at_0, sigma, plan) for name in names}
    doubtful = {name for name in names if any(r.state == "differs" for r in here[name]) or _is_kink(here[name])}
    beside = _beside(scalar, doubtful, sigma, plan)
    return [_check(name, gradients[name], here[name], beside.get(name, []), plan.order) for name in names]


def _beside(scalar: Scalar, names: set[str], sigma: float, plan: Plan) -> dict[str, list[Reading]]:
    """Read again where no kink is: an error is still there, a kink is not."""
    found: dict[str, list[Reading]] = {}
    for nudge in range(NUDGES):
        left = [name for name in scalar.blocks if name in names and not _decides(found.get(name, []))]
        if not left:
            break
        generator = torch.Generator().manual_seed(plan.seed + 1 + nudge)
        along = {name: scalar.direction(name, generator) * (NUDGE * scalar.size(name)) for name in scalar.blocks}
        with scalar.elsewhere(along):
            try:
                at_0, gradients = scalar.gradients()
            except Exception:
                continue
            if math.isfinite(at_0):
                for name in left:
                    found[name] = _readings(scalar, name, gradients[name], at_0, sigma, plan)
    return found


def _readings(
    scalar: Scalar, name: str, gradient: Tensor | None, at_0: float, sigma: float, plan: Plan
) -> list[Reading]:
    """Read along random directions; more where all have met a kink, the gradient's own where one is in doubt."""
    block, size = scalar.blocks[name], scalar.size(name)
    if not block.numel():
        return []
    entries = block.numel() * (2 if block.is_complex() else 1)
    grad_norm = 0.0 if gradient is None else float(gradient.norm())
    typical = grad_norm / math.sqrt(entries) if math.isfinite(grad_norm) else 0.0
    step = size * min(max(4 * (sigma / max(abs(at_0), sigma)) ** (1 / 3), 1e-5), 3e-3)

    def along(direction: Tensor, typical: float) -> Reading:
        analytic = 0.0 if gradient is None else _inner(gradient, direction)
        return read(
            lambda t: scalar.value({name: direction}, t),
            at_0,
            analytic,
            typical=typical,
            step=step,
            widest=WIDEST * size,
            sigma=sigma,
            rtol=plan.rtol,
        )

    found: list[Reading] = []
    place = list(scalar.blocks).index(name)
    while len(found) < plan.directions or (_is_kink(found) and len(found) < plan.directions + MORE):
        generator = torch.Generator().manual_seed(1_000_003 * plan.seed + 1_009 * place + len(found))
        found.append(along(scalar.direction(name, generator), typical))
    is_in_doubt = min(r.doubt for r in found) > POOR or any(r.state == "differs" for r in found)
    if typical > 0 and gradient is not None and is_in_doubt:
        found.append(along(gradient / grad_norm, grad_norm))
    return found


def _inner(gradient: Tensor, direction: Tensor) -> float:
    if gradient.is_complex():
        gradient, direction = torch.view_as_real(gradient), torch.view_as_real(direction)
    return float((gradient * direction).sum())


def _is_kink(readings: list[Reading]) -> bool:
    states = {reading.state for reading in readings}
    return "kink" in states and not states & {"agrees", "differs"}


def _decides(readings: list[Reading]) -> bool:
    return any(reading.state in ("agrees", "differs") for reading in readings)


def _check(name: str, gradient: Tensor | None, here: list[Reading], beside: list[Reading], order: int) -> BlockCheck:
    grad_norm = 0.0 if gradient is None else float(gradient.norm())

    def check(verdict: Verdict, reading: Reading | None, why: str = "") -> BlockCheck:
        error, doubt = (math.nan, math.inf) if reading is None else (reading.error, reading.doubt)
        return BlockCheck(name, verdict, order, error, doubt, grad_norm, why)

    differing = [reading for reading in here if reading.state == "differs"]
    still = [reading for reading in beside if reading.state == "differs"]
    if still or (differing and not any(reading.state in ("agrees", "kink") for reading in beside)):
        seen = differing or still
        worst = max(seen, key=lambda reading: reading.error)
        return check("wrong", worst, _what_is_wrong(gradient, seen))
    if differing or _is_kink(here):
        why = "differences of different steps do not meet: kinks, or parts in less than float64"
        if any(reading.state == "agrees" for reading in beside):
            why = "the loss has no derivative at this point; right beside it the gradient is right"
        return check("kink", next(r for r in here if r.state in ("differs", "kink")), why)
    if not here:
        return check("unchecked", None, "it has no entries")
    best = min(here, key=lambda reading: (reading.state != "agrees", reading.doubt))
    if all(reading.flat for reading in here) and best.state == "agrees":
        if gradient is None:
            return check("unchecked", None, "the loss does not depend on it")
        return check("ok", best, "0, and the loss does not change with it")
    if best.state == "agrees" and gradient is not None:
        return check("ok", best)
    if best.state == "not finite":
        return check("unchecked", None, "the loss is not finite, or can't be computed, beside this point")
    if not grad_norm:
        why = "no gradient comes to it" if gradient is None else "it is 0"
        return check("unchecked", best, f"{why}, and the loss changes by no more than rounding")
    return check("unchecked", best, f"a gradient of norm {grad_norm:.2g} is lost in rounding")


def _what_is_wrong(gradient: Tensor | None, seen: list[Reading]) -> str:
    if gradient is None:
        return "no gradient comes to it, but the loss changes with it: is it detached?"
    if not gradient.isfinite().all():
        return "it holds NaN or Inf, where the loss has a derivative"
    if not gradient.any():
        return "it is 0, but the loss changes with it: is it detached?"
    ratios = [reading.analytic / reading.numeric for reading in seen if reading.numeric]
    if len(ratios) > 1 and max(ratios) - min(ratios) < 1e-3 * abs(ratios[0]):
        return f"it is {statistics.fmean(ratios):.5g} times what it should be"
    worst = max(seen, key=lambda reading: reading.error)
    return f"along one direction it is {worst.analytic:.4g} and should be {worst.numeric:.4g}"
