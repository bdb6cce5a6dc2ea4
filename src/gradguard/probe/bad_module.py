"""Which module it is that NaN or Inf comes from: one batch is run again, and all that it goes through is looked at."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, final

import torch
from torch import Tensor, nn

from gradguard.names import WRAPPERS_OF_MODULE, known_parameters, named_modules
from gradguard.probe.finite_trace import Backward, Called, Count, FiniteTrace, Operation, count
from gradguard.probe.hearing import alone
from gradguard.probe.nested_tensors import named_tensors
from gradguard.probe.through_time import bounded, uncompiled

Where = Literal["input", "parameter", "forward", "loss", "backward"]


@final
@dataclass(frozen=True)
class BadModule:
    """Where NaN or Inf comes from.

    Attributes:
        module: as ``named_modules`` spells it, the innermost one that explains it; None where it is ``loss_fn`` itself.
        where: in the ``input``, a ``parameter``, the ``forward`` pass, the ``loss`` alone, or the ``backward`` pass.
        operation: the function of torch that made it, ``log``; in the backward pass the node of autograd,
            ``SqrtBackward0``; None where it is not known.
        detail: what was found, in a sentence or two.
    """

    module: str | None
    where: Where
    operation: str | None
    detail: str

    def __str__(self) -> str:
        place = "loss_fn" if self.module is None else self.module or "(root)"
        head = f"[{self.where}] {place}{f', {self.operation}' if self.operation else ''}: {self.detail}"
        return textwrap.fill(head, 100, subsequent_indent="  ", break_on_hyphens=False, break_long_words=False)


def first_bad_module(model: nn.Module, batch: Any, loss_fn: Callable[[Any, Any], Tensor]) -> BadModule | None:
    """Run a batch again, and name the first module that makes NaN or Inf of what is finite.

    Use it when a guard reports ``non_finite``, with the batch of the first bad step and the weights of before it. The
    first function whose output is not finite though its inputs are is blamed, in the order of the forward pass; where
    the loss is finite, the first node of the graph, on the way back from it, whose gradient is not finite though the
    one that comes to it is. ``-inf`` in a mask is meant, and blamed only for the NaN that comes of it;
    ``+inf`` there where nothing else is.

    Not for a loop that goes on: each function's inputs and outputs are looked at, which takes several times as long as
    the batch's own passes. What a scripted module or an extension does inside is seen from outside only.

    Args:
        model: in the mode in which it was trained; a compiled one is run as it was before.
        batch: passed on to ``loss_fn``.
        loss_fn: called as ``loss_fn(model, batch)``: runs the model as the loop does (under autocast, where that does),
            and gives what the loop calls ``backward()`` of (scaled, where a scaler does).

    Returns:
        The module, or None where the loss and all gradients are finite.

    Raises:
        TypeError: a loss that is no tensor.
        ValueError: more than one loss; a checkpoint with ``use_reentrant=True`` beside hooks that step as they get
            gradients.

    Host sync: several for each function. Mutates: nothing: weights, gradients, buffers and random numbers are as they
    were.

    >>> class Spread(nn.Module):
    ...     def forward(self, x):
    ...         return (x - x.mean()).square().mean().sqrt()
    >>> model = nn.Sequential(nn.Linear(2, 1), Spread())
    >>> _ = nn.init.zeros_(model[0].weight)
    >>> bad = first_bad_module(model, torch.randn(4, 2), lambda model, x: model(x))
    >>> bad.module, bad.where, bad.operation
    ('1', 'backward', 'SqrtBackward0')
    """
    from gradguard.init.draft import Saved

    while type(model).__name__ in WRAPPERS_OF_MODULE and isinstance(inner := getattr(model, "module", None), nn.Module):
        model = inner  # DistributedDataParallel would wait for a backward pass of all ranks
    for known in known_parameters({"": model}).values():
        short = known.name.rpartition(".")[2]
        if bad := count(known.module._parameters.get(short)):
            after = "Take the weights of before the first bad step, or skip such steps (recover=Skip())."
            return BadModule(known.layer, "parameter", None, f"{known.name} holds {bad}. {after}")
    trace = FiniteTrace({module: name for name, module in named_modules({"": model})})
    saved, limits = Saved([model], parameters=False), bounded(model)
    try:
        with alone():
            return _run(model, batch, loss_fn, trace)
    finally:
        trace.close()
        saved.restore()
        for stored, value in limits:
            stored.copy_(value)


def _run(model: nn.Module, batch: Any, loss_fn: Callable[[Any, Any], Tensor], trace: FiniteTrace) -> BadModule | None:
    devices = list({t.device for t in (*model.parameters(), *model.buffers()) if t.device.type == "cuda"})
    given = {place: bad for place, t in named_tensors(batch, "batch").items() if (bad := count(t))}
    with torch.random.fork_rng(devices), torch.inference_mode(mode=False), torch.enable_grad(), uncompiled():
        with trace:
            loss = loss_fn(model, batch)
            if not isinstance(loss, Tensor):
                raise TypeError(f"first_bad_module needs loss_fn to give a tensor, got {type(loss).__name__}.")
            if loss.numel() != 1:
                raise ValueError(f"first_bad_module needs one loss, got shape {tuple(loss.shape)}. Take its mean.")
            if not (bad := count(loss)) and loss.requires_grad:
                trace.listen_to_backward(loss)
                leaves = {id(t): t for t in (*model.parameters(), *named_tensors(batch).values())}
                went_back = _gradients(loss, [t for t in leaves.values() if t.requires_grad and t.is_leaf], trace)
            else:
                went_back = []
        if bad:
            return _of_forward(trace, given, model, bad)
        return _of_backward(trace) if count(went_back) else None


def _gradients(loss: Tensor, leaves: list[Tensor], trace: FiniteTrace) -> list[Tensor]:
    """Run back to the leaves, whose ``grad`` stays what it was."""
    if not leaves:
        return []
    if not trace.is_checkpointed:
        return [g for g in torch.autograd.grad(loss, leaves, allow_unused=True) if g is not None]
    if any(getattr(leaf, "_post_accumulate_grad_hooks", None) for leaf in leaves):
        raise ValueError(
            "first_bad_module needs to run back without the hooks that use gradients as they come, which a checkpoint "
            "with use_reentrant=True does not allow. Use use_reentrant=False, or take the hooks off."
        )
    with _put_aside(leaves):
        loss.backward()
        return [leaf.grad for leaf in leaves if leaf.grad is not None]


@contextmanager
def _put_aside(leaves: list[Tensor]) -> Iterator[None]:
    kept = [leaf.grad for leaf in leaves]
    for leaf in leaves:
        leaf.grad = None
    try:
        yield
    finally:
        for leaf, grad in zip(leaves, kept, strict=True):
            leaf.grad = grad


def _of_forward(trace: FiniteTrace, given: dict[str, Count], model: nn.Module, loss: Count) -> BadModule:
    """Explain a loss that is not finite."""
    first_taken = next((one.module for one in trace.operations if one.took and not one.took.is_mask), None)
    broken = {place: bad for place, bad in given.items() if not bad.is_mask}
    if broken:
        told = ", ".join(f"{place} holds {bad}" for place, bad in broken.items())
        return BadModule(first_taken, "input", None, f"{told}.")
    cause, opaque = next(filter(_makes, trace.operations), None), _first_opaque(trace)
    if opaque is not None and (cause is None or opaque.at < cause.at):
        what = f"this {type(_module(model, opaque.module)).__name__} gives {opaque.gave}, of finite inputs."
        return _of_buffers(model, opaque.module, None) or BadModule(opaque.module, "forward", None, what)
    if cause is None:  # +inf may be used up, by a minimum, say: it is blamed where nothing else explains the loss
        cause = next((one for one in trace.operations if one.meant and not one.took and not one.gave.is_mask), None)
    begun = trace.first_call
    if cause is None or (cause.module is None and begun is not None and cause.at < begun):
        taken = min((c for c in trace.calls if c.took), key=lambda c: c.begun, default=None)
        if taken is not None or cause is not None:
            name = None if cause is None else cause.name
            what = ", ".join(f"{place} has {bad}" for place, bad in taken.took.items()) if taken else str(loss)
            why = "The batch is finite: it is what loss_fn makes of it before the model is called"
            return BadModule(first_taken, "input", name, f"{what}. {why}.")
        return BadModule(None, "loss", None, f"the loss is {loss}, and all that torch and the modules gave is finite.")
    what = f"gives {cause.gave}" + (f" for {cause.took}, all -inf" if cause.took.is_mask else ", of finite inputs")
    if cause.module is None:
        return BadModule(None, "loss", cause.name, f"{what}. All outputs of modules are finite.")
    bad_buffers = _of_buffers(model, cause.module, cause.name)
    return bad_buffers or BadModule(cause.module, "forward", cause.name, f"{what}.")


def _module(model: nn.Module, name: str) -> nn.Module:
    return dict(named_modules({"": model}))[name]


def _of_buffers(model: nn.Module, name: str, operation: str | None) -> BadModule | None:
    """Blame what a module keeps beside its parameters, such as the statistics of a BatchNorm."""
    kept = _module(model, name)._buffers.items()
    found = [f"its buffer {key} holds {bad}" for key, b in kept if (bad := count(b)) and not bad.is_mask]
    return BadModule(name, "parameter", operation, f"{', '.join(found)}.") if found else None


def _makes(one: Operation) -> bool:
    """Whether a function makes what is not finite: of finite inputs, or NaN of a mask."""
    return (not one.took and not one.meant) or (one.gave.nan > 0 and one.took.is_mask)


def _is_of(bad: Count, meant: Count) -> bool:
    return bad.is_mask or not meant.is_mask


def _first_opaque(trace: FiniteTrace) -> Called | None:
    """Give the first call of a module that makes what is not finite, though none of its functions was seen to."""
    for call in trace.calls:
        explains = (one for one in trace.operations if _makes(one) or (one.meant and _is_of(call.gave, one.gave)))
        if call.gave and not call.took and not any(call.begun < one.at < call.at for one in explains):
            return call
    return None


def _of_backward(trace: FiniteTrace) -> BadModule:
    """Explain gradients that are not finite though the loss is."""
    if not trace.nodes:
        return BadModule(None, "backward", None, "gradients are not finite, and none was seen to become so on its way.")
    node: Backward = trace.nodes[0]
    if node.took:  # finite ones whose sum is not
        what = f"the gradients that come to it add up to {node.took}: each is finite, and their sum overflows."
    else:
        what = f"gives gradients with {node.gave}, for one that is finite."
    return BadModule(node.module, "backward", node.name, what + " In the forward pass all that counts is finite.")
