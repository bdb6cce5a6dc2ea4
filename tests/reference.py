"""Slow float64 twins in NumPy, to be held against the docstrings. No torch here."""

from __future__ import annotations

import math

import numpy as np


def norm(values: np.ndarray, p: float) -> float:
    """p-norm over all entries, the largest one factored out; NaN and Inf pass through."""
    flat = np.abs(np.asarray(values)).astype(np.float64).ravel()
    if flat.size == 0:
        return 0.0
    largest = flat.max()
    if not np.isfinite(largest) or largest == 0:
        return float(largest)
    if math.isinf(p):
        return float(largest)
    return float(largest * math.fsum((flat / largest) ** p) ** (1 / p))


def weighted_moments(values: list[float], decay: float) -> tuple[float, float]:
    """Mean and population variance under weights decay^(age), normalised; non-finite values left out."""
    kept = np.array([v for v in values if np.isfinite(v)])
    weights = decay ** np.arange(len(kept) - 1, -1, -1, dtype=np.float64)
    weights /= weights.sum()
    mean = float((weights * kept).sum())
    return mean, float((weights * (kept - mean) ** 2).sum())


def window_quantile(values: list[float], window: int, q: float) -> float:
    """Linearly interpolated quantile of the last ``window`` finite values."""
    kept = [v for v in values if np.isfinite(v)][-window:]
    return float(np.quantile(kept, q)) if kept else math.nan


def line(profile: np.ndarray) -> tuple[float, float]:
    """Rise of the least-squares line through log10(profile) over x in [0, 1], and its R^2 (0 for a constant).

    NaN and zero entries are left out, the others stand at equal distances.
    """
    y = np.log10(profile[profile > 0])
    x = np.linspace(0, 1, len(y))
    slope, intercept = np.polyfit(x, y, 1)
    residual = ((y - slope * x - intercept) ** 2).sum()
    spread = ((y - y.mean()) ** 2).sum()
    return float(slope), float(1 - residual / spread) if spread > 0 else 0.0
