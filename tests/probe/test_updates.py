"""Update ratios against a full comparison of all weights."""

from __future__ import annotations

import importlib
import math
import re

import pytest
import torch
from torch import nn

from gradguard.probe import UpdateProbe, updates
from tests import reference

module = importlib.import_module("gradguard.probe.updates")  # the function of that name hides it


def params() -> list[nn.Parameter]:
    return [
        nn.Parameter(torch.randn(3, 4)),
        nn.Parameter(torch.randn(600, 500)),
        nn.Parameter(torch.randn(4, 3, 3, 3).to(memory_format=torch.channels_last)),
        nn.Parameter(torch.randn(())),
    ]


def compare(before: list[torch.Tensor], after: list[nn.Parameter]) -> list[float]:
    return [
        reference.norm((a.detach() - b).numpy(), 2) / reference.norm(b.numpy(), 2)
        for b, a in zip(before, after, strict=True)
    ]


def test_ratios_equal_the_full_comparison_for_small_parameters_and_come_close_for_large_ones() -> None:
    weights = params()
    before = [p.detach().clone() for p in weights]
    probe = UpdateProbe(weights)
    with torch.no_grad():
        for p in weights:
            p.add_(torch.randn_like(p), alpha=1e-2)
    update = probe.finish()
    expected = compare(before, weights)
    assert update.ratios.tolist() == pytest.approx(expected, rel=3e-2)
    assert update.ratios[[0, 2, 3]].tolist() == pytest.approx([expected[i] for i in (0, 2, 3)], rel=1e-4)
    assert update.weight_norms.tolist() == pytest.approx([reference.norm(b.numpy(), 2) for b in before], rel=1e-6)


@pytest.mark.parametrize(
    ("rows", "columns", "covered"),
    [(1024, 1000, 1.0), (1024, 1024, 1.0), (256, 1024, 1.0), (256, 784, 1.0), (16, 8192, 0.5), (50_257, 768, 1.0)],
)
def test_the_sample_of_a_large_parameter_spreads_over_its_rows_and_columns(
    rows: int, columns: int, covered: float
) -> None:
    at_column = module._sample(torch.arange(float(columns)).expand(rows, columns).contiguous(), 8192)
    at_row = module._sample(torch.arange(float(rows))[:, None].expand(rows, columns).contiguous(), 8192)
    assert 3500 < at_column.numel() <= 8192
    assert len(set(at_column.flatten().tolist())) >= covered * columns
    seen = sorted(set(at_row.flatten().tolist()))
    assert seen[0] == 0
    assert seen[-1] > 0.9 * rows - 2
    assert len(seen) >= min(rows, 200)


def test_the_samples_of_many_parameters_stay_within_the_budget() -> None:
    many = [nn.Parameter(torch.zeros(100, 100)) for _ in range(3000)]
    probe = UpdateProbe(many)
    assert sum(s.numel() for s in probe.before) <= module.BUDGET


def test_weights_that_are_zero_have_no_ratio_and_half_types_have_one() -> None:
    weights = [nn.Parameter(torch.zeros(3)), nn.Parameter(torch.full((300,), 256.0, dtype=torch.bfloat16))]
    probe = UpdateProbe(weights)
    with torch.no_grad():
        for p in weights:
            p.add_(1.0)  # rounds to nothing in bfloat16: 257 has no number of its own
    ratios = probe.finish().ratios.tolist()
    assert math.isnan(ratios[0])
    assert ratios[1] == 0


def test_the_probe_keeps_no_view_of_the_weights() -> None:
    weights = params()
    probe = UpdateProbe(weights)
    storages = {p.untyped_storage().data_ptr() for p in weights}
    assert all(sample.untyped_storage().data_ptr() not in storages for sample in probe.before)
    probe.finish()
    assert probe.before == []


