"""The movement of the weights at each step, against all of the sampled entries recomputed in float64."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor, nn

from gradguard.probe import movement as module
from gradguard.probe.movement import Movement
from tests import reference


def stretches(weight: Tensor) -> Tensor:
    """The entries that are sampled, from what the class says of them: float64."""
    flat = weight.detach().double().flatten()
    before = max(0, len(flat) - 1024) // 2
    return flat[before : before + 1024]


def ratio(before: list[Tensor], after: list[Tensor]) -> float:
    was, then = (torch.cat([stretches(w) for w in weights]).numpy() for weights in (before, after))
    return reference.norm(then - was, 2) / reference.norm(was, 2)


def net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(40, 90), nn.Tanh(), nn.Linear(90, 37), nn.Tanh(), nn.Linear(37, 1))


def steps(model: nn.Module, optimizer: torch.optim.Optimizer, n: int) -> Iterator[None]:
    generator = torch.Generator().manual_seed(1)
    for _ in range(n):
        optimizer.zero_grad()
        model(torch.randn(8, 40, generator=generator)).square().mean().backward()
        yield
        optimizer.step()


def weights(model: nn.Module) -> list[Tensor]:
    return [p for p in model.parameters() if p.ndim == 2]


OPTIMIZERS = {
    "SGD": lambda p: torch.optim.SGD(p, lr=0.1),
    "momentum": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9),
    "Adam": lambda p: torch.optim.Adam(p, lr=1e-3),
    "fused Adam": lambda p: torch.optim.Adam(p, lr=1e-3, fused=True),
}


@pytest.mark.parametrize("make", OPTIMIZERS.values(), ids=OPTIMIZERS)
@pytest.mark.parametrize("n", [1, 15, 16, 17, 40])
def test_it_equals_the_sample_recomputed_at_every_step(make: Callable[..., torch.optim.Optimizer], n: int) -> None:
    model = net().double()  # what float32 rounds away is not what is tested here
    optimizer = make(model.parameters())
    movement = Movement(list(model.parameters()), [p.ndim == 2 for p in model.parameters()])
    expected = []
    for i, _ in enumerate(steps_of_double(model, optimizer, n)):
        before = copy.deepcopy(weights(model))
        movement.before()
        optimizer.step()
        movement.after(10 + i)
        expected.append(ratio(before, weights(model)))
    moved = movement.take()
    assert moved.rows == list(range(10, 10 + n))
    assert moved.ratios.tolist() == pytest.approx(expected, rel=1e-12)
    assert movement.take().rows == []


def steps_of_double(model: nn.Module, optimizer: torch.optim.Optimizer, n: int) -> Iterator[None]:
    generator = torch.Generator().manual_seed(1)
    for _ in range(n):
        optimizer.zero_grad()
        model(torch.randn(8, 40, generator=generator, dtype=torch.float64)).square().mean().backward()
        yield


def test_float32_and_half_types_are_compared_in_float32() -> None:
    for dtype, rel in ((torch.float32, 1e-5), (torch.bfloat16, 1e-5), (torch.float16, 1e-5)):
        weight = nn.Parameter((100 * torch.randn(300, 30)).to(dtype))  # squares beyond float16
        movement = Movement([weight], [True])
        before = weight.detach().clone()
        movement.before()
        weight.data.mul_(1.5)
        movement.after(0)
        (found,) = movement.take().ratios.tolist()
        assert found == pytest.approx(ratio([before], [weight]), rel=rel)
        assert found == pytest.approx(0.5, rel=1e-2)


def test_weights_come_before_other_parameters_and_a_few_spread_over_the_depth_are_enough() -> None:
    params = [nn.Parameter(torch.ones(3, 3)) for _ in range(30)]
    assert sampled(Movement(params, [True] * 30), params) == [0, 9, 19, 29]
    assert sampled(Movement(params[:9], [False] * 4 + [True] + [False] * 4), params) == [4]
    assert len(Movement(params[:3], [False] * 3).params) == 3
    big = Movement([nn.Parameter(torch.ones(1000, 1000)) for _ in range(30)], [True] * 30)
    assert big.samples.numel() * 4 == 1 << 19


def sampled(movement: Movement, params: list[Tensor]) -> list[int]:
    return [i for i, p in enumerate(params) if any(p is chosen for chosen in movement.params)]


def test_what_has_no_dense_memory_is_left_out_and_the_most_frequent_kind_is_sampled() -> None:
    gaps, sparse = torch.ones(8, 8)[:, :4], torch.eye(3).to_sparse()
    whole = torch.ones(3, 4)
    odd = [gaps, sparse, torch.ones(0, 3), torch.ones(2, 2, dtype=torch.int8)]
    assert [Movement([one], [True]).take() for one in odd] == [None] * 4
    transposed, complex_one = torch.ones(3, 4).t(), torch.full((3,), 3 + 4j)
    assert len(Movement([*odd, transposed, whole], [True] * 6).params) == 2
    assert Movement([sparse, whole], [True, False]).take() is None  # a bias beside a sharded weight tells nothing of it
    halves = [torch.ones(2, dtype=torch.bfloat16) for _ in range(2)]
    assert sampled(Movement([whole, *halves], [True] * 3), [whole, *halves]) == [1, 2]
    movement = Movement([complex_one], [True])
    movement.before()
    complex_one.mul_(2)
    movement.after(0)
    assert movement.take().ratios.tolist() == [1.0]


def test_a_step_that_is_broken_off_and_weights_of_zero_give_no_number() -> None:
    weight = nn.Parameter(torch.zeros(4))
    movement = Movement([weight], [True])
    movement.after(0)  # nothing was begun
    movement.before()
    weight.data.add_(1.0)
    movement.before()  # that one never ended
    weight.data.add_(1.0)
    movement.after(1)
    movement.before()
    weight.data.zero_()
    movement.after(2)
    movement.before()
    movement.after(3)
    movement.before()
    weight.data.add_(1.0)  # whatever grows from nothing grows without bounds
    movement.after(4)
    moved = movement.take()
    assert moved.rows == [1, 2, 3, 4]
    assert moved.ratios[:2].tolist() == [1.0, 1.0]
    assert moved.ratios[2:].isnan().all()
    movement.before()
    movement.take()  # what is read in the middle of a step leaves that step out
    movement.after(4)
    assert movement.take().rows == []


def test_weights_whose_memory_is_swapped_are_found_again() -> None:
    weight = nn.Parameter(torch.full((50, 50), 2.0))
    movement = Movement([weight], [True])
    for row in range(40):  # an optimizer that writes to new memory at each step
        movement.before()
        weight.data = weight.data * (2.0 if row % 2 else 0.5)
        movement.after(row)
    moved = movement.take()
    assert moved.rows == list(range(40))
    assert moved.ratios.tolist() == [0.5, 1.0] * 20
    movement.before()
    weight.data = weight.data.double()  # another precision in the middle of a step
    movement.after(40)
    movement.before()
    weight.data.mul_(3)
    movement.after(41)
    moved = movement.take()
    assert (moved.rows, moved.ratios.tolist(), moved.ratios.dtype) == ([41], [2.0], torch.float64)
    weight.data = torch.ones(50, 100, dtype=torch.float64)[:, :50]  # with gaps
    movement.before()
    movement.after(42)
    assert movement.take() is None


def test_the_numbers_do_not_depend_on_when_they_are_taken() -> None:
    def run(every: int) -> list[float]:
        model = net()
        optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
        movement = Movement(list(model.parameters()), [p.ndim == 2 for p in model.parameters()])
        found: list[float] = []
        optimizer.register_step_pre_hook(lambda *_: movement.before())
        optimizer.register_step_post_hook(lambda *_: movement.after(0))
        for i, _ in enumerate(steps(model, optimizer, 50)):
            if i % every == 0:
                found += movement.take().ratios.tolist()
        return found + movement.take().ratios.tolist()

    assert run(1) == run(7) == run(16) == run(100)


def test_it_takes_two_launches_a_step_and_reads_nothing_on_the_host() -> None:
    from torch.utils._python_dispatch import TorchDispatchMode

    class Count(TorchDispatchMode):
        def __init__(self) -> None:
            super().__init__()
            self.seen: list[str] = []

        def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
            self.seen.append(str(func))
            return func(*args, **(kwargs or {}))

    params = [nn.Parameter(torch.empty(64, 64, device="meta")) for _ in range(12)]
    movement = Movement(params, [True] * 12)
    with Count() as count:
        for row in range(module.STEPS - 1):
            movement.before()
            movement.after(row)
    assert set(count.seen) == {"aten.cat.out"}
    assert len(count.seen) == 2 * (module.STEPS - 1)
    movement.before()
    movement.after(module.STEPS - 1)
    assert movement.take().ratios.shape == (module.STEPS,)
