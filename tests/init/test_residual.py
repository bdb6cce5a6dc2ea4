"""Residual branches are found by what flows where, and are nothing at first."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gradguard import init
from tests.init.modules import is_as_before, of_weights, values


class Basic(nn.Module):
    """The block of ResNet-18, with a projection where sizes change."""

    def __init__(self, width: int, out: int) -> None:
        super().__init__()
        stride = 1 if width == out else 2
        self.conv1, self.bn1 = nn.Conv2d(width, out, 3, stride, 1, bias=False), nn.BatchNorm2d(out)
        self.conv2, self.bn2 = nn.Conv2d(out, out, 3, 1, 1, bias=False), nn.BatchNorm2d(out)
        self.skip = nn.Identity()
        if stride > 1:
            self.skip = nn.Sequential(nn.Conv2d(width, out, 1, stride, bias=False), nn.BatchNorm2d(out))

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        y += self.skip(x)
        return F.relu(y)


class Scaled(nn.Module):
    """A pre-norm block whose branch goes through a gate, a learned scale and dropout."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.up, self.down = nn.LayerNorm(4), nn.Linear(4, 8), nn.Linear(8, 4)
        self.gate, self.scale = nn.Linear(4, 4), nn.Parameter(torch.ones(4))

    def forward(self, x: Tensor) -> Tensor:
        y = self.down(F.gelu(self.up(self.norm(x))))
        return x + F.dropout(y * self.scale, 0.5, self.training)


def zeroed(model: nn.Module, x: Tensor) -> list[str]:
    changes = init.zero_residual_(model, x)
    assert all(change.after == 0.0 for change in changes)
    names = [change.name for change in of_weights(changes)]
    biases = [name.removesuffix("weight") + "bias" for name in names]
    assert {change.name for change in changes} == {*names, *(name for name in biases if name in model.state_dict())}
    return names


def test_the_last_norm_of_a_resnets_branches_not_that_of_its_projections() -> None:
    stem = nn.Sequential(nn.Conv2d(3, 8, 3, 1, 1), nn.BatchNorm2d(8), nn.ReLU())
    net = nn.Sequential(stem, Basic(8, 8), Basic(8, 16), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 4))
    x = torch.randn(4, 3, 8, 8)
    before = values(net)
    assert zeroed(net, x) == ["1.bn2.weight", "2.bn2.weight"]
    changed = {name for name, value in values(net).items() if not torch.equal(value, before[name])}
    assert changed == {"1.bn2.weight", "2.bn2.weight"}
    y = net[0](x)
    assert torch.equal(net[1](y), y)  # after a ReLU, and through another one: the same
    assert torch.equal(net[2](y), F.relu(net[2].skip(y)))


@pytest.mark.parametrize("norm_first", [True, False])
def test_a_transformers_attention_and_feed_forward(norm_first: bool) -> None:
    layer = nn.TransformerEncoderLayer(16, 4, 32, batch_first=True, norm_first=norm_first)
    net = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
    x = torch.randn(2, 5, 16)
    names = ["self_attn.out_proj.weight", "linear2.weight"]
    assert zeroed(net, x) == [f"layers.{k}.{name}" for k in range(2) for name in names]
    if norm_first:
        assert torch.equal(net(x), x)
    else:
        torch.testing.assert_close(net(x), F.layer_norm(x, (16,)), rtol=1e-4, atol=1e-4)


def test_through_scales_and_dropout_and_gradients_pass() -> None:
    net, x = nn.Sequential(*(Scaled() for _ in range(12))), torch.randn(2, 4, requires_grad=True)
    assert zeroed(net, x) == [f"{k}.down.weight" for k in range(12)]
    y = net(x)
    y.sum().backward()
    assert torch.equal(y, x)
    assert torch.equal(x.grad, torch.ones_like(x))
    assert all(net[k].down.weight.grad.abs().max() > 0 for k in range(12))


