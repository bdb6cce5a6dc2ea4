"""The metrics against a NumPy float64 oracle: in a loop, in a collection, in a Trainer, over two gloo processes."""

from __future__ import annotations

import copy
import inspect
import math
import pickle
import warnings
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset
from torchmetrics import MaxMetric, MeanMetric, Metric, MetricCollection

import gradguard.metrics as metrics_module
from gradguard.functional import measure
from gradguard.metrics import GradNormLast, GradNormMax, GradNormMean, NonFiniteShare, OverflowCount, UpdateRatio

ALL: list[type[Metric]] = [GradNormMean, GradNormMax, GradNormLast, NonFiniteShare, OverflowCount, UpdateRatio]
OF_NORMS = ALL[:4]
NAN, INF = math.nan, math.inf
NORMS = [3.0, INF, 0.25, NAN, 1e-30, 7e3, INF, 0.5]
OVERFLOW = [False, True, False, False, False, False, False, True]
RATIOS = [1e-3, NAN, 3e-5, 0.0, 12.0, INF, 2e-2, 1e-9]
early = pytest.mark.filterwarnings("ignore:The ``compute`` method of metric:UserWarning")


def oracle(norms: list[float], overflow: list[bool], ratios: list[float]) -> dict[str, float]:
    finite = [x for x in norms if np.isfinite(x)]
    judged = [x for x, skipped in zip(norms, overflow, strict=True) if not skipped]
    moved = [np.log(np.float64(r)) for r in ratios if np.isfinite(r) and r > 0]
    return {
        "GradNormMean": math.fsum(finite) / len(finite) if finite else NAN,
        "GradNormMax": max(finite, default=NAN),
        "GradNormLast": norms[-1] if norms else NAN,
        "NonFiniteShare": sum(not np.isfinite(x) for x in judged) / len(judged) if judged else NAN,
        "OverflowCount": sum(overflow),
        "UpdateRatio": float(np.exp(math.fsum(moved) / len(moved))) if moved else NAN,
    }


def doubles(values: list[float]) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def inputs(norms: list[float], overflow: list[bool], ratios: list[float]) -> dict[str, Tensor]:
    return {
        "norms": doubles(norms),
        "overflow": torch.tensor(overflow, dtype=torch.bool),
        "ratios": doubles(ratios),
    }


def part(metric: Metric, data: dict[str, Any]) -> dict[str, Any]:
    return metric._filter_kwargs(**data)


def fed(cls: type[Metric], data: dict[str, Any] | None = None) -> Metric:
    metric = cls()
    metric.update(**part(metric, inputs(NORMS, OVERFLOW, RATIOS) if data is None else data))
    return metric


def close(found: object, expected: float) -> None:
    assert float(found) == pytest.approx(expected, rel=1e-12, abs=0, nan_ok=True)


def bits(value: Tensor) -> Tensor:
    return value.double().view(torch.int64)


def test_every_public_metric_is_in_this_battery() -> None:
    public = [c for _, c in inspect.getmembers(metrics_module, inspect.isclass) if c.__module__ == "gradguard.metrics"]
    assert {c for c in public if not c.__name__.startswith("_")} == set(ALL)
    for cls in ALL:
        assert (cls.is_differentiable, cls.full_state_update) == (False, False)
        assert cls.higher_is_better is (False if cls in (NonFiniteShare, OverflowCount) else None)


@pytest.mark.parametrize("cls", ALL)
def test_values_equal_the_oracle(cls: type[Metric]) -> None:
    value = fed(cls).compute()
    assert value.shape == ()
    assert value.dtype is (torch.int64 if cls is OverflowCount else torch.float64)
    close(value, oracle(NORMS, OVERFLOW, RATIOS)[cls.__name__])


def test_the_oracle_is_what_the_docstrings_say() -> None:
    found = oracle([1.0, 3.0, INF, INF], [False, False, False, True], [1e-4, 1e-2, 0.0])
    assert found.pop("UpdateRatio") == pytest.approx(1e-3)
    assert found == {
        "GradNormMean": 2.0,
        "GradNormMax": 3.0,
        "GradNormLast": INF,
        "NonFiniteShare": 1 / 3,
        "OverflowCount": 1,
    }


steps = st.lists(
    st.tuples(
        st.sampled_from([NAN, INF, 0.0]) | st.floats(0, 1e30),
        st.booleans(),
        st.sampled_from([NAN, INF, 0.0]) | st.floats(1e-30, 1e6),
    ),
    max_size=12,
)


