"""Looking at the layers of one optimizer on sampled steps, while the loop goes on."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple, final

from torch import Tensor, nn
from torch.optim import Optimizer

from gradguard.probe.activation_watch import ActivationWatch
from gradguard.probe.layers import layers_of
from gradguard.probe.seen import Seen


class LookedAt(NamedTuple):
    """What a sampled step showed, still on the device.

    Attributes:
        row: of the step, among those since the last flush.
        seen: of the layers.
    """

    row: int
    seen: Seen


@final
class LayerWatch:
    """Listens on sampled steps to the layers that an optimizer trains.

    Args:
        optimizer: whose layers these are; a layer that several train is the first one's.
        before: the optimizers before it.
        models: where the layers are looked for, at each sampled step anew.
        asked: whether anything is to be looked at.
    """

    def __init__(
        self, optimizer: Optimizer, before: Collection[Optimizer], models: Mapping[str, nn.Module], *, asked: bool
    ) -> None:
        self.optimizer, self.before, self.models, self.asked = optimizer, tuple(before), models, asked
        self.watch = ActivationWatch()
        self.looked: list[LookedAt] = []

    @property
    def is_on(self) -> bool:
        """Whether the step to come is looked at."""
        return self.watch.is_on

    def prepare(self, sampled: bool) -> None:
        """Listen to the step to come, if it is a sampled one."""
        if not self.watch.is_unheard:
            self.watch.off()
        if sampled and self.asked and not self.watch.again():
            self.watch.on(self._own(), self.models.values())

    def close(self) -> None:
        """Listen no more."""
        self.watch.off()

    def _own(self) -> list[tuple[str, nn.Module]]:
        mine, others = _ids([self.optimizer]), _ids(self.before)
        found = []
        for name, layer in layers_of(self.models):
            held = {id(p) for p in layer.parameters()}
            if held & mine and not held & others:
                found.append((name, layer))
        return found

    def interrupt(self) -> None:
        """Note that another optimizer has made a step: what was heard so far is told apart from what follows.

        Of a game of two, what one's step calls of the other's layers is no part of the other's step. Of one backward
        pass for both, nothing follows.
        """
        self.watch.interrupt()

    def collect(self, row: int, scale: Tensor | None) -> None:
        """Keep what was heard for the next flush. Host sync: none."""
        if (seen := self.watch.collect(scale)) is not None:
            self.looked.append(LookedAt(row, seen))

    def take(self) -> Sequence[LookedAt]:
        """Give what was kept, and keep it no more."""
        looked, self.looked = self.looked, []
        return looked


def layer_watches(
    activations: Any, optimizers: Mapping[str, Optimizer], models: Mapping[str, nn.Module]
) -> dict[str, LayerWatch]:
    """Give what listens to the layers of each optimizer: those that it trains.

    Raises:
        TypeError: ``activations`` is no bool.
    """
    if not isinstance(activations, bool):
        raise TypeError(f"Guard needs activations to be True or False, got {activations!r}.")
    every = list(optimizers.values())
    return {
        name: LayerWatch(optimizer, every[:i], models, asked=activations)
        for i, (name, optimizer) in enumerate(optimizers.items())
    }


def _ids(optimizers: Collection[Optimizer]) -> set[int]:
    return {id(p) for optimizer in optimizers for group in optimizer.param_groups for p in group["params"]}
