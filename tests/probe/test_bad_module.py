"""The first bad module: planted faults in many places, each named; and nothing of the model is changed."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from gradguard import nn as gnn
from gradguard.errors import GradGuardError
from gradguard.probe import BadModule, first_bad_module


class Fn(nn.Module):
    """A function as a module."""

    def __init__(self, fn: Callable[..., Tensor]) -> None:
        super().__init__()
        self.fn = fn

    def forward(self, *args: Tensor) -> Tensor:
        return self.fn(*args)


class Around(nn.Module):
    """A container that does something of its own between its children."""

    def __init__(self, between: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.first, self.last, self.between = nn.Linear(4, 8), nn.Linear(8, 1), between

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.between(self.first(x)))


class Cubic(torch.autograd.Function):
    """Right forward, Inf backward."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x**3

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return grad * math.inf


def mean(model: nn.Module, x: Any) -> Tensor:
    return model(x).mean()


def x(*shape: int) -> Tensor:
    return torch.randn(*(shape or (6, 4)), generator=torch.Generator().manual_seed(0))


def nested(inner: nn.Module) -> nn.Module:
    return nn.Sequential(
        nn.Linear(4, 4), nn.Sequential(nn.Linear(4, 4), nn.Sequential(inner, nn.ReLU())), nn.Linear(4, 1)
    )


def zero(t: Tensor) -> Tensor:
    return t * 0


def at(bad: BadModule | None) -> tuple[str | None, str, str | None]:
    assert bad is not None
    return bad.module, bad.where, bad.operation


@pytest.mark.parametrize("model", [nested(nn.Tanh()), Around(torch.tanh), nn.LSTM(4, 3)])
def test_a_healthy_model_has_none(model: nn.Module) -> None:
    fn = (lambda m, x: m(x)[0].mean()) if isinstance(model, nn.LSTM) else mean
    assert first_bad_module(model, x(), fn) is None


def test_the_innermost_module_whose_own_function_breaks_forward() -> None:
    assert at(first_bad_module(nested(Fn(lambda t: (t - 100).log())), x(), mean)) == ("1.1.0", "forward", "log")
    assert at(first_bad_module(nested(Fn(lambda t: t / 0)), x(), mean)) == ("1.1.0", "forward", "div")
    assert at(first_bad_module(nested(Fn(lambda t: zero(t).sub_(1).sqrt_())), x(), mean)) == (
        "1.1.0",
        "forward",
        "sqrt_",
    )


def test_a_leaf_that_overflows() -> None:
    model = nested(nn.Linear(4, 4))
    with torch.no_grad():
        model[1][1][0].weight.mul_(1e38)
        model[0].weight.mul_(1e3)
    assert at(first_bad_module(model, x(), mean)) == ("1.1.0", "forward", "linear")
    half = nested(nn.Linear(4, 4)).half()
    with torch.no_grad():
        half[1][0].weight.fill_(6e4)
    assert at(first_bad_module(half, 9 * x().half().abs(), mean))[:2] == ("1.0", "forward")


def test_what_a_container_does_between_its_children() -> None:
    model = nn.Sequential(nn.Linear(4, 4), Around(lambda t: zero(t) / zero(t)))
    bad = first_bad_module(model, x(), mean)
    assert at(bad) == ("1", "forward", "div")
    assert str(bad) == "[forward] 1, div: gives 48 NaN of 48 entries, of finite inputs."


def test_a_value_that_is_written_into_a_tensor() -> None:
    def write(t: Tensor) -> Tensor:
        t = t.clone()
        t[0] = torch.zeros(8).log()
        return t

    assert at(first_bad_module(Around(write), x(), mean)) == ("", "forward", "log")


@pytest.mark.parametrize(
    ("between", "node"),
    [
        (lambda t: zero(t).square().sum(1, keepdim=True).sqrt() + t, "SqrtBackward0"),
        (lambda t: torch.where(t > 9, zero(t).sqrt(), t), "SqrtBackward0"),
        (lambda t: torch.linalg.vector_norm(zero(t).pow(2).sqrt()) + t, "SqrtBackward0"),
        (lambda t: zero(t).pow(0.5) + t, "PowBackward0"),
        (lambda t: Cubic.apply(t), "CubicBackward"),
        (lambda t: torch.where(t > 9, (1e3 * t.abs() + 1e3).exp(), t), "ExpBackward0"),
    ],
)
def test_a_gradient_that_breaks_though_the_loss_is_finite(between: Callable[[Tensor], Tensor], node: str) -> None:
    model = nn.Sequential(nn.Linear(4, 4), Around(between))
    assert at(first_bad_module(model, x(), mean)) == ("1", "backward", node)
    inner = nn.Sequential(nn.Linear(4, 4), nn.Sequential(nn.Linear(4, 8), Fn(between)), nn.Linear(8, 1))
    bad = first_bad_module(inner, x(), mean)
    assert at(bad) == ("1.1", "backward", node)
    assert "for one that is finite" in bad.detail


