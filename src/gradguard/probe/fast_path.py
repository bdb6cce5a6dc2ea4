"""Transformer layers of torch that take another way in evaluation, as long as no hook is on them.

``nn.TransformerEncoderLayer`` has a fused path for ``eval()``, which nested tensors of ``nn.TransformerEncoder`` depend
on, and gives it up where it or a part of it has a hook. So there is one only while a training pass of the module that
holds it runs.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Protocol, final

import torch
from torch import nn

from gradguard.probe.hearing import Hook

_NEVER_CALLED = (nn.ModuleList, nn.ModuleDict, nn.TransformerEncoderLayer)


class Ear(Protocol):
    """What is put on a module."""

    def on(self) -> None:
        """Begin to listen."""

    def off(self) -> None:
        """Listen no more."""


@final
class FastPaths:
    """Puts ears that are within such layers on for as long as the module around them runs to train.

    A layer that no module holds is left out: its ear stays on.

    Args:
        models: where to look for such layers.
        ears: all ears, by the ``id`` of their module.
    """

    def __init__(self, models: Iterable[nn.Module], ears: Mapping[int, Ear]) -> None:
        self._switches: list[_Switch] = []
        self._taken: set[int] = set()
        for holder, layer in (pair for model in models for pair in _held(model, None)):
            within = [ears[id(part)] for part in layer.modules() if id(part) in ears and id(part) not in self._taken]
            self._taken |= {id(part) for part in layer.modules()}
            self._switches.append(_Switch(holder, within))

    def holds(self, module: nn.Module) -> bool:
        """Whether a module's ear is put on and taken off here."""
        return id(module) in self._taken

    def on(self) -> None:
        """Begin to listen to the modules around them."""
        for switch in self._switches:
            switch.on()

    def off(self) -> None:
        """Listen no more."""
        for switch in self._switches:
            switch.off()


@final
class _Switch:
    def __init__(self, holder: nn.Module, ears: list[Ear]) -> None:
        self.holder, self.ears = holder, ears
        self._handles: list[Any] = []

    def on(self) -> None:
        before, after = Hook(self._before), Hook(self._after)
        self._handles = [
            self.holder.register_forward_pre_hook(before),
            self.holder.register_forward_hook(after, always_call=True),
        ]

    def off(self) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles = []
        self._after()

    def _before(self, *_: Any) -> None:
        if torch.is_grad_enabled() and self._handles:
            for ear in self.ears:
                ear.on()

    def _after(self, *_: Any) -> None:
        for ear in self.ears:
            ear.off()


def _held(module: nn.Module, holder: nn.Module | None) -> Iterator[tuple[nn.Module, nn.Module]]:
    """Give each such layer with the nearest module above it that is called itself."""
    if isinstance(module, nn.TransformerEncoderLayer):
        if holder is not None:
            yield holder, module
        return
    inner = holder if isinstance(module, _NEVER_CALLED) else module
    for child in module.children():
        yield from _held(child, inner)
