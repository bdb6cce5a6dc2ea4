"""A real number that modules compute, as a function of some tensors: run again and again, each time from one state."""

from __future__ import annotations

import random
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any, final

import torch
from torch import Tensor, nn

from gradguard.probe.hearing import alone

NATURAL, TINY = 1e-2, 1e-8  # size that an entry is taken to have where all of a block are as good as 0


@final
class Scalar:
    """A function of blocks, which are leaf tensors: parameters of a module, or what it is given.

    Parameters, buffers and random numbers are at each run what they were at the first.

    Args:
        run: computes it, with a graph.
        module: whose parameters and buffers go back to where they were after each run.
        blocks: by name.
    """

    def __init__(self, run: Callable[[], Tensor], module: nn.Module, blocks: Mapping[str, Tensor]) -> None:
        self.run, self.module, self.blocks = run, module, dict(blocks)
        tensors = (*module.parameters(), *module.buffers(), *blocks.values())
        self._devices = list({t.device for t in tensors if t.device.type == "cuda"})
        self._paddings = {
            id(m.weight): m.padding_idx
            for m in module.modules()
            if isinstance(m, nn.Embedding | nn.EmbeddingBag) and m.padding_idx is not None
        }
        self._keep()

    def _keep(self) -> None:
        from gradguard.init.draft import Saved

        self._saved = Saved([self.module])
        own = {id(param) for param in self.module.parameters()}
        self._values = [(t, t.detach().clone()) for t in self.blocks.values() if id(t) not in own]

    def value(self, along: Mapping[str, Tensor], step: float) -> float:
        """Give the value a step away: NaN where it can't be computed there."""
        try:
            with self._moved(along, step):
                return float(self.run().detach())
        except Exception:
            return float("nan")

    def gradients(self) -> tuple[float, dict[str, Tensor | None]]:
        """Give the value and, of each block, its gradient: None where there is none."""
        with self._moved({}, 0.0):
            value = self.run()
            found: tuple[Tensor | None, ...] = (None,) * len(self.blocks)
            if value.requires_grad:
                found = torch.autograd.grad(value, list(self.blocks.values()), allow_unused=True)
            return float(value.detach()), dict(zip(self.blocks, map(_dense, found), strict=True))

    def direction(self, name: str, generator: torch.Generator) -> Tensor:
        """Draw a unit direction of a block: none in rows of padding, whose gradient is held at 0 on purpose."""
        block = self.blocks[name]
        dtype = torch.complex128 if block.is_complex() else torch.float64
        drawn = torch.randn(block.shape, generator=generator, dtype=dtype)
        if id(block) in self._paddings:
            drawn[self._paddings[id(block)]] = 0
        unit: Tensor = drawn / drawn.norm().clamp(min=1e-300)
        return unit.to(block.device)

    def size(self, name: str) -> float:
        """Give the size of a block: its norm, or what would be natural where it is 0."""
        block = self.blocks[name].detach()
        norm, root = float(block.norm()), block.numel() ** 0.5
        return norm if norm > TINY * root else NATURAL * root

    @contextmanager
    def elsewhere(self, along: Mapping[str, Tensor]) -> Iterator[None]:
        """Be another function for a while: the one around a point beside this one."""
        saved, values = self._saved, self._values
        with torch.no_grad():
            for name, shift in along.items():
                self.blocks[name].data.add_(shift)
        self._keep()
        try:
            yield
        finally:
            self._saved, self._values = saved, values
            self._restore()

    @contextmanager
    def _moved(self, along: Mapping[str, Tensor], step: float) -> Iterator[None]:
        with torch.no_grad():
            for name, shift in along.items():
                self.blocks[name].data.add_(shift, alpha=step)
        try:
            with _same_noise(self._devices):
                yield
        finally:
            self._restore()

    def _restore(self) -> None:
        self._saved.restore()
        with torch.no_grad():
            for tensor, value in self._values:
                tensor.data.copy_(value)


def derivative(scalar: Scalar, generator: torch.Generator) -> Scalar:
    """Give the derivative of a function along a random direction of all blocks: its gradient is a Hessian's product."""
    along = {name: scalar.direction(name, generator) * scalar.size(name) for name in scalar.blocks}

    def run() -> Tensor:
        value = scalar.run()
        if not value.requires_grad:
            return value * 0
        blocks = list(scalar.blocks.values())
        found = map(_dense, torch.autograd.grad(value, blocks, create_graph=True, allow_unused=True))
        parts = [
            (torch.view_as_real(g) * torch.view_as_real(v) if g.is_complex() else g * v).sum()
            for g, v in zip(found, along.values(), strict=True)
            if g is not None
        ]
        return torch.stack(parts).sum() if parts else value.detach() * 0

    return Scalar(run, scalar.module, scalar.blocks)


def _dense(gradient: Tensor | None) -> Tensor | None:
    return gradient if gradient is None or gradient.layout == torch.strided else gradient.to_dense()


@contextmanager
def in_float64(devices: set[str]) -> Iterator[None]:
    """Run what is within as float64 code: no autocast, no compiled graph, gradients on, nobody else listening."""
    default = torch.get_default_dtype()
    with ExitStack() as stack:
        for context in (alone(), torch.inference_mode(mode=False), torch.enable_grad()):
            stack.enter_context(context)
        if "torch._dynamo" in sys.modules:  # without it nothing was compiled, and it takes seconds to import
            stance: Any = torch.compiler.set_stance
            stack.enter_context(stance("force_eager"))
        for device in devices:
            stack.enter_context(torch.autocast(device, enabled=False))
        torch.set_default_dtype(torch.float64)
        try:
            yield
        finally:
            torch.set_default_dtype(default)


@contextmanager
def _same_noise(devices: list[torch.device]) -> Iterator[None]:
    """Put all random generators back at the end: the next run draws what this one drew."""
    python, numpy = random.getstate(), sys.modules.get("numpy")
    drawn = None if numpy is None else numpy.random.get_state()
    try:
        with torch.random.fork_rng(devices):
            yield
    finally:
        random.setstate(python)
        if numpy is not None:
            numpy.random.set_state(drawn)
