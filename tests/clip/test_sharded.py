"""Two gloo processes: sharded gradients are clipped as whole ones, the same on both ranks."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.multiprocessing as mp
from torch import nn

from gradguard.clip import AGC, PerModule
from tests.clip import workers
from tests.clip.workers import CLIPPERS, POISON, SPIKE, STEPS

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]

Found = list[dict[str, Any]]


def spawn(worker: Callable[[int, int, str], None], folder: Path) -> Found:
    mp.spawn(worker, args=(2, str(folder)), nprocs=2)
    return [torch.load(folder / f"{rank}.pt") for rank in range(2)]


@pytest.fixture(scope="module", params=["fsdp2", "placements"])
def found(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Found:
    return spawn(getattr(workers, request.param), tmp_path_factory.mktemp(request.param))


@pytest.fixture(scope="module")
def right() -> dict[str, Any]:
    return workers.unsharded()


@pytest.mark.parametrize("kind", CLIPPERS)
def test_gradients_and_numbers_equal_those_of_the_unsharded_model(
    kind: str, found: Found, right: dict[str, Any]
) -> None:
    for rank in found:
        for step, (here, there) in enumerate(zip(rank[kind]["steps"], right[kind]["steps"], strict=True)):
            assert bool(here["finite"]) == (step != POISON)
            for number in ("norm", "coefficient"):
                torch.testing.assert_close(
                    here[number].double(),
                    there[number].double(),
                    rtol=1e-5,
                    atol=0,
                    equal_nan=True,
                    msg=f"{number} {step}",
                )
            for name, grad in there["grads"].items():
                torch.testing.assert_close(
                    here["grads"][name],
                    grad,
                    rtol=1e-5,
                    atol=1e-9,
                    equal_nan=True,
                    msg=lambda m, n=name, s=step: f"{n} {s}: {m}",
                )


@pytest.mark.parametrize("kind", CLIPPERS)
def test_both_ranks_decide_the_same_and_learn_the_same(kind: str, found: Found) -> None:
    """Whatever they hold themselves, and though only one of them holds the NaN."""
    first, second = (rank[kind] for rank in found)
    assert first["state"] == second["state"]
    for step in range(STEPS):
        here, there = first["steps"][step], second["steps"][step]
        for number in ("norm", "coefficient", "finite", "clipped"):
            assert torch.equal(here[number].nan_to_num(), there[number].nan_to_num()), f"{number} at {step}"
        for name, grad in here["grads"].items():
            assert torch.equal(grad.nan_to_num(), there["grads"][name].nan_to_num()), f"{name} at {step}"


@pytest.mark.parametrize("kind", CLIPPERS)
def test_the_spike_was_clipped(kind: str, right: dict[str, Any]) -> None:
    assert right[kind]["steps"][SPIKE]["coefficient"] < 0.95
    assert not right[kind]["steps"][POISON]["finite"]


def test_gradients_that_are_not_summed_up_are_clipped_right_or_refused(tmp_path: Path) -> None:
    for rank in spawn(workers.unreduced, tmp_path):
        for kind in ("norm", "value", "agc", "adagc", "band"):
            param = nn.Parameter(rank["weight"])
            param.grad = rank["grad"].clone()
            PerModule({"*": AGC(0.02, exclude=()) if kind == "agc" else CLIPPERS[kind]()}).clip_([("weight", param)])
            if isinstance(rank[kind], str):
                assert "Partial" in rank[kind]
            else:
                torch.testing.assert_close(
                    rank[kind], param.grad, rtol=1e-5, atol=1e-8, msg=lambda m, k=kind: f"{k}: {m}"
                )
