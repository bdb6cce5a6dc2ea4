"""From what a layer takes back to the activation function that made it, and to the layer behind that.

The way goes through the graph of autograd, so that a function counts like a module. Notes are left on its nodes, which
take them along when they go: nothing of the graph is held.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any, NamedTuple, final

from torch import Tensor

from gradguard.probe.slopes import Slope, kind_of, slope_of

MOST = 64  # nodes that are gone through in search of something
_count = itertools.count()

# Operators through which what an activation gave is still recognised: other places, other shapes, sums, masks, pools.
_CLEAR = frozenset(
    """
    View UnsafeView ReshapeAlias AsStrided Alias Clone ToCopy Expand Repeat Squeeze Unsqueeze Transpose Permute T
    Slice Select Narrow Split SplitWithSizes Unbind Unfold Cat Stack Flip Roll Index IndexSelect Gather Add Sub Mul Div
    Neg NativeDropout FusedDropout MaskedFill Where Mean Sum Max Amax PixelShuffle PackPaddedSequence ConstantPadNd
    MaxPool2DWithIndices MaxPool3DWithIndices MkldnnMaxPool2D AvgPool2D AvgPool3D MkldnnAvgPool2D AdaptiveAvgPool2D
    AdaptiveAvgPool3D AdaptiveMaxPool2D AdaptiveMaxPool3D UpsampleNearest1D UpsampleNearest2D UpsampleNearest3D
    UpsampleLinear1D UpsampleBilinear2D UpsampleTrilinear3D UpsampleBicubic2D ReflectionPad1D ReflectionPad2D
    ReflectionPad3D ReplicationPad1D ReplicationPad2D ReplicationPad3D NativeBatchNorm CudnnBatchNorm MiopenBatchNorm
    NativeLayerNorm NativeGroupNorm FusedRmsNorm
    """.split()  # noqa: SIM905  # as a list it takes a page
)


class Made(NamedTuple):
    """The output of a layer.

    Attributes:
        layer: its name.
        shape: of its output.
        axis: of its units.
    """

    layer: str
    shape: tuple[int, ...]
    axis: int

    def axes_of(self, values: Tensor) -> tuple[Tensor, tuple[int, ...]] | None:
        """Give what became of the output with a batch and its units along one axis, and all the other axes.

        None where the units can't be told any more.
        """
        units, shape = self.shape[self.axis], tuple(values.shape)
        if len(shape) == len(self.shape) and shape[self.axis] == units:
            axis = self.axis
        elif self.axis != len(self.shape) - 1:
            return None
        else:  # features that were given another form, as the first layer of a generator's are
            axis, size = len(shape), 1
            while axis and size < units:
                axis -= 1
                size *= shape[axis]
            if size != units:
                return None
            values = values.flatten(axis)
        if values.ndim == 1:
            values, axis = values.unsqueeze(0), 1
        return values, tuple(i for i in range(values.ndim) if i != axis)


class Found(NamedTuple):
    """An activation function: its node, its slope, and the layer whose output it takes."""

    node: Any
    slope: Slope
    made: Made


@final
class Trail:
    """The notes of one sampled step."""

    def __init__(self) -> None:
        self._key = f"gradguard.{next(_count)}"

    def made(self, tensor: Tensor, layer: str, axis: int) -> None:
        """Note that a layer made this."""
        node: Any = tensor.grad_fn
        if node is not None:
            node.metadata[self._key] = Made(layer, tuple(tensor.shape), axis)

    def behind(self, tensor: Tensor) -> Iterator[Found]:
        """Find the activation functions between a tensor and the layers before it; each one is found once."""
        todo: list[tuple[Any, bool]] = [(tensor.grad_fn, False)]
        for _ in range(MOST):
            if not todo:
                return
            node, is_factor = todo.pop()
            if node is None or self._key in node.metadata:
                continue
            slope = slope_of(node)
            if slope is not None:
                node.metadata[self._key] = None
                # A bounded function that is a factor is a gate: at its ends it lets through, or not, as it should.
                if not (is_factor and slope.is_bounded) and (made := self._maker(node)) is not None:
                    yield Found(node, slope, made)
            elif kind_of(node) in _CLEAR:
                node.metadata[self._key] = None
                inner = _before(node)
                is_product = kind_of(node) == "Mul" and sum(map(_is_made, inner)) > 1
                todo += [(one, is_factor or is_product) for one in reversed(inner)]

    def _maker(self, node: Any) -> Made | None:
        """Find the layer whose output goes into a node: of several, that of the first operand."""
        todo = list(reversed(_before(node)))
        for _ in range(MOST):
            if not todo:
                break
            one = todo.pop()
            note = one.metadata.get(self._key)
            if isinstance(note, Made):
                return note
            if kind_of(one) in _CLEAR:
                todo += reversed(_before(one))
        return None


def _before(node: Any) -> list[Any]:
    """Give the nodes whose results a node took, the main operand first; of a norm that alone."""
    found = [one for one, _ in node.next_functions if one is not None]
    return found[:1] if kind_of(node).endswith("Norm") else found


def _is_made(node: Any) -> bool:
    """Whether something was computed here: no weight."""
    return not node.name().endswith("AccumulateGrad")