@given(steps, st.lists(st.integers(0, 12), max_size=5), st.booleans())
@early
def test_any_chunking_gives_the_same_values(
    rows: list[tuple[float, bool, float]], cuts: list[int], forward: bool
) -> None:
    columns = [list(column) for column in zip(*rows, strict=True)] if rows else [[], [], []]
    edges = [0, *sorted(min(cut, len(rows)) for cut in cuts), len(rows)]
    metrics = [cls() for cls in ALL]
    for start, stop in pairwise(edges):
        chunk = [column[start:stop] for column in columns]
        for metric in metrics:
            value = (metric if forward else metric.update)(**part(metric, inputs(*chunk)))
            if forward:
                close(value, oracle(*chunk)[type(metric).__name__])
    for metric in metrics:
        close(metric.compute(), oracle(*columns)[type(metric).__name__])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("shape", [(), (1,), (4,), (2, 2), (2, 1, 2)])
@pytest.mark.parametrize("cls", ALL)
def test_any_dtype_and_shape(cls: type[Metric], shape: tuple[int, ...], dtype: torch.dtype) -> None:
    values, flags = torch.rand(shape).to(dtype), torch.rand(shape) > 0.5
    metric = fed(cls, {"norms": values, "overflow": flags, "ratios": values})
    exact = values.double().flatten().tolist()
    close(metric.compute(), oracle(exact, flags.flatten().tolist(), exact)[cls.__name__])


@pytest.mark.parametrize("cls", ALL)
def test_python_numbers_keep_all_their_digits(cls: type[Metric]) -> None:
    metric = cls()
    for value, flag in ((0.1, True), (0.3, False)):
        metric.update(**part(metric, {"norms": value, "overflow": flag, "ratios": value}))
    close(metric.compute(), oracle([0.1, 0.3], [True, False], [0.1, 0.3])[cls.__name__])


@early
@pytest.mark.parametrize("cls", ALL)
def test_nothing_seen_is_nan_or_no_steps(cls: type[Metric]) -> None:
    expected = 0.0 if cls is OverflowCount else NAN
    metric = cls()
    close(metric.compute(), expected)
    metric.update(**part(metric, inputs([], [], [])))
    close(metric.compute(), expected)
    metric = fed(cls)
    before = metric.compute()
    metric.update(**part(metric, inputs([], [], [])))
    assert torch.equal(bits(metric.compute()), bits(before)), "an empty update says nothing"
    metric.reset()
    close(metric.compute(), expected)


@pytest.mark.parametrize("bad", [NAN, INF, -INF])
def test_non_finite_norms_enter_neither_mean_nor_max(bad: float) -> None:
    for cls, expected in ((GradNormMean, 2.0), (GradNormMax, 3.0)):
        for order in ([bad, 1.0, 3.0], [1.0, 3.0, bad], [bad]):
            metric = cls()
            for norm in order:
                metric.update(torch.tensor(norm))
            close(metric.compute(), expected if len(order) > 1 else NAN)


def test_last_keeps_nan_and_inf_as_they_are() -> None:
    metric = GradNormLast()
    for norm in (1.0, NAN, INF, 0.0):
        close(metric(torch.tensor([5.0, norm])), norm)
        close(metric.compute(), norm)


def test_one_spike_among_many_steps_is_the_max() -> None:
    norms = torch.rand(5000)
    norms[3217] = 1e8
    largest, mean = GradNormMax(), GradNormMean()
    for chunk in norms.split(64):
        largest.update(chunk)
        mean.update(chunk)
    assert largest.compute() == 1e8
    close(mean.compute(), math.fsum(norms.double().tolist()) / 5000)


def test_small_norms_after_a_large_one_are_not_lost() -> None:
    metric = GradNormMean()
    metric.update(torch.tensor(1e7))
    for _ in range(1000):
        metric.update(torch.tensor(2.0**-12))
    close(metric.compute(), (1e7 + 1000 * 2.0**-12) / 1001)


def test_a_skipped_step_counts_neither_way() -> None:
    metric = NonFiniteShare()
    metric.update(torch.tensor([INF, NAN]), torch.tensor([True, True]))
    close(metric.compute(), NAN)
    metric.update(torch.tensor([INF, 1.0, 1.0]), torch.tensor([False, True, False]))
    close(metric.compute(), 1 / 2)
    metric.update(torch.tensor([INF, 1.0]))
    close(metric.compute(), 2 / 4)


