"""The options that all recurrent modules of the family share, beside those of ``torch.nn.LSTM``."""

from __future__ import annotations

from typing import Any, NamedTuple, TypedDict

import torch
from torch import Tensor

from gradguard.arguments import number, positive
from gradguard.nn.recurrence import AbstractRecurrence


class Options(TypedDict, total=False):
    """Keyword arguments of every recurrent module. What a cell does not have, it refuses.

    Attributes:
        variational_dropout: share of the entries of each layer's input, and of the h that enters its products, that are
            0 in training: one mask for all steps of a sequence. Source: Gal and Ghahramani 2016, "A theoretically
            grounded application of dropout in recurrent neural networks", arXiv 1512.05287, section 4.
        zoneout: share of the entries of a state that stay as they were, drawn anew at every step in training; in
            evaluation each entry is the mean of old and new with these weights. One number for all states, or one for
            h and one for c. Source: Krueger et al. 2017, "Zoneout", arXiv 1606.01305, equations 2 to 7.
        weight_dropout: share of the entries of ``weight_hh`` that are 0 in training, drawn once a forward pass.
            Source: DropConnect; Merity et al. 2018, "Regularizing and optimizing LSTM language models", arXiv
            1708.02182, section 2.
        residual: whether each layer adds its input to its output, through a learned ``weight_res`` where their widths
            differ. States and ``dropout`` are those of the layer alone. Source: He et al. 2016; Wu et al. 2016, arXiv
            1609.08144, section 3.1.
        clip_grad_state: the gradient that goes from a step to the h before it is clamped to [-value, value], entry by
            entry. Source: Graves 2013, arXiv 1308.0850, section 2.1, for the LSTM's derivatives.
    """

    variational_dropout: float
    zoneout: float | tuple[float, ...]
    weight_dropout: float
    residual: bool
    clip_grad_state: float | None


NAMES = tuple(Options.__annotations__)


class Settings(NamedTuple):
    """The options that concern the frame; the other two are fields of the recurrence."""

    variational_dropout: float = 0.0
    weight_dropout: float = 0.0
    residual: bool = False


def checked(who: str, recurrence: AbstractRecurrence, options: dict[str, Any]) -> tuple[Settings, dict[str, Any]]:
    """Sort the options: those of the frame, and those of the recurrence.

    Raises:
        TypeError: there is no such option, or it is of a wrong type.
        ValueError: out of range, or the cell does not have it.
    """
    for name, value in options.items():
        if name == "proj_size":
            raise ValueError(f"{who} has no proj_size: a projection is for LSTMs.")
        if name not in NAMES:
            raise TypeError(f"{who} has no argument {name!r}. Beside its own it takes {', '.join(NAMES)}.")
        if name in recurrence.lacks and value not in (0, None):
            raise ValueError(f"{who} has no {name}: {recurrence.lacks[name]}.")
    frame = Settings(
        _share(who, "variational_dropout", options.get("variational_dropout", 0.0)),
        _share(who, "weight_dropout", options.get("weight_dropout", 0.0)),
        options.get("residual", False),
    )
    if not isinstance(frame.residual, bool):
        raise TypeError(f"{who} needs residual to be a bool, got {frame.residual!r}.")
    states, zoneout, clip = len(recurrence.widths(1, 0)), options.get("zoneout", 0.0), options.get("clip_grad_state")
    if isinstance(zoneout, tuple | list):
        if len(zoneout) != states:
            raise ValueError(f"{who} needs zoneout to be one number, or one for each of {states} states: {zoneout!r}.")
        zoneout = tuple(_share(who, "zoneout", rate) for rate in zoneout)
    else:
        zoneout = _share(who, "zoneout", zoneout)
    clip = None if clip is None else positive(who, "clip_grad_state", clip)
    return frame, {"zoneout": zoneout, "clip_grad_state": clip}


def _share(who: str, name: str, value: Any) -> float:
    if not 0 <= number(who, name, value) <= 1:
        raise ValueError(f"{who} needs {name} in [0, 1], got {value!r}.")
    return float(value)


def noise(recurrence: AbstractRecurrence, settings: Settings, rows: int, states: list[Tensor]) -> dict[str, Tensor]:
    """Draw what one layer in one direction needs in training.

    Args:
        recurrence: the cell.
        settings: of the frame.
        rows: of all steps, N.
        states: before the first step, [B, S] each.

    Returns:
        ``drop_h``, [B, P], the factors of the h that enters the products; ``zone_<i>``, [N, S], 1 where state i stays.
    """
    drawn = {}
    if settings.variational_dropout and recurrence.drops_h:
        drawn["drop_h"] = factors(settings.variational_dropout, states[0], *states[0].shape)
    for i, (rate, state) in enumerate(zip(recurrence.rates, states, strict=True)):
        if rate:
            drawn[f"zone_{i}"] = (draws(state, rows, state.shape[1]) < rate).to(state.dtype)
    return drawn


def factors(rate: float, like: Tensor, *shape: int) -> Tensor:
    """Draw the factors of dropout: 0, or what keeps the expectation."""
    kept = (draws(like, *shape) >= rate).to(like.dtype)
    return kept / (1 - rate) if rate < 1 else kept


def draws(like: Tensor, *shape: int) -> Tensor:
    """Draw from U[0, 1): in float32, in which a rate of 0.3 is one; of a given size, which vmap's randomness is for."""
    return torch.rand(shape, dtype=torch.float32, device=like.device)
