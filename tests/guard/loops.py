"""Small models and loops that the guard's tests share."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from tests import reference


def mlp(*, hidden: int = 8, depth: int = 3, activation: type[nn.Module] = nn.Tanh) -> nn.Sequential:
    sizes = [4, *[hidden] * (depth - 1), 1]
    layers: list[nn.Module] = []
    for before, after in itertools.pairwise(sizes):
        layers += [nn.Linear(before, after), activation()]
    return nn.Sequential(*layers[:-1])


def batches(n: int, seed: int = 1) -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(seed)
    return [(torch.randn(6, 4, generator=generator), torch.randn(6, 1, generator=generator)) for _ in range(n)]


def loss_of(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    return nn.functional.mse_loss(model(batch[0]).float(), batch[1])


def train(
    model: nn.Module,
    optimizer: Optimizer,
    data: Iterable[tuple[Tensor, Tensor]],
    *,
    after_backward: Callable[[], object] = lambda: None,
) -> list[float]:
    """Train, and give the total gradient norm of each step, computed in NumPy when the step is about to be made."""
    totals = []
    for batch in data:
        optimizer.zero_grad()
        loss_of(model, batch).backward()
        after_backward()
        totals.append(total_of(model))
        optimizer.step()
    return totals


def total_of(model: nn.Module) -> float:
    grads = [p.grad for p in model.parameters() if p.grad is not None]
    flat = [g.double().cpu().reshape(-1) for g in grads]
    return reference.norm(torch.cat(flat).numpy(), 2) if flat else 0.0


def float32_total(model: nn.Module, batch: tuple[Tensor, Tensor]) -> float:
    """Total gradient norm that this batch gives in plain float32, the model itself left alone."""
    twin = copy.deepcopy(model)
    twin.zero_grad()
    loss_of(twin, batch).backward()
    return total_of(twin)
