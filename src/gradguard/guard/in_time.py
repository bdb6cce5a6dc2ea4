"""Looking at the recurrent modules of one optimizer on sampled steps, while the loop goes on."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, final

from torch import Tensor, nn
from torch.optim import Optimizer

from gradguard.detect import InTime, Profile
from gradguard.errors import GradGuardWarning
from gradguard.gates import gates_of
from gradguard.names import named_modules
from gradguard.probe.cell_watch import CellWatch
from gradguard.probe.hearing import Ear, is_recurrent
from gradguard.probe.sampling import ThroughTime
from gradguard.probe.through_time import last_touched
from gradguard.probe.watch import StateWatch

if TYPE_CHECKING:
    from gradguard.probe.looking import Look

ROWS = 512  # steps of all sequences that the gates of a layer are summed up from
SILENT = 3  # sampled steps without a word of a module, before it is said
_SCALED = ("h", "c", "gates", "total", "impulse")


class Looked(NamedTuple):
    """What a sampled step showed, still on the device.

    Attributes:
        row: of the step, among those since the last flush.
        modules: the looks into each module, by its name.
    """

    row: int
    modules: Mapping[str, list[Look]]

    def tensors(self) -> list[Tensor]:
        """Everything that has to be read."""
        return [t for looks in self.modules.values() for one in looks for t in one.numbers.values()]


@final
class TimeWatch:
    """Listens on sampled steps, and replays what it heard before the optimizer's step.

    Args:
        settings: how often, and the task's lag.
        modules: the recurrent modules by name.
        compiled: whether the model was compiled, as far as can be seen.
        cells: those that a loop calls step by step.
        needs_states: whether there is nothing else, so that something is amiss where no loop is heard.
    """

    def __init__(
        self,
        settings: ThroughTime,
        modules: Mapping[str, nn.Module],
        *,
        compiled: bool,
        cells: Mapping[str, nn.Module],
        needs_states: bool,
    ) -> None:
        self.settings, self.compiled, self.needs_states = settings, compiled, needs_states
        self.cells = CellWatch(cells, loss_at_end=settings.loss_at_end)
        self.ears = {name: Ear(module) for name, module in modules.items()}
        # None where another optimizer's watches the loops.
        self.states: StateWatch | None = StateWatch(loss_at_end=settings.loss_at_end)
        self.silent: dict[str, float] = {}  # sampled steps without a word of a module
        self.refused: dict[str, str] = {}
        self.is_on = False

    def prepare(self, sampled: bool) -> None:
        """Listen to the step to come, if it is a sampled one."""
        self.stop()
        if sampled:
            self.is_on = True
            if self.states is not None:
                self.states.start()
                self.cells.on()
            for name, ear in self.ears.items():
                if name not in self.refused:
                    ear.on()

    def stop(self) -> None:
        """Listen no more, and let go of what was heard."""
        if self.is_on:
            self.is_on = False
            if self.states is not None:
                self.states.forget()
                self.cells.off()
            for ear in self.ears.values():
                ear.off()
                ear.calls.clear()

    def collect(self, row: int, scale: Tensor | None) -> Looked | None:
        """Replay what was heard. Host sync: none. Mutates: nothing."""
        if not self.is_on:
            return None
        found = {name: looks for name, ear in self.ears.items() if (looks := self._look(name, ear))}
        for one in self._looks_at_states():
            if len(one.numbers["total"]) > 1 or self._refuse(one.layer, "its window has one step: is it detached?"):
                found.setdefault(one.layer, []).append(one)
        if self.needs_states and not found:
            why = "it has cells, but none that a loop calls with the state it gave. Pass its states to "
            self._count_silence("The model", why + "gradguard.probe.watch_state in your loop")
        self.stop()
        if scale is not None:
            for one in (one for looks in found.values() for one in looks):
                for key in _SCALED:
                    if key in one.numbers:
                        one.numbers[key] = one.numbers[key] / scale
        return Looked(row, found) if found else None

    def _looks_at_states(self) -> list[Look]:
        try:
            if "watch_state" in self.refused or self.states is None:
                return []
            return self.states.looks() or self.cells.looks()  # what the loop says itself goes first
        except Exception as error:
            return self._refuse("watch_state", f"{type(error).__name__}: {error}")

    def _look(self, name: str, ear: Ear) -> list[Look]:
        from gradguard.probe.looking import look
        from gradguard.probe.recall import Refused

        call = last_touched(ear.calls)
        if call is None:
            return self._count_silence(name, self._reason(ear))
        try:
            found = look(name, call, ROWS)
        except Exception as error:  # out of memory, say: the run goes on, and is not looked at
            why = str(error) if isinstance(error, Refused) else f"{type(error).__name__}: {error}"
            return self._refuse(name, why)
        if len(found[0].numbers["sequences"]) < 2:
            why = "it is called for one step at a time. Pass its states to gradguard.probe.watch_state in your loop"
            return self._count_silence(name, why)
        self.silent[name] = -math.inf  # it has been seen: a step without it is no fault
        return found

    def _reason(self, ear: Ear) -> str:
        """Say why nothing is seen of a module."""
        if ear.calls:
            return "no gradient came to it: the loss does not depend on it"
        why = "no call of it was heard: its forward is called directly, past its hooks, or under no_grad"
        if self.compiled:
            why += ", or it is part of a compiled graph: see gradguard.probe.through_time, which runs it uncompiled"
        return why

    def _count_silence(self, name: str, why: str) -> list[Look]:
        if name in self.refused:
            return []
        self.silent[name] = self.silent.get(name, 0) + 1
        if self.silent[name] == SILENT:
            warnings.warn(
                f"{name or 'The model'} is not seen through time, at {SILENT} sampled steps so far: {why}.",
                GradGuardWarning,
                stacklevel=2,
            )
        return []

    def _refuse(self, name: str, why: str) -> list[Look]:
        if name not in self.refused:
            self.refused[name] = why
            warnings.warn(
                f"{name or 'The model'} is not looked at through time: {why}.", GradGuardWarning, stacklevel=2
            )
        return []

    def read(self, looked: Looked, step: int, numbers: Sequence[Tensor]) -> InTime:
        """Make profiles of what was brought to the host, in the order of ``looked.tensors()``."""
        from gradguard.probe.looking import profiles

        rest = iter(numbers)
        found: dict[str, tuple[Profile, ...]] = {}
        for name, looks in looked.modules.items():
            found[name] = tuple(profiles(looks, [{key: next(rest) for key in one.numbers} for one in looks]))
        return InTime(step, self.settings.lag, found)


def has_cells_alone(models: Mapping[str, nn.Module]) -> bool:
    """Whether there is a recurrent cell in the models, and no module that runs whole sequences."""
    every = [module for model in models.values() for module in model.modules()]
    return any(gates_of(module) is not None for module in every) and not any(map(is_recurrent, every))


def cells_of(optimizer: Optimizer, models: Mapping[str, nn.Module]) -> dict[str, nn.Module]:
    """Give the recurrent cells that an optimizer trains, by name."""
    ids = {id(p) for group in optimizer.param_groups for p in group["params"]}
    return {
        name: module
        for name, module in named_modules(models)
        if gates_of(module) is not None
        and not is_recurrent(module)
        and any(id(p) in ids for p in module.parameters(recurse=False))
    }


def is_compiled(model: Any) -> bool:
    """Whether a model or a part of it was compiled, as far as can be seen from it."""
    return any(
        type(module).__name__ == "OptimizedModule" or getattr(module, "_compiled_call_impl", None) is not None
        for module in model.modules()
    )
