"""LSUV: every output's variance on the batch, recurrent layers too, against runs by hand."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence

from gradguard import GradGuardWarning, init
from gradguard import nn as gnn
from tests.init.modules import Tagger, of_weights
from tests.init.oracle import gate_rows, suffixes

pytestmark = pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN")


@pytest.fixture(autouse=True)
def _only_values() -> Iterator[None]:
    with torch.no_grad():
        yield


@pytest.mark.parametrize("activation", [nn.Tanh, nn.ReLU])
def test_a_deep_nets_outputs_have_unit_variance(activation: type[nn.Module]) -> None:
    net = nn.Sequential(*(m for _ in range(20) for m in (nn.Linear(64, 64), activation())))
    x = 5 * torch.randn(200, 64)
    changes = init.lsuv_(net, x, tolerance=0.05, std=2.0)
    y = x
    for module in net:
        y = module(y)
        if isinstance(module, nn.Linear):
            assert abs(y.var() / 4 - 1) < 0.06
            assert not module.bias.any()
            gram = (module.weight @ module.weight.T).detach()
            assert (gram / gram[0, 0] - torch.eye(64)).abs().max() < 1e-4  # scaled, still orthogonal
    assert len(changes) == 40
    weights = of_weights(changes)
    assert len(weights) == 20
    assert weights[-1].before < 0.2
    assert weights[-1].after == pytest.approx(2.0, rel=0.03)


def test_convolutions_and_shared_layers_over_all_of_their_calls() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.shared = nn.Conv2d(3, 8, 3), nn.Linear(8, 8)

        def forward(self, x: Tensor) -> Tensor:
            y = self.conv(x).mean((2, 3))
            return self.shared(torch.relu(self.shared(y)))

    net, x = Net(), torch.randn(32, 3, 8, 8)
    init.lsuv_(net, x, tolerance=1e-3, max_iterations=300)
    y = net.conv(x)
    first = net.shared(y.mean((2, 3)))
    second = net.shared(torch.relu(first))
    assert y.var(correction=0) == pytest.approx(1.0, abs=2e-3)
    assert torch.cat([first, second]).var(correction=0) == pytest.approx(1.0, abs=2e-3)


KINDS = {
    "nn.LSTM": lambda **options: nn.LSTM(6, 5, num_layers=3, bidirectional=True, **options),
    "nn.GRU": lambda **options: nn.GRU(6, 5, num_layers=3, bidirectional=True, **options),
    "nn.RNN": lambda **options: nn.RNN(6, 5, num_layers=3, bidirectional=True, **options),
    "projected": lambda **options: nn.LSTM(6, 8, num_layers=3, bidirectional=True, proj_size=5, **options),
    "gnn.LSTM": lambda **options: gnn.LSTM(6, 5, num_layers=3, bidirectional=True, **options),
    "gnn.LayerNormLSTM": lambda **options: gnn.LayerNormLSTM(6, 5, num_layers=3, bidirectional=True, **options),
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_gate_of_every_layer_gets_unit_variance_from_its_input(kind: str) -> None:
    model = Tagger(KINDS[kind](dropout=0.5))
    x = 3 * torch.randn(7, 9, 3)
    init.lsuv_(model, x, tolerance=1e-3)
    model.eval()
    embedded = torch.relu(model.embed(x))
    assert model.embed(x).std(correction=0) == pytest.approx(1.0, abs=1e-3)
    assert model(x).std(correction=0) == pytest.approx(1.0, abs=1e-3)
    y, options = embedded, {"proj_size": model.rnn.proj_size} if model.rnn.proj_size else {}
    for k in range(3):  # layer by layer, each a module of its own with these weights
        single = type(model.rnn)(y.shape[-1], model.rnn.hidden_size, bidirectional=True, **options)
        state = {n.replace("_l0", f"_l{k}"): n for n in single.state_dict()}
        single.load_state_dict({short: model.rnn.state_dict()[full] for full, short in state.items()})
        for layer, suffix in enumerate(suffixes(single)):
            weight = getattr(single, "weight_ih" + suffix)
            for gate, rows in gate_rows(single, layer).items():
                if gate != "o" or not model.rnn.proj_size:
                    assert (y @ weight[rows].T).std(correction=0) == pytest.approx(1.0, abs=1e-3)
            hidden = getattr(single, "weight_hh" + suffix)[
                gate_rows(single, layer)[next(iter(gate_rows(single, layer)))]
            ]
            gram = hidden @ hidden.T if hidden.shape[0] <= hidden.shape[1] else hidden.T @ hidden
            assert (gram - torch.eye(len(gram))).abs().max() < 1e-5
        y = single(y)[0]


def test_packed_input_states_keywords_and_cells_in_a_loop() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rnn, self.cell = gnn.LSTM(3, 4, num_layers=2), nn.GRUCell(4, 6)

        def forward(self, x: Tensor) -> Tensor:
            packed = pack_padded_sequence(x, torch.tensor([5, 3]))
            state = torch.ones(2, 2, 4)
            _, (h, _) = self.rnn(packed, hx=(state, state), return_states=False)
            hidden = torch.zeros(2, 6)
            for _ in range(3):
                hidden = self.cell(h[-1], hidden)
            return hidden

    net, x = Net(), 2 * torch.randn(5, 2, 3)
    changes = init.lsuv_(net, x, tolerance=1e-3)
    rows = pack_padded_sequence(x, torch.tensor([5, 3])).data
    for each in gate_rows(net.rnn, 0).values():
        assert (rows @ net.rnn.weight_ih_l0[each].T).std(correction=0) == pytest.approx(1.0, abs=1e-3)
    assert [change.name for change in changes][-3:] == ["cell.weight_ih[r]", "cell.weight_ih[z]", "cell.weight_ih[n]"]
    assert all(change.after == pytest.approx(1.0, abs=1e-3) for change in changes)


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, gnn.LSTM])
def test_states_of_several_layers_and_directions_are_each_their_own(kind: type[nn.Module]) -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rnn = kind(3, 4, num_layers=3, bidirectional=True)

        def forward(self, x: Tensor) -> Tensor:
            state = 5 * torch.linspace(-1, 1, 6)[:, None, None].expand(6, 2, 4).contiguous()
            return self.rnn(x, state if kind is nn.GRU else (state, state))[0]

    net, x = Net(), torch.randn(2, 2, 3)
    changes = init.lsuv_(net, x, tolerance=1e-3)
    assert all(change.after == pytest.approx(1.0, abs=1e-3) for change in changes)
    state = 5 * torch.linspace(-1, 1, 6)[:, None, None].expand(6, 2, 4).contiguous()
    below = kind(3, 4, num_layers=2, bidirectional=True)
    below.load_state_dict({name: net.rnn.state_dict()[name] for name in below.state_dict()})
    y = below(x, state[:4] if kind is nn.GRU else (state[:4], state[:4]))[0]
    for rows in gate_rows(net.rnn, 0).values():
        assert (y @ net.rnn.weight_ih_l2[rows].T).std(correction=0) == pytest.approx(1.0, abs=1e-3)


def test_within_the_tolerance_weights_stay_orthogonal_as_the_paper_has_it() -> None:
    layer, x = nn.Linear(64, 64), torch.randn(4000, 64)
    (change,) = of_weights(init.lsuv_(nn.Sequential(layer), x))
    assert abs(change.after**2 - 1) < 0.1
    assert (layer.weight @ layer.weight.T - torch.eye(64)).abs().max() < 1e-5


def test_parametrized_layers_too() -> None:
    net = nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(16, 16)), nn.Tanh(), nn.Linear(16, 4))
    lstm = nn.utils.parametrizations.weight_norm(nn.LSTM(16, 8, num_layers=2), "weight_hh_l0")
    x = torch.randn(50, 16)
    init.lsuv_(net, x, tolerance=1e-3)
    assert net[0](x).std(correction=0) == pytest.approx(1.0, abs=1e-3)
    init.lsuv_(lstm, x[:, None], tolerance=1e-3)
    assert (lstm(x[:, None])[0]).isfinite().all()


def test_outputs_are_measured_before_what_follows_works_in_place() -> None:
    net = nn.Sequential(nn.Conv2d(3, 16, 3), nn.ReLU(True), nn.Conv2d(16, 16, 3), nn.ReLU(True))
    x = torch.randn(16, 3, 16, 16)
    init.lsuv_(net, x, tolerance=1e-3)
    y = net[0](x)
    assert y.std(correction=0) == pytest.approx(1.0, abs=1e-3)
    assert net[2](torch.relu(y)).std(correction=0) == pytest.approx(1.0, abs=1e-3)


def test_without_a_generator_two_models_differ_and_torchs_own_goes_on() -> None:
    one, two, x = nn.Linear(8, 8), nn.Linear(8, 8), torch.randn(99, 8)
    init.lsuv_(one, x)
    init.lsuv_(two, x)
    assert not torch.equal(one.weight, two.weight)


def test_a_layer_that_is_still_off_is_named_in_a_warning() -> None:
    shared = nn.Linear(8, 8)
    net, x = nn.Sequential(nn.Linear(3, 8), shared, nn.ReLU(), shared), 3 * torch.randn(50, 3)
    with pytest.warns(GradGuardWarning, match=r"left the variance of 1.weight off by more than 0.001 after 1 scalings"):
        changes = init.lsuv_(net, x, tolerance=1e-3, max_iterations=1)
    assert next(change.after for change in changes if change.name == "0.weight") == pytest.approx(1.0, abs=1e-3)


@pytest.mark.filterwarnings("ignore:lsuv_ left the variance")
def test_a_router_that_sends_nothing_to_an_expert() -> None:
    class Experts(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.router, self.experts = nn.Linear(4, 6), nn.ModuleList(nn.Linear(4, 4) for _ in range(6))

        def forward(self, x: Tensor) -> Tensor:
            chosen, y = self.router(x).argmax(1), torch.zeros_like(x)
            for k, expert in enumerate(self.experts):
                if (chosen == k).any():
                    y[chosen == k] = expert(x[chosen == k])
            return y

    for seed in range(4):
        torch.manual_seed(seed)
        init.lsuv_(Experts(), torch.randn(12, 4))
