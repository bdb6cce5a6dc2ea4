"""The batch-normalised LSTM against a loop over whole batches in NumPy, and what it remembers for evaluation."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.multiprocessing as mp
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_sequence, unpack_sequence

from gradguard import nn as gnn
from gradguard.nn import base
from gradguard.nn import options as family
from tests.nn import batch_norm_workers
from tests.nn.oracle import derivatives
from tests.nn.oracle_cells import Params, bias, projected, sigmoid

EPS = 1e-5
CASES: dict[str, dict[str, Any]] = {
    "one layer": {},
    "no biases": {"bias": False},
    "stacked, both directions": {"num_layers": 2, "bidirectional": True},
    "projected": {"proj_size": 1, "bidirectional": True},
    "packed": {"lengths": (2, 4, 3), "bidirectional": True, "num_layers": 2},
    "packed, one sequence outlasts all others": {"lengths": (2, 4, 1)},
    "H = 1": {"hidden_size": 1},
    "zoneout": {"zoneout": 0.4, "lengths": (3, 2, 3)},
    "variational_dropout": {"variational_dropout": 0.4, "num_layers": 2},
}


Row = tuple[np.ndarray, np.ndarray]


def moments_of(rows: np.ndarray, given: Row | None, before: Row | None) -> Row:
    """Over the rows of a batch; of a single one, those of the step before, which are constants: a real part is one."""
    if given is not None:
        return given
    if len(rows) < 2 and before is not None:
        return before[0].real, before[1].real
    mean = rows.sum(0) / len(rows)
    return mean, ((rows - mean) ** 2).sum(0) / len(rows)


def normed(rows: np.ndarray, by: Row, gain: np.ndarray) -> np.ndarray:
    """Equation 4."""
    return gain * (rows - by[0]) / np.sqrt(by[1] + EPS)


def layer(
    xs: list[np.ndarray],
    h0: np.ndarray,
    c0: np.ndarray,
    p: Params,
    given: dict[str, np.ndarray] | None = None,
    drop: np.ndarray | float = 1.0,
    zones: tuple[Any, Any] = (None, None),
) -> tuple[list[np.ndarray], np.ndarray, np.ndarray]:
    """Equations 6 to 8, step by step, over those sequences that have not ended."""
    h, c, outputs = list(h0), list(c0), [[] for _ in xs]
    factors, by = np.broadcast_to(np.asarray(drop), h0.shape), dict[str, Row]()
    for t in range(max(map(len, xs))):
        active = [i for i, x in enumerate(xs) if t < len(x)]
        old_h, old_c = np.array([h[i] for i in active]), np.array([c[i] for i in active])
        at = {n: None if given is None else (given[f"mean_{n}"][t], given[f"var_{n}"][t]) for n in ("ih", "hh", "c")}
        of_x = np.array([xs[i][t] for i in active]) @ p["weight_ih"].T
        of_h = (old_h * factors[active]) @ p["weight_hh"].T
        for name, rows in (("ih", of_x), ("hh", of_h)):
            by[name] = moments_of(rows, at[name], by.get(name))
        gates = normed(of_x, by["ih"], p["gain_ih"]) + normed(of_h, by["hh"], p["gain_hh"]) + bias(p)
        i_, f, g, o = np.split(gates, 4, axis=1)
        new_c = sigmoid(f) * old_c + sigmoid(i_) * np.tanh(g)
        by["c"] = moments_of(new_c, at["c"], by.get("c"))
        m = sigmoid(o) * np.tanh(normed(new_c, by["c"], p["gain_c"]) + p.get("bias_c", 0.0))
        new_h = np.array([projected(row, p) for row in m])
        for row, i in enumerate(active):
            keep_h, keep_c = (0.0 if zone is None else zone[i][t] for zone in zones)
            h[i] = keep_h * old_h[row] + (1 - keep_h) * new_h[row]
            c[i] = keep_c * old_c[row] + (1 - keep_c) * new_c[row]
            outputs[i].append(h[i])
    return [np.array(each) for each in outputs], np.array(h), np.array(c)


def given_to(sequences: list[Tensor]) -> Any:
    even = len({len(s) for s in sequences}) == 1
    return torch.stack(sequences, 1) if even else pack_sequence(sequences, enforce_sorted=False)


def each_of(output: Any) -> list[Tensor]:
    return list(output.unbind(1)) if isinstance(output, Tensor) else unpack_sequence(output)


class Recorder:
    """Notes what a module draws, in the user's order of the sequences."""

    def __init__(self, patch: pytest.MonkeyPatch, lengths: tuple[int, ...]) -> None:
        self.order = sorted(range(len(lengths)), key=lambda j: -lengths[j])
        self.lengths, self.noise, self.masks = lengths, [], []
        draw, drop = base.noise, base.dropout

        def factors(*args: Any) -> Tensor:
            self.masks.append(family.factors(*args))
            return self.masks[-1]

        def noise(*args: Any) -> dict[str, Tensor]:
            self.noise.append(draw(*args))
            return self.noise[-1]

        def dropout(x: Tensor, p: float) -> Tensor:
            self.masks.append(drop(torch.ones_like(x), p))
            return x * self.masks[-1]

        patch.setattr(base, "noise", noise)
        patch.setattr(base, "dropout", dropout)
        patch.setattr(base, "factors", factors)

    def by_sequence(self, each: Tensor) -> np.ndarray:
        found = np.empty(each.shape)
        found[self.order] = each.numpy()
        return found

    def by_step(self, rows: Tensor) -> list[np.ndarray]:
        sizes = [sum(n > t for n in self.lengths) for t in range(max(self.lengths))]
        starts = [sum(sizes[:t]) for t in range(len(sizes))]
        rank = {i: r for r, i in enumerate(self.order)}
        return [rows[[starts[t] + rank[i] for t in range(n)]].numpy() for i, n in enumerate(self.lengths)]


