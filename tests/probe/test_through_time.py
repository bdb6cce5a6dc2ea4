"""The gradient through time of every module equals that of an unrolled loop, in all forms and with all options."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from gradguard.nn.kernels import eager
from gradguard.probe import Profile
from tests.nn.kinds import LAYERS, VARIANTS
from tests.probe.calls import CASES, DRAWN_BY_TORCH, KINDS, OF_TORCH, OPTIONS, called, meant
from tests.probe.expected import Expected, expected

FEW = "both directions, packed", "zoneout", "all of them"
PAIRS = [
    (kind, name)
    for kind in KINDS
    for name, case in (CASES | (DRAWN_BY_TORCH if kind in OF_TORCH else OPTIONS)).items()
    if meant(kind, case) and (name in FEW or (kind not in VARIANTS and not kind.endswith(", eps")))
]


def close(found: Tensor | None, right: np.ndarray | None, what: str) -> None:
    assert (found is None) == (right is None), what
    if found is None or right is None:
        return
    assert found.dtype == torch.float64
    np.testing.assert_allclose(found.numpy(), right, rtol=1e-10, atol=1e-10 * right.max(initial=1e-9), err_msg=what)


def same(found: Profile, right: Expected) -> None:
    assert found.layer == right.layer
    close(found.h, right.h, "h")
    close(found.c, right.c, "c")
    assert list(found.gate_grads) == list(right.gates)
    for gate, norms in right.gates.items():
        close(found.gate_grads[gate], norms, f"gate {gate}")
    assert found.is_at_end == right.is_at_end
    assert found.length == right.length
    assert found.sequences.tolist() == right.sequences.tolist()
    close(found.memory, right.memory, "memory")


@pytest.mark.parametrize(("kind", "case"), PAIRS, ids=[f"{kind}-{case}" for kind, case in PAIRS])
def test_every_norm_equals_that_of_an_unrolled_loop(kind: str, case: str) -> None:
    how = (CASES | DRAWN_BY_TORCH | OPTIONS)[case]
    call = called(kind, how)
    right = expected(call.unrolled, call.loss)
    module = call.heard.module
    assert len(call.profiles) == len(right) == module.num_layers * (2 if module.bidirectional else 1)
    assert all(of.h.any() and len(of.gates) for of in right)
    for found, of in zip(call.profiles, right, strict=True):
        same(found, of)
        assert found.truncated == (0 if how.hx else None)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in VARIANTS])
def test_long_sequences_go_by_chunks(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(eager, "ENTRIES", 64)  # rows for a step or two
    test_every_norm_equals_that_of_an_unrolled_loop(kind, "both directions, packed")


def test_every_module_is_here() -> None:
    assert {kind for kind, _ in PAIRS} == KINDS.keys() >= LAYERS.keys()
