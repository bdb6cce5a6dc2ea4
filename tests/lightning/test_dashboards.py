"""What the loggers write is what the guard has measured: read back with each backend's own reader."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.loggers import CSVLogger, Logger, TensorBoardLogger
from pytorch_lightning.plugins import MixedPrecision
from torch import Tensor, nn

from gradguard import Guard
from gradguard.detect import VanishingDepth
from gradguard.errors import GradGuardWarning
from gradguard.lightning import GradGuard, GradientMonitor
from gradguard.lightning.keys import LONGEST, Keys
from tests.lightning import readers
from tests.lightning.loggers import mlflow_logger, wandb_logger
from tests.lightning.loops import Manual, Plain, Two, counts_from_a_checkpoint, loader, trainer
from tests.lightning.readers import Bars, Found

pytestmark = pytest.mark.filterwarnings("ignore:.*no .val_dataloader.", "ignore:.*smaller than the logging interval")
TOTALS = ("grad_norm/total", "grad_norm/mean", "grad_norm/max")
MODULES = ("net.0", "net.2", "net.4")


class Logged(Plain):
    """Logs a metric of its own, so that there are rows of the Trainer to compare with; one batch has a spike."""

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        self.log("own", float(self.global_step))
        return self.loss(batch) * (1000.0 if self.global_step == 6 else 1.0)


class Closures(Logged):
    """LBFGS evaluates its closure, and with it the hook, many times in each step."""

    def __init__(self) -> None:
        super().__init__(torch.optim.LBFGS, lr=0.1)


class Overflowing(Logged):
    """One batch in five overflows in fp16, also those at which the Trainer logs."""

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return super().training_step(batch, batch_idx) * (1e38 if batch_idx % 5 == 4 else 1.0)


def amp() -> list[Any]:
    return [MixedPrecision("16-mixed", "cpu", torch.amp.GradScaler("cpu", init_scale=2.0**10, growth_interval=4))]


class LoggedManual(Manual):
    def training_step(self, batch: Any, batch_idx: int) -> None:
        self.log("own", float(self.global_step))
        super().training_step(batch, batch_idx)


class LoggedTwo(Two):
    def training_step(self, batch: Any, batch_idx: int) -> None:
        self.log("own", float(self.global_step))
        super().training_step(batch, batch_idx)


class Sick(Plain):
    """Eight sigmoid layers: a finding within 30 steps."""

    def __init__(self) -> None:
        super().__init__()
        layers = [layer for _ in range(8) for layer in (nn.Linear(6, 6), nn.Sigmoid())]
        self.net = nn.Sequential(*layers, nn.Linear(6, 1))


class Odd(Plain):
    """Names that backends refuse, mistake for others or run together."""

    def __init__(self) -> None:
        super().__init__()
        names = ("a b", "a:b", "größe", "mean", "total", "end/", "up//down", "n" * 300)
        self.net = nn.ModuleDict({name: nn.Linear(6, 6) for name in names})
        self.weight = nn.Parameter(torch.ones(6))
        self.max = nn.Parameter(torch.ones(6))

    def loss(self, batch: Any) -> Tensor:
        x = batch[0] * self.weight + self.max
        return (sum(layer(x) for layer in self.net.values()) - batch[1]).square().mean()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.01)


class Recorded(Callback):
    """Keeps the gradients of each step, and at which x it was made."""

    def __init__(self) -> None:
        self.grads: list[dict[str, np.ndarray]] = []

    def on_before_optimizer_step(self, trainer: Any, pl_module: Any, optimizer: Any) -> None:
        self.grads.append({n: p.grad.double().numpy().copy() for n, p in pl_module.named_parameters()})


class Backend:
    """A logger and its reader."""

    def __init__(self, logger: Logger, read: Callable[[], Found], *, texts: bool = True, bars: bool = True) -> None:
        self.logger, self.read, self.texts, self.bars = logger, read, texts, bars


class OneLook(Backend):
    """Can be read once, at the end."""


@pytest.fixture(scope="session")
def mlflow_uri(tmp_path_factory: pytest.TempPathFactory) -> str:
    return f"sqlite:///{tmp_path_factory.mktemp('mlflow')}/mlflow.db"  # made at first use, which takes seconds


@pytest.fixture(
    params=[
        "csv",
        "tensorboard",
        pytest.param("wandb", marks=pytest.mark.wandb),
        pytest.param("mlflow", marks=pytest.mark.mlflow),
    ]
)
def backend(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Backend]:
    if request.param == "csv":
        log = CSVLogger(tmp_path)
        yield Backend(log, lambda: readers.csv_log(log.log_dir), texts=False, bars=False)
    elif request.param == "tensorboard":
        board = TensorBoardLogger(tmp_path)
        yield Backend(board, lambda: readers.tensorboard(board.log_dir))
    elif request.param == "wandb":
        yield from _wandb_backend(tmp_path, monkeypatch)
    else:
        kept = mlflow_logger(tmp_path, monkeypatch, request.getfixturevalue("mlflow_uri"))
        yield Backend(kept, lambda: readers.mlflow(kept), bars=False)


def _wandb_backend(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Backend]:
    runs: list[Path] = []

    def read() -> Found:
        runs.append(readers.finish_wandb(log))
        return readers.wandb(runs[0])

    log = wandb_logger(tmp_path, monkeypatch)
    yield OneLook(log, read)
    if not runs:
        log.experiment.finish()


def history(guard: Guard, key: str) -> dict[int, float]:
    series = guard.history[key]
    return dict(zip(series.steps.tolist(), series.last.double().tolist(), strict=True))


def of_module(guard: Guard, key: str, module: str, prefix: str = "") -> dict[int, float]:
    """Norm over the module's parameters of the history's values; of update ratios, how far all moved over all."""
    start = f"{prefix}{key}/"
    names = [name.removeprefix(start) for name in guard.history if name.startswith(f"{start}{module}.")]
    rows, weights = ({name: history(guard, f"{prefix}{k}/{name}") for name in names} for k in (key, "weight_norm"))
    values = {}
    for step in weights[names[0]]:
        known = [name for name in names if not math.isnan(rows[name][step])]
        if key == "update_ratio":
            moved = math.hypot(*(rows[name][step] * weights[name][step] for name in known))
            values[step] = moved / math.hypot(*(weights[name][step] for name in known))
        else:
            values[step] = math.hypot(*(rows[name][step] for name in names))
    return values


def check_totals(found: Found, guard: Guard, axis: list[int], prefix: str = "") -> None:
    """``axis``: x of each step of the optimizer."""
    total = history(guard, f"{prefix}grad_norm/total")
    logged = [found.scalars[f"gradguard/{prefix}{key}"] for key in TOTALS]
    since = 0
    assert logged[0]
    for (x, last), (x_mean, mean), (x_max, largest) in zip(*logged, strict=True):
        until = max(step for step in total if axis[step - 1] <= x)
        window = [total[step] for step in range(since + 1, until + 1) if step in total]
        assert x == x_mean == x_max
        assert (last, mean, largest) == pytest.approx((window[-1], np.mean(window), max(window)), rel=1e-5)
        since = until
    assert since == len(axis)  # no step is left out


def check_modules(found: Found, guard: Guard, axis: list[int], modules: Any = MODULES, prefix: str = "") -> None:
    for key, module in itertools.product(("grad_norm", "weight_norm", "update_ratio"), modules):
        expected = [(axis[step - 1], value) for step, value in of_module(guard, key, module, prefix).items()]
        logged = found.scalars[f"gradguard/{prefix}{key}/{module}"]
        assert [x for x, _ in logged] == [x for x, _ in expected]
        assert [value for _, value in logged] == pytest.approx([value for _, value in expected], rel=1e-5)
    check_layers(found, guard, axis, modules, prefix)


def check_layers(found: Found, guard: Guard, axis: list[int], layers: Any, prefix: str) -> None:
    """Sizes of each output, and what units there are that do nothing: silent ones, or saturated ones of a tanh."""
    start = f"{prefix}activation/"
    shown = {key for layer in layers for name in ("rms", "grad_rms") for key in [f"{start}{layer}/{name}"]}
    shown |= {key for key in guard.history if key.startswith(start) and key.endswith("/saturated")}
    assert {key for key in found.scalars if key.startswith(f"gradguard/{start}")} == {f"gradguard/{k}" for k in shown}
    for key in shown:
        values = [(axis[step - 1], x) for step, x in history(guard, key).items() if not math.isnan(x)]
        logged = found.scalars[f"gradguard/{key}"]
        assert [x for x, _ in logged] == [x for x, _ in values]
        assert [value for _, value in logged] == pytest.approx([value for _, value in values], rel=1e-5)


def fit(
    module: LightningModule, callbacks: list[Any], loggers: Any, tmp_path: Path, batches: int = 23, **options: Any
) -> Trainer:
    run = trainer(callbacks, logger=loggers, default_root_dir=tmp_path, **{"max_epochs": 1, **options})
    run.fit(module, loader(batches))
    return run


def test_numbers_equal_the_history(backend: Backend, tmp_path: Path) -> None:
    callback = GradGuard(every_n_steps=4, histograms=True)
    fit(Logged(lr=1e-4), [callback, seen := Recorded()], backend.logger, tmp_path)
    found, axis = backend.read(), list(range(23))
    check_totals(found, callback.guard, axis)
    check_modules(found, callback.guard, axis)
    assert [x for x, _ in found.scalars["own"]] == [4, 9, 14, 19]
    assert [x for x, _ in found.scalars["gradguard/grad_norm/max"]] == [4, 9, 14, 19, 22]
    values = dict(found.scalars["gradguard/grad_norm/max"])
    assert values[9] > 100 * dict(found.scalars["gradguard/grad_norm/total"])[9]  # the spike between two logged steps
    assert {key for key in found.scalars if "finding" in key} == set()
    if backend.texts:
        ((x, text),) = found.texts["gradguard/summary"]
        assert x == 22
        assert callback.guard.summary() in text
        assert "optimizer (SGD): 23 steps" in text
    else:
        assert not found.texts
    check_histograms(found, seen.grads, [4, 8, 12, 16, 20] if backend.bars else [])


def check_histograms(found: Found, grads: list[dict[str, np.ndarray]], steps: list[int]) -> None:
    names = [f"gradguard/grad_histogram/{name}" for name in grads[0]] if steps else []
    assert sorted(found.histograms) == sorted(names)
    for name in names:
        assert [x for x, _ in found.histograms[name]] == [step - 1 for step in steps]
        for (_, bars), step in zip(found.histograms[name], steps, strict=True):
            check_bars(bars, grads[step - 1][name.removeprefix("gradguard/grad_histogram/")])


def check_bars(bars: Bars, grad: np.ndarray) -> None:
    if grad.min() == grad.max():
        assert bars.counts.sum() == grad.size
        np.testing.assert_allclose(bars.edges, grad.min(), rtol=1e-6)
        return
    counts, edges = np.histogram(grad, bins=len(bars.counts))
    np.testing.assert_array_equal(bars.counts, counts)
    np.testing.assert_allclose(bars.edges[-len(edges) :], edges, rtol=1e-5, atol=1e-6 * np.abs(edges).max())


def test_by_parameter_the_history_itself(backend: Backend, tmp_path: Path) -> None:
    callback = GradientMonitor(every_n_steps=5, detail="parameter")
    fit(Logged(lr=1e-4), [callback], backend.logger, tmp_path)
    found, guard = backend.read(), callback.guard
    sampled = history(guard, "weight_norm/net.0.weight")
    assert list(sampled) == [1, 2, 3, 4, 5, 10, 15, 20]
    for key in guard.history:
        group, _, name = key.partition("/")
        if group in ("grad_norm", "weight_norm", "update_ratio") and name not in ("", "total"):
            series = history(guard, key)
            assert dict(found.scalars[f"gradguard/{key}"]) == pytest.approx(
                {step - 1: series[step] for step in sampled}, rel=1e-5
            ), (group, name)
    assert not found.texts
    assert not found.histograms


@pytest.mark.parametrize(
    ("make", "options", "axis"),
    [
        pytest.param(Logged, {"accumulate_grad_batches": 4, "log_every_n_steps": 2}, range(6), id="accumulation"),
        pytest.param(Closures, {}, range(23), id="lbfgs"),
        pytest.param(Overflowing, {"plugins": amp}, range(23), id="fp16 overflows"),
        pytest.param(LoggedManual, {"log_every_n_steps": 3}, range(23), id="manual"),
        pytest.param(LoggedTwo, {"log_every_n_steps": 3}, range(23), id="two optimizers"),
        pytest.param(Logged, {"log_every_n_steps": 1}, range(23), id="each step"),
        pytest.param(Logged, {"log_every_n_steps": 50}, range(23), id="not once"),
    ],
)
def test_the_x_axis_is_that_of_the_trainers_rows(
    make: Callable[[], LightningModule], options: dict[str, Any], axis: range, tmp_path: Path
) -> None:
    callback, log, board = GradGuard(every_n_steps=3), CSVLogger(tmp_path), TensorBoardLogger(tmp_path / "board")
    options = {key: value() if callable(value) else value for key, value in options.items()}
    fit(make(), [callback], [log, board], tmp_path, **options)
    prefixes = ("generator/", "critic/") if make is LoggedTwo else ("",)
    for found in (readers.csv_log(log.log_dir), readers.tensorboard(board.log_dir)):
        for prefix in prefixes:
            check_totals(found, callback.guard, list(axis), prefix)
            modules = [f"{prefix.strip('/') or 'net'}.{i}" for i in (0, 2, 4)]
            check_modules(found, callback.guard, list(axis), modules, prefix)
            own = sorted({x for x, _ in found.scalars["own"]})
            ours = [x for x, _ in found.scalars[f"gradguard/{prefix}grad_norm/max"]]
            assert ours == sorted({*own, axis[-1]})


@pytest.mark.filterwarnings("ignore:You're resuming from a checkpoint that ended", "ignore:Checkpoint directory")
@counts_from_a_checkpoint
def test_the_x_axis_goes_on_after_a_resume(tmp_path: Path) -> None:
    from pytorch_lightning.callbacks import ModelCheckpoint

    saved = ModelCheckpoint(tmp_path, "{step}", every_n_train_steps=7, save_top_k=-1)
    fit(Logged(lr=1e-4), [GradGuard(every_n_steps=5), saved], False, tmp_path, enable_checkpointing=True)
    callback, log = GradGuard(every_n_steps=5), CSVLogger(tmp_path / "resumed")
    run = trainer([callback, saved], logger=log, default_root_dir=tmp_path, max_epochs=2, enable_checkpointing=True)
    run.fit(Logged(lr=1e-4), loader(23), ckpt_path=tmp_path / "step=14.ckpt")
    found = readers.csv_log(log.log_dir)
    own = {value: x for x, value in found.scalars["own"]}  # at which global step: at which x
    assert own
    assert all(x == step for step, x in own.items())
    ours = dict(found.scalars["gradguard/grad_norm/total"])
    assert set(own.values()) <= set(ours)
    total = history(callback.guard, "grad_norm/total")
    assert ours == pytest.approx({x: total[x + 1] for x in ours}, rel=1e-5)
    for key in ("grad_norm", "weight_norm", "update_ratio"):
        values = of_module(callback.guard, key, "net.2")
        logged = dict(found.scalars[f"gradguard/{key}/net.2"])
        assert min(logged) == 14
        assert logged == pytest.approx({x: values[x + 1] for x in logged}, rel=1e-5)


def test_what_a_monitor_sees_takes_nothing_from_the_rows(tmp_path: Path) -> None:
    from pytorch_lightning.callbacks import EarlyStopping

    class Spike(Plain):
        def training_step(self, batch: Any, batch_idx: int) -> Tensor:
            return self.loss(batch) * (1000.0 if self.global_step == 2 else 1.0)

    stop = EarlyStopping("gradguard/grad_norm/max", patience=99, mode="min", check_on_train_epoch_end=True)
    callback, log = GradGuard(every_n_steps=50), CSVLogger(tmp_path)
    run = trainer([callback, stop], logger=log, default_root_dir=tmp_path, max_epochs=2, log_every_n_steps=20)
    run.fit(Spike(lr=1e-5), loader(12))
    found = readers.csv_log(log.log_dir)
    check_totals(found, callback.guard, list(range(24)))
    assert [x for x, _ in found.scalars["gradguard/grad_norm/max"]] == [19, 23]


def test_each_histogram_is_of_one_step_also_where_a_closure_runs_many_times(tmp_path: Path) -> None:
    class First(Recorded):
        """Of each step, the gradients at its beginning."""

        def on_before_optimizer_step(self, trainer: Any, pl_module: Any, optimizer: Any) -> None:
            if len(self.grads) == trainer.global_step:
                super().on_before_optimizer_step(trainer, pl_module, optimizer)

    board = TensorBoardLogger(tmp_path)
    fit(Closures(), [GradientMonitor(every_n_steps=4, histograms=True), seen := First()], board, tmp_path)
    check_histograms(readers.tensorboard(board.log_dir), seen.grads, [4, 8, 12, 16, 20])


def test_histograms_are_of_unscaled_gradients(tmp_path: Path) -> None:
    board, monitor = TensorBoardLogger(tmp_path), GradientMonitor(every_n_steps=4, histograms=True)
    module = Logged(torch.optim.Adam, fused=True)
    fit(module, [monitor], board, tmp_path, plugins=amp())
    found = readers.tensorboard(board.log_dir)
    total = history(monitor.guard, "grad_norm/total")
    squares = readers.squares(board.log_dir)
    assert {x: math.sqrt(value) for x, value in squares.items()} == pytest.approx(
        {x: total[x + 1] for x in (3, 7, 11, 15, 19)}, rel=1e-4
    )
    assert len(found.histograms) == 6


def test_numbers_that_are_not_finite_are_written_as_they_are(backend: Backend, tmp_path: Path) -> None:
    class Bad(Plain):
        def on_after_backward(self) -> None:
            for i, value in enumerate((math.nan, math.inf)):
                if self.global_step == 3 + 4 * i:  # sampled
                    self.net[2 * i].weight.grad[0, 0] = value

        def optimizer_step(self, epoch: int, batch_idx: int, optimizer: Any, optimizer_closure: Any) -> None:
            optimizer.step(optimizer_closure)
            with torch.no_grad():
                for parameter in self.parameters():
                    parameter.nan_to_num_(0.1, 0.1, 0.1)

    callback = GradGuard(every_n_steps=4, summary=False)
    fit(Bad(lr=1e-4), [callback], backend.logger, tmp_path, log_every_n_steps=4, batches=12)
    found = backend.read()
    total = dict(found.scalars["gradguard/grad_norm/total"])
    assert math.isnan(total[3])
    assert total[7] == math.inf
    assert dict(found.scalars["gradguard/non_finite_share"]) == {3: 0.25, 7: 0.25, 11: 0.0}
    assert math.isfinite(dict(found.scalars["gradguard/grad_norm/max"])[3])
    assert math.isnan(dict(found.scalars["gradguard/grad_norm/net.0"])[3])
    assert dict(found.scalars["gradguard/grad_norm/net.2"])[7] == math.inf
    assert math.isfinite(dict(found.scalars["gradguard/grad_norm/net.4"])[7])
    assert (3, 1.0) in found.scalars["gradguard/finding/non_finite"]


def test_a_finding_is_written_at_once(backend: Backend, tmp_path: Path) -> None:
    class Looking(Sick):
        def training_step(self, batch: Any, batch_idx: int) -> Tensor:
            if batch_idx == 30 and not isinstance(backend, OneLook):
                backend.logger.save()
                getattr(backend.logger.experiment, "flush", bool)()
                early.append(backend.read().scalars[key])
            return super().training_step(batch, batch_idx)

    early: list[list[tuple[int, float]]] = []
    key = "gradguard/finding/vanishing_depth"
    callback = GradGuard(every_n_steps=10, summary=False, detectors=[VanishingDepth()])
    fit(Looking(), [callback], backend.logger, tmp_path, batches=60)
    (event,) = callback.guard.events
    read = backend.read()
    assert event.step == 5
    assert read.scalars[key] == [(4, 1.0)]
    assert early == ([] if isinstance(backend, OneLook) else [[(4, 1.0)]])
    if backend.texts:
        ((x, text),) = read.texts[key]
        assert x == 4
        assert str(event.finding) in text
    assert list(read.texts) == ([key] if backend.texts else [])


def test_what_is_found_at_the_very_end_has_the_x_of_the_last_step(tmp_path: Path) -> None:
    class Bad(Plain):
        def training_step(self, batch: Any, batch_idx: int) -> Tensor:
            return self.loss(batch) * (math.nan if batch_idx == 3 else 1.0)

    callback, log = GradGuard(), CSVLogger(tmp_path)
    fit(Bad(), [callback], log, tmp_path, log_every_n_steps=50)
    found = readers.csv_log(log.log_dir)
    assert found.scalars["gradguard/finding/non_finite"] == [(22, 1.0)]
    assert {x for x, _ in found.scalars["gradguard/grad_norm/max"]} == {22}


def test_a_ratio_that_is_unknown_is_left_out(tmp_path: Path) -> None:
    module = Plain()
    nn.init.zeros_(module.net[0].bias)
    callback, log = GradientMonitor(every_n_steps=4, detail="parameter"), CSVLogger(tmp_path)
    fit(module, [callback], log, tmp_path, batches=8)
    found = readers.csv_log(log.log_dir)
    at = [x for x, _ in found.scalars["gradguard/update_ratio/net.0.weight"]]
    assert at == [0, 1, 2, 3, 7]
    assert [x for x, _ in found.scalars["gradguard/update_ratio/net.0.bias"]] == at[1:]  # was zero before the first
    assert [x for x, _ in found.scalars["gradguard/weight_norm/net.0.bias"]] == at


def test_monitors_see_what_the_loggers_get_also_where_a_step_overflows(tmp_path: Path) -> None:
    class Watch(Callback):
        def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
            rows.append({key: float(value) for key, value in trainer.callback_metrics.items()})

    rows: list[dict[str, float]] = []
    log = CSVLogger(tmp_path)
    fit(Overflowing(), [GradGuard(every_n_steps=4), Watch()], log, tmp_path, plugins=amp())
    found = readers.csv_log(log.log_dir)
    for key in (*TOTALS, "overflows", "non_finite_share", "update_ratio/mean"):
        series = dict(found.scalars[f"gradguard/{key}"])
        for x in (4, 9, 14, 19):  # all of them overflow
            assert rows[x][f"gradguard/{key}"] == pytest.approx(series[x], rel=1e-6), (key, x)
            assert math.isfinite(series[x])
    assert dict(found.scalars["gradguard/overflows"]) == {4: 1, 9: 2, 14: 1, 19: 1, 22: 0}  # the spike, too


def test_an_exception_leaves_everything_written(backend: Backend, tmp_path: Path) -> None:
    class Failing(Logged):
        def training_step(self, batch: Any, batch_idx: int) -> Tensor:
            if batch_idx == 9:
                raise RuntimeError("out of luck")
            return super().training_step(batch, batch_idx)

    ended: list[str] = []
    finalize = backend.logger.finalize
    backend.logger.finalize = lambda status: (ended.append(status), finalize(status))  # type: ignore[method-assign,func-returns-value,assignment]
    callback = GradGuard(every_n_steps=50)
    with pytest.raises(RuntimeError, match="out of luck"):
        fit(Failing(lr=1e-4), [callback], backend.logger, tmp_path)
    found = backend.read()
    assert ended == ["failed"]
    assert callback.guard.closed
    check_totals(found, callback.guard, list(range(9)))
    check_modules(found, callback.guard, list(range(9)))
    if backend.texts:
        ((x, text),) = found.texts["gradguard/summary"]
        assert x == 8
        assert "optimizer (SGD): 9 steps" in text


def test_odd_names_reach_every_backend_and_none_hides_another(backend: Backend, tmp_path: Path) -> None:
    callback = GradGuard(every_n_steps=3, histograms=True, summary=False)
    module = Odd()
    before = {n: p.detach().clone() for n, p in module.named_parameters()}
    fit(module, [callback, seen := Recorded()], backend.logger, tmp_path, batches=3)
    found = backend.read()
    places = {key.removeprefix("gradguard/weight_norm/") for key in found.scalars if "weight_norm" in key}
    assert all(re.fullmatch(r"[A-Za-z0-9_./-]{1,250}", key) for key in found.scalars)
    long = {place for place in places if "..." in place}
    assert places - long == {
        "_root_",
        "net.a_b",
        "net.a_b-2",
        "net.gr__e",
        "net.mean",
        "net.total",
        "net.end/_",
        "net.up/_/down",
    }
    assert len(long) == 1
    modules = {"net.mean": "mean", "net.a_b": "a b", "net.a_b-2": "a:b", "net.gr__e": "größe", "net.end/_": "end/"}
    for place, name in modules.items():
        (_, first), *_ = found.scalars[f"gradguard/weight_norm/{place}"]
        own = [before[f"net.{name}.{part}"].double().norm().item() for part in ("weight", "bias")]
        assert first == pytest.approx(math.hypot(*own), rel=1e-5)
    if backend.bars:
        assert len(found.histograms) == len(before)
        ((_, bars),) = found.histograms["gradguard/grad_histogram/net.a_b.weight-2"]
        check_bars(bars, seen.grads[2]["net.a:b.weight"])


def test_parameters_called_like_our_own_series(tmp_path: Path) -> None:
    class Root(Odd):
        def __init__(self) -> None:
            super().__init__()
            self.total = nn.Parameter(torch.ones(6))
            self.mean = nn.Linear(6, 1, bias=False)

        def loss(self, batch: Any) -> Tensor:
            return (self.mean(batch[0] * self.total) - batch[1]).square().mean()

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.SGD([self.total, self.mean.weight], lr=0.01)

    for detail, names in (("module", ("_root_", "module.mean")), ("parameter", ("param.total", "mean.weight"))):
        callback, log = GradientMonitor(every_n_steps=3, detail=detail), CSVLogger(tmp_path / detail)
        module = Root()
        grads: list[dict[str, float]] = []
        fit(module, [callback, Norms(grads)], log, tmp_path, batches=3)
        found = readers.csv_log(log.log_dir)
        check_totals(found, callback.guard, [0, 1, 2])
        for name, parameter in zip(names, ("total", "mean.weight"), strict=True):
            logged = [value for _, value in found.scalars[f"gradguard/grad_norm/{name}"]]
            assert logged == pytest.approx([norms[parameter] for norms in grads], rel=1e-5)


class Norms(Callback):
    def __init__(self, seen: list[dict[str, float]]) -> None:
        self.seen = seen

    def on_before_optimizer_step(self, trainer: Any, pl_module: Any, optimizer: Any) -> None:
        params = pl_module.named_parameters()
        self.seen.append({n: p.grad.double().norm().item() for n, p in params if p.grad is not None})


class Broken(TensorBoardLogger):
    """Fails at numbers, as where a disk is full."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.tries = 0

    def log_metrics(self, *_: Any, **__: Any) -> None:
        self.tries += 1
        raise OSError("no space left on device")


