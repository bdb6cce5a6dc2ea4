"""Real networks that train: not one finding above info. And planted faults: the right finding, by name."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor, nn

from gradguard import Finding, Guard, Severity, Symptom
from gradguard.demo import Digits, load

STEPS = 250


@pytest.fixture(scope="module")
def digits() -> Digits:
    return load()


def mlp(depth: int, activation: type[nn.Module], *, norm: bool = False, kaiming: bool = False) -> nn.Sequential:
    layers: list[nn.Module] = []
    for i in range(depth):
        linear = nn.Linear(64, 64 if i < depth - 1 else 10)
        if kaiming:
            nn.init.kaiming_normal_(linear.weight, nonlinearity="relu")
            nn.init.zeros_(linear.bias)
        layers += [linear, *([nn.LayerNorm(64)] if norm and i < depth - 1 else []), activation()]
    return nn.Sequential(*layers[:-1])


class Residual(nn.Module):
    def __init__(self, blocks: int = 12) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.LayerNorm(64), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 64)) for _ in range(blocks)
        )
        for block in self.blocks:
            nn.init.zeros_(block[-1].weight)
        self.head = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = x + block(x)
        return self.head(x)


def convolutional() -> nn.Sequential:
    layers: list[nn.Module] = [nn.Unflatten(1, (1, 8, 8))]
    for i in range(6):
        layers += [nn.Conv2d(1 if i == 0 else 16, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU()]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(16 * 64, 10))


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(8, 32, num_layers=2, batch_first=True)
        self.head = nn.Linear(32, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.lstm(x.view(-1, 8, 8))[0][:, -1])


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(8, 32)
        layer = nn.TransformerEncoderLayer(32, 4, 64, dropout=0.1, batch_first=True, norm_first=True)
        self.encoder = nn.TransformerEncoder(layer, 4, enable_nested_tensor=False)
        self.head = nn.Linear(32, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.encoder(self.embed(x.view(-1, 8, 8))).mean(1))


class Embedded(nn.Module):
    """Digits as bags of words, one word for each pixel and level: most rows get no gradient at a step."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(64 * 17, 32)
        self.layers = mlp(3, nn.ReLU)
        self.layers[0] = nn.Linear(32, 64)

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(self.words((x * 16).long() + 17 * torch.arange(64)).mean(1))


def frozen_backbone() -> nn.Sequential:
    model = mlp(5, nn.ReLU, kaiming=True)
    model[:4].requires_grad_(False)
    return model


HEALTHY: dict[str, tuple[Callable[[], nn.Module], Callable[[Iterator[nn.Parameter]], torch.optim.Optimizer]]] = {
    "shallow relu, sgd": (lambda: mlp(3, nn.ReLU), lambda p: torch.optim.SGD(p, 0.1)),
    "deep relu, kaiming, sgd": (lambda: mlp(12, nn.ReLU, kaiming=True), lambda p: torch.optim.SGD(p, 0.01, 0.9)),
    "deep relu, layer norm, adam": (lambda: mlp(16, nn.ReLU, norm=True), lambda p: torch.optim.Adam(p, 1e-3)),
    "tanh, default init, adam": (lambda: mlp(8, nn.Tanh), lambda p: torch.optim.Adam(p, 1e-3)),
    "sigmoid, two layers, large steps": (lambda: mlp(2, nn.Sigmoid), lambda p: torch.optim.Adam(p, 1e-2)),
    "residual, zero-initialised": (Residual, lambda p: torch.optim.AdamW(p, 1e-3)),
    "convolutional, batch norm": (convolutional, lambda p: torch.optim.SGD(p, 0.05, 0.9)),
    "lstm": (Recurrent, lambda p: torch.optim.Adam(p, 3e-3)),
    "transformer": (Attention, lambda p: torch.optim.AdamW(p, 1e-3)),
    "embedding": (Embedded, lambda p: torch.optim.Adam(p, 1e-2)),
    "frozen backbone": (frozen_backbone, lambda p: torch.optim.Adam(p, 3e-3)),
}


def train(model: nn.Module, optimizer: torch.optim.Optimizer, digits: Digits, steps: int = STEPS, **options: object):
    """Train; give the findings and the last training accuracies."""
    schedule = options.get("schedule")
    scheduler = schedule(optimizer) if callable(schedule) else None
    generator, right = torch.Generator().manual_seed(0), []
    with Guard(model, optimizer, every_n_steps=50) as guard:
        for _ in range(steps):
            index = torch.randint(len(digits.train_x), (64,), generator=generator)
            optimizer.zero_grad()
            output = model(digits.train_x[index])
            nn.functional.cross_entropy(output, digits.train_y[index]).backward()
            optimizer.step()
            if scheduler:
                scheduler.step()
            right.append((output.argmax(1) == digits.train_y[index]).float().mean().item())
    return guard.diagnose(), sum(right[-20:]) / 20


