"""Outputs, states and every gradient of every module equal the papers' loops in NumPy to 1e-10, with every option."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pack_sequence, unpack_sequence

from gradguard.nn import base
from gradguard.nn import options as family
from gradguard.nn.kernels import KERNELS
from tests.contracts.recurrent import MODULES, as_hx, projected, states_of
from tests.nn import oracle
from tests.nn.kinds import LACKS, VARIANTS

CASES: dict[str, dict[str, Any]] = {
    "one layer": {},
    "no biases": {"bias": False},
    "stacked": {"num_layers": 2},
    "bidirectional": {"bidirectional": True},
    "projected": {"proj_size": 2},
    "all at once": {"num_layers": 2, "bidirectional": True, "proj_size": 2},
    "H = 1": {"hidden_size": 1},
    "I = H": {"input_size": 3},
    "B = 1": {"lengths": (4,)},
    "T = 1": {"lengths": (1, 1)},
    "packed, sorted": {"lengths": (4, 2, 1), "bidirectional": True},
    "packed, unsorted": {"lengths": (2, 4, 1, 4), "bidirectional": True, "num_layers": 2},
    "packed, projected": {"lengths": (1, 3), "proj_size": 2, "bidirectional": True},
    "batch first": {"batch_first": True, "bidirectional": True},
    "unbatched": {"lengths": (3,), "batched": False, "num_layers": 2},
}
OPTIONS: dict[str, dict[str, Any]] = {
    "variational_dropout": {"variational_dropout": 0.4, "bidirectional": True},
    "variational_dropout, packed": {"variational_dropout": 0.4, "lengths": (2, 4), "bidirectional": True},
    "variational_dropout, projected": {"variational_dropout": 0.4, "proj_size": 2, "num_layers": 2},
    "zoneout": {"zoneout": 0.4, "bidirectional": True},
    "zoneout, packed": {"zoneout": 0.4, "lengths": (2, 4), "bidirectional": True},
    "zoneout in evaluation": {"zoneout": 0.4, "training": False},
    "weight_dropout": {"weight_dropout": 0.4, "bidirectional": True},
    "residual": {"residual": True, "num_layers": 3, "bidirectional": True},
    "residual, packed": {"residual": True, "num_layers": 2, "lengths": (2, 4)},
    "all of them": {
        "residual": True,
        "num_layers": 2,
        "variational_dropout": 0.3,
        "zoneout": 0.3,
        "weight_dropout": 0.3,
        "dropout": 0.3,
        "bidirectional": True,
    },
}
KINDS = {name: kind for name, kind in (MODULES | VARIANTS).items() if name in oracle.CELLS}  # one has a loop of its own


def meant(kind: str, case: dict[str, Any]) -> bool:
    """Say whether the cell has what the case asks for."""
    lacks = {*LACKS.get(kind, ()), *(() if projected(KINDS[kind]) else ("proj_size",))}
    return not lacks & case.keys()


PAIRS = [(kind, case) for kind in KINDS for case, options in (CASES | OPTIONS).items() if meant(kind, options)]


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


class Recorder:
    """Notes what a module draws, and hands it to the oracle: masks of inputs and outputs, of weights, of states."""

    def __init__(self, patch: pytest.MonkeyPatch, module: nn.Module, lengths: tuple[int, ...]) -> None:
        self.module, self.lengths = module, lengths
        self.masks: list[Tensor] = []
        self.noise: list[dict[str, Tensor]] = []
        draw, drop = base.noise, base.dropout

        def dropout(x: Tensor, p: float) -> Tensor:
            self.masks.append(drop(torch.ones_like(x), p))
            return x * self.masks[-1]

        def factors(*args: Any) -> Tensor:
            self.masks.append(family.factors(*args))
            return self.masks[-1]

        def noise(*args: Any) -> dict[str, Tensor]:
            self.noise.append(draw(*args))
            return self.noise[-1]

        patch.setattr(base, "dropout", dropout)
        patch.setattr(base, "factors", factors)
        patch.setattr(base, "noise", noise)

    def rows(self, i: int) -> list[int]:
        """Where the steps of a sequence lie among the rows; they are sorted by length, longest first."""
        sizes = [sum(n > t for n in self.lengths) for t in range(max(self.lengths))]
        return [sum(sizes[:t]) + self.rank(i) for t in range(self.lengths[i])]

    def rank(self, i: int) -> int:
        return sorted(range(len(self.lengths)), key=lambda j: -self.lengths[j]).index(i)

    def drawn(self, k: int, i: int) -> oracle.Drawn:
        rates = self.module.recurrence.rates
        if not self.module.training:
            return oracle.Drawn(1.0, rates)
        noise = self.noise[k]
        drop = noise["drop_h"][self.rank(i)].numpy() if "drop_h" in noise else 1.0
        zones = [noise[f"zone_{s}"][self.rows(i)].numpy() if rate else 0.0 for s, rate in enumerate(rates)]
        return oracle.Drawn(drop, tuple(zones))


@pytest.mark.parametrize(("kind", "case"), PAIRS, ids=[f"{kind}-{case}" for kind, case in PAIRS])
def test_outputs_states_and_all_gradients_equal_the_oracle(
    kind: str, case: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = {"input_size": 2, "hidden_size": 3, "lengths": (3, 3), "batched": True} | (CASES | OPTIONS)[case]
    lengths, batched, training = options.pop("lengths"), options.pop("batched"), options.pop("training", True)
    form = {"batch_first": options.get("batch_first", False), "batched": batched}
    module = KINDS[kind](**options, dtype=torch.float64).train(training)
    with torch.no_grad():
        for param in module.parameters():
            param.uniform_(-1.1, 1.1)  # within the bound of an IndRNN
    directions, count = 2 if options.get("bidirectional") else 1, len(module._layers)
    sequences = [torch.randn(n, options["input_size"], dtype=torch.float64, requires_grad=True) for n in lengths]
    widths = module.recurrence.widths(options["hidden_size"], options.get("proj_size", 0))
    states = [torch.randn(count, len(lengths), w, dtype=torch.float64, requires_grad=True) for w in widths]

    hx = as_hx(states) if batched else as_hx(s[:, 0] for s in states)
    leaves = dict(module.named_parameters()) | {f"state{s}": state for s, state in enumerate(states)}
    leaves |= {f"x{i}": s for i, s in enumerate(sequences)}
    runs = []
    for kernel in ("reference", "eager"):
        monkeypatch.setenv("GRADGUARD_KERNEL", kernel)
        torch.manual_seed(1)
        with pytest.MonkeyPatch.context() as patch:
            recorder = Recorder(patch, module, lengths)
            output, last = module(given(module, sequences, **form), hx)
        finals = [s if batched else s.unsqueeze(1) for s in states_of(last)]
        outputs = each(output, **form)
        weights = [np.random.default_rng(i).normal(size=o.shape) for i, o in enumerate([*outputs, *finals])]
        loss = sum((o * torch.from_numpy(w)).sum() for o, w in zip([*outputs, *finals], weights, strict=True))
        runs.append((outputs, finals, torch.autograd.grad(loss, list(leaves.values()))))
    drawn = [[recorder.drawn(k, i) for k in range(count)] for i in range(len(lengths))]
    masks = iter(recorder.masks)
    between: list[list[oracle.Between]] = [[] for _ in lengths]
    of_weights, after = [], []
    for layer in range(count // directions):
        factors = next(masks) if options.get("variational_dropout") and training else None
        of_weights += [next(masks).numpy() if options.get("weight_dropout") else 1.0 for _ in range(directions)]
        last_layer = layer == count // directions - 1
        after.append(next(masks) if options.get("dropout") and not last_layer else None)
        shortcut = module._residuals[layer] if options.get("residual") else None
        for i, gaps in enumerate(between):
            into = 1.0 if factors is None else factors[recorder.rank(i)].numpy()
            out = 1.0 if after[-1] is None else after[-1][recorder.rows(i)].numpy()
            gaps.append(oracle.Between(into, shortcut, out))

    def numpy_run(point: dict[str, np.ndarray], i: int) -> tuple[np.ndarray, list[np.ndarray]]:
        layers = [{name: point[full] for name, full in names.items()} for names in module._layers]
        layers = [p | {"weight_hh": p["weight_hh"] * mask} for p, mask in zip(layers, of_weights, strict=True)]
        initial = [tuple(point[f"state{s}"][k, i] for s in range(len(states))) for k in range(count)]
        return oracle.run(kind, point[f"x{i}"], initial, layers, directions, drawn[i], between[i], point)

    def numpy_loss(point: dict[str, np.ndarray]) -> complex:
        total = 0.0
        for i in range(len(lengths)):
            found, ends = numpy_run(point, i)
            total += (found * weights[i]).sum()
            total += sum((end * w[:, i]).sum() for end, w in zip(ends, weights[len(lengths) :], strict=True))
        return total

    point = {name: leaf.detach().numpy() for name, leaf in leaves.items()}
    slopes = oracle.derivatives(numpy_loss, point)
    for outputs, finals, grads in runs:
        for i, found in enumerate(outputs):
            expected, ends = numpy_run(point, i)
            np.testing.assert_allclose(found.detach().numpy(), expected, rtol=1e-10, atol=1e-12)
            for final, end in zip(finals, ends, strict=True):
                np.testing.assert_allclose(final[:, i].detach().numpy(), end, rtol=1e-10, atol=1e-12)
        for (name, value), grad in zip(slopes.items(), grads, strict=True):
            np.testing.assert_allclose(grad.numpy(), value, rtol=1e-10, atol=1e-10, err_msg=name)


@pytest.mark.parametrize("kind", KINDS)
def test_clamped_gradients_equal_those_found_by_hand(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Through two layers, in both directions, of a packed batch: sequence by sequence."""
    bound, lengths, hidden = 0.03, (2, 4), 5
    options = {"num_layers": 2, "bidirectional": True, "dtype": torch.float64}
    module = KINDS[kind](2, hidden, **options, clip_grad_state=bound)
    with torch.no_grad():
        for param in module.parameters():
            param.uniform_(-1.1, 1.1)
    widths = module.recurrence.widths(hidden, 0)
    states = [torch.randn(4, 2, w, dtype=torch.float64, requires_grad=True) for w in widths]
    sequences = [torch.randn(n, 2, dtype=torch.float64, requires_grad=True) for n in lengths]
    grads = [torch.randn(n, 2 * hidden, dtype=torch.float64) for n in lengths]
    leaves = {"x0": sequences[0], "x1": sequences[1]} | {f"state{i}": s for i, s in enumerate(states)}
    leaves |= dict(module.named_parameters())
    point = {name: leaf.detach().numpy() for name, leaf in leaves.items()}
    layers = [{name: point[full] for name, full in names.items()} for names in module._layers]
    expected = {name: np.zeros(value.shape) for name, value in point.items()}
    was_clamped = False
    for i in range(len(lengths)):
        initial = [tuple(point[f"state{s}"][k, i] for s in range(len(states))) for k in range(4)]
        given = kind, point[f"x{i}"], initial, layers, 2, grads[i].numpy()
        expected[f"x{i}"], found = oracle.clamped_gradients_of_a_stack(*given, bound)
        for k, names in enumerate(module._layers):
            for name, full in names.items():
                expected[full] += found[k][name]
            for s in range(len(states)):
                expected[f"state{s}"][k, i] = found[k][f"state{s}"]
        free = oracle.clamped_gradients_of_a_stack(*given, np.inf)[1]
        was_clamped |= not np.allclose(free[0]["weight_hh"], found[0]["weight_hh"])
    assert was_clamped
    for kernel in ("reference", "eager"):
        monkeypatch.setenv("GRADGUARD_KERNEL", kernel)
        output, _ = module(pack_sequence(sequences, enforce_sorted=False), as_hx(states))
        found_by_it = torch.autograd.grad(unpack_sequence(output), list(leaves.values()), grads)
        for name, value in zip(leaves, found_by_it, strict=True):
            np.testing.assert_allclose(value.numpy(), expected[name], rtol=1e-10, atol=1e-10, err_msg=name)


def test_every_module_but_the_one_that_couples_sequences_is_here() -> None:
    assert MODULES.keys() - KINDS.keys() == {"BatchNormLSTM"}


def test_every_recurrence_has_both_kernels() -> None:
    assert all(table.keys() >= {"reference", "eager"} for table in KERNELS.values())
