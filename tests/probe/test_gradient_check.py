"""A gradient check names the one gradient that is wrong, and the module where it arises, and no other."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from gradguard.probe import BlockCheck, GradientCheck, check_gradients
from tests.probe.faulty import Product, Scaled, Squared, batch, loss_of, network


def names(blocks: Any) -> set[str]:
    return {block.name for block in blocks}


@pytest.mark.parametrize("fault", ["weight", "sign", "none", "zero"])
@pytest.mark.parametrize("at", [0, 7, 19])
def test_a_wrong_gradient_of_one_weight_of_twenty(at: int, fault: str) -> None:
    check = check_gradients(network(at, fault), loss_of, batch())
    assert not check.ok
    assert names(check.wrong) == {f"{at}.weight"}
    assert check.where == (str(at),)
    assert check.origins[0].wrong == ("weight",)
    assert check.origins[0].kind == "Scaled"
    assert [block.verdict for block in check].count("ok") == 19
    (wrong,) = check.wrong
    why = {
        "weight": "it is 1.01 times what it should be",
        "sign": "it is -1 times what it should be",
        "none": "no gradient comes to it, but the loss changes with it: is it detached?",
        "zero": "it is 0, but the loss changes with it: is it detached?",
    }
    assert wrong.why == why[fault]
    if fault == "weight":
        assert wrong.relative_error == pytest.approx(0.01 / 1.01, rel=1e-3)
        assert wrong.resolution < 1e-3


@pytest.mark.parametrize("fault", ["input", "detached"])
@pytest.mark.parametrize("at", [1, 7, 19])
def test_a_wrong_gradient_of_an_input_spoils_all_before_it_and_is_told_from_them(at: int, fault: str) -> None:
    check = check_gradients(network(at, fault), loss_of, batch(), directions=1)
    assert names(check.wrong) == {f"{i}.weight" for i in range(at)}
    assert check.where == (str(at),)
    assert check.origins[0].wrong == ("input",)


def test_an_error_that_only_the_batch_shows() -> None:
    assert check_gradients(network(0, "input"), loss_of, batch()).ok
    check = check_gradients(network(0, "input"), loss_of, batch(), inputs=True)
    assert names(check.wrong) == {"batch[0]"}
    assert check.where == ("0",)
    assert check.loss > 0


@pytest.mark.parametrize("seed", range(12))
def test_a_wrong_gradient_among_kinks(seed: int) -> None:
    at, fault = seed % 3, ("weight", "input")[seed % 2]
    layers: list[nn.Module] = []
    for i in range(3):
        layers += [Scaled(16, fault if i == at else ""), nn.Linear(16, 16), nn.ReLU()]
    model = nn.Sequential(nn.Linear(16, 16), *layers)
    check = check_gradients(model, loss_of, batch(16, rows=32), seed=seed)
    expected = {f"{3 * at + 1}.weight"}
    if fault == "input":
        expected = {name for name, _ in model.named_parameters() if int(name.split(".")[0]) <= 3 * at}
    assert names(check.wrong) == expected
    assert check.where == (str(3 * at + 1),)


def test_two_errors_are_both_named_in_the_order_of_the_forward_pass() -> None:
    model = network(3, "weight", blocks=8)
    model[6].fault = "input"
    check = check_gradients(model, loss_of, batch())
    assert check.where == ("3", "6")
    assert [origin.wrong for origin in check.origins] == [("weight",), ("input",)]


class Holder(nn.Module):
    """A module that does wrong itself, between two that do right."""

    def __init__(self, fault: str) -> None:
        super().__init__()
        self.before, self.after, self.fault = nn.Linear(5, 5), nn.Linear(5, 5), fault

    def forward(self, x: Tensor) -> Tensor:
        x = self.before(x)
        if self.fault == "detached":
            x = x.detach()
        if self.fault == "function":
            x = Product.apply(x, torch.ones(5), 1.01, 1.0)
        if self.fault == "no_grad":
            with torch.no_grad():
                return self.after(x) + x
        return self.after(x)


@pytest.mark.parametrize("fault", ["detached", "function", "no_grad"])
def test_a_container_is_named_where_no_part_of_it_is_at_fault(fault: str) -> None:
    model = nn.Sequential(nn.Linear(5, 5), nn.ModuleDict({"deep": Holder(fault)})["deep"], nn.Linear(5, 5))
    check = check_gradients(model, loss_of, batch())
    assert {"0.weight", "0.bias", "1.before.weight", "1.before.bias"} <= names(check.wrong)
    assert check.where == ("1",)
    assert check.origins[0].kind == "Holder"


def test_a_part_is_named_and_not_what_holds_it() -> None:
    model = nn.Sequential(nn.Sequential(nn.Linear(5, 5), nn.Sequential(nn.Tanh(), Scaled(5, "input"))), nn.Linear(5, 5))
    assert check_gradients(model, loss_of, batch()).where == ("0.1.1",)


def test_the_models_own_forward_and_the_loss() -> None:
    assert check_gradients(Holder("function"), loss_of, batch()).where == ("(root)",)
    scale = torch.ones(5, dtype=torch.float64)
    check = check_gradients(
        nn.Linear(5, 5), lambda m, b: loss_of(lambda x: Product.apply(m(x), scale, 1.01, 1.0), b), batch()
    )
    assert names(check.wrong) == {"weight", "bias"}
    assert check.where == ("loss_fn",)


class Twice(nn.Module):
    """Calls one module twice, and one whose output is of no account and has no graph."""

    def __init__(self, fault: str) -> None:
        super().__init__()
        self.shared, self.metric = Scaled(5, fault), Metric()

    def forward(self, x: Tensor) -> dict[str, Any]:
        x = self.shared(self.shared(x))
        return {"y": x, "level": self.metric(x)}


class Metric(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.detach().mean()


def test_a_module_called_twice_and_one_whose_output_is_of_no_account() -> None:
    check = check_gradients(Twice("weight"), lambda m, b: (m(b["x"])["y"] - b["y"]).square().mean(), named(batch()))
    assert check.where == ("shared",)
    assert names(check) == {"shared.weight"}


def test_an_input_that_needs_no_gradient_may_have_none() -> None:
    class Weighted(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.rand(5))

        def forward(self, x: Tensor, importance: Tensor) -> Tensor:
            return torch.tanh(x * self.weight * importance.detach())

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = Weighted(), Scaled(5, "weight")

        def forward(self, x: Tensor) -> Tensor:
            return self.second(self.first(x, x.abs()))

    assert check_gradients(Model(), loss_of, batch()).where == ("second",)


def test_a_detached_output_that_matters() -> None:
    check = check_gradients(
        nn.Sequential(nn.Linear(5, 5), Twice("")), lambda m, b: m(b[0])["y"].mean() + m(b[0])["level"] ** 2, batch()
    )
    assert check.where == ("1.metric",)


def named(pair: tuple[Tensor, Tensor]) -> dict[str, Any]:
    return {"x": pair[0], "y": pair[1], "ids": torch.arange(4), "text": "kept"}


def test_inside_a_checkpoint() -> None:
    class Checkpointed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Linear(5, 5), Scaled(5, "input")

        def forward(self, x: Tensor) -> Tensor:
            return checkpoint(lambda x: self.second(torch.tanh(self.first(x))), x, use_reentrant=False)

    assert check_gradients(Checkpointed(), loss_of, batch()).where == ("second",)


@pytest.mark.parametrize(("at", "fault"), [(0, "x"), (2, "x"), (3, "grad")])
def test_an_error_in_the_double_backward_alone(at: int, fault: str) -> None:
    model = network(at, fault, blocks=4, kind=Squared)
    check = check_gradients(model, loss_of, batch(), second_order=True)
    assert [block.verdict for block in check if block.order == 1] == ["ok"] * 4
    assert {block.order for block in check.wrong} == {2}
    assert check.where == (str(at),)
    if fault == "x":
        assert f"{at}.weight" in names(check.wrong)
    else:
        assert check.origins[0].wrong == ("the gradient that comes in",)
    assert check_gradients(network(9, "", 4, Squared), loss_of, batch(), second_order=True).ok


class Cubed(torch.autograd.Function):
    """x³, whose backward torch runs without a graph: autograd.grad passes by, and only backward() would raise."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x**3

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return 3 * ctx.saved_tensors[0] ** 2 * grad


