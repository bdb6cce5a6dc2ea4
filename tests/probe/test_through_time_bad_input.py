"""Bad input of a look through time: need, got, mend."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from gradguard import nn as gnn
from gradguard.probe import through_time
from tests.probe.models import Model, batch, loss_of, made


def of_lstm(loss_fn: Callable[[Any, Tensor], Any], kind: Any = nn.LSTM, steps: int = 5) -> Callable[[], Any]:
    return lambda: through_time(Model(made(kind)), batch(steps=steps), loss_fn)


LOOP = "For a loop over cells of your own, use gradguard.probe.watch_state"
BAD: dict[str, tuple[Callable[[], Any], type[Exception], str]] = {
    "no recurrent module": (
        lambda: through_time(nn.Linear(3, 3), batch(), loss_of),
        ValueError,
        rf"through_time needs a model with a recurrent module .*, Linear has none\. {LOOP}",
    ),
    "a cell": (lambda: through_time(nn.LSTMCell(3, 3), batch(), loss_of), ValueError, "LSTMCell has none"),
    "wrong name": (
        lambda: through_time(Model(made(nn.LSTM)), batch(), loss_of, modules=["rnn", "nrn"]),
        ValueError,
        "needs names of recurrent modules, of which Model has rnn; got nrn",
    ),
    "forward called directly": (
        of_lstm(lambda m, x: m.rnn.forward(x)[0].sum()),
        ValueError,
        "none of rnn was. Is its forward called directly, under no_grad, or",
    ),
    "under no_grad": (of_lstm(torch.no_grad()(loss_of)), ValueError, "none of rnn was. Is its forward"),
    "under no_grad, of ours": (of_lstm(torch.no_grad()(loss_of), gnn.LSTM), ValueError, "none of rnn was"),
    "not called": (of_lstm(lambda m, x: m.head.weight.sum()), ValueError, "to call the recurrent modules .* rnn was"),
    "detached": (
        of_lstm(lambda m, x: m.head(m.rnn(x)[0].detach()).sum()),
        ValueError,
        "needs a loss that depends on the recurrent modules, but no gradient came to rnn. Is their output detached",
    ),
    "a detached loss": (of_lstm(lambda m, x: m(x).sum().detach(), gnn.GRU), ValueError, "no gradient came to rnn"),
    "one step": (of_lstm(loss_of, steps=1), ValueError, r"sequences of two steps or more, rnn got 1\. Where the loop"),
    "one step, of ours": (of_lstm(loss_of, gnn.LSTM, steps=1), ValueError, "two steps or more, rnn got 1"),
    "no step": (of_lstm(lambda m, x: m.rnn(x[:0])[0].sum(), gnn.LSTM), ValueError, "two steps or more, rnn got 0"),
    "no sequence": (of_lstm(lambda m, x: m.rnn(x[:, :0])[0].sum()), ValueError, "two steps or more, rnn got 0"),
    "many losses": (of_lstm(lambda m, x: m(x)), ValueError, r"needs one loss, got shape \(3, 1\). Take its mean"),
    "a float": (of_lstm(lambda m, x: m(x).sum().item()), TypeError, "needs loss_fn to give a tensor, got float"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input(case: str) -> None:
    call, error, message = BAD[case]
    with pytest.raises(error, match=message):
        call()
