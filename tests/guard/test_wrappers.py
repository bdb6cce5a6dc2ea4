"""Fabric and Accelerate, and the names that wrappers hide."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn.parallel import DataParallel
from torch.optim.swa_utils import AveragedModel

from gradguard import Guard
from gradguard.guard.layout import layout_of
from gradguard.names import known_parameters
from tests.guard.loops import batches, float32_total, loss_of, mlp

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")


def fabric(precision: str = "32-true", scaler: object = None):
    from lightning_fabric import Fabric
    from lightning_fabric.plugins import MixedPrecision

    if precision == "16-mixed":
        return Fabric(accelerator="cpu", plugins=MixedPrecision("16-mixed", "cpu", scaler))
    return Fabric(accelerator="cpu", precision=precision)


@pytest.mark.parametrize("precision", ["32-true", "16-mixed", "bf16-mixed"])
def test_fabric(precision: str) -> None:
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**20) if precision == "16-mixed" else None
    fab = fabric(precision, scaler)
    bare = mlp()
    model, optimizer = fab.setup(bare, torch.optim.SGD(bare.parameters(), lr=0.02))
    guard = Guard(model, optimizer, scaler=scaler)
    expected = []
    for batch in batches(12):
        optimizer.zero_grad()
        expected.append(float32_total(bare, batch))
        fab.backward(loss_of(model, batch))
        optimizer.step()
    assert guard.diagnose() == []
    totals = guard.history["grad_norm/total"]
    assert totals.steps[-1] == 12
    rel = {"32-true": 1e-6, "16-mixed": 1e-3, "bf16-mixed": 2e-2}[precision]
    assert totals.last.tolist() == pytest.approx([expected[s - 1] for s in totals.steps.tolist()], rel=rel)
    assert {name.removeprefix("grad_norm/") for name in guard.history if name.startswith("grad_norm/")} == {
        "total",
        *(name for name, _ in bare.named_parameters()),
    }


def test_accelerate_measures_once_per_accumulated_step() -> None:
    from accelerate import Accelerator

    accelerator = Accelerator(cpu=True, gradient_accumulation_steps=2)
    bare = mlp()
    model, optimizer = accelerator.prepare(bare, torch.optim.SGD(bare.parameters(), lr=0.05))
    assert type(optimizer).__name__ == "AcceleratedOptimizer"
    with Guard(model, optimizer) as guard:
        expected = []
        for batch in batches(6):
            with accelerator.accumulate(model):
                accelerator.backward(loss_of(model, batch))
                if accelerator.sync_gradients:
                    expected.append(torch.cat([p.grad.reshape(-1) for p in bare.parameters()]).norm().item())
                optimizer.step()
                optimizer.zero_grad()
    assert guard.history["grad_norm/total"].last.tolist() == pytest.approx(expected, rel=1e-6)
    assert len(expected) == 3


def names(model: nn.Module) -> list[str]:
    return [known.name for known in known_parameters({"": model}).values()]


class OwnModuleAttribute(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.module = nn.Linear(1, 1)
        self.frozen = nn.Linear(1, 1).requires_grad_(False)
        self.scale = nn.Parameter(torch.ones(1))


def test_wrapper_prefixes_go_and_a_users_own_module_stays() -> None:
    plain = OwnModuleAttribute()
    expected = [name for name, _ in plain.named_parameters()]
    assert names(plain) == expected
    assert "module.weight" in expected
    for wrap in (torch.compile, DataParallel, AveragedModel, lambda m: torch.compile(DataParallel(m))):
        assert names(wrap(plain)) == expected
    nested = nn.Sequential(torch.compile(plain))
    assert names(nested) == [f"0.{name}" for name in expected]


def test_several_models_go_by_their_names() -> None:
    found = known_parameters({"g": nn.Linear(1, 1), "d": nn.Linear(1, 1)})
    assert [k.name for k in found.values()] == ["g.weight", "g.bias", "d.weight", "d.bias"]
    assert [k.layer for k in found.values()] == ["g", "g", "d", "d"]


def test_layers_of_a_stacked_recurrent_module_are_told_apart() -> None:
    model = nn.Sequential(nn.LSTM(3, 4, num_layers=2, bidirectional=True))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    _, layout = layout_of(optimizer, "o", known_parameters({"": model}), {id(p) for p in model.parameters()}, 2.0)
    assert set(layout.layers) == {"0.l0", "0.l1"}
    alone = nn.LSTM(3, 4)
    optimizer = torch.optim.SGD(alone.parameters(), lr=0.1)
    _, layout = layout_of(optimizer, "o", known_parameters({"": alone}), {id(p) for p in alone.parameters()}, 2.0)
    assert set(layout.layers) == {"l0"}
