"""Names of series, spelled as every backend takes them."""

from __future__ import annotations

import re
from typing import final

LONGEST = 250  # MLflow takes no longer key


@final
class Keys:
    """Spells names with letters, digits and ``_./-``, below ``gradguard/``; no two names share a key.

    >>> key = Keys()
    >>> key("grad_norm/net.größe"), key("grad_norm/net.gr__e")
    ('gradguard/grad_norm/net.gr__e', 'gradguard/grad_norm/net.gr__e-2')
    """

    def __init__(self) -> None:
        self._keys: dict[str, str] = {}
        self._taken: set[str] = set()

    def __call__(self, name: str) -> str:
        """Give the key of a name, the same one each time."""
        if name not in self._keys:
            plain = key = spelled(name)
            number = 1
            while key in self._taken:
                number += 1
                key = f"{plain}-{number}"
            self._keys[name] = key
            self._taken.add(key)
        return self._keys[name]


def spelled(name: str) -> str:
    """Give the key of a name, which another name may have as well."""
    parts = re.sub(r"[^A-Za-z0-9_./-]", "_", name).split("/")
    # A module's own name may hold slashes; MLflow takes no key that reads as a path with empty parts, `.` or `..`.
    key = "/".join(["gradguard", *(part if part.strip(".") else "_" * max(1, len(part)) for part in parts)])
    room = LONGEST - len("-9999")
    return key if len(key) <= room else f"{key[: room // 2]}...{key[len(key) - room // 2 + 3 :]}"
