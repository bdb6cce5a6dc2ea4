"""Two networks that teach each other, or take turns: a retoucher and its judge, students and teachers, factors.

Shape legend: N = examples, F = features.
"""

from __future__ import annotations

import copy
from functools import cache, partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import SGD, Adam, AdamW

from benchmarks.faults import data
from benchmarks.faults.data import Split, digits
from benchmarks.faults.loops import score_of
from benchmarks.faults.program import Loop, Record
from benchmarks.faults.second.adversarial_games import Real, perceptron


@cache
def cells(features: int = 8) -> Real:
    """The first measurements of tumours, standardised; some twice: [N, F]."""
    of = data.cancer()
    return Real(torch.cat([of.x, of.x_test, of.x])[:, :features], torch.zeros(2 * len(of.x) + len(of.x_test), 0))


def tabular(features: int = 8) -> tuple[nn.Sequential, nn.Sequential]:
    """A generator of ReLU, and a discriminator of leaky ones."""
    return perceptron(8, 64, 64, features), perceptron(features, 64, 64, 1, between=partial(nn.LeakyReLU, 0.2))


def emptied(forge: nn.Sequential, judge: nn.Sequential) -> None:
    """Set all weights and biases of the generator to zero."""
    for parameter in forge.parameters():
        parameter.zero_()


@cache
def _faded() -> Split:
    """Digits, and as inputs the same, blurred and with noise: [N, 1, 8, 8], in [-1, 1]."""
    of, g = digits("image"), torch.Generator().manual_seed(91)

    def fade(y: Tensor) -> Tensor:
        return F.avg_pool2d(y, 3, stride=1, padding=1) + 0.1 * torch.randn(y.shape, generator=g)

    return Split(fade(of.x), of.x, fade(of.x_test), of.x_test)


def retouch(lr: float, *, width: int = 12, batch: int = 24) -> Loop:
    """Let a generator make sharp pictures of rough ones, near to the true ones and like them: Isola et al., 2017.

    Args:
        lr: of both.
        width: channels.
        batch: pictures of a batch.
    """
    split = _faded()
    forge = nn.Sequential(
        *(nn.Conv2d(1, width, 3, padding=1), nn.Tanh(), nn.Conv2d(width, width, 3, padding=1), nn.Tanh()),
        *(nn.Conv2d(width, 1, 3, padding=1), nn.Tanh()),
    )
    judge = nn.Sequential(
        *(nn.Conv2d(1, width, 4, stride=2, padding=1), nn.LeakyReLU(0.2)),
        *(nn.Conv2d(width, width, 3, padding=1), nn.LeakyReLU(0.2), nn.Conv2d(width, 1, 1)),
    )
    forge_steps, judge_steps = (Adam(net.parameters(), lr=lr, betas=(0.5, 0.999)) for net in (forge, judge))

    def step(number: int, record: Record) -> None:
        at = torch.randint(len(split.x), (batch,))
        made, true = forge(split.x[at]), split.y[at]
        loss = (F.softplus(-judge(true)) + F.softplus(judge(made.detach()))).mean() / 2
        judge_steps.zero_grad()
        record(loss, "discriminator")
        loss.backward()
        judge_steps.step()
        loss = 10 * F.l1_loss(made, true) + 0.1 * F.softplus(-judge(made)).mean()
        forge_steps.zero_grad()
        record(loss, "generator")
        loss.backward()
        forge_steps.step()

    def score(x: Tensor, y: Tensor) -> float:
        return score_of(lambda: forge(x), [forge], y)

    return Loop(
        {"generator": forge, "discriminator": judge},
        {"generator": forge_steps, "discriminator": judge_steps},
        step,
        lambda: score(split.x_test, split.y_test),
        lambda: score(split.x[:512], split.y[:512]),
    )


