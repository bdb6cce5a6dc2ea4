"""Samples by module against a NumPy loop over the parameters of each."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from gradguard.detect import Block, Layout
from gradguard.detect.block import Role, Samples
from gradguard.guard.modules import by_module, by_parameter
from tests import reference

NORMS = st.one_of(st.just(0.0), st.floats(1e-30, 1e30))
ANY = st.one_of(NORMS, st.floats(1e-250, 1e-150), st.floats(1e150, 1e250))  # whose powers a double does not hold


def block(
    grads: np.ndarray,
    weights: np.ndarray,
    ratios: np.ndarray,
    names: tuple[str, ...],
    *,
    norm_type: float = 2.0,
    sampled: tuple[int, ...] = (),
    overflow: tuple[int, ...] = (),
) -> Block:
    """Steps 11, 12 ...; ``weights`` and ``ratios`` have a row for each sampled one."""
    steps, parameters = grads.shape
    at = torch.arange(11, 11 + steps)
    layers = tuple(name.rpartition(".")[0] for name in names)
    skipped = torch.tensor([step in overflow for step in at.tolist()])
    nan = torch.full((steps,), torch.nan, dtype=torch.float64)
    weights, ratios = torch.tensor(weights), torch.tensor(ratios)
    return Block(
        Layout("optimizer", names, layers, (1,) * parameters, (Role.WEIGHT,) * parameters, norm_type),
        at,
        torch.tensor(grads),
        torch.tensor(grads).norm(dim=1),
        torch.zeros(steps, parameters, dtype=torch.bool),
        torch.ones(parameters, dtype=torch.bool),
        skipped,
        nan,
        torch.zeros(steps, dtype=torch.bool),
        Samples(torch.tensor(sampled, dtype=torch.int64), weights, ratios, torch.zeros_like(weights)),
        torch.zeros(steps, dtype=torch.bool),
    )


@given(st.data(), st.sampled_from([0.5, 1.0, 2.0, 3.0, math.inf]))
def test_each_module_is_the_norm_over_its_own_parameters(data: st.DataObject, norm_type: float) -> None:
    names = tuple(data.draw(st.lists(st.sampled_from("abcde"), min_size=1, max_size=8)))
    names = tuple(f"net.{module}.{i}" for i, module in enumerate(names))
    shape = (2, len(names))
    grads, weights, ratios = (data.draw(hnp.arrays(float, shape, elements=some)) for some in (ANY, NORMS, NORMS))
    ratios = np.where(weights > 0, ratios, np.nan)
    found = by_module(block(grads, weights, ratios, names, norm_type=norm_type, sampled=(11, 12)))
    modules = list(dict.fromkeys(name.rpartition(".")[0] for name in names))
    assert list(found.names) == modules
    assert found.steps.tolist() == [11, 12]
    for column, module in enumerate(modules):
        own = [i for i, name in enumerate(names) if name.startswith(f"{module}.")]
        for row in range(2):
            moved, were = ratios[row, own] * weights[row, own], weights[row, own]
            known = ~np.isnan(ratios[row, own])
            expected = [reference.norm(grads[row, own], norm_type), reference.norm(were, 2)]
            got = [found.grad_norms[row, column].item(), found.weight_norms[row, column].item()]
            assert got == pytest.approx(expected, rel=1e-9)
            ratio = found.update_ratios[row, column].item()
            if known.any():
                of = np.longdouble(moved[known]), np.longdouble(were[known])  # 1e60 squared is beyond a double
                top, bottom = (np.sqrt((x**2).sum()) for x in of)
                assert ratio == pytest.approx(float(top / bottom), rel=1e-9)
            else:
                assert math.isnan(ratio)


def test_sampled_steps_only_and_none_that_was_skipped() -> None:
    grads, names = np.array([[1.0, 2.0], [3.0, 4.0], [5.0, 12.0], [7.0, 8.0]]), ("a.weight", "a.bias")
    samples = np.array([[3.0, 4.0], [6.0, 8.0], [1.0, 0.0]])
    one = block(grads, samples, samples / 100, names, sampled=(11, 13, 14), overflow=(11, 12))
    modules, parameters = by_module(one), by_parameter(one)
    assert modules.steps.tolist() == parameters.steps.tolist() == [13, 14]
    assert modules.grad_norms.tolist() == [[13.0], [pytest.approx(math.hypot(7, 8))]]
    assert modules.weight_norms.tolist() == [[10.0], [1.0]]
    assert modules.update_ratios[:, 0].tolist() == pytest.approx([math.hypot(0.36, 0.64) / 10, 0.01])
    assert parameters.names == names
    assert parameters.grad_norms.tolist() == grads[2:].tolist()
    assert parameters.weight_norms.tolist() == samples[1:].tolist()
    assert parameters.update_ratios.tolist() == (samples[1:] / 100).tolist()


@pytest.mark.parametrize("norm_type", [1.0, 2.0, math.inf])
@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_what_is_not_finite_stays_so_and_spreads_to_no_other_module(norm_type: float, bad: float) -> None:
    names = ("a.weight", "a.bias", "b.weight")
    ones = np.ones((1, 3))
    found = by_module(block(np.array([[bad, 1.0, 2.0]]), ones, ones, names, norm_type=norm_type, sampled=(11,)))
    assert str(found.grad_norms.tolist()) == str([[bad, 2.0]])


def test_a_parameter_of_unknown_update_counts_on_neither_side() -> None:
    ratios = np.array([[0.1, math.nan], [math.nan, math.nan]])
    weights = np.array([[2.0, 100.0], [2.0, 0.0]])
    found = by_module(block(np.ones((2, 2)), weights, ratios, ("a.weight", "a.bias"), sampled=(11, 12)))
    assert found.update_ratios[0].tolist() == [pytest.approx(0.1)]
    assert found.update_ratios[1].isnan().all()


def test_names_that_are_taken_already_step_aside() -> None:
    names = ("total", "mean.weight", "net.max.weight", "max.weight", "clipped.bias", "module.max.weight")
    ones = np.ones((1, len(names)))
    one = block(ones, ones, ones, names, sampled=(11,))
    assert by_parameter(one).names == ("param.total", *names[1:])
    assert by_module(one).names == (
        "_root_",
        "module.mean",
        "net.max",
        "module.module.max",
        "module.clipped",
        "module.max",
    )


def test_no_sample_gives_no_row() -> None:
    found = by_module(block(np.ones((3, 1)), np.ones((0, 1)), np.ones((0, 1)), ("a.weight",)))
    assert found.grad_norms.shape == found.update_ratios.shape == (0, 1)
