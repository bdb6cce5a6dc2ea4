"""Are the gradients of a model right? One call, on a batch."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from gradguard.arguments import positive, whole_number
from gradguard.names import known_parameters
from gradguard.probe.block_check import GradientCheck
from gradguard.probe.block_verdicts import Plan, verdicts
from gradguard.probe.float64_copy import float64_batch, float64_copy, unwrapped
from gradguard.probe.nested_tensors import named_tensors, substituted
from gradguard.probe.origins import origins
from gradguard.probe.scalar import Scalar, derivative, in_float64

WHO = "check_gradients"
SAME = 1e-6  # by what part two runs may differ: rounding, where sums are taken in any order


def check_gradients(
    model: nn.Module,
    loss_fn: Callable[[Any, Any], Tensor],
    batch: Any,
    *,
    inputs: bool = False,
    second_order: bool = False,
    directions: int = 2,
    rtol: float = 1e-5,
    seed: int = 0,
) -> GradientCheck:
    r"""Hold the gradient of every parameter of a model against differences of the loss, and name the module at fault.

    .. math:: \langle \nabla_p L, v \rangle \overset{?}{=} \frac{4 D(h/2) - D(h)}{3}, \qquad
        D(h) = \frac{L(p + h v) - L(p - h v)}{2 h}, \qquad \lVert v \rVert = 1

    for each parameter p along a few random directions v, on a float64 copy of the model. A kink (a ReLU at 0, a tie of
    a max-pool) is told from an error: there D(h) and D(h/2) or the one-sided derivatives differ, and right beside it
    the gradient is right. What rounding may do is measured, so that a tiny gradient is never called wrong. Where one is
    wrong, each module that was called is run alone, which tells the one at fault from those before it, that it spoils.

    For a backward that you wrote, or a model that you put together, once, on a small batch. Not in a training loop: it
    takes about ten forward passes a parameter. Not where a gradient is meant to differ from the derivative (a
    straight-through estimator, gradient reversal, ``clip_grad_state``, a detached target): it is wrong here, or a kink.

    Args:
        model: in the mode in which it is to be checked; a compiled one, or one in DistributedDataParallel, is checked
            as it was before. Frozen parameters are left out, tied ones come once.
        loss_fn: called as ``loss_fn(copy, batch)`` with the copy and the batch in float64: gives one real number.
        batch: tensors in tuples, lists, mappings, dataclasses, packed sequences; nothing in it is changed.
        inputs: whether floating tensors of the batch are checked, too.
        second_order: whether the derivative of the gradients is, as a gradient penalty or a Hessian's product needs it.
        directions: random ones, of each parameter.
        rtol: relative difference that counts as none; above 0.
        seed: of the directions, from a generator of their own.

    Returns:
        A :class:`GradientCheck`: a :class:`BlockCheck` for each parameter, and ``where`` what is wrong arises.

    Raises:
        TypeError: no module; a loss that is no tensor.
        ValueError: no parameter to check; lazy, sharded, or meta weights; a model that can't be copied or can't compute
            in float64; a loss that is not one real finite number, has no graph, or changes from run to run.

    Source: central differences, Richardson 1911; noise from differences, Moré and Wild 2011, "Estimating computational
    noise". Host sync: each loss. Mutates: nothing of the model or the batch, nor random generators; what ``loss_fn``
    closes over beside them is run as it is.

    >>> model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1))
    >>> batch = torch.randn(8, 3), torch.randn(8, 1)
    >>> check = check_gradients(model, lambda m, b: (m(b[0]) - b[1]).square().mean(), batch)
    >>> check.ok, len(check), [block.verdict for block in check]
    (True, 4, ['ok', 'ok', 'ok', 'ok'])
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"{WHO} needs a torch.nn.Module, got {type(model).__name__}. It comes first, then loss_fn.")
    if not callable(loss_fn):
        raise TypeError(f"{WHO} needs loss_fn to be callable, got {type(loss_fn).__name__}. It comes before the batch.")
    plan = Plan(whole_number(WHO, "directions", directions), positive(WHO, "rtol", rtol), int(seed))
    model = unwrapped(model)
    devices = {t.device.type for t in (*model.parameters(), *model.buffers()) if not t.is_meta} | {"cpu"}
    with in_float64(devices):
        copied = float64_copy(WHO, model)
        scalar = _loss_of(copied, loss_fn, float64_batch(batch), inputs)
        loss, sigma = _is_fit(scalar)
        blocks = verdicts(scalar, plan, sigma=sigma)
        at_fault = origins(scalar, copied, plan) if any(b.verdict == "wrong" for b in blocks) else ()
        if second_order:
            more = _second(scalar, plan)
            if not at_fault and any(b.verdict == "wrong" for b in more):
                at_fault = origins(scalar, copied, plan._replace(order=2))
            blocks += more
    return GradientCheck(tuple(blocks), at_fault, loss)


