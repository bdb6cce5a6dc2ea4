"""The guard in plain loops: what it measures is what the loop had, and the loop does not notice."""

from __future__ import annotations

import gc
import itertools
import weakref

import pytest
import torch
from torch import nn

from gradguard import Finding, Guard, Severity, Symptom
from gradguard.detect import AbstractDetector, Block
from tests import reference
from tests.guard.loops import batches, float32_total, loss_of, mlp, train

OPTIMIZERS = {
    "sgd": lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9),
    "adamw": lambda p: torch.optim.AdamW(p, lr=1e-2),
    "adamw-foreach": lambda p: torch.optim.AdamW(p, lr=1e-2, foreach=True),
    "adamw-fused": lambda p: torch.optim.AdamW(p, lr=1e-2, fused=True),
    "lbfgs": lambda p: torch.optim.LBFGS(p, lr=0.1, max_iter=3),
}


@pytest.mark.parametrize("make", OPTIMIZERS.values(), ids=OPTIMIZERS)
@pytest.mark.parametrize("every_n_steps", [1, 3, 50])
def test_weights_buffers_and_random_numbers_are_bit_identical_with_and_without_the_guard(make, every_n_steps) -> None:
    def run(guarded: bool) -> list[torch.Tensor]:
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Dropout(0.3), nn.ReLU(), nn.Linear(8, 1))
        optimizer = make(model.parameters())
        guard = Guard(model, optimizer, every_n_steps=every_n_steps) if guarded else None
        for batch in batches(12):

            def closure(batch=batch) -> torch.Tensor:
                optimizer.zero_grad()
                loss = loss_of(model, batch)
                loss.backward()
                return loss

            if isinstance(optimizer, torch.optim.LBFGS):
                optimizer.step(closure)
            else:
                loss = closure()
                if guard:
                    guard.record_loss(loss)
                    guard.measure()
                optimizer.step()
        if guard:
            guard.diagnose()
            guard.close()
        state = [v for s in optimizer.state.values() for v in s.values() if isinstance(v, torch.Tensor)]
        return [*model.state_dict().values(), *state, torch.rand(3)]

    for with_guard, without in zip(run(True), run(False), strict=True):
        assert torch.equal(with_guard, without)


def test_history_holds_the_norms_that_the_loop_had() -> None:
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    guard = Guard(model, optimizer, every_n_steps=4)
    expected = train(model, optimizer, batches(10))
    guard.diagnose()
    points = guard.history["grad_norm/total"]
    assert points.steps.tolist() == list(range(1, 11))
    assert points.last.tolist() == pytest.approx(expected, rel=1e-6)
    last = {name: reference.norm(p.grad.numpy(), 2) for name, p in model.named_parameters()}
    for name, norm in last.items():
        assert guard.history[f"grad_norm/{name}"].last[-1].item() == pytest.approx(norm, rel=1e-6)


def test_update_ratios_and_weight_norms_of_sampled_steps_equal_a_full_comparison() -> None:
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    guard = Guard(model, optimizer, every_n_steps=5)
    norms, ratios = [], []
    for batch in batches(10):
        before = model[0].weight.detach().clone()
        train(model, optimizer, [batch])
        norms.append(reference.norm(before.numpy(), 2))
        ratios.append(reference.norm((model[0].weight.detach() - before).numpy(), 2) / norms[-1])
    sampled = [1, 2, 3, 4, 5, 10]
    assert guard.history["update_ratio/0.weight"].steps.tolist() == sampled
    assert guard.history["update_ratio/0.weight"].last.tolist() == pytest.approx(
        [ratios[s - 1] for s in sampled], rel=1e-4
    )
    assert guard.history["weight_norm/0.weight"].last.tolist() == pytest.approx([norms[s - 1] for s in sampled])


def test_accumulation_is_measured_once_with_the_sum_and_the_mean_loss() -> None:
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    guard = Guard(model, optimizer)
    losses = []
    for batch in batches(3):
        loss = loss_of(model, batch)
        losses.append(loss.item())
        guard.record_loss(loss)
        (loss / 3).backward()
    expected = train_only_step(model, optimizer)
    guard.diagnose()
    assert guard.history["grad_norm/total"].last.tolist() == pytest.approx([expected])
    assert guard.history["loss"].last.tolist() == pytest.approx([sum(losses) / 3])


