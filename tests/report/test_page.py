"""The page in a real browser: what it draws is the record's, nothing is fetched, and nobody's name runs a script."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from playwright.sync_api import Browser, Page, sync_playwright
from torch import nn

from gradguard import Guard
from gradguard.clip import NormClip
from gradguard.detect import Layout, Role
from gradguard.record import History, Points, Run, find_record, read
from gradguard.report import grad_norms_by_layer, write_page

CHROMIUM = shutil.which("chromium")
ARGUMENTS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
]
HOSTILE = "</script><img src=x onerror=alert(1)>\"'`{{7*7}}${7*7}\u2028ä 漢"
SHOTS = os.environ.get("GRADGUARD_SCREENSHOTS")

pytestmark = [
    pytest.mark.skipif(CHROMIUM is None, reason="needs chromium, Debian's package"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]


def train(folder: Path, *, sick: bool, layers: int = 10, steps: int = 90, prefix: str = "") -> Path:
    """A deep network of sigmoids, or of ReLU, and its record."""
    torch.manual_seed(0)
    parts: dict[str, nn.Module] = {}
    for i in range(layers):
        linear = nn.Linear(8, 8)
        if not sick:
            nn.init.kaiming_normal_(linear.weight, nonlinearity="relu")
        parts[f"{prefix}layer{i}"] = linear
        parts[f"{prefix}act{i}"] = nn.Sigmoid() if sick else nn.ReLU()
    model = nn.Sequential()
    for name, part in parts.items():
        model._modules[name] = part  # a name with anything in it, as a state dict may have
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    with Guard(model, optimizer, clip=NormClip(1.0), run_dir=folder) as guard:
        for _ in range(steps):
            optimizer.zero_grad()
            loss = (model(torch.randn(16, 8)) - 1).square().mean()
            guard.record_loss(loss)
            loss.backward()
            optimizer.step()
    return folder


def large(of: Run, layers: int, points: int) -> Run:
    """A run of many layers, made up: stages of a hundred blocks' layers each."""
    names = [f"stage{i // 100}.block{i % 100 // 10}.linear{i % 10}" for i in range(layers)]
    parameters, steps = tuple(f"{name}.weight" for name in names), torch.arange(1, points + 1) * 1000
    norms = torch.logspace(-8, 0, layers).expand(points, -1) * torch.rand(points, 1).add(0.5)
    history = History(points)
    for group in ("grad_norm", "weight_norm", "update_ratio"):
        history.extend(group, parameters, Points(steps, norms, norms, norms))
    total = norms.norm(dim=1, keepdim=True)
    history.extend("grad_norm/total", ("",), Points(steps, total, total / 2, total * 2))
    layout = Layout("optimizer", parameters, tuple(names), (64,) * layers, (Role.WEIGHT,) * layers)
    return replace(of, history=history, layouts={"optimizer": layout})


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("runs")
    return {name: train(folder / name, sick=name == "sick") for name in ("sick", "cured")}


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield opened
        opened.close()


class Opened:
    """A page that was opened, and everything that it should not do."""

    def __init__(self, browser: Browser, path: Path, **context: Any) -> None:
        self.context = browser.new_context(offline=True, **context)
        self.page: Page = self.context.new_page()
        self.bad: list[str] = []
        self.page.on("console", lambda m: self.bad.append(m.text) if m.type in ("error", "warning") else None)
        self.page.on("pageerror", lambda error: self.bad.append(str(error)))
        self.page.on("dialog", lambda dialog: (self.bad.append(f"dialog {dialog.message}"), dialog.dismiss()))
        self.page.on("request", lambda r: None if r.url == path.as_uri() else self.bad.append(f"request {r.url[:80]}"))
        self.page.goto(path.as_uri())
        self.until("window.gradguard && window.gradguard.drawn > 0")

    def __call__(self, script: str) -> Any:
        return self.page.evaluate(script)

    def until(self, script: str, seconds: float = 60.0) -> None:
        """Wait; Playwright's own waiting evaluates text, which the page forbids."""
        end = time.monotonic() + seconds
        while not self(script):
            assert time.monotonic() < end, script
            self.page.wait_for_timeout(50)

    def close(self) -> None:
        self.context.close()
        assert self.bad == []


