"""Where the page comes from and where it goes: records, guards, the command line; and what can't be."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import nn

import gradguard
from gradguard import Guard
from gradguard.cli import main
from gradguard.errors import RecordError
from gradguard.record import find_record, read
from gradguard.report import write_page


def recorded(folder: Path, steps: int = 5) -> Guard:
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 1))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with Guard(model, optimizer, run_dir=folder) as guard:
        for _ in range(steps):
            optimizer.zero_grad()
            model(torch.randn(8, 3)).square().mean().backward()
            optimizer.step()
    return guard


def data_of(page: Path) -> dict:
    text = page.read_text()
    start = text.index('id="gradguard-data"')
    return json.loads(text[text.index(">", start) + 1 : text.index("</script>", start)])


def test_a_guard_writes_its_run_also_after_it_was_closed(tmp_path: Path) -> None:
    guard = recorded(tmp_path / "run")
    path = guard.report(tmp_path / "new" / "report.html")
    assert path == tmp_path / "new" / "report.html"
    (run,) = data_of(path)["runs"]
    (same,) = data_of(write_page([tmp_path / "run"], tmp_path / "other.html"))["runs"]
    assert run["name"] == "Sequential"
    assert (run["optimizers"], run["verdict"]) == (same["optimizers"], same["verdict"])
    assert ["Status", "finished"] in run["facts"]


def test_a_run_that_goes_on_can_be_told(tmp_path: Path) -> None:
    model = nn.Linear(2, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with Guard(model, optimizer) as guard:
        model(torch.ones(1, 2)).sum().backward()
        optimizer.step()
        (run,) = data_of(guard.report(tmp_path / "a.html"))["runs"]
    assert ["Status", "running"] in run["facts"]
    assert run["optimizers"][0]["steps"] == 1


def test_the_page_asks_for_nothing(tmp_path: Path) -> None:
    recorded(tmp_path / "run")
    text = write_page([tmp_path / "run"], tmp_path / "a.html").read_text()
    for word in ('src="', "@import", "url(http", '<link rel="stylesheet"'):
        assert word not in text.replace("'", '"')
    assert "Apache" in text  # the licence of what draws travels along


def test_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("before", "after"):
        recorded(tmp_path / name / "version_0" / "gradguard")
    out = tmp_path / "page.html"
    assert main(["report", str(tmp_path / "before"), str(tmp_path / "after"), "-o", str(out)]) == 0
    assert capsys.readouterr().out.strip() == str(out)
    assert [run["name"] for run in data_of(out)["runs"]] == ["before/version_0", "after/version_0"]
    assert data_of(out)["version"] == gradguard.__version__


@pytest.mark.parametrize(("where", "says"), [("nowhere", "There is no run record at"), ("", "There are 2 run records")])
def test_a_mistake_on_the_command_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], where: str, says: str
) -> None:
    for name in ("a", "b"):
        recorded(tmp_path / name)
    assert main(["report", str(tmp_path / where) if where else str(tmp_path), "-o", str(tmp_path / "c.html")]) == 1
    assert says in capsys.readouterr().err
    assert not (tmp_path / "c.html").exists()


def test_what_can_not_be(tmp_path: Path) -> None:
    recorded(tmp_path / "run")
    run = read(tmp_path / "run")
    with pytest.raises(ValueError, match="needs a list of one run or two"):
        write_page(tmp_path / "run", tmp_path / "a.html")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="needs a list of one run or two"):
        write_page([run] * 3, tmp_path / "a.html")
    with pytest.raises(ValueError, match="a name for each run, got 1 for 2"):
        write_page([run, run], tmp_path / "a.html", ["only one"])
    manifest = tmp_path / "run" / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"format": 1', '"format": 99'))
    with pytest.raises(RecordError, match="has format 99"):
        write_page([tmp_path / "run"], tmp_path / "a.html")
    manifest.write_text("{")
    with pytest.raises(RecordError, match="is damaged"):
        write_page([tmp_path / "run"], tmp_path / "a.html")


def test_the_largest_page_stays_small(tmp_path: Path) -> None:
    from dataclasses import replace

    from gradguard.detect import Layout, Role
    from gradguard.record import History, Points

    recorded(tmp_path / "run")
    layers, steps = tuple(f"blocks.{i}.linear" for i in range(500)), torch.arange(1, 2001) * 500
    names = tuple(f"{layer}.weight" for layer in layers)
    values = torch.rand(2000, 500) + 0.1
    history = History(4000)
    for group in ("grad_norm", "update_ratio", "weight_norm"):
        history.extend(group, names, Points(steps, values, values, values))
    history.extend("grad_norm/total", ("",), Points(steps, values[:, :1], values[:, :1] / 2, values[:, :1] * 2))
    layout = Layout("optimizer", names, layers, (100,) * 500, (Role.WEIGHT,) * 500)
    run = replace(read(tmp_path / "run"), history=history, layouts={"optimizer": layout})
    assert write_page([run], tmp_path / "a.html").stat().st_size < 5_000_000


def test_a_manifest_of_something_else_is_no_record(tmp_path: Path) -> None:
    recorded(tmp_path / "run")
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "manifest.json").write_text("{}")
    assert find_record(tmp_path) == tmp_path / "run"
    assert find_record(tmp_path / "run" / "manifest.json") == tmp_path / "run"
    (tmp_path / "page.html").write_text("")
    with pytest.raises(RecordError, match="There is no run record at"):
        find_record(tmp_path / "page.html")


def test_a_name_that_is_no_text(tmp_path: Path) -> None:
    recorded(tmp_path / "run")
    assert write_page([tmp_path / "run"], tmp_path / "a.html", ["\udcff"]).exists()