def test_gradients_that_are_finite_and_overflow_as_they_add_up() -> None:
    model = nn.Sequential(nn.Linear(4, 4), Fn(lambda t: 2e38 * t + 2e38 * t))
    nn.init.zeros_(model[0].bias)
    bad = first_bad_module(model, 1e-3 * x(), lambda m, x: 0.9 * m(x).sum())
    assert at(bad) == ("0", "backward", "AddmmBackward0")
    assert "each is finite, and their sum overflows" in bad.detail
    assert first_bad_module(model, 1e-3 * x(), lambda m, x: 0.1 * m(x).sum()) is None


def test_memory_that_is_not_written_yet_is_nobodys_fault() -> None:
    def fill(t: Tensor) -> Tensor:
        garbage = torch.empty_like(t)
        assert garbage.isnan().all()
        garbage[:3] = t[:3]
        garbage[3:].copy_(t[3:])
        written = t.new_empty(6, 8)
        torch.log(t.detach() - 100, out=written)
        return garbage + written

    torch.use_deterministic_algorithms(True)  # fills what is not written with NaN
    try:
        assert at(first_bad_module(Around(fill), x(), mean)) == ("", "forward", "log")
    finally:
        torch.use_deterministic_algorithms(False)


def test_a_gradient_that_breaks_and_is_masked_again_is_none() -> None:
    assert first_bad_module(Around(lambda t: (t - 100).relu().sqrt()), x(), mean) is None


@pytest.mark.parametrize("reentrant", [False, True])
def test_what_is_checkpointed(reentrant: bool) -> None:
    class Checkpointed(nn.Module):
        def __init__(self, fn: Callable[[Tensor], Tensor]) -> None:
            super().__init__()
            self.inner = nn.Sequential(nn.Linear(4, 4), Fn(fn))

        def forward(self, x: Tensor) -> Tensor:
            return checkpoint(self.inner, x, use_reentrant=reentrant)

    for fn, expected in (
        (lambda t: (zero(t) - 1).log(), ("1.inner.1", "forward", "log")),
        (lambda t: zero(t).sqrt() + t, ("1.inner.1", "backward", "SqrtBackward0")),
    ):
        model = nn.Sequential(nn.Linear(4, 4), Checkpointed(fn))
        grads = give_gradients(model)
        assert at(first_bad_module(model, x(), mean)) == expected
        assert all(p.grad is g and bool((g == 1).all()) for p, g in zip(model.parameters(), grads, strict=True))
    if reentrant:
        model[0].weight.register_post_accumulate_grad_hook(lambda p: None)
        with pytest.raises(ValueError, match="use_reentrant=True does not allow"):
            first_bad_module(model, x(), mean)


def give_gradients(model: nn.Module) -> list[Tensor]:
    for p in model.parameters():
        p.grad = torch.ones_like(p)
    return [p.grad for p in model.parameters()]


def test_inputs_that_are_bad_already_are_named() -> None:
    batch = {"x": x(), "y": [torch.ones(6), x(6, 1)]}
    batch["x"][2, 1] = math.nan
    batch["y"][1][0] = math.inf

    def loss_fn(model: nn.Module, batch: Any) -> Tensor:
        return (model(batch["x"]) - batch["y"][1]).square().mean()

    bad = first_bad_module(nested(nn.Tanh()), batch, loss_fn)
    assert at(bad) == ("0", "input", None)
    assert bad.detail == "batch['x'] holds 1 NaN of 24 entries, batch['y'][1] holds 1 Inf of 6 entries."
    bad = first_bad_module(nested(nn.Tanh()), x() - 9, lambda m, x: mean(m, x.log()))
    assert at(bad) == ("0", "input", "log")
    assert "args[0] has 24 NaN of 24 entries" in bad.detail
    assert "what loss_fn makes of it" in bad.detail


def test_parameters_and_buffers_that_are_bad_already_are_named() -> None:
    model = nested(nn.Tanh())
    with torch.no_grad():
        model[1][0].weight[0, 0] = math.nan
    bad = first_bad_module(model, x(), mean)
    assert at(bad) == ("1.0", "parameter", None)
    assert bad.detail.startswith("1.0.weight holds 1 NaN of 16 entries. Take the weights of before")
    norm = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4)).eval()
    norm[1].running_var.fill_(math.nan)
    bad = first_bad_module(norm, x(), mean)
    assert at(bad)[:2] == ("1", "parameter")
    assert "its buffer running_var holds 4 NaN of 4 entries" in bad.detail