@pytest.fixture
def opened(browser: Browser, request: pytest.FixtureRequest) -> Iterator[Any]:
    made: list[Opened] = []

    def open_page(path: Path, **context: Any) -> Opened:
        made.append(Opened(browser, path, **context))
        return made[-1]

    yield open_page
    for one in made:
        if SHOTS:
            Path(SHOTS).mkdir(parents=True, exist_ok=True)
            one.page.screenshot(path=f"{SHOTS}/{request.node.name}.png", full_page=True)
        one.close()


@pytest.fixture(scope="module")
def sick(runs: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_page([runs["sick"]], tmp_path_factory.mktemp("pages") / "sick.html")


@pytest.fixture(scope="module")
def run(runs: dict[str, Path]) -> Run:
    return read(runs["sick"])


def test_a_person_reads_the_verdict_first(sick: Path, opened: Any, run: Run) -> None:
    page = opened(sick).page
    title = page.locator("h1, h2").first
    assert "Critical" in page.locator(".badge").first.inner_text()
    assert run.findings[0].advice[0] in page.locator("body").inner_text()
    assert page.locator(".badge").first.bounding_box()["y"] < 200
    assert title.is_visible()


def test_lines_are_those_of_the_record(sick: Path, opened: Any, run: Run) -> None:
    page = opened(sick)
    for chart, key in (("norm", "grad_norm/total"), ("loss", "loss")):
        drawn = page(
            f"window.gradguard.charts['{chart}'].getOption().series"
            ".filter(s => s.type === 'line' && s.data && s.data.length > 5).map(s => s.data)"
        )
        points = run.history[key]
        expected = np.array([points.steps.numpy(), points.last.double().numpy()]).T
        assert any(len(one) == len(expected) and np.allclose(one, expected, rtol=1e-5) for one in drawn)


def test_the_heat_map_is_that_of_the_record(sick: Path, opened: Any, run: Run) -> None:
    page = opened(sick)
    table = grad_norms_by_layer(run.history, run.layouts["optimizer"])
    for row in (0, len(table.layers) - 1):
        found = page(f"Array.from(window.gradguard.row(0, 'grad', {row}))")
        assert found == pytest.approx(table.values[:, row].tolist(), rel=2e-3)
    labels = [row["label"] for row in page("window.gradguard.state()")["rows"]]
    assert labels == list(table.layers)


def test_a_click_pins_a_step_and_all_layers_are_shown_there(sick: Path, opened: Any, run: Run) -> None:
    page = opened(sick)
    x, y = page("window.gradguard.at('norm', 60, 0.5)")
    page.page.mouse.move(x, y)
    page.until("!document.querySelector('#tip').hidden")
    page.page.mouse.click(x, y)
    state = page("window.gradguard.state()")
    assert state["pinned"]
    assert abs(state["step"] - 60) <= 1
    table = grad_norms_by_layer(run.history, run.layouts["optimizer"])
    expected = table.values[table.steps.tolist().index(state["step"])].tolist()
    assert state["profile"][0] == pytest.approx(expected, rel=2e-3)


def test_zoom_is_shared_and_taken_back(sick: Path, opened: Any) -> None:
    page = opened(sick)
    (x1, y), (x2, _) = (page(f"window.gradguard.at('norm', {step}, 0.5)") for step in (20, 60))
    page.page.mouse.move(x1, y)
    page.page.mouse.down()
    page.page.mouse.move(x2, y, steps=5)
    page.page.mouse.up()
    low, high = page("window.gradguard.state().window")
    assert (low, high) == (pytest.approx(20, abs=3), pytest.approx(60, abs=3))
    for chart in ("norm", "loss", "layers0"):
        zoom = page(f"window.gradguard.charts['{chart}'].getOption().dataZoom[0]")
        assert (zoom["startValue"], zoom["endValue"]) == (pytest.approx(low, abs=2), pytest.approx(high, abs=2))
    page.page.locator("#reset").click()
    assert page("window.gradguard.state().window[1] - window.gradguard.state().window[0]") > 80


def test_search_and_keys(sick: Path, opened: Any) -> None:
    page = opened(sick)
    page.page.locator("body").press("/")
    page.page.keyboard.type("layer3")
    page.until("window.gradguard.state().rows.length === 1")
    page.page.keyboard.press("Escape")
    page.until("window.gradguard.state().rows.length === 10")
    page.page.locator("#chart-norm").focus()
    before = page("window.gradguard.state().step")
    page.page.keyboard.press("ArrowLeft")
    assert page("window.gradguard.state().step") == before - 1


def test_a_finding_leads_to_its_place(sick: Path, opened: Any, run: Run) -> None:
    page = opened(sick)
    page.page.locator("#step").fill("70")
    page.page.locator("#step").press("Enter")
    before = page("window.scrollY")
    page.page.locator(".place").last.click()
    state = page("window.gradguard.state()")
    run_index, place = state["finding"]
    chosen = page("window.gradguard.data")["runs"][run_index]["optimizers"][0]["findings"][place]
    assert chosen["symptom"] == run.findings[-1].symptom.value
    page.until(f"window.scrollY !== {before} || window.gradguard.state().step !== 70")


def test_two_runs_are_compared(runs: dict[str, Path], opened: Any, tmp_path: Path) -> None:
    page = opened(write_page([runs["sick"], runs["cured"]], tmp_path / "both.html"))
    badges = page.page.locator(".badge").all_inner_texts()
    assert [text.split()[-1] for text in badges[:2]] == ["Critical", "Healthy"]
    state = page("window.gradguard.state()")
    assert len(state["profile"]) == 2
    lowest, highest = state["range"]
    tables = [grad_norms_by_layer(r.history, r.layouts["optimizer"]).values for r in map(read, runs.values())]
    norms = np.log10(torch.cat([table[table > 0] for table in tables]).numpy())  # all but the outermost have a colour
    assert lowest <= np.quantile(norms, 0.02)
    assert highest >= np.quantile(norms, 0.98)


@pytest.mark.parametrize("scheme", ["dark", "light"])
def test_a_phone_and_both_schemes(sick: Path, opened: Any, scheme: str) -> None:
    page = opened(sick, viewport={"width": 400, "height": 800}, color_scheme=scheme)
    assert page("document.documentElement.scrollWidth") <= 400
    assert page("window.gradguard.state().dark") is (scheme == "dark")
    page.page.locator("#theme").click()
    assert page("window.gradguard.state().dark") is (scheme == "light")


def test_names_run_no_script(opened: Any, tmp_path: Path) -> None:
    folder = train(tmp_path / "run", sick=True, prefix=HOSTILE)
    page = opened(write_page([folder], tmp_path / "hostile.html", names=[HOSTILE]))
    assert page("document.querySelectorAll('img').length") == 0
    assert page("window.gradguard.data.runs[0].name") == HOSTILE
    assert page("window.gradguard.data.runs[0].optimizers[0].layers.names[0]").startswith(HOSTILE)
    page.page.locator("#section-layers").scroll_into_view_if_needed()
    x, y = page("window.gradguard.at('layers0', 30, 0.5)")
    page.page.mouse.move(x, y)
    page.until("!document.querySelector('#tip').hidden")
    assert "onerror" in page.page.locator("#tip").inner_text()


def test_an_empty_record_and_a_torn_one(runs: dict[str, Path], opened: Any, tmp_path: Path) -> None:
    model = nn.Linear(2, 1)
    with Guard(model, torch.optim.SGD(model.parameters(), lr=0.1), run_dir=tmp_path / "empty") as guard:
        guard.open_record()
    page = opened(write_page([tmp_path / "empty"], tmp_path / "empty.html"))
    assert "No step was made" in page.page.locator("body").inner_text()
    torn = Path(shutil.copytree(runs["sick"], tmp_path / "torn"))
    last = torn / read(torn).manifest.segments[-1]
    last.write_bytes(last.read_bytes()[:-9])
    page = opened(write_page([find_record(torn)], tmp_path / "torn.html"))
    assert "torn line" in page.page.locator("body").inner_text()


def test_thousands_of_layers_are_grouped_by_module_and_found(
    opened: Any, runs: dict[str, Path], tmp_path: Path
) -> None:
    page = opened(write_page([large(read(runs["sick"]), layers=2000, points=300)], tmp_path / "large.html"))
    rows = page("window.gradguard.state()")["rows"]
    assert len(rows) <= 200
    assert sum(row["layers"] for row in rows) == 2000
    page.page.locator("#search").fill("stage7 block3.")
    page.until("window.gradguard.state().rows.length < 40")
    labels = [row["label"] for row in page("window.gradguard.state()")["rows"]]
    assert all("stage7" in label for label in labels)
    assert any("block3." in label for label in labels)
