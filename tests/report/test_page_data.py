"""What the page of a run is given: it equals the record, in few bytes."""

from __future__ import annotations

import base64
import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from gradguard import Guard
from gradguard.clip import NormClip
from gradguard.detect import Finding, Layout, Role, Severity, Symptom
from gradguard.detect.wording import cell
from gradguard.probe import ThroughTime
from gradguard.record import Points, Run, read
from gradguard.report import grad_norms_by_layer, update_ratios_by_layer
from gradguard.report.grid import CELLS, grid_data, merged
from gradguard.report.page import json_of
from gradguard.report.page_data import page_data, run_data
from gradguard.report.series import series_data, steps_where, thinned
from gradguard.report.verdict import WORDS, verdict

HOSTILE = "</script><img src=x onerror=alert(1)>\"'`{{7*7}}\u2028../../etc ä 漢"


def decoded(grid: dict[str, Any]) -> np.ndarray:
    """Read a grid as the page does: [rows, columns]."""
    codes = np.frombuffer(base64.b64decode(grid["data"]), "<u2").reshape(grid["rows"], len(grid["x"])).astype(float)
    place = grid["least"] + (codes - 2) / 65532 * (grid["most"] - grid["least"])
    values = 10**place if grid["scale"] == "log" else place
    values[codes == 0], values[codes == 1], values[codes == 65535] = np.nan, 0.0, np.inf
    return values


def points(values: list[float], first: int = 1) -> Points:
    each = torch.tensor(values)
    return Points(torch.arange(first, first + len(values)), each, each, each)


def finding(symptom: Symptom, severity: Severity = Severity.CRITICAL, *where: str, active: bool = True) -> Finding:
    return Finding(symptom, severity, where, "optimizer", 3, 40, active, {"share": 0.12345}, "It is so.")


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lstm, self.head = nn.LSTM(3, 8, batch_first=True), nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.lstm(x)[0][:, -1])


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    torch.manual_seed(0)
    model, folder = Net(), tmp_path_factory.mktemp("runs") / "net"
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    looks = ThroughTime(10)
    with Guard(model, optimizer, clip=NormClip(0.3), through_time=looks, every_n_steps=10, run_dir=folder) as guard:
        for step in range(60):
            optimizer.param_groups[0]["lr"] = 1e-2 * 0.97**step
            optimizer.zero_grad()
            loss = model(torch.randn(8, 25, 3)).square().mean()
            guard.record_loss(loss)
            loss.backward()
            optimizer.step()
    return read(folder)


