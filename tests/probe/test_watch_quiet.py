"""A watch changes nothing, keeps nothing, is nothing where none is active, and tells mistakes where one is."""

from __future__ import annotations

import gc
import weakref
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from gradguard.probe import StateWatch, watch_state, watching
from tests.probe.loops import IN, B, H, T, halving, run


def test_without_an_active_watch_no_hook_is_registered() -> None:
    gc.collect()  # of guards that other tests did not close
    h = halving(range(3))
    assert h._backward_hooks is None
    with watching():
        pass
    h = halving(range(3))
    watch_state("anything", 0.5)  # type: ignore[arg-type]  # nothing is looked at
    assert h._backward_hooks is None


def test_after_the_watch_has_stopped_no_gradient_is_taken_and_what_was_found_stays() -> None:
    watched = StateWatch()
    watched.start()
    h = halving(range(3))
    h.sum().backward(retain_graph=True)
    watched.stop()
    before = watched.profiles()[0].memory.tolist()
    h.sum().backward()
    watched.stop()
    assert not h._backward_hooks
    assert watched.profiles()[0].memory.tolist() == before == [1, 0.5, 0.25]
    watched.start()
    halving(range(4))
    watched.start()
    halving(range(2)).sum().backward()
    assert len(watched.profiles()[0].h) == 2
    watched.stop()
    assert halving(range(2))._backward_hooks is None


def test_two_watches_may_be_active_at_once() -> None:
    with watching() as outer:
        halving(range(2)).sum().backward()
        with watching() as inner:
            halving(range(3)).sum().backward()
    assert [len(one.profiles()[0].h) for one in (outer, inner)] == [2, 3]


def gradients(watches: bool) -> tuple[list[Tensor], Tensor]:
    torch.manual_seed(1)
    cell, x = nn.LSTMCell(IN, H), torch.randn(T, B, IN)
    with watching() as watched:
        loss = run(cell, x, watches=watches)[-1][0].square().sum() + nn.functional.dropout(torch.ones(3)).sum()
        loss.backward()
        if watches:
            watched.profiles()
    return [p.grad for p in cell.parameters() if p.grad is not None], torch.get_rng_state()


def test_gradients_and_random_numbers_are_bit_for_bit_as_without() -> None:
    (with_it, state), (without, other) = gradients(True), gradients(False)
    assert len(with_it) == 4
    assert all(torch.equal(a, b) for a, b in zip(with_it, without, strict=True))
    assert torch.equal(state, other)


def test_the_graph_does_not_grow_and_no_state_is_kept_alive() -> None:
    h = torch.ones(2, 1, requires_grad=True)
    with watching() as watched:
        h = 0.5 * h
        before = h.grad_fn
        watch_state(h, 0)
        assert h.grad_fn is before
        kept = weakref.ref(h)
        h = 0.5 * h
        watch_state(h, 1)
        h.sum().backward()
        del before
        h = h.detach()
        assert kept() is None
    assert len(watched.profiles()) == 1


def test_what_was_found_is_not_what_a_user_changes_in_place_later() -> None:
    start = torch.ones(2, 1, requires_grad=True)
    with watching() as watched:
        watch_state(start, 0)
        h = 0.5 * start
        watch_state(h, 1)
        h.sum().backward()
        assert start.grad is not None
        start.grad.mul_(100)
    assert watched.profiles()[0].memory.tolist() == [1, 0.5]


def test_nothing_is_watched_where_gradients_are_traced_or_batched() -> None:
    h = torch.ones(2, 1, requires_grad=True)

    def loop(h: Tensor) -> Tensor:
        for t in range(3):
            h = 0.5 * h
            watch_state(h, t)
        return h.sum()

    compiled = torch.compile(loop, backend="eager", fullgraph=True)
    compiled(h)
    with watching() as watched, torch._dynamo.config.patch(error_on_recompile=True):
        torch.func.vmap(torch.func.grad(loop))(torch.ones(3, 2, 1))
        compiled(h).backward()
    with pytest.raises(ValueError, match=r"nothing was watched.*outside of torch\.compile and torch\.func"):
        watched.profiles()
    with watching() as watched:
        loss = torch.stack([loop(h), 2 * loop(h)])
        torch.autograd.grad(loss, h, torch.eye(2), is_grads_batched=True)
    assert watched.looks() == []


@pytest.mark.parametrize(
    ("state", "t", "kwargs", "error", "message"),
    [
        ([[1.0]], 0, {}, TypeError, "needs a tensor h or a tuple .* got list"),
        (None, 0, {}, TypeError, "got NoneType"),
        ((), 0, {}, TypeError, "got an empty one"),
        (torch.ones(1), 0.0, {}, TypeError, "as an int, got float"),
        (torch.ones(1), True, {}, TypeError, "as an int, got bool"),
        (torch.ones(1), torch.tensor(1), {}, TypeError, "as an int, got Tensor"),
        (torch.ones(1), 0, {"name": 3}, TypeError, "needs a str .* got int"),
        ((torch.ones(1),) * 3, 0, {}, ValueError, r"got 3 tensors\. Watch each layer under a name of its own"),
        (torch.ones(()), 0, {}, ValueError, r"\[\.\.\., H\] .* got \(\)"),
        ((torch.ones(2, 1), torch.ones(1, 1)), 0, {}, ValueError, r"got \(2, 1\) and \(1, 1\)"),
    ],
)
def test_a_mistake_is_told_while_a_watch_is_active(
    state: Any, t: Any, kwargs: Any, error: type[Exception], message: str
) -> None:
    with watching(), pytest.raises(error, match=message):
        watch_state(state, t, **kwargs)


@pytest.mark.parametrize(
    "other", [torch.ones(4, 2, 1), torch.ones(1), (torch.ones(2, 1), torch.ones(2, 1)), torch.ones(2, 3, 1)]
)
def test_states_of_another_layout_are_of_another_loop(other: Any) -> None:
    with watching():
        watch_state(torch.ones(2, 1), 0)
        with pytest.raises(ValueError, match=r"state has . with a batch of .* after 1 with \(2,\) at step 0"):
            watch_state(other, 1)
        watch_state(torch.ones(3, 7), 1)
        watch_state(other, 0)
