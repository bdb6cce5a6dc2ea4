"""Who can learn what lies a hundred steps back? Four networks add up two marked numbers. CPU, 20 s."""

import torch
from matplotlib.figure import Figure
from torch import nn

from gradguard import Guard, init
from gradguard.clip import NormClip
from gradguard.probe import ThroughTime
from gradguard.report import plot_memory

T = 100
torch.set_num_threads(1)  # more do not help networks so small
axes = Figure(figsize=(16, 4), layout="constrained").subplots(1, 4, sharey=True)
names = "plain RNN", "LSTM, torch's default", "LSTM, forget_gate_", "LSTM, chrono_"
for name, ax in zip(names, axes, strict=True):
    torch.manual_seed(0)
    model = nn.ModuleDict({"rnn": nn.RNN(2, 32) if "RNN" in name else nn.LSTM(2, 32), "head": nn.Linear(32, 1)})
    if "forget_gate_" in name:
        init.forget_gate_(model, 1.0)
    if "chrono_" in name:
        init.chrono_(model, t_max=T)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    guard = Guard(model, optimizer, clip=NormClip(1.0), through_time=ThroughTime(every_n_steps=25, lag=T // 2))
    for _ in range(500):
        places = torch.randint(T // 2, (2, 32)) + torch.tensor([[0], [T // 2]])  # one in each half
        numbers, marks = torch.rand(T, 32), torch.zeros(T, 32).scatter(0, places, 1.0)
        answer = model["head"](model["rnn"](torch.stack([numbers, marks], 2))[0][-1])[:, 0]
        loss = (answer - (numbers * marks).sum(0)).square().mean()
        optimizer.zero_grad()
        guard.record_loss(loss)
        loss.backward()
        optimizer.step()
    found = ", ".join(finding.symptom.value for finding in guard.diagnose()) or "nothing"
    end, reach = 6 * guard.history["loss"].last[-50:].mean(), guard.history["through_time/rnn.l0/horizon"].last[-1]
    print(f"{name}: {end:.2f} of the loss of guessing; gradient back to {reach:.0f} of {T} steps; found: {found}")
    plot_memory(guard.history, ax=ax, colorbar=ax is axes[-1]).set_title(name)
    ax.label_outer()
axes[0].figure.savefig("through_time.png")
