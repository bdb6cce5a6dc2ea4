"""Gradients through time in loops of one's own, against ``torch.autograd.grad`` and against the fused module."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import gradguard.nn as gnn
from gradguard import probe
from gradguard.probe import watch_state, watching
from tests.probe.loops import F64, IN, B, H, T, halving, run


def norms(grads: Sequence[Tensor | None]) -> list[float]:
    return [0.0 if g is None else float(g.double().square().sum().sqrt()) for g in grads]


@pytest.mark.parametrize(
    ("cell", "carries_c"),
    [(nn.LSTMCell, True), (nn.GRUCell, False), (nn.RNNCell, False), (gnn.LayerNormLSTMCell, True)],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_norms_are_those_of_autograd_with_respect_to_each_state(cell: type, carries_c: bool) -> None:
    made, x = cell(IN, H).double(), torch.randn(T, B, IN, dtype=F64)
    with watching() as watched:
        passed = run(made, x, carries_c=carries_c)
        loss = passed[-1][0].square().sum() + passed[3][0].sum()
        loss.backward(retain_graph=True)
    (profile,) = watched.profiles()
    for k, found in enumerate([profile.h, profile.c][: 1 + carries_c]):
        states = [step[k] for step in passed]
        assert found is not None
        grads = torch.autograd.grad(loss, states, retain_graph=True, allow_unused=True)
        assert found.tolist() == pytest.approx(norms(grads), rel=1e-12, abs=0)
        if k == carries_c:  # all sequences end at the last step, so that a lag is a step
            expected = [value / B**0.5 for value in reversed(norms(grads))]
            assert profile.memory.tolist() == pytest.approx(expected, rel=1e-12)
    assert (profile.c is None) is not carries_c
    assert (profile.layer, profile.length, profile.truncated, profile.gate_grads) == ("state", T, None, {})
    assert profile.sequences.tolist() == [B] * T


def test_a_formula_of_ones_own_that_adds_to_its_state_is_measured_before_autograd_adds_to_the_gradient() -> None:
    h = torch.zeros(B, H, dtype=F64, requires_grad=True)
    weight, kept = torch.randn(H, H, dtype=F64, requires_grad=True), [h]
    with watching() as watched:
        watch_state(h, 0)
        for t in range(1, T):
            h = h + torch.tanh(h @ weight + 1) + 0.1 * h
            watch_state(h, t)
            kept.append(h)
        for _ in range(2):
            h.square().sum().backward(retain_graph=True)
    (profile,) = watched.profiles()
    grads = torch.autograd.grad(2 * h.square().sum(), kept)
    assert profile.h.tolist() == pytest.approx(norms(grads), rel=1e-12)


def test_an_lstm_cell_in_a_loop_has_the_profile_of_the_lstm_with_its_weights() -> None:
    lstm, cell, x = nn.LSTM(IN, H).double(), nn.LSTMCell(IN, H).double(), torch.randn(20, B, IN, dtype=F64)
    cell.load_state_dict({name.removesuffix("_l0"): value for name, value in lstm.state_dict().items()})
    (module,) = probe.through_time(lstm, x, lambda model, batch: model(batch)[0][-1].square().sum())
    with watching() as watched:
        run(cell, x)[-1][0].square().sum().backward()
    (loop,) = watched.profiles()
    assert module.c is not None
    assert loop.c is not None
    assert torch.allclose(loop.h, module.h, rtol=1e-12, atol=0)
    assert torch.allclose(loop.c, module.c, rtol=1e-12, atol=0)
    assert torch.allclose(loop.memory, module.memory, rtol=1e-12, atol=0)
    assert loop.decay == pytest.approx(module.decay, rel=1e-9)
    assert (loop.length, loop.share) == pytest.approx((module.length, module.share))
    assert (loop.is_total, loop.is_at_end) == (True, False)  # where the loss is can't be seen
    assert loop.sequences.tolist() == module.sequences.tolist()


def test_each_sequence_counts_its_lags_from_its_own_end() -> None:
    kept = []
    with watching() as watched:
        h = torch.ones(2, 1, dtype=F64, requires_grad=True)
        for t in range(5):
            h = torch.tensor([[0.5], [0.1]], dtype=F64) * h
            watch_state(h, t)
            kept.append(h)
        (kept[4][0] + kept[2][1]).sum().backward()
    (profile,) = watched.profiles()
    by_lag = [2**0.5, (0.5**2 + 0.1**2) ** 0.5, (0.5**4 + 0.1**4) ** 0.5]
    assert profile.memory.tolist() == pytest.approx([value / 2**0.5 for value in by_lag] + [0.5**3, 0.5**4], rel=1e-12)
    assert profile.sequences.tolist() == [2, 2, 2, 1, 1]
    assert profile.length == 4
    assert profile.h.tolist() == pytest.approx(
        [(0.5**8 + 0.1**4) ** 0.5, (0.5**6 + 0.1**2) ** 0.5, (0.5**4 + 1) ** 0.5, 0.5, 1.0], rel=1e-12
    )


def shrinking(lengths: Sequence[int], x_TBI: Tensor, cell: nn.Module) -> Tensor:
    """Run a loop as over a packed sequence, the longest first, and sum up the last state of each."""
    h = c = x_TBI.new_zeros(len(lengths), H)
    lasts = []
    for t in range(lengths[0]):
        n = sum(length > t for length in lengths)
        lasts += [h[n:]]
        h, c = cell(x_TBI[t, :n], (h[:n], c[:n]))
        watch_state((h, c), t)
    return torch.cat([*lasts, h]).square().sum()


def test_a_batch_may_shrink_over_the_steps() -> None:
    lstm, cell = nn.LSTM(IN, H).double(), nn.LSTMCell(IN, H).double()
    cell.load_state_dict({name.removesuffix("_l0"): value for name, value in lstm.state_dict().items()})
    x, lengths = torch.randn(6, 3, IN, dtype=F64), [6, 4, 1]
    packed = nn.utils.rnn.pack_padded_sequence(x, torch.tensor(lengths))
    (module,) = probe.through_time(lstm, packed, lambda model, batch: model(batch)[1][0].square().sum())
    with watching() as watched:
        shrinking(lengths, x, cell).backward()
    (loop,) = watched.profiles()
    assert module.c is not None
    assert loop.c is not None
    assert torch.allclose(loop.h, module.h, rtol=1e-12, atol=0)
    assert torch.allclose(loop.c, module.c, rtol=1e-12, atol=0)
    assert torch.allclose(loop.memory, module.memory, rtol=1e-12, atol=0)
    assert loop.sequences.tolist() == module.sequences.tolist() == [3, 2, 2, 2, 1, 1]
    assert loop.length == pytest.approx(11 / 3)


def test_of_a_fused_cell_lags_count_from_the_end_that_h_alone_has() -> None:
    c = torch.ones(2, 1, dtype=F64, requires_grad=True)
    with watching() as watched:
        for t in range(4):
            h, c = 0.5 * c, 0.5 * c  # neither goes through the other, as where both come out of one kernel
            watch_state((h, c), t)
        h.sum().backward()
    (profile,) = watched.profiles()
    assert profile.memory.tolist() == [0, 0.5, 0.25, 0.125]
    assert profile.h.tolist() == [0, 0, 0, 2**0.5]
    assert profile.decay.growth == 1


@pytest.mark.parametrize("shape", [(1,), (2, 1), (4, 2, 1)])
def test_any_number_of_leading_dimensions_is_rows(shape: tuple[int, ...]) -> None:
    with watching() as watched:
        h = torch.ones(shape, dtype=F64, requires_grad=True)
        for t in range(3):
            h = 0.5 * h
            watch_state((h,), t)
        h.sum().backward()
    (profile,) = watched.profiles()
    assert profile.memory.tolist() == [1, 0.5, 0.25]
    assert profile.sequences.tolist() == [h.numel()] * 3
    assert profile.h.tolist() == pytest.approx([value * h.numel() ** 0.5 for value in (0.25, 0.5, 1)])


def test_gradients_of_two_losses_add_up() -> None:
    def twice(loss: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]) -> tuple[Any, Any]:
        torch.manual_seed(3)
        cell, x = nn.LSTMCell(IN, H).double(), torch.randn(T, B, IN, dtype=F64)
        with watching() as apart:
            passed = run(cell, x)
            first, second = loss(passed[-1][0], passed[-1][1])
            first.backward(retain_graph=True)
            second.backward(create_graph=True)
        with watching() as at_once:
            passed = run(cell, x)
            sum(loss(passed[-1][0], passed[-1][1])).backward()  # type: ignore[union-attr]
        return apart.profiles()[0], at_once.profiles()[0]

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Using backward", UserWarning)  # of create_graph, once a process
        apart, at_once = twice(lambda h, c: (h.square().sum(), c.sum()))
    assert torch.allclose(apart.h, at_once.h, rtol=1e-12, atol=0)
    assert torch.allclose(apart.c, at_once.c, rtol=1e-12, atol=0)
    assert torch.allclose(apart.memory, at_once.memory, rtol=1e-12, atol=0)


def test_bfloat16_under_autocast_is_summed_up_in_float64() -> None:
    cell, x = nn.GRUCell(IN, H), torch.randn(T, B, IN)
    with watching() as watched, torch.autocast("cpu", dtype=torch.bfloat16):
        passed = run(cell, x, carries_c=False)
        h = passed[-1][0].to(torch.bfloat16)
        watch_state(h, T)
        h.float().square().sum().backward(retain_graph=True)
        (profile,) = watched.profiles()
    grads = torch.autograd.grad(h.float().square().sum(), [*(step[0] for step in passed), h])
    assert grads[-1].dtype == torch.bfloat16
    assert profile.h.tolist() == pytest.approx(norms(grads), rel=1e-12)


def test_small_and_complex_gradients_are_measured_as_they_are() -> None:
    h = torch.ones(1, 2, dtype=torch.complex64, requires_grad=True)
    with watching() as watched:
        for t in range(3):
            h = (0.3 + 0.4j) * h
            watch_state(h, t)
        (h.abs().sum() * 1e-30).backward()  # whose square is 0 in float32
    expected = [2**0.5 * 1e-30 * 0.5**k for k in range(3)]
    assert watched.profiles()[0].memory.tolist() == pytest.approx(expected, rel=1e-6)


def test_summing_up_reads_nothing_on_the_host() -> None:
    h, weight = torch.zeros(3, 4, device="meta"), torch.empty(4, 4, device="meta", requires_grad=True)
    with watching() as watched:
        watch_state((h, h), -1)
        for t in range(5):
            h = torch.tanh(h[: 3 - t // 2] @ weight)
            watch_state((h, 2 * h), t)
        h.sum().backward()
        (look,) = watched.looks()
    assert {name: tuple(value.shape) for name, value in look.numbers.items()} == {
        "outside": (),
        "sequences": (5,),
        "length": (),
        "total": (5,),
        "gates": (0, 6),
        "cut": (),
        "h": (6,),
        "c": (6,),
    }


def test_a_gradient_that_is_not_finite_is_not_taken_for_zero() -> None:
    with watching() as watched:
        (halving(range(3)) * float("nan")).sum().backward()
    (profile,) = watched.profiles()
    assert profile.memory.isnan().all()
    assert profile.sequences.tolist() == [2, 2, 2]


def test_several_loops_have_a_profile_each_in_their_order() -> None:
    with watching() as watched:
        h = halving(range(3), name="encoder")
        for t in range(4):
            h = 0.1 * h
            watch_state(h, t, name="decoder")
        h.sum().backward()
    encoder, decoder = watched.profiles()
    assert (encoder.layer, decoder.layer) == ("encoder", "decoder")
    assert decoder.memory.tolist() == pytest.approx([1, 0.1, 0.01, 0.001])
    assert encoder.memory.tolist() == pytest.approx([1e-4, 0.5e-4, 0.25e-4])
    assert [one.layer for one in watched.looks()] == ["encoder", "decoder"]
