"""The cells that ``torchrecurrent`` has, too: equal to what somebody else wrote, and where that is not the paper's.

A pair lists the blocks of each parameter, in the order of either side. Blocks of one name are one tensor, so that its
gradient is compared as well; a number fills a block, a minus turns its sign, ``I`` is the identity. Several of their
cells are special cases of ours; CoupledLSTM and the cells with norms have no peer there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import NamedTuple

import pytest
import torch
import torchrecurrent as tr
from torch import Tensor, nn
from torch.func import functional_call

from gradguard import nn as gnn
from tests.contracts.recurrent import IN, MODULES, B, H, Kind, T, as_hx, states_of

Blocks = Mapping[str, str]


class Pair(NamedTuple):
    """A module of ours, a cell of theirs, what their parameters are made of, and I."""

    ours: Kind
    our_blocks: Blocks
    theirs: Callable[..., nn.Module]
    their_blocks: Blocks
    input_size: int = IN


def blocks(weight_ih: str, weight_hh: str, bias_ih: str, bias_hh: str = "", **others: str) -> Blocks:
    given = {"weight_ih": weight_ih, "weight_hh": weight_hh, "bias_ih": bias_ih, "bias_hh": bias_hh}
    return {name: parts for name, parts in given.items() if parts} | others


RNN = blocks("W", "U", "b", "d")
JANET = blocks("W_f W_g", "U_f U_g", "b_f b_g")
THEIR_JANET = JANET | {"bias_hh": "0 0"}
LSTM = blocks("W_i W_f W_g W_o", "U_i U_f U_g U_o", "b_i b_f b_g b_o", "d_i d_f d_g d_o")
PEEPHOLE_LSTM = LSTM | {"weight_c": "p_i p_f p_o"}
OPEN_LSTM = blocks("W_i 0 W_g W_o", "U_i 0 U_g U_o", "b_i 1000 b_g b_o", "d_i 0 d_g d_o")  # forgets nothing
ORIGINAL_LSTM = blocks("W_i W_g W_o", "U_i U_g U_o", "b_i b_g b_o", "d_i d_g d_o")
OPEN_GRU = blocks("0 W_z W_n", "0 U_z U_n", "1000 b_z b_n", "0 d_z d_n")  # resets nothing
TIED_GRU = blocks("W_f -W_f W_n", "U_f -U_f U_n", "b_f -b_f b_n")  # what reads also writes: 1 - z = r
MUT1 = blocks("W_r W_z", "U_r U_n", "b_r b_z b_n")
MUT2 = blocks("W_z W_n", "U_r U_z U_n", "b_r b_z b_n")
MUT3 = blocks("W_r W_z W_n", "U_r U_z U_n", "b_r b_z b_n")
# Theirs begin with z. The paper's b_n of MUT1 is that of the product with h; theirs has one within tanh(x), too.
THEIR_MUT1 = blocks("W_z W_r W_in", "U_r U_n", "b_z b_r 0", "0 b_n")
BARE_MUT1 = THEIR_MUT1 | {"weight_ih": "W_z W_r I"}  # where the weight they always have is the identity
THEIR_MUT2 = blocks("W_z W_in W_n", "U_z U_r U_n", "b_z b_r b_n", "0 0 0")
THEIR_MUT3 = THEIR_MUT2 | {"weight_ih": "W_z W_r W_n"}
IND_RNN, THEIR_IND_RNN = blocks("W", "u", "b"), {"weight_ih": "W", "vector_u": "u", "bias_ih": "b", "bias_hh": "0"}
UNBOUND = partial(gnn.IndRNN, length=T, gamma=1e9)
UGRNN = blocks("W_g W_f", "U_g U_f", "b_g b_f", "0 0")

PAIRS = {
    "RNN": Pair(gnn.RNN, RNN, tr.FastRNNCell, RNN | {"alpha": "1000", "beta": "-1000"}),
    "IndRNN, tanh": Pair(partial(UNBOUND, nonlinearity="tanh"), IND_RNN, tr.IndRNNCell, THEIR_IND_RNN),
    "IndRNN, ReLU": Pair(UNBOUND, IND_RNN, partial(tr.IndRNNCell, nonlinearity="relu"), THEIR_IND_RNN),
    "JANET": Pair(gnn.JANET, JANET, tr.JANETCell, THEIR_JANET | {"beta": "1"}),
    "JANET, beta = -0.5": Pair(partial(gnn.JANET, beta=-0.5), JANET, tr.JANETCell, THEIR_JANET | {"beta": "-0.5"}),
    "JANET, beta = 0": Pair(partial(gnn.JANET, beta=0.0), JANET, tr.UGRNNCell, UGRNN),
    "LSTM": Pair(gnn.LSTM, OPEN_LSTM, tr.OriginalLSTMCell, ORIGINAL_LSTM),
    "PeepholeLSTM": Pair(gnn.PeepholeLSTM, PEEPHOLE_LSTM, tr.PeepholeLSTMCell, LSTM | {"weight_ph": "p_i p_f p_o"}),
    "GRU": Pair(gnn.GRU, OPEN_GRU, tr.UGRNNCell, blocks("W_n W_z", "U_n U_z", "b_n b_z", "d_n d_z")),
    "OriginalGRU": Pair(gnn.OriginalGRU, TIED_GRU, tr.MGUCell, blocks("W_f W_n", "U_f U_n", "b_f b_n", "0 0")),
    "MUT1": Pair(gnn.MUT1, MUT1 | {"weight_in": "W_in"}, tr.MUT1Cell, THEIR_MUT1),
    "MUT1, I = H": Pair(gnn.MUT1, MUT1, tr.MUT1Cell, BARE_MUT1, H),
    "MUT2": Pair(gnn.MUT2, MUT2 | {"weight_in": "W_in"}, tr.MUT2Cell, THEIR_MUT2),
    "MUT2, I = H": Pair(gnn.MUT2, MUT2, tr.MUT2Cell, THEIR_MUT2 | {"weight_ih": "W_z I W_n"}, H),
    "MUT3": Pair(gnn.MUT3, MUT3, tr.MUT3Cell, THEIR_MUT3),
}
NOT_THE_PAPERS = {  # what theirs has, in place of what the paper and we have; s is the sigmoid
    "IndRNN: u has no bound, the paper's |u| <= gamma ** (1 / T)": Pair(
        partial(gnn.IndRNN, length=T, nonlinearity="tanh"),
        IND_RNN | {"weight_hh": "2"},
        tr.IndRNNCell,
        THEIR_IND_RNN | {"vector_u": "2"},
    ),
    "JANET: a learned beta in 1 - s(s - beta)": Pair(gnn.JANET, JANET, tr.JANETCell, THEIR_JANET | {"beta": "beta"}),
    "MUT1: tanh(W x) for tanh(x)": Pair(gnn.MUT1, MUT1, tr.MUT1Cell, THEIR_MUT1, H),
    "MUT1: tanh(x + b) for tanh(x)": Pair(gnn.MUT1, MUT1, tr.MUT1Cell, BARE_MUT1 | {"bias_ih": "b_z b_r b_in"}, H),
    "MUT2: r = s(W x + U h + b) for s(x + U h + b)": Pair(gnn.MUT2, MUT2, tr.MUT2Cell, THEIR_MUT2, H),
}


def assembled(parts: Blocks, params: Mapping[str, Tensor], shared: dict[str, Tensor]) -> dict[str, Tensor]:
    """Put each parameter together; tensors that nobody used before are drawn."""
    assert set(parts) == set(params)

    def block(name: str, shape: tuple[int, ...]) -> Tensor:
        if name == "I":
            return torch.eye(*shape, dtype=torch.float64)
        if name.lstrip("-")[0].isdigit():
            return torch.full(shape, float(name), dtype=torch.float64)
        key = name.lstrip("-")
        if key not in shared:
            shared[key] = torch.randn(shape, dtype=torch.float64, requires_grad=True)
        return -shared[key] if name != key else shared[key]

    made = {}
    for name, written in parts.items():
        names, (rows, *rest) = written.split(), params[name].shape or (1,)
        made[name] = torch.cat([block(each, (rows // len(names), *rest)) for each in names]).reshape(params[name].shape)
    return made


def run(pair: Pair) -> tuple[Tensor, Tensor, list[Tensor]]:
    """Give the states at every step, [S, T, B, H], ours and theirs, and all that they depend on."""
    torch.manual_seed(0)
    module, cell = (kind(pair.input_size, H, dtype=torch.float64) for kind in (pair.ours, pair.theirs))
    shared: dict[str, Tensor] = {}
    x = torch.randn(T, B, pair.input_size, dtype=torch.float64, requires_grad=True)
    first = [torch.randn(B, H, dtype=torch.float64, requires_grad=True) for _ in module.recurrence.widths(H, 0)]
    own = {name.removesuffix("_l0"): param for name, param in module.named_parameters()}
    params = {f"{name}_l0": value for name, value in assembled(pair.our_blocks, own, shared).items()}
    hx = as_hx(state.unsqueeze(0) for state in first)
    *_, seen = functional_call(module, params, (x, hx), {"return_states": True})
    theirs, state = [], tuple(first) * (2 if cell.uses_double_state() and len(first) == 1 else 1)  # JANET's h is its c
    params = assembled(pair.their_blocks, dict(cell.named_parameters()), shared)
    for x_t in x:
        state = states_of(functional_call(cell, params, (x_t, as_hx(state))))
        theirs.append(torch.stack(state[: len(first)]))
    return torch.stack([*seen.h, *seen.c]), torch.stack(theirs, 1), [x, *first, *shared.values()]


def test_every_cell_of_the_same_name_is_compared() -> None:
    assert set(tr.__all__) & set(MODULES) <= {name.split(",")[0] for name in PAIRS}


@pytest.mark.parametrize("name", PAIRS)
def test_states_and_gradients_are_those_of_the_peer(name: str) -> None:
    ours, theirs, leaves = run(PAIRS[name])
    torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-12)
    weight = torch.randn_like(ours)
    found, right = (torch.autograd.grad((states * weight).sum(), leaves) for states in (ours, theirs))
    torch.testing.assert_close(found, right, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("name", NOT_THE_PAPERS)
def test_what_is_not_the_papers_makes_a_difference(name: str) -> None:
    ours, theirs, _ = run(NOT_THE_PAPERS[name])
    assert (ours - theirs).abs().max() > 0.01
