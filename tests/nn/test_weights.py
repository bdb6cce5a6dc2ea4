"""New weights, forget biases, weights of torch's modules, and results that equal torch's."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, parametrize
from torch.nn.utils.rnn import pack_sequence

from gradguard import GradGuardWarning
from gradguard import nn as gnn
from tests.contracts.recurrent import MODULES, TORCH, as_hx, projected, states_of
from tests.nn.kinds import CELLS, LAYERS

LIKE_TORCH = ("LSTM", "LayerNormLSTM", "NormalizedCellLSTM")  # torch's weights are theirs, and theirs are four gates
OPTIONS: list[dict[str, Any]] = [
    {},
    {"num_layers": 3, "dropout": 0.3},
    {"bidirectional": True, "batch_first": True},
    {"bias": False},
    {"proj_size": 5, "num_layers": 2, "bidirectional": True},
]
PAIRS = [("LSTM", options) for options in OPTIONS]
PAIRS += [(kind, options) for kind in ("GRU", "RNN") for options in OPTIONS if "proj_size" not in options]
PAIRS += [("RNN", {"nonlinearity": "relu", "num_layers": 2})]


@pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN:UserWarning")
@pytest.mark.parametrize(("kind", "options"), PAIRS)
def test_float32_results_equal_those_of_torch(kind: str, options: dict[str, Any]) -> None:
    theirs = TORCH.get(kind, nn.LSTM)(4, 16, **options).eval()
    ours = MODULES[kind].from_torch(theirs)
    x = torch.randn(7, 7, 4)
    packed = pack_sequence([torch.randn(n, 4) for n in (3, 7, 1)], enforce_sorted=False)
    for given in (x, packed, x[0]):
        (a, a_last), (b, b_last) = theirs(given), ours(given)
        a, b = (a.data, b.data) if given is packed else (a, b)
        for found, right in zip((b, *states_of(b_last)), (a, *states_of(a_last)), strict=True):
            torch.testing.assert_close(found, right, rtol=0, atol=1e-6)
        grads = [torch.autograd.grad(t.square().mean(), list(m.parameters())) for t, m in ((a, theirs), (b, ours))]
        for found, right in zip(grads[1], grads[0], strict=True):
            torch.testing.assert_close(found, right, rtol=0, atol=1e-6)


def test_dropout_draws_what_torch_draws() -> None:
    theirs = nn.LSTM(4, 16, num_layers=3, dropout=0.4)
    ours, x = gnn.LSTM.from_torch(theirs), torch.randn(7, 2, 4)
    torch.manual_seed(3)
    expected = theirs(x)[0]
    torch.manual_seed(3)
    torch.testing.assert_close(ours(x)[0], expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("kind", LIKE_TORCH)
def test_the_same_seed_gives_torchs_weights_but_for_the_forget_gate(kind: str) -> None:
    options: dict[str, Any] = {"num_layers": 2, "bidirectional": True, "proj_size": 3}
    torch.manual_seed(5)
    theirs = nn.LSTM(4, 6, **options)
    torch.manual_seed(5)
    same = gnn.LSTM(4, 6, **options, forget_bias=None)
    assert all(a.equal(b) for a, b in zip(same.state_dict().values(), theirs.state_dict().values(), strict=True))
    module = MODULES[kind](4, 6, **options, forget_bias=0.75)
    assert set(theirs.state_dict()) <= set(module.state_dict())
    for name, param in module.named_parameters():
        if name.startswith("bias_ih"):
            hidden = module.get_parameter(name.replace("_ih", "_hh"))
            assert (param + hidden)[6:12].tolist() == pytest.approx([0.75] * 6, abs=0)
            assert (param + hidden)[:6].abs().min() > 0
        elif name.startswith("gain"):
            assert bool((param == 1).all())
        elif name.startswith("bias_c"):
            assert bool((param == 0).all())
        else:
            assert param.abs().max() <= 6**-0.5


def test_a_forget_bias_stands_after_the_norm() -> None:
    """With weights of zero the gates are the biases: what is left of c after one step is its sigmoid."""
    module = gnn.LayerNormLSTM(2, 3, forget_bias=1.5)
    with torch.no_grad():
        module.weight_ih_l0.zero_()
        module.weight_hh_l0.zero_()
        module.bias_ih_l0[6:9] = 0  # g: nothing comes in
        module.bias_hh_l0[6:9] = 0
    c = torch.tensor([[[1.0, 2.0, 3.0]]])
    _, (_, after) = module(torch.randn(1, 1, 2), (torch.zeros_like(c), c))
    torch.testing.assert_close(after, c * torch.sigmoid(torch.tensor(1.5)), rtol=1e-6, atol=0)


@pytest.mark.parametrize("kind", [kind for kind in MODULES if hasattr(MODULES[kind], "from_torch")])
def test_from_torch_takes_everything_over(kind: str) -> None:
    project = projected(MODULES[kind])
    options: dict[str, Any] = {"bidirectional": True, "batch_first": True, "dropout": 0.1, "dtype": torch.float64}
    options |= {"nonlinearity": "relu"} if kind == "RNN" else {}
    theirs = TORCH.get(kind, nn.LSTM)(4, 6, 2, **options, **project)
    theirs.weight_hh_l1.requires_grad_(False)
    theirs.eval()
    state = torch.random.get_rng_state()
    ours = MODULES[kind].from_torch(theirs)
    assert torch.random.get_rng_state().equal(state)
    assert not ours.training
    assert not ours.weight_hh_l1.requires_grad
    assert (ours.dropout, ours.batch_first, ours.proj_size) == (0.1, True, project.get("proj_size", 0))
    assert kind != "RNN" or ours.nonlinearity == "relu"
    for name, param in theirs.named_parameters():
        assert ours.get_parameter(name).equal(param)
        assert ours.get_parameter(name) is not param
    gains = [param for name, param in ours.named_parameters() if name.startswith("gain")]
    assert all(bool((gain == 1).all()) and gain.dtype == torch.float64 for gain in gains)


def test_from_torch_reads_parametrized_weights_and_options_of_ours() -> None:
    theirs = parametrizations.weight_norm(nn.LSTM(4, 6), "weight_hh_l0")
    ours = gnn.LayerNormLSTM.from_torch(theirs, eps=1e-3)
    assert ours.weight_hh_l0.equal(theirs.weight_hh_l0)
    assert ours.recurrence.eps == 1e-3
    assert repr(ours) == "LayerNormLSTM(4, 6, forget_bias=None, eps=0.001)"


@pytest.mark.parametrize("settings", [{"forget_bias": 3.0}, {"num_layers": 1}, {"proj_size": 0}, {"device": "meta"}])
def test_from_torch_decides_what_torch_has_decided(settings: dict[str, Any]) -> None:
    name = next(iter(settings))
    with pytest.raises(TypeError, match=f"LayerNormLSTM.from_torch takes {name} from the torch.nn.LSTM: set it there"):
        gnn.LayerNormLSTM.from_torch(nn.LSTM(2, 3), **settings)


def test_from_torch_names_what_nobody_has() -> None:
    with pytest.raises(TypeError, match="GRU has no argument zone_out"):
        gnn.GRU.from_torch(nn.GRU(2, 3), zone_out=0.1)
    with pytest.raises(TypeError, match="GRU has no argument proj_size"):
        gnn.GRU.from_torch(nn.GRU(2, 3), proj_size=2)


def test_from_torch_of_something_else() -> None:
    with pytest.raises(TypeError, match=r"LSTM.from_torch needs a torch.nn.LSTM, got GRU"):
        gnn.LSTM.from_torch(nn.GRU(2, 3))
    with pytest.raises(TypeError, match=r"LSTMCell.from_torch needs a torch.nn.LSTMCell, got LSTM"):
        gnn.LSTMCell.from_torch(nn.LSTM(2, 3))


@pytest.mark.parametrize("kind", CELLS)
def test_a_loop_of_cells_is_a_layer(kind: str) -> None:
    cell, layer = CELLS[kind](3, 4, dtype=torch.float64), LAYERS[kind](3, 4, dtype=torch.float64)
    layer.load_state_dict({f"{name}_l0": value for name, value in cell.state_dict().items()})
    x = torch.randn(5, 2, 3, dtype=torch.float64)
    output, last = layer(x)
    state = None
    for t, x_t in enumerate(x):
        state = cell(x_t, state)
        torch.testing.assert_close(states_of(state)[0], output[t], rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(states_of(state)[-1], states_of(last)[-1][0], rtol=1e-10, atol=1e-12)
    alone = cell(x[0, 1])
    torch.testing.assert_close(states_of(alone)[0], output[0, 1], rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("LSTMCell", {}),
        ("GRUCell", {}),
        ("RNNCell", {}),
        ("RNNCell", {"nonlinearity": "relu"}),
        ("GRUCell", {"bias": False}),
    ],
)
def test_cells_equal_torchs(name: str, options: dict[str, Any]) -> None:
    theirs = getattr(nn, name)(3, 8, **options)
    ours = getattr(gnn, name).from_torch(theirs)
    x, state = torch.randn(2, 3), as_hx(torch.randn(2, 8) for _ in range(2 if name == "LSTMCell" else 1))
    for found, right in zip(states_of(ours(x, state)), states_of(theirs(x, state)), strict=True):
        torch.testing.assert_close(found, right, rtol=0, atol=1e-6)


def test_a_cell_without_biases() -> None:
    bare = gnn.LSTMCell(3, 8, bias=False)
    assert list(bare.state_dict()) == list(nn.LSTMCell(3, 8, bias=False).state_dict())
    assert repr(bare) == "LSTMCell(3, 8, bias=False)"
    assert bare.bfloat16()(torch.randn(2, 3).bfloat16())[1].dtype == torch.bfloat16


@pytest.mark.parametrize("kind", [kind for kind in CELLS if projected(LAYERS[kind])])  # those that have a c
def test_cells_keep_c_wide_within_half_types(kind: str) -> None:
    cell = CELLS[kind](3, 4, dtype=torch.bfloat16)
    x, h, c = torch.randn(2, 3).bfloat16(), torch.zeros(2, 4).bfloat16(), torch.randn(2, 4)
    h_new, c_new = cell(x, (h, c))  # c may be wider, and then comes out so
    assert (h_new.dtype, c_new.dtype) == (torch.bfloat16, torch.float32)
    wide = CELLS[kind](3, 4)
    wide.load_state_dict(cell.float().state_dict())
    torch.testing.assert_close(c_new, wide(x.float(), (h.float(), c))[1], rtol=3e-2, atol=3e-2)
    with torch.autocast("cpu", torch.bfloat16):
        assert wide(x.float())[1].dtype == torch.float32


def test_a_replica_of_data_parallel_is_called() -> None:
    for module, x in ((gnn.LSTM(3, 4), torch.randn(5, 2, 3)), (gnn.LSTMCell(3, 4), torch.randn(2, 3))):
        replica = module._replicate_for_data_parallel()
        for name, param in module.named_parameters():
            setattr(replica, name, param * 1)
        replica._parameters = {}
        torch.testing.assert_close(replica(x)[0], module(x)[0])


def test_repr_is_torchs() -> None:
    options = {
        "num_layers": 2,
        "bias": False,
        "batch_first": True,
        "dropout": 0.5,
        "bidirectional": True,
        "proj_size": 2,
    }
    assert repr(gnn.LSTM(3, 4, **options)) == repr(nn.LSTM(3, 4, **options))


@pytest.mark.parametrize("kind", MODULES)
def test_states_at_every_step(kind: str) -> None:
    project = projected(MODULES[kind])
    module = MODULES[kind](3, 4, num_layers=2, bidirectional=True, batch_first=True, **project)
    x = torch.randn(2, 5, 3)
    output, last, states = module(x, return_states=True)
    last, every = states_of(last), [states.h, states.c][: len(states_of(last))]
    assert [s.shape for s in states.h] == [(2, 5, project.get("proj_size", 4))] * 4
    assert [s.shape for s in states.c] == ([(2, 5, 4)] * 4 if len(last) > 1 else [])
    torch.testing.assert_close(torch.cat(states.h[2:], dim=2), output)
    for k in range(4):
        for sequences, final in zip(every, last, strict=True):
            torch.testing.assert_close(sequences[k][:, 0 if k % 2 else -1], final[k])
    first, _ = module(x[:, :1])
    again, once, early = module(x[:, :1], return_states=True)
    assert again.equal(first)
    torch.testing.assert_close((early.c or early.h)[0][:, 0], states_of(once)[-1][0])
    (grad,) = torch.autograd.grad(every[-1][0][:, 2].sum(), module.weight_hh_l0)
    assert grad.norm() > 0
    packed = pack_sequence([torch.randn(n, 3) for n in (2, 4)], enforce_sorted=False)
    packed_states = module(packed, return_states=True)[2]
    assert packed_states.h[3].data.shape[0] == 6
    assert packed_states.h[3].sorted_indices.equal(packed.sorted_indices)
    assert module(torch.randn(5, 3), return_states=True)[2].h[0].shape == (5, project.get("proj_size", 4))
    with torch.autocast("cpu", torch.bfloat16):
        states = module(x, return_states=True)[2]
    assert states.h[0].dtype == torch.bfloat16
    assert {c.dtype for c in states.c} <= {torch.float32}
    half = module.bfloat16()
    output, last, states = half(x.bfloat16(), return_states=True)
    assert {t.dtype for t in (*states_of(last), *states.c)} == {torch.bfloat16}
    wider = [s if i == 0 else s.float() for i, s in enumerate(states_of(last))]
    assert half(x.bfloat16(), as_hx(wider))[0].dtype == torch.bfloat16


def test_dropout_without_a_second_layer_warns() -> None:
    with pytest.warns(GradGuardWarning, match="drops nothing: it acts between layers, and num_layers is 1"):
        gnn.LSTM(2, 3, dropout=0.5)


class Counting(nn.Module):
    """A parametrization that changes at each use, as spectral norm's does in training."""

    uses = 0

    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        type(self).uses += 1
        return weight


def test_each_weight_is_read_once_a_forward_pass() -> None:
    module = gnn.LayerNormLSTM(3, 4, num_layers=2)
    parametrize.register_parametrization(module, "weight_hh_l1", Counting())
    Counting.uses = 0
    module(torch.randn(5, 2, 3))
    assert Counting.uses == 1
