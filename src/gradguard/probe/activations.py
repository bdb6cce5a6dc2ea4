"""The layers of a whole model by one call on a batch: how large their outputs are, and which units do nothing."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from gradguard.detect import Activations
from gradguard.names import WRAPPERS_OF_MODULE
from gradguard.probe.activation_watch import ActivationWatch
from gradguard.probe.hearing import alone
from gradguard.probe.layers import layers_of
from gradguard.probe.through_time import bounded, uncompiled


def activations(model: nn.Module, batch: Any, loss_fn: Callable[[Any, Any], Tensor] | None = None) -> Activations:
    r"""Look at the layers of a model while it runs on one batch: signal sizes, and silent and saturated units.

    .. math:: \operatorname{rms}(y) = \sqrt{\tfrac{1}{n} \sum_i y_i^2},\quad
        \operatorname{rms}\Big(\frac{\partial L}{\partial y}\Big),\quad
        \Big\{ u : f'(x_{bu}) \approx 0 \text{ for all } b \Big\}

    of the output y of each layer that has a weight, and of each activation function f, module or function, that stands
    between two of them. For a run that goes on, ``Guard(..., activations=True)`` looks at sampled steps.

    Args:
        model: in the mode in which it is to be looked at; a compiled one is run as it was before.
        batch: passed on to ``loss_fn``; without one, what the model is called with: a tuple or list as its arguments, a
            mapping as those by name, anything else as the only one.
        loss_fn: called as ``loss_fn(model, batch)``: runs the model and gives the loss. Without it there are no
            gradients.

    Returns:
        Numbers on the host. Layers that were not called are missing, as are activations that no layer takes (the
        model's own output), are written by hand (``x / (1 + x.abs())``), work in place on a view (of a linear layer's
        output with more than two axes), or are within activation checkpointing (of which ReLU, tanh and sigmoid are
        seen where the next layer takes them as they are). A bounded function whose values multiply others is a gate,
        and left out. Of a layer that is called more than 16 times, the first 16 calls count, the 32nd, the 64th and so
        on. ``distinct`` and ``varies`` are measured on about 65,536 entries of each output, evenly spaced. Squares
        below 1e-38 are lost, as in all norms here.

    Raises:
        ValueError: no layer was called; a loss of more than one number.
        TypeError: a loss that is no tensor.

    Not for a model that has to be run by all processes at once, sharded ones among them.

    Source: dead ReLU units, Lu et al. 2020, arXiv 1903.06733, section 1; saturation of sigmoid and tanh units, Glorot
    and Bengio 2010, section 3. Host sync: one per device. Mutates: nothing: gradients, buffers and random numbers are
    as they were.

    >>> model = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1))
    >>> with torch.no_grad():
    ...     _ = model[0].bias.copy_(torch.tensor([-9.0, 9.0, 9.0]))
    >>> found = activations(model, torch.eye(2), lambda model, x: model(x).square().mean())
    >>> [signal.layer for signal in found.signals], found.units[0].activation, found.units[0].silent
    (['0', '2'], 'relu', tensor([ True, False, False]))
    """
    from gradguard.init.draft import Saved

    while type(model).__name__ in WRAPPERS_OF_MODULE and isinstance(inner := getattr(model, "module", None), nn.Module):
        model = inner  # DistributedDataParallel would wait for a backward pass of all ranks
    devices = list({t.device for t in (*model.parameters(), *model.buffers()) if t.device.type == "cuda"})
    edges: list[Any] = []
    watch = ActivationWatch(everything=True, edges=edges)
    saved, limits = Saved([model], parameters=False), bounded(model)
    try:
        with alone():
            watch.on(layers_of({"": model}, compiled=True))
            with torch.random.fork_rng(devices), torch.inference_mode(mode=False), torch.enable_grad(), uncompiled():
                _run(model, batch, loss_fn, edges)
        seen = watch.collect()
    finally:
        watch.off()
        saved.restore()
        for stored, value in limits:
            stored.copy_(value)
    if watch.error is not None:
        raise watch.error
    if seen is None or not seen.signals:
        raise ValueError(
            f"activations needs a model whose layers are called, but no linear layer, convolution or recurrent module "
            f"of {type(model).__name__} was. Does loss_fn call the model?"
        )
    return seen.read([t.cpu().double() for t in seen.tensors()])


def _run(model: nn.Module, batch: Any, loss_fn: Callable[[Any, Any], Tensor] | None, edges: list[Any]) -> None:
    if loss_fn is None:
        if isinstance(batch, Mapping):
            model(**batch)
        elif isinstance(batch, tuple | list):
            model(*batch)
        else:
            model(batch)
        return
    loss = loss_fn(model, batch)
    if not isinstance(loss, Tensor):
        raise TypeError(f"activations needs loss_fn to give a tensor, got {type(loss).__name__}.")
    if loss.numel() != 1:
        raise ValueError(f"activations needs one loss, got shape {tuple(loss.shape)}. Take its mean.")
    if edges and loss.requires_grad:
        torch.autograd.grad(loss, edges, allow_unused=True)
