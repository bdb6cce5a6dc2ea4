"""How a clipper and its parts are written."""

from __future__ import annotations

import inspect


def written(thing: object) -> str:
    """Give the call that makes a clipper with these settings; what has its default is left out.

    An argument of ``__init__`` is kept in an attribute of its name; what None stands for is in ``standard``.

    >>> from gradguard.clip import Ema, ZClip
    >>> ZClip(3.0, baseline=Ema(0.9))
    ZClip(z_threshold=3.0, baseline=Ema(alpha=0.9))
    """
    standard, shown = getattr(thing, "standard", {}), []
    for name, parameter in inspect.signature(type(thing)).parameters.items():
        value = getattr(thing, name)
        stands_for_none = parameter.default is None and repr(value) == standard.get(name)
        if not stands_for_none and value is not parameter.default and value != parameter.default:
            shown.append(f"{name}={value!r}")
    return f"{type(thing).__name__}({', '.join(shown)})"