@pytest.mark.filterwarnings("ignore:.*divide by zero")
def test_a_loss_alone_that_breaks() -> None:
    assert at(first_bad_module(nested(nn.Tanh()), x(), lambda m, x: (m(x) - 1e4).log().mean())) == (None, "loss", "log")
    found = first_bad_module(nested(nn.Tanh()), x(), lambda m, x: (m(x) * 0).norm(dim=1).sqrt().sum())
    assert at(found)[::2] == (None, "SqrtBackward0")
    assert str(found).startswith("[backward] loss_fn, SqrtBackward0: gives gradients with 6 Inf of 6")
    gone = first_bad_module(nested(nn.Tanh()), x(), lambda m, x: torch.from_numpy(m(x).detach().numpy() / 0).sum())
    assert at(gone)[:2] == (None, "loss")


def test_a_mask_of_minus_inf_is_meant() -> None:
    class Attention(nn.Module):
        def __init__(self, keep: Callable[[Tensor], Tensor]) -> None:
            super().__init__()
            self.keep = keep
            self.register_buffer("causal", torch.full((6, 6), -math.inf).triu(1))

        def forward(self, x: Tensor) -> Tensor:
            scores = (x @ x.T + self.causal).masked_fill(~self.keep(x @ x.T), -math.inf)
            return scores.softmax(-1) @ x

    fine = nn.Sequential(nn.Linear(4, 4), Attention(lambda s: torch.ones_like(s, dtype=torch.bool)), nn.Linear(4, 1))
    assert first_bad_module(fine, x(), mean) is None
    mask = torch.zeros(6, dtype=torch.bool)
    mask[2] = True
    not_a_number = nested(Fn(lambda t: t.masked_fill(mask[:, None], math.nan)))
    assert at(first_bad_module(not_a_number, x(), mean)) == ("1.1.0", "forward", "masked_fill")
    empty = nn.Sequential(nn.Linear(4, 4), Attention(lambda s: ~mask[:, None].expand_as(s)), nn.Linear(4, 1))
    bad = first_bad_module(empty, x(), mean)
    assert at(bad) == ("1", "forward", "softmax")
    assert "all -inf" in bad.detail
    masked = first_bad_module(
        nn.MultiheadAttention(4, 1),
        {"x": x(6, 1, 4), "mask": torch.full((6, 6), -math.inf)},
        lambda m, b: m(b["x"], b["x"], b["x"], attn_mask=b["mask"])[0].mean(),
    )
    assert at(masked) == ("", "forward", "multi_head_attention_forward")


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, partial(nn.RNN, nonlinearity="relu"), gnn.LayerNormLSTM, gnn.GRU])
def test_recurrent_modules(kind: Any) -> None:
    class Recurrent(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.rnn, self.last = nn.Linear(4, 4), kind(4, 5), nn.Linear(5, 1)

        def forward(self, x: Tensor) -> Tensor:
            return self.last(self.rnn(self.first(x))[0])

    torch.manual_seed(0)
    model = Recurrent()
    assert first_bad_module(model, x(7, 2, 4), mean) is None
    bad = first_bad_module(model, x(7, 2, 4), lambda m, x: mean(m, x) / 0)
    assert at(bad) == (None, "loss", "div")
    with torch.no_grad():
        for p in model.rnn.parameters():  # sums overflow inside, to Inf, and to NaN where two meet
            p.fill_(3e38).view(-1)[::2] = -3e38
        model.first.bias.copy_(torch.tensor([4.0, 4.0, -4.0, -4.0]))
    assert at(first_bad_module(model, x(7, 2, 4), mean))[:2] == ("rnn", "forward")


def test_inplace_activations_and_views() -> None:
    model = nn.Sequential(
        nn.Linear(4, 8), nn.ReLU(inplace=True), nn.Unflatten(1, (2, 4)), nn.Flatten(), nn.Linear(8, 1)
    )
    assert first_bad_module(model, x(), mean) is None

    def inplace(t: Tensor) -> Tensor:
        part = t.view(-1, 2, 4)
        part[:, 0].mul_(0).sqrt_()
        return t

    # The first half is 0 there: the gradient of its root is Inf.
    found = first_bad_module(nn.Sequential(nn.Linear(4, 8), Fn(inplace), nn.Linear(8, 1)), x(), mean)
    assert at(found)[:2] == ("1", "backward")


def test_autocast_and_a_scaled_loss_are_the_callers() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 1))

    def loss_fn(m: nn.Module, x: Tensor) -> Tensor:
        with torch.autocast("cpu", torch.float16):
            return m(x).float().mean() * 1e30  # far beyond what a scaler would choose

    assert at(first_bad_module(model, x(), loss_fn))[1] == "backward"
    assert first_bad_module(model, x(), lambda m, x: loss_fn(m, x) / 1e30) is None


