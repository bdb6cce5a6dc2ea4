"""Two models and two optimizers that are no generative ones: actors and critics, domains, and a latent code's judge."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributions import Normal
from torch.nn import functional as F
from torch.optim import SGD, Adam

from benchmarks.faults.data import Split, clusters, digits
from benchmarks.faults.loops import score_of
from benchmarks.faults.program import Loop, Record
from benchmarks.faults.second.adversarial_games import perceptron

SIDE, HORIZON = 4, 6
MOVES = torch.tensor([[0, 1], [1, 0], [0, -1], [-1, 0]])


@cache
def _wanted() -> Tensor:
    return torch.randn(5, 2, generator=torch.Generator().manual_seed(9))


def steer(
    lr: float,
    *,
    factors: tuple[float, float] = (1.0, 1.0),
    draw: Callable[[Normal], Tensor] = Normal.rsample,
    batch: int = 64,
) -> Loop:
    """Let an actor climb what a critic has learnt of rewards, from a memory of what was tried.

    Args:
        lr: of both.
        factors: of the learning rates of actor and critic.
        draw: an action, in the actor's step.
        batch: states of a step.
    """
    actor = perceptron(5, 64, 64, 2, between=nn.SiLU)
    critic = perceptron(5 + 2, 96, 96, 1, between=nn.ReLU)
    actor_steps = Adam(actor.parameters(), lr=lr * factors[0])
    critic_steps = Adam(critic.parameters(), lr=lr * factors[1])
    memory = torch.zeros(2048, 8)

    def step(number: int, record: Record) -> None:
        states = torch.randn(batch, 5)
        with torch.no_grad():
            actions = actor(states) + 0.5 * torch.randn(batch, 2)
            miss = (actions - (states @ _wanted()).tanh()).square().sum(1, keepdim=True)
            reward = -miss + 0.1 * torch.randn(batch, 1)
        first = (number - 1) * batch % len(memory)
        memory[first : first + batch] = torch.cat([states, actions, reward], 1)
        old = memory[torch.randint(min(number * batch, len(memory)), (batch,))]
        loss = F.smooth_l1_loss(critic(old[:, :7]), old[:, 7:])
        critic_steps.zero_grad()
        record(loss, "critic")
        loss.backward()
        critic_steps.step()
        loss = -critic(torch.cat([old[:, :5], draw(Normal(actor(old[:, :5]), 0.1))], 1)).mean()
        actor_steps.zero_grad()
        record(loss, "actor")
        loss.backward()
        actor_steps.step()

    def score() -> float:
        states = torch.randn(500, 5, generator=torch.Generator().manual_seed(6))
        return score_of(lambda: actor(states), [actor], (states @ _wanted()).tanh())

    return Loop({"actor": actor, "critic": critic}, {"actor": actor_steps, "critic": critic_steps}, step, score, score)


def _seen(at: Tensor, goal: Tensor) -> Tensor:
    squares = F.one_hot(at[:, 0] * SIDE + at[:, 1], SIDE**2), F.one_hot(goal[:, 0] * SIDE + goal[:, 1], SIDE**2)
    return torch.cat(squares, 1).float()


def walk(lr: float, *, shut: float = -1e9, discount: float = 0.8, many: int = 32) -> Loop:
    """Let actor and critic find the way to a square of a grid, by advantages; moves into a wall are masked.

    Args:
        lr: of both.
        shut: logit of a masked move.
        discount: of later rewards.
        many: walks at once.
    """
    actor, critic = perceptron(2 * SIDE**2, 64, 4, between=nn.Tanh), perceptron(2 * SIDE**2, 64, 1)
    actor_steps, critic_steps = Adam(actor.parameters(), lr=lr), Adam(critic.parameters(), lr=lr)

    def chances(at: Tensor, seen: Tensor) -> Tensor:
        to = at[:, None] + MOVES
        out: Tensor = actor(seen).masked_fill(((to < 0) | (to >= SIDE)).any(2), shut).log_softmax(1)
        return out

    def step(number: int, record: Record) -> None:
        at, goal = torch.randint(SIDE, (2, many, 2))
        places, moves, rewards, on = [], [], [], []
        with torch.no_grad():
            for _ in range(HORIZON):
                on.append((at != goal).any(1).float())
                places.append(at)
                move = torch.multinomial(chances(at, _seen(at, goal)).exp().nan_to_num(1.0), 1)[:, 0]
                moves.append(move)
                at = (at + MOVES[move]).clamp(0, SIDE - 1)
                rewards.append((at == goal).all(1).float())
        gain = torch.zeros(many)
        gains: list[Tensor] = []
        for reward in reversed(rewards):
            gain = torch.where(reward > 0, reward, discount * gain)
            gains.insert(0, gain)
        place, live, gain = torch.cat(places), torch.cat(on), torch.cat(gains)
        seen = _seen(place, goal.repeat(HORIZON, 1))
        value = critic(seen)[:, 0]
        loss = ((value - gain).square() * live).sum() / live.sum()
        critic_steps.zero_grad()
        record(loss, "critic")
        loss.backward()
        critic_steps.step()
        logs = chances(place, seen)
        entropy = -(logs.exp() * logs).sum(1)
        taken = logs.gather(1, torch.cat(moves)[:, None])[:, 0]
        loss = -((taken * (gain - value.detach()) + 0.005 * entropy) * live).sum() / live.sum()
        actor_steps.zero_grad()
        record(loss, "actor")
        loss.backward()
        actor_steps.step()

    @torch.no_grad()
    def score() -> float:
        squares = torch.cartesian_prod(*[torch.arange(SIDE)] * 4)
        squares = squares[(squares[:, :2] != squares[:, 2:]).any(1)]
        at, goal = squares[:, :2], squares[:, 2:]
        arrived = torch.zeros(len(at), dtype=torch.bool)
        for _ in range(HORIZON):
            at = (at + MOVES[chances(at, _seen(at, goal)).nan_to_num(0.0).argmax(1)]).clamp(0, SIDE - 1)
            arrived |= (at == goal).all(1)
        return max(0.0, (float(arrived.float().mean()) - 0.3) / 0.7)

    return Loop({"actor": actor, "critic": critic}, {"actor": actor_steps, "critic": critic_steps}, step, score, score)


class _Reversed(torch.autograd.Function):
    """Gradient reversal: Ganin & Lempitsky, 2015."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, by: float) -> Tensor:
        ctx.by = by
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, *slopes: Tensor) -> tuple[Tensor, None]:
        return -ctx.by * slopes[0], None


