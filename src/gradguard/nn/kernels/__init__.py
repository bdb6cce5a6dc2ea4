"""Kernels of the recurrences, and the one place that chooses among them.

``GRADGUARD_KERNEL=reference`` (or another name of the table) in the environment overrides the choice.
"""

from __future__ import annotations

import os

import torch

from gradguard.nn.kernels.base import AbstractKernel
from gradguard.nn.kernels.batch_norm_lstm import EagerBatchNormLSTM
from gradguard.nn.kernels.coupled_lstm import EagerCoupledLSTM
from gradguard.nn.kernels.gru import EagerGRU
from gradguard.nn.kernels.ind_rnn import EagerIndRNN
from gradguard.nn.kernels.janet import EagerJANET
from gradguard.nn.kernels.layer_norm_gru import EagerLayerNormGRU
from gradguard.nn.kernels.layer_norm_lstm import (
    EagerGroupNormLSTM,
    EagerLayerNormLSTM,
    EagerNormalizedCellLSTM,
    EagerRMSNormLSTM,
)
from gradguard.nn.kernels.lstm import EagerLSTM
from gradguard.nn.kernels.peephole_lstm import EagerPeepholeLSTM
from gradguard.nn.kernels.reference import Reference
from gradguard.nn.kernels.reset_before import EagerMUT1, EagerMUT2, EagerMUT3, EagerOriginalGRU
from gradguard.nn.kernels.rnn import EagerRNN

# By the name of the recurrence, then of the kernel.
KERNELS: dict[str, dict[str, type[AbstractKernel]]] = {
    "batch_norm_lstm": {"reference": Reference, "eager": EagerBatchNormLSTM},
    "lstm": {"reference": Reference, "eager": EagerLSTM},
    "layer_norm_lstm": {"reference": Reference, "eager": EagerLayerNormLSTM},
    "normalized_cell_lstm": {"reference": Reference, "eager": EagerNormalizedCellLSTM},
    "rms_norm_lstm": {"reference": Reference, "eager": EagerRMSNormLSTM},
    "group_norm_lstm": {"reference": Reference, "eager": EagerGroupNormLSTM},
    "peephole_lstm": {"reference": Reference, "eager": EagerPeepholeLSTM},
    "coupled_lstm": {"reference": Reference, "eager": EagerCoupledLSTM},
    "janet": {"reference": Reference, "eager": EagerJANET},
    "rnn": {"reference": Reference, "eager": EagerRNN},
    "ind_rnn": {"reference": Reference, "eager": EagerIndRNN},
    "gru": {"reference": Reference, "eager": EagerGRU},
    "layer_norm_gru": {"reference": Reference, "eager": EagerLayerNormGRU},
    "original_gru": {"reference": Reference, "eager": EagerOriginalGRU},
    "mut1": {"reference": Reference, "eager": EagerMUT1},
    "mut2": {"reference": Reference, "eager": EagerMUT2},
    "mut3": {"reference": Reference, "eager": EagerMUT3},
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