def _loss_of(model: nn.Module, loss_fn: Callable[[Any, Any], Tensor], batch: Any, inputs: bool) -> Scalar:
    """Give the loss as a function of what is to be checked."""
    blocks: dict[str, Tensor] = {}
    params = {id(p): p for p in model.parameters()}
    for key, known in known_parameters({"": model}).items():
        if params[key].requires_grad:
            blocks[known.name] = params[key]
    given: dict[str, Tensor] = {}
    if inputs:
        for place, tensor in named_tensors(batch, "batch").items():
            if tensor.layout == torch.strided and (tensor.is_floating_point() or tensor.is_complex()):
                given[place] = tensor.requires_grad_()
    if not (blocks or given):
        what = "parameters that require a gradient" if params else "parameters"
        raise ValueError(
            f"{WHO} has nothing to check: {type(model).__name__} has no {what}. Unfreeze one, or set inputs=True."
        )

    def run() -> Tensor:
        copied = substituted(batch, lambda place, tensor: tensor.clone(), "batch")
        loss: Any = loss_fn(model, copied)
        if not isinstance(loss, Tensor):
            raise TypeError(f"{WHO} needs loss_fn to give a tensor, got {type(loss).__name__}.")
        if loss.numel() != 1:
            raise ValueError(f"{WHO} needs one loss, got shape {tuple(loss.shape)}. Take its mean.")
        if loss.is_complex():
            raise ValueError(f"{WHO} needs a real loss, got {loss.dtype}. Take its absolute value.")
        return loss.reshape(())

    return Scalar(run, model, blocks | given)


def _is_fit(scalar: Scalar) -> tuple[float, float]:
    """Run the loss and see whether it can be checked: its value, and by how much it differs from run to run."""
    try:
        loss, gradients = scalar.gradients()
    except (TypeError, ValueError) as error:
        if str(error).startswith(WHO):
            raise
        raise _failed(error) from error
    except Exception as error:
        raise _failed(error) from error
    if not math.isfinite(loss):
        raise ValueError(f"{WHO} needs a finite loss, got {loss}. A Guard tells where NaN and Inf come from.")
    if all(gradient is None for gradient in gradients.values()):
        raise ValueError(
            f"{WHO} needs a loss with a gradient, but none comes from it to any parameter. Is it detached, taken under "
            "no_grad, or does loss_fn run another model than the one it is given?"
        )
    again = [scalar.value({}, 0.0) for _ in range(2)]
    off = max(abs(value - loss) for value in again)
    if not off <= SAME * max(abs(value) for value in (loss, *again)):
        raise ValueError(
            f"{WHO} needs a loss that is the same each time, got {loss!r}, {again[0]!r}, {again[1]!r}. Random numbers "
            "of torch, numpy and random are drawn alike each time; is there a generator of its own, or a counter?"
        )
    return loss, off


def _second(scalar: Scalar, plan: Plan) -> list[Any]:
    curved = derivative(scalar, torch.Generator().manual_seed(plan.seed + 1))
    try:
        return verdicts(curved, plan._replace(order=2))
    except RuntimeError as error:
        raise ValueError(
            f"{WHO}(second_order=True) needs a loss that can be differentiated twice, but it failed: {error}. Leave "
            "second_order out, or write the backward in differentiable operations."
        ) from error


def _failed(error: Exception) -> ValueError:
    return ValueError(
        f"{WHO} ran loss_fn on a float64 copy of the model and a float64 batch, and it failed: {error}. Where this is "
        "about dtypes: something keeps float32, in the model's forward or in what loss_fn closes over."
    )