def test_a_logger_that_fails_warns_once_and_the_others_go_on(tmp_path: Path) -> None:
    good, board, broken = CSVLogger(tmp_path), TensorBoardLogger(tmp_path / "board"), Broken(tmp_path / "broken")
    callback = GradGuard(every_n_steps=5, histograms=True)
    with pytest.warns(GradGuardWarning) as caught:
        run = fit(Plain(), [callback], [broken, good, board], tmp_path)
    (warning,) = [one for one in caught if one.category is GradGuardWarning]
    assert "Broken gets no more of GradGuard's numbers, it failed: OSError: no space" in str(warning.message)
    assert broken.tries == 1
    assert not readers.tensorboard(broken.log_dir).texts
    assert run.global_step == 23
    for found in (readers.csv_log(good.log_dir), readers.tensorboard(board.log_dir)):
        check_totals(found, callback.guard, list(range(23)))
        check_modules(found, callback.guard, list(range(23)))


def test_a_logger_whose_experiment_fails_keeps_its_numbers(tmp_path: Path) -> None:
    class Writer:
        """TensorBoard's, on a server that has gone."""

        def __init__(self, writer: Any) -> None:
            self.writer = writer

        def __getattr__(self, name: str) -> Any:
            if name in ("add_text", "add_histogram_raw"):
                raise ConnectionError("no route to host")
            return getattr(self.writer, name)

    class Board(TensorBoardLogger):
        @property
        def experiment(self) -> Any:
            return Writer(super().experiment)

    good, board = CSVLogger(tmp_path), Board(tmp_path / "board")
    callback = GradGuard(every_n_steps=10)
    with pytest.warns(GradGuardWarning) as caught:
        fit(Sick(), [callback], [board, good], tmp_path, batches=60)  # the first text comes at step 30
    (warning,) = [one for one in caught if one.category is GradGuardWarning]
    assert "Board gets no more of GradGuard's texts, it failed: ConnectionError: no route" in str(warning.message)
    for found in (readers.csv_log(good.log_dir), readers.tensorboard(board.log_dir)):
        check_totals(found, callback.guard, list(range(60)))