class TestGrid:
    @settings(max_examples=50, deadline=None)
    @given(st.lists(st.floats(1e-30, 1e30), min_size=1, max_size=40), st.integers(1, 4))
    def test_log(self, values: list[float], rows: int) -> None:
        table = torch.tensor(values, dtype=torch.float64)[:, None].expand(-1, rows)
        found = decoded(grid_data(torch.arange(len(values)), table))
        decades = math.log10(max(values)) - math.log10(min(values))
        assert np.allclose(found, table.T, rtol=10 ** (decades / 65532) - 1 + 1e-9)

    def test_what_is_no_number_has_a_code_of_its_own(self) -> None:
        table = torch.tensor([[0.0, 1e-3], [torch.nan, 2.0], [torch.inf, 1.0]], dtype=torch.float64)
        found = decoded(grid_data(torch.tensor([1, 5, 9]), table))
        assert found[0, 0] == 0
        assert np.isnan(found[0, 1])
        assert np.isinf(found[0, 2])
        assert found[1] == pytest.approx([1e-3, 2.0, 1.0], rel=1e-3)

    @pytest.mark.parametrize("log", [True, False])
    def test_bounds_that_are_given_hold(self, log: bool) -> None:
        table = torch.tensor([[1e-9, 0.5, 1.0]], dtype=torch.float64)
        grid = grid_data(torch.tensor([1]), table, log=log, least=1e-6, most=1.0)
        assert decoded(grid)[:, 0] == pytest.approx([1e-6, 0.5, 1.0], rel=1e-3)

    def test_alike_and_empty(self) -> None:
        assert decoded(grid_data(torch.tensor([1, 2]), torch.ones(2, 3))).tolist() == [[1.0, 1.0]] * 3
        assert np.isnan(decoded(grid_data(torch.tensor([1]), torch.full((1, 2), torch.nan)))).all()
        assert decoded(grid_data(torch.zeros(0), torch.zeros(0, 4))).shape == (4, 0)

    def test_it_stays_small(self) -> None:
        grid = grid_data(torch.arange(5000), torch.rand(5000, 500) + 0.1)
        assert len(grid["x"]) * grid["rows"] <= CELLS
        assert grid["x"][-1] == 4999
        assert len(grid["data"]) < 1_400_000

    @settings(max_examples=40, deadline=None)
    @given(st.integers(1, 60), st.integers(1, 60))
    def test_merged_columns_keep_the_largest(self, columns: int, most: int) -> None:
        values = torch.rand(columns, 3, dtype=torch.float64)
        values[columns // 2] = torch.tensor([torch.inf, torch.nan, 0.0], dtype=torch.float64)
        steps, found = merged(torch.arange(1, columns + 1), values, most)
        assert len(steps) == len(found) <= most
        start = 0
        for stop, row in zip(steps.tolist(), found, strict=True):
            for column, value in enumerate(row.tolist()):
                there = [x for x in values[start:stop, column].tolist() if not math.isnan(x)]
                assert value == max(there) if there else math.isnan(value)
            start = stop
        assert start == columns


class TestSeries:
    @settings(max_examples=60, deadline=None)
    @given(st.lists(st.floats(-1e6, 1e6) | st.just(math.nan), min_size=1, max_size=300), st.integers(1, 50))
    def test_thinned_loses_no_extreme(self, values: list[float], most: int) -> None:
        found = thinned(points(values), most)
        assert len(found.steps) <= most
        assert int(found.steps[-1]) == len(values)
        known = torch.tensor([v for v in values if not math.isnan(v)])
        if len(known):
            assert float(found.low.nan_to_num(math.inf).min()) == float(known.min())
            assert float(found.high.nan_to_num(-math.inf).max()) == float(known.max())
        else:
            assert bool(found.low.isnan().all())

    def test_what_is_not_finite_is_said_where(self) -> None:
        data = series_data(points([1.0, math.nan, math.inf, 0.123456789]))
        assert data == {"x": [1, 2, 3, 4], "y": [1.0, None, None, 0.123457], "bad": [2, 3]}

    def test_extremes_only_where_they_differ(self) -> None:
        wide = points([1.0, 2.0])._replace(low=torch.tensor([0.5, 2.0]))
        assert series_data(wide) == {"x": [1, 2], "y": [1.0, 2.0], "low": [0.5, 2.0], "high": [1.0, 2.0]}
        assert series_data(None) is None
        assert series_data(points([])) is None

    def test_marks_are_few(self) -> None:
        assert steps_where(points([1.0] * 10), torch.arange(10) % 2 == 0) == [1, 3, 5, 7, 9]
        assert len(steps_where(points([1.0] * 9999), most=100)) <= 100
        assert steps_where(None) == []


class TestLayers:
    def test_norms_are_those_of_the_parameters(self, run: Run) -> None:
        layout = run.layouts["optimizer"]
        table = grad_norms_by_layer(run.history, layout)
        assert table.layers == ("lstm.l0", "head")
        for column, layer in enumerate(table.layers):
            names = [n for n, at in zip(layout.names, layout.layers, strict=True) if at == layer]
            of = [run.history[f"grad_norm/{name}"].last for name in names]
            norms = np.sqrt(sum(np.float64(norm) ** 2 for norm in of))
            assert table.values[:, column].numpy() == pytest.approx(norms, rel=1e-6)

    def test_ratios_are_over_all_weights_of_a_layer(self, run: Run) -> None:
        layout = run.layouts["optimizer"]
        table = update_ratios_by_layer(run.history, layout)
        of = [n for n, at in zip(layout.names, layout.layers, strict=True) if at == "head"]
        weights, ratios = (
            [np.float64(run.history[f"{key}/{n}"].last) for n in of] for key in ("weight_norm", "update_ratio")
        )
        moved = np.sqrt(sum((r * w) ** 2 for r, w in zip(ratios, weights, strict=True)))
        total = np.sqrt(sum(w**2 for w in weights))
        assert table.values[:, 1].numpy() == pytest.approx(moved / total, rel=1e-5)

    @pytest.mark.parametrize(("p", "expected"), [(2.0, 5.0), (1.0, 7.0), (math.inf, 4.0)])
    def test_the_guards_norm_joins(self, p: float, expected: float) -> None:
        layout = Layout("optimizer", ("a.w", "total"), ("a", "a"), (1, 1), (Role.WEIGHT, Role.OTHER), p)
        history = {"grad_norm/a.w": points([3.0, math.nan]), "grad_norm/param.total": points([4.0, math.nan])}
        values = grad_norms_by_layer(history, layout).values[:, 0]
        assert float(values[0]) == pytest.approx(expected)
        assert bool(values[1].isnan())

    def test_a_parameter_that_joins_is_left_out_before_and_a_nan_is_one_after(self) -> None:
        layout = Layout("optimizer", ("a", "b"), ("l", "l"), (1, 1), (Role.WEIGHT, Role.BIAS))
        history = {"grad_norm/a": points([3.0, 3.0, math.nan]), "grad_norm/b": points([math.nan, 4.0, 4.0])}
        assert grad_norms_by_layer(history, layout).values[:, 0].tolist()[:2] == [3.0, 5.0]
        assert bool(grad_norms_by_layer(history, layout).values[2, 0].isnan())

    def test_nothing_measured(self) -> None:
        layout = Layout("optimizer", ("a",), ("a",), (1,), (Role.WEIGHT,))
        for of in (grad_norms_by_layer, update_ratios_by_layer):
            assert of({}, layout).values.shape == (0, 1)


class TestVerdict:
    def test_every_symptom_has_words(self) -> None:
        assert set(WORDS) == set(Symptom)

    @pytest.mark.parametrize(
        ("findings", "steps", "state", "title"),
        [
            ([], 0, "empty", "No step was made"),
            ([], 10, "info", "Too few steps for a verdict"),
            ([], 1000, "healthy", "Healthy"),
            ([finding(Symptom.CLIPPED_UPSTREAM, Severity.INFO)], 1000, "healthy", "Healthy"),
            ([finding(Symptom.DEAD_UNITS)], 5, "critical", "Units are dead"),
            (
                [finding(Symptom.DEAD_UNITS), finding(Symptom.NON_FINITE)],
                99,
                "critical",
                "Units are dead, and one more",
            ),
            (
                [finding(Symptom.LOSS_SPIKE, Severity.WARNING)] * 3,
                99,
                "warning",
                "The loss jumped, and 2 more findings",
            ),
        ],
    )
    def test_titles(self, findings: list[Finding], steps: int, state: str, title: str) -> None:
        said = verdict(findings, steps)
        assert said["state"] == state
        assert said["title"].startswith(title)

    def test_what_where_since_when_and_what_first(self) -> None:
        said = verdict([finding(Symptom.VANISHING_DEPTH, Severity.CRITICAL, "layer1")], 100)
        assert said["text"] == ["The gradient vanishes over the layers, in layer1 since step 3, ongoing. It is so."]
        assert said["first"] == list(finding(Symptom.VANISHING_DEPTH).advice)


class TestRun:
    def test_all_of_it_is_there(self, run: Run) -> None:
        data = json.loads(json_of(page_data([("net", run)], "1.0")))
        (one,) = data["runs"]
        (optimizer,) = one["optimizers"]
        assert (one["name"], optimizer["steps"], one["problems"]) == ("net", 60, [])
        assert set(optimizer["series"]) == {
            *("grad_norm", "clipped_norm", "threshold", "coefficient", "loss", "learning_rate", "moved")
        }
        assert ["Steps", "60"] in one["facts"]
        assert ["Device", "cpu"] in one["facts"]

    def test_series_equal_the_records(self, run: Run) -> None:
        series = run_data("net", run)["optimizers"][0]["series"]
        for name, key in (("grad_norm", "grad_norm/total"), ("loss", "loss"), ("learning_rate", "learning_rate")):
            assert series[name]["x"] == run.history[key].steps.tolist()
            assert series[name]["y"] == pytest.approx(run.history[key].last.tolist(), rel=1e-5)
        rate = dict(zip(series["learning_rate"]["x"], series["learning_rate"]["y"], strict=True))
        assert rate[50] == pytest.approx(1e-2 * 0.97**49, rel=1e-5)

    def test_heat_maps_equal_the_records(self, run: Run) -> None:
        optimizer = run_data("net", run)["optimizers"][0]
        table = grad_norms_by_layer(run.history, run.layouts["optimizer"])
        assert decoded(optimizer["layers"]["grad"]) == pytest.approx(table.values.T.numpy(), rel=1e-3)
        assert optimizer["layers"]["names"] == ["lstm.l0", "head"]
        (memory,) = optimizer["memory"]
        assert (memory["layer"], memory["grid"]["y"][:3]) == ("lstm.l0", [0, 1, 2])
        assert {gate["gate"] for gate in optimizer["gates"]} == {"i", "f", "g", "o"}
        shares = decoded(optimizer["gates"][0]["grid"])
        assert shares.sum(0) == pytest.approx(np.ones(shares.shape[1]), abs=1e-3)

    def test_clipped_steps_are_marked(self, run: Run) -> None:
        marks = run_data("net", run)["optimizers"][0]["marks"]
        coefficient = run.history["clip/coefficient"]
        assert marks["clipped"] == coefficient.steps[coefficient.last < 1].tolist()
        assert marks["skipped"] == []

    def test_a_finding_knows_its_rows(self, run: Run) -> None:
        sick = replace(run, findings=(finding(Symptom.NO_GRADIENT, Severity.WARNING, "head.weight", "elsewhere"),))
        (found,) = run_data("net", sick)["optimizers"][0]["findings"]
        assert (found["layers"], found["severity"], found["first_step"]) == ([1], "warning", 3)
        assert found["evidence"] == [["share", "0.123"]]
        assert found["advice"]

    def test_an_empty_record(self, tmp_path: Path) -> None:
        model = nn.Linear(2, 1)
        with Guard(model, torch.optim.SGD(model.parameters(), lr=0.1), run_dir=tmp_path / "run") as guard:
            guard.open_record()
        data = run_data("empty", read(tmp_path / "run"))
        assert data["verdict"]["state"] == "empty"
        assert data["optimizers"] == []


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (0.000123456, "0.000123"),
        (math.inf, "inf"),
        (3, "3"),
        ("text", "text"),
        ({"": 1.0, "b": 2}, "(root): 1, b: 2"),
        ({str(i): i for i in range(100)}, None),
    ],
)
def test_evidence_in_words(value: object, words: str | None) -> None:
    found = cell(value, 40)
    assert found == words if words is not None else found.count(",") == 40


