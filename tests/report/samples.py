"""What a run through time leaves, made up, and what a figure shows of it."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gradguard.detect import InTime, Profile
from gradguard.functional import decay
from gradguard.guard.time_tables import time_tables
from gradguard.record import History


def profile_of(sizes: Tensor, layer: str = "lstm.l0", sequences: Tensor | None = None) -> Profile:
    n = len(sizes)
    sequences = torch.ones(n, dtype=torch.float64) if sequences is None else sequences
    decayed = decay(sizes, sequences)
    return Profile(layer, torch.zeros(n), None, {}, sizes, sequences, decayed, float(n), True)


def fading(length: int, rate: float, scale: float = 1.0) -> Tensor:
    return scale * rate ** torch.arange(length, dtype=torch.float64)


def history_of(samples: dict[int, Tensor], layer: str = "lstm.l0", prefix: str = "") -> History:
    history = History()
    for step, sizes in samples.items():
        for group, names, points in time_tables(InTime(step, None, {"lstm": (profile_of(sizes, layer),)})):
            history.extend(prefix + group, names, points)
    return history


def mesh_of(ax: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Values [L, S] with NaN where nothing is drawn, edges of the steps, edges of the lags."""
    (mesh,) = ax.collections
    values = np.ma.filled(mesh.get_array().astype(float), np.nan)
    corners = mesh.get_coordinates()
    assert (corners[..., 0] == corners[:1, :, 0]).all()
    assert (corners[..., 1] == corners[:, :1, 1]).all()
    return values, corners[0, :, 0], corners[:, 0, 1]


def line(ax: Any, label: str) -> tuple[list[float], list[float]]:
    (found,) = [one for one in ax.lines if one.get_label() == label]
    return list(map(float, found.get_xdata())), list(map(float, found.get_ydata()))


def png(ax: Any) -> bytes:
    file = io.BytesIO()
    ax.figure.savefig(file, format="png")
    return file.getvalue()