def serious(findings: list[Finding]) -> list[Finding]:
    return [finding for finding in findings if finding.severity is not Severity.INFO]


@pytest.mark.parametrize("name", HEALTHY)
@pytest.mark.parametrize("seed", [0, 1])
def test_a_network_that_trains_has_no_finding(name: str, seed: int, digits: Digits) -> None:
    torch.manual_seed(seed)
    make_model, make_optimizer = HEALTHY[name]
    model = make_model()
    findings, accuracy = train(model, make_optimizer(model.parameters()), digits)
    assert serious(findings) == []
    assert accuracy > 0.5, "the run was meant to be healthy"


def test_a_schedule_from_zero_to_zero_is_healthy(digits: Digits) -> None:
    model = mlp(4, nn.ReLU)
    findings, accuracy = train(
        model,
        torch.optim.AdamW(model.parameters(), 3e-3),
        digits,
        schedule=lambda o: torch.optim.lr_scheduler.LambdaLR(o, lambda s: min(s / 50, max(0.0, (STEPS - s) / 200))),
    )
    assert serious(findings) == []
    assert accuracy > 0.9


def found(findings: list[Finding]) -> dict[Symptom, Finding]:
    return {finding.symptom: finding for finding in serious(findings)}


def test_deep_sigmoid_vanishes(digits: Digits) -> None:
    model = mlp(10, nn.Sigmoid)
    findings, accuracy = train(model, torch.optim.SGD(model.parameters(), 0.1), digits)
    assert accuracy < 0.2
    assert found(findings)[Symptom.VANISHING_DEPTH].where[0] == "0"


class TooSteep(nn.Module):
    """Its slope is three where a tanh's is one: every layer multiplies what comes back."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.sin(3 * x)


def test_a_gradient_that_grows_on_its_way_back_explodes(digits: Digits) -> None:
    model = mlp(12, TooSteep)
    for layer in model[::2]:
        nn.init.orthogonal_(layer.weight, 1.5)
    findings, _ = train(model, torch.optim.SGD(model.parameters(), 1e-6), digits)
    assert Symptom.EXPLODING_DEPTH in found(findings)


def test_a_branch_behind_detach_gets_no_gradient(digits: Digits) -> None:
    class Detached(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.features, self.head = nn.Linear(64, 32), nn.Linear(32, 10)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.features(x).relu().detach())

    model = Detached()
    findings, _ = train(model, torch.optim.Adam(model.parameters(), 1e-3), digits)
    assert found(findings)[Symptom.NO_GRADIENT].where == ("features.weight", "features.bias")


def test_a_learning_rate_a_thousand_times_too_large(digits: Digits) -> None:
    model = mlp(4, nn.ReLU, kaiming=True)
    findings, _ = train(model, torch.optim.SGD(model.parameters(), 10.0), digits, 40)
    assert found(findings)[Symptom.UPDATE_TOO_LARGE].severity is Severity.CRITICAL


def test_a_learning_rate_a_million_times_too_small(digits: Digits) -> None:
    model = mlp(4, nn.ReLU, kaiming=True)
    findings, _ = train(model, torch.optim.SGD(model.parameters(), 1e-9), digits)
    assert set(found(findings)) == {Symptom.UPDATE_TOO_SMALL}


def test_updates_that_bfloat16_rounds_away(digits: Digits) -> None:
    model = mlp(3, nn.ReLU, kaiming=True).to(torch.bfloat16)
    data = Digits(digits.train_x.bfloat16(), digits.train_y, digits.test_x, digits.test_y)
    findings, _ = train(model, torch.optim.SGD(model.parameters(), 1e-7), data)
    assert Symptom.UPDATE_TOO_SMALL in found(findings)


def test_a_nan_is_traced_to_the_layer_that_made_it(digits: Digits) -> None:
    class Root(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return (x * (x > 0)).sqrt()  # its slope at 0 is infinite, and 0 * inf is NaN

    model = nn.Sequential(nn.Linear(64, 32), Root(), nn.Linear(32, 10))
    findings, _ = train(model, torch.optim.SGD(model.parameters(), 0.1), digits, 30)
    finding = found(findings)[Symptom.NON_FINITE]
    assert finding.first_step == 1
    assert finding.where == ("0.weight", "0.bias")
