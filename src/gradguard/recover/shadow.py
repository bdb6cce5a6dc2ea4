"""The buffers of a model as they were after its last good step."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, NamedTuple, TypeAlias, final

import torch
from torch import Tensor, nn

from gradguard.functional import norms, stored_part

# Up to so many entries a buffer is copied without asking: batch_norm changes its running statistics in a kernel, which
# does not count as a change in place.
SMALL = 1 << 16


_UNKNOWN = -1  # the version of a buffer that may differ from its copy
_Key: TypeAlias = tuple[int, int, str]  # number of the model, id of the module, name of the buffer


class _Kept(NamedTuple):
    """A buffer as it was seen last, at which version, and a copy of it."""

    live: Tensor
    version: int
    copy: Tensor


@final
class BufferShadow:
    """Copies of all buffers, so that a forward pass that went wrong can be taken back.

    A batch with a NaN leaves it in BatchNorm's running statistics, in the vectors of a spectral norm, in an average of
    weights: a step that is skipped has to undo that, too. Of large buffers, taking the shadow copies only those
    that have changed since the last time, so that masks and tables of positions cost memory and no time.

    Args:
        models: whose buffers are meant; ``models`` that share a buffer keep one copy.

    Attributes:
        bytes: that the copies take.

    Host sync: none.
    """

    def __init__(self, models: Iterable[nn.Module]) -> None:
        self._models = tuple(models)
        self._kept: dict[_Key, _Kept] = {}
        self.take()

    @property
    def bytes(self) -> int:
        """How much memory the copies take."""
        return sum(kept.copy.numel() * kept.copy.element_size() for kept in self._kept.values())

    @torch.no_grad()
    def take(self, bad: Tensor | None = None) -> None:
        """Note the buffers as they are: what a good step leaves behind.

        Those of a model that has just become non-finite are not noted: of two optimizers' steps after one forward pass
        each, the first may be good and the second one bad.

        Args:
            bad: whether the step was a bad one after all, a bool scalar on the device: its changes are undone instead.
        """
        changed: list[tuple[_Key, Tensor, Tensor]] = []
        for key, _, _, buffer in self._buffers():
            kept = self._kept.get(key)
            if kept is None or not _alike(kept.copy, buffer):
                self._kept[key] = _Kept(buffer, version(buffer), buffer.detach().clone())
            elif not _is_unchanged(kept, buffer):
                changed.append((key, buffer, kept.copy))
        if bad is not None:
            for _, buffer, copy in changed:
                buffer.copy_(torch.where(bad.to(buffer.device, non_blocking=True), copy, buffer))
        sound = _sound_models([(key[0], buffer, copy) for key, buffer, copy in changed])
        for key, buffer, copy in changed:
            ok = sound.get(key[0], True)
            if isinstance(ok, Tensor):
                copy.copy_(torch.where(ok.to(buffer.device, non_blocking=True), buffer, copy))
            elif ok:
                copy.copy_(buffer)
            self._kept[key] = _Kept(buffer, version(buffer) if ok is True else _UNKNOWN, copy)

    @torch.no_grad()
    def restore(self) -> None:
        """Undo what changed since the shadow was taken."""
        for key, module, name, buffer in self._buffers():
            kept = self._kept.get(key)
            if kept is None or _is_unchanged(kept, buffer):
                continue
            if _alike(kept.copy, buffer):
                buffer.copy_(kept.copy)
            else:  # the forward pass has put another one in its place
                buffer = kept.copy.to(buffer.device, copy=True)
                module._buffers[name] = buffer
            self._kept[key] = _Kept(buffer, version(buffer), kept.copy)

    def _buffers(self) -> Iterable[tuple[_Key, nn.Module, str, Tensor]]:
        seen: set[int] = set()
        for number, model in enumerate(self._models):
            for module in model.modules():
                for name, buffer in module._buffers.items():
                    if buffer is not None and id(buffer) not in seen:
                        seen.add(id(buffer))
                        yield (number, id(module), name), module, name, buffer


def _sound_models(changed: list[tuple[int, Tensor, Tensor]]) -> dict[int, bool | Tensor]:
    """Say of each model whether no buffer has become non-finite: on the host where they lie on a CPU.

    Args:
        changed: number of the model, buffer, and how that was before.
    """
    floats = [one for one in changed if one[1].is_floating_point()]
    finite = norms([stored_part(buffer) for _, buffer, _ in floats], math.inf).isfinite()
    sound: dict[int, bool | Tensor] = {}
    for (model, _, copy), flag in zip(floats, finite.tolist() if finite.is_cpu else finite.unbind(), strict=True):
        if isinstance(flag, Tensor):
            ok: bool | Tensor = flag | ~copy.isfinite().all().to(flag.device, non_blocking=True)
        else:
            ok = flag or not copy.isfinite().all()
        sound[model] = sound[model] & ok if model in sound else ok
    return sound


def _is_unchanged(kept: _Kept, buffer: Tensor) -> bool:
    return buffer.numel() > SMALL and kept.live is buffer and kept.version == version(buffer)


def _alike(a: Tensor, b: Tensor) -> bool:
    return a.shape == b.shape and a.dtype == b.dtype and a.device == b.device


def version(tensor: Any) -> int:
    """Count the changes that were made in place; of a DTensor, to its shard."""
    return int(getattr(tensor, "_local_tensor", tensor)._version)
