"""A stack is its layers run by hand, in every form of input; gradients reach the lowest of many."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pack_sequence, unpack_sequence

from gradguard import nn as gnn

T, B = 5, 3


def mixed(**options: Any) -> gnn.Stack:
    """Layers of ours and torch's, of one state and of two, whose widths are 3, 4, 4, 6, 4."""
    layers = [
        gnn.LSTM(3, 8, proj_size=4),
        nn.GRU(4, 4),
        nn.LSTM(4, 3, bidirectional=True),
        gnn.IndRNN(6, 4, length=T),
    ]
    return gnn.Stack(layers, **options).double()


def x(*shape: int) -> Tensor:
    return torch.randn(shape or (T, B, 3), dtype=torch.float64)


def by_hand(stack: gnn.Stack, given: Tensor) -> Tensor:
    for k, layer in enumerate(stack.layers):
        out, _ = layer(given)
        if k < len(stack.norms):
            out = stack.norms[k](out.flatten(0, 1)).unflatten(0, out.shape[:2])
        given = out + stack.shortcuts[k](given) if stack.residual else out
    return given


OPTIONS: list[dict[str, Any]] = [
    {},
    {"residual": True},
    {"norm": nn.LayerNorm},
    {"residual": True, "norm": nn.BatchNorm1d},
]


@pytest.mark.parametrize("options", OPTIONS)
def test_it_is_the_layers_by_hand(options: dict[str, Any]) -> None:
    stack, given = mixed(**options), x()
    output, states = stack(given)
    torch.testing.assert_close(output, by_hand(stack, given), rtol=1e-12, atol=1e-14)
    assert len(stack.norms) == (3 if "norm" in options else 0), "none behind the last layer"
    assert output.shape == (T, B, 4)
    assert [len(s) if isinstance(s, tuple) else 1 for s in states] == [2, 1, 2, 1]
    torch.testing.assert_close(states[0][0], stack.layers[0](given)[1][0])


def test_shortcuts_are_the_identity_or_a_learned_matrix() -> None:
    stack = mixed(residual=True)
    kinds = [type(shortcut).__name__ for shortcut in stack.shortcuts]
    assert kinds == ["Linear", "Identity", "Linear", "Linear"]
    assert [tuple(p.shape) for p in stack.shortcuts.parameters()] == [(4, 3), (6, 4), (4, 6)]
    for layer in stack.layers:
        for param in layer.parameters():
            nn.init.zeros_(param)
    given = x()
    expected = given
    for weight in stack.shortcuts.parameters():
        expected = expected @ weight.t()
    torch.testing.assert_close(stack(given)[0], expected)
    stack(given)[0].sum().backward()
    assert all(param.grad is not None for param in stack.shortcuts.parameters())


def test_the_shortcut_goes_past_the_norm() -> None:
    stack = gnn.Stack([gnn.GRU(4, 4), gnn.GRU(4, 4)], residual=True, norm=nn.LayerNorm)
    for param in [*stack.layers.parameters(), *stack.norms.parameters()]:
        nn.init.zeros_(param)
    given = torch.randn(T, B, 4)
    assert stack(given)[0].equal(given)


@pytest.mark.parametrize("norm", [None, nn.LayerNorm])
def test_packed_sequences_are_each_alone(norm: Callable[[int], nn.Module] | None) -> None:
    stack = mixed(residual=True, norm=norm)
    each = [x(n, 3) for n in (2, 5, 1)]
    packed, states = stack(pack_sequence(each, enforce_sorted=False))
    assert isinstance(packed, PackedSequence)
    for i, (found, alone) in enumerate(zip(unpack_sequence(packed), each, strict=True)):
        output, last = stack(alone)  # without a batch
        torch.testing.assert_close(found, output)
        torch.testing.assert_close(states[1][:, i], last[1])
        torch.testing.assert_close(states[2][1][:, i], last[2][1])


def test_statistics_are_those_of_rows_that_exist() -> None:
    """Of packed sequences, in whatever form they come: no padding among them."""
    stack = gnn.Stack([nn.GRU(3, 4), nn.GRU(4, 4)], norm=nn.BatchNorm1d).double()
    each = [x(n, 3) for n in (2, 5, 1)]
    stack(pack_sequence(each, enforce_sorted=False))
    rows = torch.cat([stack.layers[0](one)[0] for one in each])
    torch.testing.assert_close(stack.norms[0].running_mean, 0.1 * rows.mean(0).detach())
    torch.testing.assert_close(stack.norms[0].running_var, 0.9 + 0.1 * rows.var(0).detach())


def test_batch_first() -> None:
    layers = [gnn.LSTM(3, 4, batch_first=True), nn.GRU(4, 4, batch_first=True)]
    stack = gnn.Stack(layers, residual=True, norm=nn.BatchNorm1d).double()
    given = x(B, T, 3)
    output, _ = stack(given)
    assert output.shape == (B, T, 4)
    torch.testing.assert_close(output, by_hand(stack, given))
    assert stack.batch_first


def test_states_carry_on() -> None:
    stack = gnn.Stack([gnn.LSTM(3, 4), nn.GRU(4, 4, 2), gnn.IndRNN(4, 4, length=T)], residual=True).double()
    given = x()
    whole, last = stack(given)
    first, states = stack(given[:2])
    second, again = stack(given[2:], states)
    torch.testing.assert_close(torch.cat([first, second]), whole)
    torch.testing.assert_close(again[1], last[1])
    torch.testing.assert_close(again[0][1], last[0][1])
    fresh, _ = stack(given, [None, None, None])
    assert fresh.equal(whole)


