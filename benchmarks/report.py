"""The report's page: how large it is, and how long a browser takes to draw it.

Made-up runs whose history is as full as a million steps leave it (1,000 points of each layer), in Debian's chromium,
headless and without a GPU, each in a fresh page. Drawn: from the first line of our script to the last chart, as the
page measures itself. Until it is there: from the browser's start of the navigation until then, ECharts read included.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from playwright.sync_api import Browser, sync_playwright
from torch import nn

from benchmarks.timing import machine, table
from gradguard import Guard
from gradguard.detect import Layout, Role
from gradguard.record import History, Points, Run, read
from gradguard.report import write_page

RESULTS = Path(__file__).parent / "results" / "report.md"
ARGUMENTS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run"]
POINTS = 1000


def large(folder: Path, layers: int) -> Run:
    """Make up a run of many layers."""
    model = nn.Linear(2, 1)
    with Guard(model, torch.optim.SGD(model.parameters(), lr=0.1), run_dir=folder) as guard:
        guard.open_record()
    names = [f"stage{i // 100}.block{i % 100 // 10}.linear{i % 10}" for i in range(layers)]
    parameters, steps = tuple(f"{name}.weight" for name in names), torch.arange(1, POINTS + 1) * 1000
    values = torch.logspace(-8, 0, layers).expand(POINTS, -1) * torch.rand(POINTS, layers).add(0.5)
    history = History(2 * POINTS)
    for group in ("grad_norm", "weight_norm", "update_ratio"):
        history.extend(group, parameters, Points(steps, values, values, values))
    total = values.norm(dim=1, keepdim=True)
    for group in ("grad_norm/total", "loss", "update_norm/relative"):
        history.extend(group, ("",), Points(steps, total, total / 2, total * 2))
    layout = Layout("optimizer", parameters, tuple(names), (64,) * layers, (Role.WEIGHT,) * layers)
    return replace(read(folder), history=history, layouts={"optimizer": layout})


def times(browser: Browser, page: Path, rounds: int) -> tuple[list[float], list[float]]:
    """Give the milliseconds of drawing, and those until the page is there, of each round."""
    drawn, there = [], []
    for _ in range(rounds):
        opened = browser.new_page(viewport={"width": 1280, "height": 900})
        opened.goto(page.as_uri())
        while not opened.evaluate("window.gradguard && window.gradguard.drawn > 0"):
            opened.wait_for_timeout(20)
        took, began = opened.evaluate("[window.gradguard.drawn, window.gradguard.began]")
        drawn.append(took)
        there.append(began + took)
        opened.close()
    return drawn, there


def spread(values: Sequence[float]) -> str:
    """Write a median with the least and the largest."""
    return f"{statistics.median(values):.0f} [{min(values):.0f}, {max(values):.0f}]"


def main() -> None:
    """Measure, print, and write where asked to."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--write", action="store_true", help=f"write {RESULTS.name}, too")
    arguments = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as name, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=ARGUMENTS)
        for layers in (12, 500, 2000):
            page = write_page([large(Path(name) / str(layers), layers)], Path(name) / f"{layers}.html", ["made up"])
            drawn, there = times(browser, page, arguments.rounds)
            rows.append([f"{layers:,}", f"{page.stat().st_size / 1e6:.2f}", spread(drawn), spread(there)])
        browser.close()
    about = (sys.modules[__name__].__doc__ or "").strip()
    text = f"# The report's page\n\n{machine()}.\n\n{about}\n\n" + table(
        ["layers", "page, MB", "drawn, ms", "until it is there, ms"], rows
    )
    print(text)
    if arguments.write:
        RESULTS.write_text(text + "\n")


if __name__ == "__main__":
    main()
