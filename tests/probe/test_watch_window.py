"""Which steps of a watched loop a profile is of: cuts, passes, and what is no window at all."""

from __future__ import annotations

import threading

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from gradguard.probe import watch_state, watching
from tests.probe.loops import F64, IN, B, H, halving


@pytest.mark.parametrize("first", [0, 100, -10])
@pytest.mark.parametrize("is_detached_when_watched", [False, True])
def test_a_truncated_window_is_named_and_is_no_decay(first: int, is_detached_when_watched: bool) -> None:
    h, weight = torch.ones(2, 1, dtype=F64), torch.full((), 0.9, dtype=F64, requires_grad=True)
    with watching() as watched:
        for t in range(first, first + 10):
            h = weight * h
            if t == first + 5 and is_detached_when_watched:
                h = h.detach()
            watch_state(h, t)
            if t == first + 5:
                h = h.detach()
        h.sum().backward()
    (profile,) = watched.profiles()
    assert profile.truncated == first + 6
    assert profile.h.tolist() == pytest.approx([0] * 6 + [2**0.5 * 0.9**k for k in (3, 2, 1, 0)], rel=1e-12)
    assert profile.memory.tolist() == pytest.approx([0.9**k for k in range(4)], rel=1e-12)
    assert (profile.length, profile.horizon) == (4, float("inf"))
    assert f"begins at step {first + 6} with a state without history" in str(profile)


def test_the_window_is_the_last_one_where_a_loss_came_before_the_cut_too() -> None:
    h, weight, kept = torch.ones(2, 1, dtype=F64), torch.full((), 0.5, dtype=F64, requires_grad=True), []
    with watching() as watched:
        for t in range(9):
            h = weight * (h.detach() if t == 5 else h)
            watch_state(h, t)
            kept.append(h)
        (kept[2] + kept[7]).sum().backward()
    (profile,) = watched.profiles()
    assert profile.truncated == 5
    assert profile.memory.tolist() == [1, 0.5, 0.25]
    assert (profile.h > 0).tolist() == [True] * 3 + [False] * 2 + [True] * 3 + [False]


@pytest.mark.parametrize(("start", "truncated"), [(0.0, None), (1.0, 0)])
def test_zeros_that_a_loop_begins_with_are_no_history(start: float, truncated: int | None) -> None:
    h, weight = torch.full((2, 1), start), torch.full((), 0.5, requires_grad=True)
    with watching() as watched:
        watch_state(h, -1)
        for t in range(3):
            h = weight * h + weight
            watch_state(h, t)
        h.sum().backward()
    (profile,) = watched.profiles()
    assert profile.truncated == truncated
    assert profile.memory.tolist() == [1, 0.5, 0.25]


def test_steps_under_no_grad_are_what_the_window_was_cut_off_from() -> None:
    cell, h = nn.GRUCell(IN, H), torch.zeros(B, H)
    with watching() as watched:
        for t, x in enumerate(torch.randn(6, B, IN)):
            with torch.set_grad_enabled(t >= 4):
                h = cell(x, h)
            watch_state(h, t)
        h.sum().backward()
    assert watched.profiles()[0].truncated == 4


def test_the_first_pass_that_gets_a_gradient_counts() -> None:
    with watching() as watched:
        with torch.no_grad():
            halving(range(9))
        for _ in range(3):
            halving(range(8))
        halving(range(3)).sum().backward()
        (3 * halving(range(5))).sum().backward()
    (profile,) = watched.profiles()
    assert profile.memory.tolist() == [1, 0.5, 0.25]


def test_of_two_passes_with_one_loss_the_first_counts() -> None:
    with watching() as watched:
        (halving(range(3)) + halving(range(5))).sum().backward()
    assert len(watched.profiles()[0].h) == 3


def test_a_step_that_is_watched_twice_begins_another_pass() -> None:
    with watching() as watched:
        h = halving([0, 1, 2, 2, 3])
        h.sum().backward()
    (profile,) = watched.profiles()
    assert profile.memory.tolist() == [0.25, 0.125, 0.0625]
    with watching() as watched:
        halving([2, 5, 70]).sum().backward()
    assert watched.profiles()[0].memory.tolist() == [1, 0.5, 0.25]


