"""The batch-normalised LSTM of Cooijmans et al., with statistics of its own for every time step."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, ClassVar, final

import torch
from torch import Tensor, nn

from gradguard.arguments import number, positive, whole_number
from gradguard.functional.recurrence import Moments, batch_norm_lstm
from gradguard.functional.recurrence.batch_norm_lstm import many_ranks
from gradguard.nn import checks
from gradguard.nn.layer_norm_lstm import AbstractNormedLSTMRecurrence
from gradguard.nn.listening import Pass
from gradguard.nn.lstm import AbstractLSTM
from gradguard.nn.sequence import Form
from gradguard.nn.step_statistics import NORMS, StepStatistics, taken_anew

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from gradguard.nn.options import Options


@final
@dataclass(frozen=True)
class BatchNormLSTMRecurrence(AbstractNormedLSTMRecurrence):
    """:func:`gradguard.functional.recurrence.batch_norm_lstm`.

    Args:
        gain: of new norms.
        sync: whether statistics are those of all processes.
        training: whether statistics are the batch's; else they come as parameters, ``mean_<norm>`` and ``var_<norm>``.
    """

    name: ClassVar[str] = "batch_norm_lstm"
    gain: float = field(default=0.1, metadata={"initial": True})
    sync: bool = False
    training: bool = field(default=False, repr=False)

    def fill_(self, name: str, param: Tensor, hidden_size: int) -> None:
        """Fill a new parameter; gains are small, so that tanh is not saturated."""
        super().fill_(name, param, hidden_size)
        if name.startswith("gain_"):
            nn.init.constant_(param, self.gain)

    def extras(self, steps: int, hidden_size: int) -> list[tuple[int, ...]]:
        """In training, of each step: means and variances of the three norms, and the number of rows."""
        return [(steps, 18 * hidden_size + 1)] if self.training else []

    def begin(self, params: Mapping[str, Tensor], seen: list[Tensor]) -> Callable[..., tuple[Tensor, ...]]:
        """Take the steps one after another, each with its own statistics."""
        given = {name: params[name] for name in params if name.startswith(("mean_", "var_"))}
        rest = {name: param for name, param in params.items() if name not in given}
        rows = iter(zip(*given.values(), strict=True)) if given else None
        before: list[Any] = [None]

        def step(x: Tensor, *states: Tensor, drop_h: Tensor | None = None) -> tuple[Tensor, ...]:
            row = {} if rows is None else dict(zip(given, next(rows), strict=True))
            by = [Moments(row[f"mean_{n}"], row[f"var_{n}"]) for n in NORMS] if row else None
            known: dict[str, Any] = {"given": by, "before": before[0], "eps": self.eps, "sync": self.sync}
            h, c, before[0] = batch_norm_lstm(x, states[0], states[1], drop_h=drop_h, **{**rest, **known})
            if by is None:
                seen.append(packed(before[0]))
            return h, c

        return step

    def step(self, x: Tensor, *states: Tensor, **params: Tensor) -> tuple[Tensor, ...]:
        """Take one step, the first one."""
        return self.begin(params, [])(x, *states)


def packed(used: Sequence[Moments]) -> Tensor:
    """One row of what :meth:`BatchNormLSTMRecurrence.extras` says."""
    count = used[0].rows
    last = count if isinstance(count, Tensor) else used[0].mean.new_tensor(0 if count is None else count)
    return torch.cat([*(t for m in used for t in (m.mean, m.var)), last.reshape(1)]).detach()


@final
class BatchNormLSTM(AbstractLSTM):
    r"""An LSTM whose gates and cell are batch-normalised, with statistics of their own for every time step.

    .. math:: [i; f; g; o] &= \mathrm{BN}(W_{ih} x_t; \gamma_{ih}) + \mathrm{BN}(W_{hh} h_{t-1}; \gamma_{hh})
            + b_{ih} + b_{hh} \\
        c_t &= \sigma(f) \odot c_{t-1} + \sigma(i) \odot \tanh(g) \\
        h_t &= W_{hr} \left(\sigma(o) \odot \tanh(\mathrm{BN}(c_t; \gamma_c, \beta_c))\right)

    Gains and biases are the same at all steps. In training the statistics are those of the sequences that have not
    ended, and where only one is left, those of the step before; in evaluation those that were followed in training,
    step by step, in one buffer of ``max_steps`` rows: beyond the last step that training has seen, its statistics are
    used. The other direction counts steps from each sequence's own end. A gain of 0.1 is the paper's: with 1, tanh
    saturates and the gradient vanishes. Steps are counted from the start of a call: states that are to be carried on
    from call to call in evaluation have to be so in training, too. What was followed while weights changed lags behind
    them, and over many steps that adds up: :meth:`population_statistics` takes them anew, as the paper does.
    Not for small batches, and not for a batch of one in training; :class:`LayerNormLSTM` needs none.

    Args:
        input_size: I.
        hidden_size: H.
        num_layers: how many layers stand on one another.
        bias: whether the gates have biases, and the norm of c a shift.
        batch_first: whether input and output are [B, T, I] rather than [T, B, I]; states are not.
        dropout: share of the outputs of all layers but the last that become 0 in training.
        bidirectional: whether a second direction runs from the end.
        proj_size: width of h, where it is smaller than H; 0 for H.
        device: of the parameters.
        dtype: of the parameters.
        forget_bias: what the biases of each forget gate add up to at first; None for torch's random ones.
        max_steps: for how many time steps there are statistics.
        gain: of the three norms at first.
        momentum: weight of the latest batch in the statistics that evaluation uses, in (0, 1]; None for their mean over
            all batches. A step's first batch counts whole.
        eps: added to the variances, > 0.
        sync: whether, in training, statistics are those of the batches of all processes, as in ``SyncBatchNorm``: all
            must call the module equally often.
        options: of the family, see :class:`gradguard.nn.Options`.

    Raises:
        ValueError: an argument out of range; in training, a batch of one.
        TypeError: one of a wrong type.
        RuntimeError: evaluation before training.

    Source: Cooijmans et al. 2017, "Recurrent batch normalization", arXiv 1603.09025, equations 6 to 8 and section 3.
    Host sync: in ``eval()`` and ``load_state_dict`` one for each layer and direction; with ``sync`` the same in each
    pass in training; else none. Mutates: in training its statistics, once for each pass, one under ``no_grad`` or a
    repeated one of a checkpoint included.

    >>> import torch
    >>> lstm = BatchNormLSTM(4, 8, max_steps=5)
    >>> output, (h, c) = lstm(torch.randn(5, 3, 4))
    >>> output.shape, lstm.eval()(torch.randn(9, 1, 4))[0].shape
    (torch.Size([5, 3, 8]), torch.Size([9, 1, 8]))
    """

    recurrence: BatchNormLSTMRecurrence

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        proj_size: int = 0,
        device: Any = None,
        dtype: Any = None,
        *,
        forget_bias: float | None = 1.0,
        max_steps: int = 100,
        gain: float = 0.1,
        momentum: float | None = 0.1,
        eps: float = 1e-5,
        sync: bool = False,
        **options: Unpack[Options],
    ) -> None:
        check_settings(max_steps, gain, momentum, sync)
        super().__init__(
            BatchNormLSTMRecurrence(forget_bias, eps, gain=gain, sync=sync),
            input_size,
            hidden_size,
            num_layers,
            bias,
            batch_first,
            dropout,
            bidirectional,
            proj_size,
            device,
            dtype,
            options,
        )
        self._in_training = replace(self.recurrence, training=True)
        self._statistics = [f"statistics{names['weight_hh'].removeprefix('weight_hh')}" for names in self._layers]
        for name in self._statistics:
            self.add_module(name, StepStatistics(hidden_size, max_steps, momentum, device, dtype))

    def reset_parameters(self) -> None:
        """Draw the weights anew, and forget the statistics."""
        super().reset_parameters()
        for name in getattr(self, "_statistics", ()):  # which are not there yet at first
            getattr(self, name).reset_parameters()

    @contextmanager
    def population_statistics(self) -> Iterator[None]:
        """Take the statistics anew: the mean over all batches that are run within, with the weights as they are.

        The module is in training meanwhile, without gradients, and afterwards as it was; on an error its statistics are
        those of before. Twenty batches are a start. Host sync: one for each layer and direction. Mutates: statistics.

        >>> lstm = BatchNormLSTM(4, 8)
        >>> with lstm.population_statistics():
        ...     for x in torch.randn(20, 5, 3, 4):
        ...         _ = lstm(x)
        >>> lstm.statistics_l0.batches[:6].tolist()
        [20, 20, 20, 20, 20, 0]
        """
        was = self.training
        try:
            with taken_anew([getattr(self, name) for name in self._statistics]), torch.no_grad():
                self.train()
                yield
        finally:
            self.train(was)

    def _layer(
        self, k: int, rows: Tensor, states: list[Tensor], params: dict[str, Tensor], form: Form
    ) -> tuple[Sequence[Tensor], Sequence[Tensor]]:
        """Run one layer in one direction; the second one with each sequence turned round, so that steps are steps."""
        statistics: StepStatistics = getattr(self, self._statistics[k])
        recurrence, sizes = self.recurrence, form.batch_sizes
        turning = form.turning(rows.shape[0], rows.device) if self._is_reverse(k) else None
        rows = rows if turning is None else rows.index_select(0, turning)
        if self.training:
            recurrence, shared = self._in_training, recurrence.sync and many_ranks()
            is_known = not torch.compiler.is_compiling() or form.packed is None
            if is_known and form.batch == 1 and not shared:
                raise ValueError(
                    f"BatchNormLSTM needs more than one sequence in a batch in training, got {form.batch}: there is no "
                    "variance of one. Take a larger batch, or LayerNormLSTM."
                )
            sizes = form.sizes_on_all_ranks(rows.device) if shared else sizes
        else:
            params = params | statistics.at(0, form.steps if sizes is None else sizes.shape[0])
        one = Pass(k, recurrence, rows, states, params, sizes, reverse=False, turned=turning is not None)
        sequences, last, extras = self._heard(one)
        if self.training:
            statistics.follow(0, extras[0])
        return sequences if turning is None else [s.index_select(0, turning) for s in sequences], last


def check_settings(max_steps: Any, gain: Any, momentum: Any, sync: Any) -> None:
    """Refuse what is out of range, or of a wrong type."""
    who = "A BatchNormLSTM"
    whole_number(who, "max_steps", max_steps)
    positive(who, "gain", gain)
    checks.flags(who, sync=sync)
    if momentum is not None and number(who, "momentum", momentum, above=0) > 1:
        raise ValueError(f"{who} needs momentum in (0, 1], or None for the mean of all batches, got {momentum!r}.")