def train_only_step(model: nn.Module, optimizer: torch.optim.Optimizer) -> float:
    total = reference.norm(torch.cat([p.grad.reshape(-1) for p in model.parameters()]).numpy(), 2)
    optimizer.step()
    return total


def test_several_optimizers_are_measured_apart_and_stale_gradients_of_the_other_do_not_count() -> None:
    models = {"generator": mlp(), "discriminator": mlp(hidden=5)}
    optimizers = {name: torch.optim.SGD(model.parameters(), lr=0.1) for name, model in models.items()}
    guard = Guard(models, optimizers)
    expected = {name: [] for name in models}
    for batch in batches(4):
        for name, model in models.items():
            expected[name] += train(model, optimizers[name], [batch])
    guard.diagnose()
    for name in models:
        assert guard.history[f"{name}/grad_norm/total"].last.tolist() == pytest.approx(expected[name], rel=1e-6)
    assert "generator/grad_norm/generator.0.weight" in guard.history
    assert "generator/grad_norm/discriminator.0.weight" not in guard.history


def test_a_parameter_group_added_later_is_measured_from_then_on() -> None:
    model = nn.ModuleDict({"old": mlp(), "new": mlp()})
    optimizer = torch.optim.SGD(model["old"].parameters(), lr=0.1)
    guard = Guard(model, optimizer, every_n_steps=50)
    train(model["old"], optimizer, batches(2))
    optimizer.add_param_group({"params": list(model["new"].parameters())})
    both = nn.Sequential(model["old"], nn.Linear(1, 4), model["new"])
    totals = train(both, optimizer, batches(3))
    guard.diagnose()
    assert guard.history["grad_norm/total"].steps.tolist() == [1, 2, 3, 4, 5]
    assert guard.history["grad_norm/old.0.weight"].last.isfinite().all()
    new = guard.history["grad_norm/new.0.weight"]
    assert new.last.isnan().tolist() == [True, True, False, False, False]
    assert len(totals) == 3


def test_an_unfrozen_parameter_is_measured_from_then_on() -> None:
    model = mlp()
    model[0].requires_grad_(False)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    guard = Guard(model, optimizer)
    train(model, optimizer, batches(2))
    guard.diagnose()
    assert "grad_norm/0.weight" not in guard.history
    model[0].requires_grad_(True)
    train(model, optimizer, batches(2))
    guard.diagnose()
    assert guard.history["grad_norm/0.weight"].last.isnan().tolist() == [True, True, False, False]


def test_tied_and_duplicate_parameters_count_once() -> None:
    model = nn.ModuleDict({"a": nn.Linear(4, 4, bias=False), "b": nn.Linear(4, 4, bias=False)})
    model["b"].weight = model["a"].weight
    with pytest.warns(UserWarning, match="duplicate parameters"):
        optimizer = torch.optim.SGD([*model["a"].parameters(), *model["b"].parameters()], lr=0.1)
    guard = Guard(model, optimizer)
    model["b"](model["a"](torch.ones(2, 4))).sum().backward()
    optimizer.step()
    guard.diagnose()
    expected = reference.norm(model["a"].weight.grad.numpy(), 2)
    assert guard.history["grad_norm/total"].last.item() == pytest.approx(expected)
    assert [key for key in guard.history if key.startswith(("grad_norm/a", "grad_norm/b"))] == ["grad_norm/a.weight"]


def test_sparse_gradients_are_measured() -> None:
    model = nn.Sequential(nn.Embedding(10, 3, sparse=True))
    optimizer = torch.optim.SparseAdam(model.parameters())
    guard = Guard(model, optimizer)
    model(torch.tensor([1, 1, 4])).square().sum().backward()
    expected = reference.norm(model[0].weight.grad.to_dense().numpy(), 2)
    optimizer.step()
    guard.diagnose()
    assert guard.history["grad_norm/0.weight"].last.item() == pytest.approx(expected, rel=1e-6)


