"""Every public clipper, in settings under which a short run shows what it does, and a loop that drives one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from gradguard.clip import (
    AGC,
    AbstractFactors,
    AbstractRescaler,
    AdaGC,
    AutoClip,
    Binding,
    Ema,
    GradientStabilizer,
    MedianMad,
    NormBand,
    NormClip,
    PerModule,
    ValueClip,
    ZClip,
)
from gradguard.functional import Measurement, measure

SHAPES: dict[str, tuple[int, ...]] = {"first.weight": (3, 2), "first.bias": (3,), "last.weight": (2, 3)}
WARMUP = 4

CLIPPERS: dict[str, Callable[[], AbstractRescaler]] = {
    "NormClip": lambda: NormClip(0.5),
    "NormClip of the largest entry": lambda: NormClip(0.5, norm_type="inf"),
    "ValueClip": lambda: ValueClip(-0.2, 0.2),
    "AGC": lambda: AGC(0.05, exclude=(), vectors=True),
    "AutoClip": lambda: AutoClip(50.0, window=20, reanchor=6),
    "ZClip": lambda: ZClip(baseline=Ema(warmup=WARMUP), max_norm=5.0, reanchor=6),
    "ZClip by the median": lambda: ZClip(baseline=MedianMad(window=20, warmup=WARMUP), reanchor=6),
    "AdaGC": lambda: AdaGC(warmup=WARMUP, reanchor=6),
    "NormBand": lambda: NormBand(0.5, 0.8),
    "GradientStabilizer": lambda: GradientStabilizer(reanchor=3),
    "PerModule": lambda: PerModule(
        {"first": ZClip(baseline=Ema(warmup=WARMUP), reanchor=6), "*": AdaGC(warmup=WARMUP, reanchor=6)}
    ),
    "PerModule that leaves some alone": lambda: PerModule({"first.weight": NormClip(0.5)}),
}
LOCAL = {"AGC", "AdaGC", "PerModule", "PerModule that leaves some alone"}  # a bad gradient concerns its own part only
PER_TENSOR = {"AdaGC", "PerModule", "PerModule that leaves some alone"}


def gradients(step: int, scale: float = 1.0, dtype: torch.dtype = torch.float32) -> list[Tensor]:
    """Give ordinary gradients, about 1 long, the same for the same step."""
    generator = torch.Generator().manual_seed(step)
    sizes = [torch.randn(*shape, generator=generator, dtype=torch.float64) for shape in SHAPES.values()]
    return [(0.3 * scale * values).to(dtype) for values in sizes]


class Loop:
    """A clipper on parameters of its own, driven as a guard drives it: it keeps the state itself."""

    def __init__(
        self,
        clipper: AbstractRescaler,
        *,
        dtype: torch.dtype = torch.float32,
        shapes: Mapping[str, Sequence[int]] = SHAPES,
        device: str = "cpu",
    ) -> None:
        generator = torch.Generator().manual_seed(7)
        values = [torch.randn(tuple(shape), generator=generator, dtype=torch.float64) for shape in shapes.values()]
        self.params = [nn.Parameter(x.to(device, dtype)) for x in values]
        self.binding = Binding(tuple(shapes), tuple(self.params), (None,) * len(self.params))
        self.clipper = clipper
        clipper.attach(self.binding)

    def give(self, grads: Sequence[Tensor | None]) -> None:
        for param, grad in zip(self.params, grads, strict=True):
            param.grad = None if grad is None else grad.clone()

    def measured(self, **options: Any) -> Measurement:
        return measure(self.params, names=self.binding.names, safe=True, **options)

    def step(self, grads: Sequence[Tensor | None], **options: Any) -> AbstractFactors:
        self.give(grads)
        factors = self.clipper.decide(self.measured(**options))
        factors.apply_()
        return factors

    def warm(self, steps: int = 2 * WARMUP, **options: Any) -> Loop:
        for step in range(steps):
            self.step(gradients(step, dtype=self.params[0].dtype), **options)
        return self

    @property
    def grads(self) -> list[Tensor | None]:
        return [p.grad for p in self.params]

    @property
    def state(self) -> dict[str, Any]:
        return dict(flat(self.clipper.state_dict()))


def flat(saved: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Give what a state dict holds by path, each tensor and number in its bits."""
    if isinstance(saved, Mapping):
        for key, value in saved.items():
            yield from flat(value, f"{path}/{key}")
    else:
        yield path, bits(saved) if isinstance(saved, Tensor) else repr(saved)


def bits(tensor: Tensor | None) -> Any:
    """Give a tensor as something that is equal to another one only where every bit is."""
    if tensor is None:
        return None
    dense = tensor.detach().to_dense() if tensor.layout is not torch.strided else tensor.detach()
    dense = torch.view_as_real(dense) if dense.is_complex() else dense
    in_a_row = torch.empty(dense.numel(), dtype=dense.dtype).copy_(dense.reshape(-1))
    return str(tensor.dtype), tuple(tensor.shape), in_a_row.view(torch.uint8).tolist()


def numbers(loop: Loop) -> Iterator[tuple[str, Tensor]]:
    """Give all numbers of a clipper's state, but the slots of windows that nothing was written to."""

    def leaves(saved: Any, path: str) -> Iterator[tuple[str, Tensor]]:
        for key, value in saved.items():
            if isinstance(value, Mapping):
                yield from leaves(value, f"{path}/{key}")
            elif isinstance(value, Tensor | float):
                yield f"{path}/{key}", torch.tensor(value, dtype=torch.float64) if isinstance(value, float) else value

    found = dict(leaves(loop.clipper.state_dict(), ""))
    for path, value in found.items():
        if path.endswith(".values"):  # of a window
            yield path, value[: int(found[path.replace(".values", ".seen")])]
        else:
            yield path, value
