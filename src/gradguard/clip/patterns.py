"""Which parameters a pattern means: by shell wildcards, over the name of a parameter or of a module that it is in."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator
from fnmatch import fnmatchcase


def matches(pattern: str, name: str) -> bool:
    """Say whether a pattern means the parameter of this name.

    >>> [matches(p, "encoder.layers.0.weight") for p in ("encoder.*", "encoder", "*.weight", "layers.*")]
    [True, True, True, False]
    """
    return any(fnmatchcase(path, pattern) for path in _paths(name))


def _paths(name: str) -> Iterator[str]:
    """Give a name and those of all modules that it is in."""
    yield name
    while "." in name:
        name = name.rpartition(".")[0]
        yield name


def check_patterns(patterns: Iterable[str], names: Iterable[str], who: str) -> None:
    """Refuse a pattern that matches nothing: most often it is misspelled.

    Raises:
        ValueError: it names the closest names.
    """
    all_names = list(names)
    paths = list(dict.fromkeys(path for name in all_names for path in _paths(name)))
    for pattern in patterns:
        if not any(fnmatchcase(path, pattern) for path in paths):
            wanted = pattern.rstrip(".*")
            close = difflib.get_close_matches(wanted, paths, n=3, cutoff=0.4) or all_names[:3]
            raise ValueError(
                f"{who}: the pattern {pattern!r} matches none of {len(all_names)} parameters. "
                f"The closest names are {', '.join(close) or 'none'}."
            )
