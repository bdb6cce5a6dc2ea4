"""Cells whose forget gate has no input gate beside it: what initialisers do to CoupledLSTM and JANET.

The rows of f are found by what they do: with all weights 0, a bias of f moves what is left of the state after a step.
"""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from gradguard import init
from gradguard import nn as gnn
from tests.init.modules import Make
from tests.init.oracle import suffixes

LONE: dict[str, Make] = {
    "CoupledLSTM": lambda: gnn.CoupledLSTM(3, 4, num_layers=2, bidirectional=True, forget_bias=None),
    "projected": lambda: gnn.CoupledLSTM(3, 4, proj_size=2, forget_bias=None),
    "CoupledLSTMCell": lambda: gnn.CoupledLSTMCell(3, 4, forget_bias=None),
    "JANET": lambda: gnn.JANET(3, 4, num_layers=2, bidirectional=True, forget_bias=None, beta=0.0),
    "JANETCell": lambda: gnn.JANETCell(3, 4, forget_bias=None, beta=0.0),
}


def kept(module: nn.Module, layer: int) -> Tensor:
    """What is left of a state of 1 after a step on zeros, when nothing but the biases is there: [H]."""
    blank, names = copy.deepcopy(module).double(), suffixes(module)
    with torch.no_grad():
        for name, param in blank.named_parameters():
            if name.startswith("weight"):
                param.zero_()
            elif name.startswith("bias"):
                param[4:8] = 0.0  # g: nothing comes in
        states = [torch.ones(len(names), 1, width, dtype=torch.float64) for width in blank._widths]
        x = torch.zeros(1, 1, 3, dtype=torch.float64)
        if hasattr(module, "num_layers"):
            _, after = blank(x, tuple(states) if len(states) > 1 else states[0])
        else:
            after = blank(x[0], tuple(s[0] for s in states) if len(states) > 1 else states[0][0])
    last = after[-1] if isinstance(after, tuple) else after
    return last[layer, 0] if last.dim() == 3 else last[0]


@pytest.mark.parametrize("make", LONE.values(), ids=LONE)
def test_the_forget_gate_gets_the_value(make: Make) -> None:
    module = make()
    before = copy.deepcopy(module)
    changes = init.forget_gate_(module, 1.5)
    assert [change.after for change in changes] == [1.5] * len(suffixes(module))
    for layer in range(len(changes)):
        found = kept(module, layer)
        torch.testing.assert_close(found, torch.full((4,), 1.5, dtype=torch.float64).sigmoid())
    for name, param in module.named_parameters():
        same = param.eq(before.get_parameter(name))
        assert bool((same[4:] if name.startswith("bias") else same).all()), name


@pytest.mark.parametrize("make", LONE.values(), ids=LONE)
def test_chrono_lets_units_keep_for_times_up_to_t_max(make: Make) -> None:
    module = make()
    changes = init.chrono_(module, 50, generator=torch.Generator().manual_seed(1))
    assert {change.name[-3:] for change in changes} == {"[f]"}
    for layer in range(len(changes)):
        times = 1 / (1 - kept(module, layer))
        assert bool(((times >= 2 - 1e-5) & (times <= 50 + 1e-3)).all())
        assert len(times.unique()) == 4


@pytest.mark.parametrize("make", LONE.values(), ids=LONE)
def test_every_block_is_orthogonal(make: Make) -> None:
    module = make()
    init.orthogonal_(module, weights="both")
    for name, param in module.named_parameters():
        if name.startswith(("weight_ih", "weight_hh")):
            for block in param.detach().split(4):
                short = block if block.shape[0] <= block.shape[1] else block.t()
                torch.testing.assert_close(short @ short.t(), torch.eye(len(short)), rtol=0, atol=1e-5)
    rows = [row.name for row in init.describe(module)]
    assert (
        len(rows)
        == len(set(rows))
        == sum(-(-len(p) // 4) for n, p in module.named_parameters() if n.startswith("weight"))
    )