@pytest.mark.parametrize("idle", [3, 4])
def test_four_passes_are_listened_to_and_a_longer_fifth_does_not_continue_the_fourth(idle: int) -> None:
    with watching() as watched:
        for _ in range(idle):
            halving(range(3))
        h = halving(range(6))
        assert (h._backward_hooks is None) is (idle == 4)
        h.sum().backward()
    assert len(watched.looks()) == (idle == 3)


def test_of_validation_nothing_is_kept() -> None:
    with watching() as watched:
        with torch.no_grad():
            for _ in range(10):
                halving(range(3))
        halving(range(4)).sum().backward()
    assert len(watched.profiles()[0].h) == 4


def test_a_window_ends_where_its_gradient_came() -> None:
    """Truncated back-propagation with a number that goes on: two windows are not one."""
    h, weight = torch.ones(2, 1), torch.full((), 0.5, requires_grad=True)
    with watching() as watched:
        for t in range(8):
            h = weight * h
            watch_state(h, t)
            if t % 4 == 3:
                h.sum().backward()
                h = h.detach()
    (profile,) = watched.profiles()
    assert profile.memory.tolist() == [1, 0.5, 0.25, 0.125]


@pytest.mark.parametrize("reentrant", [False, True])
def test_a_loop_under_checkpointing_is_watched(reentrant: bool) -> None:
    x = torch.full((), 0.5, requires_grad=True)

    def loop(weight: Tensor) -> Tensor:
        h = torch.ones(2, 1)
        for t in range(4):
            h = weight * h
            watch_state(h, t)
        return h.sum()

    with watching() as watched:
        checkpoint(loop, x, use_reentrant=reentrant).backward()
    assert watched.profiles()[0].memory.tolist() == [1, 0.5, 0.25, 0.125]


def test_threads_that_run_the_same_loop_at_once_do_not_mix() -> None:
    made: list[Tensor] = []
    turn = threading.Barrier(2, timeout=30)

    def replica() -> None:
        h = torch.ones(2, 1, requires_grad=True)
        for t in range(4):
            turn.wait()
            h = 0.5 * h
            watch_state(h, t)
        made.append(h)

    with watching() as watched:
        threads = [threading.Thread(target=replica) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        sum(h.sum() for h in made).backward()  # type: ignore[union-attr]
    assert watched.profiles()[0].memory.tolist() == [1, 0.5, 0.25, 0.125]


def test_without_a_gradient_there_is_no_profile() -> None:
    with watching() as watched:
        pass
    assert watched.looks() == []
    with pytest.raises(ValueError, match="nothing was watched"):
        watched.profiles()
    with watching() as watched:
        halving(range(3), name="encoder")
        halving(range(3), name="decoder").sum().backward()
    assert [one.layer for one in watched.looks()] == ["decoder"]
    with pytest.raises(ValueError, match=r"no gradient came to encoder\. Is it detached"):
        watched.profiles()
    with watching() as watched:
        h = halving(range(3))
    h.sum().backward()
    with pytest.raises(ValueError, match=r"backward\(\) called after the watch has stopped"):
        watched.profiles()


def test_a_gradient_of_zeros_is_no_profile() -> None:
    with watching() as watched:
        (0 * halving(range(3))).sum().backward()
    with pytest.raises(ValueError, match="that of h in state is 0 at every step"):
        watched.profiles()


def test_a_window_of_one_step_is_no_profile() -> None:
    h, weight = torch.ones(2, 1), torch.full((), 0.5, requires_grad=True)
    with watching() as watched:
        for t in range(4):
            h = weight * h.detach()
            watch_state(h, t)
        h.sum().backward()
    with pytest.raises(ValueError, match=r"has one step, 3\. Is the state detached at every step"):
        watched.profiles()
    (look,) = watched.looks()
    assert (look.start, bool(look.numbers["cut"])) == (3, True)


def test_a_loop_whose_number_falls_is_told_so() -> None:
    with watching() as watched:
        halving(range(3, -1, -1)).sum().backward()
    with pytest.raises(ValueError, match="does t not rise in the order of the loop"):
        watched.profiles()