_reverse: Callable[[Tensor, float], Tensor] = _Reversed.apply


@cache
def _moved() -> Split:
    split = clusters(5, 12, 1.0)
    g = torch.Generator().manual_seed(11)
    turn = torch.linalg.qr(torch.eye(12) + 0.12 * torch.randn(12, 12, generator=g)).Q
    turn = turn * turn.diagonal().sign()
    return split._replace(x=split.x @ turn + 0.5, x_test=split.x_test @ turn + 0.5)


def domains(lr: float, *, weight: float = 1.0, batch: int = 128) -> Loop:
    """Learn classes of one domain by features from which another network can't tell it from a second one.

    Args:
        lr: of both.
        weight: of all losses.
        batch: examples of each domain.
    """
    here, there = clusters(5, 12, 1.0), _moved()
    body = nn.Sequential(perceptron(12, 48, 24), nn.ReLU(), nn.Linear(24, 5))
    judge = perceptron(24, 32, 1, between=nn.ELU)
    body_steps = SGD(body.parameters(), lr=lr, momentum=0.8, nesterov=True)
    judge_steps = SGD(judge.parameters(), lr=lr, momentum=0.8)

    def step(number: int, record: Record) -> None:
        at, other = torch.randint(len(here.x), (2, batch))
        features = body[:2](torch.cat([here.x[at], there.x[other]]))
        classes = F.cross_entropy(body[2](features[:batch]), here.y[at])
        told = judge(_reverse(features, 0.1 * min(1.0, number / 200)))[:, 0]
        domain = F.binary_cross_entropy_with_logits(told, (torch.arange(2 * batch) < batch).float())
        body_steps.zero_grad()
        judge_steps.zero_grad()
        record(weight * classes, "classifier")
        record(weight * domain, "discriminator")
        (weight * (classes + domain)).backward()
        body_steps.step()
        judge_steps.step()

    def score(x: Tensor, y: Tensor) -> float:
        return score_of(lambda: body(x), [body], y)

    return Loop(
        {"classifier": body, "discriminator": judge},
        {"classifier": body_steps, "discriminator": judge_steps},
        step,
        lambda: score(there.x_test, there.y_test),
        lambda: score(here.x[:512], here.y[:512]),
    )


def latent(lr: float, *, batch: int = 64) -> Loop:
    """Train an autoencoder whose code another network must not tell from normal numbers."""
    split = digits()
    coder = nn.Sequential(perceptron(64, 80, 6, between=nn.SiLU), perceptron(6, 80, 64, between=nn.SiLU))
    judge = perceptron(6, 32, 32, 1, between=nn.ReLU)
    coder_steps, judge_steps = Adam(coder.parameters(), lr=lr), Adam(judge.parameters(), lr=lr / 2)

    def step(number: int, record: Record) -> None:
        x = split.x[torch.randint(len(split.x), (batch,))]
        code = coder[0](x)
        loss = (F.softplus(-judge(torch.randn(batch, 6))) + F.softplus(judge(code.detach()))).mean()
        judge_steps.zero_grad()
        record(loss, "discriminator")
        loss.backward()
        judge_steps.step()
        loss = F.mse_loss(coder[1](code), x) + 0.02 * F.softplus(-judge(code)).mean()
        coder_steps.zero_grad()
        record(loss, "autoencoder")
        loss.backward()
        coder_steps.step()

    def score(x: Tensor) -> float:
        return score_of(lambda: coder(x), [coder], x)

    return Loop(
        {"autoencoder": coder, "discriminator": judge},
        {"autoencoder": coder_steps, "discriminator": judge_steps},
        step,
        lambda: score(split.x_test),
        lambda: score(split.x[:512]),
    )
