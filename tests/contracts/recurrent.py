"""The contract of recurrent modules as functions that raise where it is broken: for ours and for ``torch.nn.LSTM``."""

from __future__ import annotations

import copy
import inspect
import io
import pickle
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial, wraps
from typing import Any

import pytest
import torch
import torch._dynamo.testing
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.nn.utils import parametrizations, parametrize
from torch.nn.utils.rnn import PackedSequence, pack_sequence, pad_packed_sequence
from torch.testing import assert_close

from gradguard import nn as gnn

IN, H, B, T = 3, 4, 2, 5
Kind = Callable[..., nn.Module]


@wraps(gnn.BatchNormLSTM, updated=())
def evaluated_batch_norm_lstm(*args: Any, **options: Any) -> nn.Module:
    """One that was trained: in evaluation a sequence is a matter of its own, as in all other modules."""
    module = gnn.BatchNormLSTM(*args, **{"gain": 0.5} | options)
    for name, buffer in module.named_buffers():
        if not buffer.is_meta:
            buffer.copy_(buffer + 1 if name.endswith("batches") else buffer + 0.1 * torch.rand(buffer.shape))
    return module.eval()


MODULES: dict[str, Kind] = {
    "LSTM": gnn.LSTM,
    "LayerNormLSTM": gnn.LayerNormLSTM,
    "NormalizedCellLSTM": gnn.NormalizedCellLSTM,
    "BatchNormLSTM": evaluated_batch_norm_lstm,
    "RMSNormLSTM": gnn.RMSNormLSTM,
    "GroupNormLSTM": gnn.GroupNormLSTM,
    "PeepholeLSTM": gnn.PeepholeLSTM,
    "CoupledLSTM": gnn.CoupledLSTM,
    "JANET": gnn.JANET,
    "RNN": gnn.RNN,
    "IndRNN": partial(gnn.IndRNN, length=T),
    "GRU": gnn.GRU,
    "LayerNormGRU": gnn.LayerNormGRU,
    "OriginalGRU": gnn.OriginalGRU,
    "MUT1": gnn.MUT1,
    "MUT2": gnn.MUT2,
    "MUT3": gnn.MUT3,
}
IN_TRAINING: dict[str, Kind] = {"BatchNormLSTM, in training": gnn.BatchNormLSTM}
_ONE = "a sequence alone has no batch statistics"
_FOLLOWS = "running statistics are followed in place, which torch.func does not allow, as for torch.nn.BatchNorm1d"
NOT_APPLICABLE: dict[str, dict[str, str]] = {
    "BatchNormLSTM": {"states_carry_on": "the second call counts its steps from 0 on, with their statistics"},
    "BatchNormLSTM, in training": {
        "forms_of_input": _ONE,
        "packed_equals_each_alone": _ONE,
        "batched_gradients": _ONE,
        "gradients_per_sample": _ONE,
        "backward_in_eval": "evaluation has other statistics",
        **dict.fromkeys(("jacrev", "jvp", "dual_numbers_without_grad", "jacfwd", "hessian"), _FOLLOWS),
        **dict.fromkeys(("reverse_over_forward", "forward_mode_is_never_dropped"), _FOLLOWS),
        **dict.fromkeys(("vmap", "vmap_over_weights", "vmap_with_frozen_weights"), "it is refused, with a message"),
        **dict.fromkeys(("exports", "exports_strictly"), "what is exported is in evaluation"),
    },
}
TORCH: dict[str, Kind] = {
    "RNN": nn.RNN,
    "GRU": nn.GRU,
    "LayerNormGRU": nn.GRU,
}  # whose contract it is; nn.LSTM's, where nothing is said


def projected(kind: Kind) -> dict[str, int]:
    """The option, if the module has it."""
    return {"proj_size": 2} if "proj_size" in inspect.signature(kind).parameters or kind is nn.LSTM else {}


def states_of(last: Any) -> tuple[Tensor, ...]:
    """The states as a tuple, of a cell with one as well."""
    return last if isinstance(last, tuple) else (last,)


def as_hx(states: Any) -> Any:
    """What a module takes: a tuple, or the only state."""
    states = tuple(states)
    return states if len(states) > 1 else states[0]


def initial(module: nn.Module, *shape: int) -> list[Tensor]:
    """States to begin with, of whatever number and widths the module has."""
    _, last = module(data())
    return [data(*shape, s.shape[-1]) * (i + 1) for i, s in enumerate(states_of(last))]


