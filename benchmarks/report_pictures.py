"""Make the README's pictures of the report: the demo's two runs, compared, in Debian's chromium.

``python -m benchmarks.report_pictures`` writes ``docs/images/report.png`` (the verdicts and the first charts) and
``docs/images/report_layers.png`` (all layers of the sick run). Needs the extras ``demo`` and ``test``.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
from pathlib import Path

from playwright.sync_api import sync_playwright

from gradguard.demo import demo
from gradguard.record import find_record
from gradguard.report import write_page

IMAGES = Path(__file__).parent.parent / "docs" / "images"
ARGUMENTS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run"]
WIDTH, HEIGHT = 1200, 900


def main() -> None:
    """Train, write both pages, and take their pictures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=20)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name, sync_playwright() as playwright:
        folder = Path(name)
        demo(epochs=arguments.epochs, logs=folder)
        sick = write_page([find_record(folder / "sick")], folder / "sick.html", ["twelve layers of sigmoids"])
        opened = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=ARGUMENTS)
        page = opened.new_page(viewport={"width": WIDTH, "height": HEIGHT})
        for path, image, section in (
            (folder / "report.html", "report.png", None),
            (sick, "report_layers.png", "#section-layers"),
        ):
            page.goto(path.as_uri())
            page.wait_for_timeout(2000)
            target = page.locator(section) if section else page
            target.screenshot(path=IMAGES / image)
        opened.close()


if __name__ == "__main__":
    main()
