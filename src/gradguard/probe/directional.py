r"""The derivative of a number along one direction, by differences, held against the one that autograd gives.

Two step sizes, h and h / 2, on both sides:

.. math:: D(h) = \frac{f(h) - f(-h)}{2 h}, \quad R = \frac{4 D(h / 2) - D(h)}{3}, \quad
    J(h) = \frac{f(h) + f(-h) - 2 f(0)}{h}

R is the derivative of a smooth f to fourth order. There D(h) - D(h / 2) and 2 J(h / 2) - J(h) vanish as h² and h³, far
faster than what they are held against. At a kink they don't: J(h) is the difference of the one-sided derivatives.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

FACTOR = 16.0  # from one pair of step sizes to the next
LEVELS = 6  # pairs of step sizes, at most
SURE = 10.0  # by how much a difference must exceed what smoothness leaves open
FINE = 1e-4  # doubt that is small enough, in parts of the derivative
BLIND = 0.1  # doubt that is too large to say anything


class Pair(NamedTuple):
    """What two step sizes say.

    Attributes:
        numeric: the derivative, R.
        spread: by how much the two disagree, beyond rounding.
        jump: by how much the one-sided derivatives differ in the limit, beyond rounding.
        noise: what rounding may do to ``numeric``.
        flat: whether f is the same, to the last bit, at all points.
    """

    numeric: float
    spread: float
    jump: float
    noise: float
    flat: bool


class Reading(NamedTuple):
    """What one direction says.

    Attributes:
        state: "agrees", "differs", "kink", "blind" (rounding hides all) or "not finite".
        analytic: what autograd says.
        numeric: what differences say.
        error: their difference, in parts of the derivative.
        doubt: the smallest error that would have been seen, in the same parts.
        flat: whether f did not change at all.
    """

    state: str
    analytic: float
    numeric: float
    error: float
    doubt: float
    flat: bool = False


def pair(f: Callable[[float], float], at_0: float, step: float, sigma: float) -> Pair | None:
    """Take differences at a step size and at half of it; None where f is not finite."""
    far, near = (f(step), f(-step)), (f(step / 2), f(-step / 2))
    if not all(map(math.isfinite, (*far, *near))):
        return None
    d_far, d_near = (far[0] - far[1]) / (2 * step), (near[0] - near[1]) / step
    j_far, j_near = (far[0] + far[1] - 2 * at_0) / step, (near[0] + near[1] - 2 * at_0) / (step / 2)
    noise = 10 * sigma / step  # R has a standard deviation of 2 sigma / step, D(h) - D(h/2) of 1.6, the jump of 10
    return Pair(
        numeric=(4 * d_near - d_far) / 3,
        spread=max(0.0, abs(d_far - d_near) - noise),
        jump=max(0.0, abs(2 * j_near - j_far) - 5 * noise),
        noise=noise,
        flat=far == near == (at_0, at_0),
    )


def read(
    f: Callable[[float], float],
    at_0: float,
    analytic: float,
    *,
    typical: float,
    step: float,
    widest: float,
    sigma: float,
    rtol: float,
) -> Reading:
    """Hold the derivative of f at 0 against ``analytic``: at smaller steps where f is rough, at larger ones in noise.

    Args:
        f: along the direction.
        at_0: its value at 0.
        analytic: what its derivative should be.
        typical: how large the derivative is along most directions: a small one by chance is measured by that.
        step: the step size to begin with.
        widest: the largest step size.
        sigma: standard deviation of the rounding in f.
        rtol: relative difference that counts as none.
    """
    tried: dict[int, Reading] = {}
    level = 0
    while len(tried) < LEVELS:
        found = pair(f, at_0, step * FACTOR**level, sigma)
        finer, coarser = min([level, *tried]) - 1, max([level, *tried]) + 1
        may_widen = step * FACTOR**coarser <= widest
        if found is None:
            tried[level] = Reading("not finite", analytic, math.nan, math.nan, math.inf)
            level = finer
            continue
        tried[level] = seen = _judged(found, analytic, typical, rtol)
        if (seen.state == "agrees" and seen.doubt <= rtol + FINE) or _is_confirmed(tried):
            break
        if seen.state == "differs" and not seen.flat:
            level = coarser if may_widen else finer
        elif seen.flat or found.noise >= found.spread + found.jump:
            if not may_widen:
                break
            level = coarser
        else:
            level = finer
    return _concluded(tried)


def _judged(found: Pair, analytic: float, typical: float, rtol: float) -> Reading:
    known = math.isfinite(analytic)
    scale = max(abs(analytic), abs(found.numeric), typical) if known else abs(found.numeric)
    scale = scale or found.jump  # as of |x| at 0
    if scale == 0:
        doubt = 0.0 if found.flat else math.inf
        return Reading("agrees" if known else "differs", analytic, 0.0, 0.0, doubt, found.flat)
    doubt = found.noise + found.spread**2 / scale
    gap = abs(analytic - found.numeric) if known else scale
    rough = SURE * (found.spread + found.jump)
    state = "open"
    if known and gap <= rtol * scale + doubt:
        state = "agrees" if found.jump <= BLIND * scale else "open"  # the mean of two slopes is no derivative
    elif gap > rough + (2 * rtol * scale + 4 * found.noise if known else 0.0):
        state = "differs"
    return Reading(state, analytic, found.numeric, gap / scale, rtol + doubt / scale, found.flat)


def _is_confirmed(tried: dict[int, Reading]) -> bool:
    """Whether two pairs of steps next to one another give one derivative, and it is another one."""
    return any(
        a.state == b.state == "differs"
        and not (a.flat or b.flat)
        and not abs(a.numeric - b.numeric) > abs(a.analytic - a.numeric) / 4
        for level, a in tried.items()
        if (b := tried.get(level + 1)) is not None
    )


def _concluded(tried: dict[int, Reading]) -> Reading:
    seen = sorted(tried.values(), key=lambda reading: reading.doubt)
    if _is_confirmed(tried) or all(reading.flat and reading.state == "differs" for reading in seen):
        return next(reading for reading in seen if reading.state == "differs")
    best = next((reading for reading in seen if reading.state == "agrees"), seen[0])
    if best.state == "not finite" or (best.state == "agrees" and best.doubt <= BLIND):
        return best
    rough = next((reading for reading in seen if reading.state != "agrees" and reading.doubt <= BLIND), None)
    return best._replace(state="blind") if rough is None else rough._replace(state="kink")
