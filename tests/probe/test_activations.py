"""Sizes, silent and saturated units, held against float64 arithmetic on a forward pass that is written out."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from gradguard.probe import Activations, Units, activations
from gradguard.probe.activation_watch import ActivationWatch
from gradguard.probe.slopes import slope_of


def squared(model: nn.Module, batch: Tensor) -> Tensor:
    return model(batch).square().mean()


def rms(x: np.ndarray) -> float:
    return float(np.sqrt(np.mean(np.square(x))))


def made(kind: Callable[[], nn.Module], seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return kind()


def of(found: Activations, layer: str) -> Units:
    (one,) = [units for units in found.units if units.layer == layer]
    return one


def arrays(module: nn.Module) -> tuple[np.ndarray, np.ndarray]:
    return module.weight.detach().double().numpy(), module.bias.detach().double().numpy()


class Functional(nn.Module):
    def __init__(self, function: Callable[[Tensor], Tensor], inputs: int = 5, hidden: int = 7) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(inputs, hidden), nn.Linear(hidden, 3)
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.function(self.first(x)))


def test_sizes_and_gradients_are_those_of_the_unrolled_network() -> None:
    model = made(lambda: nn.Sequential(nn.Linear(5, 7), nn.ReLU(), nn.Linear(7, 6), nn.Tanh(), nn.Linear(6, 3)))
    x = torch.randn(11, 5)
    found = activations(model, x, squared)
    (w1, b1), (w2, b2), (w3, b3) = (arrays(model[i]) for i in (0, 2, 4))
    y1 = x.double().numpy() @ w1.T + b1
    y2 = np.maximum(y1, 0) @ w2.T + b2
    y3 = np.tanh(y2) @ w3.T + b3
    g3 = 2 * y3 / y3.size
    g2 = (g3 @ w3) * (1 - np.tanh(y2) ** 2)
    g1 = (g2 @ w2) * (y1 > 0)
    assert [one.layer for one in found.signals] == ["0", "2", "4"]
    for one, y, g in zip(found.signals, (y1, y2, y3), (g1, g2, g3), strict=True):
        assert one.rms == pytest.approx(rms(y), rel=1e-6)
        assert one.grad_rms == pytest.approx(rms(g), rel=1e-5)
        assert one.distinct == pytest.approx(rms(y - y.mean(1, keepdims=True)) / rms(y), rel=1e-5)
        assert one.varies == pytest.approx(rms(y - y.mean(0)) / rms(y), rel=1e-5)
        varied = y - y.mean(0)
        assert one.apart == pytest.approx(rms(varied - varied.mean(1, keepdims=True)) / rms(varied), rel=1e-5)
    assert [math.isnan(one.pull) for one in found.signals] == [True, True, False]
    assert found.signals[-1].pull == pytest.approx(2 * np.mean(y3**2), rel=1e-5)
    relu, tanh = found.units
    assert (relu.layer, relu.activation, tanh.layer, tanh.activation) == ("0", "relu", "2", "tanh")
    assert relu.active == pytest.approx(np.mean(y1 > 0), abs=1e-9)
    assert tanh.active == pytest.approx(np.mean(1 - np.tanh(y2) ** 2 > 0.1), abs=1e-9)
    assert relu.entries == tanh.entries == 11


# Each function with its derivative, written out, whether it saturates, and the largest slope.
def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def numeric(function: Callable[[Tensor], Tensor]) -> Callable[[np.ndarray], np.ndarray]:
    def slope(x: np.ndarray) -> np.ndarray:
        at = torch.from_numpy(x).requires_grad_()
        return torch.autograd.grad(function(at).sum(), at)[0].numpy()

    return slope


ONE_SIDED: dict[str, tuple[Callable[[Tensor], Tensor], str]] = {
    "relu": (F.relu, "relu"),
    "method": (lambda x: x.relu(), "relu"),
    "in place": (lambda x: x.relu_(), "relu"),
    "clamp": (lambda x: x.clamp(min=0), "relu"),
    "relu6": (F.relu6, "relu6"),
    "threshold": (lambda x: F.threshold(x, 0.5, -1.0), "threshold"),
    "gelu": (F.gelu, "gelu"),
    "gelu tanh": (lambda x: F.gelu(x, approximate="tanh"), "gelu"),
    "silu": (F.silu, "silu"),
    "silu in place": (lambda x: F.silu(x, inplace=True), "silu"),
    "mish": (F.mish, "mish"),
    "hardswish": (F.hardswish, "hardswish"),
    "softplus": (lambda x: F.softplus(x, beta=2.0), "softplus"),
    "elu": (lambda x: F.elu(x, alpha=0.5), "elu"),
    "elu in place": (lambda x: F.elu(x, alpha=2.0, inplace=True), "elu"),
    "celu": (lambda x: F.celu(x, alpha=2.0), "celu"),
    "celu in place": (lambda x: F.celu(x, alpha=0.5, inplace=True), "celu"),
    "selu": (F.selu, "selu"),
}
BOUNDED: dict[str, tuple[Callable[[Tensor], Tensor], str]] = {
    "tanh": (torch.tanh, "tanh"),
    "sigmoid": (torch.sigmoid, "sigmoid"),
    "sigmoid in place": (lambda x: x.sigmoid_(), "sigmoid"),
    "hardtanh": (F.hardtanh, "hardtanh"),
    "hardsigmoid": (F.hardsigmoid, "hardsigmoid"),
}
GRID = np.linspace(-12, 12, 240_001)


def probed(function: Callable[[Tensor], Tensor], taken: Tensor) -> Units:
    """Units whose values before the function are the columns of ``taken``."""
    units = taken.shape[1]
    model = Functional(function, units, units).double()
    with torch.no_grad():
        model.first.weight.copy_(torch.eye(units))
        model.first.bias.zero_()
    (found,) = activations(model, taken).units
    return found


@pytest.mark.parametrize("name", ONE_SIDED)
def test_silent_is_where_the_slope_stays_small_below(name: str) -> None:
    function, called = ONE_SIDED[name]
    slope = numeric(lambda x: function(x * 1))(GRID)
    shown = np.flatnonzero(np.abs(slope) >= 0.01 * slope.max())[0]  # the first that is not small
    edge = GRID[shown]
    # A unit each that lies below the edge for all of the batch, touches it once, and lies above.
    below, above = edge - 0.01 - np.arange(6) / 2, edge + 0.01 + np.arange(6) / 2
    taken = np.stack([below, np.where(np.arange(6) == 3, edge + 0.01, below), above], axis=1)
    found = probed(function, torch.from_numpy(taken))
    assert found.activation == called
    assert found.silent.tolist() == [True, False, False]
    assert not found.saturated.any()
    ceiling = 6.0 if called == "relu6" else math.inf
    assert found.active == pytest.approx(np.mean((taken > edge) & (taken < ceiling)))


@pytest.mark.parametrize("name", BOUNDED)
def test_saturated_is_where_the_slope_is_small_at_95_percent(name: str) -> None:
    function, called = BOUNDED[name]
    slope = numeric(lambda x: function(x * 1))(GRID)
    steep = GRID[slope >= 0.1 * slope.max()]
    low, high = steep[0] - 0.01, steep[-1] + 0.01
    taken = np.where(np.arange(200)[:, None] % 2, low, high) * np.ones(4)
    for unit, inside in enumerate((0, 10, 11, 200)):  # of 200
        taken[:inside, unit] = np.where(np.arange(inside) % 2, low + 0.02, high - 0.02)
    found = probed(function, torch.from_numpy(taken))
    assert found.activation == called
    assert found.saturated.tolist() == [True, True, False, False]
    assert not found.silent.any()
    assert found.active == pytest.approx((10 + 11 + 200) / 800)


@pytest.mark.parametrize(
    ("function", "active"),
    [
        (F.leaky_relu, 1.0),
        (lambda x: F.leaky_relu(x, 0.001), 0.5),
        (nn.PReLU(dtype=torch.float64), 1.0),
        (F.rrelu, 1.0),
    ],
)
def test_a_leaky_unit_is_never_silent(function: Callable[[Tensor], Tensor], active: float) -> None:
    found = probed(function, torch.tensor([[-5.0, 5.0], [-7.0, 7.0]], dtype=torch.float64))
    assert not found.silent.any()
    assert found.active == active


def test_a_nan_is_no_silence() -> None:
    spoiled = torch.tensor([[1.0, torch.nan], [1.0, 1.0]], dtype=torch.float64)
    found = probed(lambda x: F.relu(x * spoiled), torch.full((2, 2), -1.0, dtype=torch.float64))
    assert found.silent.tolist() == [True, False]


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4)
        self.conv2, self.bn2 = nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4)
        self.conv3, self.bn3 = nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4)
        self.relu, self.pool, self.fc = nn.ReLU(inplace=True), nn.MaxPool2d(2), nn.Linear(4 * 16, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool(self.relu(self.bn1(self.conv1(x))))
        out = self.bn3(self.conv3(self.relu(self.bn2(self.conv2(x)))))
        out += x
        return self.fc(F.dropout(self.relu(out).flatten(1), 0.5, self.training))


def test_a_residual_network_of_convolutions() -> None:
    model = made(Residual)
    with torch.no_grad():
        for norm, dead in ((model.bn1, 1), (model.bn2, 2)):
            norm.weight[dead], norm.bias[dead] = 0.0, -1.0
    found = activations(model, torch.randn(6, 3, 8, 8), squared)
    assert [one.layer for one in found.signals] == ["conv1", "conv2", "conv3", "fc"]
    assert [(one.layer, one.activation) for one in found.units] == [("bn1", "relu"), ("bn2", "relu"), ("bn3", "relu")]
    assert [one.silent.tolist() for one in found.units] == [
        [False, True, False, False],
        [False, False, True, False],
        [False] * 4,
    ]
    assert [one.entries for one in found.units] == [6 * 64, 6 * 16, 6 * 16]


@pytest.mark.parametrize("batched", [True, False])
def test_channels_are_the_units_of_a_convolution(batched: bool) -> None:
    model = made(lambda: nn.Sequential(nn.Conv1d(2, 5, 3), nn.ReLU(), nn.ConvTranspose1d(5, 3, 3), nn.ReLU()))
    model.append(nn.Conv1d(3, 1, 1))
    with torch.no_grad():
        model[0].bias[3] = -100.0
    x = torch.randn(*((4, 2, 9) if batched else (2, 9)))
    found = activations(model, x, squared)
    assert of(found, "0").silent.tolist() == [False, False, False, True, False]
    assert len(of(found, "2").silent) == 3
    y = F.conv1d(x.double(), *(p.detach().double() for p in model[0].parameters()))
    mean = y.mean(-2, keepdim=True)
    assert found.signals[0].distinct == pytest.approx(rms((y - mean).numpy()) / rms(y.numpy()), rel=1e-5)


@pytest.mark.parametrize("norm_first", [True, False])
@pytest.mark.parametrize("activation", ["relu", "gelu"])
def test_a_transformer(norm_first: bool, activation: str) -> None:
    layer = nn.TransformerEncoderLayer(8, 2, 12, 0.1, activation, norm_first=norm_first, batch_first=True)
    model = made(lambda: nn.TransformerEncoder(layer, 2, enable_nested_tensor=False))
    with torch.no_grad():
        model.layers[1].linear1.bias[5] = -100.0
    x = torch.randn(3, 4, 8)
    for mode in (True, False):
        found = activations(model.train(mode), x, squared)
        parts = ("self_attn.out_proj", "linear1", "linear2")
        assert [one.layer for one in found.signals] == [f"layers.{i}.{part}" for i in range(2) for part in parts]
        assert all(one.grad_rms > 0 for one in found.signals)
        assert [(one.layer, one.activation) for one in found.units] == [
            ("layers.0.linear1", activation),
            ("layers.1.linear1", activation),
        ]
        assert found.units[1].silent.nonzero().tolist() == [[5]]
        assert found.units[1].entries == 12


def test_nothing_is_said_of_the_models_own_output() -> None:
    model = nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 4), nn.Sigmoid())
    assert [one.layer for one in activations(model, torch.randn(5, 4), squared).units] == ["0"]


class Gated(nn.Module):
    def __init__(self, gate: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.gate, self.up, self.down, self.function = nn.Linear(4, 6), nn.Linear(4, 6), nn.Linear(6, 4), gate

    def forward(self, x: Tensor) -> Tensor:
        return self.down(self.up(x) * self.function(self.gate(x)))


def test_a_bounded_factor_is_a_gate_and_not_an_activation() -> None:
    assert activations(Gated(torch.sigmoid), torch.randn(5, 4), squared).units == ()
    assert of(activations(Gated(F.silu), torch.randn(5, 4), squared), "gate").activation == "silu"


def test_features_that_get_another_form_are_still_the_units() -> None:
    model = nn.Sequential(nn.Linear(4, 12), nn.Unflatten(1, (3, 2, 2)), nn.ReLU(), nn.Conv2d(3, 1, 1))
    with torch.no_grad():
        model[0].bias[7] = -100.0
    x = torch.randn(5, 4)
    found = of(activations(model, x, squared), "0")
    assert found.silent[7]
    assert found.silent.tolist() == (model[0](x) <= 0).all(0).tolist()


class Twice(nn.Module):
    """One layer, called for each step of a loop."""

    def __init__(self, steps: int) -> None:
        super().__init__()
        self.layer, self.out, self.steps = nn.Linear(4, 4), nn.Linear(4, 1), steps

    def forward(self, x: Tensor) -> Tensor:
        for _ in range(self.steps):
            x = F.relu(self.layer(x))
        return self.out(x)


def test_calls_of_one_layer_are_put_together() -> None:
    model = made(lambda: Twice(3))
    with torch.no_grad():
        model.layer.weight[2] = torch.tensor([0.0, 0.0, 0.0, -1.0])  # fires in the first call alone
        model.layer.bias[2], model.layer.bias[3] = 0.0, 1.0
        model.layer.weight[3] = 0.0
    x = torch.randn(6, 4)
    x[0, 3] = -5.0
    found = activations(model, x, squared)
    w, b = arrays(model.layer)
    h, outputs = x.double().numpy(), []
    for _ in range(3):
        outputs.append(h @ w.T + b)
        h = np.maximum(outputs[-1], 0)
    assert found.signals[0].rms == pytest.approx(rms(np.stack(outputs)), rel=1e-6)
    one = of(found, "layer")
    assert one.silent.tolist() == (np.stack(outputs) <= 0).all((0, 1)).tolist()
    assert not one.silent[2]
    assert one.active == pytest.approx(np.mean(np.stack(outputs) > 0), abs=1e-9)
    assert one.entries == 18


def test_of_many_calls_some_are_looked_at() -> None:
    found = activations(made(lambda: Twice(70)), torch.randn(6, 4), squared)
    assert of(found, "layer").entries == 6 * 18  # the first 16, the 32nd and the 64th; the last one's by the layer out


def test_a_recurrent_module_and_what_takes_its_output() -> None:
    class Reader(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rnn, self.out = nn.LSTM(3, 5, batch_first=True), nn.Linear(5, 1)

        def forward(self, x: Tensor) -> Tensor:
            return self.out(torch.relu(self.rnn(x)[0][:, -1]))

    model, x = made(Reader), torch.randn(4, 7, 3)
    found = activations(model, x, squared)
    output, _ = model.rnn(x)
    assert found.signals[0].rms == pytest.approx(rms(output.detach().double().numpy()), rel=1e-5)
    assert of(found, "rnn").silent.tolist() == (output[:, -1] <= 0).all(0).tolist()


@pytest.mark.parametrize("reentrant", [False, True])
def test_in_a_checkpoint_it_sees_less_and_breaks_nothing(reentrant: bool) -> None:
    class Checkpointed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm, self.a, self.b = nn.BatchNorm1d(4), nn.Linear(4, 4), nn.Linear(4, 2)
            self.c = nn.Linear(2, 2)

        def forward(self, x: Tensor) -> Tensor:
            inner = lambda x: F.gelu(self.b(F.relu(self.a(self.norm(x)))))  # noqa: E731
            return self.c(checkpoint(inner, x, use_reentrant=reentrant))

    model, x = made(Checkpointed), torch.randn(6, 4, requires_grad=True)
    found = activations(model, x, squared)
    assert {"c"} <= {one.layer for one in found.signals}
    if not reentrant:
        assert [one.layer for one in found.signals] == ["a", "b", "c"]
        assert [(one.layer, one.activation) for one in found.units] == [("a", "relu")]  # gelu's input is packed
        y = model.a(model.norm(x)).detach()
        assert found.signals[0].rms == pytest.approx(rms(y.double().numpy()), rel=1e-5)


def test_large_outputs_are_compared_by_a_sample() -> None:
    model = made(lambda: nn.Conv2d(1, 8, 3, padding=1))
    x = torch.randn(32, 1, 48, 48)
    found = activations(model, x, squared).signals[0]
    y = model(x).detach().double().numpy()
    assert y.size > 8 * (1 << 16)
    assert found.rms == pytest.approx(rms(y), rel=1e-5)
    assert found.distinct == pytest.approx(rms(y - y.mean(1, keepdims=True)) / rms(y), rel=0.02)
    assert found.varies == pytest.approx(rms(y - y.mean((0, 2, 3), keepdims=True)) / rms(y), rel=0.02)
    assert found.pull == pytest.approx(2 * np.mean(y**2), rel=0.02)


def test_the_pull_of_the_output_is_the_losss_derivative_by_its_size() -> None:
    model = made(lambda: nn.Sequential(nn.Linear(5, 7), nn.ReLU(), nn.Linear(7, 4)))
    x, y = torch.randn(16, 5), torch.randint(4, (16,))
    scale = torch.ones((), requires_grad=True)
    (slope,) = torch.autograd.grad(F.cross_entropy(scale * model(x).double(), y), scale)
    pull = activations(model, x, lambda model, x: F.cross_entropy(model(x), y)).signals[-1].pull
    assert pull == pytest.approx(float(slope), rel=1e-4)


def test_the_pull_adds_up_over_the_batches_of_a_step_and_is_of_the_loss_before_its_scale() -> None:
    model = made(lambda: nn.Sequential(nn.Linear(5, 7), nn.Tanh(), nn.Linear(7, 4)))
    watch, parts = ActivationWatch(), torch.randn(2, 16, 5)
    watch.on((name, layer) for name, layer in model.named_modules() if isinstance(layer, nn.Linear))
    for part in parts:
        (model(part).square().mean() / 2 * 1024).backward()
    seen = watch.collect(torch.tensor(1024.0))
    assert seen is not None
    last = seen.read(seen.tensors()).signals[-1]
    assert last.pull == pytest.approx(float(model(parts).detach().square().mean()) * 2, rel=1e-5)


def test_units_that_move_as_one_are_not_apart() -> None:
    model = made(lambda: nn.Linear(4, 6))  # biases differ
    nn.init.constant_(model.weight, 0.3)
    (found,) = activations(model, torch.randn(8, 4)).signals
    assert found.distinct > 0.1
    assert found.apart < 1e-5


def test_of_very_many_units_some_entries_are_left() -> None:
    model = made(lambda: nn.Linear(3, 40_000))
    x = torch.randn(4, 33, 3)
    found = activations(model, x).signals[0]
    y = model(x).detach().double().numpy()
    assert found.varies == pytest.approx(rms(y - y.mean((0, 1))) / rms(y), rel=0.1)


def test_units_that_say_the_same_are_not_distinct() -> None:
    model = nn.Linear(4, 6)
    nn.init.constant_(model.weight, 0.3)
    nn.init.constant_(model.bias, 0.1)
    alike = activations(model, torch.randn(8, 4)).signals[0]
    assert alike.distinct < 1e-6
    assert alike.varies > 0.1
    same = activations(model, torch.ones(8, 4)).signals[0]
    assert same.varies < 1e-6
    assert math.isnan(same.grad_rms)
    one = activations(nn.Linear(4, 1), torch.randn(1, 4)).signals[0]
    assert math.isnan(one.distinct)
    assert math.isnan(one.varies)
    zeros = activations(nn.Linear(4, 3, bias=False), torch.zeros(2, 4)).signals[0]
    assert math.isnan(zeros.distinct)


def test_half_precision_is_summed_up_in_float32() -> None:
    model = nn.Linear(4, 6).to(torch.bfloat16)
    x = 1e19 * torch.ones(64, 4, dtype=torch.bfloat16)
    y = model(x).detach().double().numpy()
    assert activations(model, x / 1e10).signals[0].rms == pytest.approx(rms(y) / 1e10, rel=1e-2)


def state_of(model: nn.Module) -> list[Tensor]:
    return [*(t.clone() for t in model.state_dict().values()), torch.get_rng_state()]


def test_the_model_is_as_it_was() -> None:
    model = made(lambda: nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(), nn.Linear(8, 1)))
    model[1].eval()
    before, modes = state_of(model), [m.training for m in model.modules()]
    model[0].weight.grad = kept = torch.ones_like(model[0].weight)
    fired: list[int] = []
    model[4].weight.register_hook(lambda _: fired.append(1))
    with torch.no_grad():
        activations(model, torch.randn(6, 4, generator=torch.Generator().manual_seed(1)), squared)
    assert all(torch.equal(a, b) for a, b in zip(before, state_of(model), strict=True))
    assert [m.training for m in model.modules()] == modes
    assert model[0].weight.grad is kept
    assert torch.equal(kept, torch.ones_like(kept))
    assert model[4].weight.grad is None
    assert not fired
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


def test_a_batch_without_a_loss_is_what_the_model_is_called_with() -> None:
    model, x = nn.Bilinear(3, 4, 5), (torch.randn(6, 3), torch.randn(6, 4))
    expected = rms(model(*x).detach().double().numpy())
    named = {"input1": x[0], "input2": x[1]}
    assert [activations(model, of).signals[0].rms for of in (x, list(x), named)] == pytest.approx([expected] * 3)
    assert activations(model, x).signals[0].layer == ""
    assert "(root): output" in str(activations(model, x))


def test_wrappers_leave_the_names_alone_and_a_compiled_model_is_run_as_before() -> None:
    model = made(lambda: nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2)))
    x = torch.randn(5, 4)
    expected = activations(model, x, squared)
    for wrapped in (torch.compile(model, backend="eager"), torch.optim.swa_utils.AveragedModel(model)):
        found = activations(wrapped, x, squared)
        assert found.signals == expected.signals
        assert [one.layer for one in found.units] == ["0"]


@pytest.mark.parametrize(
    ("model", "loss_fn", "error", "message"),
    [
        (nn.ReLU(), None, ValueError, "no linear layer, convolution or recurrent module of ReLU was"),
        (nn.Linear(4, 2), lambda model, x: 1.0, TypeError, "needs loss_fn to give a tensor, got float"),
        (nn.Linear(4, 2), lambda model, x: model(x), ValueError, r"needs one loss, got shape \(5, 2\)"),
    ],
)
def test_what_can_not_be_looked_at_is_said(model: nn.Module, loss_fn: Any, error: type, message: str) -> None:
    with pytest.raises(error, match=message):
        activations(model, torch.randn(5, 4), loss_fn)
    assert not any(m._forward_hooks for m in model.modules())


def test_an_error_of_the_model_is_the_models() -> None:
    model = nn.Sequential(nn.Linear(4, 2), nn.Linear(3, 1))
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        activations(model, torch.randn(5, 4))
    assert not any(m._forward_hooks for m in model.modules())


def test_parametrized_and_lazy_and_shared_layers() -> None:
    normed = nn.utils.parametrizations.weight_norm(nn.Linear(4, 4))
    model = nn.Sequential(normed, nn.ReLU(), normed, nn.ReLU(), nn.LazyLinear(2))
    x = torch.randn(5, 4)
    model(x)
    found = activations(copy.deepcopy(model), x, squared)
    assert [one.layer for one in found.signals] == ["0", "4"]
    assert of(found, "0").entries == 10


def test_an_unknown_function_is_passed_over() -> None:
    assert slope_of(torch.ones(1, requires_grad=True).softmax(0).grad_fn) is None
    assert activations(Functional(F.softsign), torch.randn(6, 5), squared).units == ()


class Mish(torch.autograd.Function):
    """A user's own, with the name of one of torch's."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return F.mish(x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return grad