def test_a_logger_that_has_no_folder_leaves_the_run_without_a_record(tmp_path: Path) -> None:
    class Offline(CSVLogger):
        @property
        def version(self) -> str:
            raise ConnectionError("no route to host")

        log_dir = str(tmp_path / "logs")

    callback = GradGuard(every_n_steps=5, summary=False)
    with pytest.warns(GradGuardWarning, match="There will be no run record: .*no route to host"):
        run = fit(Plain(), [callback], Offline(tmp_path), tmp_path)
    assert run.global_step == 23


def test_without_a_logger_everything_is_still_measured(tmp_path: Path) -> None:
    callback = GradGuard(every_n_steps=4, histograms=True)
    fit(Logged(), [callback], False, tmp_path)
    assert len(callback.guard.history["grad_norm/total"].steps) == 23
    assert list(tmp_path.iterdir()) == []


def test_no_two_names_share_a_key() -> None:
    key = Keys()
    names = ["a b", "a:b", "a_b", "a_b-2", "/", "//", "", ".", "..", "x" * 400, "x" * 399 + "y", "x" * 300 + "z" * 100]
    keys = [key(name) for name in names]
    assert keys[:4] == ["gradguard/a_b", "gradguard/a_b-2", "gradguard/a_b-3", "gradguard/a_b-2-2"]
    assert len(set(keys)) == len(names)
    assert [key(name) for name in names] == keys
    assert all(len(one) <= LONGEST for one in keys)
    assert not any(part.strip(".") == "" for one in keys for part in one.split("/"))
