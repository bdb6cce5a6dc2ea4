"""Clipping as a callback."""

from __future__ import annotations

from typing import Literal, Optional, Union, final

from gradguard.clip import AbstractRescaler
from gradguard.detect import ClippedTooOften, NonFinite
from gradguard.lightning.base import AbstractGuardCallback
from gradguard.lightning.settings import Settings, checked
from gradguard.recover import Skip


@final
class GradientClipping(AbstractGuardCallback):
    """Clips the gradients of every optimizer step, each optimizer with a clipper of its own, and logs what it did.

    After accumulation and unscaling, right before the optimizer uses them: in automatic and manual optimisation, under
    ``16-mixed`` and ``bf16``, with fused optimizers (which Lightning's own clipping refuses under ``16-mixed``), with
    several optimizers, under DDP and FSDP2. ``on_before_optimizer_step`` of the module still sees the raw gradients.

    Beside a ``GradGuard`` it shares that one's guard: nothing is measured twice. ``GradGuard(clip=...)`` is both.

    Args:
        clip: a clipper from :mod:`gradguard.clip`, of which each optimizer gets a copy; or one by optimizer, by name:
            ``{"generator": NormClip(1.0)}`` leaves the others alone.
        recover: :class:`gradguard.recover.Skip`, to leave out steps whose gradients are not finite.
        every_n_steps: see :class:`GradGuard`; as the next two, alike in all callbacks of a Trainer.
        norm_type: p of the gradient norms that are logged, > 0 or ``inf``; the clipper has its own.
        max_points: most points that the history keeps of a series, >= 2.

    Attributes:
        guard: the :class:`gradguard.Guard` of the last fit.

    Raises:
        ValueError: an argument out of range; in ``setup``, a Trainer that clips, too.
        TypeError: something that is no clipper.

    Host sync: one every ``every_n_steps`` and device, and what ``Skip`` needs. Mutates: gradients.
    """

    def __init__(  # annotated as LightningCLI can read it on every supported Python
        self,
        clip: Union[AbstractRescaler, dict[str, AbstractRescaler]],  # noqa: UP007
        *,
        recover: Optional[Skip] = None,  # noqa: UP045
        every_n_steps: int = 50,
        norm_type: Union[float, Literal["inf"]] = 2.0,  # noqa: UP007
        max_points: int = 1024,
    ) -> None:
        super().__init__()
        if clip is None:
            raise TypeError("GradientClipping needs a clipper from gradguard.clip, got None. Write ZClip().")
        self._settings = checked(
            every_n_steps=every_n_steps,
            norm_type=norm_type,
            max_points=max_points,
            detectors=[NonFinite(), ClippedTooOften()],
            detail="total",
            clip=clip,
            recover=recover,
        )

    def settings(self) -> Settings:
        """Say what this callback wants of the guard."""
        return self._settings
