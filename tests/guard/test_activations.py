"""A guard that looks at the layers on sampled steps: what it sees, and that nobody would know that it looks."""

from __future__ import annotations

import copy
import gc
import math
import pickle
import warnings
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch._dynamo.testing
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from gradguard import Guard
from gradguard.detect import AbstractDetector, Activations, Block, Finding
from gradguard.errors import GradGuardWarning
from gradguard.probe import activation_watch, activations
from gradguard.record import read
from tests.guard import activation_workers

SIZE = 6


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


class Seen(AbstractDetector):
    """Keeps what it is shown."""

    shown: list[Activations] = []  # noqa: RUF012  # of the copy that a guard makes of it, too

    def observe(self, block: Block) -> None:
        self.shown += block.activations

    def findings(self) -> list[Finding]:
        return []

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: Any) -> None:
        pass


@pytest.fixture
def shown() -> Iterator[list[Activations]]:
    Seen.shown = []
    yield Seen.shown
    Seen.shown = []


class Conv(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(1, 4, 2), nn.BatchNorm2d(4)
        self.fc1, self.fc2 = nn.Linear(4, 8), nn.Linear(8, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(F.relu(self.norm(self.conv(x.view(-1, 1, 2, 3))), inplace=True), (1, 2))
        return self.fc2(F.dropout(F.gelu(self.fc1(x.flatten(1))), 0.2, self.training))


class Checkpointed(nn.Module):
    def __init__(self, *, reentrant: bool) -> None:
        super().__init__()
        self.first, self.norm, self.second = nn.Linear(SIZE, 5), nn.BatchNorm1d(5), nn.Linear(5, 5)
        self.last, self.reentrant = nn.Linear(5, 1), reentrant

    def forward(self, x: Tensor) -> Tensor:
        def block(x: Tensor) -> Tensor:
            return F.dropout(F.silu(self.second(torch.relu(self.norm(x)))), 0.2)

        return self.last(checkpoint(block, self.first(x), use_reentrant=self.reentrant))


class Sentence(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(SIZE, 2, 8, 0.1, batch_first=True)
        self.encoder, self.out = nn.TransformerEncoder(layer, 2), nn.Linear(SIZE, 1)

    def forward(self, x: Tensor) -> Tensor:
        padding = torch.zeros(len(x) // 2, 2, dtype=torch.bool)
        padding[0, 1] = True
        return self.out(self.encoder(x.view(-1, 2, SIZE), src_key_padding_mask=padding)).mean(1)


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.cell, self.out = nn.LSTMCell(1, 5), nn.Linear(5, 1)

    def forward(self, x: Tensor) -> Tensor:
        h = c = x.new_zeros(len(x), 5)
        for column in x.split(1, dim=1):
            h, c = self.cell(column, (h, c))
        return self.out(torch.relu(h))


def mlp(activation: Callable[[], nn.Module] = nn.ReLU) -> nn.Module:
    return nn.Sequential(nn.Linear(SIZE, 8), activation(), nn.Linear(8, 5), activation(), nn.Linear(5, 1))


MODELS: dict[str, Callable[[], nn.Module]] = {
    "mlp": mlp,
    "in place": lambda: mlp(lambda: nn.ReLU(inplace=True)),
    "conv": Conv,
    "checkpoint": lambda: Checkpointed(reentrant=False),
    "reentrant checkpoint": lambda: Checkpointed(reentrant=True),
    "transformer": Sentence,
    "cell": Recurrent,
}


def batches(n: int, seed: int = 1) -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(seed)
    return [(torch.randn(10, SIZE, generator=generator), torch.randn(10, 1, generator=generator)) for _ in range(n)]


def loss_of(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    out = model(batch[0]).float()
    return (out - batch[1][: len(out)]).square().mean()


def sgd(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)


def trained(model: nn.Module, steps: int = 6, **settings: Any) -> Guard:
    optimizer = sgd(model)
    with Guard(model, optimizer, **settings) as guard:
        for batch in batches(steps):
            optimizer.zero_grad()
            loss_of(model, batch).backward()
            optimizer.step()
    return guard


def hooked(model: nn.Module) -> bool:
    return any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


@pytest.mark.parametrize("name", MODELS)
def test_weights_buffers_and_random_numbers_are_those_of_a_run_without_it(name: str) -> None:
    ends = []
    for asked in (False, True):
        torch.manual_seed(0)
        model = MODELS[name]()
        guard = trained(model, 9, activations=asked)
        assert any(key.startswith("activation/") for key in guard.history) == asked
        ends.append([*model.state_dict().values(), *(p.grad for p in model.parameters()), torch.get_rng_state()])
    assert all(torch.equal(a, b) for a, b in zip(*ends, strict=True))


@pytest.mark.parametrize("name", ["mlp", "conv", "transformer", "cell"])
def test_a_sampled_step_shows_what_one_call_shows(name: str, shown: list[Activations]) -> None:
    model = MODELS[name]()
    torch.manual_seed(3)
    expected = activations(model, batches(1)[0], loss_of)
    torch.manual_seed(3)
    guard = trained(model, 1, detectors=[Seen()])
    (found,) = shown
    assert (found.step, expected.step) == (1, 0)
    for one, other in zip(found.signals, expected.signals, strict=True):
        assert one.layer == other.layer
        for what in ("rms", "grad_rms", "distinct", "varies"):
            assert getattr(one, what) == pytest.approx(getattr(other, what), rel=1e-6, nan_ok=True)
            series, is_known = f"activation/{one.layer}/{what}", not math.isnan(getattr(one, what))
            assert (series in guard.history) == is_known
            assert not is_known or float(guard.history[series].last[0]) == pytest.approx(getattr(one, what))
    for mine, its in zip(found.units, expected.units, strict=True):
        assert (mine.layer, mine.activation, mine.active) == (its.layer, its.activation, its.active)
        assert torch.equal(mine.silent, its.silent)
        share = float(guard.history[f"activation/{mine.layer}/silent"].last[0])
        assert share == pytest.approx(float(mine.silent.double().mean()))
        assert f"activation/{mine.layer}/saturated" in guard.history
        assert float(guard.history[f"activation/{mine.layer}/active"].last[0]) == pytest.approx(mine.active)


def test_steps_are_sampled_like_updates_and_hooks_are_there_for_those_alone() -> None:
    model = mlp()
    optimizer = sgd(model)
    guard = Guard(model, optimizer, every_n_steps=20)
    there = []
    for batch in batches(43):
        there += [hooked(model)]
        loss_of(model, batch).backward()
        optimizer.step()
    steps = [1, 2, 3, 4, 8, 16, 20, 40]
    assert guard.history["activation/0/rms"].steps.tolist() == steps
    assert guard.history["update_ratio/0.weight"].steps.tolist() == steps
    assert [step for step, on in enumerate(there, start=1) if on] == steps
    guard.close()
    again = Guard(model, optimizer)
    assert hooked(model)
    again.close()
    assert not hooked(model)


@pytest.mark.parametrize("name", MODELS)
def test_it_reads_no_oftener_than_without(name: str) -> None:
    reads = [trained(MODELS[name](), 8, activations=asked).host_reads for asked in (False, True)]
    assert reads[0] == reads[1]


@pytest.mark.parametrize("activation", [nn.ReLU, nn.Tanh, nn.PReLU])
def test_a_look_reads_nothing_on_the_host(activation: type[nn.Module]) -> None:
    model = nn.Sequential(nn.Conv1d(1, 4, 2), activation(), nn.Flatten(), nn.Linear(20, 1)).to("meta")
    guard = Guard(model, torch.optim.SGD(model.parameters(), lr=0.1))
    for _ in range(3):
        model(torch.empty(300, 1, SIZE, device="meta")).mean().backward()
        guard.measure()
        track = next(iter(guard._tracks))
        track.before_step(None)
        track.after_step()
    assert [len(one.seen.live) for one in track.layers.looked] == [1, 1, 1]
    assert guard.host_reads == 0
    with pytest.raises(NotImplementedError, match="meta tensor"):
        guard.flush()


def test_micro_batches_are_put_together(shown: list[Activations]) -> None:
    model = mlp()
    optimizer = sgd(model)
    guard = Guard(model, optimizer, detectors=[Seen()])
    data = batches(2)
    expected = activations(model, (torch.cat([x for x, _ in data]), torch.cat([y for _, y in data])), loss_of)
    for batch in data:
        (loss_of(model, batch) / 2).backward()
    optimizer.step()
    guard.flush()
    (found,) = shown
    for one, other in zip(found.signals, expected.signals, strict=True):
        assert (one.rms, one.grad_rms) == pytest.approx((other.rms, other.grad_rms), rel=1e-5)
    for mine, its in zip(found.units, expected.units, strict=True):
        assert torch.equal(mine.silent, its.silent)
        assert (mine.active, mine.entries) == (pytest.approx(its.active), 20)


def test_two_losses_on_one_graph_give_the_root_of_their_squares(shown: list[Activations]) -> None:
    model = mlp()
    optimizer = sgd(model)
    guard = Guard(model, optimizer, detectors=[Seen()])
    x, _ = batches(1)[0]
    sizes = [activations(model, x, loss).signals[0].grad_rms for loss in (_mean, _squares)]
    out = model(x)
    out.mean().backward(retain_graph=True)
    out.square().mean().backward()
    optimizer.step()
    guard.flush()
    assert shown[0].signals[0].grad_rms == pytest.approx(math.hypot(*sizes), rel=1e-5)


def _mean(model: nn.Module, x: Tensor) -> Tensor:
    return model(x).mean()


def _squares(model: nn.Module, x: Tensor) -> Tensor:
    return model(x).square().mean()


def test_a_gradient_penalty_counts_by_its_loss_alone(shown: list[Activations]) -> None:
    model = mlp(nn.Tanh)
    optimizer = sgd(model)
    guard = Guard(model, optimizer, detectors=[Seen()])
    x = batches(1)[0][0].requires_grad_()
    out = model(x)
    (slope,) = torch.autograd.grad(out.sum(), x, create_graph=True)
    at = [m for m in model if isinstance(m, nn.Linear)]
    arrived: list[Tensor] = []
    (out.square().mean() + 0.0 * slope.square().mean()).backward()
    optimizer.step()
    guard.flush()
    expected = activations(copy.deepcopy(model), x.detach(), _squares)  # after the step: by eye
    assert len(at) == len(shown[0].signals)
    assert not arrived
    assert shown[0].signals[-1].grad_rms == pytest.approx(expected.signals[-1].grad_rms, rel=0.5)
    assert shown[0].signals[-1].grad_rms < 0.5  # the sum's is 1


def test_a_step_without_a_backward_pass_has_no_gradients(shown: list[Activations]) -> None:
    model = mlp()
    optimizer = sgd(model)
    guard = Guard(model, optimizer, detectors=[Seen()])
    model(batches(1)[0][0])
    for p in model.parameters():
        p.grad = torch.zeros_like(p)
    optimizer.step()
    guard.flush()
    assert shown[0].signals[0].rms > 0
    assert all(math.isnan(one.grad_rms) for one in shown[0].signals)


@pytest.mark.parametrize("unscaled", [False, True])
def test_gradients_are_those_of_the_loss_whatever_its_scale(unscaled: bool, shown: list[Activations]) -> None:
    for scaler in (None, torch.amp.GradScaler("cpu", init_scale=2.0**10)):
        torch.manual_seed(0)
        model = mlp()
        optimizer = sgd(model)
        guard = Guard(model, optimizer, scaler=scaler, detectors=[Seen()])
        for batch in batches(2):
            optimizer.zero_grad()
            loss = loss_of(model, batch)
            if scaler is None:
                loss.backward()
                optimizer.step()
            else:
                scaler.scale(loss).backward()
                if unscaled:
                    scaler.unscale_(optimizer)
                scaler.step(optimizer)
                scaler.update()
        guard.close()
    assert len(shown) == 4
    for plain, scaled in zip(shown[:2], shown[2:], strict=True):
        for what in ("rms", "grad_rms", "distinct", "varies"):
            sizes = [[getattr(one, what) for one in found.signals] for found in (plain, scaled)]
            assert sizes[0] == pytest.approx(sizes[1], rel=1e-5, nan_ok=True)


def test_what_an_overflow_showed_is_left_out(shown: list[Activations]) -> None:
    model = mlp()
    optimizer = sgd(model)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)
    guard = Guard(model, optimizer, scaler=scaler, detectors=[Seen()])
    for i, batch in enumerate(batches(3)):
        optimizer.zero_grad()
        scaler.scale(loss_of(model, batch) * (math.inf if i == 1 else 1.0)).backward()
        scaler.step(optimizer)
        scaler.update()
    guard.close()
    assert [found.step for found in shown] == [1, 3]


def test_under_autocast_numbers_are_those_of_the_half_precise_pass(shown: list[Activations]) -> None:
    ends = []
    for asked in (False, True):
        torch.manual_seed(0)
        model = mlp()
        optimizer = sgd(model)
        guard = Guard(model, optimizer, detectors=[Seen()], activations=asked)
        for batch in batches(3):
            optimizer.zero_grad()
            with torch.autocast("cpu", torch.bfloat16):
                loss = loss_of(model, batch)
            loss.backward()
            optimizer.step()
        guard.close()
        ends.append(list(model.state_dict().values()))
    assert all(torch.equal(a, b) for a, b in zip(*ends, strict=True))
    torch.manual_seed(0)
    with torch.autocast("cpu", torch.bfloat16):
        first = mlp()[0](batches(1)[0][0])
    assert first.dtype is torch.bfloat16
    expected = float(first.detach().double().square().mean().sqrt())
    assert shown[0].signals[0].rms == pytest.approx(expected, rel=1e-6)


def test_of_a_game_each_one_is_seen_in_its_own_step(shown: list[Activations]) -> None:
    generator = nn.Sequential(nn.Linear(3, 5), nn.ReLU(), nn.Linear(5, SIZE), nn.Tanh())
    critic = mlp()
    models = {"g": generator, "d": critic}
    optimizers = {name: torch.optim.SGD(model.parameters(), lr=0.0) for name, model in models.items()}
    guard = Guard(models, optimizers, detectors=[Seen()])
    noise = torch.randn(10, 3)
    for real, _ in batches(4):
        optimizers["d"].zero_grad()
        fake = generator(noise)
        (critic(fake.detach()).mean() - critic(100.0 * real).mean()).backward()
        optimizers["d"].step()
        optimizers["g"].zero_grad()
        (-1000.0 * critic(fake).mean()).backward()
        optimizers["g"].step()
    guard.close()
    of_d = [found for found in shown if found.signals[0].layer.startswith("d.")]
    of_g = [found for found in shown if found.signals[0].layer.startswith("g.")]
    assert (len(of_d), len(of_g)) == (4, 4)
    # Each step of the critic has two calls, and no gradient of the generator's loss, a thousand times as large.
    assert {one.entries for found in of_d for one in found.units} == {20}
    assert max(found.signals[-1].grad_rms for found in of_d) == pytest.approx(0.1, rel=1e-5)
    assert {one.layer for one in of_d[0].signals} == {"d.0", "d.2", "d.4"}
    # The generator's output is none of its hidden units, though another layer takes it.
    assert [[(one.layer, one.is_output) for one in found.units] for found in of_g] == [
        [("g.0", False), ("g.2", True)]
    ] * 4
    assert all(one.grad_rms > 0 for found in of_g for one in found.signals)
    assert {one.entries for found in of_g for one in found.units} == {10}


def test_layers_that_are_called_before_another_ones_step_and_after_it_are_seen_together(
    shown: list[Activations],
) -> None:
    features, head, judge = mlp()[:4], nn.Linear(5, 2), nn.Linear(5, 1)
    model = nn.ModuleDict({"features": features, "head": head})
    optimizers = {
        "judge": torch.optim.SGD(judge.parameters(), lr=0.1),
        "model": torch.optim.SGD(model.parameters(), lr=0.1),
    }
    guard = Guard({"model": model, "judge": judge}, optimizers, detectors=[Seen()])
    for x, _ in batches(2):
        found = features(x)  # for both
        optimizers["judge"].zero_grad()
        judge(found.detach()).mean().backward()
        optimizers["judge"].step()
        optimizers["model"].zero_grad()
        (head(found).square().mean() - judge(found).mean()).backward()
        optimizers["model"].step()
    guard.close()
    of_model = [[one.layer for one in found.signals] for found in shown if len(found.signals) > 1]
    assert of_model == [["model.features.0", "model.features.2", "model.head"]] * 2


class Squashed(nn.Module):
    """Ends with a function, not a module."""

    def __init__(self, end: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.body, self.end = mlp(), end

    def forward(self, x: Tensor) -> Tensor:
        return self.end(self.body(x))


@pytest.mark.parametrize("end", [torch.relu, torch.sigmoid, lambda x: 5 * torch.tanh(x)])
def test_what_a_model_ends_with_is_seen_as_its_output(
    end: Callable[[Tensor], Tensor], shown: list[Activations]
) -> None:
    model = Squashed(end)
    with torch.no_grad():
        model.body[4].bias.fill_(-50.0)
    trained(model, 1, detectors=[Seen()])
    (hidden, also_hidden, output) = shown[0].units
    assert [one.is_output for one in (hidden, also_hidden, output)] == [False, False, True]
    assert (output.layer, output.entries, output.active) == ("body.4", 10, 0.0)
    assert bool(output.silent.all()) is not output.is_bounded
    assert bool(output.saturated.all()) is output.is_bounded
    assert not hooked(model)


def test_what_one_model_gives_another_of_the_same_optimizer_is_no_output(shown: list[Activations]) -> None:
    encoder, decoder = nn.Sequential(nn.Linear(SIZE, 4), nn.ReLU()), nn.Sequential(nn.Linear(4, 1), nn.Tanh())
    optimizer = torch.optim.SGD([*encoder.parameters(), *decoder.parameters()], lr=0.1)
    with Guard({"encoder": encoder, "decoder": decoder}, optimizer, detectors=[Seen()]):
        for x, y in batches(1):
            (decoder(encoder(x)) - y).square().mean().backward()
            optimizer.step()
    assert [(one.layer, one.is_output) for one in shown[0].units] == [("encoder.0", False)]


def test_two_optimizers_of_one_backward_pass_both_see_it(shown: list[Activations]) -> None:
    model = mlp()
    optimizers = {"a": torch.optim.SGD(model[0].parameters(), 0.1), "b": torch.optim.SGD(model[2:].parameters(), 0.1)}
    guard = Guard(model, optimizers, detectors=[Seen()])
    for batch in batches(2):
        loss_of(model, batch).backward()
        for optimizer in optimizers.values():
            optimizer.step()
    guard.close()
    layers = sorted([one.layer for one in found.signals] for found in shown)
    assert layers == [["0"], ["0"], ["2", "4"], ["2", "4"]]
    assert all(one.grad_rms > 0 for found in shown for one in found.signals)
    assert {name.split("/")[0] for name in guard.history if "activation/" in name} == {"a", "b"}


def test_a_layer_that_two_train_is_looked_at_once() -> None:
    model = mlp()
    optimizers = [torch.optim.SGD(model.parameters(), 0.1), torch.optim.SGD(model[0].parameters(), 0.1)]
    guard = Guard(model, optimizers)
    for batch in batches(2):
        loss_of(model, batch).backward()
        for optimizer in optimizers:
            optimizer.step()
    guard.close()
    assert "0/activation/0/rms" in guard.history
    assert not any(name.startswith("1/activation/") for name in guard.history)


def test_with_lbfgs_the_first_evaluation_counts(shown: list[Activations]) -> None:
    model = mlp()
    optimizer = torch.optim.LBFGS(model.parameters(), max_iter=4)
    guard = Guard(model, optimizer, detectors=[Seen()])
    expected = activations(model, batches(1)[0], loss_of)

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = loss_of(model, batches(1)[0])
        loss.backward()
        return loss

    optimizer.step(closure)
    guard.close()
    assert shown[0].signals[0].grad_rms == pytest.approx(expected.signals[0].grad_rms, rel=1e-5)
    assert shown[0].units[0].entries == 10


def test_calls_in_eval_and_without_gradients_are_none_of_the_steps(shown: list[Activations]) -> None:
    model = mlp()
    optimizer = sgd(model)
    guard = Guard(model, optimizer, detectors=[Seen()])
    (x, y), *_ = batches(1)
    with torch.no_grad():
        model(x)
    model.eval()
    model(x)
    model.train()
    activations(model, x, _mean)
    torch.func.grad(lambda w: torch.func.functional_call(model, w, (x,)).mean())(dict(model.named_parameters()))
    loss_of(model, (x, y)).backward()
    optimizer.step()
    guard.close()
    assert [one.entries for one in shown[0].units] == [10, 10]


def test_a_transformer_keeps_its_fast_path_in_a_validation_between_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    model = Sentence()
    optimizer = sgd(model)
    guard = Guard(model, optimizer)
    fused: list[int] = []
    plain = torch._transformer_encoder_layer_fwd
    monkeypatch.setattr(torch, "_transformer_encoder_layer_fwd", lambda *a: fused.append(1) or plain(*a))
    batch = batches(1)[0]
    model.eval()
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # of torch's, about nested tensors
        model(batch[0])  # its nested tensors need it
    assert len(fused) == 2
    model.train()
    loss_of(model, batch).backward()
    optimizer.step()
    assert guard.history["activation/encoder.layers.1.linear1/active"].steps.tolist() == [1]
    guard.close()
    assert not hooked(model)


needs_no_gpu = pytest.mark.skipif(torch.cuda.is_available(), reason="calls replicas where there is a GPU")


@pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated:DeprecationWarning")  # Inductor's own
@pytest.mark.parametrize(
    "wrap", [torch.compile, nn.parallel.DistributedDataParallel, pytest.param(nn.DataParallel, marks=needs_no_gpu)]
)
def test_names_are_those_of_the_bare_model(wrap: Any, shown: list[Activations], tmp_path: Path) -> None:
    model = mlp()
    if wrap is nn.parallel.DistributedDataParallel:
        torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/sync", rank=0, world_size=1)
    try:
        compiles = not isinstance(wrap, type)  # Lightning puts a function of its own in the place of torch.compile
        whole = wrap(model, backend="eager") if compiles else wrap(model)
        optimizer = sgd(model)
        guard = Guard(whole, optimizer, detectors=[Seen()])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of torch's own, as it compiles
            warnings.simplefilter("error", GradGuardWarning)
            for batch in batches(6):
                loss_of(whole, batch).backward()
                optimizer.step()
            guard.close()
    finally:
        if wrap is nn.parallel.DistributedDataParallel:
            torch.distributed.destroy_process_group()
    seen = [[one.layer for one in found.signals] for found in shown]
    assert seen == ([] if compiles else [["0", "2", "4"]] * 4)


@pytest.mark.parametrize("name", ["mlp", "conv", "cell", "transformer"])
def test_a_compiled_loss_has_no_hooks_in_its_graph(name: str, shown: list[Activations]) -> None:
    model = MODELS[name]()
    if name == "transformer":
        model.encoder.enable_nested_tensor = False
    torch._dynamo.reset()
    optimizer = sgd(model)
    guard = Guard(model, optimizer, detectors=[Seen()])
    counter = torch._dynamo.testing.CompileCounter()
    compiled = torch.compile(lambda batch: loss_of(model, batch), backend=counter, fullgraph=True)
    for batch in batches(18):
        optimizer.zero_grad()
        compiled(batch).backward()
        optimizer.step()
    assert counter.frame_count == 1
    guard.close()
    assert not shown
    assert not hooked(model)


def test_copies_and_pickles_of_a_model_that_is_listened_to_are_on_their_own(shown: list[Activations]) -> None:
    for kind in (mlp, Sentence):
        model = kind()
        optimizer = sgd(model)
        guard = Guard(model, optimizer, detectors=[Seen()])
        batch = batches(1)[0]
        for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
            loss_of(twin, batch).backward()  # nobody hears it
        loss_of(model, batch).backward()
        copy.deepcopy(model)
        optimizer.step()
        guard.close()
    assert [one.entries for one in shown[0].units] == [10, 10]


def test_a_step_that_an_exception_broke_off_leaves_no_trouble(shown: list[Activations]) -> None:
    model = Sentence()
    optimizer = sgd(model)
    guard = Guard(model, optimizer, detectors=[Seen()])
    batch = batches(1)[0]
    with pytest.raises(RuntimeError):
        model(torch.randn(10, SIZE + 1))
    assert not hooked(model.encoder.layers[0].linear1)
    for _ in range(6):
        loss_of(model, batch).backward()
        optimizer.step()
    guard.close()
    assert len(shown) == 4


def test_a_look_that_fails_is_said_once_and_training_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*args: Any) -> None:
        raise torch.OutOfMemoryError("no memory left")

    monkeypatch.setattr("gradguard.probe.seen._norms", fails)
    model = mlp()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        guard = trained(model, 6)
    ours = [str(w.message) for w in caught if issubclass(w.category, GradGuardWarning)]
    assert ours == ["Activations are not looked at any more: OutOfMemoryError: no memory left."]
    assert guard.steps == {"optimizer": 6}
    assert not any(name.startswith("activation/") for name in guard.history)
    assert not hooked(model)


def test_no_graph_is_held_and_a_guard_that_goes_leaves_hooks_that_do_nothing() -> None:
    model = mlp()
    guard = Guard(model, sgd(model))
    leaf = torch.randn(10, SIZE).requires_grad_()
    made_of_it = leaf * 1.0
    node = weakref.ref(made_of_it)
    model(made_of_it)  # as a validation with gradients on, or a batch that failed
    del made_of_it
    gc.collect()
    assert node() is None
    gone = weakref.ref(guard)
    del guard
    gc.collect()
    assert gone() is None
    loss_of(model, batches(1)[0]).backward()


def test_layers_that_come_later_are_seen(shown: list[Activations]) -> None:
    model = nn.Sequential(nn.LazyLinear(4), nn.ReLU(), nn.Linear(4, 1))
    model(batches(1)[0][0])
    optimizer = sgd(model)
    guard = Guard(model, optimizer, detectors=[Seen()])
    for step, batch in enumerate(batches(4)):
        if step == 2:
            model.insert(2, nn.Linear(4, 4))
            optimizer.add_param_group({"params": list(model[2].parameters())})
            guard._tracks.flush(together=True)
        loss_of(model, batch).backward()
        optimizer.step()
    guard.close()
    assert [one.layer for one in shown[0].signals] == ["0", "2"]
    assert [one.layer for one in shown[3].signals] == ["0", "2", "3"]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_each_of_two_processes_sees_its_own_batch(tmp_path: Path) -> None:
    torch.multiprocessing.spawn(activation_workers.run, args=(2, str(tmp_path)), nprocs=2)
    ranks = [torch.load(tmp_path / f"{rank}.pt") for rank in range(2)]
    for rank in ranks:
        assert len(rank["alone"]) == 3 * 4 - 1 + 2 * 3
        for how in ("ddp", "fsdp2"):
            assert rank[how].keys() == rank["alone"].keys()
            for name, values in rank["alone"].items():
                assert rank[how][name] == pytest.approx(values, rel=1e-5, nan_ok=True), (how, name)
    assert ranks[0]["ddp"]["activation/0/rms"] != pytest.approx(ranks[1]["ddp"]["activation/0/rms"], rel=1e-3)


def test_the_record_keeps_it(tmp_path: Path) -> None:
    guard = trained(mlp(), 10, run_dir=tmp_path / "run")
    kept = read(tmp_path / "run").history
    names = [name for name in guard.history if name.startswith("activation/")]
    assert len(names) == 3 * 4 - 1 + 2 * 3  # the last layer has one unit, which differs from no other
    for name in names:
        assert torch.equal(kept[name].last.nan_to_num(-1), guard.history[name].last.nan_to_num(-1)), name


def test_a_guard_that_was_loaded_samples_on() -> None:
    model = mlp()
    optimizer = sgd(model)
    first = Guard(model, optimizer, every_n_steps=4)
    for batch in batches(6):
        loss_of(model, batch).backward()
        optimizer.step()
    state = first.state_dict()
    first.close()
    second = Guard(model, optimizer, every_n_steps=4)
    second.load_state_dict(state)
    for batch in batches(6):
        loss_of(model, batch).backward()
        optimizer.step()
    assert second.history["activation/0/rms"].steps.tolist() == [1, 2, 3, 4, 8, 12]


@pytest.mark.parametrize("wrong", [1, None, "yes"])
def test_something_else_than_a_bool_is_refused(wrong: object) -> None:
    model = mlp()
    with pytest.raises(TypeError, match=r"Guard needs activations to be True or False, got"):
        Guard(model, sgd(model), activations=wrong)


def test_a_layer_of_which_a_look_fails_is_dropped_alone(
    monkeypatch: pytest.MonkeyPatch, shown: list[Activations]
) -> None:
    axis_of = activation_watch.axis_of

    def fails(layer: nn.Module, output: Tensor) -> int:
        if output.shape[-1] == 1:
            raise IndexError("no such axis")
        return axis_of(layer, output)

    monkeypatch.setattr(activation_watch, "axis_of", fails)
    model = mlp()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        trained(model, 6, detectors=[Seen()])
    ours = [str(w.message) for w in caught if issubclass(w.category, GradGuardWarning)]
    layers = [name for name, part in model.named_modules() if isinstance(part, nn.Linear)]
    assert len(shown) == 4
    assert all([signal.layer for signal in one.signals] == layers[:-1] for one in shown)
    assert ours == [f"Activations at {layers[-1]} are not looked at any more: IndexError: no such axis."]


@pytest.mark.parametrize("reentrant", [False, True])
def test_what_a_checkpoint_runs_again_counts_once(reentrant: bool, shown: list[Activations]) -> None:
    model = Checkpointed(reentrant=reentrant)
    optimizer = sgd(model)
    guard = Guard(model, optimizer, detectors=[Seen()])
    loss_of(model, batches(1)[0]).backward()
    optimizer.step()
    guard.close()
    assert {unit.entries for unit in shown[0].units} == {10}
    assert "second" in [signal.layer for signal in shown[0].signals]


def test_a_pickle_of_a_model_that_is_listened_to_names_nothing_of_gradguard() -> None:
    model = Conv()
    guard = Guard(model, sgd(model))
    assert hooked(model)
    plain = nn.Sequential(*model.children())
    written = pickle.dumps(plain)
    guard.close()
    assert b"gradguard" not in written
    again = pickle.loads(written)
    assert torch.equal(again[2](torch.ones(3, 4)), model.fc1(torch.ones(3, 4)))
