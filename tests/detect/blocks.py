"""Blocks made by hand: detectors see what a test writes down."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from gradguard.detect import Activations, Block, Clips, InTime, Layout, Role, Samples


def layout(layers: int, *, bias: bool = False) -> Layout:
    roles = [Role.WEIGHT, Role.BIAS] if bias else [Role.WEIGHT]
    suffix = {Role.WEIGHT: "weight", Role.BIAS: "bias"}
    return Layout(
        "optimizer",
        tuple(f"layer{i}.{suffix[role]}" for i in range(layers) for role in roles),
        tuple(f"layer{i}" for i in range(layers) for _ in roles),
        tuple(100 if role is Role.WEIGHT else 10 for _ in range(layers) for role in roles),
        tuple(role for _ in range(layers) for role in roles),
    )


def block(
    of: Layout,
    grad_norms: Tensor | Sequence[Sequence[float]],
    *,
    first_step: int = 1,
    overflow: Sequence[int] = (),
    missing: Tensor | None = None,
    ratios: dict[int, Sequence[float]] | None = None,
    rates: float = 0.1,
    frozen: Sequence[int] = (),
    losses: dict[int, float] | None = None,
    skipped: Sequence[int] = (),
    clips: Clips | None = None,
    in_time: Sequence[InTime] = (),
    activations: Sequence[Activations] = (),
    moved: dict[int, float] | float = torch.nan,
) -> Block:
    """``overflow`` and ``skipped`` are steps; ``ratios`` the update ratios by sampled step."""
    norms = torch.as_tensor(grad_norms, dtype=torch.float64)
    steps = torch.arange(first_step, first_step + len(norms))
    ratios = ratios or {}
    sampled = torch.tensor([list(row) for row in ratios.values()], dtype=torch.float64).reshape(-1, len(of.names))
    return Block(
        of,
        steps,
        norms,
        torch.linalg.vector_norm(norms, dim=1),
        torch.zeros_like(norms, dtype=torch.bool) if missing is None else missing,
        torch.tensor([i not in frozen for i in range(len(of.names))]),
        torch.isin(steps, torch.tensor(list(overflow), dtype=torch.int64)),
        torch.tensor([(losses or {}).get(s, torch.nan) for s in steps.tolist()], dtype=torch.float64),
        torch.tensor([s in (losses or {}) for s in steps.tolist()], dtype=torch.bool),
        Samples(
            torch.tensor(list(ratios), dtype=torch.int64),
            torch.ones_like(sampled),
            sampled,
            torch.full_like(sampled, rates),
        ),
        torch.isin(steps, torch.tensor(list(skipped), dtype=torch.int64)),
        clips,
        tuple(in_time),
        tuple(activations),
        torch.tensor(
            [moved.get(s, torch.nan) if isinstance(moved, dict) else moved for s in steps.tolist()], dtype=torch.float64
        ),
    )


def clips(coefficients: Tensor, *, limits: bool = True) -> Clips:
    """A single clipper that left these shares of norms of 1."""
    coefficients = coefficients.double()
    none = torch.zeros_like(coefficients)
    return Clips((), limits, coefficients, coefficients[:, None], coefficients[:, None], coefficients < 1, none)


def cut(whole: Block, sizes: Sequence[int]) -> Iterator[Block]:
    """The same steps in several blocks."""
    start, i = 0, 0
    while start < len(whole.steps):
        stop = min(len(whole.steps), start + sizes[i % len(sizes)])
        steps, samples = whole.steps[start:stop], whole.samples
        at = torch.isin(samples.steps, steps)
        rows = ("steps", "grad_norms", "totals", "missing", "overflow", "losses", "has_loss", "skipped")
        clips = whole.clips
        if clips is not None:
            of_clips = ("totals", "coefficients", "thresholds", "clipped", "changes")
            clips = replace(clips, **{name: getattr(clips, name)[start:stop] for name in of_clips})
        yield replace(
            whole,
            clips=clips,
            in_time=tuple(one for one in whole.in_time if one.step in steps),
            activations=tuple(one for one in whole.activations if one.step in steps),
            moved=None if whole.moved is None else whole.moved[start:stop],
            **{name: getattr(whole, name)[start:stop] for name in rows},
            samples=Samples(
                *(t[at] for t in (samples.steps, samples.weight_norms, samples.update_ratios, samples.learning_rates))
            ),
        )
        start, i = stop, i + 1


def noisy(rows: int, of: Layout, decades: float = 0.0, *, spread: float = 0.1, seed: int = 0) -> Tensor:
    """Gradient norms whose RMS rises by ``decades`` powers of ten from the first layer to the last, with noise."""
    generator = torch.Generator().manual_seed(seed)
    depth = torch.linspace(-decades, 0, len(of.names), dtype=torch.float64)
    noise = spread * torch.randn(rows, len(of.names), generator=generator, dtype=torch.float64)
    return 10 ** (depth + noise) * torch.tensor(of.sizes, dtype=torch.float64).sqrt()
