"""The recurrent weights of an IndRNN never leave their bound, whatever a training loop does."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.multiprocessing as mp
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from gradguard import nn as gnn
from gradguard.nn.bounded import Bounded, bounded, rounded_down
from tests.nn import ind_rnn_workers as workers

pytestmark = pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")  # Dynamo's own
T = 20
BOUND = 2 ** (1 / T)


def made(**options: Any) -> gnn.IndRNN:
    return gnn.IndRNN(3, 8, 2, **{"length": T, "dtype": torch.float64} | options)


def vectors(module: nn.Module) -> list[Tensor]:
    return [param for name, param in module.named_parameters() if "weight_hh" in name]


def x(dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(T, 4, 3, dtype=dtype)


def stretched(module: nn.Module, value: float = 7.0) -> nn.Module:
    """Write what is outside, as a loop of some kind may."""
    with torch.no_grad():
        for u in vectors(module):
            u.copy_(torch.linspace(-value, value, u.numel()))
    return module


def right(module: nn.Module, given: Tensor, bound: float = BOUND) -> Tensor:
    """What the module has to give: that of weights cut off at the bound."""
    twin = copy.deepcopy(module)
    with torch.no_grad():
        for u in vectors(twin):
            u.clamp_(-bound, bound)
    output: Tensor = twin(given)[0]
    return output


@pytest.mark.parametrize("train", [True, False])
@pytest.mark.parametrize("call", ["plain", "functional_call", "vmap", "compiled", "exported", "no_grad"])
def test_every_pass_computes_with_bounded_weights(call: str, train: bool) -> None:
    module, given = made().train(train), x()
    expected = right(stretched(copy.deepcopy(module)), given)
    outside = {name: param.detach().clone() for name, param in stretched(copy.deepcopy(module)).named_parameters()}
    torch._dynamo.reset()
    calls: dict[str, Callable[[], Tensor]] = {
        "plain": lambda: stretched(module)(given)[0],
        "functional_call": lambda: torch.func.functional_call(module, outside, (given,))[0],
        "vmap": lambda: torch.vmap(lambda x: stretched(module)(x[:, None])[0][:, 0], 1, 1)(given),
        "compiled": lambda: torch.compile(stretched(module), backend="aot_eager", fullgraph=True)(given)[0],
        "exported": lambda: torch.export.export(stretched(module), (given,)).module()(given)[0],
        "no_grad": lambda: torch.no_grad()(stretched(module))(given)[0],
    }
    torch.testing.assert_close(calls[call](), expected, rtol=1e-12, atol=0)
    if call == "functional_call":
        assert all(value.abs().max() == 7 for name, value in outside.items() if "weight_hh" in name), "was changed"


def test_a_cell_is_bounded_too() -> None:
    cell, h = gnn.IndRNNCell(3, 8, length=T, bias=False, dtype=torch.float64), torch.rand(4, 8, dtype=torch.float64)
    with torch.no_grad():
        cell.weight_hh.copy_(torch.linspace(-7, 7, 8))
        found = cell(torch.zeros(4, 3, dtype=torch.float64), h)
    u = torch.linspace(-7, 7, 8, dtype=torch.float64).clamp(-BOUND, BOUND)
    torch.testing.assert_close(found, (u * h).relu(), rtol=1e-14, atol=0)
    assert cell.state_dict()["weight_hh"].abs().max() <= BOUND


@pytest.mark.parametrize("optimizer", [torch.optim.Adam, torch.optim.SGD])
def test_after_a_step_far_out_the_next_pass_starts_from_the_bound(optimizer: type[torch.optim.Optimizer]) -> None:
    """That is the paper's rule: project after each step."""
    module = made()
    twin = copy.deepcopy(module)
    steps, furthest = [optimizer(m.parameters(), lr=0.5) for m in (module, twin)], 0.0
    for given in (x() for _ in range(10)):
        for m, step in zip((module, twin), steps, strict=True):
            step.zero_grad()
            (m(given)[0].tanh() - given.sum()).square().mean().backward()
            step.step()
        furthest = max(furthest, *(u.abs().max().item() for u in vectors(module)))
        with torch.no_grad():
            for u in vectors(twin):
                u.clamp_(-BOUND, BOUND)
        for u, projected in zip(vectors(module), vectors(twin), strict=True):
            torch.testing.assert_close(u.clamp(-BOUND, BOUND), projected, rtol=1e-12, atol=1e-14)
    assert furthest > BOUND, "no step went outside"


def test_where_nothing_is_trained_nothing_is_written() -> None:
    module, given = stretched(made()), x()
    module.eval()(given)
    with torch.no_grad():
        module.train()(given)
    assert all(u.abs().max() == 7 for u in vectors(module))
    module(given)
    assert all(u.abs().max() <= BOUND for u in vectors(module))


def test_in_a_graph_that_can_not_write_nothing_winds_up() -> None:
    """The same gradient again and again takes an entry out by one step, and the opposite one back in by the next."""
    torch._dynamo.reset()
    cell, h = gnn.IndRNNCell(1, 4, bias=False, length=T, dtype=torch.float64), torch.ones(1, 4, dtype=torch.float64)
    compiled = torch.compile(cell, backend="aot_eager", fullgraph=True)
    optimizer = torch.optim.SGD(cell.parameters(), lr=0.1)
    for sign, least, most in ((1, BOUND, BOUND + 0.1), (-1, -BOUND, BOUND - 0.1)):
        for _ in range(10 if sign > 0 else 2):
            optimizer.zero_grad()
            (-sign * compiled(h[:, :1] * 0, h)).sum().backward()
            optimizer.step()
        assert bool((cell.weight_hh > least).all())
        assert bool((cell.weight_hh < most).all())