def test_a_second_derivative_that_is_silently_0() -> None:
    check = check_gradients(
        nn.Linear(5, 5), lambda m, b: Cubed.apply(m(b[0])).square().mean(), batch(), second_order=True
    )
    assert [(block.name, block.order) for block in check.wrong] == [("weight", 2), ("bias", 2)]
    assert check.where == ("loss_fn",)
    assert "(second order)" in str(check)


def test_weight_norms_own_double_backward() -> None:
    """torch.autograd.gradgradcheck says the same of torch._weight_norm: its norm counts as a constant there."""
    v, g = (torch.rand(3, n, dtype=torch.float64, requires_grad=True) for n in (4, 1))
    assert torch.autograd.gradgradcheck(lambda v, g: v * (g / v.norm(dim=1, keepdim=True)), (v, g))
    is_right = torch.autograd.gradgradcheck(lambda v, g: torch._weight_norm(v, g, 0), (v, g), raise_exception=False)
    model = nn.utils.parametrizations.weight_norm(nn.Linear(5, 5))
    check = check_gradients(nn.Sequential(model, nn.Tanh()), loss_of, batch(), second_order=True)
    assert check.ok == is_right
    assert is_right or check.where == ("0.parametrizations.weight.0",)


def test_the_page_does_what_it_says(capsys: pytest.CaptureFixture[str]) -> None:
    page = (Path(__file__).parents[2] / "docs" / "gradient_check.md").read_text()
    found: dict[str, Any] = {}
    for block in re.findall(r"```python\n(.*?)```", page, re.DOTALL):
        exec(compile(block, "gradient_check.md", "exec"), found)
    (said,) = re.findall(r"```text\n(.*?)```", page, re.DOTALL)
    assert capsys.readouterr().out.startswith(said)


