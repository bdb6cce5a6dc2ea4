"""What a clipper's call costs beside its peer's, on as many and as large gradients as ViT-B's and ResNet-50's.

The gradients are written anew before each call, outside the span that is timed: every call clips the same amount, and
finds the caches in the same state, whoever it is.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from time import perf_counter
from typing import NamedTuple

import torch
from torch import nn

from benchmarks import clipping_peers
from benchmarks.timing import interval, microseconds, ratio, rounds, table
from gradguard.clip import AGC, NormClip, ZClip

CALLS = 3  # in a turn, of which the median counts


class Block(nn.Module):
    """One of ViT-B's twelve."""

    def __init__(self, width: int = 768) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.fc1, self.fc2 = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)


class ViT(nn.Module):
    """ViT-B/16 for 224 x 224: 86.6 M in 152 parameters. They are never run."""

    def __init__(self, width: int = 768) -> None:
        super().__init__()
        self.class_token = nn.Parameter(torch.zeros(1, 1, width))
        self.position = nn.Parameter(0.02 * torch.randn(1, 197, width))
        self.patches = nn.Conv2d(3, width, 16)
        self.blocks = nn.ModuleList([Block(width) for _ in range(12)])
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, 1000)


class ResNet(nn.Module):
    """ResNet-50: 25.6 M in 161 parameters. They are never run."""

    def __init__(self) -> None:
        super().__init__()
        shapes, channels = [(64, 3, 7)], 64
        for width, depth in ((64, 3), (128, 4), (256, 6), (512, 3)):
            for i in range(depth):
                shapes += [(width, channels, 1), (width, width, 3), (4 * width, width, 1)]
                if i == 0:
                    shapes.append((4 * width, channels, 1))  # the shortcut
                channels = 4 * width
        self.convs = nn.ModuleList([nn.Conv2d(inside, out, size, bias=False) for out, inside, size in shapes])
        self.norms = nn.ModuleList([nn.BatchNorm2d(out) for out, _, _ in shapes])
        self.fc = nn.Linear(2048, 1000)


class Gradients:
    """Parameters with random gradients, which each call gets anew."""

    def __init__(self, model: nn.Module) -> None:
        self.model, self.named = model, list(model.named_parameters())
        self.params = [p for _, p in self.named]
        self.saved = [1e-3 * torch.randn_like(p) for p in self.params]
        for p, gradient in zip(self.params, self.saved, strict=True):
            p.grad = gradient.clone()
        self.norm = nn.utils.get_total_norm(self.saved).item()

    def restore(self) -> None:
        torch._foreach_copy_([p.grad for p in self.params], self.saved)

    def turn(self, clip: Callable[[], object]) -> Callable[[], float]:
        def seconds() -> float:
            spans = []
            for _ in range(CALLS):
                self.restore()
                start = perf_counter()
                clip()
                spans.append(perf_counter() - start)
            return statistics.median(spans)

        return seconds

    def changed(self, clip: Callable[[], object]) -> float:
        """Share of the entries that a call changes."""
        self.restore()
        clip()
        pairs = list(zip(self.params, self.saved, strict=True))
        return sum(int((p.grad != before).sum()) for p, before in pairs) / sum(p.numel() for p in self.params)

    def unit_ratios(self) -> torch.Tensor:
        """Norm of each unit's gradient over that of its weights: what AGC limits."""
        unit_norm = clipping_peers.timm_agc().unitwise_norm
        pairs = zip(self.params, self.saved, strict=True)
        return torch.cat([(unit_norm(g) / unit_norm(p.detach()).clamp(min=1e-3)).flatten() for p, g in pairs])


class Contender(NamedTuple):
    """A call, and the name of the one that it is held against."""

    call: Callable[[], object]
    reference: str


def compare(contenders: dict[str, Contender], gradients: Gradients, n: int) -> list[list[str]]:
    """Give a line for each contender."""
    changed = {name: gradients.changed(one.call) for name, one in contenders.items()}
    seconds = rounds({name: gradients.turn(one.call) for name, one in contenders.items()}, n)
    lines = []
    for name, (_, reference) in contenders.items():
        against = f"{reference}: {interval(ratio(seconds[name], seconds[reference]))}"
        lines.append([name, f"{changed[name]:.0%}", microseconds(seconds[name]), against])
    return lines


def by_norm(gradients: Gradients, limit: float, max_norm: float | None) -> dict[str, Contender]:
    """The total norm: torch's function twice, ours, and two ZClips, which leave a steady norm alone by themselves."""
    params, norm_clip, ours = gradients.params, NormClip(limit), ZClip(max_norm=max_norm)
    peer, torch_norm = "torch clip_grad_norm_", nn.utils.clip_grad_norm_
    zclip = clipping_peers.zclip(max_grad_norm=max_norm)
    return {
        peer: Contender(lambda: torch_norm(params, limit), peer),
        f"{peer} (A/A)": Contender(lambda: torch_norm(params, limit), peer),
        "NormClip": Contender(lambda: norm_clip.clip_(params), peer),
        "ZClip": Contender(lambda: ours.clip_(params), "NormClip"),
        "zclip": Contender(zclip(gradients.model), "NormClip"),
    }


def by_unit(gradients: Gradients, clipping: float) -> dict[str, Contender]:
    """The units of all parameters, vectors among them, as timm takes them."""
    adaptive_clip_grad, params = clipping_peers.timm_agc().adaptive_clip_grad, gradients.params
    agc, peer = AGC(clipping, exclude=(), vectors=True), "timm adaptive_clip_grad"
    return {
        peer: Contender(lambda: adaptive_clip_grad(params, clipping), peer),
        f"{peer} (A/A)": Contender(lambda: adaptive_clip_grad(params, clipping), peer),
        "AGC": Contender(lambda: agc.clip_(gradients.model), peer),
    }


def run(n: int) -> None:
    """Print one table for each set of parameters."""
    print(f"\n## Speed: one call, {n} rounds of {CALLS}")
    for title, make in (("ViT-B", ViT), ("ResNet-50", ResNet)):
        torch.manual_seed(0)
        gradients = Gradients(make())
        ratios = gradients.unit_ratios()
        some, none = ratios.median().item(), 2 * ratios.max().item()
        half, double = 0.5 * gradients.norm, 2 * gradients.norm
        cases = [
            by_norm(gradients, half, half),
            by_norm(gradients, double, None),
            by_unit(gradients, some),
            by_unit(gradients, none),
        ]
        millions = sum(p.numel() for p in gradients.params) / 1e6
        print(f"\n### {title}: {millions:.1f} M in {len(gradients.params)} parameters\n")
        lines = [line for contenders in cases for line in compare(contenders, gradients, n)]
        print(table(["", "entries changed", "us (quartiles)", "ratio to [95 %]"], lines))