class Elu(Mish):
    pass


@pytest.mark.parametrize(
    "function",
    [
        Mish.apply,
        Elu.apply,
        lambda x: x.clamp(min=torch.zeros(7)),
        lambda x: x.clamp_min(torch.zeros(7)),
        lambda x: x.clamp(min=0, max=1),
        lambda x: torch.clamp(x, max=1),
    ],
)
def test_what_only_looks_like_an_activation_is_passed_over(function: Any) -> None:
    found = activations(made(lambda: Functional(function)), torch.randn(4, 5), squared)
    assert [one.layer for one in found.signals] == ["first", "second"]
    assert not found.units


def test_a_layer_that_gives_one_number_is_passed_over() -> None:
    class Margin(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.randn(3, 5))

        def forward(self, x: Tensor) -> Tensor:
            return F.cross_entropy(F.linear(x, self.weight), torch.zeros(len(x), dtype=torch.long))

    found = activations(made(lambda: nn.Sequential(nn.Linear(4, 5), Margin())), torch.randn(6, 4), lambda m, x: m(x))
    assert [one.layer for one in found.signals] == ["0"]


@pytest.mark.parametrize("batched", [False, True])
def test_channels_are_the_units_of_a_convolution_of_ones_own(batched: bool) -> None:
    class Standardised(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.randn(6, 1, 3, 3))

        def forward(self, x: Tensor) -> Tensor:
            return F.conv2d(x, self.weight - self.weight.mean())

    model = made(lambda: nn.Sequential(Standardised(), nn.ReLU(), nn.Conv2d(6, 2, 3)))
    found = activations(model, torch.randn(*(4,) * batched, 1, 9, 9), squared)
    assert of(found, "0").silent.shape == (6,)


