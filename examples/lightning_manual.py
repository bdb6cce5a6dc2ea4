"""Manual optimisation with two optimizers: each is measured on its own parameters and goes by what it trains."""

import torch
from pytorch_lightning import LightningModule, Trainer
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits as bce

from gradguard.lightning import GradGuard


class Gan(LightningModule):
    def __init__(self):
        super().__init__()
        self.automatic_optimization = False
        self.generator = nn.Sequential(nn.Linear(4, 32), nn.LeakyReLU(), nn.Linear(32, 2))
        self.critic = nn.Sequential(nn.Linear(2, 32), nn.LeakyReLU(), nn.Linear(32, 1))

    def training_step(self, real, batch_idx):
        step_generator, step_critic = self.optimizers()
        one, zero = torch.ones(len(real), 1), torch.zeros(len(real), 1)
        fake = self.generator(torch.randn(len(real), 4))
        critic_loss = bce(self.critic(real), one) + bce(self.critic(fake.detach()), zero)
        step_critic.zero_grad()
        self.manual_backward(critic_loss)
        step_critic.step()
        step_generator.zero_grad()
        self.manual_backward(bce(self.critic(fake), one))
        step_generator.step()

    def configure_optimizers(self):
        return [torch.optim.Adam(net.parameters(), lr=1e-3) for net in (self.generator, self.critic)]


torch.manual_seed(0)
circle = torch.nn.functional.normalize(torch.randn(6400, 2))
trainer = Trainer(max_epochs=3, callbacks=[GradGuard()])
trainer.fit(Gan(), torch.utils.data.DataLoader(circle, batch_size=64))
print(sorted(key for key in trainer.callback_metrics if key.endswith("total")))