def test_measure_takes_the_raw_norm_before_the_loop_clips() -> None:
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    guard = Guard(model, optimizer)
    raw = []
    for batch in batches(20):
        optimizer.zero_grad()
        loss_of(model, batch).backward()
        raw.append(guard.measure().total.item())
        nn.utils.clip_grad_norm_(model.parameters(), 1e-3)
        optimizer.step()
    assert guard.diagnose() == []
    assert guard.history["grad_norm/total"].last.tolist() == pytest.approx(raw)
    assert min(raw) > 1e-3


def test_a_loop_that_clips_is_noticed_with_its_value() -> None:
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    guard = Guard(model, optimizer)
    train(
        model,
        optimizer,
        batches(40),
        after_backward=lambda: nn.utils.clip_grad_norm_(model.parameters(), 0.25),
    )
    (finding,) = guard.diagnose()
    assert finding.symptom is Symptom.CLIPPED_UPSTREAM
    assert finding.severity.value == "info"
    assert finding.evidence["clipped to"] == pytest.approx(0.25, rel=1e-4)
    assert "after a clipping upstream" in guard.summary()
    assert "Verdict: healthy as far as can be seen; the loop clips" in guard.summary()


def test_close_leaves_no_hook_and_keeps_what_was_found() -> None:
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    scaler = torch.amp.GradScaler("cpu")
    before = (dict(vars(scaler)), len(optimizer._optimizer_step_pre_hooks))
    with Guard(model, optimizer, scaler=scaler) as guard:
        train(model, optimizer, batches(3))
    assert (dict(vars(scaler)), len(optimizer._optimizer_step_pre_hooks)) == before
    assert not optimizer._optimizer_step_post_hooks
    train(model, optimizer, batches(2))
    assert guard.history["grad_norm/total"].steps.tolist() == [1, 2, 3]
    assert guard.diagnose() == []
    guard.close()
    Guard(model, optimizer).close()


def test_a_finite_gradient_whose_square_overflows_gets_its_true_norm_once_noticed() -> None:
    model = nn.Linear(2, 1, bias=False)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    guard = Guard(model, optimizer, every_n_steps=2)
    for _ in range(6):
        model.weight.grad = torch.tensor([[3e19, 4e19]])
        optimizer.step()
    guard.diagnose()
    assert guard.history["grad_norm/total"].last.tolist() == pytest.approx([float("inf")] * 2 + [5e19] * 4, rel=1e-6)


def test_a_flush_that_one_rank_asks_for_does_not_change_what_is_measured_next() -> None:
    model = nn.Linear(2, 1, bias=False)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    guard = Guard(model, optimizer, every_n_steps=4)
    for _ in range(6):
        model.weight.grad = torch.tensor([[3e19, 4e19]])
        optimizer.step()
        guard.diagnose()
    assert guard.history["grad_norm/total"].last.isfinite().tolist() == [False] * 4 + [True] * 2


def test_host_reads_are_one_per_flush() -> None:
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    guard = Guard(model, optimizer, every_n_steps=10)
    train(model, optimizer, batches(49))
    assert guard.host_reads == 4
    guard.diagnose()
    assert guard.host_reads == 5
    guard.summary()
    assert guard.host_reads == 5