def mean_teacher(lr: float, *, shared: bool = False, labelled: int = 200, batch: int = 48) -> Loop:
    """Learn a few labels, and on other digits what the mean of one's own past says: Tarvainen & Valpola, 2017.

    Args:
        lr: learning rate.
        shared: whether the teacher is a shallow copy, whose layers are the student's.
        labelled: digits whose class is known.
        batch: digits of either sort.
    """
    split = digits()
    student = nn.Sequential(perceptron(64, 48, 24, 10), nn.ReLU(), nn.Linear(10, 10))
    optimizer = AdamW(student.parameters(), lr=lr)
    teacher = nn.Sequential(student[0], nn.ReLU(), nn.Linear(10, 10)) if shared else copy.deepcopy(student)
    teacher.requires_grad_(False)

    def step(number: int, record: Record) -> None:
        at, other = torch.randint(labelled, (batch,)), torch.randint(len(split.x), (batch,))
        x = torch.cat([split.x[at], split.x[other]])
        with torch.no_grad():
            goal = teacher(x + 0.2 * torch.randn_like(x)).softmax(1)
        found = student(x + 0.2 * torch.randn_like(x))
        away = F.mse_loss(found.softmax(1), goal)
        loss = F.cross_entropy(found[:batch], split.y[at]) + 10 * min(1.0, number / 200) * away
        optimizer.zero_grad()
        record(loss, None)
        loss.backward()
        optimizer.step()
        with torch.no_grad():
            for mean, now in zip(teacher.parameters(), student.parameters(), strict=True):
                mean.lerp_(now, 0.03)

    def score(x: Tensor, y: Tensor) -> float:
        return score_of(lambda: teacher(x), [teacher], y)

    return Loop(
        {"": student},
        {"optimizer": optimizer},
        step,
        lambda: score(split.x_test, split.y_test),
        lambda: score(split.x[:512], split.y[:512]),
    )


def mutual(lr: float, *, unscale: float = 1.0, forgets: bool = False, batch: int = 64) -> Loop:
    """Let two networks learn classes, each also from what the other one says: Zhang et al., 2018.

    Args:
        lr: of both.
        unscale: what all gradients are divided by before a step.
        forgets: whether the gradients are never set to zero.
        batch: examples of a batch.
    """
    split = data.clusters(8, 16, 1.2)
    pair = {
        "broad": perceptron(16, 96, 8, between=nn.ReLU),
        "deep": perceptron(16, 40, 40, 8, between=nn.GELU),
    }
    optimizers = {name: SGD(net.parameters(), lr=lr, momentum=0.9, weight_decay=1e-4) for name, net in pair.items()}

    def step(number: int, record: Record) -> None:
        at = torch.randint(len(split.x), (batch,))
        x, y = split.x[at], split.y[at]
        said = {name: net(x) for name, net in pair.items()}
        for name, other in (("broad", "deep"), ("deep", "broad")):
            goal = said[other].detach().softmax(1)
            mimicry = F.kl_div(said[name].log_softmax(1), goal, reduction="batchmean")
            loss = F.cross_entropy(said[name], y) + 0.5 * mimicry
            if not forgets:
                optimizers[name].zero_grad()
            record(loss, name)
            loss.backward()
            for parameter in pair[name].parameters():
                if parameter.grad is not None:
                    parameter.grad /= unscale
            optimizers[name].step()

    def score(x: Tensor, y: Tensor) -> float:
        return sum(score_of(partial(net, x), [net], y) for net in pair.values()) / 2

    return Loop(
        pair, optimizers, step, lambda: score(split.x_test, split.y_test), lambda: score(split.x[:512], split.y[:512])
    )


def relational(lr: float, *, eps: float = 1e-8, batch: int = 48) -> Loop:
    """Let a student learn classes, and distances between examples from a teacher that still learns: Park et al., 2019.

    Args:
        lr: of both.
        eps: is added to squared distances.
        batch: examples of a batch.
    """
    split = digits()
    teacher = nn.Sequential(perceptron(64, 96, 32), nn.ReLU(), nn.Linear(32, 10))
    student = nn.Sequential(perceptron(64, 20, 12), nn.ReLU(), nn.Linear(12, 10))
    teacher_steps, student_steps = Adam(teacher.parameters(), lr=lr), Adam(student.parameters(), lr=lr)

    def apart(x: Tensor) -> Tensor:
        far = ((x[:, None] - x).square().sum(2) + eps).sqrt()
        return far / far.mean()

    def step(number: int, record: Record) -> None:
        at = torch.randint(len(split.x), (batch,))
        x, y = split.x[at], split.y[at]
        loss = F.cross_entropy(teacher(x), y)
        teacher_steps.zero_grad()
        record(loss, "teacher")
        loss.backward()
        teacher_steps.step()
        with torch.no_grad():
            goal = apart(teacher[0](x))
        code = student[0](x)
        loss = F.cross_entropy(student[1:](code), y) + F.smooth_l1_loss(apart(code), goal)
        student_steps.zero_grad()
        record(loss, "student")
        loss.backward()
        student_steps.step()

    def score(x: Tensor, y: Tensor) -> float:
        return score_of(lambda: student(x), [student], y)

    return Loop(
        {"teacher": teacher, "student": student},
        {"teacher": teacher_steps, "student": student_steps},
        step,
        lambda: score(split.x_test, split.y_test),
        lambda: score(split.x[:512], split.y[:512]),
    )
