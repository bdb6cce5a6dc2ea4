"""The activation that follows is found however it is written, and its formula is the papers'."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gradguard import init
from gradguard import nn as gnn
from gradguard.init.gains import fans, gain_of
from tests.init.modules import Tagger, is_as_before, of_weights, values


class Between(nn.Module):
    """Two layers, and something between them."""

    def __init__(self, between: Callable[[Tensor], Tensor], width: int = 8, first: nn.Module | None = None) -> None:
        super().__init__()
        self.first, self.between, self.last = first or nn.Linear(8, 8), between, nn.Linear(width, 8)
        self.norm = nn.BatchNorm1d(8)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.between(self.first(x)))


def second_moment(curve: Callable[[np.ndarray], np.ndarray]) -> float:
    """E f(z)^2 by Gauss and Hermite."""
    points, weights = np.polynomial.hermite_e.hermegauss(150)
    return float((weights * curve(points) ** 2).sum() / weights.sum())


def sigmoid(z: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-z))


SQRT2 = math.sqrt(2)
FOLLOWS = {
    "module": (nn.ReLU(), "relu", "kaiming", SQRT2),
    "in place": (nn.ReLU(inplace=True), "relu", "kaiming", SQRT2),
    "functional": (F.relu, "relu", "kaiming", SQRT2),
    "method": (lambda x: x.relu_(), "relu", "kaiming", SQRT2),
    "clamp": (lambda x: x.clamp(min=0), "relu", "kaiming", SQRT2),
    "clamp_min": (lambda x: x.clamp_min(0.0), "relu", "kaiming", SQRT2),
    "leaky": (nn.LeakyReLU(0.2), "leaky_relu", "kaiming", math.sqrt(2 / 1.04)),
    "prelu": (nn.PReLU(init=0.5), "prelu", "kaiming", math.sqrt(2 / 1.25)),
    "tanh": (torch.tanh, "tanh", "xavier", 5 / 3),
    "sigmoid": (nn.Sigmoid(), "sigmoid", "xavier", 1.0),
    "selu": (F.selu, "selu", "kaiming", 1.0),
    "elu": (F.elu, "elu", "kaiming", second_moment(lambda z: np.where(z > 0, z, np.exp(np.minimum(z, 0)) - 1)) ** -0.5),
    "silu": (F.silu, "silu", "kaiming", second_moment(lambda z: z * sigmoid(z)) ** -0.5),
    "softplus": (F.softplus, "softplus", "kaiming", second_moment(lambda z: np.log1p(np.exp(z))) ** -0.5),
    "hardtanh": (F.hardtanh, "hardtanh", "kaiming", 0.5160585509617335**-0.5),
    "gelu": (F.gelu, "gelu", "kaiming", 1.5335304623389026),
    "quick gelu": (lambda x: x * torch.sigmoid(1.702 * x), "gelu", "kaiming", 1.5335304623389026),
    "gelu by hand": (
        lambda x: 0.5 * x * (1 + torch.tanh(0.7979 * (x + 0.044715 * x.pow(3)))),
        "gelu",
        "kaiming",
        1.5335304623389026,
    ),
    "silu by hand": (lambda x: x * x.sigmoid(), "silu", "kaiming", second_moment(lambda z: z * sigmoid(z)) ** -0.5),
    "relu6": (lambda x: x.clamp(0, 6), "hardtanh", "kaiming", SQRT2),
    "rms norm by hand": (
        lambda x: torch.relu(x * (x.pow(2).mean(-1, keepdim=True) + 1e-6).rsqrt()),
        "relu",
        "kaiming",
        SQRT2,
    ),
    "steep softplus": (
        lambda x: F.softplus(x, beta=5),
        "softplus",
        "kaiming",
        second_moment(lambda z: np.log1p(np.exp(5 * z)) / 5) ** -0.5,
    ),
    "rrelu": (lambda x: F.rrelu(x, 0.5, 0.6, training=True), "rrelu", "kaiming", math.sqrt(2 / (1 + 0.55**2))),
    "noise by hand": (lambda x: F.relu(x * torch.bernoulli(torch.full_like(x, 0.5))), "relu", "kaiming", SQRT2),
    "a product": (lambda x: F.relu(x * x.roll(1, 1)), "linear", "xavier", 1.0),
    "none": (lambda x: x, "linear", "xavier", 1.0),
    "softmax": (lambda x: x.softmax(-1), "linear", "xavier", 1.0),
    "through shapes": (lambda x: F.relu(x.reshape(2, 2, 8).transpose(0, 1).flatten(0, 1)), "relu", "kaiming", SQRT2),
    "through a norm": (lambda x: torch.tanh(F.layer_norm(x, (8,))), "tanh", "xavier", 5 / 3),
    "through a sum": (lambda x: F.relu(x + 1.0).contiguous(), "relu", "kaiming", SQRT2),
    "through dropout": (lambda x: F.relu(F.dropout(x, 0.5)), "relu", "kaiming", SQRT2),
    "two at once": (lambda x: x.sigmoid() * x.tanh(), "sigmoid and tanh", "xavier", 1.0),
}


@pytest.mark.parametrize("how", FOLLOWS)
def test_what_follows_is_found(how: str) -> None:
    between, name, rule, gain = FOLLOWS[how]
    model = Between(between)
    first, last = of_weights(init.for_activations_(model, torch.randn(4, 8)))
    kind, wanted = first.note.split(": ")
    assert (kind, wanted.split(",")[0]) == (name, rule)
    assert float(wanted.split()[-1]) == pytest.approx(gain, rel=2e-3)
    assert last.note == "linear: xavier, gain 1"


def test_gains_are_exact() -> None:
    for curve, other in ((F.silu, lambda z: z * sigmoid(z)), (F.softplus, lambda z: np.log1p(np.exp(z)))):
        assert gain_of(curve) == pytest.approx(second_moment(other) ** -0.5, rel=1e-6)
    assert gain_of(F.relu) == pytest.approx(SQRT2, rel=1e-6)


def test_glu_halves_the_width() -> None:
    (first, _) = of_weights(init.for_activations_(Between(F.glu, 4), torch.randn(4, 8)))
    assert first.note.startswith("glu: kaiming, gain 1.84")


@pytest.mark.parametrize(
    ("layer", "fan_in", "fan_out"),
    [
        (nn.Linear(6, 9), 6, 9),
        (nn.Conv1d(4, 8, 3), 12, 24),
        (nn.Conv2d(4, 8, (3, 5), groups=2), 30, 60),
        (nn.Conv2d(4, 8, 4, stride=2), 64, 32),
        (nn.Conv3d(2, 3, 2), 16, 24),
        (nn.ConvTranspose2d(8, 4, 4, stride=2), 32, 64),
    ],
)
def test_fans_count_what_an_output_sums_up_and_where_an_input_goes(layer: nn.Module, fan_in: int, fan_out: int) -> None:
    assert fans(layer) == (fan_in, fan_out)
    size = (
        [layer.in_features] if isinstance(layer, nn.Linear) else [layer.in_channels] + [24] * (layer.weight.dim() - 2)
    )
    plain = layer.double().requires_grad_(False)
    plain.weight.fill_(1.0)
    plain.bias.zero_()
    x = torch.ones(1, *size, dtype=torch.float64, requires_grad=True)
    y = plain(x)
    middle = tuple(n // 2 for n in y.shape[2:])
    assert y[(0, 0, *middle)].item() == pytest.approx(fan_in)  # each weight is 1: how many are summed up
    y.sum().backward()
    assert x.grad[(0, 0, *(n // 2 for n in x.shape[2:]))].item() == pytest.approx(fan_out)


@pytest.mark.parametrize("distribution", ["normal", "uniform"])
def test_a_million_draws(distribution: str) -> None:
    model = nn.Sequential(nn.Linear(1000, 1000), nn.ReLU(), nn.Conv1d(1000, 1000, 1), nn.Tanh())
    changes = init.for_activations_(
        model, torch.randn(1000, 1000), distribution=distribution, generator=torch.Generator().manual_seed(0)
    )
    kurtosis = 3.0 if distribution == "normal" else 1.8
    for change, layer, std in zip(
        of_weights(changes), (model[0], model[2]), (math.sqrt(2 / 1000), 5 / 3 / math.sqrt(1000)), strict=True
    ):
        sample = layer.weight.detach().double()
        assert abs(sample.mean()) < 4 * std / 1000
        assert abs(sample.var() / std**2 - 1) < 4 * math.sqrt((kurtosis - 1) / 1e6)
        assert change.after == pytest.approx(sample.std().item(), rel=1e-5)
        assert not layer.bias.any()


def test_signals_keep_their_size_through_a_deep_net() -> None:
    for activation, depth in ((nn.ReLU, 30), (nn.Tanh, 30), (nn.GELU, 5), (nn.SiLU, 5)):
        net = nn.Sequential(*(m for _ in range(depth) for m in (nn.Linear(256, 256), activation())))
        x = torch.randn(64, 256)
        shrunk = net(x).std()
        init.for_activations_(net, x)
        assert 0.3 < net(x).square().mean().sqrt() < 3
        assert shrunk < 0.1 * net(x).std()


def test_recurrent_layers_and_layers_that_do_not_run_are_left_alone() -> None:
    model = nn.ModuleDict({"tagger": Tagger(), "unused": nn.Linear(3, 3)})
    model.forward = lambda x: model["tagger"](x)  # type: ignore[assignment]
    before = values(model)
    changes = init.for_activations_(model, torch.randn(5, 2, 3), bias=None)
    assert [(c.name, c.note.split(":")[0]) for c in changes] == [
        ("tagger.embed.weight", "relu"),
        ("tagger.head.weight", "linear"),
    ]
    changed = {name for name, value in values(model).items() if not torch.equal(value, before[name])}
    assert changed == {"tagger.embed.weight", "tagger.head.weight"}


@pytest.mark.parametrize("name", ["for_activations_", "lsuv_", "describe"])
def test_a_trial_leaves_no_trace(name: str) -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.norm, self.drop = nn.Conv1d(3, 8, 1), nn.BatchNorm1d(8), nn.Dropout(0.5)
            self.rnn = gnn.LSTM(8, 8, num_layers=2, dropout=0.5, batch_first=True)
            self.head = nn.Linear(8, 2)

        def forward(self, x: Tensor, *, scale: float = 1.0) -> Tensor:
            y = self.drop(torch.relu(self.norm(self.conv(x))))
            return self.head(self.rnn(y.transpose(1, 2))[0]) * scale

    model = Net().eval()
    model.drop.train()
    example = {"x": torch.randn(4, 3, 6), "scale": 2.0}
    buffers, state = {k: v.clone() for k, v in model.named_buffers()}, torch.get_rng_state()
    before = values(model)
    found = getattr(init, name)(model, example, **({} if name == "describe" else {"generator": torch.Generator()}))
    assert all(torch.equal(model.get_buffer(k), v) for k, v in buffers.items())
    assert torch.equal(torch.get_rng_state(), state)
    assert [m.training for m in (model, model.drop, model.norm)] == [False, True, False]
    assert model.rnn.dropout == 0.5
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
    assert is_as_before(model, before) == (name == "describe")
    assert len(found) >= 2
    assert all(p.grad is None for p in model.parameters())


@pytest.mark.filterwarnings("ignore:Initializing zero-element tensors")
def test_a_layer_alone_and_tied_layers_and_empty_ones() -> None:
    layer, x = nn.Linear(4, 4), torch.randn(3, 4)
    old = layer.bias.abs().max().item()
    change, bias = init.for_activations_(layer, x)
    assert (change.name, change.note) == ("weight", "linear: xavier, gain 1")
    assert bias == ("bias", "largest", pytest.approx(old), 0.0, "")
    assert init.describe(layer, x)[0].follows.name == "linear"
    first, second = nn.Linear(64, 64), nn.Linear(64, 64)
    second.weight = first.weight
    changes = init.for_activations_(nn.Sequential(first, nn.ReLU(), second, nn.Tanh()), torch.randn(3, 64))
    assert [change.name for change in changes] == ["0.weight", "0.bias", "2.bias"]
    change = changes[0]
    assert change.after == pytest.approx(first.weight.std().item(), rel=1e-3)
    assert not first.bias.any()
    assert not second.bias.any()
    (only,) = init.for_activations_(nn.Sequential(nn.Linear(0, 4), nn.ReLU()), torch.randn(2, 0))
    assert only.name == "0.bias"


@pytest.mark.parametrize("name", ["for_activations_", "lsuv_", "describe"])
def test_buffers_that_are_replaced_inputs_that_are_changed_and_dropout_of_any_kind(name: str) -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.p = nn.Linear(4, 64), nn.Linear(64, 4), 0.5
            self.register_buffer("mean", torch.zeros(4))

        def forward(self, x: Tensor) -> Tensor:
            x -= 1
            self.mean = 0.9 * self.mean + x.mean(0)
            self.register_buffer("late", x.mean(0))
            x = x + 0 * torch.rand(1)  # noise of its own
            return self.b(F.dropout(torch.relu(self.a(x)), self.p, self.training))

    net, x = Net(), torch.randn(200, 4)
    mean, given, state = net.mean, x.clone(), torch.get_rng_state()
    getattr(init, name)(net, x, **({} if name == "describe" else {"generator": torch.Generator()}))
    assert torch.equal(torch.get_rng_state(), state)
    assert net.mean is mean
    assert not mean.any()
    assert "late" not in net.state_dict()
    assert torch.equal(x, given)
    if name == "lsuv_":
        net.eval()
        assert net(x.clone()).std().item() == pytest.approx(1.0, abs=0.06)


@pytest.mark.parametrize("name", ["for_activations_", "lsuv_", "describe"])
def test_spectral_normalisation_takes_no_step(name: str) -> None:
    net = nn.Sequential(nn.utils.parametrizations.spectral_norm(nn.Linear(6, 6)), nn.ReLU())
    before = values(net)
    if name == "describe":
        init.describe(net, torch.randn(3, 6))
    else:
        with pytest.raises(ValueError, match="is computed by _SpectralNorm"):
            getattr(init, name)(net, torch.randn(30, 6))
    assert is_as_before(net, before)


def test_a_layer_that_fails_and_is_caught_hides_nothing() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(4, 4), nn.Linear(9, 4)

        def forward(self, x: Tensor) -> Tensor:
            with contextlib.suppress(RuntimeError):
                self.b(x)
            return torch.relu(self.a(x))

    changes = init.for_activations_(Net(), torch.randn(3, 4))
    assert [c.note.split(":")[0] for c in changes if c.name == "a.weight"] == ["relu"]