def test_printed() -> None:
    check = check_gradients(network(19, "input"), loss_of, batch(), directions=1)
    lines = str(check).splitlines()
    assert lines[0] == "20 gradients: 1 ok, 19 wrong. It arises in 19 (Scaled): gradient of input."
    assert lines[1].split() == ["gradient", "verdict", "relative", "error", "smallest", "seen", "why"]
    assert re.match(r"11\.weight  wrong +0\.00\d+ +1e-05  (it is|along one direction it is) [-0-9]", lines[2])
    assert lines[-1] == "and 11 more wrong, before these"
    assert len(lines) == 11
    assert repr(check) == str(check)
    fine = check_gradients(network(19, "", blocks=3), loss_of, batch())
    assert str(fine) == "3 gradients: 3 ok."
    assert isinstance(fine, GradientCheck)
    assert len(fine) == 3
    assert isinstance(fine[0], BlockCheck)
    assert list(fine[1:]) == list(fine.blocks[1:])
    assert fine.where == fine.wrong == ()


COMPLEX: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "abs": lambda x, w: (x @ w).abs(),
    "angle": lambda x, w: (x @ w).angle(),
    "real": lambda x, w: ((1 + 2j) * (x @ w) ** 2).real,
    "fft": lambda x, w: torch.fft.fft(x @ w).abs(),
}


class Complex(nn.Module):
    def __init__(self, kind: str) -> None:
        super().__init__()
        self.w, self.kind = nn.Parameter(torch.randn(5, 5, dtype=torch.complex64)), kind

    def forward(self, x: Tensor) -> Tensor:
        if self.kind == "not conjugated":
            return NotConjugated.apply(x.to(self.w.dtype) * (1 + 1j), self.w).abs()
        return COMPLEX[self.kind](x.to(self.w.dtype), self.w)


class NotConjugated(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, w: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x @ w

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[None, Tensor]:
        return None, ctx.saved_tensors[0].T @ grad  # .mH would be right


@pytest.mark.parametrize("kind", COMPLEX)
def test_complex_weights(kind: str) -> None:
    check = check_gradients(Complex(kind), loss_of, batch(), inputs=True, second_order=True)
    assert [block.verdict for block in check if block.order == 1] == ["ok"] * 3
    assert check.ok


def test_a_conjugate_that_was_forgotten() -> None:
    assert names(check_gradients(Complex("not conjugated"), loss_of, batch()).wrong) == {"w"}


def test_what_an_error_must_be_to_be_seen() -> None:
    """Of 3e-5, three times the tolerance, it is; a tenth of that is not, and passes where the tolerance is 1e-2."""

    class Slightly(nn.Module):
        def __init__(self, off: float) -> None:
            super().__init__()
            self.weight, self.off = nn.Parameter(torch.rand(5)), off

        def forward(self, x: Tensor) -> Tensor:
            return torch.tanh(Product.apply(x, self.weight, 1.0, 1 + self.off))

    model = nn.Sequential(nn.Linear(5, 5), Slightly(3e-5))
    check = check_gradients(model, loss_of, batch())
    assert names(check.wrong) == {"1.weight"}
    assert check.wrong[0].why == "it is 1 times what it should be"
    model[1].off = 3e-6
    assert check_gradients(model, loss_of, batch()).ok
    model[1].off = 1e-3
    assert check_gradients(copy.deepcopy(model), loss_of, batch(), rtol=1e-2).ok
