"""What a guard keeps for one optimizer: the rows measured since the last flush, and what became of the earlier ones."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from typing import Any, NamedTuple, final

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from gradguard.clip import Binding
from gradguard.detect import AbstractDetector, Finding, Role
from gradguard.functional import Measurement, measure, version
from gradguard.guard.activations import LayerWatch
from gradguard.guard.hooks import trainable_ids
from gradguard.guard.in_time import Looked, TimeWatch
from gradguard.guard.journal import Journal
from gradguard.guard.layout import layout_of, learning_rates
from gradguard.guard.rows import Row, Sample, block_of
from gradguard.guard.treatment import Treatment
from gradguard.names import known_parameters
from gradguard.probe import UpdateProbe
from gradguard.probe.movement import Movement
from gradguard.probe.sampling import is_sampled
from gradguard.record import HostReader


class Settings(NamedTuple):
    """What all tracks of a guard share: steps between two flushes, norm order, detectors to copy, loss reduction."""

    every: int
    norm_type: float
    detectors: Sequence[AbstractDetector]
    reduce_losses: Callable[[Tensor], Tensor] | None


@final
class Track:
    """Measures one optimizer's steps and hands them to its detectors and the journal, ``every`` steps at a time."""

    def __init__(
        self,
        optimizer: Optimizer,
        name: str,
        models: Mapping[str, nn.Module],
        settings: Settings,
        journal: Journal,
        reader: HostReader,
        prefix: str,
        treatment: Treatment | None = None,
    ) -> None:
        self.optimizer, self.name, self.models = optimizer, name, models
        self.every, self.norm_type, self.fresh, self.reduce_losses = settings
        self.detectors = tuple(copy.deepcopy(d) for d in self.fresh)
        self.journal, self.reader, self.prefix = journal, reader, prefix
        self.step = self.overflows = self.non_finite = self.clipped = 0
        self.rows: list[Row] = []
        self.samples: list[Sample] = []
        self.probe: UpdateProbe | None = None
        self.in_time: TimeWatch | None = None
        self.looked: list[Looked] = []
        self.layers = LayerWatch(optimizer, (), models, asked=False)
        self.treatment, self.changes = treatment, 0.0
        self.taken: Measurement | None = None  # by guard.measure(), for the step to come
        self.taken_of: list[tuple[int, int]] = []  # which gradients, in which state
        self.fired = self.unscaled = self.exact = self.suspect = False
        self._lay_out(frozenset())

    def _lay_out(self, known: frozenset[int]) -> None:
        self.ids = trainable_ids(self.optimizer.param_groups, known)
        self.known = frozenset(self.ids)
        parameters = known_parameters(self.models)
        self.params, self.layout = layout_of(self.optimizer, self.name, parameters, self.known, self.norm_type)
        self.movement = Movement(self.params, [role is Role.WEIGHT for role in self.layout.roles])
        if self.treatment is not None:
            owners = (parameters.get(id(p)) for p in self.params)
            modules = tuple(None if owner is None else owner.module for owner in owners)
            self.treatment.attach(Binding(self.layout.names, self.params, modules))

    def listen(self) -> None:
        """Listen to what the model does for the step to come, if that is a sampled one."""
        self.layers.prepare(is_sampled(self.step + 1, self.every))
        if self.in_time is not None:
            self.in_time.prepare(self.in_time.settings.is_due(self.step + 1))

    def refresh(self) -> None:
        """Notice parameters that were added, removed, replaced or unfrozen since the last step."""
        if trainable_ids(self.optimizer.param_groups, self.known) != self.ids:
            self.flush(together=True)
            self.taken, self.taken_of = None, []
            self._lay_out(self.known)

    def measured(self, scale: Tensor | None) -> Measurement:
        """Measure the gradients as they are. Host sync: none, but one while a non-finite norm is being told apart."""
        safe = self.treatment is not None
        result = measure(self.params, names=self.layout.names, norm_type=self.norm_type, scale=scale, safe=safe)
        if self.exact and not safe and not self.reader.read([result.finite])[0]:
            self.suspect = True
            result = measure(self.params, names=self.layout.names, norm_type=self.norm_type, scale=scale, exact=True)
        return result

    def take(self, scale: Tensor | None) -> Measurement:
        """Measure for the step to come: what it finds then may be clipped already."""
        self.taken, self.taken_of = self.measured(scale), self._gradients()
        return self.taken

    def _gradients(self) -> list[tuple[int, int]]:
        """Say which gradients there are, and how often each was changed; for those who change them again."""
        if self.treatment is None:
            return []
        return [(id(p.grad), 0 if p.grad is None else version(p.grad)) for p in self.params]

    def evaluated_again(self) -> None:
        """Treat the gradients of another evaluation within the same step."""
        if self.treatment is not None:
            self.treatment.evaluated_again(self.measured(None))

    def before_step(self, loss: Tensor | None, loss_scale: Callable[[], Tensor | None] | None = None) -> None:
        """Take the row of the step that is about to be made."""
        if not self.journal.opened:
            self.journal.open()
        if len(self.rows) >= self.every:  # the steps before this one were broken off by exceptions
            self.flush(together=True)
        self.fired, self.unscaled, self.probe = True, False, None
        self.step += 1
        if self.treatment is not None:
            self.treatment.take_back()
        # Both are set by GradScaler for the duration of a step, on optimizers that unscale by themselves.
        scale, found_inf = (getattr(self.optimizer, name, None) for name in ("grad_scale", "found_inf"))
        if scale is not None:
            scale = scale.clone()  # the scaler changes its own in place
            if self.taken is not None and self.taken.scale is None:
                self.taken = None  # it was taken without a word of the scaler: still scaled
        measurement, self.taken = self.taken or self.measured(scale), None
        treated = None
        if self.treatment is not None:
            # Raw norms are for the history; what was changed since they were taken is not what is treated now.
            current = measurement if not self.taken_of or self.taken_of == self._gradients() else self.measured(scale)
            self.taken_of = []
            treated = self.treatment.before_step(self.step, current, found_inf, loss)
        self.rows.append(Row(self.step, measurement, found_inf, loss, treated))
        self._raise_if_spent()
        if self.layers.is_on or (self.in_time is not None and self.in_time.is_on):
            of_loss = loss_scale() if scale is None and loss_scale is not None else scale
            self.layers.collect(len(self.rows) - 1, of_loss)
            if self.in_time is not None and (looked := self.in_time.collect(len(self.rows) - 1, of_loss)):
                self.looked.append(looked)
        if is_sampled(self.step, self.every):
            self.probe = UpdateProbe(self.params)
        self.movement.before()

    def after_step(self) -> None:
        """Finish the sample of the step that was made; flush where it is due."""
        row = len(self.rows) - 1
        self.movement.after(row)
        if self.probe is not None and self.rows:
            self.samples.append(Sample(row, self.probe.finish(), learning_rates(self.optimizer, self.params)))
        self.probe = None
        if self.treatment is not None:
            self.treatment.after_step()
        self.listen()
        self._flush_if_due()

    def skipped(self, loss: Tensor | None) -> None:
        """Count a step that the loss scaler did not make."""
        self.step += 1
        treated = None if self.treatment is None else self.treatment.overflowed(self.step, loss)
        self.rows.append(Row(self.step, None, None, loss, treated))
        self.taken, self.taken_of, self.unscaled = None, [], False
        self.listen()
        self._raise_if_spent()
        self._flush_if_due()

    def _flush_if_due(self) -> None:
        if self.step % self.every == 0:
            self.flush(together=True)
            # Here and not at a flush that one rank asks for: the exact norm of sharded gradients takes all ranks.
            self.exact, self.suspect = self.suspect, False
            self._raise_if_spent()

    def _raise_if_spent(self) -> None:
        if self.treatment is not None:
            self.treatment.raise_if_spent()

    def flush(self, *, together: bool = False) -> None:
        """Bring what was measured to the host and look at it. Host sync: one per device.

        Where losses are reduced over several processes, that takes all of them ``together``: a flush that one process
        asks for does nothing then.
        """
        if self.reduce_losses is not None and not together:
            return
        rows, samples, looked = self.rows, self.samples, self.looked
        self.rows, self.samples, self.looked = [], [], []
        if not rows:
            return
        elsewhere = torch.get_default_device().type != "cpu"  # set_default_device: what follows is the host's
        with torch.device("cpu") if elsewhere else nullcontext():
            trainable = [p.requires_grad for p in self.params]
            taken = self.treatment, self.changes, self.in_time, looked, self.movement.take(), self.layers.take()
            rest = trainable, self.reduce_losses, *taken, not self.prefix
            block = block_of(rows, samples, self.layout, self.reader, *rest)
            if self.treatment is not None:
                self.treatment.settle(block, [row.treated for row in rows])
            if block.clips is not None:
                self.changes += float(block.clips.changes.sum())
                self.clipped += int(block.clips.clipped.sum())
            bad = ~block.overflow & ~block.grad_norms.isfinite().all(dim=1)
            self.overflows += int(block.overflow.sum())
            self.non_finite += int(bad.sum())
            self.suspect |= bool(bad.any())
            for detector in self.detectors:
                detector.observe(block)
            self.journal.take(self.name, self.prefix, block, self.findings())

    def findings(self) -> list[Finding]:
        """Collect what the detectors have found so far."""
        return [finding for detector in self.detectors for finding in detector.findings()]

    def state_dict(self) -> dict[str, Any]:
        """Give the counters, which parameters are known, and what the detectors have seen."""
        detectors = [{"kind": type(d).__name__, "state": d.state_dict()} for d in self.detectors]
        counters = {name: getattr(self, name) for name in _COUNTERS}
        treatment = {} if self.treatment is None else self.treatment.state_dict()
        return {**counters, "names": list(self.layout.names), "detectors": detectors, "treatment": treatment}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from there; a detector that was not there before starts afresh."""
        for name in _COUNTERS:
            setattr(self, name, state.get(name, getattr(self, name)))
        self.rows, self.samples, self.looked, self.layers.looked, self.probe, self.taken = [], [], [], [], None, None
        self.listen()
        ids = {name: id(p) for p, name in zip(self.params, self.layout.names, strict=True)}
        ids |= {at.name: i for i, at in known_parameters(self.models).items()}
        self._lay_out(frozenset(ids[name] for name in state["names"] if name in ids))
        if self.treatment is not None:
            self.treatment.load_state_dict(state.get("treatment", {}))
        self.detectors = tuple(copy.deepcopy(d) for d in self.fresh)
        unread = list(state["detectors"])
        for detector in self.detectors:
            of_kind = [one for one in unread if one["kind"] == type(detector).__name__]
            if of_kind:
                unread.remove(of_kind[0])
                detector.load_state_dict(of_kind[0]["state"])


_COUNTERS = ("step", "overflows", "non_finite", "exact", "suspect", "changes", "clipped")