def test_accumulation_is_the_gradient_of_the_joined_batch() -> None:
    """Several passes before one backward: what is stored is brought back between them, and no graph complains."""
    module, given = stretched(made()), x()
    (expected,) = torch.autograd.grad(module(given)[0].sum(), vectors(module)[0])
    stretched(module)
    first = module(given[:, :2])[0].sum()
    penalty = vectors(module)[0].square().sum()  # saves u itself
    second = module(given[:, 2:])[0].sum()
    (found,) = torch.autograd.grad(first + second + 0 * penalty, vectors(module)[0])
    torch.testing.assert_close(found, expected)


def test_under_autocast_u_is_not_rounded() -> None:
    """In bfloat16 it could be past its bound; and near 1 there are 128 values between 1 and 2."""
    module = made(dtype=torch.float32, bias=False, length=63)
    with torch.no_grad():
        module.weight_hh_l1.fill_(9.0)
        module.weight_ih_l1.zero_()
    with torch.autocast("cpu", torch.bfloat16):
        output, last = module(x(torch.float32)[:1, :1], torch.full((2, 1, 8), 1.25).bfloat16())
    u = torch.tensor(2 ** (1 / 63))
    assert bool((last[1] == (u * 1.25).bfloat16()).all())
    assert (u * 1.25).bfloat16() != (u.bfloat16() * 1.25).bfloat16()
    output.float().sum().backward()
    assert all(grad is not None and grad.dtype == torch.float32 for grad in (u.grad for u in vectors(module)))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("length", [2, 7, 20, 784, 5000])
def test_in_every_dtype_the_bound_is_rounded_down(dtype: torch.dtype, length: int) -> None:
    bound = 2 ** (1 / length)
    found = rounded_down(bound, dtype)
    held = torch.tensor(found, dtype=dtype)
    assert held.item() == found <= bound
    assert found + torch.finfo(dtype).eps > bound, "the next one would be too large"
    module = gnn.IndRNN(3, 64, 2, length=length, dtype=dtype)
    assert all(u.abs().max().item() <= bound for u in vectors(module)), "new"
    stretched(module)
    assert all(v.abs().max().item() <= bound for name, v in module.state_dict().items() if "weight_hh" in name)


def test_averages_of_weights_are_bounded() -> None:
    module = stretched(made())
    average = AveragedModel(module, multi_avg_fn=get_ema_multi_avg_fn(0.5))
    average.update_parameters(module)
    average.update_parameters(stretched(module))
    given = x()
    torch.testing.assert_close(average(given)[0], right(average.module, given))
    state = average.state_dict()
    assert all(value.abs().max() <= BOUND for name, value in state.items() if "weight_hh" in name)


def test_what_is_saved_loaded_and_copied_is_bounded() -> None:
    outside = {name: value * 0 + 7 if "weight_hh" in name else value for name, value in made().state_dict().items()}
    module = made()
    module.load_state_dict(outside)
    assert all(bool((u == float(module.recurrence.bounds[u.dtype])).all()) for u in vectors(module))
    for twin in (copy.deepcopy(module), pickle.loads(pickle.dumps(module))):
        stretched(twin)
        assert all(v.abs().max() <= BOUND for name, v in twin.state_dict().items() if "weight_hh" in name)
        assert all(u.abs().max() <= BOUND for u in vectors(module)), "a hook of the other one"


def test_the_gradient_lets_an_entry_back_in_and_never_further_out() -> None:
    u = torch.tensor([0.5, 3.0, 3.0, -3.0, -3.0, 1.25, -1.25], dtype=torch.float64, requires_grad=True)
    slopes = torch.tensor([1.0, 1.0, -1.0, 1.0, -1.0, -1.0, 1.0], dtype=torch.float64)
    expected = torch.tensor([1.0, 1.0, 0.0, 0.0, -1.0, -1.0, 1.0], dtype=torch.float64)
    bounds = {torch.float64: "1.25"}
    torch._dynamo.reset()
    for call in (bounded, torch.compile(bounded, backend="aot_eager", fullgraph=True)):
        values = call(u, bounds)
        assert values.abs().max() == 1.25
        assert torch.autograd.grad((values * slopes).sum(), u)[0].equal(expected)
    per_sample = torch.vmap(torch.func.grad(lambda u, s: (bounded(u, bounds) * s).sum()))(
        torch.stack([u, u]), slopes.expand(2, 7)
    )
    assert per_sample.equal(torch.stack([expected, expected]))
    (twice,) = torch.autograd.grad((bounded(u, bounds) * slopes.requires_grad_()).sum(), u, create_graph=True)
    assert torch.autograd.grad(twice.sum(), slopes)[0].equal((expected != 0).double())
    assert Bounded.apply(u, 2.0)[1] == 2


@pytest.mark.parametrize("strict", [True, False])
def test_an_exported_entry_outside_is_not_stuck(strict: bool) -> None:
    program = torch.export.export(stretched(made()), (x(),), strict=strict).module()
    program(x())[0].sum().backward()
    named = dict(program.named_parameters())
    assert all(bool((named[f"weight_hh_l{k}"].grad != 0).any()) for k in range(2))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_shards_are_bounded(tmp_path: Path) -> None:
    mp.spawn(workers.run, args=(1, str(tmp_path)), nprocs=1)
    found = torch.load(tmp_path / "0.pt")
    assert found["most computed with"] <= BOUND
    assert found["most saved"] <= BOUND
    assert found["most stored"] > BOUND, "no step went outside"
