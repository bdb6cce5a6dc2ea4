"""A backward written by hand, right but for one factor: which gradient is wrong, and where does it arise? CPU, 2 s."""

import torch
from torch import nn

from gradguard.probe import check_gradients


class Swish(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, beta):
        ctx.save_for_backward(x, beta)
        return x * torch.sigmoid(beta * x)

    @staticmethod
    def backward(ctx, grad):
        x, beta = ctx.saved_tensors
        s = torch.sigmoid(beta * x)
        return grad * (s + x * s * (1 - s)), (grad * x * x * s * (1 - s)).sum()  # beta * x * s * (1 - s) is right


class SwishLayer(nn.Module):
    def __init__(self, beta):
        super().__init__()
        self.beta = nn.Parameter(torch.tensor(beta))

    def forward(self, x):
        return Swish.apply(x, self.beta)


torch.manual_seed(0)
batch = torch.randn(16, 8), torch.randint(3, (16,))
for beta in (1.0, 1.02):  # where beta is 1, as it is at first, nobody would see it
    layers = [nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 8), SwishLayer(beta), nn.Linear(8, 3)]
    print(check_gradients(nn.Sequential(*layers), lambda m, b: nn.functional.cross_entropy(m(b[0]), b[1]), batch))
