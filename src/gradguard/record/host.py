"""The one place at which numbers leave the device."""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

import torch
from torch import Tensor


@final
class HostReader:
    """Brings tensors to the host, many in one transfer, and counts how often that was done.

    Attributes:
        count: transfers so far, one for each device that took part.
    """

    def __init__(self) -> None:
        self.count = 0

    def read(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """Give float64 copies on the CPU, shapes kept. Host sync: one per device among ``tensors``."""
        out: list[Tensor] = list(tensors)
        devices: dict[torch.device, list[int]] = {}
        for i, tensor in enumerate(tensors):
            devices.setdefault(tensor.device, []).append(i)
        for members in devices.values():
            self.count += 1
            dtype = torch.float64 if any(tensors[i].dtype is torch.float64 for i in members) else torch.float32
            packed = torch.cat([tensors[i].detach().reshape(-1).to(dtype) for i in members]).cpu().double()
            sizes = [tensors[i].numel() for i in members]
            for i, values in zip(members, torch.split(packed, sizes), strict=True):
                out[i] = values.reshape(tensors[i].shape)
        return out