def test_json_may_stand_in_a_script() -> None:
    text = json_of({HOSTILE: [HOSTILE]})
    assert not set("<>&\u2028\u2029") & set(text)
    assert json.loads(text) == {HOSTILE: [HOSTILE]}
    with pytest.raises(ValueError, match="Out of range float"):
        json_of(math.nan)


def test_steps_that_all_overflowed_are_steps() -> None:
    said = verdict([finding(Symptom.NON_FINITE)], 0)
    assert said["state"] == "critical"


@pytest.mark.parametrize("whole", [True, False])
def test_a_run_that_broke_off_is_not_called_healthy(whole: bool) -> None:
    assert (verdict([], 1000, whole=whole)["state"] == "healthy") is whole


def test_two_optimizers_of_which_one_has_stepped(tmp_path: Path) -> None:
    models = {"a": nn.Linear(2, 1), "b": nn.Linear(2, 1)}
    optimizers = {name: torch.optim.SGD(model.parameters(), lr=0.1) for name, model in models.items()}
    with Guard(models, optimizers, run_dir=tmp_path / "run") as guard:
        for _ in range(3):
            models["a"](torch.ones(1, 2)).sum().backward()
            optimizers["a"].step()
    for run in (read(tmp_path / "run"), guard._journal.so_far()):
        found = {one["name"]: one for one in run_data("gan", run)["optimizers"]}
        assert found["a"]["steps"] == 3
        assert found["a"]["series"]["grad_norm"]["x"] == [1, 2, 3]


def test_a_nan_among_many_steps_is_still_said() -> None:
    values = [1.0] * 9999
    values[1234] = math.nan
    assert series_data(points(values))["bad"] == [1235]


def test_a_place_without_parameters_leads_nowhere(run: Run) -> None:
    loose = Layout("optimizer", ("cls",), ("",), (1,), (Role.OTHER,))
    sick = replace(
        run, layouts={"optimizer": loose}, findings=(finding(Symptom.DEAD_UNITS, Severity.WARNING, "relu1"),)
    )
    (found,) = run_data("net", sick)["optimizers"][0]["findings"]
    assert found["layers"] == []


def test_a_resumed_run_goes_on(tmp_path: Path) -> None:
    model = nn.Linear(2, 1)
    with Guard(model, torch.optim.SGD(model.parameters(), lr=0.1), run_dir=tmp_path / "run") as guard:
        state = guard.state_dict()
    other = nn.Linear(2, 1)
    with Guard(other, torch.optim.SGD(other.parameters(), lr=0.1), run_dir=tmp_path / "run") as again:
        again.load_state_dict(state)
        assert again._journal.so_far().manifest.status == "running"