def reach(stack: gnn.Stack, steps: int) -> float:
    """How large the gradient of the lowest layer is, against that of the last."""
    output, _ = stack(torch.randn(steps, 4, 3))
    output[-1].square().mean().backward()
    found = [layer.weight_ih_l0.grad.norm().item() for layer in stack.layers]
    assert all(norm > 0 for norm in found)
    return found[0] / found[-1]


def test_gradients_reach_the_lowest_of_21_layers() -> None:
    sizes = [3] + 20 * [16]
    layers = [gnn.IndRNN(size, 16, length=128, long_memory=k == 20) for k, size in enumerate(sizes)]
    assert 0.01 < reach(gnn.Stack(layers, residual=True, norm=nn.LayerNorm), 128) < 100
    with_shortcuts, without = (
        reach(gnn.Stack([gnn.GRU(size, 16) for size in sizes], residual=residual), 5) for residual in (True, False)
    )
    assert without < 1e-6 < 0.01 < with_shortcuts


def test_copies_and_names() -> None:
    stack, given = mixed(residual=True, norm=nn.LayerNorm), x()
    other = mixed(residual=True, norm=nn.LayerNorm)
    other.load_state_dict(stack.state_dict())
    for twin in (copy.deepcopy(stack), other):
        assert twin(given)[0].equal(stack(given)[0])
    names = {name.rsplit(".", 1)[0] for name in stack.state_dict()}
    assert names >= {"layers.0", "layers.3", "norms.0", "norms.2", "shortcuts.0"}


def test_dtypes_and_devices_are_those_of_the_layers() -> None:
    layers = [gnn.LSTM(3, 4, dtype=torch.float64), gnn.GRU(4, 5, dtype=torch.float64)]
    stack = gnn.Stack(layers, residual=True, norm=nn.BatchNorm1d)
    assert {t.dtype for t in stack.parameters()} == {torch.float64}
    stack(x())
    on_meta = gnn.Stack([gnn.LSTM(3, 4, device="meta"), gnn.GRU(4, 4, device="meta")], norm=nn.LayerNorm)
    assert on_meta(torch.empty(T, B, 3, device="meta"))[0].shape == (T, B, 4)
    narrow = gnn.Stack([gnn.LSTM(3, 4), gnn.GRU(4, 4)], residual=True, norm=nn.LayerNorm)
    with torch.autocast("cpu", torch.bfloat16):
        narrow(torch.randn(T, B, 3))[0].float().sum().backward()
    assert all(param.grad is not None for param in narrow.parameters())


@pytest.mark.filterwarnings("ignore")  # Dynamo's own
def test_in_one_graph() -> None:
    layers = [gnn.LSTM(3, 4), gnn.IndRNN(4, 4, length=T), gnn.GRU(4, 6)]
    stack = gnn.Stack(layers, residual=True, norm=nn.LayerNorm).double()
    torch._dynamo.reset()
    compiled = torch.compile(stack, backend="aot_eager", fullgraph=True, dynamic=True)
    for shape in ((4, 2, 3), (9, 3, 3)):
        given = x(*shape)
        found, expected = (f(given)[0].sin().sum() for f in (compiled, stack))
        torch.testing.assert_close(found, expected)
        params = list(stack.parameters())
        for a, b in zip(torch.autograd.grad(found, params), torch.autograd.grad(expected, params), strict=True):
            torch.testing.assert_close(a, b)


def test_weight_decay_is_for_matrices() -> None:
    stack = mixed(residual=True, norm=nn.LayerNorm)
    matrices, others = stack.weight_decay_groups(0.1)
    assert all(param.dim() == 2 for param in matrices["params"])
    assert all(param.dim() == 1 for param in others["params"])
    assert len(matrices["params"]) + len(others["params"]) == len(list(stack.parameters()))
    torch.optim.AdamW(stack.weight_decay_groups(0.1))


def test_repr() -> None:
    written = repr(gnn.Stack([gnn.GRU(3, 4), gnn.IndRNN(4, 4, length=9)], residual=True))
    assert written.startswith(
        "Stack(\n  residual=True\n  (layers): ModuleList(\n    (0): GRU(3, 4)\n    (1): IndRNN(4, 4"
    )


@pytest.mark.parametrize(
    ("layers", "options", "error", "message"),
    [
        ([], {}, ValueError, "Stack needs at least one layer, got none"),
        ([nn.Linear(3, 4)], {}, TypeError, "as torch.nn.LSTM has them: layer 0 is a Linear"),
        (
            [gnn.GRU(3, 64), nn.LSTM(64, 32, bidirectional=True), gnn.GRU(32, 4)],
            {},
            ValueError,
            "layer 2 needs input_size 64, the width of the layer below, got 32",
        ),
        (
            [gnn.GRU(3, 3, batch_first=True), gnn.GRU(3, 3), nn.GRU(3, 3, batch_first=True)],
            {},
            ValueError,
            r"agree on batch_first: it is True in layers \[0, 2\] and False in the others",
        ),
        ([gnn.GRU(3, 3)], {"residual": 1}, TypeError, "Stack needs residual to be a bool, got 1"),
        ([gnn.GRU(3, 3)], {"norm": "layer"}, TypeError, "Stack needs norm to be what makes a norm .* got 'layer'"),
    ],
)
def test_bad_arguments(layers: list[nn.Module], options: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        gnn.Stack(layers, **options)


@pytest.mark.parametrize(("hx", "found"), [([None], "1 of them"), (torch.zeros(2, 1, 3, 3), "one tensor")])
def test_states_are_one_for_each_layer(hx: Any, found: str) -> None:
    stack = gnn.Stack([gnn.GRU(3, 3), gnn.GRU(3, 3)])
    with pytest.raises(ValueError, match=f"a list of one state, or None, for each of 2 layers: {found}"):
        stack(torch.randn(T, B, 3), hx)
