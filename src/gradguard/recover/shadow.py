"""The buffers of a model as they were after its last good step."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import TypeAlias, final

import torch
from torch import Tensor, nn

from gradguard.functional import norms, stored_part

_Key: TypeAlias = tuple[int, int, str]  # number of the model, id of the module, name of the buffer


@final
class BufferShadow:
    """Copies of all buffers, so that a forward pass that went wrong can be taken back.

    A batch with a NaN leaves it in BatchNorm's running statistics, in the vectors of a spectral norm, in an average of
    weights: a step that is skipped has to undo that, too. Each taking copies every buffer, as not every change can be
    told: ``batch_norm`` writes in a kernel, and many an average through ``.data``, past the count of changes in place.

    Args:
        models: whose buffers are meant; ``models`` that share a buffer keep one copy.

    Attributes:
        bytes: that the copies take.

    Host sync: none.
    """

    def __init__(self, models: Iterable[nn.Module]) -> None:
        self._models = tuple(models)
        self._copies: dict[_Key, Tensor | None] = {}  # None where there was no buffer yet
        self.take()

    @property
    def bytes(self) -> int:
        """How much memory the copies take."""
        return sum(copy.numel() * copy.element_size() for copy in self._copies.values() if copy is not None)

    @torch.no_grad()
    def take(self, bad: Tensor | None = None) -> None:
        """Note the buffers as they are: what a good step leaves behind.

        Those of a model that has just become non-finite are not noted: of two optimizers' steps after one forward pass
        each, the first may be good and the second one bad.

        Args:
            bad: whether the step was a bad one after all, a bool scalar on the device: its changes are undone instead.
        """
        known: list[tuple[int, Tensor, Tensor]] = []
        for key, _, _, buffer in self._buffers():
            copy = self._copies.get(key)
            if buffer is None:
                self._copies[key] = None
            elif copy is None or not _alike(copy, buffer):
                self._copies[key] = buffer.detach().clone()
            else:
                known.append((key[0], buffer, copy))
        if bad is not None:
            for _, buffer, copy in known:
                buffer.copy_(torch.where(bad.to(buffer.device, non_blocking=True), copy, buffer))
        sound = _sound_models(known)
        for model, buffer, copy in known:
            ok = sound.get(model, True)
            if isinstance(ok, Tensor):
                copy.copy_(torch.where(ok.to(buffer.device, non_blocking=True), buffer, copy))
            elif ok:
                copy.copy_(buffer)

    @torch.no_grad()
    def restore(self) -> None:
        """Undo what changed since the shadow was taken."""
        for key, module, name, buffer in self._buffers():
            if key not in self._copies:
                continue
            copy = self._copies[key]
            if copy is not None and buffer is not None and _alike(copy, buffer):
                buffer.copy_(copy)
            elif copy is not buffer:  # the forward pass has put another one in its place
                module._buffers[name] = None if copy is None else copy.clone()

    def _buffers(self) -> Iterable[tuple[_Key, nn.Module, str, Tensor | None]]:
        seen: set[int] = set()
        for number, model in enumerate(self._models):
            for module in model.modules():
                for name, buffer in module._buffers.items():
                    if buffer is None or id(buffer) not in seen:
                        seen.add(id(buffer))
                        yield (number, id(module), name), module, name, buffer


def _sound_models(known: list[tuple[int, Tensor, Tensor]]) -> dict[int, bool | Tensor]:
    """Say of each model whether no buffer has become non-finite: on the host where they lie on a CPU.

    Args:
        known: number of the model, buffer, and how that was before.
    """
    floats = [one for one in known if one[1].is_floating_point() or one[1].is_complex()]
    finite = norms([stored_part(buffer) for _, buffer, _ in floats], math.inf).isfinite()
    sound: dict[int, bool | Tensor] = {}
    for (model, _, copy), flag in zip(floats, finite.tolist() if finite.is_cpu else finite.unbind(), strict=True):
        if isinstance(flag, Tensor):
            ok: bool | Tensor = flag | ~copy.isfinite().all().to(flag.device, non_blocking=True)
        else:
            ok = flag or not copy.isfinite().all()
        sound[model] = sound[model] & ok if model in sound else ok
    return sound


def _alike(a: Tensor, b: Tensor) -> bool:
    return a.shape == b.shape and a.dtype == b.dtype and a.device == b.device
