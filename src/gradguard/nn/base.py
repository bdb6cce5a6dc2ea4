"""The frame of all recurrent modules: layers, directions, forms of input, dropout, states, names. A cell adds itself.

Shape legend: N = rows of all steps, B = batch, L = layers times directions, I = input, S = width of a state.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import dropout

from gradguard.nn import checks
from gradguard.nn.listening import Pass
from gradguard.nn.options import Options, checked, factors, noise
from gradguard.nn.recurrence import AbstractRecurrence, wide
from gradguard.nn.sequence import Form, rows_of
from gradguard.nn.weight_decay import weight_decay_groups


class AllStates(NamedTuple):
    """The states at every step, a sequence in the form of the input for each layer and direction, as ``h_n`` has them.

    Attributes:
        h: hidden states; before dropout, and before two directions are joined. Those of the last layer may share memory
            with the output.
        c: cell states; empty where a cell has none.
    """

    h: tuple[Any, ...]
    c: tuple[Any, ...] = ()


class AbstractRecurrent(nn.Module):
    """A stack of recurrent layers with the contract of ``torch.nn.LSTM``.

    The states of a cell are its ``recurrence.widths``: one goes in and out as a tensor, two as a pair. Parameters are
    called as the recurrence names them, with ``_l<layer>`` and, of the second direction, ``_reverse`` behind.

    Attributes:
        listeners: told of each layer's pass, where probes have set them.
    """

    listeners: tuple[Callable[[Pass], None], ...] = ()

    def __init__(
        self,
        recurrence: AbstractRecurrence,
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
        options: Options | None = None,
    ) -> None:
        super().__init__()
        who = type(self).__name__
        checks.sizes(who, input_size=input_size, hidden_size=hidden_size, num_layers=num_layers)
        checks.flags(who, bias=bias, batch_first=batch_first, bidirectional=bidirectional)
        checks.dropout(who, dropout, num_layers)
        checks.projection(who, proj_size, hidden_size)
        self.settings, in_recurrence = checked(who, recurrence, dict(options or {}))
        self.recurrence = replace(recurrence, **in_recurrence)
        self.input_size, self.hidden_size, self.num_layers = input_size, hidden_size, num_layers
        self.bias, self.batch_first, self.dropout = bias, batch_first, float(dropout)
        self.bidirectional, self.proj_size = bidirectional, proj_size
        self._widths = recurrence.widths(hidden_size, proj_size)
        directions = ("", "_reverse") if bidirectional else ("",)
        self._layers: list[dict[str, str]] = []  # of each layer and direction: names within it, names within the module
        self._residuals: list[str] = []  # of each layer: the projection of its input, or ""
        out = self._widths[0] * len(directions)
        for layer in range(num_layers):
            width = input_size if layer == 0 else out
            for direction in directions:
                shapes = recurrence.shapes(width, hidden_size, proj_size, bias=bias)
                self._layers.append({name: f"{name}_l{layer}{direction}" for name in shapes})
                for name, shape in shapes.items():
                    self._register(f"{name}_l{layer}{direction}", shape, device, dtype)
            self._residuals.append(f"weight_res_l{layer}" if self.settings.residual and width != out else "")
            if self._residuals[-1]:
                self._register(self._residuals[-1], (out, width), device, dtype)
        self.reset_parameters()

    def _register(self, name: str, shape: tuple[int, ...], device: Any, dtype: Any) -> None:
        self.register_parameter(name, nn.Parameter(torch.empty(shape, device=device, dtype=dtype)))

    @property
    def all_weights(self) -> list[list[Tensor]]:
        """The parameters of each layer and direction."""
        return [[getattr(self, name) for name in names.values()] for names in self._layers]

    def reset_parameters(self) -> None:
        """Draw the weights anew, as ``torch.nn.LSTM`` does; gains become 1."""
        for names in self._layers:
            for name, full in names.items():
                self.recurrence.fill_(name, getattr(self, full), self.hidden_size)
        for full in filter(None, self._residuals):
            self.recurrence.fill_("weight_res", getattr(self, full), self.hidden_size)

    def weight_decay_groups(self, weight_decay: float) -> list[dict[str, Any]]:
        """Sort the parameters for an optimizer, as in ``torch.optim.AdamW(rnn.weight_decay_groups(0.01))``.

        Returns:
            Two groups: matrices, with ``weight_decay``; and gains, biases, peepholes and the recurrent weights of an
            IndRNN, which decay would only keep from what they are for, with 0.

        Raises:
            ValueError: ``weight_decay`` is below 0.
        """
        return weight_decay_groups(self, weight_decay)

    def flatten_parameters(self) -> None:
        """Do nothing: it is there because loops written for ``torch.nn.LSTM`` call it."""

    def forward(self, input: Any, hx: Any = None, *, return_states: bool = False) -> Any:
        """Run all layers over a sequence.

        Args:
            input: [T, B, I], or [B, T, I] with ``batch_first``; [T, I] without a batch; or a ``PackedSequence``. T may
                be 0.
            hx: states before the first step, [L, B, S] each ([L, S] without a batch), where L counts layers and
                directions; zeros if None.
            return_states: whether the states at every step are wanted, too.

        Returns:
            The last layer's hidden states, in the form of the input; the states after the last step of each sequence,
            in the form of ``hx``; and with ``return_states`` an :class:`AllStates`.

        Raises:
            ValueError, RuntimeError: as ``torch.nn.LSTM`` would.
        """
        checks.sequence(self, input)
        rows, form = rows_of(input, batch_first=self.batch_first)
        layers = [{name: getattr(self, full) for name, full in names.items()} for names in self._layers]
        residuals = [getattr(self, name) if name else None for name in self._residuals]
        checks.rows(self, rows, layers[0]["weight_hh"])
        layers = [self.recurrence.effective(params) for params in layers]
        amp = checks.autocast_dtype(rows)
        if amp is not None:
            rows, layers = rows.to(amp), [_weights_cast(params, amp) for params in layers]
        states = self._states(rows, hx, form)
        directions, seen, finals = 2 if self.bidirectional else 1, [], []
        for layer in range(self.num_layers):
            into, outputs = self._input(rows, form), []
            for k in range(layer * directions, (layer + 1) * directions):
                sequences, last = self._run(k, into, [state[k] for state in states], layers[k], form)
                outputs.append(sequences[0])
                finals.append(last)
                if return_states:
                    seen.append(sequences)
            out = outputs[0] if directions == 1 else torch.cat(outputs, dim=1)
            if self.dropout and self.training and layer < self.num_layers - 1:
                out = dropout(out, self.dropout)
            if self.settings.residual:
                project = residuals[layer]
                out = out + (rows if project is None else nn.functional.linear(rows, project.to(rows.dtype)))
            rows = out
        narrow = None if amp is not None else rows.dtype
        last_states = tuple(_cast(form.leave(torch.stack(each)), narrow) for each in zip(*finals, strict=True))
        output = form.restore(rows), last_states if len(last_states) > 1 else last_states[0]
        if not return_states:
            return output
        every = (tuple(form.restore(_cast(rows, narrow)) for rows in each) for each in zip(*seen, strict=True))
        return *output, AllStates(*every)

    def _input(self, rows: Tensor, form: Form) -> Tensor:
        """What a layer is given: with variational dropout, one mask for all steps of a sequence."""
        if not (self.training and self.settings.variational_dropout):
            return rows
        return rows * form.of_rows(factors(self.settings.variational_dropout, rows, form.batch, rows.shape[1]))

    def _run(
        self, k: int, rows: Tensor, states: list[Tensor], params: dict[str, Tensor], form: Form
    ) -> tuple[Sequence[Tensor], Sequence[Tensor]]:
        """Run one layer in one direction, with what the options draw for it in training."""
        if self.training:
            if self.settings.weight_dropout:
                params = params | {"weight_hh": dropout(params["weight_hh"], self.settings.weight_dropout)}
            params = params | noise(self.recurrence, self.settings, rows.shape[0], states)
        return self._layer(k, rows, states, params, form)

    def _layer(
        self, k: int, rows: Tensor, states: list[Tensor], params: dict[str, Tensor], form: Form
    ) -> tuple[Sequence[Tensor], Sequence[Tensor]]:
        """Run it: each state at every step, and after the last."""
        one = Pass(k, self.recurrence, rows, states, params, form.batch_sizes, self._is_reverse(k), turned=False)
        return self._heard(one)[:2]

    def _heard(self, one: Pass) -> tuple[Sequence[Tensor], Sequence[Tensor], Sequence[Tensor]]:
        """Make a pass, and tell who listens: not in a graph, where nobody can."""
        sequences, finals, extras = one.run()
        if not torch.compiler.is_compiling():
            for listener in self.listeners:
                listener(one._replace(sequences=sequences, finals=finals))
        return sequences, finals, extras

    def _is_reverse(self, k: int) -> bool:
        return self.bidirectional and k % 2 == 1

    def _states(self, rows: Tensor, hx: Any, form: Form) -> list[Tensor]:
        dtypes = [rows.dtype, *(wide(rows.dtype) for _ in self._widths[1:])]
        count = len(self._layers)
        shapes = [(count, form.batch, width) for width in self._widths]
        if hx is None:
            return [rows.new_zeros(s, dtype=dtype) for s, dtype in zip(shapes, dtypes, strict=True)]
        given = checks.states(self, hx, rows, form, shapes)
        return [form.enter(state).to(dtype) for state, dtype in zip(given, dtypes, strict=True)]

    def extra_repr(self) -> str:
        """Write the arguments that are not the default."""
        parts = [str(self.input_size), str(self.hidden_size)]
        plain = {
            "proj_size": 0,
            "num_layers": 1,
            "bias": True,
            "batch_first": False,
            "dropout": 0.0,
            "bidirectional": False,
        }
        parts += [f"{name}={value}" for name, usual in plain.items() if (value := getattr(self, name)) != usual]
        usual_settings = type(self.settings)()._asdict()
        options = [f"{n}={v}" for n, v in self.settings._asdict().items() if v != usual_settings[n]]
        return ", ".join(parts + self.recurrence.described() + options)


def _weights_cast(params: dict[str, Tensor], dtype: torch.dtype) -> dict[str, Tensor]:
    """Cast the matrices, which are all that a product is taken with."""
    return {name: value.to(dtype) if value.dim() > 1 else value for name, value in params.items()}


def _cast(t: Tensor, dtype: torch.dtype | None) -> Tensor:
    return t if dtype is None else t.to(dtype)
