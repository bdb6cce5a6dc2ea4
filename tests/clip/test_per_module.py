"""Clippers by the names of modules, and what AGC leaves alone."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from gradguard import GradGuardWarning
from gradguard.clip import AGC, AbstractRescaler, AdaGC, Ema, GradientStabilizer, NormClip, PerModule, ValueClip, ZClip


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.ModuleDict(
            {"embed": nn.Linear(3, 4), "layers": nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))}
        )
        self.encoder_norm = nn.LayerNorm(4)
        self.head = nn.Linear(4, 2)


def model() -> Model:
    torch.manual_seed(0)
    return Model()


def give(module: nn.Module, step: int, scale: float = 1.0) -> None:
    generator = torch.Generator().manual_seed(step)
    for param in module.parameters():
        param.grad = scale * torch.randn(param.shape, generator=generator)


def grads(module: nn.Module, *prefixes: str) -> dict[str, Tensor]:
    return {n: p.grad.clone() for n, p in module.named_parameters() if n.startswith(prefixes)}


def changed(module: nn.Module, clipper: AbstractRescaler) -> set[str]:
    """Names of the parameters whose gradient is changed."""
    give(module, 0)
    before = grads(module, "")
    clipper.clip_(module)
    return {name for name, grad in grads(module, "").items() if not torch.equal(grad, before[name])}


ALL = {name for name, _ in model().named_parameters()}
ENCODER = {name for name in ALL if name.startswith("encoder.")}


@pytest.mark.parametrize(
    ("pattern", "meant"),
    [
        ("encoder", ENCODER),
        ("encoder.*", ENCODER),
        ("*", ALL),
        ("encoder*", ENCODER | {"encoder_norm.weight", "encoder_norm.bias"}),
        ("encoder.layers", {n for n in ALL if ".layers." in n}),
        ("encoder.layers.1", {"encoder.layers.1.weight", "encoder.layers.1.bias"}),
        ("encoder.layers.[01].bias", {"encoder.layers.0.bias", "encoder.layers.1.bias"}),
        ("encoder.layer?", {n for n in ALL if ".layers." in n}),
        ("*.bias", {n for n in ALL if n.endswith("bias")}),
        ("head.weight", {"head.weight"}),
    ],
)
def test_a_pattern_means_parameters_and_whole_modules(pattern: str, meant: set[str]) -> None:
    assert changed(model(), PerModule({pattern: NormClip(0.1)})) == meant


@pytest.mark.parametrize("pattern", ["Encoder", "ncoder", "layers", "bias"])
def test_a_pattern_means_no_part_of_a_name(pattern: str) -> None:
    with pytest.raises(ValueError, match="matches none of 10 parameters"):
        PerModule({pattern: NormClip(0.1)}).clip_(model())


def test_the_first_pattern_that_matches_wins_and_what_matches_none_is_left_alone() -> None:
    net = model()
    give(net, 0)
    before = grads(net, "")
    result = PerModule({"encoder.embed": NormClip(0.5, eps=0), "encoder": NormClip(0.25, eps=0)}).clip_(net)
    total = {
        prefix: torch.cat([g.flatten() for g in grads(net, prefix).values()]).norm()
        for prefix in ("encoder.embed", "encoder.layers")
    }
    assert [x.item() for x in total.values()] == pytest.approx([0.5, 0.25], rel=1e-5)
    left = grads(net, "encoder_norm", "head")
    assert all(torch.equal(grad, before[name]) for name, grad in left.items())
    assert result.norm == pytest.approx(torch.cat([g.flatten() for g in before.values()]).norm().item(), rel=1e-5)
    after = torch.cat([g.flatten() for g in grads(net, "").values()]).norm()
    assert result.coefficient == pytest.approx((after / result.norm).item(), rel=1e-5)
    assert result.clipped


PARTS: dict[str, Callable[[], AbstractRescaler]] = {
    "encoder.embed": lambda: ZClip(baseline=Ema(warmup=3), max_norm=3.0),
    "encoder": lambda: AdaGC(warmup=3),
    "head": GradientStabilizer,
    "*": lambda: ValueClip(-0.5, 0.5),
}


def test_it_equals_the_clippers_on_their_own_groups_one_by_one() -> None:
    together, apart = model(), model()
    clipper = PerModule({pattern: make() for pattern, make in PARTS.items()})
    alone = {pattern: make() for pattern, make in PARTS.items()}
    groups: dict[str, list[tuple[str, nn.Parameter]]] = {pattern: [] for pattern in PARTS}
    for name, param in apart.named_parameters():
        first = next(p for p in PARTS if p == "*" or name.startswith(f"{p}."))
        groups[first].append((name, param))
    assert all(groups.values())
    for step in range(60):
        for net in (together, apart):
            give(net, step, 30.0 if step % 11 == 10 else 0.3)
        clipper.clip_(together)
        for pattern, params in groups.items():
            alone[pattern].clip_(params)
        for name, grad in grads(apart, "").items():
            torch.testing.assert_close(grads(together, name)[name], grad, rtol=1e-6, atol=0, msg=f"{name} at {step}")
    for pattern, part in clipper.state_dict()["parts"].items():
        assert repr(part) == repr(alone[pattern].state_dict())


def test_a_spike_in_one_group_moves_no_statistic_of_another() -> None:
    calm, spiky = ((model(), PerModule({"encoder": ZClip(), "*": ZClip()})) for _ in range(2))
    for step in range(40):
        for net, clipper in (calm, spiky):
            give(net, step)
            if net is spiky[0] and step % 7 == 3:
                net.head.weight.grad *= 100
            clipper.clip_(net)
    (one, other) = (clipper.state_dict()["parts"] for _, clipper in (calm, spiky))
    assert one["encoder"] == other["encoder"]
    assert one["*"] != other["*"]


def test_a_bad_gradient_concerns_its_own_group_only() -> None:
    net, clipper = model(), PerModule({"encoder": NormClip(0.1), "*": NormClip(0.1)})
    give(net, 0)
    before = grads(net, "")
    net.head.bias.grad[0] = torch.nan
    assert not clipper.clip_(net).finite
    assert all(torch.equal(grad, before[name]) for name, grad in grads(net, "head.weight", "encoder_norm").items())
    assert torch.cat([g.flatten() for g in grads(net, "encoder.").values()]).norm() == pytest.approx(0.1, rel=1e-4)


def test_it_tells_the_numbers_of_each_part_in_order() -> None:
    clipper = PerModule({"head": NormClip(0.1, eps=0), "encoder": NormClip(1e6)})
    net = model()
    give(net, 0)
    clipper.clip_(net)
    assert clipper.part_names == ("head", "encoder")
    assert list(clipper.state_dict()["parts"]) == ["head", "encoder"]


def test_the_clippers_that_it_was_given_are_not_used_up() -> None:
    part = ZClip(baseline=Ema(warmup=3))
    clipper = PerModule({"*": part})
    for step in range(5):
        net = model()
        give(net, step)
        clipper.clip_(net)
    assert part.state_dict() == {}
    assert clipper.fresh().state_dict() == {}
    assert clipper.fresh().clippers["*"] is not part


def test_a_part_that_was_not_saved_begins_anew_with_a_warning() -> None:
    net, old = model(), PerModule({"encoder": ZClip(baseline=Ema(warmup=3))})
    for step in range(5):
        give(net, step)
        old.clip_(net)
    new = PerModule({"encoder": ZClip(baseline=Ema(warmup=3)), "*": ZClip()})
    new.load_state_dict(old.state_dict())
    give(net, 6)
    with pytest.warns(GradGuardWarning, match="begins anew: the saved state is that of no clipper"):
        new.clip_(net)
    assert new.state_dict()["parts"]["encoder"]["numbers"]["baseline.seen"] == 6
    assert new.state_dict()["parts"]["*"]["numbers"]["baseline.seen"] == 1


# What AGC leaves alone: by the module itself, by its name, by patterns.
EXCLUDE: dict[str, tuple[Callable[[Model], object], set[str]]] = {
    "module": (lambda net: [net.head], {"head.weight"}),
    "one module, not in a list": (lambda net: net.head, {"head.weight"}),
    "outer module": (lambda net: [net.encoder], {n for n in ENCODER if n.endswith("weight")}),
    "name of a module": (lambda net: ["head"], {"head.weight"}),
    "name of a parameter": (lambda net: "head.weight", {"head.weight"}),
    "pattern": (lambda net: ["encoder.layers.*"], {"encoder.layers.0.weight", "encoder.layers.1.weight"}),
    "both": (lambda net: ["encoder.embed", net.head], {"encoder.embed.weight", "head.weight"}),
    "nothing": (lambda net: (), set()),
}
MATRICES = {name for name, param in model().named_parameters() if param.ndim > 1}


@pytest.mark.parametrize("way", EXCLUDE)
def test_agc_leaves_alone_what_is_excluded(way: str) -> None:
    net = model()
    exclude, left = EXCLUDE[way]
    assert changed(net, AGC(exclude=exclude(net))) == MATRICES - left
    assert changed(net, PerModule({"*": AGC(exclude=exclude(net))})) == MATRICES - left
    assert changed(net, AGC(exclude=exclude(net)).fresh()) == MATRICES - left


def test_agc_clips_vectors_only_where_it_is_told_to() -> None:
    assert changed(model(), AGC(exclude=())) == MATRICES
    assert changed(model(), AGC(exclude=(), vectors=True)) == ALL


@pytest.mark.parametrize("way", ["deepcopy", "pickle", "together"])
def test_a_copy_of_agc_leaves_the_same_module_alone(way: str) -> None:
    net = model()
    clipper = AGC(exclude=[net.head])
    if way == "together":
        net, clipper = copy.deepcopy((net, clipper))
    elif way == "deepcopy":
        clipper = copy.deepcopy(clipper)
    else:
        clipper.clip_(net)
        clipper = pickle.loads(pickle.dumps(clipper))
    assert changed(net, clipper) == MATRICES - {"head.weight"}


def test_a_fresh_agc_has_the_modules_that_are_excluded_and_not_their_names() -> None:
    """It is for another optimizer, of a model that may have no such names."""
    net, other = model(), nn.ModuleDict({"decoder": nn.Linear(2, 2)})
    clipper = AGC(exclude=[net.head])
    changed(net, clipper)
    assert changed(other, clipper.fresh()) == {"decoder.weight"}
    assert changed(net, clipper.fresh()) == MATRICES - {"head.weight"}


@pytest.mark.parametrize("wrap", ["compiled", "compiled inside", "averaged", "parallel"])
def test_wrapped_models_have_the_names_of_what_is_in_them(wrap: str) -> None:
    net = model()
    whole: nn.Module = net
    if wrap == "compiled":
        whole = torch.compile(net, backend="eager")
    elif wrap == "compiled inside":
        net.encoder["layers"] = torch.compile(net.encoder["layers"], backend="eager")
    elif wrap == "averaged":
        whole = torch.optim.swa_utils.AveragedModel(net)
    else:
        whole = nn.DataParallel(net)
    ways = [whole, list(whole.named_parameters())] if wrap.startswith("compiled") else [whole]
    for params in ways:
        clipper = PerModule({"encoder.layers": NormClip(0.5, eps=0), "*": AGC(exclude=["head"])})
        give(whole, 0)
        clipper.clip_(params if isinstance(params, nn.Module) else iter(params))
        assert set(clipper.state_dict()["names"]) == ALL
        of_layers = [p.grad.flatten() for n, p in whole.named_parameters() if ".layers." in n]
        assert torch.cat(of_layers).norm() == pytest.approx(0.5, rel=1e-5)
