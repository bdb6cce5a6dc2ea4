"""A gradient check finds nothing wrong in what is right: torch's modules, ours, at kinks, over many seeds."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import max_pool1d
from torch.nn.utils import parametrizations
from torch.nn.utils.rnn import pack_sequence

from gradguard.functional import tensors_in
from gradguard.probe import check_gradients
from tests.contracts.recurrent import IN_TRAINING, MODULES, Kind
from tests.probe.faulty import batch, loss_of

x = torch.randn


def wavy(model: Any, batch: Any) -> Tensor:
    """A loss that no symmetry makes stationary."""
    out = model(*batch)
    if isinstance(out, Tensor) and not out.dim():
        return out
    places = [torch.arange(t.numel()).view(t.shape) * 0.37 for t in tensors_in(out)]
    return torch.stack([torch.sin(t + at).mean() for t, at in zip(tensors_in(out), places, strict=True)]).sum()


def ids(*shape: int) -> Tensor:
    return torch.randint(0, 4, shape)


TORCH: dict[str, tuple[Callable[[], nn.Module], Callable[[], tuple[Any, ...]]]] = {
    "Linear": (lambda: nn.Linear(4, 3), lambda: (x(5, 4),)),
    "Bilinear": (lambda: nn.Bilinear(4, 3, 2), lambda: (x(5, 4), x(5, 3))),
    "Conv1d": (lambda: nn.Conv1d(3, 4, 3, padding=1), lambda: (x(2, 3, 6),)),
    "Conv2d": (lambda: nn.Conv2d(4, 4, 3, groups=2), lambda: (x(2, 4, 4, 4),)),
    "Conv3d": (lambda: nn.Conv3d(2, 2, 2), lambda: (x(2, 2, 3, 3, 3),)),
    "ConvTranspose1d": (lambda: nn.ConvTranspose1d(2, 2, 2), lambda: (x(2, 2, 5),)),
    "ConvTranspose2d": (lambda: nn.ConvTranspose2d(2, 2, 2, stride=2), lambda: (x(2, 2, 3, 3),)),
    "BatchNorm1d": (lambda: nn.BatchNorm1d(4), lambda: (x(6, 4),)),
    "BatchNorm2d, eval": (lambda: nn.BatchNorm2d(4).eval(), lambda: (x(6, 4, 2, 2),)),
    "LayerNorm": (lambda: nn.LayerNorm(4), lambda: (x(6, 4),)),
    "GroupNorm": (lambda: nn.GroupNorm(2, 4), lambda: (x(6, 4, 3),)),
    "InstanceNorm1d": (lambda: nn.InstanceNorm1d(4, affine=True, track_running_stats=True), lambda: (x(6, 4, 3),)),
    "RMSNorm": (lambda: nn.RMSNorm(4), lambda: (x(6, 4),)),
    "ReLU in place": (lambda: nn.ReLU(inplace=True), lambda: (x(6, 5),)),
    "PReLU": (lambda: nn.PReLU(), lambda: (x(6, 5),)),
    "Softmax": (lambda: nn.Softmax(-1), lambda: (x(5, 4),)),
    "MaxPool1d": (lambda: nn.MaxPool1d(2), lambda: (x(2, 3, 8),)),
    "MaxPool2d": (lambda: nn.MaxPool2d(2), lambda: (x(2, 3, 8, 8),)),
    "AdaptiveMaxPool2d": (lambda: nn.AdaptiveMaxPool2d(2), lambda: (x(2, 3, 5, 5),)),
    "AvgPool2d": (lambda: nn.AvgPool2d(2), lambda: (x(2, 3, 4, 4),)),
    "Dropout": (lambda: nn.Dropout(0.5), lambda: (x(8, 3),)),
    "Embedding": (lambda: nn.Embedding(4, 3, padding_idx=0), lambda: (ids(4, 5),)),
    "Embedding, sparse": (lambda: nn.Embedding(4, 3, sparse=True), lambda: (ids(4, 5),)),
    "EmbeddingBag": (lambda: nn.EmbeddingBag(4, 3, padding_idx=0), lambda: (ids(4, 5),)),
    "LSTM": (lambda: nn.LSTM(3, 4, 2, dropout=0.3, bidirectional=True, proj_size=2), lambda: (x(5, 2, 3),)),
    "LSTM, packed": (lambda: nn.LSTM(3, 4), lambda: (pack_sequence([x(4, 3), x(2, 3)]),)),
    "GRU": (lambda: nn.GRU(3, 4), lambda: (x(5, 2, 3),)),
    "RNN": (lambda: nn.RNN(3, 4, nonlinearity="relu"), lambda: (x(5, 2, 3),)),
    "LSTMCell": (lambda: nn.LSTMCell(3, 4), lambda: (x(5, 3),)),
    "MultiheadAttention": (lambda: nn.MultiheadAttention(4, 2), lambda: (x(3, 2, 4), x(5, 2, 4), x(5, 2, 4))),
    "TransformerEncoderLayer": (lambda: nn.TransformerEncoderLayer(4, 2, 6), lambda: (x(3, 2, 4),)),
    "TransformerEncoderLayer, eval": (lambda: nn.TransformerEncoderLayer(4, 2, 6).eval(), lambda: (x(3, 2, 4),)),
    "CrossEntropyLoss": (lambda: nn.CrossEntropyLoss(), lambda: (x(6, 4), ids(6))),
    "HuberLoss": (lambda: nn.HuberLoss(), lambda: (x(6, 4), x(6, 4))),
    "L1Loss": (lambda: nn.L1Loss(), lambda: (x(6, 4), x(6, 4))),
    "BCELoss": (lambda: nn.BCELoss(), lambda: (torch.rand(6, 4), torch.rand(6, 4).round())),
    "weight_norm": (lambda: parametrizations.weight_norm(nn.Linear(4, 3)), lambda: (x(5, 4),)),
    "spectral_norm": (lambda: parametrizations.spectral_norm(nn.Linear(4, 3)), lambda: (x(5, 4),)),
    "orthogonal": (lambda: parametrizations.orthogonal(nn.Linear(4, 3)), lambda: (x(5, 4),)),
    "weight_norm, the older": (lambda: nn.utils.weight_norm(nn.Linear(4, 3)), lambda: (x(5, 4),)),
    "spectral_norm, the older": (lambda: nn.utils.spectral_norm(nn.Linear(4, 3)), lambda: (x(5, 4),)),
    **{
        name: (getattr(nn, name), lambda: (x(6, 5),))
        for name in ("LeakyReLU", "GELU", "SiLU", "ELU", "Hardswish", "Softplus", "Hardtanh", "RReLU", "Mish", "SELU")
    },
}
ZERO_GRADIENT = {"MultiheadAttention", "TransformerEncoderLayer", "TransformerEncoderLayer, eval"}  # of the key's bias
NOT_TWICE = {"EmbeddingBag", "TransformerEncoderLayer, eval", "weight_norm", "weight_norm, the older"}


@pytest.mark.filterwarnings("ignore:.*(weight_norm|spectral_norm). is deprecated:FutureWarning")
@pytest.mark.parametrize("name", TORCH)
def test_nothing_is_wrong_in_torchs_modules(name: str) -> None:
    make, given = TORCH[name]
    check = check_gradients(make(), wavy, given(), inputs=True, second_order=name not in NOT_TWICE)
    assert check.ok, check
    unseen = [block for block in check if block.verdict != "ok"]
    target = [block for block in unseen if name == "BCELoss" and block.name == "batch[1]"]  # lies in [0, 1]
    assert unseen == target or name in ZERO_GRADIENT, check
    assert all(block.resolution < 1e-3 for block in check if block.verdict == "ok")


@pytest.mark.parametrize("name", [*MODULES, *IN_TRAINING])
def test_nothing_is_wrong_in_ours(name: str) -> None:
    make: Kind = (MODULES | IN_TRAINING)[name]
    check = check_gradients(make(3, 4), wavy, (x(5, 2, 3),), inputs=True, directions=1)
    assert {block.verdict for block in check} == {"ok"}, check


class ZeroInit(nn.Module):
    """A layer that begins at 0, right before something that has a kink there."""

    def __init__(self, kink: str, bias: bool = True) -> None:
        super().__init__()
        self.first, self.zero, self.last, self.kink = nn.Linear(5, 8), nn.Linear(8, 8, bias), nn.Linear(8, 5), kink
        for param in self.zero.parameters():
            nn.init.zeros_(param)

    def forward(self, x: Tensor) -> Tensor:
        h = self.zero(torch.tanh(self.first(x)))
        return self.last(
            {
                "relu": lambda: h.relu(),
                "two relus": lambda: h.relu() - (-h).relu(),
                "abs": lambda: h.abs(),
                "max": lambda: max_pool1d(h[:, None], 2)[:, 0].repeat(1, 2),
                "hinge": lambda: (h - 0).clamp(min=0),
                "norm": lambda: h + h.norm(dim=1, keepdim=True),
            }[self.kink]()
        )


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("kink", ["relu", "two relus", "abs", "max", "hinge", "norm"])
def test_a_kink_is_no_error(kink: str, seed: int) -> None:
    check = check_gradients(ZeroInit(kink), loss_of, batch(), seed=seed)
    assert check.ok, check
    verdicts = {block.name: block.verdict for block in check}
    assert "kink" in (verdicts.pop("zero.weight"), verdicts.pop("zero.bias"))
    assert set(verdicts.values()) == {"ok"}
    assert "right beside it the gradient is right" in next(b.why for b in check if b.verdict == "kink")


def test_an_error_at_a_kink_is_an_error() -> None:
    """The kink hides it, and beside the kink it is still there."""

    def faulty(model: Any, batch: Any) -> Tensor:
        return loss_of(model, batch) + 0.01 * model.zero.weight.sum().detach()

    check = check_gradients(ZeroInit("relu"), faulty, batch())
    assert [block.name for block in check.wrong] == ["zero.weight"]


@pytest.mark.parametrize("seed", range(20))
def test_nothing_is_wrong_over_many_seeds(seed: int) -> None:
    torch.manual_seed(seed)
    kinks = [nn.ReLU, nn.LeakyReLU, nn.Hardtanh, nn.Hardswish][seed % 4]
    model = nn.Sequential(
        *(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), kinks(), nn.MaxPool2d(2), nn.Flatten()),
        *(nn.Linear(36, 32), kinks(), nn.Dropout(0.3), nn.Linear(32, 5)),
    )
    for param in model.parameters():
        param.data.mul_(10 ** (seed % 3 - 1))
    images = torch.relu(torch.randn(4 * 2 ** (seed % 4), 1, 8, 8))
    check = check_gradients(model, loss_of, (images, x(len(images), 5)), seed=seed)
    assert check.ok, check
    unseen = [block for block in check if block.verdict != "ok"]
    assert [block.name for block in unseen if block.verdict == "unchecked"] == ["0.bias"]  # batch norm takes it out
    assert len(unseen) < 3


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_parts_in_less_than_float64(dtype: torch.dtype) -> None:
    """Of float32 the rounding is measured, and larger steps are taken; in bfloat16 little is to be seen."""

    class Narrow(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.last = nn.Linear(5, 8), nn.Linear(8, 5)

        def forward(self, x: Tensor) -> Tensor:
            return self.last(torch.tanh(self.first(x)).to(dtype).double())

    check = check_gradients(Narrow(), loss_of, batch())
    assert check.ok, check
    if dtype == torch.float32:
        assert {block.verdict for block in check} == {"ok"}
        assert 1.2e-5 < max(block.resolution for block in check) < 1e-2


def test_a_gradient_that_is_lost_in_rounding_is_not_called_wrong() -> None:
    model = nn.Sequential(*[layer for _ in range(9) for layer in (nn.Linear(5, 5), nn.Sigmoid())], nn.Linear(5, 5))
    for param in model.parameters():
        param.data.mul_(0.05)
    check = check_gradients(model, loss_of, batch())
    assert check.ok, check
    assert check[0].verdict == "unchecked"
    assert "is lost in rounding" in check[0].why
    assert check[0].resolution > 0.1
    assert check[-1].verdict == "ok"
