"""Which module is at fault for a wrong gradient: each one that was called is run alone, on what it was given.

A wrong gradient of a module's input spoils all that comes before it, so that a model's wrong parameters do not tell.
Run alone, from a random gradient of its output, a module is wrong only if its own backward is, or that of one in it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, final

import torch
from torch import Tensor, nn

from gradguard.names import known_parameters, named_modules
from gradguard.probe.block_check import Origin
from gradguard.probe.block_verdicts import Plan, verdicts
from gradguard.probe.nested_tensors import named_tensors, substituted
from gradguard.probe.scalar import Scalar, derivative

MOST = 3  # calls of one module that are looked at


@final
class Call:
    """One call of a module, and the calls within it.

    Attributes:
        given: arguments and keyword arguments, copied.
        needs: places of the tensors in them to which a gradient should come.
        gives: places of the outputs to which one came from the loss.
        cut: places of the outputs without a graph.
        within: the calls within it, in order.
        is_on: whether gradients were.
    """

    def __init__(self, module: nn.Module | None, given: Any = ((), {}), needs: set[str] | None = None) -> None:
        self.module, self.given, self.needs = module, given, needs or set()
        self.gives: set[str] = set()
        self.cut: set[str] = set()
        self.within: list[Call] = []
        self.is_on = True


def origins(scalar: Scalar, model: nn.Module, plan: Plan) -> tuple[Origin, ...]:
    """Find the modules whose own backward is wrong. Mutates: nothing that lasts.

    Args:
        scalar: the loss, as a function of the model's parameters.
        model: the float64 copy.
        plan: how blocks are checked.
    """
    at_0, root = _calls_of(scalar, model)
    names = {id(module): name for name, module in named_modules({"": model})}
    found, is_sure = _within(root, scalar, at_0, names, plan)
    if not found and is_sure:
        return (Origin("loss_fn", ""),)
    unique = {origin.module: origin for origin in reversed(found)}
    return tuple(reversed(unique.values()))


def _within(call: Call, scalar: Scalar, at_0: float, names: dict[int, str], plan: Plan) -> tuple[list[Origin], bool]:
    """Give the faulty modules among those that a call calls, and whether all of these could be looked at."""
    found: list[Origin] = []
    is_sure, looked = True, dict[int, list[Call]]()
    for inner in call.within:
        calls = looked.setdefault(id(inner.module), [])
        if inner.module is None or len(calls) == MOST:
            continue
        calls.append(inner)
        wrong = _wrong_alone(inner, scalar, at_0, plan)
        if wrong == ():
            continue
        deeper, deeper_is_sure = _within(inner, scalar, at_0, names, plan)
        found += deeper
        if wrong is None:
            is_sure = is_sure and deeper_is_sure and bool(deeper)
        elif not deeper:
            name = names.get(id(inner.module)) or "(root)"
            found.append(Origin(name, type(inner.module).__name__, wrong))
    return found, is_sure


def _calls_of(scalar: Scalar, model: nn.Module) -> tuple[float, Call]:
    """Run once more and note all calls, with what went in and where gradients came out."""
    root = Call(None)
    stack, heard = [root], []

    def run() -> Tensor:
        loss = scalar.run()
        heard.extend(root.within)
        return loss

    def before(module: nn.Module, args: Any, kwargs: Any) -> None:
        tensors = named_tensors((args, kwargs))
        needs = {place for place, t in tensors.items() if t.requires_grad}
        call = Call(module, substituted((args, kwargs), lambda _, t: t.detach().clone()), needs)
        call.is_on = torch.is_grad_enabled()
        stack[-1].within.append(call)
        stack.append(call)

    def after(module: nn.Module, args: Any, kwargs: Any, result: Any) -> None:
        call = stack.pop()
        for place, tensor in named_tensors(result).items():
            if tensor.requires_grad:
                tensor.register_hook(lambda _, place=place: call.gives.add(place))
            elif tensor.is_floating_point() or tensor.is_complex():
                call.cut.add(place)

    handles = []
    for module in model.modules():
        handles.append(module.register_forward_pre_hook(before, with_kwargs=True, prepend=True))
        handles.append(module.register_forward_hook(after, with_kwargs=True, always_call=True))
    try:
        at_0, _ = Scalar(run, scalar.module, scalar.blocks).gradients()
    finally:
        for handle in handles:
            handle.remove()
    root.within = heard  # what a checkpoint runs once more on the way back is no call of the loss's
    return at_0, root


def _wrong_alone(call: Call, scalar: Scalar, at_0: float, plan: Plan) -> tuple[str, ...] | None:
    """Give the gradients that are wrong of a module run alone: None where it can't be."""
    module: Any = call.module
    leaves = {}
    for place, tensor in named_tensors(call.given).items():
        if place in call.needs:
            leaves[place] = tensor.clone().requires_grad_()
    own = {id(p) for p in module.parameters() if p.requires_grad}
    known = known_parameters({"": module})
    params = {known[id(p)].name: p for p in module.parameters() if id(p) in own}
    gives = call.gives | {place for place in call.cut if _matters(call, place, scalar, at_0)}
    if not (leaves or params) or not gives:
        return ()
    generator = torch.Generator().manual_seed(plan.seed)
    cotangents: dict[str, Tensor] = {}

    def run() -> Tensor:
        args, kwargs = substituted(call.given, lambda place, t: leaves.get(place, t).clone())
        outputs = named_tensors(module(*args, **kwargs))
        total = torch.zeros(())
        for place in sorted(gives):
            output = outputs[place]
            if place not in cotangents:
                drawn = torch.randn(output.shape, generator=generator, dtype=torch.float64).to(output.device)
                cotangents[place] = (drawn / math.sqrt(output.numel() or 1)).requires_grad_(plan.order == 2)
            value = torch.view_as_real(output).sum(-1) if output.is_complex() else output
            total = total.to(output.device) + (cotangents[place] * value).sum()
        return total

    names = dict.fromkeys(leaves, "input")
    try:
        alone = Scalar(run, module, params | leaves)
        alone.gradients()
        if plan.order == 2:
            given = {f"gradient of output{place}": c for place, c in cotangents.items()}
            names |= dict.fromkeys(given, "the gradient that comes in")
            alone = derivative(Scalar(run, module, params | leaves | given), torch.Generator().manual_seed(plan.seed))
        wrong = [block.name for block in verdicts(alone, plan) if block.verdict == "wrong"]
    except Exception:
        return None
    return tuple(dict.fromkeys(names.get(name, name) for name in wrong))


def _matters(call: Call, place: str, scalar: Scalar, at_0: float) -> bool:
    """Whether the loss changes with an output that has no graph."""
    if not call.is_on:
        return False

    def shift(module: nn.Module, args: Any, result: Any) -> Any:
        return substituted(result, lambda at, t: t + 1e-2 * (1 + t.abs()) * _uneven(t) if at == place else t)

    with _hooked(call.module, shift):
        there = scalar.value({}, 0.0)
    return not abs(there - at_0) <= 1e-12 * abs(at_0)


def _uneven(tensor: Tensor) -> Tensor:
    """Give numbers that no mean and no difference loses, without a random generator: dropout draws what it drew."""
    return torch.arange(1.0, tensor.numel() + 1, device=tensor.device).sqrt().cos().view(tensor.shape)


@contextmanager
def _hooked(module: Any, hook: Callable[..., Any]) -> Iterator[None]:
    handle = module.register_forward_hook(hook)
    try:
        yield
    finally:
        handle.remove()
