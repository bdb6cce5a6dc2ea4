"""Where a graph has residual branches, and which of their layers make them 0.

A stream is a sum, x + f(x) + g(x + f(x)) ...: a branch is a term of it that was made from another term, where that one
comes in as it is. A shortcut through a projection looks like any sum of two ways; it counts where a module of the same
class has a branch beside a plain shortcut elsewhere in the model, as in a ResNet.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from torch import nn

from gradguard.init.flow import Node
from gradguard.init.gains import FEED_FORWARD

# What only moves entries about, or drops some.
_SHAPES = {
    "view",
    "_unsafe_view",
    "_reshape_alias",
    "reshape",
    "transpose",
    "t",
    "permute",
    "expand",
    "squeeze",
    "alias",
}
_SHAPES |= {"unsqueeze", "select", "slice", "contiguous", "clone", "_to_copy", "detach", "constant_pad_nd", "unbind"}
_SHAPES |= {"avg_pool2d", "max_pool2d_with_indices", "upsample_nearest2d", "split", "split_with_sizes", "lift_fresh"}
# What makes 0 of 0, and what does so where one of its inputs is 0.
_KEEPS = _SHAPES | {"relu", "leaky_relu", "gelu", "silu", "mish", "hardswish", "tanh", "elu", "celu", "hardtanh", "neg"}
_KEEPS |= {"_prelu_kernel", "rrelu_with_noise", "div", "mean", "sum", "native_dropout", "_adaptive_avg_pool2d", "abs"}
_PRODUCTS = {"mul", "mm", "bmm", "matmul", "glu"}


class Branch(NamedTuple):
    """A term of a sum, that a layer makes 0.

    Attributes:
        end: the node that is added.
        layer: the last layer on the way there that makes it 0 by being 0 itself.
    """

    end: int
    layer: str


def branches(nodes: Sequence[Node], modules: Mapping[str, nn.Module]) -> list[Branch]:
    """Find the residual branches of a graph.

    Args:
        nodes: the graph.
        modules: all of the model by path.
    """
    above: list[int] = []  # all that each node was made from, a bit each: sets of them would fill the memory
    for node in nodes:
        above.append(functools.reduce(lambda mask, i: mask | above[i] | 1 << i, node.inputs, 0))
    found: dict[int, Branch] = {}
    plain: set[str] = set()  # classes of modules with a branch beside a plain shortcut
    for k, node in enumerate(nodes):
        if _adds(node):
            terms = _terms(k, nodes)
            origins = {_origin(term, nodes) for term in terms}
            for term in terms:
                bases = [origin for origin in origins if above[term] >> origin & 1 and origin != _origin(term, nodes)]
                if bases and (layer := _last(term, max(bases), nodes, above)) is not None:
                    found[term] = Branch(term, layer)
                    plain.add(_home(nodes, above, term, max(bases), modules))
    for k, node in enumerate(nodes):
        if _adds(node):
            for end, fork in _projected(k, nodes, above, modules):
                layer = _last(end, fork, nodes, above)
                if layer is not None and _home(nodes, above, end, fork, modules) in plain:
                    found[end] = Branch(end, layer)
    return [found[end] for end in sorted(found)]


def _adds(node: Node) -> bool:
    return node.op == "add" and node.tensors == 2 and len(node.inputs) == 2


def _terms(k: int, nodes: Sequence[Node]) -> list[int]:
    """Take a sum apart as far as it goes: the nodes that are added."""
    found, todo = set(), [k]
    while todo:
        i = todo.pop()
        if _adds(nodes[i]):
            found |= set(nodes[i].inputs)  # a sum is a term as a whole, too: a stream
            todo += [j for j in nodes[i].inputs if j not in found or _adds(nodes[j])]
        found.add(i)
    return sorted(found - {k})


def _origin(i: int, nodes: Sequence[Node]) -> int:
    """Go back to where a node's entries come from as they are."""
    while nodes[i].op in _SHAPES and nodes[i].layer is None and len(nodes[i].inputs) == 1:
        i = nodes[i].inputs[0]
    return i


def _last(end: int, fork: int, nodes: Sequence[Node], above: Sequence[int]) -> str | None:
    """Give the last layer between fork and end that makes the end 0."""
    between = [j for j in _between(fork, end, above) if nodes[j].layer is not None]
    return next((nodes[j].layer for j in reversed(between) if _is_zero(end, j, nodes, above)), None)


def _between(fork: int, end: int, above: Sequence[int]) -> list[int]:
    """Give the nodes on the ways from one to another, the last one included."""
    return [j for j in range(fork + 1, end + 1) if above[j] >> fork & 1 and (j == end or above[end] >> j & 1)]


def _is_zero(end: int, zero: int, nodes: Sequence[Node], above: Sequence[int]) -> bool:
    """Say whether a node is 0 where another one is."""
    if end == zero:
        return True
    node = nodes[end]
    if not above[end] >> zero & 1 or node.layer is not None:
        return False
    inputs = [_is_zero(i, zero, nodes, above) for i in node.inputs]
    if node.op in _PRODUCTS:
        return any(inputs)
    if node.op in ("add", "sub", "cat", "stack"):
        return all(inputs) and len(inputs) == node.tensors
    return node.op in _KEEPS and all(inputs)


def _projected(
    k: int, nodes: Sequence[Node], above: Sequence[int], modules: Mapping[str, nn.Module]
) -> Iterator[tuple[int, int]]:
    """Give end and fork of the longer way to a sum, if the other one is a projection alone."""
    ways = [above[i] | 1 << i for i in nodes[k].inputs]
    common = ways[0] & ways[1]
    if not common:
        return
    fork = common.bit_length() - 1
    own = [[j for j in range(k) if (way & ~common) >> j & 1] for way in ways]
    layers = [[modules[path] for j in way if (path := nodes[j].layer) is not None] for way in own]
    for short in (0, 1):
        only_layers = all(nodes[j].layer is not None or nodes[j].op in _SHAPES for j in own[short])
        is_projection = [isinstance(layer, FEED_FORWARD) for layer in layers[short]] in ([True], [True, False])
        if only_layers and is_projection and len(layers[1 - short]) > len(layers[short]):
            yield nodes[k].inputs[1 - short], fork


def _home(nodes: Sequence[Node], above: Sequence[int], end: int, fork: int, modules: Mapping[str, nn.Module]) -> str:
    """Name the class of the smallest module that all layers of a branch are in."""
    inside = (nodes[j].layer for j in _between(fork, end, above))
    paths = [path.split(".")[:-1] for path in inside if path is not None]
    shared = []
    for parts in zip(*paths, strict=False):
        if len(set(parts)) > 1:
            break
        shared.append(parts[0])
    return type(modules[".".join(shared)]).__qualname__
