"""What flows into what while a model runs: a graph of its layers and of the operations between them."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, NamedTuple, final

from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.weak import WeakTensorKeyDictionary

from gradguard.functional import tensors_in
from gradguard.init.trial import trial


class Node(NamedTuple):
    """An operation, or a layer as a whole.

    Attributes:
        op: its name in ATen, without the trailing ``_`` of what works in place; ``"layer"`` for a layer.
        inputs: the nodes that its tensors come from; all of a smaller number than its own.
        layer: path of the layer; None for an operation.
        tensors: how many tensors it takes.
        numbers: its other arguments, as far as they are numbers.
        is_zero: whether all that came out is 0, if that was watched.
    """

    op: str
    inputs: tuple[int, ...]
    layer: str | None = None
    tensors: int = 0
    numbers: tuple[float, ...] = ()
    is_zero: bool = False


@final
class Flow(TorchDispatchMode):
    """Records the graph while it is active. What happens inside a layer is not recorded.

    Args:
        watched: numbers of nodes to be looked at for zeros.

    Attributes:
        nodes: in the order of time.
    """

    def __init__(self, watched: Collection[int] = ()) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch's
        self.nodes: list[Node] = []
        self._made_by: Any = WeakTensorKeyDictionary()
        self._watched = watched
        self._depth = 0  # of layers that are running

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an operation and note it."""
        result = func(*args, **(kwargs or {}))
        if self._depth == 0:
            given = tensors_in([args, kwargs or {}])
            name = func.overloadpacket.__name__.rstrip("_")
            plain = tuple(float(arg) for arg in args if isinstance(arg, int | float))
            if name == "_prelu_kernel":
                plain = (float(args[1].mean()),)
            self.add(name, given, tensors_in(result), numbers=plain)
        return result

    def enter(self, layer: nn.Module, args: Any, kwargs: Any) -> None:
        """Note that a layer begins to run; a forward pre-hook."""
        self._depth += 1

    def leave(self, path: str, given: list[Tensor], made: list[Tensor]) -> None:
        """Note what a layer made."""
        self._depth -= 1
        if self._depth == 0:
            self.add("layer", given, made, layer=path)

    def add(self, op: str, given: list[Tensor], made: list[Tensor], **rest: Any) -> None:
        """Note what was made of what; an operation on constants alone is none of the graph's."""
        inputs = tuple(i for i in map(self._made_by.get, given) if i is not None)
        if op in ("input", "layer") or (inputs and not op.endswith("_like")):
            is_zero = False
            if len(self.nodes) in self._watched:
                self._depth += 1  # the question is no part of the model
                is_zero = all(not bool(t.any()) for t in made)
                self._depth -= 1
            self.nodes.append(Node(op, inputs, tensors=len(given), is_zero=is_zero, **rest))
            for t in made:
                self._made_by[t] = len(self.nodes) - 1


def flow_of(
    who: str, model: nn.Module, example: Any, layers: Mapping[str, nn.Module], watched: Collection[int] = ()
) -> list[Node]:
    """Run the model on the example once, and give the graph.

    Args:
        who: the initialiser, for error messages.
        model: what is run.
        example: what it is run on.
        layers: those modules that are a node each, by path.
        watched: numbers of nodes to be looked at for zeros.

    Raises:
        ValueError: the model fails on the example.
    """
    flow, hooks = Flow(watched), []
    for path, layer in layers.items():

        def after(_: nn.Module, args: Any, kwargs: Any, output: Any, path: str = path) -> None:
            flow.leave(path, tensors_in([args, kwargs]), tensors_in(output))

        hooks += [
            layer.register_forward_pre_hook(flow.enter, with_kwargs=True),
            layer.register_forward_hook(after, with_kwargs=True, always_call=True),
        ]
    try:
        with trial(who, model, example) as run:
            # The input is a node as well: a first residual branch starts there.
            run(flow, lambda given: flow.add("input", [], tensors_in(given)))
    finally:
        for hook in hooks:
            hook.remove()
    return flow.nodes
