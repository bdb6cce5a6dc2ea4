"""Options of the family: what they sample, what they are in evaluation, and which module has which."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from gradguard import nn as gnn
from gradguard.nn import base
from tests.contracts.recurrent import MODULES, projected, states_of
from tests.nn.kinds import LACKS

P = 0.3
DOC = Path(__file__).parents[2] / "docs" / "recurrent.md"
VALUES: dict[str, Any] = {
    "proj_size": 2,
    "variational_dropout": P,
    "zoneout": P,
    "weight_dropout": P,
    "residual": True,
    "clip_grad_state": 1.0,
}


def near(share: float, expected: float, draws: int) -> None:
    """Within four standard errors of a share of independent draws."""
    assert abs(share - expected) < 4 * math.sqrt(expected * (1 - expected) / draws)


def drawn(module: nn.Module, x: Tensor, patch: pytest.MonkeyPatch) -> list[dict[str, Tensor]]:
    """What each layer and direction drew in a pass."""
    seen, draw = [], base.noise

    def noise(*args: Any) -> dict[str, Tensor]:
        seen.append(draw(*args))
        return seen[-1]

    with patch.context() as inner:
        inner.setattr(base, "noise", noise)
        module(x)
    return seen


def test_variational_dropout_draws_one_mask_a_sequence(monkeypatch: pytest.MonkeyPatch) -> None:
    module = gnn.GRU(2, 50, num_layers=2, bidirectional=True, variational_dropout=P)
    masks = [each["drop_h"] for each in drawn(module, torch.randn(6, 40, 2), monkeypatch)]
    assert [mask.shape for mask in masks] == [(40, 50)] * 4
    for mask in masks:
        assert mask.unique().tolist() == pytest.approx([0.0, 1 / (1 - P)])
        near((mask == 0).float().mean().item(), P, mask.numel())
    both = ((masks[0] == 0) & (masks[1] == 0)).float().mean().item()
    near(both, P * P, masks[0].numel())  # each direction has its own


def test_variational_dropout_drops_the_same_inputs_at_all_steps() -> None:
    """With W_ih = 1 and no memory, the output is the sum of what is left of the input."""
    module = gnn.RNN(200, 1, nonlinearity="relu", bias=False, variational_dropout=P)
    with torch.no_grad():
        module.weight_ih_l0.fill_(1.0)
        module.weight_hh_l0.fill_(0.0)
    output, _ = module(torch.ones(5, 300, 200))
    assert bool((output == output[0]).all()), "another mask at another step"
    left = output[0, :, 0] * (1 - P) / 200
    near(1 - left.mean().item(), P, 200 * 300)
    assert left.unique().numel() > 20, "each sequence has a mask of its own"
    module.eval()
    assert module(torch.ones(5, 3, 200))[0].unique().tolist() == [200.0]


@pytest.mark.parametrize("kernel", ["eager", "reference"])
def test_zoneout_keeps_its_share_of_each_state(kernel: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRADGUARD_KERNEL", kernel)
    module = gnn.LSTM(3, 20, zoneout=(P, 0.6))
    _, _, states = module(torch.randn(12, 30, 3), return_states=True)
    for sequence, rate in ((states.h[0], P), (states.c[0], 0.6)):
        stayed = sequence[1:] == sequence[:-1]
        near(stayed.float().mean().item(), rate, stayed.numel())
        again = (stayed[1:] & stayed[:-1]).float().mean().item()
        near(again, rate * rate, stayed[1:].numel())  # drawn anew at every step
    module.eval()
    _, _, states = module(torch.randn(12, 30, 3), return_states=True)
    assert not (states.h[0][1:] == states.h[0][:-1]).any()


def test_zoneout_in_evaluation_is_the_expectation_of_a_step() -> None:
    module = gnn.GRU(3, 4, zoneout=P, dtype=torch.float64)
    x, h = torch.randn(1, 1, 3, dtype=torch.float64), torch.randn(1, 1, 4, dtype=torch.float64)
    n = 20_000
    many, _ = module(x.expand(1, n, 3), h.expand(1, n, 4).contiguous())
    right = module.eval()(x, h)[0][0, 0]
    error = 4 * many[0].std(0) / math.sqrt(n)
    assert bool(((many[0].mean(0) - right).abs() < error).all())
    plain = gnn.GRU(3, 4, dtype=torch.float64)
    plain.load_state_dict(module.state_dict())
    torch.testing.assert_close(right, P * h[0, 0] + (1 - P) * plain(x, h)[0][0, 0])


def test_weight_dropout_drops_the_same_weights_at_all_steps_of_a_pass() -> None:
    """Where a weight is dropped, the loss does not depend on it: neither at the second step nor at the last."""
    module = gnn.LSTM(3, 40, weight_dropout=P, dtype=torch.float64)
    output, _ = module(torch.randn(4, 5, 3, dtype=torch.float64))
    dropped = []
    for step in (1, 3):
        (grad,) = torch.autograd.grad(output[step].sum(), module.weight_hh_l0, retain_graph=True)
        dropped.append(grad == 0)
    assert dropped[0].equal(dropped[1])
    near(dropped[0].float().mean().item(), P, dropped[0].numel())
    (again,) = torch.autograd.grad(module(torch.randn(4, 5, 3, dtype=torch.float64))[0].sum(), module.weight_hh_l0)
    assert not (again == 0).equal(dropped[0]), "the next pass draws anew"
    module.eval()
    (whole,) = torch.autograd.grad(module(torch.randn(4, 5, 3, dtype=torch.float64))[0].sum(), module.weight_hh_l0)
    assert not (whole == 0).any()


def test_a_residual_goes_round_each_layer_and_is_learned_where_widths_differ() -> None:
    module = gnn.GRU(3, 4, num_layers=3, bidirectional=True, residual=True)
    assert [name for name, _ in module.named_parameters() if "res" in name] == ["weight_res_l0"]
    assert module.weight_res_l0.shape == (8, 3)
    assert not [
        name for name, _ in gnn.GRU(8, 4, 2, bidirectional=True, residual=True).named_parameters() if "res" in name
    ]
    with torch.no_grad():
        for name, param in module.named_parameters():
            if "res" not in name:
                param.zero_()  # with z = 1/2 and n = 0, a layer of zeros gives zeros
    x = torch.randn(5, 2, 3)
    torch.testing.assert_close(module(x)[0], x @ module.weight_res_l0.t())
    assert not module(x)[1].any(), "states are those of the layers alone"


def test_a_residual_is_not_dropped() -> None:
    module = gnn.GRU(4, 4, num_layers=2, residual=True, dropout=1.0)
    x = torch.randn(5, 2, 4)
    first = gnn.GRU(4, 4, residual=True)
    first.load_state_dict({name: v for name, v in module.state_dict().items() if "_l0" in name})
    lone = gnn.GRU(4, 4, residual=True)
    lone.load_state_dict({name.replace("_l1", "_l0"): v for name, v in module.state_dict().items() if "_l1" in name})
    torch.testing.assert_close(module(x)[0], lone(x)[0])


def test_a_clamp_bounds_what_goes_through_time() -> None:
    """A linear unit with a weight of 2 multiplies a gradient by 2 at each step; clamped, it stays at the bound."""
    for bound, expected in ((None, 2.0**9), (4.0, 4.0)):
        module = gnn.RNN(1, 1, nonlinearity="relu", bias=False, clip_grad_state=bound)
        with torch.no_grad():
            module.weight_ih_l0.fill_(1.0)
            module.weight_hh_l0.fill_(2.0)
        h = torch.ones(1, 1, 1, requires_grad=True)
        output, _ = module(torch.ones(9, 1, 1), h)
        assert torch.autograd.grad(output[-1].sum(), h)[0].item() == expected


@pytest.mark.parametrize("options", [{"variational_dropout": P}, {"zoneout": P}])
def test_a_pass_in_a_graph_draws_too(options: dict[str, Any]) -> None:
    torch._dynamo.reset()
    module = gnn.LSTM(3, 30, num_layers=2, **options)
    compiled = torch.compile(module, backend="aot_eager", fullgraph=True)
    x = torch.randn(5, 4, 3)
    outputs = [compiled(x)[0] for _ in range(2)]
    assert not outputs[0].equal(outputs[1])
    assert torch.autograd.grad(outputs[0].sum(), module.weight_hh_l0)[0].norm() > 0
    module.eval()
    torch.testing.assert_close(torch.compile(module, backend="aot_eager", fullgraph=True)(x)[0], module(x)[0])


def test_vmap_with_other_masks_for_each() -> None:
    module = gnn.GRU(3, 30, zoneout=P, variational_dropout=P)
    x = torch.randn(4, 2, 3)
    found = torch.vmap(lambda x: module(x)[0], randomness="different")(x.expand(2, 4, 2, 3))
    assert not found[0].equal(found[1])
    same = torch.vmap(lambda x: module(x)[0], randomness="same")(x.expand(2, 4, 2, 3))
    torch.testing.assert_close(same[0], same[1])
    with pytest.raises(RuntimeError, match="randomness"):
        torch.vmap(lambda x: module(x)[0])(x.expand(2, 4, 2, 3))


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"variational_dropout": 1.5}, ValueError, r"needs variational_dropout in \[0, 1\], got 1.5"),
        ({"weight_dropout": -0.1}, ValueError, r"needs weight_dropout in \[0, 1\], got -0.1"),
        ({"weight_dropout": True}, TypeError, "needs weight_dropout to be a number, got True"),
        ({"zoneout": 2}, ValueError, r"needs zoneout in \[0, 1\], got 2"),
        ({"zoneout": (0.1, 0.2, 0.3)}, ValueError, "needs zoneout to be one number, or one for each of 2 states"),
        ({"zoneout": "a lot"}, TypeError, "needs zoneout to be a number, got 'a lot'"),
        ({"residual": 1}, TypeError, "needs residual to be a bool, got 1"),
        ({"clip_grad_state": 0.0}, ValueError, "needs clip_grad_state > 0, got 0.0"),
        ({"clip_grad_state": math.inf}, ValueError, "needs clip_grad_state to be finite"),
        (
            {"zone_out": 0.1},
            TypeError,
            "has no argument 'zone_out'. Beside its own it takes variational_dropout, zoneout",
        ),
    ],
)
def test_options_out_of_range(options: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=f"LayerNormLSTM {message}"):
        gnn.LayerNormLSTM(3, 4, **options)


def test_options_are_written_and_copied() -> None:
    module = gnn.GRU(3, 4, zoneout=0.1, residual=True, clip_grad_state=2)
    assert repr(module) == "GRU(3, 4, zoneout=0.1, clip_grad_state=2.0, residual=True)"
    ours = gnn.LSTM.from_torch(nn.LSTM(3, 4), zoneout=(0.1, 0.0), weight_dropout=0.2)
    assert repr(ours) == "LSTM(3, 4, forget_bias=None, zoneout=(0.1, 0.0), weight_dropout=0.2)"


def documented() -> dict[tuple[str, str], list[str]]:
    """Of each module and option, the kernels that the table names."""
    lines = DOC.read_text().splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("| | `proj_size`"))
    names = re.findall(r"`(\w+)`", lines[start])
    found = {}
    for line in lines[start + 2 : start + 2 + len(MODULES)]:
        kind, *cells = (cell.strip() for cell in line.strip("|").split("|"))
        found |= {(kind.strip("`"), name): re.findall(r"\w+", cell) for name, cell in zip(names, cells, strict=True)}
    return found


def test_the_table_has_every_module_and_option() -> None:
    assert documented().keys() == {(kind, option) for kind in MODULES for option in VALUES}


@pytest.mark.parametrize(("kind", "option"), [(kind, option) for kind in MODULES for option in VALUES])
def test_an_option_works_with_the_kernels_of_the_table_and_else_raises(
    kind: str, option: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    kernels = documented()[kind, option]
    has = bool(projected(MODULES[kind])) if option == "proj_size" else option not in LACKS.get(kind, ())
    assert bool(kernels) == has
    if not kernels:
        with pytest.raises((ValueError, TypeError), match=f"{kind}.* has no {option}"):
            MODULES[kind](3, 4, **{option: VALUES[option]})
    for kernel in kernels:
        monkeypatch.setenv("GRADGUARD_KERNEL", kernel)
        module = MODULES[kind](3, 4, num_layers=2, **{option: VALUES[option]}).train()
        output, last = module(torch.randn(5, 3, 3))
        (output.sum() + sum(state.sum() for state in states_of(last))).backward()
        assert all(param.grad is not None and param.grad.isfinite().all() for param in module.parameters())
