"""Mistakes: the exception types of torch, and messages that name the argument and what was expected."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_sequence

from gradguard import nn as gnn
from tests.contracts.recurrent import MODULES, TORCH, projected

X = torch.randn(5, 3, 4)
S = torch.zeros(2, 3, 6)  # a state of two layers
PACKED = pack_sequence([X[:, 0], X[:3, 1]])

CALLS: dict[str, tuple[Callable[[nn.Module], Any], str]] = {
    "1-D": (lambda m: m(X[0, 0]), r"Expected input to be 2D or 3D, got 1D instead"),
    "4-D": (lambda m: m(X[None]), r"Expected input to be 2D or 3D, got 4D instead"),
    "width": (lambda m: m(X[..., :3]), r"input.size\(-1\) must be equal to input_size. Expected 4, got 3"),
    "dtype": (lambda m: m(X.double()), r"dtype \(torch.float64\) does not match weight dtype \(torch.float32\)"),
    "integers": (lambda m: m(X.long()), r"dtype \(torch.int64\) does not match .* input.to\(torch.float32\)"),
    "device": (lambda m: m(X.to("meta")), r"needs input on the weights' device cpu, got meta"),
    "one state": (lambda m: m(X, S), r"needs hx to be 2 tensors, got one tensor of the shape \(2, 3, 6\)"),
    "three states": (lambda m: m(X, (S, S, S)), r"needs hx to be 2 tensors, got 3 of them"),
    "layers": (lambda m: m(X, (S[:1], S)), r"Expected hx\[0\] size \(2, 3, 6\), got \(1, 3, 6\)"),
    "batch": (lambda m: m(X, (S, S[:, :2])), r"Expected hx\[1\] size \(2, 3, 6\), got \(2, 2, 6\)"),
    "2-D state": (lambda m: m(X, (S[0], S[0])), r"For batched 3-D input, hx\[0\] should also be 3-D"),
    "3-D state": (lambda m: m(X[:, 0], (S, S)), r"For unbatched 2-D input, hx\[0\] should also be 2-D"),
    "h's dtype": (
        lambda m: m(X, (S.double(), S)),
        r"needs hx\[0\] of the input's dtype torch.float32, got torch.float64",
    ),
    "c's dtype": (
        lambda m: m(X, (S, S.double())),
        r"needs hx\[1\] of the input's dtype torch.float32, got torch.float64",
    ),
    "state's device": (lambda m: m(X, (S.to("meta"), S)), r"needs hx\[0\] on the input's device cpu, got meta"),
    "packed, batch": (lambda m: m(PACKED, (S, S)), r"Expected hx\[0\] size \(2, 2, 6\), got \(2, 3, 6\)"),
}
CALLS_OF_ONE_STATE: dict[str, tuple[Callable[[nn.Module], Any], str]] = {
    **{name: CALLS[name] for name in ("1-D", "4-D", "width", "dtype", "integers", "device")},
    "layers": (lambda m: m(X, S[:1]), r"Expected hx size \(2, 3, 6\), got \(1, 3, 6\)"),
    "2-D state": (lambda m: m(X, S[0]), r"For batched 3-D input, hx should also be 3-D"),
    "3-D state": (lambda m: m(X[:, 0], S), r"For unbatched 2-D input, hx should also be 2-D"),
    "h's dtype": (lambda m: m(X, S.double()), r"needs hx of the input's dtype torch.float32, got torch.float64"),
    "state's device": (lambda m: m(X, S.to("meta")), r"needs hx on the input's device cpu, got meta"),
    "packed, batch": (lambda m: m(PACKED, S), r"Expected hx size \(2, 2, 6\), got \(2, 3, 6\)"),
}
# Where torch stumbles (an IndexError, an AttributeError) or goes on with what it should not.
OURS_ALONE: dict[str, tuple[Callable[[nn.Module], Any], type[Exception], str]] = {
    "one of two": (lambda m: m(X, (S,)), RuntimeError, r"needs hx to be 2 tensors, got 1 of them"),
    "None of two": (lambda m: m(X, (None, S)), TypeError, r"needs hx\[0\] to be a tensor, got NoneType"),
    "a number": (lambda m: m(X, 3.0), RuntimeError, r"needs hx to be 2 tensors, got float"),
    "a list": (lambda m: m([X]), TypeError, r"needs input to be a tensor or a PackedSequence, got list"),
    "packed, dtype": (
        lambda m: m(pack_sequence([X[:, 0].double()])),
        ValueError,
        r"dtype \(torch.float64\) does not match",
    ),
    "packed, width": (lambda m: m(pack_sequence([X[:, 0, :3]])), RuntimeError, r"Expected 4, got 3"),
}
ARGUMENTS: dict[str, tuple[dict[str, Any], str]] = {
    "dropout of 2": ({"dropout": 2}, r"needs dropout in \[0, 1\], the share of outputs that become 0, got 2"),
    "dropout of True": ({"dropout": True}, r"needs dropout in \[0, 1\].* got True"),
    "dropout of text": ({"dropout": "a"}, r"needs dropout in \[0, 1\].* got 'a'"),
    "bias": ({"bias": 1}, r"needs bias to be a bool, got 1"),
    "batch_first": ({"batch_first": 0}, r"needs batch_first to be a bool, got 0"),
    "no layers": ({"num_layers": 0}, r"needs num_layers > 0, got 0"),
    "half a layer": ({"num_layers": 1.5}, r"needs num_layers to be an int, got 1.5"),
    "proj_size below 0": ({"proj_size": -1}, r"needs 0 <= proj_size < hidden_size = 6, got -1"),
    "proj_size too large": ({"proj_size": 6}, r"needs 0 <= proj_size < hidden_size = 6, got 6"),
    "proj_size of text": ({"proj_size": "2"}, r"needs proj_size to be an int, got '2'"),
    "no input": ({"input_size": 0}, r"needs input_size > 0, got 0"),
    "input of text": ({"input_size": "4"}, r"needs input_size to be an int, got '4'"),
    "hidden of a float": ({"hidden_size": 6.0}, r"needs hidden_size to be an int, got 6.0"),
}
CELL_CALLS: dict[str, tuple[Callable[[nn.Module], Any], str]] = {
    "3-D": (lambda m: m(X), r"Expected input to be 1D or 2D, got 3D instead"),
    "width": (lambda m: m(X[0, :, :3]), r"needs input.size\(-1\) to be input_size = 4, got 3"),
    "dtype": (lambda m: m(X[0].double()), r"dtype \(torch.float64\) does not match weight dtype"),
    "batch": (lambda m: m(X[0], (S[0, :2], S[0])), r"needs hx\[0\] of the shape \(3, 6\), got \(2, 6\)"),
    "hidden": (lambda m: m(X[0], (S[0], S[0, :, :2])), r"needs hx\[1\] of the shape \(3, 6\), got \(3, 2\)"),
    "one state": (lambda m: m(X[0], S[0]), r"needs hx to be 2 tensors, got one tensor"),
    "one of two": (lambda m: m(X[0], (S[0],)), r"needs hx to be 2 tensors, got 1 of them"),
    "3-D state": (lambda m: m(X[0], (S, S)), r"Expected hx\[0\] to be 1D or 2D, got 3D"),
    "unbatched": (lambda m: m(X[0, 0], (S[0], S[0])), r"needs hx\[0\] of the shape \(6,\), got \(3, 6\)"),
    "state's dtype": (lambda m: m(X[0], (S[0].double(), S[0])), r"needs hx\[0\] of the input's dtype torch.float32"),
    "device": (lambda m: m(X[0].to("meta")), r"needs input on the weights' device cpu, got meta"),
}


def refusal_of_torch(call: Callable[[], Any]) -> type[Exception]:
    with pytest.raises(Exception) as caught:  # noqa: PT011  # its type is what is asked
        call()
    return caught.type


@pytest.mark.parametrize("case", CALLS)
@pytest.mark.parametrize("kind", [kind for kind in MODULES if projected(MODULES[kind])])
def test_calls(kind: str, case: str) -> None:
    call, message = CALLS[case]
    expected = refusal_of_torch(lambda: call(nn.LSTM(4, 6, 2)))
    with pytest.raises(expected, match=f"{kind}.*{message}"):
        call(MODULES[kind](4, 6, 2))


@pytest.mark.parametrize("case", CALLS_OF_ONE_STATE)
@pytest.mark.parametrize("kind", [kind for kind in MODULES if not projected(MODULES[kind])])
def test_calls_of_cells_with_one_state(kind: str, case: str) -> None:
    call, message = CALLS_OF_ONE_STATE[case]
    expected = refusal_of_torch(lambda: call(TORCH.get(kind, nn.GRU)(4, 6, 2)))
    with pytest.raises(expected, match=f"{kind}.*{message}"):
        call(MODULES[kind](4, 6, 2))


@pytest.mark.parametrize("kind", [kind for kind in MODULES if not projected(MODULES[kind])])
def test_cells_with_one_state_have_no_projection(kind: str) -> None:
    expected = refusal_of_torch(lambda: TORCH.get(kind, nn.GRU)(4, 6, proj_size=2))
    with pytest.raises(expected, match=f"{kind} has no proj_size: a projection is for LSTMs"):
        MODULES[kind](4, 6, proj_size=2)


@pytest.mark.parametrize("case", OURS_ALONE)
def test_calls_at_which_torch_stumbles(case: str) -> None:
    call, error, message = OURS_ALONE[case]
    with pytest.raises(error, match=message):
        call(gnn.LSTM(4, 6, 2))


@pytest.mark.parametrize("case", ARGUMENTS)
def test_arguments(case: str) -> None:
    options, message = ARGUMENTS[case]
    options = {"input_size": 4, "hidden_size": 6} | options
    expected = refusal_of_torch(lambda: nn.LSTM(**options))
    with pytest.raises(expected, match=f"LayerNormLSTM {message}"):
        gnn.LayerNormLSTM(**options)


@pytest.mark.parametrize("case", CELL_CALLS)
def test_calls_of_cells(case: str) -> None:
    call, message = CELL_CALLS[case]
    expected = refusal_of_torch(lambda: call(nn.LSTMCell(4, 6)))
    with pytest.raises(expected, match=f"LayerNormLSTMCell.*{message}"):
        call(gnn.LayerNormLSTMCell(4, 6))


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"forget_bias": "1"}, TypeError, "needs forget_bias to be a number, got '1'"),
        ({"forget_bias": float("nan")}, ValueError, "needs forget_bias"),
        ({"forget_bias": 2.0, "bias": False}, ValueError, "forget_bias=2.0 needs bias=True"),
        ({"eps": 0.0}, ValueError, "needs eps > 0, got 0.0"),
        ({"eps": None}, TypeError, "needs eps to be a number"),
    ],
)
def test_arguments_of_ours(options: dict[str, Any], error: type[Exception], message: str) -> None:
    for kind in (gnn.LayerNormLSTM, gnn.LayerNormLSTMCell):
        with pytest.raises(error, match=message):
            kind(4, 6, **options)


def test_a_packed_sequence_with_other_batch_sizes_than_rows() -> None:
    broken = PACKED._replace(batch_sizes=torch.tensor([2, 2]))
    with pytest.raises(ValueError, match="A PackedSequence needs a row of data for each step: 4, got 8"):
        gnn.LSTM(4, 6)(broken)


def test_cells_name_what_is_no_tensor() -> None:
    cell = gnn.LSTMCell(4, 6)
    with pytest.raises(TypeError, match=r"LSTMCell needs hx\[0\] to be a tensor, got NoneType"):
        cell(X[0], (None, S[0]))
    with pytest.raises(TypeError, match="LSTMCell needs input to be a tensor, got list"):
        cell([1.0])


def test_without_biases_there_is_no_forget_bias_to_set() -> None:
    assert not any(name.startswith("bias") for name, _ in gnn.LayerNormLSTM(4, 6, bias=False).named_parameters())


def test_states_of_autocast_go_back_in_and_others_do_not() -> None:
    module = gnn.LSTM(4, 6, 2)
    with torch.autocast("cpu", torch.bfloat16):
        _, states = module(X)
        output, _ = module(X, states)
        assert output.dtype == torch.bfloat16
        module(X, tuple(s.float() for s in states))
        with pytest.raises(RuntimeError, match=r"needs hx\[0\] of the input's dtype"):
            module(X, tuple(s.double() for s in states))
    with pytest.raises(RuntimeError, match=r"needs hx\[0\] of the input's dtype torch.float32, got torch.bfloat16"):
        module(X, states)


@pytest.mark.filterwarnings("ignore:.*torch.jit.script. is deprecated:DeprecationWarning")
def test_second_derivatives_and_forward_mode_of_a_graph_say_where_they_can_be_had() -> None:
    module = gnn.LSTM(4, 6, 2)
    program: Callable[[Tensor], Any] = torch.export.export(module, (X,)).module()
    x = X.clone().requires_grad_()
    (grad,) = torch.autograd.grad(program(x)[0].sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="has no second derivative: take it outside"):
        grad.sum().backward()
    with pytest.raises(NotImplementedError, match="has no forward mode: take it outside"):
        torch.func.jvp(lambda x: program(x)[0], (X,), (X,))
