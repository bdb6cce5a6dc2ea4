"""Models with buffers that a forward pass changes, that the tests of recovery share."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

LARGE = 1 << 17  # entries: so large that nobody would copy them at every step


class Averaging(nn.Module):
    """Averages its inputs, in one of the ways that people write."""

    def __init__(self, way: str, entries: int = 3) -> None:
        super().__init__()
        self.way = way
        self.register_buffer("mean", torch.zeros(entries))
        self.register_buffer("count", torch.zeros((), dtype=torch.int64), persistent=False)
        self.register_buffer("seen", torch.tensor(False))

    def forward(self, x: Tensor) -> Tensor:
        new = x.detach().mean(0)[:1]
        if self.way == "in place":
            self.mean.mul_(0.9).add_(0.1 * new)
        elif self.way == "through data":
            self.mean.data.mul_(0.9).add_(0.1 * new)
        elif self.way == "copied":
            self.mean.copy_(0.9 * self.mean + 0.1 * new)
        elif self.way == "foreach":
            torch._foreach_mul_([self.mean], 0.9)
            torch._foreach_add_([self.mean], [0.1 * new])
        elif self.way == "assigned":
            self.mean = 0.9 * self.mean + 0.1 * new
        elif self.way == "assigned with a graph":
            self.mean = 0.9 * self.mean.detach() + 0.1 * x.mean(0)[:1]
        elif self.way == "grown":
            self.mean = torch.cat([self.mean, new])
        self.count += 1
        self.seen.fill_(True)
        return x * self.count


class InBatches(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv1d(2, 3, 1), nn.BatchNorm1d(3), nn.InstanceNorm1d(3, track_running_stats=True)
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(
            x.expand(-1, 3).reshape(-1, 3).unsqueeze(0).transpose(0, 1).reshape(-1, 1, 3).expand(-1, 2, 3)
        )


def normed(kind: Callable[..., nn.Module]) -> nn.Module:
    return nn.Sequential(kind(nn.Linear(3, 4)), nn.BatchNorm1d(4), kind(nn.Linear(4, 3)))


MODELS: dict[str, Callable[[], nn.Module]] = {
    "batch norm": lambda: nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4)),
    "batch norm without momentum": lambda: nn.BatchNorm1d(3, momentum=None),
    "batch and instance norm": InBatches,
    "spectral norm": lambda: normed(nn.utils.spectral_norm),
    "spectral norm as a parametrization": lambda: normed(nn.utils.parametrizations.spectral_norm),
    **{
        f"average {way}": lambda way=way: Averaging(way)
        for way in ("in place", "through data", "copied", "foreach", "assigned", "assigned with a graph", "grown")
    },
    **{
        f"large average {way}": lambda way=way: Averaging(way, LARGE)
        for way in ("in place", "through data", "copied", "foreach", "assigned")
    },
}


def buffers(model: nn.Module) -> dict[str, Tensor]:
    return {name: buffer.detach().clone() for name, buffer in model.named_buffers()}


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(a[n].dtype == b[n].dtype and torch.equal(a[n], b[n]) for n in a)


def batch(step: int) -> Tensor:
    return torch.randn(5, 3, generator=torch.Generator().manual_seed(step), dtype=torch.float32)
