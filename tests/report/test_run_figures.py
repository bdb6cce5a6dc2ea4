"""The figures of a run show the numbers of its history, on the axes that they are given."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from torch import Tensor, nn

from gradguard import Finding, Guard, Severity, Symptom
from gradguard.clip import NormClip
from gradguard.detect import Layout, Role
from gradguard.record import History, Points, read, rows
from gradguard.report import (
    gate_over_steps,
    grad_norms_by_layer,
    plot_gates_over_steps,
    plot_grad_norm,
    plot_layer_ratios,
    plot_layers,
    plot_loss,
    plot_memory,
    plot_profile,
    plot_step,
    plot_step_ratios,
    update_ratios_by_layer,
)
from gradguard.report.over_steps import SHADES
from tests.report.samples import fading, history_of, mesh_of, png, profile_of

NAMES = ("a.weight", "a.bias", "b.norm", "c.weight")
LAYOUT = Layout("opt", NAMES, ("a", "a", "b", "c"), (4, 2, 2, 4), (Role.WEIGHT, Role.BIAS, Role.OTHER, Role.WEIGHT))
HOSTILE = "<script>alert('1')</script>&\"$\\frac{$^_é漢\n../../" * 2  # to matplotlib, a formula that is none


def points(
    steps: list[int], values: list[float], low: list[float] | None = None, high: list[float] | None = None
) -> Any:
    return Points(
        torch.tensor(steps), *(torch.tensor(v, dtype=torch.float64) for v in (values, low or values, high or values))
    )


def layer_history(prefix: str = "", layout: Layout = LAYOUT, steps: int = 6) -> History:
    torch.manual_seed(3)
    history = History()
    for group in "grad_norm", "update_ratio", "weight_norm":
        values = 10 ** (-8 * torch.rand(steps, len(layout.names), dtype=torch.float64))
        history.extend(prefix + group, layout.names, rows(torch.arange(1, steps + 1), values))
    return history


def gate_history(gate: str = "f", layer: str = "lstm.l0", prefix: str = "") -> History:
    history = History()
    shares = torch.rand(3, 20, dtype=torch.float64)
    values = torch.cat([torch.tensor([[0.2], [0.5], [0.9]]), shares / shares.sum(1, keepdim=True)], 1)
    names = ("mean", *(f"bin_{k}" for k in range(20)))
    history.extend(f"{prefix}gates/{layer}/{gate}", names, rows(torch.tensor([1, 25, 50]), values))
    return history


def named(ax: Axes, gid: str) -> list[Any]:
    return [one for one in ax.get_children() if one.get_gid() == gid]


def data_of(ax: Axes, gid: str) -> tuple[list[float], list[float]]:
    (line,) = named(ax, gid)
    return list(map(float, line.get_xdata())), list(map(float, line.get_ydata()))


def finding(symptom: Symptom, severity: Severity, first: int, last: int, optimizer: str = "opt") -> Finding:
    return Finding(symptom, severity, ("a",), optimizer, first, last, True)


DRAWN: dict[str, Callable[[Axes | None], Axes]] = {
    "plot_grad_norm": lambda ax: plot_grad_norm({"grad_norm/total": points([1, 2], [3.0, 0.3])}, ax=ax),
    "plot_layers": lambda ax: plot_layers(layer_history(), LAYOUT, ax=ax),
    "plot_layer_ratios": lambda ax: plot_layer_ratios(layer_history(), LAYOUT, ax=ax),
    "plot_step": lambda ax: plot_step(layer_history(), LAYOUT, 2, ax=ax),
    "plot_step_ratios": lambda ax: plot_step_ratios(layer_history(), LAYOUT, 2, ax=ax),
    "plot_loss": lambda ax: plot_loss({"loss": points([1, 2], [3.0, 0.3])}, ax=ax),
    "plot_gates_over_steps": lambda ax: plot_gates_over_steps(gate_history(), "f", ax=ax),
}


@pytest.mark.parametrize("who", DRAWN)
def test_the_axes_passed_in_are_used_and_others_are_said(who: str) -> None:
    figure = Figure(layout="constrained")
    left, right = figure.subplots(1, 2)
    assert DRAWN[who](right) is right
    assert not left.has_data()
    assert right.has_data()
    png(right)
    assert DRAWN[who](None).figure is not figure
    with pytest.raises(TypeError, match=rf"{who} needs ax to be one Axes of matplotlib, .* got ndarray"):
        DRAWN[who](Figure().subplots(1, 2))


def test_a_default_device_changes_nothing() -> None:
    history, gates = layer_history(), gate_history()
    total = points([1, 2], [3.0, 0.3])
    with torch.device("meta"):
        png(plot_layers(history, LAYOUT))
        png(plot_layer_ratios(history, LAYOUT))
        png(plot_step(history, LAYOUT, 1))
        png(plot_gates_over_steps(gates, "f"))
        png(plot_grad_norm({"grad_norm/total": total}))
        png(plot_loss({"loss": total}))


def test_the_gradient_norm_is_the_history() -> None:
    history = {
        "grad_norm/total": points([2, 4, 6], [2.0, 30.0, 1.0], [1.0, 5.0, 0.5], [3.0, 40.0, 1.0]),
        "grad_norm/clipped": points([2, 4, 6], [1.0, 1.0, 0.9]),
        "clip/threshold": points([2, 4, 6], [1.0, 1.0, 1.0]),
        "clip/coefficient": points([2, 4, 6], [1.0, 1.0, 1.0], [0.3, 1.0 - 1e-7, 1.0], [1.0, 1.0, 1.5]),
        "skipped": points([3, 5], [1.0, 1.0]),
    }
    ax = plot_grad_norm(history)
    assert data_of(ax, "before clipping") == ([2, 4, 6], [2, 30, 1])
    assert data_of(ax, "after clipping") == ([2, 4, 6], [1, 1, 0.9])
    assert data_of(ax, "threshold") == ([2, 4, 6], [1, 1, 1])
    assert data_of(ax, "clipped")[0] == [2, 6]  # not of rounding; one that is lifted was changed, too
    assert data_of(ax, "skipped")[0] == [3, 5]
    (band,) = named(ax, "before clipping band")
    assert isinstance(band, PolyCollection)
    corners = band.get_paths()[0].vertices
    for step, low, high in (2, 1.0, 3.0), (4, 5.0, 40.0), (6, 0.5, 1.0):
        assert {y for x, y in corners if x == step} >= {low, high}
    assert named(ax, "after clipping band") == []  # where all points are single steps, there is nothing to show
    assert named(ax, "NaN or infinite") == []
    assert ax.get_yscale() == "log"
    assert ax.get_xlim()[0] < 2 < 6 < ax.get_xlim()[1]
    png(ax)
    assert plot_grad_norm(history, log=False).get_yscale() == "linear"


def test_what_is_not_finite_is_a_gap_and_a_mark() -> None:
    total = points([1, 2, 3, 4], [1.0, math.nan, math.inf, 2.0], high=[1.0, math.nan, math.inf, math.inf])
    ax = plot_grad_norm({"grad_norm/total": total})
    np.testing.assert_array_equal(data_of(ax, "before clipping")[1], [1, np.nan, np.nan, 2])
    assert data_of(ax, "NaN or infinite")[0] == [2, 3, 4]
    png(ax)


@pytest.mark.parametrize("value", [0.0, math.nan, math.inf])
def test_a_run_of_nothing_but_zeros_or_nan_is_drawn(value: float) -> None:
    png(plot_grad_norm({"grad_norm/total": points([1, 2], [value] * 2)}, findings=[HEAD]))
    png(plot_loss({"loss": points([1], [value])}))


HEAD = finding(Symptom.NO_GRADIENT, Severity.CRITICAL, 1, 1)


def test_findings_are_spans_of_their_severity() -> None:
    found = [
        finding(Symptom.EXPLODING_DEPTH, Severity.CRITICAL, 3, 7),
        finding(Symptom.VANISHING_DEPTH, Severity.WARNING, 1, 10),
        finding(Symptom.LOSS_SPIKE, Severity.INFO, 9, 9),
    ]
    steps = list(range(1, 11))
    ax = plot_grad_norm({"grad_norm/total": points(steps, [1.0] * 10)}, findings=found)
    for one in found:
        (span,) = named(ax, f"finding {one.symptom.value}")
        assert (span.get_x(), span.get_x() + span.get_width()) == (one.first_step - 0.5, one.last_step + 0.5)
        assert span.get_facecolor()[:3] == to_rgba(SHADES[one.severity])[:3]
    words = [text.get_text() for text in ax.texts]
    assert words == ["exploding_depth (critical)", "vanishing_depth (warning)", "loss_spike (info)"]
    assert ax.get_xlim() == plot_grad_norm({"grad_norm/total": points(steps, [1.0] * 10)}).get_xlim()
    png(ax)


def test_findings_of_another_optimizer_are_not_shaded() -> None:
    history = {"g/grad_norm/total": points([1, 2], [1.0, 2.0]), "d/grad_norm/total": points([1], [1.0])}
    found = [finding(Symptom.LOSS_SPIKE, Severity.INFO, 1, 1, one) for one in ("g", "d")]
    ax = plot_grad_norm(history, prefix="g/", findings=found)
    assert len(ax.texts) == 1
    assert ax.get_title() == "g: gradient norm"
    assert data_of(ax, "before clipping") == ([1, 2], [1, 2])
    with pytest.raises(ValueError, match=r"got one of several optimizers\. Pass prefix='g/' or 'd/'\."):
        plot_grad_norm(history)
    with pytest.raises(TypeError, match=r"need to be a list of them, such as guard\.diagnose\(\)"):
        plot_grad_norm(history, prefix="g/", findings=found[0])  # type: ignore[arg-type]


def test_the_loss_and_the_learning_rate_are_the_history() -> None:
    loss = points([1, 2, 3], [3.0, math.nan, 1.0])
    ax = plot_loss({"loss": loss, "learning_rate": points([1, 3], [0.1, 0.05])})
    np.testing.assert_array_equal(data_of(ax, "loss"), ([1, 2, 3], [3, np.nan, 1]))
    assert data_of(ax, "NaN or infinite")[0] == [2]
    (right,) = [other for other in ax.figure.axes if other is not ax]
    assert data_of(right, "learning rate") == ([1, 3], [0.1, 0.05])
    legend = ax.get_legend()
    assert legend is not None
    assert [text.get_text() for text in legend.get_texts()] == ["loss", "NaN or infinite", "learning rate"]
    png(ax)
    assert len(plot_loss({"loss": loss}).figure.axes) == 1


@pytest.mark.parametrize(
    ("draw", "table"), [(plot_layers, grad_norms_by_layer), (plot_layer_ratios, update_ratios_by_layer)]
)
def test_the_heat_map_of_layers_is_the_table(draw: Any, table: Any) -> None:
    history = layer_history()
    ax = draw(history, LAYOUT)
    right = table(history, LAYOUT)
    values, across, _ = mesh_of(ax)
    np.testing.assert_array_equal(values, right.values.T.numpy())
    assert across.tolist() == [step + 0.5 for step in range(7)]
    norm = ax.collections[0].norm
    assert (norm.vmin, norm.vmax) == (float(right.values.min()), float(right.values.max()))
    assert [text.get_text() for text in ax.get_yticklabels()] == ["a", "b", "c"]
    assert ax.get_ylim() == (2.5, -0.5)  # the first layer at the top
    assert len(ax.figure.axes) == 2
    assert len(draw(history, LAYOUT, colorbar=False).figure.axes) == 1
    other = layer_history("g/")
    np.testing.assert_array_equal(mesh_of(draw(other, LAYOUT, prefix="g/"))[0], values)
    assert draw(other, LAYOUT, prefix="g/").get_title().startswith("g: ")


def test_zero_infinity_and_nothing_are_told_apart() -> None:
    values = torch.tensor([[0.0, 1.0, math.nan, math.inf], [0.0, 1.0, 1e-9, 1e9]], dtype=torch.float64)
    layout = Layout("opt", tuple("abcd"), tuple("abcd"), (1,) * 4, (Role.WEIGHT,) * 4)
    history = History()
    history.extend("grad_norm", layout.names, rows(torch.tensor([1, 2]), values))
    ax = plot_layers(history, layout)
    (mesh,) = ax.collections
    colours = mesh.cmap(mesh.norm(mesh.get_array()[:, 0]))
    assert tuple(colours[0]) == to_rgba("black")
    assert tuple(colours[3]) == to_rgba("#D55E00")
    assert colours[2][3] == 0  # the grey behind is seen
    assert (mesh.norm.vmin, mesh.norm.vmax) == (1e-9, 1e9)
    assert ax.figure.axes[1].get_ylabel() == "gradient norm (black: 0, red: Inf)"
    png(ax)


@pytest.mark.parametrize("value", [0.0, 1.0, math.inf])
def test_one_value_alone_is_a_heat_map(value: float) -> None:
    history = {"grad_norm/a.weight": points([5], [value])}
    png(plot_layers(history, LAYOUT))
    png(plot_step(history, LAYOUT, 5))


def test_of_hundreds_of_layers_some_names_are_written() -> None:
    names = tuple(f"blocks.{i}.weight" for i in range(300))
    layout = Layout("opt", names, names, (1,) * 300, (Role.WEIGHT,) * 300)
    history = layer_history("", layout, 2)
    for ax in plot_layers(history, layout), plot_step(history, layout, 1):
        assert [text.get_text() for text in ax.get_yticklabels()] == list(names[::12])
        png(ax)


def test_a_step_is_the_history_with_weights_and_biases_apart() -> None:
    history = layer_history()
    ax = plot_step(history, LAYOUT, 4)
    value = {name: float(history[f"grad_norm/{name}"].last[3]) for name in NAMES}
    assert data_of(ax, "weights") == ([value["a.weight"], value["c.weight"]], [0, 2])
    assert data_of(ax, "biases") == ([value["a.bias"]], [0])
    assert data_of(ax, "others: norms, embeddings") == ([value["b.norm"]], [1])
    assert ax.get_title() == "Gradient norm by layer at step 4"
    assert ax.get_xscale() == "log"
    ratios = plot_step_ratios(history, LAYOUT, 4)
    assert data_of(ratios, "biases") == ([float(history["update_ratio/a.bias"].last[3])], [0])
    np.testing.assert_allclose(
        data_of(ratios, "weights")[0], [float(history[f"update_ratio/{n}"].last[3]) for n in ("a.weight", "c.weight")]
    )
    png(ratios)


def test_at_a_step_zero_and_infinity_lie_at_the_edges_and_nan_nowhere() -> None:
    layout = Layout("opt", tuple("abcd"), tuple("abcd"), (1,) * 4, (Role.WEIGHT,) * 4)
    history = {f"grad_norm/{n}": points([1], [v]) for n, v in zip("abcd", [0.0, 1.0, math.nan, math.inf], strict=True)}
    ax = plot_step(history, layout, 1)
    assert data_of(ax, "weights") == ([1.0], [1])
    assert data_of(ax, "weights 0")[1] == [0]
    assert data_of(ax, "weights Inf")[1] == [3]
    png(ax)


def test_the_nearest_step_that_was_kept_is_drawn() -> None:
    history = {"grad_norm/a.weight": points([1, 25, 50], [1.0, 2.0, 3.0])}
    assert plot_step(history, LAYOUT, 30).get_title().endswith("at step 25")
    assert data_of(plot_step(history, LAYOUT, 40), "weights")[0] == [3]
    for wrong in 51, 0:
        with pytest.raises(ValueError, match=r"plot_step needs .*, got (51|0)\."):
            plot_step(history, LAYOUT, wrong)
    with pytest.raises(ValueError, match=r"a step of the history, from 1 to 50, got 51\."):
        plot_step(history, LAYOUT, 51)


def test_the_gate_is_the_history() -> None:
    history = gate_history()
    found = gate_over_steps(history, "f")
    assert (found.layer, found.gate, found.least) == ("lstm.l0", "f", 0)
    ax = plot_gates_over_steps(history, "f", "lstm.l0")
    values, across, up = mesh_of(ax)
    for k in range(20):
        np.testing.assert_array_equal(values[k], history[f"gates/lstm.l0/f/bin_{k}"].last.numpy())
    assert across.tolist() == [-11, 13, 37.5, 62.5]
    np.testing.assert_allclose(up, np.arange(21) / 20)
    assert data_of(ax, "mean")[0] == [1, 25, 50]
    assert data_of(ax, "mean")[1] == pytest.approx([0.2, 0.5, 0.9])
    png(ax)


def test_a_gate_between_minus_one_and_one() -> None:
    ax = plot_gates_over_steps(gate_history("g"), "g", colorbar=False)
    np.testing.assert_allclose(mesh_of(ax)[2], np.linspace(-1, 1, 21))
    limits = [line.get_ydata()[0] for line in ax.lines if line.get_gid() != "mean"]
    assert limits == pytest.approx([-0.9486832980505138, 0.9486832980505138])
    assert len(ax.figure.axes) == 1


def test_gates_are_found_by_layer_and_optimizer() -> None:
    history = dict(gate_history()) | dict(gate_history("i")) | dict(gate_history(layer="gates/l1", prefix="g/"))
    assert gate_over_steps(history, "i").layer == "lstm.l0"
    assert gate_over_steps(history, "f", "g/gates/l1").layer == gate_over_steps(history, "f", "gates/l1").layer
    with pytest.raises(ValueError, match=r"of f of lstm\.l0, i of lstm\.l0, f of g/gates/l1; got 'f' of no layer\."):
        plot_gates_over_steps(history, "f")
    with pytest.raises(ValueError, match=r"got 'x' of 'lstm\.l0'\."):
        plot_gates_over_steps(history, "x", "lstm.l0")


EMPTY: dict[str, tuple[Callable[[Any], Any], str]] = {
    "plot_grad_norm": (plot_grad_norm, r"the series grad_norm/total, got an empty one\. Pass that of a guard that has"),
    "plot_loss": (plot_loss, r"the series loss, got an empty one\."),
    "plot_layers": (lambda h: plot_layers(h, LAYOUT), r"series of the parameters of 'opt', got an empty one\."),
    "plot_layer_ratios": (lambda h: plot_layer_ratios(h, LAYOUT), r"parameters of 'opt', got an empty one\."),
    "plot_step": (lambda h: plot_step(h, LAYOUT, 1), r"parameters of 'opt', got an empty one\."),
    "plot_step_ratios": (lambda h: plot_step_ratios(h, LAYOUT, 1), r"parameters of 'opt', got an empty one\."),
    "plot_gates_over_steps": (lambda h: plot_gates_over_steps(h, "f"), r"no series gates/\.\.\. in it\. Pass Guard"),
}


@pytest.mark.parametrize("who", EMPTY)
def test_an_empty_history_is_said(who: str) -> None:
    draw, match = EMPTY[who]
    with pytest.raises(ValueError, match=match):
        draw(History())
    with pytest.raises(TypeError, match=r"needs a history, such as guard\.history or .*, got object\."):
        draw(object())


def test_a_history_of_something_else_is_said() -> None:
    history = {"grad_norm/total": points([1], [1.0])}
    with pytest.raises(ValueError, match=r"got one without a loss\. Call guard\.record_loss\(loss\) at each step\."):
        plot_loss(history)
    with pytest.raises(ValueError, match=r"the series grad_norm/total, got one without it\."):
        plot_grad_norm({"loss": points([1], [1.0])})
    with pytest.raises(ValueError, match=r"got none under prefix=''\. .* with several optimizers the prefix 'opt/'\."):
        plot_layers(layer_history("g/"), LAYOUT)
    with pytest.raises(TypeError, match=r"needs the layout of one optimizer, such as .*\['optimizer'\], got dict\."):
        plot_layers(layer_history(), {"opt": LAYOUT})  # type: ignore[arg-type]


@pytest.mark.filterwarnings("ignore:Glyph .* missing from font")
def test_hostile_names_are_drawn_as_they_are() -> None:
    layout = Layout(HOSTILE, (f"{HOSTILE}.w", "$x$.w"), (HOSTILE, "$x$"), (1, 1), (Role.WEIGHT,) * 2)
    history, prefix = layer_history(f"{HOSTILE}/", layout), f"{HOSTILE}/"
    for draw in plot_layers, plot_layer_ratios:
        ax = draw(history, layout, prefix=prefix)
        png(ax)
        first, second = (text.get_text() for text in ax.get_yticklabels())
        assert first == "…" + " ".join(HOSTILE.split())[-31:]
        assert second == "$x$"
        assert not any(text.get_parse_math() for text in ax.get_yticklabels())
    png(plot_step(history, layout, 1, prefix=prefix))
    one = points([1, 2], [1.0, 2.0])
    png(plot_grad_norm({f"{prefix}grad_norm/total": one}, prefix=prefix, findings=[HEAD]))
    png(plot_loss({f"{prefix}loss": one}, prefix=prefix))
    gates = gate_history(layer=HOSTILE)
    assert gate_over_steps(gates, "f").layer == HOSTILE
    png(plot_gates_over_steps(gates, "f", HOSTILE))
    png(plot_memory(history_of({1: fading(20, 0.5)}, HOSTILE)))
    png(plot_profile(profile_of(fading(20, 0.5), HOSTILE)))


def test_a_real_run_and_its_record(tmp_path: Path) -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lstm, self.head = nn.LSTM(2, 4), nn.Linear(4, 1)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.lstm(x)[0][-1])  # type: ignore[no-any-return]

    net = Net()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    norms, losses = [], []
    folder = tmp_path / "run"
    with Guard(net, optimizer, every_n_steps=2, through_time=True, clip=NormClip(0.01), run_dir=folder) as guard:
        for _ in range(5):
            optimizer.zero_grad()
            loss = (net(torch.randn(30, 3, 2)) - 3).square().mean()
            loss.backward()
            norms.append(float(torch.linalg.vector_norm(torch.cat([p.grad.flatten() for p in net.parameters()]))))
            losses.append(float(loss.detach()))
            guard.record_loss(loss)
            optimizer.step()
    run = read(folder)
    (layout,) = run.layouts.values()
    for history in guard.history, run.history:
        ax = plot_grad_norm(history, findings=run.findings)
        np.testing.assert_allclose(data_of(ax, "before clipping"), ([1, 2, 3, 4, 5], norms), rtol=1e-5)
        np.testing.assert_allclose(data_of(ax, "after clipping")[1], [0.01] * 5, rtol=1e-4)
        assert data_of(ax, "clipped")[0] == [1, 2, 3, 4, 5]
        np.testing.assert_allclose(data_of(plot_loss(history), "loss")[1], losses, rtol=1e-6)
        layers = mesh_of(plot_layers(history, layout))[0]
        np.testing.assert_allclose(np.linalg.norm(layers, axis=0), norms, rtol=1e-5)
        assert [one.get_text() for one in plot_layers(history, layout).get_yticklabels()] == ["lstm.l0", "head"]
        assert plot_step_ratios(history, layout, 3).get_title().startswith("Update / weight by layer at step ")
        assert mesh_of(plot_gates_over_steps(history, "f"))[0].sum(0) == pytest.approx(1)