@pytest.mark.parametrize("training", [True, False], ids=["training", "evaluation"])
@pytest.mark.parametrize("case", CASES)
def test_it_equals_a_loop_over_batches(case: str, training: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    options = {"hidden_size": 2, "lengths": (3, 3, 3)} | CASES[case]
    lengths = options.pop("lengths")
    module = gnn.BatchNormLSTM(2, **options, dtype=torch.float64, max_steps=3)
    with torch.no_grad():
        for param in module.parameters():
            param.copy_(torch.randn(param.shape, dtype=torch.float64))
        for name, buffer in module.named_buffers():
            if not name.endswith("batches"):
                buffer.copy_(torch.rand(buffer.shape, dtype=torch.float64) + 0.5)
            else:
                buffer.copy_(torch.tensor([3, 2, 0]))  # the third step was never seen
    module.train(training)
    directions, count = 2 if options.get("bidirectional") else 1, len(module._layers)
    sequences = [torch.randn(n, 2, dtype=torch.float64, requires_grad=True) for n in lengths]
    widths = module.recurrence.widths(options["hidden_size"], options.get("proj_size", 0))
    states = [torch.randn(count, len(lengths), w, dtype=torch.float64, requires_grad=True) for w in widths]
    leaves = dict(module.named_parameters()) | {"h": states[0], "c": states[1]}
    leaves |= {f"x{i}": s for i, s in enumerate(sequences)}
    remembered = {name: buffer.clone().numpy() for name, buffer in module.named_buffers()}
    seen = np.minimum(np.arange(5), 1)
    runs, recorder = [], None
    for kernel in ("reference", "eager"):
        monkeypatch.setenv("GRADGUARD_KERNEL", kernel)
        torch.manual_seed(2)
        with pytest.MonkeyPatch.context() as patch:
            recorder = Recorder(patch, lengths)
            output, last = module(given_to(sequences), tuple(states))
        outputs = each_of(output)
        weights = [np.random.default_rng(i).normal(size=o.shape) for i, o in enumerate([*outputs, *last])]
        loss = sum((o * torch.from_numpy(w)).sum() for o, w in zip([*outputs, *last], weights, strict=True))
        runs.append((outputs, last, torch.autograd.grad(loss, list(leaves.values()))))
    masks = iter(recorder.masks)
    into = [
        recorder.by_sequence(next(masks)) if options.get("variational_dropout") and training else np.ones((3, 1))
        for _ in range(count // directions)
    ]

    def numpy_run(point: dict[str, np.ndarray]) -> tuple[list[np.ndarray], np.ndarray, np.ndarray]:
        rows = [point[f"x{i}"] for i in range(len(lengths))]
        ends_h, ends_c = [], []
        for first in range(0, count, directions):
            joined = []
            for k in range(first, first + directions):
                p = {name: point[full] for name, full in module._layers[k].items()}
                xs = [x * f for x, f in zip(rows, into[first // directions], strict=True)]
                xs = [x[::-1] for x in xs] if k > first else xs
                where = module._statistics[k]
                given = {n.split(".")[1]: b[seen] for n, b in remembered.items() if n.startswith(f"{where}.m")}
                given |= {n.split(".")[1]: b[seen] for n, b in remembered.items() if n.startswith(f"{where}.v")}
                rate = options.get("zoneout", 0.0)
                drop, zones = 1.0, tuple([np.full((n, 1), rate) for n in lengths] for _ in range(2))
                if training:
                    noise = recorder.noise[k]
                    drop = recorder.by_sequence(noise["drop_h"]) if "drop_h" in noise else 1.0
                    zones = tuple(recorder.by_step(noise[f"zone_{s}"]) if rate else None for s in range(2))
                found, h, c = layer(xs, point["h"][k], point["c"][k], p, None if training else given, drop, zones)
                joined.append([o[::-1] for o in found] if k > first else found)
                ends_h.append(h)
                ends_c.append(c)
            rows = [np.concatenate(pair, axis=1) for pair in zip(*joined, strict=True)]
        return rows, np.array(ends_h), np.array(ends_c)

    def numpy_loss(point: dict[str, np.ndarray]) -> complex:
        found, h, c = numpy_run(point)
        return sum((o * w).sum() for o, w in zip([*found, h, c], weights, strict=True))

    point = {name: leaf.detach().numpy() for name, leaf in leaves.items()}
    expected, h, c = numpy_run(point)
    slopes = derivatives(numpy_loss, point)
    for outputs, last, grads in runs:
        for found, right in zip([*outputs, *last], [*expected, h, c], strict=True):
            np.testing.assert_allclose(found.detach().numpy(), right, rtol=1e-9, atol=1e-10)
        for (name, value), grad in zip(slopes.items(), grads, strict=True):
            np.testing.assert_allclose(grad.numpy(), value, rtol=1e-8, atol=1e-9, err_msg=name)


def two_batches(momentum: float | None) -> tuple[gnn.BatchNormLSTM, list[Tensor]]:
    module = gnn.BatchNormLSTM(2, 3, max_steps=3, momentum=momentum, dtype=torch.float64)
    batches = [torch.randn(5, 4, 2, dtype=torch.float64), torch.randn(2, 6, 2, dtype=torch.float64)]
    for batch in batches:
        module(batch)
    return module, [batch @ module.weight_ih_l0.detach().t() for batch in batches]


@pytest.mark.parametrize(("momentum", "share"), [(0.1, 0.1), (None, 0.5)])
def test_statistics_follow_the_batches_of_each_step(momentum: float | None, share: float) -> None:
    module, (first, second) = two_batches(momentum)
    statistics = module.statistics_l0
    assert statistics.batches.tolist() == [2, 2, 1]  # the second batch had two steps, and there is room for three
    for step in range(3):
        mean, var = first[step].mean(0), first[step].var(0)
        if step < 2:
            mean, var = mean.lerp(second[step].mean(0), share), var.lerp(second[step].var(0), share)
        torch.testing.assert_close(statistics.mean_ih[step], mean, rtol=1e-12, atol=1e-14)
        torch.testing.assert_close(statistics.var_ih[step], var, rtol=1e-12, atol=1e-14)


def test_the_mean_over_all_batches_is_exact() -> None:
    module = gnn.BatchNormLSTM(2, 3, momentum=None, dtype=torch.float64)
    batches = [torch.randn(1, 5, 2, dtype=torch.float64) for _ in range(3)]
    for batch in batches:
        module(batch)
    mean = torch.stack([batch[0].mean(0) for batch in batches]).mean(0) @ module.weight_ih_l0.detach().t()
    torch.testing.assert_close(module.statistics_l0.mean_ih[0], mean, rtol=1e-12, atol=1e-14)


def test_population_statistics_are_the_mean_over_batches_with_the_weights_as_they_are() -> None:
    module = gnn.BatchNormLSTM(2, 3, num_layers=2, bidirectional=True, dtype=torch.float64).eval()
    twin = copy.deepcopy(module).train()
    batches = torch.randn(4, 5, 6, 2, dtype=torch.float64)
    with module.population_statistics():
        for batch in batches:
            assert not module(batch)[0].requires_grad
    assert not module.training
    rows = {name: [] for name, _ in module.named_buffers() if "batches" not in name}
    for batch in batches:
        for name in module._statistics:
            getattr(twin, name).reset_parameters()
        twin(batch)
        for name, buffer in twin.named_buffers():
            rows.get(name, []).append(buffer[:5].clone())
    for name, seen in rows.items():
        torch.testing.assert_close(module.get_buffer(name)[:5], torch.stack(seen).mean(0), rtol=1e-12, atol=1e-14)
    assert [getattr(module, name).momentum for name in module._statistics] == [0.1] * 4
    assert module(batches[0])[0].isfinite().all()


def test_population_statistics_are_those_of_before_where_something_goes_wrong() -> None:
    module = gnn.BatchNormLSTM(2, 3)
    module(torch.randn(4, 5, 2))
    before = copy.deepcopy(module.state_dict())

    def two_batches_of_which_one_is_too_small() -> None:
        for size in (5, 1):
            module(torch.randn(4, size, 2))

    with pytest.raises(ValueError, match="more than one sequence"), module.population_statistics():
        two_batches_of_which_one_is_too_small()
    assert all(value.equal(before[name]) for name, value in module.state_dict().items())
    assert module.training
    assert module.statistics_l0.momentum == 0.1


def test_the_last_steps_of_the_longest_sequence_train_on_it() -> None:
    """Its variance alone would be 0, and nothing of it would be left."""
    module = gnn.BatchNormLSTM(2, 3)
    x = torch.randn(4, 2, requires_grad=True)
    _, (h, _) = module(pack_sequence([x, torch.randn(2, 2)]))
    (grad,) = torch.autograd.grad(h[0, 0].sum(), x)
    assert bool(grad[3].any())


def test_statistics_stay_wide_and_are_found_where_other_hands_put_them() -> None:
    module = gnn.BatchNormLSTM(2, 3)
    copied = copy.deepcopy(module).eval()
    module(torch.randn(4, 5, 2))
    for mine, theirs in zip(copied.buffers(), module.buffers(), strict=True):
        mine.copy_(theirs)
    assert copied(torch.randn(4, 1, 2))[0].isfinite().all()
    state = {**dict(module.named_parameters()), **dict(module.named_buffers())}
    fresh = gnn.BatchNormLSTM(2, 3).eval()
    assert torch.func.functional_call(fresh, state, (torch.randn(4, 1, 2),))[0].isfinite().all()
    assert {b.dtype for b in module.bfloat16().buffers()} == {torch.float32, torch.int64}
    assert {b.dtype for b in module.double().buffers()} == {torch.float64, torch.int64}


def test_steps_that_a_cell_left_out_take_those_of_a_step_that_it_took() -> None:
    cell = gnn.BatchNormLSTMCell(2, 3, max_steps=6)
    for step in (1, 4):
        cell(torch.randn(5, 2), step=step)
    rows = cell.eval().statistics.at(0, 9)["mean_ih"]
    kept = cell.statistics.mean_ih
    assert [next(k for k in (1, 4) if row.equal(kept[k])) for row in rows] == [1, 1, 1, 1, 4, 4, 4, 4, 4]
    cell.reset_parameters()
    with pytest.raises(RuntimeError, match="has no statistics yet"):
        cell.eval()(torch.randn(5, 2), step=1)


def test_it_forgets_with_parametrized_weights_too() -> None:
    module = gnn.BatchNormLSTM(2, 3)
    module(torch.randn(4, 5, 2))
    nn.utils.parametrizations.weight_norm(module, "weight_hh_l0")
    module.reset_parameters()
    assert not module.statistics_l0.batches.any()


def test_a_step_of_one_sequence_is_no_statistic() -> None:
    module = gnn.BatchNormLSTM(2, 3)
    module(pack_sequence([torch.randn(4, 2), torch.randn(2, 2)]))
    assert module.statistics_l0.batches[:5].tolist() == [1, 1, 0, 0, 0]


def test_evaluation_does_not_depend_on_the_other_sequences_of_a_batch() -> None:
    module = gnn.BatchNormLSTM(2, 3, num_layers=2, bidirectional=True, dtype=torch.float64)
    for _ in range(3):
        module(torch.randn(6, 5, 2, dtype=torch.float64))
    module.eval()
    sequences = [torch.randn(n, 2, dtype=torch.float64) for n in (2, 7, 4)]  # one is longer than all before
    together = unpack_sequence(module(pack_sequence(sequences, enforce_sorted=False))[0])
    for found, x in zip(together, sequences, strict=True):
        torch.testing.assert_close(found, module(x)[0], rtol=1e-12, atol=1e-12)


def test_evaluation_of_what_was_trained_on_is_near_training() -> None:
    """One batch over and over: its statistics are those that evaluation uses, but for the variance's n - 1."""
    module, x = gnn.BatchNormLSTM(2, 3, dtype=torch.float64), torch.randn(4, 400, 2, dtype=torch.float64)
    trained = module(x)[0]
    torch.testing.assert_close(module.eval()(x)[0], trained, rtol=5e-3, atol=5e-3)


def test_evaluation_before_training_is_an_error() -> None:
    with pytest.raises(RuntimeError, match=r"in eval\(\) has no statistics yet: train it on a batch first, or load"):
        gnn.BatchNormLSTM(2, 3).eval()(torch.randn(4, 2, 2))
    trained = gnn.BatchNormLSTM(2, 3)
    trained(torch.randn(4, 2, 2))
    fresh = gnn.BatchNormLSTM(2, 3).eval()
    fresh.load_state_dict(trained.state_dict())
    torch.testing.assert_close(fresh(torch.ones(4, 1, 2))[0], trained.eval()(torch.ones(4, 1, 2))[0])
    trained.reset_parameters()
    with pytest.raises(RuntimeError, match="has no statistics yet"):
        trained.eval()(torch.randn(4, 2, 2))


def test_a_batch_of_one_in_training_is_an_error() -> None:
    for shape in ((4, 1, 2), (4, 2)):
        with pytest.raises(ValueError, match="needs more than one sequence in a batch in training, got 1"):
            gnn.BatchNormLSTM(2, 3)(torch.randn(shape))
    with pytest.raises(ValueError, match="BatchNormLSTMCell needs more than one row in a batch in training, got 1"):
        gnn.BatchNormLSTMCell(2, 3)(torch.randn(2), step=0)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"max_steps": 0}, ValueError, "needs max_steps to be an integer >= 1, got 0"),
        ({"gain": 0.0}, ValueError, "needs gain > 0, got 0.0"),
        ({"momentum": 1.5}, ValueError, r"needs momentum in \(0, 1\], or None for the mean of all batches, got 1.5"),
        ({"sync": 1}, TypeError, "needs sync to be a bool, got 1"),
        ({"eps": 0.0}, ValueError, "needs eps > 0"),
    ],
)
def test_arguments(options: dict[str, Any], error: type[Exception], message: str) -> None:
    for kind in (gnn.BatchNormLSTM, gnn.BatchNormLSTMCell):
        with pytest.raises(error, match=message):
            kind(2, 3, **options)


def test_a_loop_of_cells_is_a_layer_and_remembers_the_same() -> None:
    cell, layer = gnn.BatchNormLSTMCell(2, 3, dtype=torch.float64), gnn.BatchNormLSTM(2, 3, dtype=torch.float64)
    state_dict = cell.state_dict().items()
    layer.load_state_dict({k.replace("s.", "s_l0.") if "." in k else f"{k}_l0": value for k, value in state_dict})
    for training in (True, False):
        cell.train(training)
        layer.train(training)
        x, state = torch.randn(5, 4, 2, dtype=torch.float64), None
        output, (_, c) = layer(x)
        for step, row in enumerate(x):
            state = cell(row, state, step=step)
            torch.testing.assert_close(state[0], output[step], rtol=1e-10, atol=1e-12)
        torch.testing.assert_close(state[1], c[0], rtol=1e-10, atol=1e-12)
        for name, buffer in cell.statistics.named_buffers():
            torch.testing.assert_close(buffer, getattr(layer.statistics_l0, name))
    with pytest.raises(TypeError, match="needs step=, the number of the time step: each has its own statistics"):
        cell(x[0])


def test_gains_begin_at_a_tenth_and_from_torch_has_fresh_statistics() -> None:
    module = gnn.BatchNormLSTM.from_torch(nn.LSTM(2, 3), gain=0.2, max_steps=7)
    assert {name: param.unique().tolist() for name, param in module.named_parameters() if "gain" in name} == {
        f"gain_{norm}_l0": [pytest.approx(0.2)] for norm in ("ih", "hh", "c")
    }
    assert module.statistics_l0.batches.tolist() == [0] * 7
    assert gnn.BatchNormLSTM(2, 3).gain_hh_l0.unique().tolist() == [pytest.approx(0.1)]


def test_vmap_in_training_says_that_it_can_not() -> None:
    module = gnn.BatchNormLSTM(2, 3)
    with pytest.raises(NotImplementedError, match="vmap can't tell which of its entries the statistics"):
        torch.vmap(lambda x: module(x)[0])(torch.randn(3, 4, 2, 2))


def test_it_trains_in_one_graph_and_remembers_there_too() -> None:
    torch._dynamo.reset()
    module = gnn.BatchNormLSTM(2, 3, dtype=torch.float64)
    twin = copy.deepcopy(module)
    compiled = torch.compile(module, backend="aot_eager", fullgraph=True)
    for _ in range(2):
        x = torch.randn(4, 3, 2, dtype=torch.float64)
        found, right = compiled(x)[0].square().sum(), twin(x)[0].square().sum()
        torch.testing.assert_close(found, right)
        grads = [torch.autograd.grad(loss, m.weight_hh_l0)[0] for loss, m in ((found, module), (right, twin))]
        torch.testing.assert_close(*grads)
    for name, buffer in twin.named_buffers():
        torch.testing.assert_close(dict(module.named_buffers())[name], buffer)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kernel", ["eager", "reference"])
def test_in_step_with_other_processes_it_is_one_batch(
    kernel: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GRADGUARD_KERNEL", kernel)
    mp.spawn(batch_norm_workers.run, args=(2, str(tmp_path)), nprocs=2)
    one = batch_norm_workers.model(sync=False)
    batch_norm_workers.train(one, [x for rank in batch_norm_workers.sequences() for x in rank], 1.0)
    for rank in range(2):
        found = torch.load(tmp_path / f"{rank}.pt")
        for name, value in one.state_dict().items():
            torch.testing.assert_close(found[name], value, rtol=1e-8, atol=1e-9, msg=lambda m, n=name: f"{n}: {m}")