def test_mistakes_are_named() -> None:
    with pytest.raises(TypeError, match=r"overflow must be bool, got torch.float32. Pass found_inf.bool\(\)"):
        OverflowCount().update(torch.tensor(1.0))
    with pytest.raises(TypeError, match=r"overflow must be bool, got torch\.int64"):
        NonFiniteShare().update(torch.tensor(1.0), torch.tensor(1))
    with pytest.raises(ValueError, match=r"shape of norms, \(2,\), got \(\). Reshape"):
        NonFiniteShare().update(torch.ones(2), True)
    with pytest.raises(ValueError, match=r"shape of norms, \(\), got \(1,\). Reshape"):
        NonFiniteShare().update(1.0, torch.tensor([True]))


CASTS: dict[str, Callable[[Metric], object]] = {
    "to float16": lambda m: m.to(torch.float16),
    "half": lambda m: m.half(),
    "float": lambda m: m.float(),
    "bfloat16": lambda m: m.bfloat16(),
    "set_dtype": lambda m: m.set_dtype(torch.float16),
    "parent to": lambda m: nn.ModuleList([m]).to(torch.bfloat16),
    "parent half": lambda m: nn.ModuleList([m]).half(),
    "collection set_dtype": lambda m: MetricCollection([m]).set_dtype(torch.float16),
}


@pytest.mark.parametrize("cast", CASTS)
@pytest.mark.parametrize("cls", ALL)
def test_the_state_keeps_its_dtype_under_every_cast(cls: type[Metric], cast: str) -> None:
    metric = fed(cls)
    before = metric.metric_state
    CASTS[cast](metric)
    assert list(before) == list(metric.metric_state)
    for state, was in zip(metric.metric_state.values(), before.values(), strict=True):
        assert state.dtype is was.dtype
        assert state.dtype in (torch.float64, torch.int64)
        assert torch.equal(bits(state), bits(was))
    metric.reset()
    assert [s.dtype for s in metric.metric_state.values()] == [s.dtype for s in before.values()]


def test_torchmetrics_itself_lets_to_round_the_state() -> None:
    """If this fails, `_DeviceMetric._apply` has had its day."""
    metric = MeanMetric()
    assert metric.half().mean_value.dtype is torch.float32
    assert metric.to(torch.float16).mean_value.dtype is torch.float16


@pytest.mark.parametrize("cls", ALL)
def test_the_default_dtype_is_ignored(cls: type[Metric]) -> None:
    expected = [s.dtype for s in cls().metric_state.values()]
    torch.set_default_dtype(torch.float16)
    try:
        metric = fed(cls)
        value = metric.compute()
    finally:
        torch.set_default_dtype(torch.float32)
    assert [s.dtype for s in metric.metric_state.values()] == expected
    close(value, oracle(NORMS, OVERFLOW, RATIOS)[cls.__name__])


@pytest.mark.parametrize("cls", ALL)
def test_a_device_without_float64_gets_float32(cls: type[Metric]) -> None:
    def to_mps(tensor: Tensor) -> Tensor:
        if tensor.dtype is torch.float64:
            raise TypeError(
                "Cannot convert a MPS Tensor to float64 dtype as the MPS framework doesn't support float64."
            )
        return tensor.clone()

    metric = fed(cls)._apply(to_mps)
    metric.update(**part(metric, inputs(NORMS, OVERFLOW, RATIOS)))
    assert torch.float64 not in {s.dtype for s in metric.metric_state.values()}
    expected = oracle(NORMS * 2, OVERFLOW * 2, RATIOS * 2)[cls.__name__]
    assert float(metric.compute()) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("cls", ALL)
def test_no_host_read(cls: type[Metric]) -> None:
    values, flags = torch.empty(3, device="meta"), torch.empty(3, dtype=torch.bool, device="meta")
    metric = cls().to("meta")
    data = part(metric, {"norms": values, "overflow": flags, "ratios": values})
    metric.update(**data)
    metric(**data)
    other = cls().to("meta")
    other.update(**data)
    metric.merge_state(other)
    assert metric.compute().is_meta
    metric.reset()
    metric.update(**data)
    metric.update(**part(metric, {"norms": 1.0, "overflow": True, "ratios": 1.0}))
    metric.update(**part(metric, inputs(NORMS, OVERFLOW, RATIOS)))  # what lies elsewhere comes to the metric
    assert all(s.is_meta for s in metric.metric_state.values())


