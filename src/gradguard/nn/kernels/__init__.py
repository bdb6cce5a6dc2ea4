"""Kernels of the recurrences, and the one place that chooses among them.

``GRADGUARD_KERNEL=reference`` (or another name of the table) in the environment overrides the choice.
"""

from __future__ import annotations

import os

import torch

from gradguard.nn.kernels.base import AbstractKernel
from gradguard.nn.kernels.gru import EagerGRU
from gradguard.nn.kernels.layer_norm_lstm import EagerLayerNormLSTM, EagerNormalizedCellLSTM
from gradguard.nn.kernels.lstm import EagerLSTM
from gradguard.nn.kernels.reference import Reference
from gradguard.nn.kernels.rnn import EagerRNN

# By the name of the recurrence, then of the kernel.
KERNELS: dict[str, dict[str, type[AbstractKernel]]] = {
    "lstm": {"reference": Reference, "eager": EagerLSTM},
    "layer_norm_lstm": {"reference": Reference, "eager": EagerLayerNormLSTM},
    "normalized_cell_lstm": {"reference": Reference, "eager": EagerNormalizedCellLSTM},
    "rnn": {"reference": Reference, "eager": EagerRNN},
    "gru": {"reference": Reference, "eager": EagerGRU},
}


def choose(recurrence: str, device: torch.device) -> type[AbstractKernel]:
    """Give the kernel to use for a recurrence on a device.

    Raises:
        ValueError: ``GRADGUARD_KERNEL`` names one that there is not.
    """
    table = KERNELS[recurrence]
    name = os.environ.get("GRADGUARD_KERNEL", "eager")
    if name not in table:
        raise ValueError(f"GRADGUARD_KERNEL needs to be one of {', '.join(table)}, got {name!r}.")
    return table[name]
