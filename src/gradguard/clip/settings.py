"""How a clipper and its parts are written."""

from __future__ import annotations

import inspect


def written(thing: object) -> str:
    """Give the call that makes a clipper with these settings; what has its default is left out.

    An argument of ``__init__`` is kept in an attribute of its name.

    >>> from gradguard.clip import Ema, ZClip
    >>> ZClip(3.0, baseline=Ema(0.9))
    ZClip(z_threshold=3.0, baseline=Ema(alpha=0.9))
    """
    shown = []
    for name, parameter in inspect.signature(type(thing)).parameters.items():
        value = getattr(thing, name)
        made_by_default = parameter.default is None and repr(value) == f"{type(value).__name__}()"
        if not made_by_default and value is not parameter.default and value != parameter.default:
            shown.append(f"{name}={value!r}")
    return f"{type(thing).__name__}({', '.join(shown)})"