def test_no_host_read_in_a_collection() -> None:
    values, flags = torch.empty(3, device="meta"), torch.empty(3, dtype=torch.bool, device="meta")
    collection = MetricCollection([cls() for cls in ALL]).to("meta")
    for _ in range(3):
        collection.update(norms=values, overflow=flags, ratios=values)
    collection(norms=values, overflow=flags, ratios=values)


@pytest.mark.parametrize("cls", [MeanMetric, MaxMetric])
def test_a_host_read_would_be_caught(cls: type[Metric]) -> None:
    with pytest.raises((NotImplementedError, RuntimeError), match="meta"):
        cls().to("meta").update(torch.empty(3, device="meta"))


@pytest.mark.parametrize("shape", [(), (3,)])
@pytest.mark.parametrize("cls", ALL)
def test_an_update_neither_keeps_nor_changes_its_argument(cls: type[Metric], shape: tuple[int, ...]) -> None:
    leaf = torch.rand(shape, dtype=torch.float64, requires_grad=True)
    flags = torch.zeros(shape, dtype=torch.bool)
    values = leaf * 1
    was = values.detach().clone()
    metric = cls()
    data = part(metric, {"norms": values, "overflow": flags, "ratios": values})
    assert not metric(**data).requires_grad
    metric.update(**data)
    assert torch.equal(values, was)
    assert not flags.any()
    assert not any(s.requires_grad for s in metric.metric_state.values())
    assert all(s.untyped_storage().nbytes() <= 16 for s in metric.metric_state.values()), "a view holds all of it"
    before = metric.compute()
    with torch.no_grad():
        values.fill_(99.0)  # a training loop may use one buffer for all steps
        flags.logical_not_()
    metric._computed = None
    assert torch.equal(metric.compute(), before)


@pytest.mark.parametrize("mode", [torch.inference_mode, torch.no_grad])
@pytest.mark.parametrize("cls", ALL)
def test_inference_mode_comes_and_goes(cls: type[Metric], mode: Callable[[], torch.autograd.grad_mode.no_grad]) -> None:
    metric = cls()
    data = part(metric, inputs(NORMS, OVERFLOW, RATIOS))
    with mode():
        metric.update(**data)
        metric(**data)
    metric.update(**data)
    metric(**data)
    close(metric.compute(), oracle(NORMS * 4, OVERFLOW * 4, RATIOS * 4)[cls.__name__])


def through_file(metric: Metric) -> Metric:
    return pickle.loads(pickle.dumps(metric))


@pytest.mark.parametrize("copied", [copy.deepcopy, through_file, Metric.clone])
@pytest.mark.parametrize("cls", ALL)
def test_copies_go_on_alone(cls: type[Metric], copied: Callable[[Metric], Metric]) -> None:
    metric = fed(cls)
    twin = copied(metric)
    twin.update(**part(twin, inputs([9e9], [True], [5.0])))
    close(metric.compute(), oracle(NORMS, OVERFLOW, RATIOS)[cls.__name__])
    close(twin.compute(), oracle([*NORMS, 9e9], [*OVERFLOW, True], [*RATIOS, 5.0])[cls.__name__])


@early
@pytest.mark.parametrize("cls", ALL)
def test_state_dict_round_trip(cls: type[Metric], tmp_path: Path) -> None:
    metric = fed(cls)
    assert metric.state_dict() == {}, "as in torchmetrics, nothing is saved unless asked for"
    metric.persistent(True)
    torch.save(metric.state_dict(), tmp_path / "state.pt")
    saved = torch.load(tmp_path / "state.pt", weights_only=True)
    fresh = cls()
    fresh.compute()
    fresh.persistent(True)
    fresh.load_state_dict(saved)
    assert torch.equal(bits(fresh.compute()), bits(metric.compute())), "the result from before was cached"
    fresh.update(**part(fresh, inputs([9e9], [True], [5.0])))
    close(fresh.compute(), oracle([*NORMS, 9e9], [*OVERFLOW, True], [*RATIOS, 5.0])[cls.__name__])
    assert all(torch.equal(bits(saved[k]), bits(v)) for k, v in metric.metric_state.items())


@pytest.mark.parametrize("cls", ALL)
def test_loading_moves_the_checkpoint_not_the_metric(cls: type[Metric]) -> None:
    metric = fed(cls)
    metric.persistent(True)
    saved = {k: v.float() for k, v in metric.state_dict().items()}
    there = cls().to("meta")
    there.load_state_dict(saved)
    for name, state in there.metric_state.items():
        assert state.is_meta
        assert state.dtype is metric.metric_state[name].dtype


