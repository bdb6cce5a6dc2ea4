"""Every mistake gets an error that names the mend."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from gradguard import ClosedGuardError, GradGuardWarning, Guard
from gradguard.detect import NonFinite
from tests.guard.loops import mlp


def sgd(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(model.parameters(), lr=0.1)


def test_parameters_of_another_model() -> None:
    with pytest.raises(
        ValueError, match=r"the model that SGD trains: none of its 6 .* belongs to Linear\. Pass that model"
    ):
        Guard(nn.Linear(2, 1), sgd(mlp()))


def test_some_parameters_of_no_model_are_measured_with_a_warning() -> None:
    model, temperature = mlp(), nn.Parameter(torch.ones(()))
    optimizer = torch.optim.SGD([{"params": model.parameters()}, {"params": [temperature]}], lr=0.1)
    with pytest.warns(GradGuardWarning, match=r"1 of 7 parameters of SGD .* param_groups\.1\.params\.0"):
        guard = Guard(model, optimizer)
    (model(torch.ones(1, 4)).sum() * temperature).backward()
    optimizer.step()
    guard.diagnose()
    assert "grad_norm/param_groups.1.params.0" in guard.history


def test_an_optimizer_given_twice() -> None:
    model = mlp()
    optimizer = sgd(model)
    with pytest.raises(ValueError, match="distinct optimizers, got the same SGD twice"):
        Guard(model, [optimizer, optimizer])


def test_no_optimizer() -> None:
    with pytest.raises(ValueError, match="at least one optimizer, got none"):
        Guard(mlp(), [])


def test_no_trainable_parameter() -> None:
    model = mlp().requires_grad_(False)
    with pytest.raises(ValueError, match=r"something to train, .* Unfreeze the model before"):
        Guard(model, sgd(model))


@pytest.mark.parametrize("value", [0, -1, 2.5, "10", True, None])
def test_every_n_steps(value: object) -> None:
    model = mlp()
    with pytest.raises(ValueError, match=f"every_n_steps to be an integer >= 1, got {value!r}"):
        Guard(model, sgd(model), every_n_steps=value)  # type: ignore[arg-type]


def test_norm_type_and_max_points() -> None:
    model = mlp()
    with pytest.raises(ValueError, match="norm_type > 0 or inf, got 0"):
        Guard(model, sgd(model), norm_type=0)
    with pytest.raises(ValueError, match="norm_type > 0 or inf, got '2'"):
        Guard(model, sgd(model), norm_type="2")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="max_points to be an integer >= 2, got 1"):
        Guard(model, sgd(model), max_points=1)


def test_a_closed_guard() -> None:
    model = mlp()
    guard = Guard(model, sgd(model))
    guard.close()
    for use in (guard.measure, lambda: guard.record_loss(1.0), guard.__enter__):
        with pytest.raises(ClosedGuardError, match=r"needs an open guard, this one was closed\. Make a new"):
            use()


def test_a_second_guard_on_the_same_optimizer() -> None:
    model = mlp()
    optimizer = sgd(model)
    Guard(model, optimizer)
    with pytest.raises(ValueError, match=r"without a guard, this SGD has one\. Use that guard, or close\(\) it"):
        Guard(model, optimizer)


def test_a_refused_guard_leaves_no_hook() -> None:
    model = mlp()
    optimizer = sgd(model)
    with pytest.raises(TypeError, match=r"scaler to be a torch\.amp\.GradScaler, got str"):
        Guard(model, optimizer, scaler="scaler")
    assert not optimizer._optimizer_step_pre_hooks
    Guard(model, optimizer)


@pytest.mark.parametrize(
    ("model", "optimizer", "message"),
    [
        ("model", sgd(mlp()), r"needs a torch\.nn\.Module, or several in a dict by name, got str"),
        ({}, sgd(mlp()), r"needs a torch\.nn\.Module, or several"),
        ({"a": 1}, sgd(mlp()), r"'a' to be a torch\.nn\.Module, got int"),
        (mlp(), "sgd", r"torch\.optim\.Optimizer \(or a list or dict of them\), got str"),
        (mlp(), mlp(), r"torch\.optim\.Optimizer .* got Sequential"),
    ],
)
def test_wrong_types(model: object, optimizer: object, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        Guard(model, optimizer)  # type: ignore[arg-type]


def test_detectors_are_objects() -> None:
    model = mlp()
    with pytest.raises(TypeError, match="detectors to be AbstractDetector objects, got 'vanishing'"):
        Guard(model, sgd(model), detectors=["vanishing"])  # type: ignore[list-item]
    with pytest.raises(TypeError, match="detectors to be a list of AbstractDetector objects, got <"):
        Guard(model, sgd(model), detectors=NonFinite())  # type: ignore[arg-type]


def test_a_loss_is_one_number() -> None:
    model = mlp()
    with pytest.raises(ValueError, match=r"record_loss needs one number, got shape \(3,\)\. Take its mean"):
        Guard(model, sgd(model)).record_loss(torch.ones(3))


def test_measure_needs_to_know_which_optimizer() -> None:
    models = {"g": mlp(), "d": mlp()}
    guard = Guard(models, {name: sgd(model) for name, model in models.items()})
    with pytest.raises(ValueError, match="measure needs the name of one of g, d, got None"):
        guard.measure()
    with pytest.raises(ValueError, match="one of g, d, got x"):
        guard.measure("x")
    with pytest.raises(ValueError, match="record_loss needs the name of one of g, d, got x"):
        guard.record_loss(1.0, "x")
    assert guard.measure("g").missing


@pytest.mark.parametrize("kind", ["FullyShardedDataParallel", "DeepSpeedEngine"])
def test_wrappers_under_which_norms_would_be_wrong_are_refused_by_name(kind: str) -> None:
    model = type(kind, (nn.Module,), {})()
    model.module = mlp()
    with pytest.raises(ValueError, match=f"GradGuard can't look into a {kind}: "):
        Guard(model, sgd(model))