class Mixes(nn.Module):
    """Sums that are no residual branches."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how, self.a, self.b, self.c = how, nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 4)
        self.position = nn.Parameter(torch.randn(4))

    def forward(self, x: Tensor) -> Tensor:
        if self.how == "two ways alike":
            return torch.tanh(self.a(x)) + self.b(x)
        if self.how == "a bias":
            return self.a(x) + self.position
        if self.how == "no weights on the way":
            return self.a(x) + torch.tanh(self.a.bias) + x.mean()
        h = torch.zeros_like(x)  # a recurrent net written out
        for x_t in (x, 2 * x, 3 * x):
            h = torch.tanh(self.a(x_t) + self.b(h))
        return self.c(h)


@pytest.mark.parametrize("how", ["two ways alike", "a bias", "recurrent"])
def test_other_sums_are_left_alone(how: str) -> None:
    model = Mixes(how)
    before = values(model)
    with pytest.raises(ValueError, match="found none on the example input"):
        init.zero_residual_(model, torch.randn(2, 4))
    assert is_as_before(model, before)


def test_the_first_branch_may_begin_at_the_input_and_twice_is_once() -> None:
    block: Callable[[], nn.Module] = Scaled
    net, x = block(), torch.randn(3, 4)
    assert zeroed(net, x) == zeroed(net, x) == ["down.weight"]
    assert not net.down.bias.any()


class Sums(nn.Module):
    """Blocks of many kinds, each adding something to its input."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how, self.norm = how, nn.LayerNorm(4)
        self.a, self.b, self.c, self.d = (nn.Linear(4, 4) for _ in range(4))
        self.position = nn.Parameter(torch.randn(4))

    def forward(self, x: Tensor) -> Tensor:
        if self.how == "squeeze and excite":
            h = self.b(torch.relu(self.a(x)))
            return x + h * torch.sigmoid(self.d(torch.relu(self.c(h.mean(0, keepdim=True)))))
        if self.how == "parallel":
            n = self.norm(x)
            return x + self.b(torch.tanh(self.a(n))) + self.d(torch.relu(self.c(n)))
        if self.how == "attention without projection":
            v, k, q = self.a(x), self.b(x), self.c(x)
            return x + (q @ k.T).softmax(-1) @ v
        if self.how == "never 0":
            return x + torch.sigmoid(self.a(x))
        if self.how == "shifted":
            return x + (self.a(x) + self.position)
        if self.how == "reconstruction":
            return (self.b(torch.relu(self.a(x))) - x).square().mean()
        if self.how == "highway":
            t = torch.sigmoid(self.a(x))
            return t * self.b(x) + (1 - t) * x
        if self.how == "gru":
            z, n = torch.sigmoid(self.a(x)), torch.tanh(self.b(x))
            return (1 - z) * n + z * x
        if self.how == "wide and deep":
            return self.a(x) + self.c(torch.relu(self.b(x)))
        if self.how == "two heads":
            h = torch.relu(self.a(x))
            return self.b(h) + torch.randn_like(h) * self.d(torch.relu(self.c(h))).exp()
        mask = (x > 0).float().mean(1) * -1e9  # "mask"
        return (self.a(x) @ self.b(x).T + mask).softmax(-1) @ self.c(x)


@pytest.mark.parametrize(
    ("how", "names"),
    [
        ("squeeze and excite", ["b.weight"]),
        ("parallel", ["b.weight", "d.weight"]),
        ("attention without projection", ["a.weight"]),
    ],
)
def test_the_layer_that_makes_all_of_a_branch_0(how: str, names: list[str]) -> None:
    model, x = Sums(how), torch.randn(5, 4)
    assert zeroed(model, x) == names
    assert torch.equal(model(x), x)


@pytest.mark.parametrize(
    "how",
    ["never 0", "shifted", "reconstruction", "highway", "gru", "wide and deep", "two heads", "mask"],
)
def test_sums_that_have_no_branch_or_none_that_can_be_0(how: str) -> None:
    model = Sums(how)
    before = values(model)
    with pytest.raises(ValueError, match="found none on the example input"):
        init.zero_residual_(model, torch.randn(5, 4))
    assert is_as_before(model, before)


def test_a_weight_normed_end_of_a_branch_keeps_its_direction() -> None:
    net, x = Scaled(), torch.randn(2, 4)
    nn.utils.parametrizations.weight_norm(net.down)
    direction = net.down.parametrizations.weight.original1.clone()
    init.zero_residual_(net, x)
    assert torch.equal(net(x), x)
    assert torch.equal(net.down.parametrizations.weight.original1, direction)
    net(x).square().sum().backward()
    assert net.down.parametrizations.weight.original0.grad.isfinite().all()
