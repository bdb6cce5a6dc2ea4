"""Two optimizers (a GAN): each has its own numbers, and neither sees the other's stale gradients. CPU, 3 s."""

import torch
from torch import nn

from gradguard import Guard

torch.manual_seed(0)
bce = nn.functional.binary_cross_entropy_with_logits
generator = nn.Sequential(nn.Linear(4, 32), nn.ReLU(), nn.Linear(32, 2))
discriminator = nn.Sequential(nn.Linear(2, 32), nn.ReLU(), nn.Linear(32, 1))
optimizer_g = torch.optim.Adam(generator.parameters(), lr=1e-3)
optimizer_d = torch.optim.Adam(discriminator.parameters(), lr=1e-3)

guard = Guard(
    {"generator": generator, "discriminator": discriminator},
    {"g": optimizer_g, "d": optimizer_d},
)
for _ in range(300):
    real, fake = torch.randn(64, 2) * 0.5 + 1, generator(torch.randn(64, 4))

    optimizer_d.zero_grad()
    judged = discriminator(torch.cat([real, fake.detach()]))
    loss_d = bce(judged, torch.cat([torch.ones(64, 1), torch.zeros(64, 1)]))
    guard.record_loss(loss_d, "d")
    loss_d.backward()
    optimizer_d.step()

    optimizer_g.zero_grad()
    loss_g = bce(discriminator(fake), torch.ones(64, 1))
    guard.record_loss(loss_g, "g")
    loss_g.backward()
    optimizer_g.step()

print(guard.summary())