def close(a: Tensor, b: Tensor) -> None:
    exact = a.dtype == torch.float64
    assert_close(a, b, rtol=1e-10 if exact else 1e-5, atol=1e-12 if exact else 1e-6)


def made(kind: Kind, **options: Any) -> nn.Module:
    torch.manual_seed(0)
    return kind(IN, H, **{"dtype": torch.float64} | options)


def data(*shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(shape or (T, B, IN), dtype=dtype, generator=torch.Generator().manual_seed(1))


def total(found: Any) -> Tensor:
    """A loss in which every output has a weight of its own."""
    output, last = found
    output = output.data if isinstance(output, PackedSequence) else output
    return sum((t * torch.arange(1, t.numel() + 1).view(t.shape)).sin().sum() for t in (output, *states_of(last)))


def gradients(module: nn.Module, loss: Tensor) -> list[Tensor]:
    return list(torch.autograd.grad(loss, list(module.parameters())))


def forms_of_input(kind: Kind) -> None:
    options = {"num_layers": 2, "bidirectional": True} | projected(kind)
    module, first = made(kind, **options), made(kind, **options, batch_first=True)
    x, width = data(), options.get("proj_size", H)
    output, last = module(x)
    assert output.shape == (T, B, 2 * width)
    assert [s.shape for s in states_of(last)] == [(4, B, w) for w in (width, H)][: len(states_of(last))]
    close(first(x.transpose(0, 1))[0].transpose(0, 1), output)
    alone, last_alone = module(x[:, 1])
    close(alone, output[:, 1])
    for one, both in zip(states_of(last_alone), states_of(last), strict=True):
        close(one, both[:, 1])


def packed_equals_each_alone(kind: Kind) -> None:
    for lengths in ((5, 3, 1), (2, 5, 3), (4, 4, 4)):
        module = made(kind, num_layers=2, bidirectional=True)
        each = [data(n, IN) + i for i, n in enumerate(lengths)]
        states = initial(module, 4, 3)
        packed, last = module(pack_sequence(each, enforce_sorted=False), as_hx(states))
        assert isinstance(packed, PackedSequence)
        padded, _ = pad_packed_sequence(packed)
        for i, x in enumerate(each):
            output, alone = module(x, as_hx(s[:, i] for s in states))
            close(padded[: len(x), i], output)
            for one, every in zip(states_of(alone), states_of(last), strict=True):
                close(every[:, i], one)


def states_carry_on(kind: Kind) -> None:
    module, x = made(kind, num_layers=2), data()
    whole, last = module(x)
    first, states = module(x[:2])
    second, again = module(x[2:], states)
    close(torch.cat([first, second]), whole)
    close(states_of(again)[-1], states_of(last)[-1])


def states_are_tensors_of_their_own(kind: Kind) -> None:
    for x in (data(), data(1, B, IN)):
        output, last = made(kind)(x)
        before = output.detach().clone()
        with torch.no_grad():
            for state in states_of(last):
                state.zero_()
        close(output, before)


def no_batch(kind: Kind) -> None:
    output, last = made(kind)(data(T, 0, IN))
    assert output.shape == (T, 0, H)
    assert states_of(last)[0].shape == (1, 0, H)


def no_steps(kind: Kind) -> None:
    module = made(kind, bidirectional=True, num_layers=2)
    states = [state.requires_grad_() for state in initial(module, 4, B)]
    output, last = module(data(0, B, IN), as_hx(states))
    assert output.shape == (0, B, 2 * H)
    for after, before in zip(states_of(last), states, strict=True):
        close(after, before)
    (grad,) = torch.autograd.grad((states_of(last)[0] * states[-1].detach()).sum(), states[0])
    close(grad, states[-1])


def dropout_between_layers(kind: Kind) -> None:
    module, x = made(kind, num_layers=2, dropout=1.0).train(), data()
    close(module(x)[0], module(5 * x)[0])  # the second layer sees zeros
    module.eval()
    assert not torch.allclose(module(x)[0], module(5 * x)[0])


def backward_in_eval(kind: Kind) -> None:
    module = made(kind)
    expected = gradients(module, total(module(data())))
    for a, b in zip(gradients(module.eval(), total(module(data()))), expected, strict=True):
        close(a, b)


def backward_twice(kind: Kind) -> None:
    module = made(kind)
    loss = total(module(data()))
    first = torch.autograd.grad(loss, list(module.parameters()), retain_graph=True)
    for a, b in zip(gradients(module, loss), first, strict=True):
        assert a.equal(b)


def copies(kind: Kind) -> None:
    module, x = made(kind, num_layers=2), data()
    buffer = io.BytesIO()
    torch.save(module, buffer)
    buffer.seek(0)
    other = made(kind, num_layers=2)
    other.load_state_dict(copy.deepcopy(module.state_dict()))
    for twin in (
        copy.deepcopy(module),
        pickle.loads(pickle.dumps(module)),
        torch.load(buffer, weights_only=False),
        other,
    ):
        assert twin(x)[0].equal(module(x)[0])


def dtypes(kind: Kind) -> None:
    for dtype, error in ((torch.float32, 1e-5), (torch.bfloat16, 3e-2), (torch.float16, 3e-3)):
        module, x = made(kind).to(dtype), data().to(dtype)
        output, last = module(x)
        expected = copy.deepcopy(module).double()(x.double())[0].float()  # of the same rounded weights
        assert {t.dtype for t in (output, *states_of(last))} == {dtype}
        assert_close(output.float(), expected, rtol=error, atol=error)


def autocast(kind: Kind) -> None:
    module = made(kind, dtype=torch.float32)
    expected = module(data().float())[0]
    with torch.autocast("cpu", torch.bfloat16):
        output, last = module(data().float())
    assert output.dtype == states_of(last)[0].dtype == torch.bfloat16
    assert_close(output.float(), expected, rtol=3e-2, atol=3e-2)
    output.float().sum().backward()
    assert all(param.grad.dtype == torch.float32 for param in module.parameters())


def autocast_keeps_cells_wide(kind: Kind) -> None:
    with torch.autocast("cpu", torch.bfloat16):
        _, states = made(kind, dtype=torch.float32)(data().float())
        assert all(state.dtype == torch.float32 for state in states_of(states)[1:])
        made(kind, dtype=torch.float32)(data().float(), states)


def meta_device(kind: Kind) -> None:
    output, _ = made(kind, device="meta")(data().to("meta"))
    assert output.shape == (T, B, H)


def functional_call(kind: Kind) -> None:
    module, x = made(kind), data()
    double = {name: 2 * param for name, param in module.named_parameters()}
    expected = copy.deepcopy(module)
    expected.load_state_dict(double, strict=False)  # buffers are as they were
    close(torch.func.functional_call(module, double, (x,))[0], expected(x)[0])


def frozen_parts(kind: Kind) -> None:
    module, x = made(kind), data().requires_grad_()
    expected = torch.autograd.grad(total(module(x)), [module.weight_hh_l0, x])
    module.requires_grad_(False)
    module.weight_hh_l0.requires_grad_()
    found = torch.autograd.grad(total(module(x)), [module.weight_hh_l0, x])
    close(found[0], expected[0])
    close(found[1], expected[1])
    module.requires_grad_(False)
    close(torch.autograd.grad(total(module(x)), x)[0], expected[1])
    assert not module(x.detach())[0].requires_grad


def parametrized_weights(kind: Kind) -> None:
    module = made(kind)
    value = module.weight_hh_l0.detach().clone()
    parametrizations.weight_norm(module, "weight_hh_l0")
    close(module.weight_hh_l0, value)
    total(module(data())).backward()
    assert module.parametrizations.weight_hh_l0.original1.grad.norm() > 0
    parametrize.remove_parametrizations(module, "weight_hh_l0")
    copy.deepcopy(module)(data())


def threads(kind: Kind) -> None:
    module = made(kind, num_layers=2)
    expected = gradients(module, total(module(data())))
    with ThreadPoolExecutor(4) as pool:
        for found in pool.map(lambda _: gradients(module, total(module(data()))), range(16)):
            assert all(a.equal(b) for a, b in zip(found, expected, strict=True))


def inference_mode(kind: Kind) -> None:
    module = made(kind)
    with torch.inference_mode():
        found = module(data())[0].clone()
    close(found, module(data())[0].detach())


def layouts_of_memory(kind: Kind) -> None:
    module, x = made(kind), data(IN, B, T).permute(2, 1, 0)
    output, _ = module(x)
    close(output, module(x.contiguous())[0])
    output.sum().backward()  # an expanded gradient


def inputs_changed_after_use(kind: Kind) -> None:
    module, x = made(kind), data()
    output, _ = module(x)
    with torch.no_grad():
        x.zero_()
    with pytest.raises(RuntimeError, match="inplace"):  # rather than the gradient of other values
        output.sum().backward()


def _as_function(kind: Kind) -> tuple[Callable[..., Any], tuple[Tensor, ...]]:
    module = made(kind, **projected(kind))
    names = [name for name, _ in module.named_parameters()]
    values = [param.detach().clone().requires_grad_() for param in module.parameters()]
    states = [state.requires_grad_() for state in initial(module, 1, B)]

    def call(x: Tensor, *rest: Tensor) -> tuple[Tensor, ...]:
        hx, params = as_hx(rest[: len(states)]), rest[len(states) :]
        output, last = torch.func.functional_call(module, dict(zip(names, params, strict=True)), (x, hx))
        return output, *states_of(last)

    return call, (data(3, B, IN).requires_grad_(), *states, *values)


def gradcheck(kind: Kind) -> None:
    assert torch.autograd.gradcheck(*_as_function(kind))


def gradgradcheck(kind: Kind) -> None:
    assert torch.autograd.gradgradcheck(*_as_function(kind), fast_mode=True)


def _scalar(kind: Kind) -> tuple[Callable[[Tensor], Tensor], Tensor]:
    module = made(kind)
    return lambda x: total(module(x)), data()


def jacrev(kind: Kind) -> None:
    f, x = _scalar(kind)
    leaf = x.clone().requires_grad_()
    close(torch.func.jacrev(f)(x), torch.autograd.grad(f(leaf), leaf)[0])


def jvp(kind: Kind) -> None:
    f, x = _scalar(kind)
    close(torch.func.jvp(f, (x,), (x.cos(),))[1], (torch.func.jacrev(f)(x) * x.cos()).sum())


def dual_numbers_without_grad(kind: Kind) -> None:
    f, x = _scalar(kind)
    expected = (torch.func.grad(f)(x) * x.cos()).sum()
    with torch.no_grad(), forward_ad.dual_level():
        close(forward_ad.unpack_dual(f(forward_ad.make_dual(x, x.cos()))).tangent, expected)


def jacfwd(kind: Kind) -> None:
    f, x = _scalar(kind)
    close(torch.func.jacfwd(f)(x), torch.func.jacrev(f)(x))


def hessian(kind: Kind) -> None:
    f, x = _scalar(kind)
    close(torch.func.hessian(f)(x), torch.autograd.functional.hessian(f, x))


def reverse_over_forward(kind: Kind) -> None:
    f, x = _scalar(kind)
    close(torch.func.jacrev(torch.func.jacfwd(f))(x), torch.autograd.functional.hessian(f, x))
    module, t = made(kind), x.cos()
    (found,) = torch.autograd.grad(torch.func.jvp(lambda x: total(module(x)), (x,), (t,))[1], module.weight_hh_l0)
    leaf = x.clone().requires_grad_()
    (slope,) = torch.autograd.grad(total(module(leaf)), leaf, create_graph=True)
    (expected,) = torch.autograd.grad((slope * t).sum(), module.weight_hh_l0)
    close(found, expected)


def forward_over_forward_is_right_or_raises(kind: Kind) -> None:
    f, x = _scalar(kind)
    try:
        found = torch.func.jacfwd(torch.func.jacfwd(f))(x)
    except NotImplementedError:
        return
    close(found, torch.autograd.functional.hessian(f, x))


def third_derivatives(kind: Kind) -> None:
    f, x = _scalar(kind)
    t = x.cos()

    def second(s: Tensor) -> Tensor:
        """Of the loss along a line, twice back."""
        (first,) = torch.autograd.grad(f(x + s * t), s, create_graph=True)
        return torch.autograd.grad(first, s, create_graph=True)[0]

    at = torch.zeros((), dtype=torch.float64, requires_grad=True)
    (found,) = torch.autograd.grad(second(at), at)
    low, high = (second(torch.tensor(s, dtype=torch.float64, requires_grad=True)) for s in (-1e-5, 1e-5))
    assert_close(found, ((high - low) / 2e-5).detach(), rtol=1e-5, atol=1e-6)


def batched_gradients(kind: Kind) -> None:
    module, x = made(kind), data(2, 1, IN)
    f = lambda x: module(x)[0]  # noqa: E731
    close(torch.autograd.functional.jacobian(f, x, vectorize=True), torch.autograd.functional.jacobian(f, x))


def outputs_without_a_gradient(kind: Kind) -> None:
    class Stop(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor) -> Tensor:
            return x.clone()

        @staticmethod
        def backward(ctx: Any, grad: Tensor) -> None:
            return None

    module = made(kind)
    Stop.apply(module(data())[0]).sum().backward(create_graph=True)
    assert all(param.grad is None for param in module.parameters())


def backward_under_autocast(kind: Kind) -> None:
    """Autocast is for the forward pass; what was computed without it has the gradients of that."""
    module = made(kind, dtype=torch.float32, **projected(kind))
    expected, loss = gradients(module, total(module(data().float()))), total(module(data().float()))
    with torch.autocast("cpu", torch.bfloat16):
        for a, b in zip(gradients(module, loss), expected, strict=True):
            close(a, b)


def second_backward_under_autocast(kind: Kind) -> None:
    module = made(kind, dtype=torch.float32)

    def penalty(*, autocast: bool) -> Tensor:
        x = data().float().requires_grad_()
        (grad,) = torch.autograd.grad(module(x)[0].square().sum(), x, create_graph=True)
        loss = grad.square().sum()
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            return torch.autograd.grad(loss, module.weight_hh_l0)[0]

    assert_close(penalty(autocast=True), penalty(autocast=False), rtol=1e-5, atol=1e-6)


def vmap(kind: Kind) -> None:
    module, xs = made(kind, num_layers=2, bidirectional=True), data(3, T, B, IN)
    found = torch.vmap(lambda x: module(x)[0])(xs)
    close(found, torch.stack([module(x)[0] for x in xs]))


def vmap_over_weights(kind: Kind) -> None:
    modules = [kind(IN, H, dtype=torch.float64) for _ in range(3)]
    params, buffers = torch.func.stack_module_state(modules)
    x = data()
    found = torch.vmap(lambda p, b: torch.func.functional_call(modules[0], (p, b), (x,))[0])(params, buffers)
    close(found, torch.stack([module(x)[0] for module in modules]))


def vmap_with_frozen_weights(kind: Kind) -> None:
    module, xs = made(kind).requires_grad_(False), data(3, T, B, IN)
    found = torch.func.grad(lambda xs: torch.vmap(lambda x: total(module(x)))(xs).sum())(xs)
    close(found, torch.stack([torch.func.grad(lambda x: total(module(x)))(x) for x in xs]))


def gradients_per_sample(kind: Kind) -> None:
    module, xs = made(kind, num_layers=2), data(3, T, IN)
    params = dict(module.named_parameters())

    def loss(params: dict[str, Tensor], x: Tensor) -> Tensor:
        return total(torch.func.functional_call(module, params, (x,)))

    found = torch.vmap(torch.func.grad(loss), (None, 0))(params, xs)
    for i, x in enumerate(xs):
        for a, b in zip(found.values(), gradients(module, total(module(x))), strict=True):
            close(a[i], b)


def _trains_in_one_graph(kind: Kind, backend: str) -> None:
    torch._dynamo.reset()
    module = made(kind, num_layers=2, bidirectional=True)
    counter = torch._dynamo.testing.CompileCounterWithBackend(backend)
    compiled = torch.compile(module, backend=counter, fullgraph=True, dynamic=True)
    first = 0
    for steps, batch in ((4, 2), (7, 2), (9, 3), (30, 5)):
        x = data(steps, batch, IN)
        found, expected = total(compiled(x)), total(module(x))
        close(found, expected)
        for a, b in zip(gradients(module, found), gradients(module, expected), strict=True):
            close(a, b)
        first = first or counter.frame_count  # torch may start over once while it captures the first
        assert counter.frame_count == first


def one_graph_aot_eager(kind: Kind) -> None:
    _trains_in_one_graph(kind, "aot_eager")


def one_graph_inductor(kind: Kind) -> None:
    _trains_in_one_graph(kind, "inductor")


def packed_in_one_graph(kind: Kind) -> None:
    torch._dynamo.reset()
    module = made(kind, bidirectional=True)
    compiled = torch.compile(lambda p: module(p)[0].data, backend="aot_eager", fullgraph=True, dynamic=True)
    for lengths, in_order in (((2, 5, 3), False), ((4, 4, 1, 7), False), ((6, 2), True)):
        packed = pack_sequence([data(n, IN) for n in lengths], enforce_sorted=in_order)
        found, expected = compiled(packed).sin().sum(), module(packed)[0].data.sin().sum()
        close(found, expected)
        for a, b in zip(gradients(module, found), gradients(module, expected), strict=True):
            close(a, b)


def layouts_of_memory_in_a_graph(kind: Kind) -> None:
    """Inductor believes the strides that an operator promises."""
    torch._dynamo.reset()
    module = made(kind)
    for name in ("weight_ih_l0", "weight_hh_l0"):  # an IndRNN's second one is a vector, which has one layout
        setattr(module, name, nn.Parameter(getattr(module, name).detach().t().contiguous().t()))
    compiled = torch.compile(module, fullgraph=True)
    x, h = data(IN, B, T).permute(2, 1, 0).requires_grad_(), data(1, H, B).transpose(1, 2).requires_grad_()
    inputs, several = [x, h, *module.parameters()], isinstance(module(x)[1], tuple)
    hx = (h, 2 * h.detach()) if several else h
    found, expected = ((states_of(f(x, hx)[1])[0] * data(1, H, B).transpose(1, 2)).sum() for f in (compiled, module))
    for a, b in zip(torch.autograd.grad(found, inputs), torch.autograd.grad(expected, inputs), strict=True):
        close(a, b)


def gradients_of_a_graph_captured_without(kind: Kind) -> None:
    module = made(kind)
    with torch.no_grad():
        program = torch.export.export(module, (data(),)).module()
    x = data().requires_grad_()
    close(torch.autograd.grad(total(program(x)), x)[0], torch.autograd.grad(total(module(x)), x)[0])


def _exports(kind: Kind, *, strict: bool) -> None:
    module = made(kind, num_layers=2, bidirectional=True)
    dims = {0: torch.export.Dim("T", min=2, max=1000), 1: torch.export.Dim("B", min=2, max=1000)}
    program = torch.export.export(module, (data(),), dynamic_shapes=(dims,), strict=strict)
    buffer = io.BytesIO()
    torch.export.save(program, buffer)
    buffer.seek(0)
    loaded = torch.export.load(buffer).module()
    for shape in ((9, 4, IN), (2, 7, IN)):
        close(loaded(data(*shape))[0], module(data(*shape))[0])


def exports(kind: Kind) -> None:
    _exports(kind, strict=False)


def exports_strictly(kind: Kind) -> None:
    _exports(kind, strict=True)


def forward_mode_is_never_dropped(kind: Kind) -> None:
    """In a captured graph it is right or raises."""
    program = torch.export.export(made(kind), (data(),)).module()
    f, x = _scalar(kind)
    expected = torch.func.jvp(f, (x,), (x.cos(),))[1]
    try:
        found = torch.func.jvp(lambda x: total(program(x)), (x,), (x.cos(),))[1]
    except (NotImplementedError, RuntimeError):
        return
    close(found, expected)


def packed_of_another_width_is_refused(kind: Kind) -> None:
    with pytest.raises(RuntimeError):
        made(kind, dtype=torch.float32)(pack_sequence([data(T, IN + 1).float()]))


CONTRACT: dict[str, Callable[[Kind], None]] = {
    check.__name__: check
    for check in (
        forms_of_input,
        packed_equals_each_alone,
        states_carry_on,
        states_are_tensors_of_their_own,
        no_batch,
        no_steps,
        dropout_between_layers,
        backward_in_eval,
        backward_twice,
        copies,
        dtypes,
        autocast,
        autocast_keeps_cells_wide,
        meta_device,
        functional_call,
        frozen_parts,
        parametrized_weights,
        threads,
        inference_mode,
        layouts_of_memory,
        inputs_changed_after_use,
        gradcheck,
        gradgradcheck,
        jacrev,
        jvp,
        dual_numbers_without_grad,
        jacfwd,
        hessian,
        reverse_over_forward,
        forward_over_forward_is_right_or_raises,
        third_derivatives,
        batched_gradients,
        outputs_without_a_gradient,
        backward_under_autocast,
        second_backward_under_autocast,
        vmap,
        vmap_over_weights,
        vmap_with_frozen_weights,
        gradients_per_sample,
        one_graph_aot_eager,
        one_graph_inductor,
        packed_in_one_graph,
        layouts_of_memory_in_a_graph,
        gradients_of_a_graph_captured_without,
        exports,
        exports_strictly,
        forward_mode_is_never_dropped,
        packed_of_another_width_is_refused,
    )
}