def test_what_the_guard_holds_does_not_grow_with_the_run() -> None:
    model = nn.Linear(1, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    guard = Guard(model, optimizer, max_points=16, every_n_steps=7)
    for step in range(1, 1001):
        model.weight.grad, model.bias.grad = torch.full((1, 1), float(step)), torch.zeros(1)
        optimizer.step()
    guard.diagnose()
    points = guard.history["grad_norm/total"]
    assert len(points.steps) <= 17
    assert points.steps[-1] == 1000
    assert points.high.max() == 1000
    assert points.low.min() == 1


def test_summary_and_repr_say_what_happened() -> None:
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    guard = Guard(model, optimizer)
    assert "no step was made yet" in guard.summary()
    for batch in batches(3):
        guard.record_loss(loss_of(model, batch))
        train(model, optimizer, [batch])
    text = guard.summary()
    assert "optimizer (SGD): 3 steps, 6 parameters in 3 modules" in text
    assert "gradient norm: median" in text
    assert "loss:" in text
    assert "nothing found, but 3 steps are too few for a verdict" in text
    assert repr(guard) == "Guard(optimizer: 3 steps)"
    guard.close()
    assert repr(guard) == "Guard(optimizer: 3 steps, closed)"


class Inherited(torch.optim.SGD):
    """torch wraps the step of both classes, so that each hook fires twice."""

    def step(self, closure=None):
        return super().step(closure)


@pytest.mark.parametrize("with_closure", [False, True])
def test_a_step_that_calls_its_parents_step_counts_once_also_after_an_exception(with_closure: bool) -> None:
    torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.1)
    model = mlp()
    optimizer = Inherited(model.parameters(), lr=0.1)
    guard = Guard(model, optimizer)
    expected = []

    def step(batch, *, fail: bool = False) -> None:
        def closure() -> torch.Tensor:
            optimizer.zero_grad()
            loss = loss_of(model, batch)
            loss.backward()
            if fail:
                raise KeyError("broken batch")
            return loss

        if with_closure:
            optimizer.step(closure)
        else:
            closure()
            optimizer.step()

    for i, batch in enumerate(batches(6)):
        if i == 3:
            with pytest.raises(KeyError):
                step(batch, fail=True)
            continue
        expected.append(float32_total(model, batch))
        step(batch)
    assert guard.history["grad_norm/total"].last.tolist() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_any_default_dtype(dtype: torch.dtype) -> None:
    torch.set_default_dtype(dtype)
    try:
        model = mlp()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
        guard = Guard(model, optimizer, every_n_steps=5)
        for x, y in batches(40):
            optimizer.zero_grad()
            loss = nn.functional.mse_loss(model(x.to(dtype)), y.to(dtype))
            guard.record_loss(loss)
            loss.backward()
            optimizer.step()
        assert guard.diagnose() == []
        assert len(guard.history["loss"].steps) == 40
    finally:
        torch.set_default_dtype(torch.float32)


def test_any_default_device() -> None:
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    data = batches(40)
    torch.set_default_device("meta")
    try:
        guard = Guard(model, optimizer, every_n_steps=5)
        train(model, optimizer, data)
        assert guard.diagnose() == []
        assert "healthy" in guard.summary()
    finally:
        torch.set_default_device(None)


class Broken(AbstractDetector):
    def observe(self, block: Block) -> None:
        raise RuntimeError("broken detector")

    def findings(self) -> tuple[Finding, ...]:
        return ()


def test_close_takes_the_hooks_off_also_where_the_last_flush_fails(caplog: pytest.LogCaptureFixture) -> None:
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    guard = Guard(model, optimizer, detectors=[Broken()])
    train(model, optimizer, batches(2))
    with pytest.raises(RuntimeError, match="broken detector"):
        guard.close()
    assert not optimizer._optimizer_step_pre_hooks
    train(model, optimizer, batches(1))
    with pytest.raises(KeyError, match="of the loop"), Guard(model, optimizer, detectors=[Broken()]):
        raise KeyError(optimizer.step() or "of the loop")
    assert "The last steps could not be judged" in caplog.text
    Guard(model, optimizer)