def test_an_output_that_is_fed_back_is_no_hidden_activation() -> None:
    encoder, decoder = nn.Linear(6, 3), nn.Linear(3, 6)
    model = nn.ModuleDict({"encoder": encoder, "decoder": decoder})

    def cycle(model: nn.Module, batch: Tensor) -> Tensor:
        again = torch.sigmoid(decoder(torch.tanh(encoder(batch))))
        return torch.tanh(encoder(again)).square().mean()

    found = activations(model, torch.randn(5, 6), cycle)
    assert [(units.layer, units.activation) for units in found.units] == [("encoder", "tanh")]


@pytest.mark.parametrize("module", [nn.RNN, nn.RNNCell])
@pytest.mark.parametrize("nonlinearity", ["tanh", "relu"])
def test_the_states_of_networks_without_gates_are_what_an_activation_gave(
    module: type[nn.Module], nonlinearity: str
) -> None:
    rnn = module(3, 4, nonlinearity=nonlinearity)
    with torch.no_grad():
        for name, param in rnn.named_parameters():
            param.copy_(torch.tensor([-50.0, 0.5, 50.0, 0.5]) if name.startswith("bias_ih") else 0.01 * param)
    x = torch.randn(2, 5, 3) if module is nn.RNN else torch.randn(5, 3)
    (found,) = activations(rnn, x).units
    assert (found.layer, found.activation, found.entries) == ("", nonlinearity, 10 if module is nn.RNN else 5)
    silent, saturated = ([1, 0, 0, 0], [0, 0, 0, 0]) if nonlinearity == "relu" else ([0, 0, 0, 0], [1, 0, 1, 0])
    assert found.silent.tolist() == [bool(one) for one in silent]
    assert found.saturated.tolist() == [bool(one) for one in saturated]


def test_a_layer_is_one_whatever_its_weights_are_called() -> None:
    class Kernel(nn.Module):
        def __init__(self, *shape: int) -> None:
            super().__init__()
            self.kernel = nn.Parameter(torch.randn(shape))

        def forward(self, x: Tensor) -> Tensor:
            return x @ self.kernel if self.kernel.ndim == 2 else x + self.kernel

    found = activations(nn.Sequential(Kernel(1, 7, 4), Kernel(4, 6), nn.ReLU(), Kernel(6, 2)), torch.randn(5, 7, 4))
    assert [one.layer for one in found.signals] == ["1", "3"]  # a table of places is none
    assert [one.layer for one in found.units] == ["1"]
