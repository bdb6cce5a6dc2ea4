"""Policies of the fifth generation: a pole that is balanced, and answers that are rewarded in groups.

Shape legend: N = examples, G = answers of a group.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Adam

from benchmarks.faults import data
from benchmarks.faults.loops import score_of
from benchmarks.faults.program import Loop, Record
from benchmarks.faults.second.adversarial_games import perceptron

FALLEN = 0.6


def _tilted(pole: Tensor, push: Tensor) -> Tensor:
    """Move poles, [N, 2] of angle and pace, by a push to the left, to the right, or none; [N]."""
    pace = pole[:, 1] + 0.12 * pole[:, 0].sin() + 0.06 * (push - 1.0) + 0.02 * torch.randn(len(pole))
    return torch.stack([pole[:, 0] + 0.5 * pace, pace], 1)


def _put(many: int) -> Tensor:
    return torch.randn(many, 2) * torch.tensor([0.1, 0.05])


def balance(lr: float, *, many: int = 32, horizon: int = 6, discount: float = 0.9) -> Loop:
    """Let actor and critic keep poles upright.

    Args:
        lr: of both.
        many: poles at once.
        horizon: pushes of each before the networks learn.
        discount: of later rewards.
    """
    actor, critic = perceptron(2, 48, 48, 3, between=nn.Tanh), perceptron(2, 48, 48, 1, between=nn.Tanh)
    nn.init.orthogonal_(actor[-1].get_parameter("weight"), gain=0.01)
    actor_steps, critic_steps = Adam(actor.parameters(), lr=lr), Adam(critic.parameters(), lr=lr)
    scale, world = torch.tensor([4.0, 8.0]), [_put(many)]

    def step(number: int, record: Record) -> None:
        pole, poles, pushes, falls = world[0], [], [], []
        with torch.no_grad():
            for _ in range(horizon):
                push = torch.multinomial(actor(scale * pole).softmax(1), 1)[:, 0]
                poles.append(pole)
                pushes.append(push)
                pole = _tilted(pole, push)
                fell = pole[:, 0].abs() > FALLEN
                falls.append(fell.float())
                pole = torch.where(fell[:, None], _put(many), pole)
            value = critic(scale * pole)[:, 0]
            goals: list[Tensor] = []
            for fell in reversed(falls):
                value = discount * (1 - fell) * value - fell
                goals.insert(0, value)
        world[0], seen, goal = pole, scale * torch.cat(poles), torch.cat(goals)
        value = critic(seen)[:, 0]
        loss = F.mse_loss(value, goal)
        critic_steps.zero_grad()
        record(loss, "critic")
        loss.backward()
        critic_steps.step()
        better = goal - value.detach()
        better = (better - better.mean()) / (better.std() + 1e-6)
        logs = actor(seen).log_softmax(1)
        loss = -(logs.gather(1, torch.cat(pushes)[:, None])[:, 0] * better).mean()
        loss = loss + 0.01 * (logs.exp() * logs).sum(1).mean()
        actor_steps.zero_grad()
        record(loss, "actor")
        loss.backward()
        actor_steps.step()

    @torch.no_grad()
    def score() -> float:
        """Compare with pushes by chance, and with poles that never fall."""
        state, lasted = torch.random.get_rng_state(), []
        torch.manual_seed(124)
        for steers in (True, False):
            pole, up, total = _put(300), torch.ones(300, dtype=torch.bool), 0.0
            for _ in range(60):
                pole = _tilted(pole, actor(scale * pole).argmax(1) if steers else torch.randint(3, (300,)))
                up &= pole[:, 0].abs() <= FALLEN
                total += float(up.float().mean())
            lasted.append(total)
        torch.random.set_rng_state(state)
        return max(0.0, (lasted[0] - lasted[1]) / (60 - lasted[1]))

    return Loop({"actor": actor, "critic": critic}, {"actor": actor_steps, "critic": critic_steps}, step, score, score)


def grouped(lr: float, *, eps: float = 1e-4, prompts: int = 32, group: int = 8) -> Loop:
    """Learn answers by which of a group were better than the others, near to where one began: Shao et al., 2024.

    Args:
        lr: learning rate.
        eps: is added to the deviation of the rewards of a group.
        prompts: questions of a batch.
        group: answers to each.
    """
    split = data.clusters(8, 16, 0.8)
    policy = perceptron(16, 64, 64, 8, between=nn.GELU)
    reference, optimizer = copy.deepcopy(policy).requires_grad_(False), Adam(policy.parameters(), lr=lr)

    def step(number: int, record: Record) -> None:
        at = torch.randint(len(split.x), (prompts,))
        x, logs = split.x[at], policy(split.x[at]).log_softmax(1)
        with torch.no_grad():
            answers = (logs[:, None] - torch.empty(prompts, group, 8).exponential_().log()).argmax(2)  # Gumbel
            rewards = (answers == split.y[at, None]).float()
            better = (rewards - rewards.mean(1, keepdim=True)) / (rewards.std(1, keepdim=True) + eps)
            before = reference(x).log_softmax(1)
        away = (logs.exp() * (logs - before)).sum(1).mean()
        loss = -(logs.gather(1, answers) * better).mean() + 0.01 * away
        optimizer.zero_grad()
        record(loss, None)
        loss.backward()
        nn.utils.clip_grad_norm_(policy.parameters(), 1.0)
        optimizer.step()

    def score(x: Tensor, y: Tensor) -> float:
        return score_of(lambda: policy(x), [policy], y)

    return Loop(
        {"policy": policy, "reference": reference},
        {"optimizer": optimizer},
        step,
        lambda: score(split.x_test, split.y_test),
        lambda: score(split.x[:512], split.y[:512]),
    )
