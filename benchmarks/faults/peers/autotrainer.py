"""AUTOTRAINER (Zhang et al., ICSE 2021): its rules, as the code published with the paper applies them.

Source: https://github.com/shiningrain/AUTOTRAINER at aafa2a4, ``AutoTrainer/utils/{monitor,utils}.py``; the rules are
written anew from what they do. As there: a check at the end of the epochs 1, 4, 7 ...; nothing is judged before 30 % of
the epochs but what is not finite; what once held stays noted; the first problem stops the training, so that a run has
one problem, as a rule.

What differs, since a loop here is more than a Keras model and a data set:

- An epoch is a thirtieth of the run's steps.
- The gradient is the one that the last step of the epoch trains with. There it is computed anew at the epoch's end, on
  the first batch of the training data each time.
- Accuracies are the scores of the loop on training and held-out data: corrected for guessing, or a share of variance
  explained.
- The loss that has to be finite and below 1e5 is that of training: our loops have no other.
- Of several models, each one's gradients are looked at. Gradients of embeddings are left out, as sparse ones are there.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import pairwise
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from benchmarks.faults.program import Loop, Program

EPOCHS = 30
EVERY = 3  # epochs between two checks
JUDGED_FROM = 0.3  # share of the epochs
VANISHING, VANISHING_FIRST = 1e-3, 1e-4  # beta_1, beta_2
EXPLODING = 70.0  # beta_3
DYING = 0.7  # gamma
SWING, SWINGS = 0.03, 0.2  # zeta, eta
GAIN = 0.01  # delta
THETAS = {"AUTOTRAINER, 0.7": 0.7, "AUTOTRAINER, 0.6": 0.6}  # of the paper, and of its code for reproduction
LARGE_LOSS = 1e5

MEANS: Mapping[str, frozenset[str]] = {
    "vanishing gradient": frozenset({"vanishing_depth", "vanishing_time"}),
    "exploding gradient": frozenset({"exploding_depth", "exploding_time", "non_finite", "update_too_large"}),
    "dying ReLU": frozenset({"dead_units"}),
    "oscillating loss": frozenset({"oscillating_loss"}),
    "slow convergence": frozenset({"slow_convergence"}),
}


def gradient_problems(gradients: Sequence[Tensor]) -> set[str]:
    """Say what is wrong with the gradients of one model: ``nan``, ``vanish``, ``explode``, ``relu``.

    They come in the model's order; the first and the last are those of parameters with two or more dimensions.
    """
    norms = [gradient.double().norm() for gradient in gradients if gradient.dim() >= 2]
    if not all(bool(gradient.isfinite().all()) for gradient in gradients):
        return {"nan"}
    found = set()
    if norms:
        ratio = norms[0] / norms[-1]  # NaN, and thus neither, where both are 0
        if ratio < VANISHING and norms[0] < VANISHING_FIRST:
            found.add("vanish")
        if ratio > EXPLODING:
            found.add("explode")
    zeros, size = sum(int((g == 0).sum()) for g in gradients), sum(g.numel() for g in gradients)
    if size and zeros >= DYING * size:
        found.add("relu")
    return found


def oscillates(accuracy: Sequence[float]) -> bool:
    """Say whether an accuracy goes up and down: a local maximum above the local minimum of the same number, often."""
    inner = range(1, len(accuracy) - 1)
    up = [accuracy[i] for i in inner if accuracy[i] >= max(accuracy[i - 1], accuracy[i + 1])]
    down = [accuracy[i] for i in inner if accuracy[i] <= min(accuracy[i - 1], accuracy[i + 1])]
    return sum(a - b >= SWING for a, b in zip(up, down, strict=False)) >= SWINGS * len(accuracy)


def largest_gain(accuracy: Sequence[float]) -> float:
    """Give the largest gain from an epoch to the next, at least 0."""
    return max([0.0, *(b - a for a, b in pairwise(accuracy))])


class Epochs(NamedTuple):
    """What is known of the epochs so far: a mean loss and two accuracies of each."""

    losses: list[float]
    train: list[float]
    test: list[float]


class Monitor:
    """Judges one run, with its memory of what once held.

    Args:
        theta: accuracy below which a run has a problem.
        epochs: of the whole run.
    """

    def __init__(self, theta: float, epochs: int = EPOCHS) -> None:
        self.theta, self.epochs = theta, epochs
        self.noted: set[str] = set()

    def check(self, so_far: Epochs, gradients: Collection[str], *, finite: bool) -> set[str]:
        """Say what is wrong at the end of an epoch.

        Args:
            so_far: the epochs until now.
            gradients: what :func:`gradient_problems` says of them now.
            finite: whether all weights are.
        """
        self.noted |= set(gradients) | (set() if finite else {"nan"})
        losses = torch.tensor(so_far.losses, dtype=torch.float64)
        if not bool(losses.isfinite().all()) or losses[-1] >= LARGE_LOSS:
            self.noted.add("nan")
        elif len(losses) >= JUDGED_FROM * self.epochs:
            if oscillates(so_far.train):
                self.noted.add("unstable")
            if max(so_far.test) < self.theta or max(so_far.train) < self.theta:
                self.noted.add("low")
            if largest_gain(so_far.test) < GAIN and largest_gain(so_far.train) < GAIN:
                self.noted.add("slow")
        return self._problems()

    def _problems(self) -> set[str]:
        found = {"exploding gradient"} if "nan" in self.noted else set()
        if self.noted & {"low", "slow"}:
            order = {
                "relu": "dying ReLU",
                "explode": "exploding gradient",
                "vanish": "vanishing gradient",
                "slow": "slow convergence",
            }
            found |= set([name for key, name in order.items() if key in self.noted][:1])
        elif "unstable" in self.noted:
            found.add("oscillating loss")
        return found


class AutoTrainer:
    """Watches a run with a monitor for each threshold of accuracy.

    Attributes:
        raised: by name of the setting: step at which each problem was found.
    """

    def __init__(self) -> None:
        self.raised: dict[str, dict[str, int]] = {name: {} for name in THETAS}
        self.monitors = {name: Monitor(theta) for name, theta in THETAS.items()}
        self.so_far = Epochs([], [], [])
        self.losses: list[Tensor] = []
        self.gradients: set[str] = set()
        self.handles: list[Any] = []

    def start(self, program: Program, loop: Loop) -> None:
        self.steps, self.loop, self.now = program.steps, loop, 1
        self.of_models = [_looked_at(model) for model in loop.models.values()]
        for optimizer in loop.optimizers.values():
            self.handles.append(optimizer.register_step_pre_hook(self._before_step))

    def record(self, step: int, loss: Tensor, optimizer: str | None) -> None:
        self.losses.append(loss)

    def after(self, step: int) -> None:
        self.now = step + 1
        epoch = step * EPOCHS // self.steps
        if epoch == (step - 1) * EPOCHS // self.steps or not self._goes_on():
            return
        self.so_far.losses.append(float(torch.stack(self.losses).mean()) if self.losses else 0.0)
        self.losses.clear()
        if epoch > _last_check():
            return
        for accuracies, score in ((self.so_far.train, self.loop.train_score), (self.so_far.test, self.loop.score)):
            accuracies.append(undisturbed(self.loop, score))
        if _is_checked(epoch):
            self._check(step)

    def end(self) -> None:
        for handle in self.handles:
            handle.remove()

    def _goes_on(self) -> bool:
        return not all(self.raised.values())

    def _before_step(self, optimizer: Any, args: Any, kwargs: Any) -> None:
        epoch = self.now * EPOCHS // self.steps
        if epoch > (self.now - 1) * EPOCHS // self.steps and _is_checked(epoch) and self._goes_on():
            own = {id(p) for group in optimizer.param_groups for p in group["params"]}
            for parameters in self.of_models:
                gradients = [p.grad for p in parameters if p.grad is not None and id(p) in own]
                self.gradients |= gradient_problems([g for g in gradients if not g.is_sparse])

    def _check(self, step: int) -> None:
        of_models = [t for m in self.loop.models.values() for t in (*m.parameters(), *m.buffers())]
        finite = all(bool(t.isfinite().all()) for t in of_models if t.is_floating_point())
        for name, monitor in self.monitors.items():
            if not self.raised[name]:  # it would have stopped the training
                self.raised[name] = dict.fromkeys(monitor.check(self.so_far, self.gradients, finite=finite), step)
        self.gradients = set()


def undisturbed(loop: Loop, score: Callable[[], float]) -> float:
    """Score in the middle of a run, which goes on as if nobody had."""
    with _modes_kept(loop.models.values()), torch.random.fork_rng(devices=[]):
        return score()


@contextmanager
def _modes_kept(models: Collection[nn.Module]) -> Iterator[None]:
    modes = [(module, module.training) for model in models for module in model.modules()]
    yield
    for module, mode in modes:
        module.training = mode


def _looked_at(model: nn.Module) -> list[nn.Parameter]:
    embeddings = (m for m in model.modules() if isinstance(m, nn.Embedding | nn.EmbeddingBag))
    left_out = {id(m.weight) for m in embeddings}
    return [p for p in model.parameters() if id(p) not in left_out]


def _is_checked(epoch: int) -> bool:
    return (epoch - 1) % EVERY == 0


def _last_check() -> int:
    return max(epoch for epoch in range(1, EPOCHS + 1) if _is_checked(epoch))
