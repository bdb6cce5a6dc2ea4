"""No figure leaves anything behind."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import matplotlib
import pytest


@pytest.fixture(autouse=True)
def _nothing_is_left() -> Iterator[None]:
    before = dict(matplotlib.rcParams)
    yield
    pyplot = sys.modules.get("matplotlib.pyplot")
    assert pyplot is None or pyplot.get_fignums() == []
    assert dict(matplotlib.rcParams) == before
