"""Loops of the newer recurrent programs."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.faults.data import Split
from benchmarks.faults.loops import supervised
from benchmarks.faults.program import Loop, Record
from benchmarks.faults.second.recurrent_nets import Track, Translator, Writer
from benchmarks.faults.second.recurrent_tasks import mirrored, text


def track(
    lr: float,
    *,
    split: Callable[[], Split],
    body: Callable[..., nn.Module],
    width: int = 24,
    front: Callable[[], nn.Module] | None = None,
    inputs: int = 0,
    fill: Callable[[nn.Module], Any] | None = None,
    params: Callable[[Any], Any] | None = None,
    loop: dict[str, Any] | None = None,
    **options: Any,
) -> Loop:
    """Build a :class:`Track` and its loop.

    Args:
        lr: learning rate.
        split: gives the data.
        body: makes the body, given what goes in and its width.
        width: of the body.
        front: makes what is put before the body.
        inputs: of the body, where there is something before it.
        fill: changes weights at the start.
        params: gives what the optimizer gets, of the model.
        loop: more arguments of :func:`supervised`.
        options: more of the model.
    """
    data = split()
    outputs = data.y.shape[1] if data.y.is_floating_point() else int(data.y.max()) + 1
    model = Track(body(inputs or data.x.shape[-1], width), width, outputs, front=front() if front else None, **options)
    if fill:
        fill(model)
    chosen = params(model) if params else None
    return supervised(model, data, lr, params=chosen, **{"batch": 32, **(loop or {})})


def translate(lr: float, *, loop: dict[str, Any] | None = None, **options: Any) -> Loop:
    """Build a translator of what is read backwards."""
    return supervised(Translator(6, 5, 32, **options), mirrored(), lr, batch=64, **(loop or {}))


def write(lr: float, *, streams: int = 16, chunk: int = 20, width: int = 24, warmup: int = 20) -> Loop:
    """Build a model of a text that is read on and on, with states that are handed over without their gradient."""
    data = text(40_000)
    read, kept = data[:36_000].reshape(streams, -1), data[36_000:]
    model = Writer(int(data.max()) + 1, width)
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr)
    states: list[Any] = [None]

    def step(number: int, record: Record) -> None:
        optimizer.param_groups[0]["lr"] = lr * min(number / warmup, 1.0)
        optimizer.zero_grad()
        at = (number - 1) * chunk % (read.shape[1] - chunk - 1)
        out, after = model(read[:, at : at + chunk], states[0])
        states[0] = tuple(state.detach() for state in after)
        loss = nn.functional.cross_entropy(out.flatten(0, 1), read[:, at + 1 : at + chunk + 1].flatten())
        record(loss, None)
        loss.backward()
        optimizer.step()

    @torch.no_grad()
    def score(letters: Tensor) -> float:
        right = float((model(letters[None, :-1])[0][0].argmax(1) == letters[1:]).double().mean())
        guess = float(letters.bincount().max() / len(letters))
        return max((right - guess) / (1 - guess), 0.0)

    return Loop({"": model}, {"optimizer": optimizer}, step, lambda: score(kept), lambda: score(data[:4000]))


def averaged(lr: float, *, decay: float = 0.98, **options: Any) -> Loop:
    """Build a track that is judged by a running mean of its weights."""
    shadow: list[nn.Module] = []

    @torch.no_grad()
    def follow(step: int, model: nn.Module) -> None:
        if not shadow:
            shadow.append(deepcopy(model))
        for mean, param in zip(shadow[0].parameters(), model.parameters(), strict=True):
            mean.lerp_(param, 1 - decay)

    loop = {"on_gradients": follow, "predict": lambda model, x: (shadow or [model])[0](x), **options.pop("loop", {})}
    return track(lr, loop=loop, **options)


def tuned(lr: float, *, before: Callable[[], Split], first: int = 150, rate: float = 0.01, **options: Any) -> Loop:
    """Train on one task, then build a loop that goes on with another: a new head, and the body at a hundredth."""
    made = track(rate, **{**options, "split": before})
    for number in range(1, first + 1):
        made.step(number, lambda loss, optimizer: None)
    old = made.models[""]

    def fill(model: nn.Module) -> None:
        model.get_submodule("body").load_state_dict(old.get_submodule("body").state_dict())

    return track(
        lr,
        fill=fill,
        params=lambda model: [
            {"params": model.body.parameters(), "lr": lr / 100},
            {"params": model.head.parameters()},
        ],
        **options,
    )


def whole(split: Split) -> Callable[[int, Tensor, Tensor], tuple[Tensor, Tensor]]:
    """Give all there is in place of each batch."""
    return lambda step, x, y: (split.x, split.y)


def emptied(every: int) -> Callable[[int, Tensor, Tensor], tuple[Tensor, Tensor]]:
    """Leave nothing of one text in each so manieth batch."""

    def change(step: int, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        return (torch.cat([torch.zeros_like(x[:1]), x[1:]]), y) if step % every == 0 else (x, y)

    return change


def in_cents(first: int, last: int) -> Callable[[int, Tensor, Tensor], tuple[Tensor, Tensor]]:
    """Make the targets of some steps a hundred times larger."""
    return lambda step, x, y: (x, 100 * y) if first <= step <= last else (x, y)


def longer(start: int, last: int, steps: int) -> Callable[[int, Tensor, Tensor], tuple[Tensor, Tensor]]:
    """Leave out steps after the first one, fewer and fewer of them."""

    def change(step: int, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        kept = min(start + (last - start) * step // steps, last)
        return torch.cat([x[:, :1], x[:, x.shape[1] - kept + 1 :]], 1), y

    return change


smoothed = partial(nn.functional.cross_entropy, label_smoothing=0.1)


def summed(out: Tensor, y: Tensor) -> Tensor:
    """Give the sum of the cross entropies of all steps of all sequences."""
    return nn.functional.cross_entropy(out, y, reduction="sum")