@pytest.mark.parametrize("cls", ALL)
def test_merge_state_adds_what_came_earlier(cls: type[Metric]) -> None:
    early, late = fed(cls), cls()
    late.update(**part(late, inputs([2.0], [True], [5.0])))
    late.compute()
    late.merge_state(early)
    expected = oracle([*NORMS, 2.0], [*OVERFLOW, True], [*RATIOS, 5.0])
    close(late.compute(), expected[cls.__name__])
    idle = cls()
    late.merge_state(idle)
    close(late.compute(), expected[cls.__name__])
    idle.update(**part(idle, inputs([], [], [])))
    idle.merge_state(late.metric_state)
    close(idle.compute(), expected[cls.__name__])


def test_the_update_ratio_is_a_geometric_mean() -> None:
    ratios = np.array([1e-3] * 9 + [10.0])
    metric = UpdateRatio()
    metric.update(torch.from_numpy(ratios))
    close(metric.compute(), float(np.prod(ratios)) ** 0.1)
    assert metric.compute() < 3e-3 < ratios.mean()  # one bias near zero is not the network


# One step without incident, after which most sums and counts of the six are equal.
CALM = ([1.0], [False], [1.0])


@pytest.mark.parametrize("first", [CALM, ([0.0], [False], [NAN]), (NORMS, OVERFLOW, RATIOS)])
@pytest.mark.parametrize("forward", [False, True])
def test_a_collection_of_all_gives_what_each_alone_does(
    first: tuple[list[float], list[bool], list[float]], forward: bool
) -> None:
    # Two of a kind belong together, and those only.
    collection = MetricCollection({cls.__name__: cls() for cls in ALL} | {"Twin": GradNormMax()})
    alone = [cls() for cls in ALL]
    for data in (inputs(*first), inputs(*CALM), inputs(NORMS, OVERFLOW, RATIOS)):
        values = collection(**data) if forward else collection.update(**data)
        for metric in alone:
            metric.update(**part(metric, data))
        if forward:
            close(values["OverflowCount"], float(data["overflow"].sum()))
    found = collection.compute()
    for metric in alone:
        assert torch.equal(bits(found[type(metric).__name__]), bits(metric.compute()))
    assert found["Twin"] == found["GradNormMax"]
    if not forward:
        assert sorted(map(len, collection.compute_groups.values())) == [1] * 5 + [2]
    collection.reset()
    collection.update(**inputs(*CALM))
    close(collection.compute()["GradNormMax"], 1.0)


