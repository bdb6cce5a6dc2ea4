"""How a recurrence carries small changes of its states along: products of Jacobians, without the Jacobians.

Shape legend: T = time, B = batch, I = input, S = width of a state, D = width of all states together, K = directions.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

Step = Callable[..., tuple[Tensor, ...]]


class Plan(NamedTuple):
    """When directions are made orthogonal, and from when on their growth counts.

    Attributes:
        sizes: of each step, how many sequences it has; never more than the one before.
        lengths: of each sequence, how many steps it has.
        warm: of each sequence, how many of them are not counted.
        every: steps between two QR decompositions, at most.
    """

    sizes: list[int]
    lengths: list[int]
    warm: list[int]
    every: int


class Growth(NamedTuple):
    """What a layer did.

    Attributes:
        rates: [B, K], logarithm per step.
        outputs: the first state of every step, rows under one another.
    """

    rates: Tensor
    outputs: Tensor


def growth(step: Step, xs: Sequence[Tensor], states: Sequence[Tensor], start_DK: Tensor, plan: Plan) -> Growth:
    """Run a layer, and directions with it; ``step`` is called once for each x, in order.

    Where one is lost before growth counts, all begin anew then: it is not known what else it would have met.
    """
    forward_mode()
    now, columns, since = tuple(states), start_DK.expand(len(states[0]), *start_DK.shape), 0
    totals, outputs = torch.zeros_like(columns[:, 0]), []
    warm = torch.tensor(plan.warm, device=totals.device).unsqueeze(1)
    lost = torch.zeros_like(warm, dtype=torch.bool)
    stops = {*plan.warm, *plan.lengths}
    for t, x in enumerate(xs, start=1):
        rows, since = len(x), since + 1
        now, columns = pushed(partial(step, x), tuple(state[:rows] for state in now), columns[:rows])
        outputs.append(now[0])
        if since == plan.every or t in stops:
            columns, logs = orthogonal(columns)
            totals[:rows] += torch.where(warm[:rows] < t, logs, 0.0)
            lost[:rows] |= logs.isneginf().any(-1, keepdim=True)
            begins = lost[:rows] & (warm[:rows] == t)
            columns, since = torch.where(begins.unsqueeze(-1), start_DK, columns), 0
    counted = torch.tensor(plan.lengths, device=totals.device).unsqueeze(1) - warm
    return Growth(totals / counted, torch.cat(outputs))


def pushed(step: Step, states: tuple[Tensor, ...], columns_BDK: Tensor) -> tuple[tuple[Tensor, ...], Tensor]:
    """Take a step: the new states, and the product of its Jacobian with each column."""
    parts = columns_BDK.split([state.shape[1] for state in states], dim=1)

    def push(*tangents: Tensor) -> Any:
        return torch.func.jvp(step, states, tangents)

    out_dims: Any = (None, 0)  # the new states are the same for all directions
    new, moved = torch.vmap(push, out_dims=out_dims)(*(part.permute(2, 0, 1) for part in parts))
    return new, torch.cat(moved, dim=-1).permute(1, 2, 0)


def orthogonal(columns_BDK: Tensor) -> tuple[Tensor, Tensor]:
    """Make columns orthonormal: what they are then, and the logarithm of what each added to the volume.

    What is below the rounding of the step is nothing: -inf. NaN and Inf stay. Entries that are 0 in all columns, as of
    closed units, stay 0: what QR leaves there would grow where these units see only themselves.
    """
    q_BDK, r_BKK = torch.linalg.qr(columns_BDK)
    q_BDK = torch.where((columns_BDK == 0).all(-1, keepdim=True), 0.0, q_BDK)
    lengths = r_BKK.diagonal(dim1=-2, dim2=-1).abs()
    most = torch.linalg.vector_norm(columns_BDK, dim=1).amax(-1, keepdim=True)
    rounding = columns_BDK.shape[1] * torch.finfo(columns_BDK.dtype).eps * most
    return q_BDK, torch.where((lengths <= rounding) & rounding.isfinite(), 0.0, lengths).log()


def random_directions(width: int, k: int, device: torch.device) -> Tensor:
    """Draw the directions to begin with, [D, K], the same ones each time: an axis may be a state of its own."""
    generator = torch.Generator("cpu").manual_seed(0)
    drawn = [
        torch.randn(width, dtype=torch.float64, device="cpu", generator=generator) for _ in range(k)
    ]  # the first, for any k
    found: Tensor = torch.linalg.qr(torch.stack(drawn, dim=1))[0]
    return found.to(device)


@lru_cache(maxsize=1)
def forward_mode() -> None:
    """Have torch load forward mode, for which it calls its own ``torch.jit.script`` and warns of that."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.func.jvp(torch.sin, (torch.zeros(()),), (torch.ones(()),))
