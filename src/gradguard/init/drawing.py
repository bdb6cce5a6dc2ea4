"""Random numbers, from a generator wherever it lives."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Generator, Tensor


def draw_(tensor: Tensor, generator: Generator | None, fill_: Callable[[Tensor], object]) -> None:
    """Fill a tensor with what ``fill_`` draws: on the generator's device, so that a seed means the same everywhere."""
    device = tensor.device if generator is None else generator.device
    fresh = torch.empty(tensor.shape, dtype=tensor.dtype, device=device)
    fill_(fresh)
    tensor.copy_(fresh)


def checked_generator(who: str, generator: object) -> Generator | None:
    """Give a generator.

    Raises:
        TypeError: it is none; a seed, for example.
    """
    if generator is not None and not isinstance(generator, Generator):
        raise TypeError(
            f"{who} needs generator to be a torch.Generator, got {generator!r}. "
            "Write torch.Generator().manual_seed(seed)."
        )
    return generator
