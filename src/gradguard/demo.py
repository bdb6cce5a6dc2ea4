"""The main job on real data: a network that does not train, what is wrong with it, and the same network cured."""

from __future__ import annotations

import sys
from collections import OrderedDict
from collections.abc import Iterator
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor, nn

from gradguard.detect import Finding, Severity
from gradguard.guard import Guard

SIZES = (64, *[64] * 11, 10)  # twelve layers
BATCH = 64


class Digits(NamedTuple):
    """scikit-learn's 1797 handwritten digits, 8 x 8 pixels, in [0, 1]."""

    train_x: Tensor
    train_y: Tensor
    test_x: Tensor
    test_y: Tensor


class Outcome(NamedTuple):
    """What one training gave."""

    accuracy: float
    findings: list[Finding]


def load() -> Digits:
    """Give the data, every fifth digit for testing."""
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise SystemExit("gradguard demo needs scikit-learn: pip install 'gradguard[demo]'") from error
    pixels, labels = load_digits(return_X_y=True)
    x, y = torch.tensor(pixels, dtype=torch.float32) / 16, torch.tensor(labels)
    test = torch.arange(len(x)) % 5 == 0
    return Digits(x[~test], y[~test], x[test], y[test])


def sick_network() -> nn.Sequential:
    """Twelve Linear layers with a sigmoid after each but the last."""
    layers: dict[str, nn.Module] = {}
    for i, (before, after) in enumerate(pairwise(SIZES), start=1):
        layers |= {f"layer{i}": nn.Linear(before, after), f"activation{i}": nn.Sigmoid()}
    layers.popitem()
    return nn.Sequential(OrderedDict(layers))


def cured_network() -> nn.Sequential:
    """The same network after the first two pieces of advice: ReLU for sigmoid, and Kaiming's initialisation."""
    network = sick_network()
    for name, layer in list(network.named_children()):
        if isinstance(layer, nn.Linear):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            nn.init.zeros_(layer.bias)
        else:
            network.set_submodule(name, nn.ReLU())
    return network


def batches(data: Digits, epochs: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Shuffle and cut the training digits, once per epoch."""
    for _ in range(epochs):
        for index in torch.randperm(len(data.train_x)).split(BATCH):
            yield data.train_x[index], data.train_y[index]


def train(network: nn.Sequential, data: Digits, epochs: int, title: str) -> Outcome:
    """Train with plain SGD; the guard is one line, the loop knows nothing of it but the loss."""
    from tqdm import tqdm

    optimizer = torch.optim.SGD(network.parameters(), lr=0.01, momentum=0.9)
    steps = epochs * -(-len(data.train_x) // BATCH)
    with Guard(network, optimizer) as guard:
        for x, y in tqdm(batches(data, epochs), title, total=steps, unit="step", file=sys.stdout, ncols=88):
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(network(x), y)
            loss.backward()
            guard.record_loss(loss)
            optimizer.step()
    with torch.no_grad():
        accuracy = (network(data.test_x).argmax(1) == data.test_y).float().mean().item()
    return Outcome(accuracy, guard.diagnose())


def demo(*, epochs: int = 20, seed: int = 0) -> int:
    """Run it, print what was found; 0 where the sick network was found out and the cured one is healthy."""
    data = load()
    outcomes = {}
    for title, make in (("sick", sick_network), ("cured", cured_network)):
        torch.manual_seed(seed)
        outcomes[title] = outcome = train(make(), data, epochs, title.ljust(5))
        print(f"\ntest accuracy {outcome.accuracy:.1%}. What the guard found:\n")
        print("\n".join(map(str, outcome.findings)) or "nothing: the gradients are healthy.", end="\n\n")
        if title == "sick":
            print("Cure, the first two pieces of advice: ReLU for sigmoid, and Kaiming's initialisation.\n")
    sick, cured = outcomes["sick"], outcomes["cured"]
    found = any(f.severity is Severity.CRITICAL for f in sick.findings)
    healthy = all(f.severity is Severity.INFO for f in cured.findings)
    print(f"Twelve layers on {len(data.train_x)} handwritten digits, tested on {len(data.test_x)} others:")
    print(
        f"  with sigmoid {sick.accuracy:6.1%}   {', '.join(f.symptom.value for f in sick.findings) or 'nothing found'}"
    )
    print(f"  with ReLU    {cured.accuracy:6.1%}   {', '.join(f.symptom.value for f in cured.findings) or 'healthy'}")
    return 0 if found and healthy and cured.accuracy > sick.accuracy else 1
