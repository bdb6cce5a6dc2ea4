"""The parameters that a clipper works on."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from torch import Tensor, nn

from gradguard.names import canonical, known_parameters

Params = nn.Module | Iterable[Tensor] | Iterable[tuple[str, Tensor]]


class Binding(NamedTuple):
    """The parameters that a clipper works on.

    Attributes:
        names: canonical names.
        params: the parameters themselves.
        owners: the module that owns each, where it is known.
    """

    names: tuple[str, ...]
    params: tuple[Tensor, ...]
    owners: tuple[nn.Module | None, ...]

    def holds(self, params: Iterable[object]) -> bool:
        """Say whether these are the same parameters, in the same order."""
        return list(map(id, params)) == list(map(id, self.params))

    def is_same(self, other: Binding) -> bool:
        """Say whether another binding is to the same parameters under the same names."""
        return self is other or (self.names == other.names and self.holds(other.params))


def binding_of(params: Params, before: Binding | None) -> tuple[Binding, bool]:
    """Give the distinct parameters, and whether their names are known; those of ``before`` where they are the same."""
    if isinstance(params, nn.Module):
        trainable = [p for p in params.parameters() if p.requires_grad]
        if before is not None and before.holds(trainable):
            return before, True
        known = known_parameters({"": params})
        found = [(known[id(p)], p) for p in trainable]
        names, modules = tuple(k.name for k, _ in found), tuple(k.module for k, _ in found)
        return Binding(names, tuple(p for _, p in found), modules), True
    listed = [params] if isinstance(params, Tensor) else list(params)
    named = all(isinstance(entry, tuple) for entry in listed)
    found_params = [entry[1] if isinstance(entry, tuple) else entry for entry in listed]
    if before is not None and before.holds(found_params):
        return before, named
    entries: dict[int, tuple[str, Tensor]] = {}
    for i, (entry, param) in enumerate(zip(listed, found_params, strict=True)):
        if not isinstance(param, Tensor):
            raise TypeError(
                f"clip_ needs a module, its named_parameters() or parameters, got {type(param).__name__} among them."
            )
        name = entry[0] if isinstance(entry, tuple) else str(i)
        entries.setdefault(id(param), (canonical(str(name)), param))
    pairs = list(entries.values())
    return Binding(tuple(name for name, _ in pairs), tuple(p for _, p in pairs), (None,) * len(pairs)), named