class Net(nn.Module):
    """Layers whose names do not sort by depth, a stacked recurrent one, and a norm."""

    def __init__(self) -> None:
        super().__init__()
        self.zeroth, self.lstm, self.norm, self.a = nn.Linear(5, 6), nn.LSTM(6, 7, 2), nn.LayerNorm(7), nn.Linear(7, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.a(self.norm(self.lstm(self.zeroth(x))[0]))


@pytest.mark.parametrize("make", [torch.optim.SGD, torch.optim.Adam])
def test_a_step_of_ones_own_is_told_by_parameter_and_by_layer(make: type[torch.optim.Optimizer]) -> None:
    model = Net()
    optimizer = make(model.parameters(), lr=0.01)
    model(torch.randn(4, 3, 5)).square().mean().backward()
    before = {name: p.detach().double().clone() for name, p in model.named_parameters()}
    with updates(model, optimizer) as looked:
        assert str(looked) == "No step was looked at yet."
        optimizer.step()
    change = {name: p.detach().double() - before[name] for name, p in model.named_parameters()}
    assert [one.name for one in looked.parameters] == list(before)
    for one in looked.parameters:
        size = reference.norm(change[one.name].numpy(), 2)
        assert one.weight_norm == pytest.approx(reference.norm(before[one.name].numpy(), 2), rel=1e-6, abs=1e-12)
        if one.name == "norm.bias":  # it was 0
            assert math.isnan(one.ratio)
            assert math.isnan(one.update_norm)
        else:
            assert one.update_norm == pytest.approx(size, rel=1e-3)
            assert one.ratio == pytest.approx(size / one.weight_norm, rel=1e-3)
    assert [one.name for one in looked.layers] == ["zeroth", "lstm.l0", "lstm.l1", "norm", "a"]
    whole = [torch.cat([t.flatten() for name, t in of.items() if "_l1" in name]).numpy() for of in (before, change)]
    assert looked.layers[2].weight_norm == pytest.approx(reference.norm(whole[0], 2), rel=1e-6)
    assert looked.layers[2].update_norm == pytest.approx(reference.norm(whole[1], 2), rel=1e-3)
    assert looked.layers[2].ratio == pytest.approx(reference.norm(whole[1], 2) / reference.norm(whole[0], 2), rel=1e-3)


def test_what_is_large_or_small_is_marked_in_a_table_of_the_layers() -> None:
    model = Net()
    model.a.bias.requires_grad_(False)
    groups = [
        {"params": model.zeroth.parameters(), "lr": 10.0},
        {"params": [model.lstm.weight_ih_l0], "lr": 10.0},
        {"params": [model.lstm.weight_hh_l0], "lr": 0.0},
        {"params": [model.lstm.weight_ih_l1, *model.norm.parameters()], "lr": 0.3},
        {"params": model.a.parameters(), "lr": 1e-2},
    ]
    optimizer = torch.optim.SGD(groups)
    for p in model.parameters():
        p.grad = p.detach() * 0.1 + (1.0 if p is model.norm.bias else 0.0)  # a ratio of 0.1 times the learning rate
    with updates(model, optimizer) as looked:
        optimizer.step()
    assert [one.name for one in looked.parameters][-1] == "a.weight"
    assert [one.mark for one in looked.layers] == ["large", "large and small", "", "", ""]
    marks = {one.name: one.mark for one in looked.parameters if one.mark}
    assert marks == {"zeroth.weight": "large", "lstm.weight_ih_l0": "large", "lstm.weight_hh_l0": "small"}  # no bias
    lines = str(looked).splitlines()
    assert lines[0] == "Update norm / weight norm of one step, usually 1e-04 to 1e-01"
    assert re.fullmatch(r"layer    weight norm  update norm    ratio", lines[1])
    assert re.fullmatch(r"zeroth  +[\d.]+  +[\d.]+  1.0e\+00  large", lines[2])
    assert re.fullmatch(r"a  +[\d.]+  +[\d.]+  1.0e-03", lines[6])
    assert len({len(line.removesuffix("  large").removesuffix("  large and small")) for line in lines[1:]}) == 1
    with updates(model, optimizer) as looked:
        pass
    assert str(looked).splitlines()[-1] == "Nothing moved: was the step skipped, or is the learning rate 0?"


def test_a_step_that_raises_tells_nothing_and_goes_on() -> None:
    model = nn.Linear(2, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

    def fails() -> None:
        with updates(model, optimizer) as looked:
            shown.append(looked)
            raise KeyError("mine")

    shown: list[object] = []
    with pytest.raises(KeyError, match="mine"):
        fails()
    assert str(shown[0]) == "No step was looked at yet."


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ((3, None), TypeError, "needs a torch.nn.Module, got int"),
        ((nn.Linear(2, 1), "adam"), TypeError, "needs a torch.optim.Optimizer, got str"),
        (
            (nn.Linear(2, 1), torch.optim.SGD(nn.Linear(2, 1).parameters(), lr=1.0)),
            ValueError,
            "needs the model that SGD trains, Linear has none of its parameters",
        ),
    ],
)
def test_bad_arguments_of_updates(arguments: tuple[object, object], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words), updates(*arguments):  # type: ignore[arg-type]
        pass
