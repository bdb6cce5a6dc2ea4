"""The rules of others, on both sides of each threshold."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from benchmarks.faults.data import Split
from benchmarks.faults.loops import supervised
from benchmarks.faults.peers import AutoTrainer, Debugger, autotrainer, debugger
from benchmarks.faults.peers.autotrainer import Epochs, Monitor, gradient_problems, largest_gain, oscillates
from benchmarks.faults.program import Loop, Program
from benchmarks.faults.running import run


def kernels(first: float, last: float) -> list[Tensor]:
    """Kernels of these norms, and a bias before and after that is no kernel."""
    bias = torch.full((3,), 7.0)
    return [bias, torch.full((2, 2), first / 2), torch.ones(2, 2), torch.full((2, 2), last / 2), bias]


@pytest.mark.parametrize(
    ("first", "last", "found"),
    [
        (0.99e-4, 0.11, {"vanish"}),
        (1.01e-4, 0.11, set()),  # ratio below beta_1, first norm not below beta_2
        (0.99e-4, 0.098, set()),  # first norm below beta_2, ratio not below beta_1
        (70.1, 1.0, {"explode"}),
        (69.9, 1.0, set()),
        (1.0, 0.0, {"explode"}),
        (math.nan, 1.0, {"nan"}),
        (math.inf, 1.0, {"nan"}),
    ],
)
def test_gradients(first: float, last: float, found: set[str]) -> None:
    assert gradient_problems(kernels(first, last)) == found


@pytest.mark.parametrize(("zeros", "found"), [(70, {"relu"}), (69, set())])
def test_share_of_zeros(zeros: int, found: set[str]) -> None:
    gradient = torch.ones(100)
    gradient[:zeros] = 0
    assert gradient_problems([gradient]) == found


def test_oscillation() -> None:
    # maxima 0.53 at 1, 3, 5, ...; minima 0.50 at 2, 4, ...
    swings = [0.5 + 0.031 * (i % 2) for i in range(10)]
    assert oscillates(swings)
    assert not oscillates([0.5 + 0.029 * (i % 2) for i in range(10)])
    flat = [0.6 + 0.01 * i for i in range(10)]
    assert oscillates(swings[:6] + flat[:4])  # 2 swings of 10 epochs
    assert not oscillates(swings[:6] + flat[:5])  # 2 of 11


def test_gain() -> None:
    assert largest_gain([0.5, 0.2, 0.205, 0.1]) == pytest.approx(0.005)
    assert largest_gain([0.5, 0.2]) == 0.0


def epochs(n: int = 10, train: float = 0.5, test: float = 0.5, rise: float = 0.02, loss: float = 1.0) -> Epochs:
    """Accuracies that end at these values."""
    back = [rise * i for i in range(n)][::-1]
    return Epochs([loss] * n, [train - b for b in back], [test - b for b in back])


@pytest.mark.parametrize(
    ("so_far", "gradients", "found"),
    [
        (epochs(), {"vanish"}, {"vanishing gradient"}),
        (epochs(8), {"vanish"}, set()),  # before 30 % of the epochs
        (epochs(9), {"vanish"}, {"vanishing gradient"}),
        (epochs(train=0.71, test=0.71), {"vanish", "explode", "relu"}, set()),  # good enough
        (epochs(train=0.71, test=0.69), {"vanish"}, {"vanishing gradient"}),
        (epochs(train=0.71, test=0.71, rise=0.0099), {"vanish"}, {"vanishing gradient"}),  # good, but slow
        (epochs(), {"vanish", "explode", "relu"}, {"dying ReLU"}),
        (epochs(), {"vanish", "explode"}, {"exploding gradient"}),
        (epochs(rise=0.0099), (), {"slow convergence"}),
        (epochs(rise=0.0101), (), set()),
        (epochs(1), {"nan"}, {"exploding gradient"}),
        (epochs(1, loss=1.01e5), (), {"exploding gradient"}),
        (epochs(1, loss=0.99e5), (), set()),
        (epochs(1, loss=math.nan), (), {"exploding gradient"}),
    ],
)
def test_monitor(so_far: Epochs, gradients: set[str], found: set[str]) -> None:
    assert Monitor(0.7).check(so_far, gradients, finite=True) == found


def test_monitor_asks_for_less_in_the_code() -> None:
    middling = epochs(train=0.65, test=0.65)
    assert Monitor(0.6).check(middling, {"vanish"}, finite=True) == set()
    assert Monitor(0.7).check(middling, {"vanish"}, finite=True) == {"vanishing gradient"}


def test_monitor_looks_at_weights_and_remembers() -> None:
    assert Monitor(0.7).check(epochs(1), (), finite=False) == {"exploding gradient"}
    monitor = Monitor(0.7)
    assert monitor.check(epochs(1), {"vanish"}, finite=True) == set()
    assert monitor.check(epochs(10), (), finite=True) == {"vanishing gradient"}


def test_monitor_sees_oscillation_where_all_else_is_well() -> None:
    swings = [0.9 + 0.05 * (i % 2) for i in range(10)]
    assert Monitor(0.7).check(Epochs([1.0] * 10, swings, swings), (), finite=True) == {"oscillating loss"}
    low = [s - 0.3 for s in swings]
    assert Monitor(0.7).check(Epochs([1.0] * 10, low, low), (), finite=True) == set()


def test_debugger_gradients_and_weights() -> None:
    assert debugger.vanishes(torch.tensor([0.9e-7, -1.09e-7]))
    assert not debugger.vanishes(torch.tensor([1.1e-7, -1.0e-7]))
    assert debugger.is_all_zero(torch.zeros(3))
    assert not debugger.is_all_zero(torch.tensor([0.0, 1e-30]))
    weight = torch.tensor([3.0, 4.0])
    assert debugger.update_ratio(weight, 11.1 * weight) == pytest.approx(10.1)
    assert debugger.update_ratio(torch.zeros(2), weight) > debugger.LARGE


@pytest.mark.parametrize(("dead", "found"), [(3, True), (2, False)])
def test_debugger_units(dead: int, found: bool) -> None:
    output = torch.ones(200, 4)
    output[:, :dead] = 0
    output[0, :dead] = 1  # active in 0.5 %
    assert debugger.is_dead(output) is found
    given = torch.where(output == 0, 9.5, 0.0)
    assert debugger.is_saturated(given, debugger.RANGES[nn.Tanh]) is found
    assert debugger.is_saturated(-given, debugger.RANGES[nn.Tanh]) is found
    assert not debugger.is_saturated(given, debugger.RANGES[nn.Sigmoid])
    output[1, :dead] = 1  # in 1 %
    assert not debugger.is_dead(output)


def test_debugger_unchanged() -> None:
    weight = torch.ones(3)
    assert debugger.is_unchanged([weight, weight * (1 + 5e-6), weight])
    assert not debugger.is_unchanged([weight, weight * (1 + 2e-5), weight])
    assert not debugger.is_unchanged([weight, weight])
    assert debugger.is_unchanged([weight * 2, weight, weight, weight])


def test_debugger_loss() -> None:
    assert debugger.falls_not({1: 2.0, 9: 0.5, 11: 2.0}, 11)
    assert not debugger.falls_not({1: 2.0, 9: 0.5, 11: 1.999}, 11)
    assert not debugger.falls_not({2: 2.0, 11: 3.0}, 11)  # nothing lies ten steps back


def test_debugger_initialisation() -> None:
    wide, falling = [torch.linspace(-1, 1, 101)], [5.0, 4.0, 3.0]
    assert debugger.is_poorly_initialised([1.0, 10.1], wide, falling)
    assert not debugger.is_poorly_initialised([1.0, 9.9], wide, falling)
    assert debugger.is_poorly_initialised([], [*wide, 0.00055 * wide[0]], falling)  # 90 % of it lie within 0.00099
    assert not debugger.is_poorly_initialised([], [*wide, 0.00056 * wide[0]], falling)
    assert debugger.is_poorly_initialised([], wide, [1.0, 2.0, 2.0, 2.0, 2.0, 2.0])
    assert not debugger.is_poorly_initialised([], wide, [1.0, 2.0, 2.0, 2.0, 2.0, 0.9])


def test_peers_watch(programs: dict[str, Program]) -> None:
    auto, debug = AutoTrainer(), Debugger()
    run(programs["tiny-deep"], 1e-2, 0, [auto, debug])
    # epochs of 4 steps; the first one judged is the tenth
    assert auto.raised == {name: {"vanishing gradient": 40} for name in autotrainer.THETAS}
    assert debug.raised["VanishingGradient"] == 1
    assert set(debug.raised) <= set(debugger.MEANS)
    assert "SaturatedActivation" not in debug.raised


def test_peers_leave_no_hook(programs: dict[str, Program]) -> None:
    loop = programs["tiny-lively"].make(1e-2)
    for watcher in (AutoTrainer(), Debugger()):
        watcher.start(programs["tiny-lively"], loop)
        assert loop.optimizers["optimizer"]._optimizer_step_pre_hooks
        watcher.end()
        assert not loop.optimizers["optimizer"]._optimizer_step_pre_hooks
        assert not any(m._forward_hooks or m._forward_pre_hooks for m in loop.models[""].modules())


def test_peers_watch_sparse_gradients() -> None:
    words, classes = torch.randint(50, (200, 4)), torch.arange(200) % 3

    def make(lr: float) -> Loop:
        model = nn.Sequential(nn.EmbeddingBag(50, 8, sparse=True), nn.Linear(8, 3))
        return supervised(model, Split(words, classes, words, classes), lr, optimizer="sgd")

    debug = Debugger()
    run(Program("tiny-sparse", make, (0.1,), steps=60), 0.1, 0, [AutoTrainer(), debug])
    assert "VanishingGradient" not in debug.raised
