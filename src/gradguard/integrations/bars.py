"""Where the bars of a histogram stand."""

from __future__ import annotations

import torch
from torch import Tensor

from gradguard.functional import Histograms


def edges(one: Histograms) -> Tensor:
    """Give the edges of C bars of equal width, float64, [C + 1].

    Args:
        one: a single row of what :func:`gradguard.functional.histograms` gives, on the CPU.

    >>> from gradguard.functional import histograms
    >>> found = histograms([torch.tensor([0.0, 1.0, 1.0, 4.0])], bins=4)
    >>> edges(Histograms(*(field[0] for field in found))).tolist()
    [0.0, 1.0, 2.0, 3.0, 4.0]
    """
    return torch.linspace(float(one.lows), float(one.highs), len(one.counts) + 1, dtype=torch.float64)
