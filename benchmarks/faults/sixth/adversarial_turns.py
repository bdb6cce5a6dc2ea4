"""Policies of the sixth generation: one of near ratios, and one of what others did.

Shape legend: N = examples, F = features, A = actions.
"""

from __future__ import annotations

import copy
from functools import cache

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Adam

from benchmarks.faults import data
from benchmarks.faults.loops import score_of
from benchmarks.faults.program import Loop, Record
from benchmarks.faults.second.adversarial_games import perceptron


def _orthogonal(net: nn.Sequential, last: float) -> None:
    layers = [layer for layer in net if isinstance(layer, nn.Linear)]
    for layer in layers:
        nn.init.orthogonal_(layer.weight, gain=last if layer is layers[-1] else 2**0.5)
        nn.init.zeros_(layer.bias)


def nearby(lr: float, *, gain: float = 0.01, stale: bool = False, batch: int = 128, epochs: int = 4) -> Loop:
    """Learn which shelf a thing belongs on, from whether a try was right, by clipped ratios: Schulman et al., 2017.

    Args:
        lr: of actor and critic.
        gain: of the actor's last layer.
        stale: whether the copy that acts is asked for the new chances too.
        batch: tries that are learnt from.
        epochs: steps of learning from the same tries.
    """
    split = data.clusters(10, 12, 0.8)
    actor, critic = perceptron(12, 48, 48, 10, between=nn.Tanh), perceptron(12, 48, 48, 1, between=nn.Tanh)
    _orthogonal(actor, gain)
    _orthogonal(critic, 1.0)
    acting = copy.deepcopy(actor)
    optimizers = {
        "actor": Adam(actor.parameters(), lr=lr, eps=1e-5),
        "critic": Adam(critic.parameters(), lr=lr, eps=1e-5),
    }
    tries: list[Tensor] = []

    def step(number: int, record: Record) -> None:
        if number % epochs == 1:
            acting.load_state_dict(actor.state_dict())
            at = torch.randint(len(split.x), (batch,))
            with torch.no_grad():
                logs = acting(split.x[at]).log_softmax(1)
                chosen = torch.multinomial(logs.exp(), 1)
            tries[:] = [split.x[at], chosen, logs.gather(1, chosen)[:, 0], (chosen[:, 0] == split.y[at]).float()]
        x, chosen, before, reward = tries
        value = critic(x)[:, 0]
        better = reward - value.detach()
        better = (better - better.mean()) / (better.std() + 1e-8)
        logs = (acting if stale else actor)(x).log_softmax(1)
        ratio = (logs.gather(1, chosen)[:, 0] - before).exp()
        gain_of = torch.minimum(ratio * better, ratio.clamp(0.8, 1.2) * better).mean()
        losses = {
            "actor": -gain_of + 0.01 * (logs.exp() * logs).sum(1).mean(),
            "critic": F.mse_loss(value, reward),
        }
        for name, optimizer in optimizers.items():
            optimizer.zero_grad()
            record(losses[name], name)
            losses[name].backward()
            optimizer.step()
        acting.zero_grad()

    def score(x: Tensor, y: Tensor) -> float:
        return score_of(lambda: actor(x), [actor], y)

    return Loop(
        {"actor": actor, "critic": critic},
        optimizers,
        step,
        lambda: score(split.x_test, split.y_test),
        lambda: score(split.x[:512], split.y[:512]),
    )


@cache
def _sales(many: int = 3000) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Customers, offers that they got by chance, what each then spent in euros, and the best offer: [N, F], [N] x 3."""
    g = torch.Generator().manual_seed(224)
    x = torch.randn(many, 8, generator=g)
    worth = 2.0 * (x @ torch.randn(8, 5, generator=g) / 8**0.5).tanh() + 3.0
    offer = torch.randint(5, (many,), generator=g)
    spent = worth[torch.arange(many), offer] + 0.5 * torch.randn(many, generator=g)
    return x, offer, spent, worth.argmax(1)


def offers(lr: float, *, unit: float = 1.0, temperature: float = 0.5, batch: int = 96) -> Loop:
    """Learn the best offer from those that others made, weighted by what came of them: Peng et al., 2019.

    Args:
        lr: of actor and critic.
        unit: what a euro is counted as.
        temperature: by which advantages are divided before they are exponents.
        batch: customers of a batch.
    """
    x, offer, spent, best = _sales()
    actor, critic = perceptron(8, 64, 64, 5), perceptron(8, 64, 64, 1)
    optimizers = {"actor": Adam(actor.parameters(), lr=lr), "critic": Adam(critic.parameters(), lr=lr)}

    def step(number: int, record: Record) -> None:
        at = torch.randint(2400, (batch,))
        reward = unit * spent[at]
        value = critic(x[at])[:, 0]
        weight = ((reward - value.detach()) / temperature).exp()
        losses = {
            "critic": F.mse_loss(value, reward),
            "actor": (weight * F.cross_entropy(actor(x[at]), offer[at], reduction="none")).mean() / 5,
        }
        for name, loss in losses.items():
            optimizers[name].zero_grad()
            record(loss, name)
            loss.backward()
            optimizers[name].step()

    def score(part: slice) -> float:
        return score_of(lambda: actor(x[part]), [actor], best[part])

    return Loop(
        {"actor": actor, "critic": critic},
        optimizers,
        step,
        lambda: score(slice(2400, None)),
        lambda: score(slice(600)),
    )