@pytest.mark.filterwarnings("ignore:.*torch.jit.script")
def test_a_scripted_module_is_seen_from_outside() -> None:
    class Log(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.log(x - 100)

    scripted = torch.jit.script(Log())
    for after in ((), (nn.Linear(4, 1),)):
        model = nn.Sequential(nn.Linear(4, 4), nn.Sequential(nn.Linear(4, 4), scripted, *after))
        bad = first_bad_module(model, x(), mean)
        assert at(bad) == ("1", "forward", None)
        assert "this Sequential gives" in bad.detail


def test_a_compiled_or_wrapped_model_is_looked_at_as_it_was() -> None:
    model = nested(Fn(lambda t: (t - 100).log()))
    compiled: Any = torch.compile(model, backend="eager")
    assert at(first_bad_module(compiled, x(), mean)) == ("1.1.0", "forward", "log")


def state(model: nn.Module) -> list[Any]:
    tensors = [*model.parameters(), *model.buffers()]
    return [t.detach().clone() for t in tensors] + [m.training for m in model.modules()]


@pytest.mark.parametrize("fn", [torch.tanh, lambda t: (t - 100).log(), lambda t: zero(t).sqrt() + t])
def test_nothing_of_the_model_is_changed(fn: Callable[[Tensor], Tensor]) -> None:
    model = nn.Sequential(
        nn.Linear(4, 4),
        nn.BatchNorm1d(4),
        nn.Dropout(0.5),
        nn.utils.parametrizations.spectral_norm(nn.Linear(4, 4)),
        Fn(fn),
    )
    model[1].eval()
    model[0].bias.requires_grad_(False)
    grads, before, generator = give_gradients(model), state(model), torch.get_rng_state()
    hooks = [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules()]
    batch = x()
    first_bad_module(model, batch, mean)
    assert torch.equal(torch.get_rng_state(), generator)
    for was, now in zip(before, state(model), strict=True):
        assert torch.equal(was, now) if isinstance(was, Tensor) else was == now
    assert all(p.grad is g and bool((g == 1).all()) for p, g in zip(model.parameters(), grads, strict=True))
    assert [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules()] == hooks
    assert torch.equal(batch, x())


def test_an_error_of_the_loss_goes_on_and_leaves_no_hook() -> None:
    model = nested(Fn(lambda t: t @ t))
    with pytest.raises(RuntimeError, match="cannot be multiplied"):
        first_bad_module(model, x(), mean)
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
    assert first_bad_module(nested(nn.Tanh()), x(), mean) is None


@pytest.mark.parametrize(
    ("loss_fn", "error", "words"),
    [
        (lambda m, x: 1.0, TypeError, "loss_fn to give a tensor, got float"),
        (lambda m, x: m(x), ValueError, r"one loss, got shape \(6, 1\). Take its mean"),
    ],
)
def test_bad_arguments(loss_fn: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        first_bad_module(nested(nn.Tanh()), x(), loss_fn)
    assert not issubclass(error, GradGuardError)


def test_a_model_without_anything_to_train_has_a_forward_pass_only() -> None:
    model = nested(nn.Tanh()).requires_grad_(False)
    assert first_bad_module(model, x(), mean) is None
    assert at(first_bad_module(model, x(), lambda m, x: mean(m, x).log() * math.nan))[1] == "loss"
    asks = x().requires_grad_()
    assert at(first_bad_module(nn.Sequential(Fn(lambda t: zero(t).sqrt())), asks, mean)) == (
        "0",
        "backward",
        "SqrtBackward0",
    )
    assert asks.grad is None


def test_plus_inf_that_a_minimum_uses_up_is_meant() -> None:
    def nearest(t: Tensor) -> Tensor:
        apart = torch.cdist(t, t).masked_fill(torch.eye(len(t), dtype=torch.bool), math.inf)
        return t + apart.min(1, keepdim=True).values

    fine = nn.Sequential(nn.Linear(4, 4), Fn(nearest), nn.Linear(4, 1))
    assert first_bad_module(fine, x(), mean) is None
    wrong = nn.Sequential(nn.Linear(4, 4), Fn(nearest), Fn(lambda t: (t - 100).log()), nn.Linear(4, 1))
    assert at(first_bad_module(wrong, x(), mean)) == ("2", "forward", "log")
    for then in (lambda t: t, lambda t: t.softmax(1), lambda t: t - t):
        kept = nested(Fn(lambda t, then=then: then(t.masked_fill(t > -9, math.inf))))
        assert at(first_bad_module(kept, x(), mean)) == ("1.1.0", "forward", "masked_fill")