class Net(pl.LightningModule):
    """Logs all six: as metrics over the epoch, and the largest norm also at each step."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 1)
        self.health = MetricCollection([cls() for cls in ALL if cls is not GradNormMax], prefix="epoch/")
        self.largest = GradNormMax()
        self.seen: list[tuple[float, bool, float]] = []
        self.epochs: list[dict[str, float]] = []

    def training_step(self, batch: list[Tensor], index: int) -> Tensor:
        return self.layer(batch[0]).square().mean() * (NAN if index == 2 else 1.0)

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        total = measure(list(self.layer.parameters())).total
        overflow, ratio = torch.tensor(len(self.seen) % 4 == 3), 0.1 * total / self.layer.weight.norm()
        self.seen.append((total.item(), overflow.item(), ratio.item()))
        self.health.update(norms=total, overflow=overflow, ratios=ratio)
        self.largest(total)
        self.log_dict(self.health, on_step=False, on_epoch=True)
        self.log("largest", self.largest, on_step=True, on_epoch=True)
        if not total.isfinite():
            optimizer.zero_grad()

    def on_train_epoch_start(self) -> None:
        if self.trainer.current_epoch:
            self.epochs.append({k: float(v) for k, v in self.trainer.callback_metrics.items()})
        self.seen.clear()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.layer.parameters(), lr=0.1)


@pytest.mark.filterwarnings("ignore:The 'train_dataloader' does not have many workers")
@pytest.mark.filterwarnings("ignore:.*isinstance.treespec, LeafSpec.* is deprecated")
@pytest.mark.parametrize("precision", ["32-true", "64-true", "bf16-true"])
def test_logged_from_a_lightning_module(precision: str, tmp_path: Path) -> None:
    net = Net()
    trainer = pl.Trainer(
        max_epochs=2,
        accelerator="cpu",
        precision=precision,
        logger=False,
        enable_progress_bar=False,
        enable_checkpointing=False,
        enable_model_summary=False,
        default_root_dir=tmp_path,
    )
    trainer.fit(net, DataLoader(TensorDataset(torch.randn(20, 3)), batch_size=4))
    assert len(net.seen) == 5, "the second epoch starts anew"
    expected = oracle(*(list(column) for column in zip(*net.seen, strict=True)))
    found = {k: float(v) for k, v in trainer.callback_metrics.items()}
    assert found["largest_step"] == pytest.approx(net.seen[-1][0])
    assert found["largest_epoch"] == pytest.approx(expected.pop("GradNormMax"), rel=1e-6)
    for name, value in expected.items():
        assert found[f"epoch/{name}"] == pytest.approx(value, rel=1e-6), name
    assert expected["NonFiniteShare"] == 1 / 4
    assert set(net.epochs[0]) == set(found)
    assert {s.dtype for m in (net.largest, *net.health.values()) for s in m.metric_state.values()} == {
        torch.float64,
        torch.int64,
    }


# The steps that either rank saw.
SEEN = {
    "equal": (range(5), range(5)),
    "rank 1 saw fewer": (range(8), range(3)),
    "rank 0 saw fewer": (range(2), range(8)),
    "rank 1 idle": (range(4), range(0)),
    "rank 0 idle": (range(0), range(4)),
    "both idle": (range(0), range(0)),
}


def picked(steps: range) -> tuple[list[float], list[bool], list[float]]:
    norms, overflow, ratios = ([column[i] for i in steps] for column in (NORMS, OVERFLOW, RATIOS))
    return norms, overflow, ratios


def worker(rank: int, world: int, folder: str) -> None:
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor import DTensor, Partial

    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/sync", rank=rank, world_size=world)
    found: dict[str, dict[str, list[float]]] = {}
    for name, seen in SEEN.items():
        found[name] = {}
        for cls in ALL:
            metric = cls()
            if rank == 0 and len(seen[rank]):  # all steps at once on one rank, one by one on the other
                metric.update(**part(metric, inputs(*picked(seen[rank]))))
            for step in seen[rank] if rank else ():
                metric(**part(metric, inputs(*picked(range(step, step + 1)))))
            own = metric.metric_state
            together = metric.compute()
            kept = all(torch.equal(bits(own[k]), bits(v)) for k, v in metric.metric_state.items())
            metric.update(
                **part(metric, inputs([4.0], [True], [1e-2]))
            )  # goes on from its own state, not the joint one
            on_step = cls(dist_sync_on_step=True)(**part(metric, inputs([4.0], [True], [1e-2])))
            found[name][cls.__name__] = [*(v.item() for v in (together, metric.compute(), on_step)), kept]
    mesh = init_device_mesh("cpu", (world,))
    sharded = DTensor.from_local(torch.tensor(1.5), mesh, [Partial()])  # its whole is 3, on all ranks
    found["dtensor"] = {}
    for cls in OF_NORMS:
        metric = cls()
        metric.update(sharded)
        plain = all(type(s) is Tensor for s in metric.metric_state.values())
        found["dtensor"][cls.__name__] = [metric.compute().item(), plain]
    torch.save(found, Path(folder) / f"{rank}.pt")
    dist.barrier()  # a rank that leaves while the other one still reads aborts it
    dist.destroy_process_group()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_two_processes(tmp_path: Path) -> None:
    mp.spawn(worker, args=(2, str(tmp_path)), nprocs=2)
    first, second = (torch.load(tmp_path / f"{rank}.pt") for rank in range(2))
    for name, seen in SEEN.items():
        ranks = [picked(steps) for steps in seen]
        after = [tuple(a + b for a, b in zip(rank, ([4.0], [True], [1e-2]), strict=True)) for rank in ranks]
        for cls in ALL:
            where = cls.__name__
            together, again, on_step, kept = first[name][where]
            assert kept
            assert repr(first[name][where]) == repr(second[name][where]), f"the ranks differ in {where}, {name}"
            for value, columns in ((together, ranks), (again, after)):
                joined = oracle(*(columns[0][i] + columns[1][i] for i in range(3)))
                longest = oracle(*max(columns, key=lambda rank: len(rank[0])))
                joined["GradNormLast"] = longest["GradNormLast"]
                joined["OverflowCount"] = longest["OverflowCount"]
                assert value == pytest.approx(joined[where], rel=1e-12, nan_ok=True), (where, name)
            close(on_step, oracle([4.0], [True], [1e-2])[where])
    assert first["dtensor"] == second["dtensor"]
    assert list(first["dtensor"].values()) == [[3.0, True], [3.0, True], [3.0, True], [0.0, True]]
