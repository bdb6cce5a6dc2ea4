"""Initialisers and cells whose weights lack some gates' blocks, or have one bias: found by what the states do."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from gradguard import init
from gradguard import nn as gnn
from tests.init.modules import is_as_before, values

BLOCKS = {
    "OriginalGRU": {"weight_ih": "rzn", "weight_hh": "rzn"},
    "MUT1": {"weight_ih": "rz", "weight_hh": "rn", "weight_in": " "},
    "MUT2": {"weight_ih": "zn", "weight_hh": "rzn", "weight_in": " "},
    "MUT3": {"weight_ih": "rzn", "weight_hh": "rzn"},
}
MAKE = {
    **{kind: lambda kind=kind: getattr(gnn, kind)(3, 4, num_layers=2, bidirectional=True) for kind in BLOCKS},
    **{f"{kind}Cell": lambda kind=kind: getattr(gnn, f"{kind}Cell")(3, 4) for kind in BLOCKS},
}


def suffixes(module: nn.Module) -> list[str]:
    return [f"_l{k}{d}" for k in range(2) for d in ("", "_reverse")] if hasattr(module, "num_layers") else [""]


def kept(module: nn.Module) -> Tensor:
    """Which share of h every layer and direction keeps in one step, by its biases: its candidate is made 0."""
    with torch.no_grad():
        for name, param in module.named_parameters():
            if name.startswith("weight"):
                param.zero_()
            else:
                param[8:] = 0.0
        if hasattr(module, "num_layers"):
            return module(torch.zeros(1, 1, 3), torch.ones(4, 1, 4))[1].squeeze(1)
        return module(torch.zeros(1, 3), torch.ones(1, 4))


@pytest.mark.parametrize("kind", MAKE)
def test_every_gates_block_is_orthogonal_and_described(kind: str) -> None:
    module, blocks = MAKE[kind](), BLOCKS[kind.removesuffix("Cell")]
    changes = init.orthogonal_(module, weights="both")
    expected = []
    for suffix in suffixes(module):
        for short in ("weight_ih", "weight_in", "weight_hh"):
            for i, gate in enumerate(blocks.get(short, "")):
                expected.append(short + suffix + (f"[{gate}]" if gate != " " else ""))
                block = getattr(module, short + suffix)[4 * i : 4 * i + 4].detach().double().numpy()
                sizes = np.linalg.svd(block, compute_uv=False)
                np.testing.assert_allclose(sizes, np.ones(min(block.shape)), rtol=1e-5)
    assert [change.name for change in changes] == expected
    assert [row.name for row in init.describe(module)] == expected


@pytest.mark.parametrize("kind", MAKE)
def test_chrono_lets_units_keep_for_times_up_to_t_max(kind: str) -> None:
    module = MAKE[kind]()
    before = values(module)
    changes = init.chrono_(module, 50, generator=torch.Generator().manual_seed(1))
    assert [change.name for change in changes] == [f"bias{suffix}[z]" for suffix in suffixes(module)]
    for name, value in module.state_dict().items():
        rest = [slice(0, 4), slice(8, None)] if name.startswith("bias") else [slice(None)]
        assert all(value[rows].equal(before[name][rows]) for rows in rest)
    times = 1 / (1 - kept(module))
    assert bool((times >= 2 - 1e-4).all())
    assert bool((times <= 50 + 1e-2).all())
    assert times.unique().numel() == times.numel()


@pytest.mark.parametrize("kind", MAKE)
def test_uniform_gates_open_between_one_unit_and_all_but_one(kind: str) -> None:
    module = MAKE[kind]()
    init.uniform_gate_(module, generator=torch.Generator().manual_seed(1))
    share = kept(module)
    assert bool((share >= 0.25 - 1e-6).all())
    assert bool((share <= 0.75 + 1e-6).all())
    assert share.unique().numel() == share.numel()


@pytest.mark.parametrize("kind", MAKE)
def test_there_is_no_forget_gate(kind: str) -> None:
    module = MAKE[kind]()
    before = values(module)
    with pytest.raises(ValueError, match=f"forget_gate_ needs a forget gate: .* Found only: {kind}"):
        init.forget_gate_(module)
    with pytest.raises(ValueError, match=r"chrono_ needs biases, but the \w+ was made with bias=False"):
        init.chrono_(type(module)(3, 4, bias=False), 9)
    assert is_as_before(module, before)


@pytest.mark.parametrize("kind", BLOCKS)
def test_the_size_of_what_enters_the_gates(kind: str) -> None:
    module, x = getattr(gnn, kind)(3, 4), torch.randn(50, 8, 3)
    found = init.lsuv_(module, x)
    assert [change.after for change in found if change.statistic == "output std"] == pytest.approx(
        [1.0] * sum(len(gates) for short, gates in BLOCKS[kind].items() if short != "weight_hh"), abs=0.06
    )
    init.spectral_radius_(module, 0.7)
    for i in range(len(BLOCKS[kind]["weight_hh"])):
        block = module.weight_hh_l0[4 * i : 4 * i + 4].detach().numpy()
        assert np.abs(np.linalg.eigvals(block)).max() == pytest.approx(0.7, rel=1e-5)
