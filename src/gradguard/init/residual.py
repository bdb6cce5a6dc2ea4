"""Residual branches that begin as nothing: a deep network starts as a shallow one."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _NormBase

from gradguard.init.branches import branches
from gradguard.init.changes import Change, Changes
from gradguard.init.draft import Draft, has_weight, set_bias_
from gradguard.init.flow import flow_of
from gradguard.init.gains import FEED_FORWARD
from gradguard.init.layers import plain_modules
from gradguard.init.trial import unless_it_fails

WHO = "zero_residual_"
_NORMS = (_NormBase, nn.LayerNorm, nn.GroupNorm, *([nn.RMSNorm] if hasattr(nn, "RMSNorm") else []))


@torch.no_grad()
def zero_residual_(model: nn.Module, example_input: Any) -> Changes:
    r"""Set the last norm or projection of every residual branch to 0.

    .. math:: y = x + f(x), \qquad f(x) = 0 \text{ at first}

    A signal, and its gradient, then passes all blocks unchanged, however many there are, and each block grows from
    nothing. Branches are found by running the model once: what is added to a tensor that it was made from; beside a
    shortcut through a projection, where modules of the same class have plain shortcuts elsewhere, as in a ResNet. Of a
    branch the last layer is set that makes all of it 0, its bias, too: a norm, a Linear or Conv, or the output
    projection of ``nn.MultiheadAttention``.

    Args:
        model: any model with residual branches.
        example_input: what it is run on: a tensor, a tuple of arguments, or a dict of keyword arguments.

    Returns:
        The largest absolute weight of each layer, before and after; then the biases.

    Raises:
        ValueError: the model fails on the example, or has no residual branch; a branch would not become 0. Nothing is
            changed.
        TypeError: no module, or one that was scripted or compiled.

    Source: Goyal et al. 2017, arXiv 1706.02677, section 5.1; Zhang, Dauphin and Ma 2019 (Fixup), arXiv 1901.09321.
    Host sync: several a layer. Mutates: these layers; no buffer, no random generator.

    >>> class Block(nn.Module):
    ...     def __init__(self):
    ...         super().__init__()
    ...         self.up, self.down = nn.Linear(4, 8), nn.Linear(8, 4)
    ...
    ...     def forward(self, x):
    ...         return x + self.down(torch.relu(self.up(x)))
    >>> net, x = nn.Sequential(Block(), Block()), torch.randn(2, 4)
    >>> [change.name for change in zero_residual_(net, x)], torch.equal(net(x), x)
    (['0.down.weight', '1.down.weight', '0.down.bias', '1.down.bias'], True)
    """
    modules = dict(plain_modules(WHO, model))
    layers = {path: module for path, module in modules.items() if _is_layer(module)}
    found = branches(flow_of(WHO, model, example_input, layers), modules)
    if not found:
        raise ValueError(f"{WHO} needs residual branches, x + f(x), and found none on the example input.")
    draft, changes, biases = Draft(WHO), Changes(), Changes()
    for path in dict.fromkeys(branch.layer for branch in found):
        owner, prefix = layers[path], f"{path}." if path else ""
        if isinstance(owner, nn.MultiheadAttention):
            owner, prefix = owner.out_proj, f"{prefix}out_proj."
        weight = draft(owner, "weight")
        before = weight.abs().max().item()
        weight.zero_()
        changes += Changes([Change(f"{prefix}weight", "largest", before, 0.0)])
        biases += set_bias_(draft, owner, prefix.removesuffix("."), 0.0)
    with unless_it_fails(model):
        draft.write()
        nodes = flow_of(WHO, model, example_input, layers, watched={branch.end for branch in found})
        for branch in found:
            if not nodes[branch.end].is_zero:
                raise ValueError(f"{WHO} set {branch.layer} to 0, and the branch still gives something else.")
    return changes + biases


def _is_layer(module: nn.Module) -> bool:
    if isinstance(module, _NORMS):
        return has_weight(module, "weight")
    return isinstance(module, (*FEED_FORWARD, nn.MultiheadAttention))
