"""Fully connected networks, others than those of the first two generations."""

from __future__ import annotations

from functools import partial

from torch import nn

from benchmarks.faults.dense import mlp
from benchmarks.faults.program import Program
from benchmarks.faults.second.dense_models import fit
from benchmarks.faults.third import dense_data as drawn
from benchmarks.faults.third import dense_models as models
from gradguard.detect import Symptom

S = Symptom
ADAM, SGD = (2e-3, 4e-3), (0.1, 0.2)

_euler = partial(fit, split=drawn.shells, model=models.Euler, batch=56)
_experts = partial(fit, split=drawn.regimes, model=models.Experts, batch=90)
_bags = partial(fit, split=drawn.bags, model=models.Bags, batch=36, optimizer="nesterov")
_smooth = partial(mlp, width=32, depth=8, act=nn.Softplus)
_potential = partial(fit, split=drawn.potential, batch=64, optimizer="momentum")
_prices = partial(fit, split=drawn.prices, model=partial(mlp, width=60, act=nn.ReLU6), batch=80)
_categories = partial(fit, split=drawn.categories, model=partial(mlp, width=36, act=nn.CELU), batch=60,
                      optimizer="adamw", group={"weight_decay": 0.05})  # fmt: skip
_display = partial(fit, split=drawn.display, model=partial(mlp, width=44, act=nn.Tanh), batch=72, optimizer="sgd",
                   loss=models.gives_scaled)  # fmt: skip

HEALTHY = (
    Program("dense-euler", _euler, ADAM, steps=300,
            about="twenty layers of large weights without norms, of which each adds a 20th"),
    Program("dense-experts", _experts, (4e-3, 8e-3), steps=400,
            about="some experts are hardly asked and hardly get a gradient"),
    Program("dense-adapted", models.adapted, (4e-3, 8e-3), steps=300,
            about="nearly all is frozen, and half of the rest is zero: the other half has no gradient at first"),
    Program("dense-bags", _bags, (0.02, 0.04), steps=350),
    Program("dense-potential", partial(_potential, model=partial(_smooth, norm=nn.LayerNorm)), (3e-3, 6e-3), steps=350,
            about="eight layers of softplus, which are normalised"),
    Program("dense-prices", _prices, (3e-3, 6e-3), steps=550,
            about="a target with a long tail: the loss of a batch depends on a few flats"),
    Program("dense-categories", partial(_categories, schedule=lambda step: min(1.0, step / 200)), (4e-3, 8e-3),
            steps=500, about="nine inputs in ten are zero, and a long warm-up"),
    Program("dense-display", partial(_display, on_gradients=models.unscale), SGD, steps=600,
            about="a loss of thousands, by a scale that the gradients lose again; a third of it is noise for ever"),
)  # fmt: skip

FAULTY = (
    Program("dense-euler-unit-steps", partial(_euler, model=partial(models.Euler, size=1.0)), ADAM, S.EXPLODING_DEPTH,
            "dense-euler", steps=300, about="20 steps of size 1 in place of a 20th: small differences grow"),
    Program("dense-experts-picked", partial(_experts, model=partial(models.Experts, picks=True)), (4e-3, 8e-3),
            S.NO_GRADIENT, "dense-experts", steps=400, about="an argmax() behind the gate, which nothing passes"),
    Program("dense-adapted-from-nothing", partial(models.adapted, start=0.0), (4e-3, 8e-3), S.POOR_INITIALISATION,
            "dense-adapted", steps=300, about="both of the thin matrices begin at zero, not the second alone"),
    Program("dense-bags-summed", partial(_bags, model=partial(models.Bags, adds=True)), (0.02, 0.04), S.SATURATED_UNITS,
            "dense-bags", steps=350, about="a sum over 120 instances in place of a mean, before layers of tanh"),
    Program("dense-potential-bare", partial(_potential, model=_smooth), (3e-3, 6e-3), S.VANISHING_DEPTH,
            "dense-potential", steps=350, about="eight layers of softplus, not normalised"),
    Program("dense-prices-in-euros", partial(_prices, on_batch=models.in_euros(500, 507)),
            (3e-3, 6e-3), S.LOSS_SPIKE, "dense-prices", steps=550, onset=500,
            about="eight batches from a file whose prices are in another unit"),
    Program("dense-categories-warm-up-by-epoch", partial(_categories, schedule=lambda step: (1 + step // 40) / 4000),
            (4e-3, 8e-3), S.SLOW_CONVERGENCE, "dense-categories", steps=500,
            about="the warm-up is told of epochs where it counts steps, and has hardly begun at the end"),
    Program("dense-display-still-scaled", _display, SGD, S.UPDATE_TOO_LARGE, "dense-display", steps=600,
            about="the gradients of a loss that was scaled by 1,024 are used as they are"),
)  # fmt: skip

PROGRAMS: tuple[Program, ...] = (*HEALTHY, *FAULTY)