def test_parameters_called_total_and_parameters_of_the_root_have_names_of_their_own() -> None:
    class Root(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.total = nn.Parameter(torch.ones(3))

    model = Root()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    guard = Guard(model, optimizer)
    for _ in range(25):
        (model.total * torch.zeros(3)).sum().backward()
        model.total.grad = torch.tensor([3.0, 4.0, 0.0])
        optimizer.step()
    assert guard.history["grad_norm/total"].last.tolist() == [5] * 25
    assert guard.history["grad_norm/param.total"].last.tolist() == [5] * 25


def test_other_orders_of_the_norm_reach_history_and_profile() -> None:
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for p in (1.0, float("inf")):
        with Guard(model, optimizer, norm_type=p) as guard:
            train(model, optimizer, batches(3))
        whole = torch.cat([param.grad.reshape(-1) for param in model.parameters()]).numpy()
        assert guard.history["grad_norm/total"].last[-1].item() == pytest.approx(reference.norm(whole, p), rel=1e-6)


@pytest.mark.parametrize("p", [1.0, 2.0, float("inf")])
def test_entries_of_one_size_have_no_trend_over_depth_whatever_the_widths_and_the_order(p: float) -> None:
    widths = [4096, 1024, 256, 64, 16, 4, 1]
    model = nn.Sequential(*(nn.Linear(a, b, bias=False) for a, b in itertools.pairwise(widths)))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    guard = Guard(model, optimizer, norm_type=p)
    for _ in range(40):
        for param in model.parameters():
            param.grad = torch.full_like(param, 0.01)
        optimizer.step()
    assert guard.diagnose() == []


def test_complex_sparse_and_lazy_parameters() -> None:
    weight = nn.Parameter(torch.randn(3, 3, dtype=torch.complex64))
    model = nn.ParameterList([weight])
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    guard = Guard(model, optimizer)
    (weight.mH @ torch.ones(3, dtype=torch.complex64)).abs().sum().backward()
    expected = reference.norm(weight.grad.resolve_conj().numpy(), 2)
    optimizer.step()
    assert guard.history["grad_norm/total"].last.item() == pytest.approx(expected, rel=1e-6)

    rows = nn.Parameter(torch.eye(3).to_sparse())
    model = nn.ParameterList([rows])
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    guard = Guard(model, optimizer)
    torch.sparse.sum(rows * 2).backward()
    optimizer.step()
    assert guard.history["grad_norm/total"].last.isfinite().all()
    assert guard.history["update_ratio/0"].last.isnan().all()

    lazy = nn.Sequential(nn.LazyLinear(3))
    with pytest.raises(ValueError, match=r"parameters with a shape, 0\.weight is lazy\. Run one batch first"):
        Guard(lazy, torch.optim.SGD(lazy.parameters(), lr=0.1))


def test_steps_that_break_off_leave_no_half_measured_update_and_no_growing_pile() -> None:
    class Fragile(torch.optim.SGD):
        broken = False

        @torch.no_grad()
        def step(self, closure=None):
            for param in self.param_groups[0]["params"]:
                param.add_(param.grad, alpha=-0.1)
            if self.broken:
                raise RuntimeError("broken off")

    model = mlp()
    optimizer = Fragile(model.parameters(), lr=0.1)
    guard = Guard(model, optimizer, every_n_steps=4)
    train(model, optimizer, batches(1))
    optimizer.broken = True
    for batch in batches(30):
        with pytest.raises(RuntimeError):
            train(model, optimizer, [batch])
        assert len(guard._tracks.by_name["optimizer"].rows) <= 4
    optimizer.broken = False
    before = model[0].weight.detach().clone()
    train(model, optimizer, batches(1))
    ratio = reference.norm((model[0].weight.detach() - before).numpy(), 2) / reference.norm(before.numpy(), 2)
    assert guard.history["update_ratio/0.weight"].steps.tolist() == [1, 32]
    assert guard.history["update_ratio/0.weight"].last[-1].item() == pytest.approx(ratio, rel=1e-4)


def test_freezing_for_a_while_lays_nothing_out_anew() -> None:
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    guard = Guard(model, optimizer, every_n_steps=1000)
    for i, batch in enumerate(batches(20)):
        model[0].requires_grad_(i % 2 == 0)
        train(model, optimizer, [batch])
    assert guard.host_reads == 0
    assert guard.history["grad_norm/0.weight"].last[1::2].tolist() == [0] * 10


def test_a_measurement_of_other_parameters_is_dropped_when_the_group_changes() -> None:
    model = mlp()
    optimizer = torch.optim.SGD(model[0].parameters(), lr=0.1)
    guard = Guard(model, optimizer)
    loss_of(model, batches(1)[0]).backward()
    guard.measure()
    optimizer.add_param_group({"params": list(model[2].parameters())})
    optimizer.step()
    assert guard.history["grad_norm/2.weight"].last.item() > 0


def test_a_missing_gradient_is_known_from_a_zero_one() -> None:
    model = nn.ModuleDict({"used": nn.Linear(4, 1), "unused": nn.Linear(4, 1)})
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    seen = []

    class Spy(AbstractDetector):
        def observe(self, block: Block) -> None:
            seen.append(block)

        def findings(self) -> tuple[Finding, ...]:
            return ()

        def __deepcopy__(self, memo: object) -> Spy:
            return self

    guard = Guard(model, optimizer, detectors=[Spy()], every_n_steps=4)
    optimizer.param_groups[0]["lr"] = torch.tensor(0.5)
    for batch in batches(4):
        train(model["used"], optimizer, [batch])
    (block,) = seen
    assert block.missing.tolist() == [[False, False, True, True]] * 4
    assert block.samples.learning_rates.tolist() == [[0.5] * 4] * 4
    assert "too few for a verdict" in guard.summary()


def test_without_a_detector_there_is_no_verdict() -> None:
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    guard = Guard(model, optimizer, detectors=[])
    train(model, optimizer, batches(40))
    assert "Verdict: none, there is no detector." in guard.summary()


def test_float64_numbers_keep_their_digits() -> None:
    model = mlp().double()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    guard = Guard(model, optimizer)
    for param in model.parameters():
        param.grad = torch.full_like(param, 1e39)
    optimizer.step()
    total = 1e39 * sum(p.numel() for p in model.parameters()) ** 0.5
    assert guard.history["grad_norm/total"].last.item() == pytest.approx(total, rel=1e-12)


def test_the_exact_path_is_left_again_and_its_reads_are_counted() -> None:
    model = nn.Linear(2, 1, bias=False)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    guard = Guard(model, optimizer, every_n_steps=2)
    for i in range(8):
        model.weight.grad = torch.tensor([[3e19, 4e19]]) if i < 3 else torch.ones(1, 2)
        optimizer.step()
    # flushes at 2, 4, 6, 8; flags at 3 and 4 (after the Inf of 1 and 2), 5 and 6 (after the exact norm of 3)
    assert guard.host_reads == 4 + 4


def test_a_loss_may_name_its_optimizer() -> None:
    models = {"a": mlp(), "b": mlp()}
    optimizers = {name: torch.optim.SGD(model.parameters(), lr=0.1) for name, model in models.items()}
    guard = Guard(models, optimizers)
    guard.record_loss(1.0, "a")
    guard.record_loss(2.0, "b")
    guard.record_loss(3.0, "b")
    for name in ("b", "a"):
        train(models[name], optimizers[name], batches(1))
    assert guard.history["a/loss"].last.tolist() == [1.0]
    assert guard.history["b/loss"].last.tolist() == [2.5]
    guard.record_loss(7.0)
    guard.record_loss(5.0, "b")
    for name in ("b", "a"):
        train(models[name], optimizers[name], batches(1))
    assert guard.history["b/loss"].last[-1].item() == 5.0
    assert guard.history["a/loss"].last[-1].item() == 7.0


def test_freezing_after_the_guard_was_made_is_no_fault() -> None:
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    guard = Guard(model, optimizer, every_n_steps=10)
    model[0].requires_grad_(False)
    train(model, optimizer, batches(60))
    assert guard.diagnose() == []


def test_zero_grad_between_backward_and_step_is_found() -> None:
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    guard = Guard(model, optimizer)
    train(model, optimizer, batches(60), after_backward=optimizer.zero_grad)
    (finding,) = guard.diagnose()
    assert finding.symptom is Symptom.NO_GRADIENT
    assert finding.severity is Severity.CRITICAL


def test_a_group_may_lose_all_its_parameters() -> None:
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    guard = Guard(model, optimizer)
    train(model, optimizer, batches(2))
    optimizer.param_groups[0]["params"] = []
    for _ in range(3):
        optimizer.step()
    assert guard.diagnose() == []


@pytest.mark.parametrize("with_scaler", [False, True])
def test_a_closed_guard_keeps_no_model_alive(with_scaler: bool) -> None:
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    scaler = torch.amp.GradScaler("cpu") if with_scaler else None
    guard = Guard(model, optimizer, scaler=scaler)
    train(model, optimizer, batches(2))
    guard.close()
    watcher = weakref.ref(model)
    gc.disable()
    try:
        del guard, model, optimizer
        assert watcher() is None
    finally:
        gc.enable()


def test_a_nested_step_that_breaks_off_keeps_nothing_alive() -> None:
    class Big:
        pass

    torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.1)
    model = mlp()
    optimizer = Inherited(model.parameters(), lr=0.1)
    Guard(model, optimizer)

    def loop() -> weakref.ref[Big]:
        batch = Big()

        def closure() -> torch.Tensor:
            raise KeyError(batch)

        with pytest.raises(KeyError):
            optimizer.step(closure)
        return weakref.ref(batch)

    watcher = loop()
    gc.collect()
    assert watcher() is None
