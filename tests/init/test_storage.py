"""Weights that are computed, shared, sharded or not there: set as they are used, or refused by name."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import nn
from torch.nn.utils import parametrizations, parametrize, prune

from gradguard import GradGuardWarning, init
from gradguard import nn as gnn
from tests.init.modules import Tagger, is_as_before, values
from tests.init.oracle import gate_rows

KINDS = [nn.LSTM, gnn.LayerNormLSTM]


class Doubled(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return 2 * x

    def right_inverse(self, x: torch.Tensor) -> torch.Tensor:
        return x / 2


def is_orthogonal_per_gate(module: nn.Module, like: nn.Module) -> bool:
    blocks = [module.weight_hh_l0.detach()[rows] for rows in gate_rows(like, 0).values()]
    return all((block @ block.T - torch.eye(len(block))).abs().max() < 1e-5 for block in blocks)


@pytest.mark.parametrize("kind", KINDS)
def test_parametrized_and_weight_normed_weights_are_set_as_the_module_uses_them(kind: type[nn.Module]) -> None:
    module, x = kind(3, 4), torch.randn(5, 2, 3)
    parametrizations.weight_norm(module, "weight_hh_l0")
    parametrize.register_parametrization(module, "bias_ih_l0", Doubled())
    init.orthogonal_(module)
    init.forget_gate_(module, 1.5)
    assert is_orthogonal_per_gate(module, kind(3, 4))
    total = module.bias_ih_l0 + module.bias_hh_l0
    assert torch.equal(total[gate_rows(kind(3, 4), 0)["f"]], torch.full((4,), 1.5))
    plain = kind(3, 4)
    plain.load_state_dict({name: getattr(module, name).detach() for name in plain.state_dict()})
    torch.testing.assert_close(module(x)[0], plain(x)[0])


def test_weight_normalisation_of_the_old_kind() -> None:
    module, x = nn.LSTM(3, 4), torch.randn(5, 2, 3)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        nn.utils.weight_norm(module, "weight_hh_l0")
    init.orthogonal_(module)
    assert is_orthogonal_per_gate(module, nn.LSTM(3, 4))
    module(x)  # computes the weight anew
    assert is_orthogonal_per_gate(module, nn.LSTM(3, 4))


class OneWay(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.tril()


@pytest.mark.parametrize("how", ["pruned", "spectral norm", "one way"])
def test_what_can_not_be_turned_round_is_refused_and_nothing_is_changed(how: str) -> None:
    model = nn.ModuleList([nn.LSTM(3, 4), nn.LSTM(3, 4)])
    if how == "pruned":
        prune.random_unstructured(model[1], "weight_hh_l0", 0.5)
    elif how == "one way":
        parametrize.register_parametrization(model[1], "weight_hh_l0", OneWay())
    else:
        parametrizations.spectral_norm(model[1], "weight_hh_l0")
        model.eval()
    before = values(model)
    with pytest.raises(
        ValueError, match=r"orthogonal_ can't set weight_hh_l0 of a .*LSTM: it is computed by .*Initialise first"
    ):
        init.orthogonal_(model, 3.0)
    assert is_as_before(model, before)


def test_on_the_meta_device_it_says_so_and_goes_on_with_the_rest() -> None:
    model = nn.ModuleDict({"there": nn.LSTM(3, 4), "meta": nn.LSTM(3, 4, device="meta")})
    for function in (init.orthogonal_, init.forget_gate_, init.uniform_gate_, init.identity_):
        with pytest.warns(GradGuardWarning, match="set nothing in meta: the weights are on the meta device"):
            changes = function(model)
        assert {change.name.split(".")[0] for change in changes} == {"there"}
    with pytest.warns(GradGuardWarning, match="to_empty"):
        assert init.chrono_(nn.GRU(3, 4, device="meta"), 9) == ()
    with pytest.raises(ValueError, match=r"lsuv_ needs to run the model, but 0.weight is on the meta device"):
        init.lsuv_(nn.Sequential(nn.Linear(2, 2, device="meta")), torch.ones(1, 2))


def test_a_generator_of_any_device_and_frozen_weights() -> None:
    module = nn.LSTM(3, 4).requires_grad_(False)
    init.orthogonal_(module, generator=torch.Generator().manual_seed(0))
    other = nn.LSTM(3, 4).double()
    init.orthogonal_(other, generator=torch.Generator().manual_seed(0))
    assert is_orthogonal_per_gate(module, nn.LSTM(3, 4))
    assert not module.weight_hh_l0.requires_grad


def test_tied_weights_and_optimizers_keep_their_parameters() -> None:
    model = Tagger()
    model.rnn.weight_hh_l1 = model.rnn.weight_hh_l0
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    held = [id(p) for group in optimizer.param_groups for p in group["params"]]
    init.forget_gate_(model)
    init.lsuv_(model, torch.randn(4, 3, 3))
    assert [id(p) for p in model.parameters()] == held


@pytest.fixture
def alone() -> Iterator[None]:
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


@pytest.mark.filterwarnings("ignore")
def test_dtensors_are_set_whole(alone: None) -> None:
    from torch.distributed.fsdp import fully_shard

    module = gnn.LSTM(3, 4)
    fully_shard(module, mesh=dist.init_device_mesh("cpu", (1,)))
    init.orthogonal_(module)
    init.forget_gate_(module, 2.0)
    whole = gnn.LSTM(3, 4)
    whole.load_state_dict({name: value.full_tensor() for name, value in module.state_dict().items()})
    assert is_orthogonal_per_gate(whole, whole)
    assert torch.equal((whole.bias_ih_l0 + whole.bias_hh_l0)[gate_rows(whole, 0)["f"]], torch.full((4,), 2.0))


def shard_and_initialise(rank: int, folder: str) -> None:
    from torch.distributed.fsdp import fully_shard

    dist.init_process_group("gloo", init_method=f"file://{folder}/sync", rank=rank, world_size=2)
    torch.manual_seed(rank)  # each rank draws other numbers: the first one's count
    model = nn.Sequential(gnn.LSTM(3, 4))
    fully_shard(model)
    changes = init.orthogonal_(model) + init.chrono_(model, 30) + init.spectral_radius_(model, 0.9)
    whole = {name: value.full_tensor() for name, value in model.state_dict().items()}
    torch.save((whole, [change.after for change in changes]), Path(folder) / f"{rank}.pt")
    dist.barrier()
    dist.destroy_process_group()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_two_ranks_hold_the_same_weights(tmp_path: Path) -> None:
    mp.spawn(shard_and_initialise, args=(str(tmp_path),), nprocs=2)
    (first, after), (second, _) = (torch.load(tmp_path / f"{rank}.pt") for rank in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)
    block = first["0.weight_hh_l0"].double()[:4]
    assert torch.linalg.eigvals(block).abs().max() == pytest.approx(0.9, rel=1e-5)
    total = first["0.bias_ih_l0"] + first["0.bias_hh_l0"]
    assert torch.equal(total[:4], -total[4:8])
    assert after[-1] == pytest.approx(0.9, rel=1e-5)
