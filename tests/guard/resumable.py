"""Loops that can be saved after any step and go on from there: each with something that a guard has to remember."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from gradguard import Guard
from tests.guard.loops import batches, loss_of, mlp

STEPS, EVERY = 60, 7
DATA = batches(STEPS)


class Loop:
    """One model, a parameter that gets its gradient late, and clipping for a while."""

    def __init__(self, *, detectors: Any = None, run_dir: Path | None = None, points: int = 16) -> None:
        torch.manual_seed(0)
        self.model: nn.Module = mlp()
        self.model.register_parameter("late", nn.Parameter(torch.ones(2)))
        self.parts: dict[str, Any] = {"model": self.model, "optimizer": self.make()}
        settings = {
            "every_n_steps": EVERY,
            "max_points": points,
            "detectors": detectors,
            "run_dir": run_dir,
        }
        self.parts["guard"] = self.guard = Guard(self.model, self.parts["optimizer"], **settings)

    def make(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.model.parameters(), lr=0.01)

    def loss(self, number: int) -> Tensor:
        loss = loss_of(self.model, DATA[number - 1])
        return loss + self.model.late.square().sum() / 100 if number > 40 else loss

    def step(self, number: int) -> None:
        self.parts["optimizer"].zero_grad()
        loss = self.loss(number)
        self.guard.record_loss(loss)
        loss.backward()
        if number < 30:
            nn.utils.clip_grad_norm_(self.model.parameters(), 1e-3)
        self.parts["optimizer"].step()

    def train(self, first: int, last: int) -> None:
        for number in range(first, last + 1):
            self.step(number)

    def prepare(self, number: int) -> None:
        """Bring what no state_dict holds to where it was after this step."""

    def state_dict(self) -> dict[str, Any]:
        return copy.deepcopy({name: part.state_dict() for name, part in self.parts.items()})

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        for name, part in self.parts.items():
            part.load_state_dict(state[name])


class Scaled(Loop):
    """fp16 with a scale that overflows now and then, on hooks that do not fire for skipped steps."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        self.model = mlp()
        scaler = torch.amp.GradScaler("cpu", init_scale=2.0**24, growth_interval=5)
        self.parts = {"model": self.model, "optimizer": self.make(), "scaler": scaler}
        guard = Guard(self.model, self.parts["optimizer"], every_n_steps=EVERY, scaler=scaler)
        self.parts["guard"] = self.guard = guard

    def step(self, number: int) -> None:
        optimizer, scaler = self.parts["optimizer"], self.parts["scaler"]
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.float16):
            loss = loss_of(self.model, DATA[number - 1])
        self.guard.record_loss(loss)
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()


class Fused(Scaled):
    """The same on an optimizer that skips by itself."""

    def make(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.model.parameters(), lr=0.01, fused=True)


class Freezing(Loop):
    """A layer that is frozen for a while, and one that is unfrozen late."""

    def __init__(self) -> None:
        super().__init__()
        self.guard.close()
        self.prepare(0)  # as a run begins: the guard has never known the last layer
        self.parts["guard"] = self.guard = Guard(
            self.model, self.parts["optimizer"], every_n_steps=EVERY, max_points=16
        )

    def step(self, number: int) -> None:
        self.prepare(number)
        super().step(number)

    def prepare(self, number: int) -> None:
        self.model[0].requires_grad_(not 10 <= number < 25)
        self.model[4].requires_grad_(number >= 30)


class FreezingLate(Freezing):
    """The same, resumed by a guard that is made before anything is frozen."""

    def __init__(self) -> None:
        Loop.__init__(self)


class Two(Loop):
    """Two optimizers, one of which steps at every third step only."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        models = {"a": mlp(), "b": mlp(depth=4)}
        optimizers = {n: torch.optim.SGD(m.parameters(), lr=0.1, momentum=0.9) for n, m in models.items()}
        self.guard = Guard(models, optimizers, every_n_steps=EVERY)
        self.parts = {"guard": self.guard, "ma": models["a"], "mb": models["b"]}
        self.parts |= {"oa": optimizers["a"], "ob": optimizers["b"]}

    def step(self, number: int) -> None:
        for name in "ab" if number % 3 == 0 else "a":
            self.parts[f"o{name}"].zero_grad()
            loss = loss_of(self.parts[f"m{name}"], DATA[number - 1])
            self.guard.record_loss(loss, name)
            loss.backward()
            self.parts[f"o{name}"].step()


class Huge(Loop):
    """Gradients whose squares overflow float32: the guard measures exactly from the flush after the first on."""

    def loss(self, number: int) -> Tensor:
        return super().loss(number) * (1e22 if number == 30 or number >= 36 else 1)
