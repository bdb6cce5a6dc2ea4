"""Policies with a critic or a slow copy of themselves, and factors that are learnt in turns.

Shape legend: N = examples.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Adam

from benchmarks.faults.loops import score_of
from benchmarks.faults.program import Loop, Record
from benchmarks.faults.second.adversarial_games import perceptron

SHELVES, ORDERS, SEASONS = 12, 6, 4


def in_counts(at: Tensor) -> Tensor:
    """Give what the encoders say: 300 counts a metre, of which 2,048 are the middle."""
    return torch.stack([2048 + 300 * at[:, 0], 300 * at[:, 1]], 1).round()


def dock(
    lr: float,
    *,
    seen: Callable[[Tensor], Tensor] = lambda at: at,
    many: int = 64,
    horizon: int = 8,
    discount: float = 0.9,
) -> Loop:
    """Let actor and critic bring a ship to rest at its place by thrust to the left, to the right, or none.

    Args:
        lr: of both.
        seen: what the networks get of a ship's place and pace.
        many: ships at once.
        horizon: moves of a ship before the networks learn.
        discount: of later rewards.
    """
    actor, critic = perceptron(2, 48, 48, 3, between=nn.Tanh), perceptron(2, 48, 48, 1, between=nn.Tanh)
    nn.init.orthogonal_(actor[-1].get_parameter("weight"), gain=0.01)
    actor_steps, critic_steps = Adam(actor.parameters(), lr=lr), Adam(critic.parameters(), lr=lr)

    def moved(at: Tensor, thrust: Tensor) -> tuple[Tensor, Tensor]:
        pace = (at[:, 1] + 0.4 * (thrust - 1.0)).clamp(-2, 2)
        at = torch.stack([(at[:, 0] + 0.4 * pace).clamp(-3, 3), pace], 1)
        return at, -at[:, 0].square() / 2 - 0.1 * pace.square()

    def step(number: int, record: Record) -> None:
        at = torch.randn(many, 2)
        places, moves, rewards = [], [], []
        with torch.no_grad():
            for _ in range(horizon):
                move = torch.multinomial(actor(seen(at)).softmax(1), 1)[:, 0]
                places.append(at)
                moves.append(move)
                at, reward = moved(at, move)
                rewards.append(reward)
            gain = critic(seen(at))[:, 0]
            gains: list[Tensor] = []
            for reward in reversed(rewards):
                gain = (1 - discount) * reward + discount * gain
                gains.insert(0, gain)
        place, goal = seen(torch.cat(places)), torch.cat(gains)
        value = critic(place)[:, 0]
        loss = F.mse_loss(value, goal)
        critic_steps.zero_grad()
        record(loss, "critic")
        loss.backward()
        critic_steps.step()
        better = goal - value.detach()
        better = (better - better.mean()) / (better.std() + 1e-6)
        logs = actor(place).log_softmax(1)
        loss = -(logs.gather(1, torch.cat(moves)[:, None])[:, 0] * better).mean()
        loss = loss + 0.01 * (logs.exp() * logs).sum(1).mean()
        actor_steps.zero_grad()
        record(loss, "actor")
        loss.backward()
        actor_steps.step()

    @torch.no_grad()
    def score() -> float:
        start = torch.randn(400, 2, generator=torch.Generator().manual_seed(92))
        costs = []
        for steers in (True, False):
            at, cost = start, 0.0
            for _ in range(20):
                at, reward = moved(at, actor(seen(at)).argmax(1) if steers else torch.ones(len(at)))
                cost -= float(reward.mean())
            costs.append(cost)
        return max(0.0, 1 - costs[0] / costs[1])

    return Loop({"actor": actor, "critic": critic}, {"actor": actor_steps, "critic": critic_steps}, step, score, score)


def _sold(stock: Tensor, order: Tensor, season: Tensor, chance: Tensor) -> tuple[Tensor, Tensor]:
    """Give what is left, and the profit: goods are bought, asked for, sold, and stored for money."""
    mean = 2.5 + 2.0 * (2 * math.pi * season / SEASONS).sin()
    asked = (mean + 1.2 * chance).round().clamp(min=0)
    there = (stock + order).clamp(max=SHELVES)
    sold = torch.minimum(there, asked)
    return there - sold, sold - 0.4 * order - 0.2 * (there - sold)


def _situation(stock: Tensor, season: Tensor) -> Tensor:
    return torch.cat([stock[:, None] / 6 - 1, F.one_hot(season.long(), SEASONS)], 1).float()


def store(lr: float, *, many: int = 32, batch: int = 64, discount: float = 0.7) -> Loop:
    """Learn how much to order by the values of orders, and a copy of the network that follows each 20 steps: a DQN.

    Args:
        lr: learning rate.
        many: stores at once.
        batch: weeks that are remembered for a step.
        discount: of later profits.
    """
    network = perceptron(1 + SEASONS, 64, 64, ORDERS)
    target, optimizer = copy.deepcopy(network).requires_grad_(False), Adam(network.parameters(), lr=lr)
    memory, world = torch.zeros(4096, 6), [torch.zeros(many), torch.randint(SEASONS, (many,)).float()]

    def step(number: int, record: Record) -> None:
        stock, season = world
        with torch.no_grad():
            order = network(_situation(stock, season)).argmax(1)
            curious = torch.rand(many) < max(0.1, 1 - number / 150)
            order = torch.where(curious, torch.randint(ORDERS, (many,)), order)
        left, profit = _sold(stock, order, season, torch.randn(many))
        first, then = (number - 1) * many % len(memory), (season + 1) % SEASONS
        memory[first : first + many] = torch.stack([stock, season, order, profit, left, then], 1)
        world[:] = left, then
        old = memory[torch.randint(min(number * many, len(memory)), (batch,))]
        with torch.no_grad():
            goal = old[:, 3] + discount * target(_situation(old[:, 4], old[:, 5])).max(1).values
        told = network(_situation(old[:, 0], old[:, 1])).gather(1, old[:, 2:3].long())[:, 0]
        loss = F.smooth_l1_loss(told, goal)
        optimizer.zero_grad()
        record(loss, None)
        loss.backward()
        optimizer.step()
        if number % 20 == 0:
            target.load_state_dict(network.state_dict())

    def earned(order: Callable[[Tensor, Tensor], Tensor]) -> float:
        g, season = torch.Generator().manual_seed(93), torch.arange(200.0) % SEASONS
        stock, total = torch.zeros(200), 0.0
        for _ in range(24):
            stock, profit = _sold(stock, order(stock, season), season, torch.randn(200, generator=g))
            total, season = total + float(profit.mean()), (season + 1) % SEASONS
        return total

    @torch.no_grad()
    def score() -> float:
        g = torch.Generator().manual_seed(94)
        guess = earned(lambda stock, season: torch.randint(ORDERS, (200,), generator=g))
        level = 3 + 2 * (2 * math.pi * torch.arange(SEASONS) / SEASONS).sin()
        good = earned(lambda stock, season: (level[season.long()] - stock).round().clamp(0, ORDERS - 1))
        own = earned(lambda stock, season: network(_situation(stock, season)).argmax(1))
        return max(0.0, (own - guess) / (good - guess))

    return Loop({"": network}, {"optimizer": optimizer}, step, score, score)


@cache
def _taste() -> tuple[Tensor, Tensor, Tensor]:
    """Users, items and ratings, [N]: products of five factors, and what each user and item adds."""
    g = torch.Generator().manual_seed(95)
    user, item = torch.randint(150, (9000,), generator=g), torch.randint(80, (9000,), generator=g)
    left, right = torch.randn(150, 5, generator=g), torch.randn(80, 5, generator=g)
    y = (left[user] * right[item]).sum(1) / 2 + 0.4 * torch.randn(150, generator=g)[user] + 0.3 * right[item, 0]
    return user, item, y + 0.2 * torch.randn(9000, generator=g)


def factors(lr: float, *, alike: bool = False, size: int = 8, batch: int = 256) -> Loop:
    """Learn factors of users and of items by turns, from ratings.

    Args:
        lr: of both.
        alike: whether all begin as the same number.
        size: factors.
        batch: ratings of a batch.
    """
    users, items = nn.Embedding(150, size + 1), nn.Embedding(80, size + 1)
    for table in (users, items):
        nn.init.normal_(table.weight, std=0.1)
        if alike:
            nn.init.constant_(table.weight, 0.1)
    models: dict[str, Any] = {"users": users, "items": items}
    optimizers = {name: Adam(model.parameters(), lr=lr) for name, model in models.items()}
    user, item, y = _taste()

    def rated(at: Any) -> Tensor:
        left, right = users(user[at]), items(item[at])
        found: Tensor = (left[:, 1:] * right[:, 1:]).sum(1) + left[:, 0] + right[:, 0]
        return found

    def step(number: int, record: Record) -> None:
        for name, steps in optimizers.items():
            at = torch.randint(7500, (batch,))
            loss = F.mse_loss(rated(at), y[at])
            for each in optimizers.values():
                each.zero_grad()
            record(loss, name)
            loss.backward()
            steps.step()

    def score(at: slice) -> float:
        return score_of(lambda: rated(at)[:, None], list(models.values()), y[at, None])

    return Loop(models, optimizers, step, lambda: score(slice(7500, None)), lambda: score(slice(1500)))
