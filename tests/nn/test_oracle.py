"""Outputs, states and every gradient of every module equal the papers' loops in NumPy to 1e-10."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pack_sequence, unpack_sequence

from gradguard.nn.kernels import KERNELS
from tests.contracts.recurrent import MODULES
from tests.nn import oracle

CASES: dict[str, dict[str, Any]] = {
    "one layer": {},
    "no biases": {"bias": False},
    "stacked": {"num_layers": 2},
    "bidirectional": {"bidirectional": True},
    "projected": {"proj_size": 2},
    "all at once": {"num_layers": 2, "bidirectional": True, "proj_size": 2},
    "H = 1": {"hidden_size": 1},
    "B = 1": {"lengths": (4,)},
    "T = 1": {"lengths": (1, 1)},
    "packed, sorted": {"lengths": (4, 2, 1), "bidirectional": True},
    "packed, unsorted": {"lengths": (2, 4, 1, 4), "bidirectional": True, "num_layers": 2},
    "packed, projected": {"lengths": (1, 3), "proj_size": 2, "bidirectional": True},
    "batch first": {"batch_first": True, "bidirectional": True},
    "unbatched": {"lengths": (3,), "batched": False, "num_layers": 2},
}


@pytest.fixture(params=["eager", "reference"])
def kernel(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("GRADGUARD_KERNEL", request.param)
    return str(request.param)


def given(module: nn.Module, sequences: list[Tensor], *, batch_first: bool, batched: bool) -> Tensor | PackedSequence:
    if not batched:
        return sequences[0]
    if len({len(s) for s in sequences}) > 1:
        return pack_sequence(sequences, enforce_sorted=False)
    return torch.stack(sequences, dim=0 if batch_first else 1)


def each(output: Tensor | PackedSequence, *, batch_first: bool, batched: bool) -> list[Tensor]:
    if isinstance(output, PackedSequence):
        return unpack_sequence(output)
    if not batched:
        return [output]
    return list(output.unbind(0 if batch_first else 1))


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("kind", MODULES)
def test_outputs_states_and_all_gradients_equal_the_oracle(kind: str, case: str, kernel: str) -> None:
    options = {"input_size": 2, "hidden_size": 3, "lengths": (3, 3), "batched": True} | CASES[case]
    lengths, batched = options.pop("lengths"), options.pop("batched")
    form = {"batch_first": options.get("batch_first", False), "batched": batched}
    module = MODULES[kind](**options, dtype=torch.float64)
    with torch.no_grad():
        for param in module.parameters():
            param.copy_(torch.randn(param.shape, dtype=torch.float64) * 0.7)
    directions, count = 2 if options.get("bidirectional") else 1, len(module._layers)
    sequences = [torch.randn(n, 2, dtype=torch.float64, requires_grad=True) for n in lengths]
    widths = options.get("proj_size") or options["hidden_size"], options["hidden_size"]
    states = [torch.randn(count, len(lengths), w, dtype=torch.float64, requires_grad=True) for w in widths]

    hx = tuple(states) if batched else tuple(s[:, 0] for s in states)
    output, last = module(given(module, sequences, **form), hx)
    finals = [s if batched else s.unsqueeze(1) for s in last]
    outputs = each(output, **form)
    weights = [np.random.default_rng(i).normal(size=o.shape) for i, o in enumerate([*outputs, *finals])]

    def numpy_run(point: dict[str, np.ndarray], i: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        layers = [{name: point[full] for name, full in names.items()} for names in module._layers]
        initial = [(point["h"][k, i], point["c"][k, i]) for k in range(count)]
        return oracle.run(kind, point[f"x{i}"], initial, layers, directions)

    def numpy_loss(point: dict[str, np.ndarray]) -> complex:
        total = 0.0
        for i in range(len(lengths)):
            found, h, c = numpy_run(point, i)
            total += (found * weights[i]).sum()
            total += (h * weights[-2][:, i]).sum() + (c * weights[-1][:, i]).sum()
        return total

    leaves = dict(module.named_parameters()) | {"h": states[0], "c": states[1]}
    leaves |= {f"x{i}": s for i, s in enumerate(sequences)}
    point = {name: leaf.detach().numpy() for name, leaf in leaves.items()}
    for i, found in enumerate(outputs):
        expected, h, c = numpy_run(point, i)
        np.testing.assert_allclose(found.detach().numpy(), expected, rtol=1e-10, atol=1e-12)
        np.testing.assert_allclose(finals[0][:, i].detach().numpy(), h, rtol=1e-10, atol=1e-12)
        np.testing.assert_allclose(finals[1][:, i].detach().numpy(), c, rtol=1e-10, atol=1e-12)

    loss = sum((o * torch.from_numpy(w)).sum() for o, w in zip([*outputs, *finals], weights, strict=True))
    grads = torch.autograd.grad(loss, list(leaves.values()))
    for (name, value), grad in zip(oracle.derivatives(numpy_loss, point).items(), grads, strict=True):
        np.testing.assert_allclose(grad.numpy(), value, rtol=1e-10, atol=1e-10, err_msg=name)


def test_every_recurrence_has_both_kernels() -> None:
    assert all(table.keys() >= {"reference", "eager"} for table in KERNELS.values())
