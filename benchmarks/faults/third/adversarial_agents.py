"""Two models and two optimizers that are no generative ones: actors and critics, an attacker, and a fair classifier."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import cache, partial

import torch
from torch import Tensor, nn
from torch.distributions import Normal
from torch.nn import functional as F
from torch.optim import SGD, Adam, AdamW, Optimizer

from benchmarks.faults.data import Split, digits
from benchmarks.faults.loops import score_of
from benchmarks.faults.program import Loop, Record
from benchmarks.faults.second.adversarial_games import perceptron


@cache
def _aims() -> Tensor:
    return torch.randn(4, 3, generator=torch.Generator().manual_seed(33))


def _best(states: Tensor) -> Tensor:
    return 0.95 * (0.6 * states @ _aims()).sin()


def soften(lr: float, *, eps: float = 1e-6, cost: float = 0.01, batch: int = 96) -> Loop:
    """Let an actor of squashed normal actions climb a critic, where entropy pays: SAC, of one step.

    Args:
        lr: of both.
        eps: keeps the logarithm of the squashing from that of 0.
        cost: of certainty.
        batch: states of a step.
    """
    actor, critic = perceptron(4, 64, 64, 6, between=nn.SiLU), perceptron(7, 80, 80, 1, between=nn.Mish)
    with torch.no_grad():
        actor[-1].get_parameter("bias")[3:] = 1.5
    actor_steps, critic_steps = AdamW(actor.parameters(), lr=lr), AdamW(critic.parameters(), lr=lr)

    def act(states: Tensor) -> tuple[Tensor, Tensor]:
        mean, log_std = actor(states).chunk(2, 1)
        chances = Normal(mean, log_std.clamp(-3, 2).exp(), validate_args=False)
        raw = chances.rsample()
        action = raw.tanh()
        return action, (chances.log_prob(raw) - (1 - action.square() + eps).log()).sum(1)

    def step(number: int, record: Record) -> None:
        states = torch.randn(batch, 4)
        with torch.no_grad():
            action, _ = act(states)
            reward = -(action - _best(states)).square().sum(1) + 0.1 * torch.randn(batch)
        loss = F.mse_loss(critic(torch.cat([states, action], 1))[:, 0], reward)
        critic_steps.zero_grad()
        record(loss, "critic")
        loss.backward()
        critic_steps.step()
        action, log_prob = act(states)
        loss = (cost * log_prob - critic(torch.cat([states, action], 1))[:, 0]).mean()
        actor_steps.zero_grad()
        record(loss, "actor")
        loss.backward()
        actor_steps.step()

    def score() -> float:
        states = torch.randn(500, 4, generator=torch.Generator().manual_seed(34))
        return score_of(lambda: actor(states)[:, :3].tanh(), [actor], _best(states))

    return Loop({"actor": actor, "critic": critic}, {"actor": actor_steps, "critic": critic_steps}, step, score, score)


def home(lr: float, *, end: Callable[[], nn.Module] = nn.Identity, many: int = 64, quantiles: int = 8) -> Loop:
    """Let an actor lead what drifts away back to the middle; a critic of quantiles learns what it will cost.

    Args:
        lr: of both.
        end: ends the critic.
        many: steps of the world at once.
        quantiles: that the critic tells.
    """
    actor = nn.Sequential(perceptron(2, 48, 48, 2, between=nn.GELU), nn.Tanh())
    critic = nn.Sequential(perceptron(4, 64, 64, quantiles, between=nn.ReLU), end())
    mean_actor, mean_critic = (copy.deepcopy(net).requires_grad_(False) for net in (actor, critic))
    actor_steps, critic_steps = Adam(actor.parameters(), lr=lr / 2), Adam(critic.parameters(), lr=lr)
    share = (torch.arange(quantiles) + 0.5) / quantiles
    world = [torch.randn(many, 2)]

    def moved(at: Tensor, action: Tensor) -> Tensor:
        return (1.05 * at + 0.6 * action + 0.1 * torch.randn_like(at)).clamp(-3, 3)

    def step(number: int, record: Record) -> None:
        at = world[0]
        with torch.no_grad():
            action = (actor(at) + 0.4 * torch.randn(many, 2)).clamp(-1, 1)
            to = moved(at, action)
            later = mean_critic(torch.cat([to, mean_actor(to)], 1))
            goal = -to.square().sum(1, keepdim=True) + 0.7 * later
            world[0] = torch.where(torch.rand(many, 1) < 0.1, 1.5 * torch.randn(many, 2), to)
        miss = goal[:, None] - critic(torch.cat([at, action], 1))[:, :, None]
        loss = ((share[:, None] - (miss < 0).float()).abs() * F.huber_loss(miss, 0 * miss, reduction="none")).mean()
        critic_steps.zero_grad()
        record(loss, "critic")
        loss.backward()
        critic_steps.step()
        loss = -critic(torch.cat([at, actor(at)], 1)).mean()
        actor_steps.zero_grad()
        record(loss, "actor")
        loss.backward()
        actor_steps.step()
        for kept, net in ((mean_actor, actor), (mean_critic, critic)):
            for mean, now in zip(kept.parameters(), net.parameters(), strict=True):
                mean.data.lerp_(now.data, 0.05)

    @torch.no_grad()
    def score() -> float:
        state = torch.random.get_rng_state()
        torch.manual_seed(35)
        start = 1.5 * torch.randn(400, 2)
        far = []
        for leads in (True, False):
            at, cost = start, 0.0
            for _ in range(12):
                at = moved(at, actor(at) if leads else torch.zeros_like(at))
                cost += float(at.square().sum(1).mean())
            far.append(cost)
        torch.random.set_rng_state(state)
        return max(0.0, 1 - far[0] / far[1])

    return Loop({"actor": actor, "critic": critic}, {"actor": actor_steps, "critic": critic_steps}, step, score, score)


def attacked(lr: float, *, optimizer: Callable[..., Optimizer] = Adam, reach: float = 0.3, batch: int = 64) -> Loop:
    """Learn digits, and digits that another network changed within bounds so that they are told wrongly.

    Args:
        lr: of both.
        optimizer: of both.
        reach: bound of a change.
        batch: examples of a batch.
    """
    split = digits()
    model = nn.Sequential(
        *(nn.Linear(64, 72), nn.SiLU(), nn.Dropout(0.1), nn.Linear(72, 72), nn.SiLU(), nn.Linear(72, 10))
    )
    attacker = nn.Sequential(perceptron(64, 48, 64, between=nn.GELU), nn.Tanh())
    model_steps, attacker_steps = optimizer(model.parameters(), lr=lr), optimizer(attacker.parameters(), lr=lr)

    def step(number: int, record: Record) -> None:
        at = torch.randint(len(split.x), (batch,))
        x, y = split.x[at], split.y[at]
        loss = -F.cross_entropy(model(x + reach * attacker(x)), y).clamp(max=5)
        attacker_steps.zero_grad()
        record(loss, "attacker")
        loss.backward()
        attacker_steps.step()
        with torch.no_grad():
            changed = x + reach * attacker(x)
        loss = F.cross_entropy(model(torch.cat([x, changed])), y.repeat(2))
        model_steps.zero_grad()
        record(loss, "classifier")
        loss.backward()
        model_steps.step()

    def score(x: Tensor, y: Tensor) -> float:
        return score_of(lambda: model(x), [model], y)

    return Loop(
        {"classifier": model, "attacker": attacker},
        {"classifier": model_steps, "attacker": attacker_steps},
        step,
        lambda: score(split.x_test, split.y_test),
        lambda: score(split.x[:512], split.y[:512]),
    )


@cache
def _shares() -> tuple[Split, Tensor]:
    """Eight small shares, [N, 8], a decision by a smooth function of them, and a group that hangs together with two."""
    g = torch.Generator().manual_seed(36)
    raw = torch.randn(3000, 8, generator=g)
    y = ((2 * raw[:, 0]).sin() + raw[:, 1] * raw[:, 2] + 0.5 * raw[:, 3] > 0).long()
    group = (raw[:, 6] + raw[:, 7] + 0.5 * raw[:, 0] + torch.randn(3000, generator=g) > 0).float()
    x = 0.1 + 0.02 * raw
    return Split(x[:2250], y[:2250], x[2250:], y[2250:]), group[:2250]


def by_deviation(x: Tensor, of: Tensor) -> Tensor:
    """Standardise."""
    return (x - of.mean(0)) / of.std(0)


def by_variance(x: Tensor, of: Tensor) -> Tensor:
    """Standardise, but for a root."""
    return (x - of.mean(0)) / of.var(0)


def fair(lr: float, *, scale: Callable[[Tensor, Tensor], Tensor] = by_deviation, batch: int = 100) -> Loop:
    """Learn decisions by features from which another network can't tell a group.

    Args:
        lr: of both.
        scale: standardises the first argument by the second.
        batch: examples of a batch.
    """
    split, group = _shares()
    split = split._replace(x=scale(split.x, split.x), x_test=scale(split.x_test, split.x))
    model = nn.Sequential(nn.Linear(8, 48), nn.Tanh(), nn.Linear(48, 32), nn.Tanh(), nn.Linear(32, 2))
    judge = perceptron(32, 24, 1, between=partial(nn.LeakyReLU, 0.1))
    model_steps, judge_steps = Adam(model.parameters(), lr=lr), SGD(judge.parameters(), lr=5 * lr, momentum=0.9)

    def step(number: int, record: Record) -> None:
        at = torch.randint(len(split.x), (batch,))
        features = model[:4](split.x[at])
        told = F.binary_cross_entropy_with_logits(judge(features.detach())[:, 0], group[at])
        judge_steps.zero_grad()
        record(told, "adversary")
        told.backward()
        judge_steps.step()
        told = F.binary_cross_entropy_with_logits(judge(features)[:, 0], group[at])
        loss = F.cross_entropy(model[4](features), split.y[at]) - 0.1 * told
        model_steps.zero_grad()
        record(loss, "classifier")
        loss.backward()
        model_steps.step()

    def score(x: Tensor, y: Tensor) -> float:
        return score_of(lambda: model(x), [model], y)

    return Loop(
        {"classifier": model, "adversary": judge},
        {"classifier": model_steps, "adversary": judge_steps},
        step,
        lambda: score(split.x_test, split.y_test),
        lambda: score(split.x[:512], split.y[:512]),
    )
