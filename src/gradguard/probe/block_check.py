"""What a gradient check found: of each block, and where what is wrong arises."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, final

MOST = 8  # rows of each verdict that are printed

Verdict = Literal["ok", "wrong", "kink", "unchecked"]


@final
@dataclass(frozen=True)
class BlockCheck:
    """The gradient of one parameter, or of one tensor of the batch.

    Attributes:
        name: as ``named_parameters`` spells it, wrappers left out; of a tensor of the batch ``batch[0]``.
        verdict: "ok"; "wrong"; "kink", where the loss has no derivative at this point; or "unchecked".
        order: 1 for the gradient, 2 for its own derivative.
        relative_error: difference between autograd and differences along the direction that says most, in parts of the
            derivative; NaN where nothing could be seen.
        resolution: the smallest such difference that would have been seen; infinite where none would.
        grad_norm: of autograd's gradient; 0 where none comes.
        why: what else there is to say.
    """

    name: str
    verdict: Verdict
    order: int
    relative_error: float
    resolution: float
    grad_norm: float
    why: str = ""


@final
@dataclass(frozen=True)
class Origin:
    """A module whose own backward is wrong: run alone it gives wrong gradients, and all that it calls gives right ones.

    Attributes:
        module: its name; "(root)" for the model's own forward, "loss_fn" for what comes after the model.
        kind: its class.
        wrong: the gradients that are wrong, of its parameters and ``input``; empty where it follows from all else being
            right.
    """

    module: str
    kind: str
    wrong: tuple[str, ...] = ()

    def __str__(self) -> str:
        """Name the module and what is wrong in it."""
        kind = f" ({self.kind})" if self.kind else ""
        return f"{self.module}{kind}" + (f": gradient of {', '.join(self.wrong)}" if self.wrong else "")


@final
@dataclass(frozen=True)
class GradientCheck(Sequence[BlockCheck]):
    """What :func:`check_gradients` found; printed, a few lines and a table of all that is not ok.

    Attributes:
        blocks: in the order of the model, those of second order behind.
        origins: where what is wrong arises, in the order of the forward pass; empty where nothing is wrong, and where
            that could not be told.
        loss: its value in float64.
    """

    blocks: tuple[BlockCheck, ...]
    origins: tuple[Origin, ...] = ()
    loss: float = 0.0

    @property
    def ok(self) -> bool:
        """Whether no gradient is wrong: look at ``verdict`` for those that could not be checked."""
        return not self.wrong

    @property
    def wrong(self) -> tuple[BlockCheck, ...]:
        """The blocks whose gradient is wrong: those of the modules before the faulty one are among them."""
        return tuple(block for block in self.blocks if block.verdict == "wrong")

    @property
    def where(self) -> tuple[str, ...]:
        """Names of the modules where what is wrong arises."""
        return tuple(origin.module for origin in self.origins)

    def __len__(self) -> int:
        return len(self.blocks)

    def __getitem__(self, index: Any) -> Any:
        return self.blocks[index]

    def __iter__(self) -> Iterator[BlockCheck]:
        return iter(self.blocks)

    def __str__(self) -> str:
        """Write what was found."""
        from gradguard.init.changes import columns

        counts = {verdict: sum(b.verdict == verdict for b in self.blocks) for verdict in ("ok", "wrong", "kink")}
        counts["unchecked"] = len(self.blocks) - sum(counts.values())
        lines = [f"{len(self.blocks)} gradients: " + ", ".join(f"{n} {verdict}" for verdict, n in counts.items() if n)]
        if self.wrong:
            place = "; ".join(map(str, self.origins))
            lines[0] += f". It arises in {place}" if place else ". Where it arises could not be told"
        header = ("gradient", "verdict", "relative error", "smallest seen", "why")
        rows, more = [], []
        for verdict in ("wrong", "kink", "unchecked"):
            of = [block for block in self.blocks if block.verdict == verdict]
            rows += [(_named(b), verdict, f"{b.relative_error:.2g}", f"{b.resolution:.2g}", b.why) for b in of[-MOST:]]
            more += [f"and {len(of) - MOST} more {verdict}, before these"] if len(of) > MOST else []
        return "\n".join([lines[0] + ".", *([columns(header, rows, 2)] if rows else []), *more])

    __repr__ = __str__


def _named(block: BlockCheck) -> str:
    return block.name if block.order == 1 else f"{block.name} (second order)"
