"""A heat map in a few bytes: each cell as a number of 16 bits on a linear or logarithmic scale.

Shape legend: R = rows, C = columns.
"""

from __future__ import annotations

import base64
import math
from typing import Any

import torch
from torch import Tensor

CELLS = 500_000  # most cells of a heat map of layers, and of all that was seen through time: 1.3 MB in the page each
NOTHING, ZERO, INFINITE = 0, 1, 65_535  # codes; the others are values
FIRST, STEPS = 2, 65_532  # code of the least value, and steps up to the largest


def grid_data(
    steps: Tensor,
    values: Tensor,
    *,
    log: bool = True,
    least: float | None = None,
    most: float | None = None,
    cells: int = CELLS,
) -> dict[str, Any]:
    """Give a table for the page, of which neighbouring columns are merged where they are too many.

    Args:
        steps: int64, [C].
        values: float64, [C, R]; a row of the grid for each column of this. NaN where nothing is known.
        log: whether the scale is one; all values are >= 0 then.
        least: lower end of the scale; the least value above 0 by default.
        most: upper end; the largest finite one.
        cells: most cells, >= 1.

    Returns:
        ``x``, ``rows``, ``scale``, ``least`` and ``most`` (exponents of 10 on a logarithmic scale) and ``data``: the
        codes, 16 bits each, the lower byte first, row by row, in base64.
    """
    steps, values = merged(steps, values, max(1, cells // max(1, values.shape[1])))
    if log:
        finite = values[values.isfinite() & (values > 0)]
        bottom = float(finite.min()) if least is None and len(finite) else least or 1.0
        top = float(finite.max()) if most is None and len(finite) else most or bottom
        low, high = math.log10(bottom), math.log10(max(top, bottom))
        places = torch.where(values > 0, values, bottom).log10()
    else:
        finite = values[values.isfinite()]
        low = float(finite.min()) if least is None and len(finite) else least or 0.0
        high = float(finite.max()) if most is None and len(finite) else most or low
        places = values
    share = ((places - low) / (high - low if high > low else 1.0)).clamp(0.0, 1.0)
    codes = FIRST + (share.nan_to_num(0.0) * STEPS).round()
    if log:
        codes = torch.where(values == 0, float(ZERO), codes)
    codes = torch.where(values.isinf(), float(INFINITE), torch.where(values.isnan(), float(NOTHING), codes))
    return {
        "x": steps.tolist(),
        "rows": values.shape[1],
        "scale": "log" if log else "linear",
        "least": low,
        "most": high,
        "data": base64.b64encode(codes.T.contiguous().numpy().astype("<u2").tobytes()).decode(),
    }


def merged(steps: Tensor, values: Tensor, most: int) -> tuple[Tensor, Tensor]:
    """Merge neighbouring columns of a table [C, R] until there are ``most``: the largest values, at their last step.

    A spike of one step stays; what is NaN is left out where there is anything else beside it.
    """
    width = -(-len(steps) // most)
    if width <= 1:
        return steps, values
    short = -len(steps) % width
    padded = torch.nn.functional.pad(
        values.nan_to_num(-torch.inf, posinf=torch.inf), (0, 0, 0, short), value=-torch.inf
    )
    largest = padded.view(-1, width, values.shape[1]).amax(1)
    ends = torch.arange(1, len(largest) + 1, device="cpu").mul(width).clamp(max=len(steps)) - 1
    return steps[ends], torch.where(largest == -torch.inf, torch.nan, largest)
