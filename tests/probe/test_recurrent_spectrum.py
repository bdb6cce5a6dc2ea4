"""Spectral radius and norm of every gate's block, against NumPy and closed forms."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.nn.utils import parametrizations, parametrize

from gradguard import nn as gnn
from gradguard.probe import RecurrentSpectrum, recurrent_spectrum
from tests.contracts.recurrent import MODULES, projected

IN, H = 3, 4
GATES: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(("LSTM", "LayerNormLSTM", "NormalizedCellLSTM", "BatchNormLSTM"), ("i", "f", "g", "o")),
    **dict.fromkeys(("RMSNormLSTM", "GroupNormLSTM", "PeepholeLSTM"), ("i", "f", "g", "o")),
    "CoupledLSTM": ("f", "g", "o"),
    "JANET": ("f", "g"),
    **dict.fromkeys(("RNN", "IndRNN"), ("h",)),
    **dict.fromkeys(("GRU", "LayerNormGRU", "OriginalGRU", "MUT2", "MUT3"), ("r", "z", "n")),
    "MUT1": ("r", "n"),
    "torch LSTM": ("i", "f", "g", "o"),
    "torch GRU": ("r", "z", "n"),
    "torch RNN": ("h",),
}
KINDS: dict[str, Callable[..., nn.Module]] = MODULES | {
    "torch LSTM": nn.LSTM,
    "torch GRU": nn.GRU,
    "torch RNN": nn.RNN,
}


@pytest.mark.parametrize("name", KINDS)
def test_every_block_of_every_direction(name: str) -> None:
    kind = KINDS[name]
    module = kind(IN, H, num_layers=2, bidirectional=True, dtype=torch.float64, **projected(kind))
    found = recurrent_spectrum(module)
    assert [one.name for one in found] == ["l0", "l0_reverse", "l1", "l1_reverse"]
    for suffix, radius, norm in found:
        weight = getattr(module, f"weight_hh_{suffix}").detach().numpy()
        assert tuple(radius) == tuple(norm) == GATES[name]
        for i, gate in enumerate(GATES[name]):
            block = np.diag(weight) if weight.ndim == 1 else weight[i * H : (i + 1) * H]
            if projected(kind):
                block = block @ getattr(module, f"weight_hr_{suffix}").detach().numpy()
            assert radius[gate] == pytest.approx(np.abs(np.linalg.eigvals(block)).max(), rel=1e-9)
            assert norm[gate] == pytest.approx(np.linalg.svd(block, compute_uv=False)[0], rel=1e-12)


def test_a_block_that_turns_and_one_that_shears() -> None:
    gru = nn.GRU(1, 2)
    turn = torch.tensor([[0.0, -0.5], [0.5, 0.0]])  # eigenvalues are no real numbers
    gru.weight_hh_l0.data.copy_(torch.cat([turn, torch.tensor([[0.0, 3.0], [0.0, 0.0]]), torch.zeros(2, 2)]))
    [found] = recurrent_spectrum(gru)
    assert isinstance(found, RecurrentSpectrum)
    assert found.radius == pytest.approx({"r": 0.5, "z": 0.0, "n": 0.0})
    assert found.norm == pytest.approx({"r": 0.5, "z": 3.0, "n": 0.0})


def test_an_ind_rnn_counts_as_far_as_its_bound() -> None:
    rnn = gnn.IndRNN(1, 3, length=10)
    rnn.weight_hh_l0.data.copy_(torch.tensor([0.2, -9.0, 0.5]))
    [found] = recurrent_spectrum(rnn)
    assert found.radius["h"] == found.norm["h"] == pytest.approx(2**0.1, rel=1e-6)
    assert rnn.weight_hh_l0.tolist() == pytest.approx([0.2, -9.0, 0.5])


def test_a_stack_names_its_layers() -> None:
    stack = gnn.Stack([nn.GRU(3, 4, 2), gnn.MUT1(4, 2)])
    found = recurrent_spectrum(stack)
    assert [one.name for one in found] == ["layers.0.l0", "layers.0.l1", "layers.1.l0"]
    assert found[2][1:] == recurrent_spectrum(stack.layers[1])[0][1:]


def test_weights_as_they_are_computed_and_stored() -> None:
    module = gnn.LSTM(3, 4, bidirectional=True).train()
    half = copy.deepcopy(module).bfloat16()
    assert recurrent_spectrum(half) == recurrent_spectrum(copy.deepcopy(half).double())
    parametrizations.spectral_norm(module, "weight_hh_l0")
    parametrizations.weight_norm(module, "weight_hh_l0_reverse")
    before, rng = copy.deepcopy(module.state_dict()), torch.get_rng_state()
    found = recurrent_spectrum(module)
    assert all(torch.equal(before[name], value) for name, value in module.state_dict().items())
    assert module.training
    assert module.parametrizations.weight_hh_l0.training
    assert torch.equal(torch.get_rng_state(), rng)
    for one in found:
        weight = getattr(module.eval(), f"weight_hh_{one.name}").detach()
        for gate, block in zip("ifgo", weight.double().chunk(4), strict=True):
            assert one.norm[gate] == pytest.approx(torch.linalg.matrix_norm(block, 2).item(), rel=1e-12)
    with torch.inference_mode():
        assert recurrent_spectrum(module) == found


def test_a_batch_norm_lstm_that_was_not_trained() -> None:
    assert len(recurrent_spectrum(gnn.BatchNormLSTM(3, 4))) == 1


@pytest.fixture
def alone() -> Iterator[None]:
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


@pytest.mark.filterwarnings("ignore")
def test_sharded_weights_are_taken_whole(alone: None) -> None:
    from torch.distributed.fsdp import fully_shard

    module = nn.LSTM(3, 4, 2, proj_size=2)
    expected = recurrent_spectrum(module)
    fully_shard(module, mesh=dist.init_device_mesh("cpu", (1,)))
    assert recurrent_spectrum(module) == expected


def poisoned() -> nn.Module:
    module = gnn.LSTM(3, 4, proj_size=2)
    module.weight_hr_l0.data[0, 0] = math.inf
    return module


class Doubled(nn.Module):
    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        return weight * 2


def test_a_parametrization_of_ones_own() -> None:
    module = nn.GRU(3, 4)
    [before] = recurrent_spectrum(module)
    parametrize.register_parametrization(module, "weight_hh_l0", Doubled())
    [after] = recurrent_spectrum(module)
    assert after.radius == pytest.approx({gate: 2 * value for gate, value in before.radius.items()})


BAD: dict[str, tuple[Any, type[Exception], str]] = {
    "Linear": (nn.Linear(3, 3), ValueError, "recurrent_spectrum needs an RNN, GRU or LSTM.*got Linear"),
    "a model": (nn.Sequential(nn.GRU(3, 3)), ValueError, r"It holds 0 \(GRU\): give that"),
    "a cell": (nn.GRUCell(3, 3), ValueError, "got GRUCell, which takes one step"),
    "a class": (nn.GRU, TypeError, "needs a recurrent torch.nn.Module, got type"),
    "compiled": (torch.compile(nn.GRU(3, 3), backend="eager"), TypeError, "not compiled"),
    "meta": (gnn.LSTM(3, 3, device="meta"), ValueError, "on the meta device"),
    "Inf": (poisoned(), ValueError, "weight_hr_l0 of this LSTM holds NaN or Inf"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input(case: str) -> None:
    module, error, message = BAD[case]
    with pytest.raises(error, match=message):
        recurrent_spectrum(module)
